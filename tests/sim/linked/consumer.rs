//! A consumer of one partition. It tells the leader epoch that it counts on, so a leader of old cannot answer it;
//! what it has been shown once is there wherever it goes.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest};

use super::pilot::Pilot;
use super::{PASSING, check_epochs};
use crate::client::{Action, Client, Response, Stage, topic_name};

/// Where a request was sent to, and what it asked: connection, leader epoch, offset.
type Sent = (u64, i32, i64);

#[derive(Debug)]
enum Ask {
    Fetch(Sent),
    /// The end, which is at least so far.
    End(i64),
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
}

impl LinkedConsumer {
    /// A consumer of a partition.
    pub fn new(number: usize, place: (usize, i32), stage: &mut Stage) -> Self {
        let random = &mut *stage.random;
        Self {
            pilot: Pilot::new(format!("consumer {number}"), place),
            // Older ones do not know every codec.
            version: random.i16(10..=18),
            position: 0,
            end: 0,
            shown: (0, -1, 0),
            max_bytes: *random.choice(&[1, 500, 5_000, 1 << 20]).expect("some"),
            wait_ms: *random.choice(&[0, 10, 500, 3_000]).expect("some"),
            seeks: random.bool(),
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.pilot.is_there(stage) || self.pilot.in_flight() > 0 {
            return;
        }
        if stage.random.u8(0..12) == 0 {
            self.look_up(stage);
        }
        if self.seeks && stage.random.u8(0..12) == 0 && !stage.calm {
            self.position = stage.random.i64(0..=self.end);
        }
        self.fetch(stage);
    }

    fn fetch(&mut self, stage: &mut Stage) {
        let Some((topic_id, index)) = self.pilot.place() else { return };
        let epoch = self.pilot.leader_epoch();
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(epoch)
            .with_fetch_offset(self.position)
            .with_partition_max_bytes(self.max_bytes);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let name = topic_name(&stage.names[self.pilot.topic()]);
        let topic = if self.version >= 13 { topic.with_topic_id(topic_id) } else { topic.with_topic(name) };
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(if stage.calm { self.wait_ms.min(50) } else { self.wait_ms })
            .with_min_bytes(stage.random.i32(0..=2))
            .with_max_bytes(1 << 20)
            .with_isolation_level(stage.random.i8(0..=1))
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let sent = (self.pilot.number(), epoch, self.position);
        self.pilot.send(&request, self.version, Some(Ask::Fetch(sent)), stage);
    }

    fn look_up(&mut self, stage: &mut Stage) {
        let Some((_, index)) = self.pilot.place() else { return };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(self.pilot.leader_epoch())
            .with_timestamp(-1);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&stage.names[self.pilot.topic()]))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let version = stage.random.i16(4..=10);
        self.pilot.send(&request, version, Some(Ask::End(self.end)), stage);
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
        }
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

    fn fetched(
        &mut self,
        response: &Response<Option<Ask>>,
        (number, epoch, position): Sent,
        stage: &mut Stage,
    ) {
        let answer = response.decode::<FetchRequest>();
        assert_eq!(answer.error_code, 0, "a fetch without a session");
        let part = answer.responses.first().and_then(|topic| topic.partitions.first());
        let part = part.expect("a full fetch answers every partition");
        if part.error_code != 0 {
            return self.failed("fetch", part.error_code, stage);
        }
        let Some(place) = self.pilot.place() else { return };
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
