//! Reads everything at the end of a run, when nothing fails any more, and compares it with the history.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, MetadataRequest};

use crate::client::{Action, Client, Link, Stage, metadata_request, topic_in, topic_name};
use crate::history::Place;

/// A log that is being recovered, or whose log directory is offline until the next start.
const RETRIABLE: [i16; 2] = [6, 56];

/// Asks where a partition starts.
const EARLIEST: i64 = -2;

#[derive(Debug)]
enum Ask {
    Metadata,
    Read,
    Offset(Option<i64>),
}

/// A partition to read.
#[derive(Clone, Copy, Debug)]
struct Target {
    topic: usize,
    place: Place,
}

/// The auditor.
#[derive(Debug)]
pub struct Auditor {
    link: Link<Ask>,
    targets: Vec<Target>,
    at: usize,
    /// Where the partition starts, once that is known.
    start: Option<i64>,
    position: i64,
    /// Timestamps still to be looked up in the partition that was read.
    look_ups: Vec<Option<i64>>,
    ends: BTreeMap<Place, i64>,
    not_before_us: u64,
    /// It goes to another broker, and on there.
    elsewhere: bool,
    done: bool,
}

impl Auditor {
    /// An auditor that has seen nothing.
    pub fn new() -> Self {
        Self {
            link: Link::new("auditor".into()),
            targets: Vec::new(),
            at: 0,
            start: None,
            position: 0,
            look_ups: Vec::new(),
            ends: BTreeMap::new(),
            not_before_us: 0,
            elsewhere: false,
            done: false,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if self.done
            || !self.link.is_up(stage)
            || self.link.in_flight() > 0
            || stage.now_us < self.not_before_us
        {
            return;
        }
        if self.targets.is_empty() {
            return self.link.send(&metadata_request(stage.names, 12), 12, Some(Ask::Metadata), stage);
        }
        let Some(target) = self.targets.get(self.at).copied() else {
            stage.history.check_acked(&self.ends);
            self.done = true;
            return;
        };
        match self.look_ups.pop() {
            Some(timestamp_ms) => self.look_up(target, timestamp_ms, stage),
            None if self.start.is_none() => self.look_up(target, Some(EARLIEST), stage),
            None => self.read(target, stage),
        }
    }

    fn read(&mut self, target: Target, stage: &mut Stage) {
        let max_bytes = *stage.random.choice(&[1, 700, 10_000, 1 << 20]).expect("some");
        let partition = FetchPartition::default()
            .with_partition(target.place.1)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(self.position)
            .with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default().with_topic_id(target.place.0).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.link.send(&request, 13, Some(Ask::Read), stage);
    }

    fn look_up(&mut self, target: Target, timestamp_ms: Option<i64>, stage: &mut Stage) {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(target.place.1)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp_ms.unwrap_or(-1));
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&stage.names[target.topic]))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        self.link.send(&request, 7, Some(Ask::Offset(timestamp_ms)), stage);
    }

    fn try_later(&mut self, error: i16, stage: &Stage) {
        self.not_before_us = stage.now_us + 50_000;
        self.elsewhere = stage.leads_elsewhere(error);
    }

    fn next_partition(&mut self) {
        self.at += 1;
        (self.start, self.position) = (None, 0);
    }

    fn found_end(&mut self, target: Target, stage: &mut Stage) {
        let (start, end) = (self.start.expect("it was read from there"), self.position);
        stage.history.check_whole(target.place, start, end);
        self.ends.insert(target.place, end);
        self.look_ups.push(None);
        if !stage.history.log_append_time() {
            for _ in 0..4 {
                self.look_ups.push(Some(stage.wall_ms - stage.random.i64(0..20_000)));
            }
        }
    }
}

impl Client for Auditor {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            match &response.ask {
                Ask::Metadata => {
                    let metadata = response.decode::<MetadataRequest>();
                    for (topic, name) in stage.names.iter().enumerate() {
                        let (id, partitions) =
                            topic_in(&metadata, name).expect("every topic is there in the end");
                        let places = (0..partitions as i32).map(|partition| (id, partition));
                        self.targets.extend(places.map(|place| Target { topic, place }));
                    }
                }
                Ask::Read => {
                    let target = self.targets[self.at];
                    let answer = response.decode::<FetchRequest>();
                    let part = &answer.responses[0].partitions[0];
                    if RETRIABLE.contains(&part.error_code) {
                        self.try_later(part.error_code, stage);
                        continue;
                    }
                    assert_eq!((answer.error_code, part.error_code), (0, 0), "the last read of {target:?}");
                    let end = part.high_watermark;
                    stage.history.saw_end(target.place, end, stage.history.end_known(target.place));
                    let records = part.records.clone().unwrap_or_default();
                    let (topic, from) = (target.topic, self.position);
                    self.position = stage.history.fetched(target.place, topic, from, end, &records);
                    assert!(
                        self.position > from || from == end,
                        "{target:?} gives nothing at {from} of {end}"
                    );
                    if self.position == end {
                        self.found_end(target, stage);
                    }
                }
                Ask::Offset(timestamp_ms) => {
                    let target = self.targets[self.at];
                    let answer = response.decode::<ListOffsetsRequest>();
                    let part = &answer.topics[0].partitions[0];
                    if self.start.is_none() && RETRIABLE.contains(&part.error_code) {
                        self.try_later(part.error_code, stage);
                        continue;
                    }
                    assert_eq!(part.error_code, 0, "the last look-up in {target:?}");
                    match timestamp_ms {
                        Some(EARLIEST) => {
                            let known = stage.history.start_known(target.place);
                            stage.history.saw_start(target.place, part.offset, known, stage.wall_ms);
                            (self.start, self.position) = (Some(part.offset), part.offset);
                            continue;
                        }
                        None => assert_eq!(part.offset, self.position, "the end of {target:?}"),
                        Some(at) => {
                            let start = self.start.expect("it was read from there");
                            let first = stage.history.first_at(target.place, start, *at);
                            let expected = first.unwrap_or((-1, -1));
                            let found = (part.offset, part.timestamp);
                            assert_eq!(found, expected, "the first record of {target:?} at {at}");
                        }
                    }
                    if self.look_ups.is_empty() {
                        self.next_partition();
                    }
                }
            }
        }
        if std::mem::take(&mut self.elsewhere) {
            drop(self.link.close(stage));
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
        (self.at, self.start, self.position) = (0, None, 0);
        self.targets.clear();
        self.look_ups.clear();
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
