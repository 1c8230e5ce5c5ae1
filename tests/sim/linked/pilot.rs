//! Finds the leader of a partition and goes where it went, as clients of Kafka do: it asks any broker, goes to the
//! leader that is named there, and looks again when that one denies it, or cannot be reached. What it has learned
//! of a leader epoch it never takes back (KIP-320): a broker that is behind cannot send it to a leader of old. A topic
//! that is made again begins anew, epochs and all.

use std::fmt::Debug;

use bytes::Bytes;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse};
use kafka_protocol::protocol::Request;
use uuid::Uuid;

use crate::client::{Link, Response, Stage, metadata_request};
use crate::history::Place;

/// What a topic may be told to be: there, not known (yet) or without a leader.
const TOPIC_ERRORS: [i16; 3] = [0, 3, 5];
/// What a partition may be told to be: led, without a leader, or one whose leader is nowhere to be reached.
const PARTITION_ERRORS: [i16; 3] = [0, 5, 9];

/// A client's way to the leader of one partition. `A` says what its requests are for.
#[derive(Debug)]
pub struct Pilot<A> {
    /// A request without a purpose asks for metadata.
    link: Link<Option<A>>,
    topic: usize,
    partition: i32,
    topic_id: Option<Uuid>,
    /// The topic is another one than before, and nobody has asked yet.
    is_anew: bool,
    leader: Option<i32>,
    leader_epoch: i32,
    /// Another replica than the leader that it goes to, because the leader said so.
    nearer: Option<i32>,
    look_due: bool,
    /// How often it was denied since its connection was opened.
    denials: u32,
    not_before_us: u64,
}

/// A topic's partition in an answer, with the topic's id; none where it is not there.
pub fn partition_in<'a>(
    response: &'a MetadataResponse,
    name: &str,
    index: i32,
) -> Option<(Uuid, &'a MetadataResponsePartition)> {
    let is_it = |of: &&kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
        of.name.as_ref().is_some_and(|other| other.as_str() == name)
    };
    let topic = response.topics.iter().find(is_it)?;
    assert!(TOPIC_ERRORS.contains(&topic.error_code), "topic {name} has error {}", topic.error_code);
    let partition = topic.partitions.iter().find(|partition| partition.partition_index == index)?;
    let error = partition.error_code;
    assert!(PARTITION_ERRORS.contains(&error), "partition {index} of {name} has error {error}");
    Some((topic.topic_id, partition))
}

impl<A: Debug> Pilot<A> {
    /// One that knows nobody yet.
    pub fn new(name: String, (topic, partition): (usize, i32)) -> Self {
        Self {
            link: Link::new(name),
            topic,
            partition,
            topic_id: None,
            is_anew: false,
            leader: None,
            leader_epoch: -1,
            nearer: None,
            look_due: true,
            denials: 0,
            not_before_us: 0,
        }
    }

    /// The partition, once the topic is known.
    pub fn place(&self) -> Option<Place> {
        Some((self.topic_id?, self.partition))
    }

    /// Whether the topic was found to be another one of its name since this was asked: what was known of it is void.
    pub fn is_anew(&mut self) -> bool {
        std::mem::take(&mut self.is_anew)
    }

    /// The topic's index.
    pub fn topic(&self) -> usize {
        self.topic
    }

    /// The leader epoch that it counts on.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// How many connections it has had.
    pub fn number(&self) -> u64 {
        self.link.number
    }

    /// Its leader sends it to another replica, or (none) it goes back to the leader.
    pub fn sent_to(&mut self, nearer: Option<i32>) {
        self.nearer = nearer;
    }

    /// Whether it asks another replica than the leader.
    pub fn is_nearer(&self) -> bool {
        self.nearer.is_some()
    }

    /// Requests that are not answered.
    pub fn in_flight(&self) -> usize {
        self.link.in_flight()
    }

    /// Whether it may be asked now what only the leader answers. If not it does something about that, unless something
    /// is not answered yet.
    pub fn is_there(&mut self, stage: &mut Stage) -> bool {
        if !self.link.is_up(stage) || stage.now_us < self.not_before_us {
            return false;
        }
        if self.look_due {
            if self.link.in_flight() == 0 {
                // Who denies it may be cut off from all that has happened since.
                if self.denials > 0 && stage.random.u8(0..4) == 0 {
                    drop(self.link.go_to(None, stage));
                } else {
                    self.look(stage);
                }
            }
            return false;
        }
        let goal = self.nearer.or(self.leader);
        if goal.is_some() && goal == self.link.at() {
            return true;
        }
        if self.link.in_flight() == 0 {
            drop(self.link.go_to(goal, stage));
        }
        false
    }

    /// Whether any broker may be asked now.
    pub fn is_anywhere(&mut self, stage: &mut Stage) -> bool {
        self.link.is_up(stage) && stage.now_us >= self.not_before_us
    }

    fn look(&mut self, stage: &mut Stage) {
        let version = stage.random.i16(10..=12);
        let request = metadata_request(&stage.names[self.topic..=self.topic], version);
        self.link.send(&request, version, Some(None), stage);
    }

    /// Sends a request; without a purpose there will be no response.
    pub fn send<R: Request>(&mut self, request: &R, version: i16, ask: Option<A>, stage: &mut Stage) {
        match ask {
            Some(ask) => self.link.send(request, version, Some(Some(ask)), stage),
            None => self.link.send(request, version, None, stage),
        }
    }

    /// A passing error: it looks where the leader is, after a while.
    pub fn denied(&mut self, stage: &mut Stage) {
        self.nearer = None;
        self.look_due = true;
        self.denials += 1;
        self.rest(stage);
    }

    /// It waits a little.
    pub fn rest(&mut self, stage: &mut Stage) {
        self.not_before_us = stage.now_us + stage.random.u64(1_000..100_000);
    }

    /// It looks again now and then.
    pub fn look_sometimes(&mut self, stage: &mut Stage) {
        self.look_due |= stage.random.u8(0..30) == 0;
    }

    /// Whole responses, oldest first, but for those that were for itself.
    pub fn received(&mut self, bytes: &Bytes, stage: &mut Stage) -> Vec<Response<Option<A>>> {
        let mut left = Vec::new();
        for response in self.link.received(bytes) {
            if response.ask.is_some() {
                left.push(response);
            } else {
                self.looked(&response.decode::<MetadataRequest>(), stage);
            }
        }
        left
    }

    fn looked(&mut self, metadata: &MetadataResponse, stage: &mut Stage) {
        self.look_due = false;
        let found = partition_in(metadata, &stage.names[self.topic], self.partition);
        if let Some((id, found)) = found {
            if self.topic_id.replace(id).is_some_and(|known| known != id) {
                assert!(stage.is_made_again(self.topic), "the topic changed its id");
                (self.is_anew, self.nearer) = (true, None);
                (self.leader, self.leader_epoch) = (None, -1);
            }
            if found.leader_epoch >= self.leader_epoch {
                self.leader_epoch = found.leader_epoch;
                self.leader = Some(found.leader_id.0).filter(|id| *id > 0);
            }
        }
        if self.leader.is_none() {
            // Another broker may know more.
            self.denied(stage);
            if stage.random.bool() && self.link.in_flight() == 0 {
                drop(self.link.go_to(None, stage));
            }
        }
    }

    /// Its connection is open.
    pub fn opened(&mut self) {
        if self.nearer != self.link.at() {
            self.nearer = None;
        }
        self.link.opened();
        self.look_due = true;
        self.denials = 0;
    }

    /// Its connection is gone, and what was asked on it.
    pub fn closed(&mut self, stage: &mut Stage) -> Vec<A> {
        self.link.closed(stage).into_iter().flatten().collect()
    }
}
