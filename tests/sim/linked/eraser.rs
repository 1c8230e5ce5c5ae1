//! A client that deletes records of one partition, wherever its leader is: what nobody asked to delete stays, and a
//! deletion that was acknowledged is one that the log start has reached.

use bytes::Bytes;
use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use super::PASSING;
use super::pilot::Pilot;
use crate::client::{Action, Client, Response, Stage, topic_name};
use crate::faults::Fault;

/// There is no such offset, or a new leader does not know yet how far the one before had committed.
const OUT_OF_RANGE: i16 = 1;

/// The client. What it asks is up to where (-1: the high watermark), and the high watermark that was known then.
#[derive(Debug)]
pub struct LinkedEraser {
    pilot: Pilot<(i64, i64)>,
    not_before_us: u64,
}

impl LinkedEraser {
    /// One that deletes records of a partition.
    pub fn new(place: (usize, i32)) -> Self {
        Self { pilot: Pilot::new(format!("eraser of {place:?}"), place), not_before_us: 0 }
    }

    fn step(&mut self, stage: &mut Stage) {
        let waits = stage.calm || stage.now_us < self.not_before_us || self.pilot.in_flight() > 0;
        if waits || !self.pilot.is_there(stage) {
            return;
        }
        let Some(place) = self.pilot.place() else { return };
        self.not_before_us = stage.now_us + stage.random.u64(1_000..1_500_000);
        let (start, end) = (stage.history.start_known(place), stage.history.end_known(place));
        let offset = match stage.random.u8(0..10) {
            0 => -1,
            1 => stage.random.i64(0..=end + 20),
            2 => end,
            _ => stage.random.i64(start.min(end)..=end),
        };
        stage.history.asks_deletion(place, offset);
        let partition = DeleteRecordsPartition::default().with_partition_index(place.1).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(&stage.names[self.pilot.topic()]))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
        let version = stage.random.i16(0..=2);
        self.pilot.send(&request, version, Some((offset, end)), stage);
    }

    fn answered(&mut self, response: &Response<Option<(i64, i64)>>, stage: &mut Stage) {
        let (Some((offset, end_known)), Some(place)) = (response.ask, self.pilot.place()) else { return };
        let answer = response.decode::<DeleteRecordsRequest>();
        let part = &answer.topics[0].partitions[0];
        match part.error_code {
            0 => {
                let least = offset.max(0);
                assert!(
                    part.low_watermark >= least,
                    "not deleted: {place:?} starts at {} where {offset} was asked for, and {end_known} was its end",
                    part.low_watermark
                );
                stage.history.deletion_answered(place, offset, part.low_watermark);
                stage.history.saw_start(place, part.low_watermark, 0, stage.wall_ms);
                stage.actions.push(Action::Hit(Fault::Deletion));
            }
            OUT_OF_RANGE => {}
            error => {
                assert!(PASSING.contains(&error), "DeleteRecords: error {error} of {place:?}");
                self.pilot.denied(stage);
            }
        }
    }
}

impl Client for LinkedEraser {
    fn opened(&mut self, stage: &mut Stage) {
        self.pilot.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.pilot.received(&bytes, stage) {
            self.answered(&response, stage);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.pilot.closed(stage));
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.pilot.look_sometimes(stage);
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        true
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
