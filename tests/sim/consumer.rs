//! Consumers: fetch sessions or none, long polls, small byte limits, now and then a look-up or a jump.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, MetadataRequest};
use uuid::Uuid;

use crate::client::{Action, Client, Link, Response, Stage, metadata_request, topic_in, topic_name};

const OUT_OF_RANGE: i16 = 1;
const UNSUPPORTED_COMPRESSION: i16 = 76;
/// Errors after which a consumer looks for the topic again.
const RETRIABLE: [i16; 6] = [3, 5, 6, 56, 100, 103];
/// Errors after which a session is made anew.
const SESSION_ERRORS: [i16; 3] = [70, 71, 106];

/// A partition that it reads.
#[derive(Debug)]
struct Target {
    topic: usize,
    partition: i32,
    topic_id: Option<Uuid>,
    position: i64,
    /// What the session on the broker believes to be the position.
    told: Option<(Uuid, i64)>,
    /// The end that was last seen.
    end: i64,
}

/// What a fetch asked of one partition: which target, of which topic, from where, and the end known before.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    at: usize,
    topic_id: Uuid,
    position: i64,
    start_known: i64,
    end_known: i64,
}

#[derive(Debug)]
enum Ask {
    Metadata,
    Fetch(Vec<Wanted>),
    Offsets(Vec<Wanted>, i64),
}

/// One consumer.
#[derive(Debug)]
pub struct Consumer {
    link: Link<Ask>,
    targets: Vec<Target>,
    version: i16,
    sessions: bool,
    session: (i32, i32),
    metadata_due: bool,
    not_before_us: u64,
    max_bytes: i32,
    partition_max_bytes: i32,
    wait_ms: i32,
    seeks: bool,
    calm: bool,
    /// An offset was out of range: the start is looked up.
    start_due: bool,
    /// The broker does not lead what it was asked for: another one does.
    elsewhere: bool,
}

impl Consumer {
    /// A consumer of these partitions.
    pub fn new(number: usize, targets: Vec<(usize, i32)>, stage: &mut Stage) -> Self {
        let target =
            |(topic, partition)| Target { topic, partition, topic_id: None, position: 0, told: None, end: 0 };
        let random = &mut *stage.random;
        Self {
            link: Link::new(format!("consumer {number}")),
            targets: targets.into_iter().map(target).collect(),
            version: random.i16(4..=18),
            sessions: random.bool(),
            session: (0, 0),
            metadata_due: true,
            not_before_us: 0,
            max_bytes: *random.choice(&[1, 500, 5_000, 1 << 20]).expect("some"),
            partition_max_bytes: *random.choice(&[1, 300, 3_000, 1 << 20]).expect("some"),
            wait_ms: *random.choice(&[0, 10, 500, 3_000]).expect("some"),
            seeks: random.bool(),
            calm: false,
            start_due: false,
            elsewhere: false,
        }
    }

    fn step(&mut self, stage: &mut Stage) {
        if !self.link.is_up(stage) || self.link.in_flight() > 0 || stage.now_us < self.not_before_us {
            return;
        }
        if self.metadata_due {
            let names: Vec<String> = self.targets.iter().map(|t| stage.names[t.topic].clone()).collect();
            return self.link.send(&metadata_request(&names, 12), 12, Some(Ask::Metadata), stage);
        }
        if std::mem::take(&mut self.start_due) || stage.random.u8(0..40) == 0 {
            self.look_up(-2, stage);
        }
        if stage.random.u8(0..12) == 0 {
            self.look_up(-1, stage);
        }
        if self.seeks && stage.random.u8(0..12) == 0 && !stage.calm {
            self.seek(stage);
        }
        self.fetch(stage);
        if stage.random.u8(0..20) == 0 {
            // Behind the fetch: a barrier that waits for it.
            self.look_up(-1, stage);
        }
    }

    fn seek(&mut self, stage: &mut Stage) {
        let at = stage.random.usize(0..self.targets.len());
        let target = &mut self.targets[at];
        if let Some(id) = target.topic_id {
            target.position = stage.random.i64(0..=stage.history.end_known((id, target.partition)));
        }
    }

    fn fetch(&mut self, stage: &mut Stage) {
        let by_id = self.version >= 13;
        let (session_id, epoch) = if self.sessions { self.session } else { (0, -1) };
        let mut request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(if stage.calm { self.wait_ms.min(50) } else { self.wait_ms })
            .with_min_bytes(stage.random.i32(0..=2))
            .with_max_bytes(self.max_bytes)
            .with_isolation_level(stage.random.i8(0..=1))
            .with_session_id(session_id)
            .with_session_epoch(epoch);
        let incremental = session_id != 0;
        let mut wanted = Vec::new();
        for (at, target) in self.targets.iter_mut().enumerate() {
            let Some(topic_id) = target.topic_id else { continue };
            let end_known = stage.history.end_known((topic_id, target.partition));
            let start_known = stage.history.start_known((topic_id, target.partition));
            wanted.push(Wanted { at, topic_id, position: target.position, start_known, end_known });
            if incremental && target.told == Some((topic_id, target.position)) {
                continue;
            }
            target.told = Some((topic_id, target.position));
            let partition = FetchPartition::default()
                .with_partition(target.partition)
                .with_current_leader_epoch(-1)
                .with_fetch_offset(target.position)
                .with_partition_max_bytes(self.partition_max_bytes);
            let topic = FetchTopic::default().with_partitions(vec![partition]);
            request.topics.push(if by_id {
                topic.with_topic_id(topic_id)
            } else {
                topic.with_topic(topic_name(&stage.names[target.topic]))
            });
        }
        if wanted.is_empty() {
            self.metadata_due = true;
            self.not_before_us = stage.now_us + 100_000;
            return;
        }
        self.link.send(&request, self.version, Some(Ask::Fetch(wanted)), stage);
    }

    /// Asks for one offset of every partition: -1 the end, -2 the start.
    fn look_up(&mut self, timestamp: i64, stage: &mut Stage) {
        let mut request = ListOffsetsRequest::default().with_replica_id((-1).into());
        let mut wanted = Vec::new();
        for (at, target) in self.targets.iter().enumerate() {
            // By name: only where the name always means the same topic.
            let Some(topic_id) = target.topic_id.filter(|_| !stage.names[target.topic].starts_with("churn"))
            else {
                continue;
            };
            let end_known = stage.history.end_known((topic_id, target.partition));
            let start_known = stage.history.start_known((topic_id, target.partition));
            wanted.push(Wanted { at, topic_id, position: target.position, start_known, end_known });
            let partition = ListOffsetsPartition::default()
                .with_partition_index(target.partition)
                .with_timestamp(timestamp);
            let partition = partition.with_current_leader_epoch(-1);
            request.topics.push(
                ListOffsetsTopic::default()
                    .with_name(topic_name(&stage.names[target.topic]))
                    .with_partitions(vec![partition]),
            );
        }
        if !wanted.is_empty() {
            let version = stage.random.i16(1..=10);
            self.link.send(&request, version, Some(Ask::Offsets(wanted, timestamp)), stage);
        }
    }

    fn answered(&mut self, response: Response<Ask>, stage: &mut Stage) {
        match &response.ask {
            Ask::Metadata => {
                let metadata = response.decode::<MetadataRequest>();
                for target in &mut self.targets {
                    let found = topic_in(&metadata, &stage.names[target.topic]).map(|(id, _)| id);
                    if target.topic_id != found {
                        (target.topic_id, target.position, target.end) = (found, 0, 0);
                    }
                }
                self.metadata_due = self.targets.iter().all(|target| target.topic_id.is_none());
                if self.metadata_due {
                    self.not_before_us = stage.now_us + 100_000;
                }
                // A topic that went away leaves the session by making a new one.
                self.end_session();
            }
            Ask::Fetch(wanted) => self.fetched(&response, wanted, stage),
            Ask::Offsets(wanted, timestamp) => {
                let answer = response.decode::<ListOffsetsRequest>();
                let parts: Vec<_> = answer.topics.iter().flat_map(|topic| &topic.partitions).collect();
                assert_eq!(parts.len(), wanted.len(), "a ListOffsets response answers every partition");
                for (wanted, part) in wanted.iter().zip(parts) {
                    let target = &mut self.targets[wanted.at];
                    let place = (wanted.topic_id, target.partition);
                    assert_eq!(part.partition_index, target.partition);
                    match part.error_code {
                        0 if *timestamp == -1 => stage.history.saw_end(place, part.offset, wanted.end_known),
                        0 => {
                            let (start, wall_ms) = (part.offset, stage.wall_ms);
                            stage.history.saw_start(place, start, wanted.start_known, wall_ms);
                            if target.topic_id == Some(wanted.topic_id) {
                                target.position = target.position.max(start);
                            }
                        }
                        error => {
                            assert!(RETRIABLE.contains(&error), "ListOffsets: error {error} of {place:?}");
                            self.metadata_due = true;
                            self.elsewhere |= stage.leads_elsewhere(error);
                        }
                    }
                }
            }
        }
    }

    fn end_session(&mut self) {
        // Epoch 0 with the old id closes it and makes a new one.
        self.session.1 = 0;
        self.session.0 = 0;
        self.targets.iter_mut().for_each(|target| target.told = None);
    }

    fn fetched(&mut self, response: &Response<Ask>, wanted: &[Wanted], stage: &mut Stage) {
        let answer = response.decode::<FetchRequest>();
        if answer.error_code != 0 {
            let known = SESSION_ERRORS.contains(&answer.error_code) && self.sessions;
            assert!(known, "fetch: error {} of {:?}", answer.error_code, self.link);
            return self.end_session();
        }
        let incremental = self.sessions && self.session.0 != 0;
        if self.sessions {
            if incremental {
                assert_eq!(answer.session_id, self.session.0, "a session keeps its id");
            }
            self.session =
                if answer.session_id == 0 { (0, 0) } else { (answer.session_id, self.session.1 + 1) };
        }
        let mut answered = 0;
        for topic in &answer.responses {
            for part in &topic.partitions {
                let found = wanted.iter().find(|wanted| {
                    let target = &self.targets[wanted.at];
                    let same_topic = if self.version >= 13 {
                        topic.topic_id == wanted.topic_id
                    } else {
                        topic.topic.as_str() == stage.names[target.topic]
                    };
                    same_topic && target.partition == part.partition_index
                });
                let wanted = *found.expect("a fetch answers what was asked for");
                answered += 1;
                let records = part.records.clone().unwrap_or_default();
                let ends = (part.log_start_offset, part.high_watermark);
                self.fetched_part(wanted, part.error_code, ends, &records, stage);
            }
        }
        assert!(incremental || answered == wanted.len(), "a full fetch answers every partition");
    }

    fn fetched_part(
        &mut self,
        wanted: Wanted,
        error: i16,
        (start, end): (i64, i64),
        records: &Bytes,
        stage: &mut Stage,
    ) {
        let target = &mut self.targets[wanted.at];
        let place = (wanted.topic_id, target.partition);
        let by_name = self.version < 13;
        match error {
            0 if by_name && stage.names[target.topic].starts_with("churn") => {
                // Which topic of that name it was cannot be known.
                target.position = wanted.position;
                self.metadata_due |= stage.random.bool();
            }
            0 => {
                assert!(
                    wanted.position >= wanted.start_known,
                    "undeleted: {place:?} gives offset {}, and it started at {}",
                    wanted.position,
                    wanted.start_known
                );
                if self.version >= 5 {
                    assert!(start <= end, "{place:?} starts at {start}, above its high watermark {end}");
                    assert!(start <= wanted.position, "{place:?} starts at {start} and gives less");
                    stage.history.saw_start(place, start, wanted.start_known, stage.wall_ms);
                }
                stage.history.saw_end(place, end, wanted.end_known);
                target.end = end;
                target.position = stage.history.fetched(place, target.topic, wanted.position, end, records);
            }
            // A topic that stores Zstandard, and a client that is older.
            UNSUPPORTED_COMPRESSION if self.version < 10 => {}
            OUT_OF_RANGE => {
                let known = wanted.end_known;
                let churns = by_name && stage.names[target.topic].starts_with("churn");
                if churns {
                    target.position = 0;
                } else {
                    if wanted.position <= known {
                        // It starts further on: every later answer has to say so.
                        let start = wanted.position + 1;
                        stage.history.saw_start(place, start, wanted.start_known.min(start), stage.wall_ms);
                    }
                    target.position = stage.history.start_known(place);
                    self.start_due = true;
                }
            }
            error => {
                assert!(RETRIABLE.contains(&error), "fetch: error {error} of {place:?}");
                self.metadata_due = true;
                self.elsewhere |= stage.leads_elsewhere(error);
                self.not_before_us = stage.now_us + stage.random.u64(1_000..100_000);
            }
        }
    }
}

impl Client for Consumer {
    fn opened(&mut self, stage: &mut Stage) {
        self.link.opened();
        self.metadata_due = true;
        self.step(stage);
    }

    fn received(&mut self, bytes: Bytes, stage: &mut Stage) {
        for response in self.link.received(&bytes) {
            self.answered(response, stage);
        }
        if std::mem::take(&mut self.elsewhere) {
            drop(self.link.close(stage));
            self.end_session();
        }
        self.step(stage);
    }

    fn closed(&mut self, stage: &mut Stage) {
        drop(self.link.closed(stage));
        self.end_session();
    }

    fn wake(&mut self, stage: &mut Stage) {
        self.calm = stage.calm;
        if self.seeks && stage.random.u16(0..300) == 0 && !stage.calm && self.link.is_up(stage) {
            drop(self.link.close(stage));
            self.end_session();
        }
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
