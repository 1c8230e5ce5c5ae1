//! Reads one partition from its start to its end, when nothing fails any more, and compares it with the history.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest};

use super::PASSING;
use super::pilot::Pilot;
use crate::client::{Action, Client, Response, Stage, topic_name};
use crate::history::Place;

const OUT_OF_RANGE: i16 = 1;

/// What was asked: the offset, or -1 for where the log starts, and the end that was known.
type Ask = (i64, i64);

/// The auditor.
#[derive(Debug)]
pub struct LinkedAuditor {
    pilot: Pilot<Ask>,
    position: i64,
    /// Where the log starts, as far as that is known.
    start: i64,
    /// What was there before may have been given up.
    is_unclean: bool,
    done: bool,
}

impl LinkedAuditor {
    /// One that has read nothing.
    pub fn new(place: (usize, i32), is_unclean: bool) -> Self {
        let pilot = Pilot::new(format!("auditor of {place:?}"), place);
        Self { pilot, position: 0, start: 0, is_unclean, done: false }
    }

    fn step(&mut self, stage: &mut Stage) {
        if self.done || !self.pilot.is_there(stage) || self.pilot.in_flight() > 0 {
            return;
        }
        let Some((topic_id, index)) = self.pilot.place() else { return };
        if std::mem::take(&mut self.is_unclean) {
            stage.history.forget((topic_id, index));
        }
        if self.position < 0 {
            return self.look_up(index, stage);
        }
        let max_bytes = *stage.random.choice(&[1, 700, 10_000, 1 << 20]).expect("some");
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_current_leader_epoch(self.pilot.leader_epoch())
            .with_fetch_offset(self.position)
            .with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default().with_topic_id(topic_id).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let known = stage.history.end_known((topic_id, index));
        self.pilot.send(&request, 13, Some((self.position, known)), stage);
    }

    /// Asks where the log starts.
    fn look_up(&mut self, index: i32, stage: &mut Stage) {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_current_leader_epoch(self.pilot.leader_epoch())
            .with_timestamp(-2);
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&stage.names[self.pilot.topic()]))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        self.pilot.send(&request, 6, Some((-1, 0)), stage);
    }

    fn told_start(&mut self, response: &Response<Option<Ask>>, place: Place, stage: &mut Stage) {
        let answer = response.decode::<ListOffsetsRequest>();
        let part = &answer.topics[0].partitions[0];
        if part.error_code != 0 {
            assert!(PASSING.contains(&part.error_code), "the last look-up: error {}", part.error_code);
            return self.pilot.denied(stage);
        }
        stage.history.saw_start(place, part.offset, 0, stage.wall_ms);
        (self.start, self.position) = (part.offset, part.offset);
    }

    fn answered(&mut self, response: &Response<Option<Ask>>, stage: &mut Stage) {
        let (Some((from, known)), Some(place)) = (response.ask, self.pilot.place()) else { return };
        if from < 0 {
            return self.told_start(response, place, stage);
        }
        let answer = response.decode::<FetchRequest>();
        let part = &answer.responses[0].partitions[0];
        if part.error_code == OUT_OF_RANGE {
            assert!(
                stage.history.may_be_gone(place, from),
                "missing: {place:?} has nothing at {from}, and nobody had it deleted"
            );
            self.position = -1;
            return;
        }
        if part.error_code != 0 {
            assert!(PASSING.contains(&part.error_code), "the last read: error {}", part.error_code);
            return self.pilot.denied(stage);
        }
        let end = part.high_watermark;
        if end < known {
            // A leader learns from its followers how far it had committed.
            return self.pilot.rest(stage);
        }
        stage.history.saw_end(place, end, known);
        let records = part.records.clone().unwrap_or_default();
        self.position = stage.history.fetched(place, self.pilot.topic(), from, end, &records);
        assert!(self.position > from || from == end, "{place:?} gives nothing at {from} of {end}");
        if self.position == end {
            stage.history.check_whole(place, self.start, end);
            stage.history.check_acked(&BTreeMap::from([(place, end)]));
            self.done = true;
        }
    }
}

impl Client for LinkedAuditor {
    fn opened(&mut self, stage: &mut Stage) {
        self.pilot.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.pilot.received(&bytes, stage) {
            self.answered(&response, stage);
        }
        if self.pilot.is_anew() {
            (self.position, self.start, self.done) = (0, 0, false);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.pilot.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + 10_000));
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
