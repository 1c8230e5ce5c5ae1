//! A consumer of one partition. It tells the leader epoch that it counts on, so a leader of old cannot answer it;
//! what it has been shown once is there wherever it goes, unless somebody had it deleted. Some have a fetch session,
//! and some are in a rack: their leader sends them to a replica in it (KIP-392).

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest};
use kafka_protocol::protocol::StrBytes;

use super::pilot::Pilot;
use super::{PASSING, check_epochs};
use crate::client::{Action, Client, Response, Stage, topic_name};
use crate::faults::Fault;

const OUT_OF_RANGE: i16 = 1;
/// The first version in which topics are named by their ids.
const NAMES_IDS: i16 = 13;
/// The session is not there (any more), or somewhere else in its course.
const SESSION_ERRORS: [i16; 2] = [70, 71];

/// Where a request was sent to, and what it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    connection: u64,
    leader_epoch: i32,
    position: i64,
}

#[derive(Debug)]
enum Ask {
    Fetch(Sent),
    /// The end, which is at least so far.
    End(i64),
    Start,
}

/// A fetch session on one connection.
#[derive(Clone, Copy, Debug)]
struct Session {
    connection: u64,
    id: i32,
    epoch: i32,
    /// What the leader knows to be asked for.
    told: Sent,
}

/// One consumer.
#[derive(Debug)]
pub struct LinkedConsumer {
    pilot: Pilot<Ask>,
    version: i16,
    position: i64,
    /// The highest end that it was told.
    end: i64,
    /// The connection, leader epoch and watermark of the last fetch: within the first two the last does not fall.
    shown: (u64, i32, i64),
    max_bytes: i32,
    wait_ms: i32,
    seeks: bool,
    rack: String,
    has_sessions: bool,
    session: Option<Session>,
}

impl LinkedConsumer {
    /// A consumer of a partition, in a rack or none.
    pub fn new(number: usize, place: (usize, i32), rack: Option<String>, stage: &mut Stage) -> Self {
        let is_made_again = stage.is_made_again(place.0);
        let random = &mut *stage.random;
        Self {
            pilot: Pilot::new(format!("consumer {number}"), place),
            // Older ones do not know every codec, or name a topic of which nobody knows which one it is.
            version: random.i16(if is_made_again { NAMES_IDS } else { 10 }..=18),
            position: 0,
            end: 0,
            shown: (0, -1, 0),
            max_bytes: *random.choice(&[1, 500, 5_000, 1 << 20]).expect("some"),
            wait_ms: *random.choice(&[0, 10, 500, 3_000]).expect("some"),
            seeks: random.bool(),
            rack: rack.unwrap_or_default(),
            has_sessions: number % 2 == 1,
            session: None,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.pilot.is_there(stage) || self.pilot.in_flight() > 0 {
            return;
        }
        if stage.random.u8(0..12) == 0 {
            // Only leaders know, and by name nobody knows of which topic.
            if !self.pilot.is_nearer() && !stage.is_made_again(self.pilot.topic()) {
                self.look_up(-1, stage);
            }
        }
        if self.seeks && stage.random.u8(0..12) == 0 && !stage.calm {
            self.position = stage.random.i64(0..=self.end);
        }
        self.fetch(stage);
    }

    fn fetch(&mut self, stage: &mut Stage) {
        let Some((topic_id, index)) = self.pilot.place() else { return };
        let (connection, leader_epoch) = (self.pilot.number(), self.pilot.leader_epoch());
        let sent = Sent { connection, leader_epoch, position: self.position };
        self.session = self.session.filter(|session| session.connection == connection);
        let is_told = self.session.is_some_and(|session| session.told == sent);
        let session = self.session.map_or((0, 0), |session| (session.id, session.epoch));
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(leader_epoch)
            .with_fetch_offset(self.position)
            .with_partition_max_bytes(self.max_bytes);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let name = topic_name(&stage.names[self.pilot.topic()]);
        let topic =
            if self.version >= NAMES_IDS { topic.with_topic_id(topic_id) } else { topic.with_topic(name) };
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(if stage.calm { self.wait_ms.min(50) } else { self.wait_ms })
            .with_min_bytes(stage.random.i32(0..=2))
            .with_max_bytes(1 << 20)
            .with_isolation_level(stage.random.i8(0..=1))
            .with_session_id(session.0)
            .with_session_epoch(if self.has_sessions { session.1 } else { -1 })
            .with_topics(if is_told { Vec::new() } else { vec![topic] });
        let has_rack = self.version >= 11 && !self.rack.is_empty();
        let rack = StrBytes::from_string(self.rack.clone());
        let request = if has_rack { request.with_rack_id(rack) } else { request };
        self.pilot.send(&request, self.version, Some(Ask::Fetch(sent)), stage);
    }

    /// Asks for the end (-1) or the start (-2).
    fn look_up(&mut self, timestamp: i64, stage: &mut Stage) {
        let Some((_, index)) = self.pilot.place() else { return };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(self.pilot.leader_epoch())
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&stage.names[self.pilot.topic()]))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let version = stage.random.i16(4..=10);
        let ask = if timestamp == -1 { Ask::End(self.end) } else { Ask::Start };
        self.pilot.send(&request, version, Some(ask), stage);
    }

    fn answered(&mut self, response: Response<Option<Ask>>, stage: &mut Stage) {
        match &response.ask {
            None => {}
            Some(Ask::Fetch(sent)) => self.fetched(&response, *sent, stage),
            Some(Ask::End(at_least)) => {
                let answer = response.decode::<ListOffsetsRequest>();
                let part = &answer.topics[0].partitions[0];
                match part.error_code {
                    0 => self.told_end(part.offset, *at_least, stage),
                    error => self.failed("ListOffsets", error, stage),
                }
            }
            Some(Ask::Start) => {
                let answer = response.decode::<ListOffsetsRequest>();
                let part = &answer.topics[0].partitions[0];
                let Some(place) = self.pilot.place() else { return };
                match part.error_code {
                    0 => {
                        stage.history.saw_start(place, part.offset, 0, stage.wall_ms);
                        self.position = part.offset;
                    }
                    error => self.failed("ListOffsets", error, stage),
                }
            }
        }
    }

    /// Nothing is at its position: it was deleted, or this replica has not come so far.
    fn out_of_range(&mut self, position: i64, stage: &mut Stage) {
        let Some(place) = self.pilot.place() else { return };
        if self.pilot.is_nearer() {
            return self.pilot.denied(stage);
        }
        assert!(
            stage.history.may_be_gone(place, position),
            "missing: {place:?} has nothing at {position}, and nobody had it deleted"
        );
        self.look_up(-2, stage);
    }

    /// The session goes on, or is none.
    fn session_answered(&mut self, answer: &FetchResponse, sent: Sent) {
        let epoch = self.session.map_or(0, |session| session.epoch);
        if let Some(session) = self.session {
            assert_eq!(answer.session_id, session.id, "a session keeps its id");
        }
        let id = answer.session_id;
        let session = Session { connection: sent.connection, id, epoch: epoch + 1, told: sent };
        self.session = Some(session).filter(|_| self.has_sessions && id != 0);
    }

    fn told_end(&mut self, end: i64, at_least: i64, stage: &mut Stage) {
        let Some(place) = self.pilot.place() else { return };
        stage.history.saw_end(place, end, at_least);
        self.end = self.end.max(end);
    }

    fn failed(&mut self, what: &str, error: i16, stage: &mut Stage) {
        assert!(PASSING.contains(&error), "{what}: error {error} at {} of {:?}", self.position, self.pilot);
        self.pilot.denied(stage);
    }

    fn fetched(&mut self, response: &Response<Option<Ask>>, sent: Sent, stage: &mut Stage) {
        let Sent { connection: number, leader_epoch: epoch, position } = sent;
        let answer = response.decode::<FetchRequest>();
        let is_incremental = self.session.is_some();
        if answer.error_code != 0 {
            assert!(
                SESSION_ERRORS.contains(&answer.error_code) && is_incremental,
                "fetch: error {}",
                answer.error_code
            );
            self.session = None;
            return;
        }
        self.session_answered(&answer, sent);
        let part = answer.responses.first().and_then(|topic| topic.partitions.first());
        let Some(part) = part else {
            assert!(is_incremental, "a full fetch answers every partition");
            return;
        };
        match part.error_code {
            0 => {}
            OUT_OF_RANGE => return self.out_of_range(position, stage),
            error => return self.failed("fetch", error, stage),
        }
        let Some(place) = self.pilot.place() else { return };
        if part.preferred_read_replica.0 >= 0 {
            let is_sent = !self.rack.is_empty() && !self.pilot.is_nearer();
            assert!(is_sent, "{place:?} sends to {}", part.preferred_read_replica.0);
            return self.pilot.sent_to(Some(part.preferred_read_replica.0));
        }
        if self.pilot.is_nearer() {
            stage.actions.push(Action::Hit(Fault::NearerRead));
        }
        let watermark = part.high_watermark;
        let (shown_on, shown_in, shown) = self.shown;
        assert!(
            (shown_on, shown_in) != (number, epoch) || watermark >= shown,
            "hw regression: {place:?} showed {shown} in epoch {epoch} and now {watermark}"
        );
        self.shown = (number, epoch, watermark);
        self.told_end(watermark, 0, stage);
        let records = part.records.clone().unwrap_or_default();
        check_epochs(place, epoch, &records);
        let next = stage.history.fetched(place, self.pilot.topic(), position, watermark, &records);
        self.position = if self.position == position { next } else { self.position };
        if stage.random.u8(0..40) == 0 {
            self.pilot.sent_to(None);
        }
    }
}

impl Client for LinkedConsumer {
    fn opened(&mut self, stage: &mut Stage) {
        self.pilot.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.pilot.received(&bytes, stage) {
            self.answered(response, stage);
        }
        if self.pilot.is_anew() {
            (self.position, self.end, self.shown, self.session) = (0, 0, (0, -1, 0), None);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.pilot.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.pilot.look_sometimes(stage);
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..60_000)));
    }

    fn is_done(&self) -> bool {
        true
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
