//! A client that deletes records, and sees that an acknowledged deletion stays: a log start is what was asked for, it
//! is what every later answer says at least, and nothing below it is given out, also after a crash or a power cut.

use bytes::Bytes;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{DeleteRecordsRequest, MetadataRequest};
use uuid::Uuid;

use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_in, topic_name};
use crate::history::Place;

const OUT_OF_RANGE: i16 = 1;
/// Errors after which it tries something else: topic, leader, timeout, storage.
const RETRIABLE: [i16; 5] = [3, 5, 6, 7, 56];

/// What was asked of one partition, and what was known when it was sent.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    place: Place,
    offset: i64,
    start_known: i64,
    end_known: i64,
}

#[derive(Debug)]
enum Ask {
    Metadata,
    Delete(Vec<Wanted>),
}

/// The client.
#[derive(Debug)]
pub struct Eraser {
    link: Link<Ask>,
    /// Topics that are never deleted: by name, a request must always mean the same one.
    topics: Vec<usize>,
    ids: Vec<Option<(Uuid, usize)>>,
    metadata_due: bool,
    not_before_us: u64,
    calm: bool,
}

impl Eraser {
    /// One that deletes records of these topics.
    pub fn new(topics: Vec<usize>) -> Self {
        Self {
            link: Link::new("eraser".into()),
            ids: vec![None; topics.len()],
            topics,
            metadata_due: true,
            not_before_us: 0,
            calm: false,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        let idle = self.link.is_up(stage) && self.link.in_flight() == 0;
        if !idle || stage.now_us < self.not_before_us || stage.calm {
            return;
        }
        if self.metadata_due {
            let names: Vec<String> = self.topics.iter().map(|topic| stage.names[*topic].clone()).collect();
            return self.link.send(&metadata_request(&names, 12), 12, Some(Ask::Metadata), stage);
        }
        self.delete(stage);
    }

    fn delete(&mut self, stage: &mut Stage) {
        let mut wanted = Vec::new();
        let mut request = DeleteRecordsRequest::default().with_timeout_ms(5_000);
        for (topic, known) in self.topics.iter().zip(&self.ids) {
            let Some((topic_id, count)) = known else { continue };
            let mut partitions = Vec::new();
            for index in 0..*count as i32 {
                if stage.random.bool() {
                    continue;
                }
                let place = (*topic_id, index);
                let (start_known, end_known) =
                    (stage.history.start_known(place), stage.history.end_known(place));
                let offset = match stage.random.u8(0..10) {
                    0 => -1,
                    1 => stage.random.i64(0..=end_known + 20),
                    2 => end_known,
                    _ => stage.random.i64(start_known.min(end_known)..=end_known),
                };
                stage.history.asks_deletion(place, offset);
                wanted.push(Wanted { place, offset, start_known, end_known });
                let asked = DeleteRecordsPartition::default().with_partition_index(index);
                partitions.push(asked.with_offset(offset));
            }
            let asked = DeleteRecordsTopic::default().with_name(topic_name(&stage.names[*topic]));
            request.topics.push(asked.with_partitions(partitions));
        }
        if wanted.is_empty() {
            self.metadata_due = true;
            self.not_before_us = stage.now_us + 50_000;
            return;
        }
        let version = stage.random.i16(0..=2);
        self.link.send(&request, version, Some(Ask::Delete(wanted)), stage);
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Metadata => {
                let metadata = response.decode::<MetadataRequest>();
                for (topic, id) in self.topics.iter().zip(&mut self.ids) {
                    *id = topic_in(&metadata, &stage.names[*topic]);
                }
                self.metadata_due = false;
            }
            Ask::Delete(wanted) => {
                let answer = response.decode::<DeleteRecordsRequest>();
                let parts: Vec<_> = answer.topics.iter().flat_map(|topic| &topic.partitions).collect();
                assert_eq!(parts.len(), wanted.len(), "a DeleteRecords response answers every partition");
                for (wanted, part) in wanted.iter().zip(parts) {
                    assert_eq!(part.partition_index, wanted.place.1, "partitions are answered in order");
                    self.deleted(*wanted, part.error_code, part.low_watermark, stage);
                }
                // Another connection is perhaps another shard's.
                if stage.random.u8(0..4) == 0 {
                    drop(self.link.close(stage));
                }
                self.metadata_due = stage.random.u8(0..4) == 0;
            }
        }
        self.not_before_us = stage.now_us + stage.random.u64(1_000..600_000);
    }

    fn deleted(&mut self, wanted: Wanted, error: i16, low_watermark: i64, stage: &mut Stage) {
        let Wanted { place, offset, start_known, end_known } = wanted;
        match error {
            0 => {
                let least = if offset == -1 { end_known } else { offset };
                assert!(
                    low_watermark >= least,
                    "not deleted: {place:?} starts at {low_watermark} where {least} was asked for"
                );
                stage.history.deletion_answered(place, offset, low_watermark);
                stage.history.saw_start(place, low_watermark, start_known, stage.wall_ms);
                if stage.random.u8(0..6) == 0 {
                    stage.actions.push(Action::CutPower { after_us: stage.random.u64(0..300_000) });
                }
            }
            OUT_OF_RANGE => {
                assert_eq!(low_watermark, -1, "a refused deletion has no low watermark");
                assert!(offset > end_known, "{place:?} has no offset {offset}, and {end_known} was its end");
            }
            error => assert!(RETRIABLE.contains(&error), "DeleteRecords: error {error} of {place:?}"),
        }
    }
}

impl Client for Eraser {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(response, stage);
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
        self.metadata_due = true;
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.calm = stage.calm;
        self.step(stage);
        stage.actions.push(Action::WakeAt(stage.now_us + stage.random.u64(5_000..80_000)));
    }

    fn is_done(&self) -> bool {
        self.calm && self.link.in_flight() == 0
    }

    fn state(&self) -> String {
        format!("{self:?}")
    }
}
