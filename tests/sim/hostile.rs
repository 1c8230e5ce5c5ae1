//! A client that means no good: random bytes, damaged requests, lengths that lie, frames that never end. It has
//! connections of its own; whatever it does, nobody else may notice.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiVersionsRequest, FetchRequest, ListOffsetsRequest};

use crate::client::{Action, Client, Link, Stage, metadata_request, topic_name};

/// One hostile client.
#[derive(Debug)]
pub struct Hostile {
    link: Link<()>,
}

impl Hostile {
    /// One that has done nothing yet.
    pub fn new(number: usize) -> Self {
        Self { link: Link::new(format!("hostile {number}")) }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || stage.calm {
            return;
        }
        match stage.random.u8(0..6) {
            0 => self.send_random(stage),
            1 => self.send_random_body(stage),
            2..=4 => self.send_damaged(stage),
            _ => drop(self.link.close(stage)),
        }
    }

    fn send_random(&mut self, stage: &mut Stage) {
        let length = stage.random.usize(1..200);
        let bytes: Vec<u8> = (0..length).map(|_| stage.random.u8(..)).collect();
        stage.actions.push(Action::Send(Bytes::from(bytes)));
    }

    /// An API that may be served, with a body that nobody made.
    fn send_random_body(&mut self, stage: &mut Stage) {
        let length = stage.random.u32(4..150);
        let said = if stage.random.u8(0..4) == 0 { stage.random.u32(..) } else { length + 4 };
        let mut bytes = said.to_be_bytes().to_vec();
        bytes.extend(stage.random.i16(-1..80).to_be_bytes());
        bytes.extend(stage.random.i16(0..14).to_be_bytes());
        bytes.extend((0..length).map(|_| if stage.random.bool() { 0 } else { stage.random.u8(..) }));
        stage.actions.push(Action::Send(Bytes::from(bytes)));
    }

    /// A request that only reads, with some of its bytes changed behind API and version.
    fn send_damaged(&mut self, stage: &mut Stage) {
        let first = stage.actions.len();
        match stage.random.u8(0..4) {
            0 => {
                let version = stage.random.i16(0..=4);
                self.link.send(&ApiVersionsRequest::default(), version, None, stage);
            }
            1 => {
                let version = stage.random.i16(4..=12);
                // Not of the others' topics: a changed bit may ask for their creation.
                let request = metadata_request(&["nobodys".to_string()], version);
                self.link.send(&request, version, None, stage);
            }
            2 => {
                let request = ListOffsetsRequest::default().with_replica_id((-1).into());
                let version = stage.random.i16(1..=8);
                self.link.send(&request, version, None, stage);
            }
            _ => {
                let partition = FetchPartition::default()
                    .with_partition(stage.random.i32(-1..3))
                    .with_fetch_offset(stage.random.i64(-5..500))
                    .with_partition_max_bytes(stage.random.i32(..));
                let topic = FetchTopic::default()
                    .with_topic(topic_name(&stage.names[0]))
                    .with_partitions(vec![partition]);
                let request = FetchRequest::default()
                    .with_max_wait_ms(stage.random.i32(..))
                    .with_min_bytes(stage.random.i32(..))
                    .with_session_epoch(stage.random.i32(-1..3))
                    .with_topics(vec![topic]);
                let version = stage.random.i16(4..=12);
                self.link.send(&request, version, None, stage);
            }
        }
        for action in &mut stage.actions[first..] {
            let Action::Send(bytes) = action else { continue };
            let mut damaged = bytes.to_vec();
            for _ in 0..stage.random.usize(0..4) {
                let at = stage.random.usize(8..damaged.len());
                damaged[at] = stage.random.u8(..);
            }
            if stage.random.u8(0..4) == 0 {
                damaged.truncate(stage.random.usize(1..=damaged.len()));
            }
            *bytes = Bytes::from(damaged);
        }
    }
}

impl Client for Hostile {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, _: Bytes, _: &mut Stage) {}

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..300_000)));
    }

    fn is_done(&self) -> bool {
        true
    }

    fn is_hostile(&self) -> bool {
        true
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
