//! Coordinators over a partition that the test plays: what they ask of it, and what they make of its answers.

mod leading;

use bytes::Bytes;
use uuid::Uuid;

use super::load::RECORDS_MAX;
use super::*;
use crate::controller::image::ImageBuilder;
use crate::controller::record::{METADATA_VERSION_LATEST, PartitionChange, PartitionRecord, Record};
use crate::controller::{ImageDelta, ResourceType, ShardPlacement};
use crate::effect::FileDone;
use crate::group::Request;
use crate::group::consumer::records::Partitions;
use crate::group::consumer::request::ConsumerHeartbeat;
use crate::group::record::{CommittedOffset, OffsetKey};
use crate::group::request::{CommitOffsets, FetchedGroup, NewOffset, OfTopic};
use crate::log::Span;
use crate::partition::{OffsetQuery, ReadFound};
use crate::wire::ErrorCode;

const TOPIC: Uuid = Uuid::from_u128(7);
const ASKER: ReplyTo = ReplyTo { shard: 0, connection: 1, generation: 1, request: 1, part: 0 };

fn nothing_below(high_watermark: i64) -> ReadFound {
    ReadFound {
        span: None,
        high_watermark,
        last_stable_offset: high_watermark,
        log_start_offset: 0,
        diverging: None,
        preferred: None,
        watched: false,
    }
}

struct Stage {
    coordinators: Coordinators,
    builder: ImageBuilder,
    view: ClusterView,
    now: Now,
}

impl Stage {
    /// One shard that leads a partition of the offsets topic, whose log is being loaded.
    fn new() -> Self {
        let node = NodeConfig::load(None, &[]).unwrap().0;
        let mut stage = Self {
            coordinators: Coordinators::new(ShardId(0), &node),
            builder: ImageBuilder::default(),
            view: ClusterView {
                version: 1,
                changed: Arc::new([TOPIC]),
                ..ClusterView::before_any(Arc::new(node))
            },
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
        };
        let version = Record::MetadataVersion { version: METADATA_VERSION_LATEST };
        stage.builder.apply(&version).unwrap();
        stage.builder.apply(&Record::Topic { name: OFFSETS_TOPIC.into(), topic_id: TOPIC }).unwrap();
        stage.publish(1, 1);
        stage
    }

    /// A new partition of the topic, led here.
    fn partition_record(&self, index: i32) -> Record {
        let replicas = || std::iter::once(1).collect();
        Record::Partition(PartitionRecord {
            topic_id: TOPIC,
            index,
            replicas: replicas(),
            isr: replicas(),
            leader: 1,
            leader_epoch: 1,
            partition_epoch: 1,
            directories: std::iter::once(Uuid::nil()).collect(),
            ..PartitionRecord::default()
        })
    }

    /// The partition gets a leader and a leader epoch.
    fn publish(&mut self, leader: i32, leader_epoch: i32) {
        let record = if leader_epoch == 1 {
            self.partition_record(0)
        } else {
            Record::PartitionChange(PartitionChange {
                topic_id: TOPIC,
                index: 0,
                leader: Some(leader),
                isr: None,
                leader_epoch,
                partition_epoch: leader_epoch,
                ..PartitionChange::default()
            })
        };
        self.builder.apply(&record).unwrap();
        self.view.image = self.builder.publish(self.view.image.version() + 1).0;
        let delta = ImageDelta { topics_changed: [TOPIC].into(), ..ImageDelta::default() };
        self.view.placement = ShardPlacement::new(1, 1, 1).assign(&self.view.image, &delta, |_, _| None);
        self.coordinators.reconcile(self.now, &self.view);
    }

    fn calls(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        self.coordinators.todo.retain(|todo| {
            if let Todo::Call(call) = todo {
                calls.push(call.clone());
            }
            !matches!(todo, Todo::Call(_))
        });
        calls
    }

    fn answers(&mut self) -> Vec<Response> {
        let mut answers = Vec::new();
        for todo in std::mem::take(&mut self.coordinators.todo) {
            match todo {
                Todo::Answer(_, Answered::Coordinator(response)) => answers.push(*response),
                other => self.coordinators.todo.push_back(other),
            }
        }
        answers
    }

    fn answer(&mut self, call: &Call, answer: Answer) {
        self.coordinators.answered(self.now, call.to, answer, None);
    }

    /// The partition answers the look-ups of a load.
    fn bounds(&mut self, start: i64, end: i64) {
        for call in self.calls() {
            let Op::Offset { query, .. } = call.op else { panic!("a look-up: {:?}", call.op) };
            let offset = if query == OffsetQuery::Earliest { start } else { end };
            self.answer(&call, Answer::Offset { offset, timestamp_ms: -1, leader_epoch: 1 });
        }
    }

    /// The partition finds these bytes, the shell reads them, and the shard's next turn takes them in.
    fn slice(&mut self, bytes: Bytes) {
        let call = self.calls().pop().expect("a read");
        self.read(&call, bytes);
        self.coordinators.wake(self.now);
    }

    /// The partition finds these bytes, and the shell reads them.
    fn read(&mut self, call: &Call, bytes: Bytes) {
        assert!(matches!(call.op, Op::Read(_)));
        let length = bytes.len() as u64;
        let span = Span { segment_base_offset: 0, position: 0, length, first_batch_bytes: length };
        let found = ReadFound { span: Some(span), ..nothing_below(9) };
        let memory = Some(ByteSpan::Memory(bytes));
        self.coordinators.answered(self.now, call.to, Answer::Read(found), memory);
        let Some(Output::ReadSpan { to, span: ByteSpan::Memory(bytes) }) = self.coordinators.outputs.pop()
        else {
            panic!("the span is read")
        };
        self.coordinators.span_read(self.now, to, Ok(FileDone::Bytes(bytes)));
    }

    /// An empty log is loaded.
    fn serving() -> Self {
        let mut stage = Self::new();
        stage.bounds(0, 0);
        stage
    }

    fn commit(&mut self, offset: i64) {
        let offset = NewOffset { offset, leader_epoch: -1, metadata: "".into() };
        let of = OfTopic { topic: "t".into(), topic_id: Uuid::nil(), partitions: vec![(0, offset)] };
        let request = CommitOffsets {
            group: "g".into(),
            member_id: "".into(),
            instance_id: None,
            generation: -1,
            retention_ms: -1,
            knows_missing_groups: true,
            topics: vec![of],
        };
        self.ask(Request::CommitOffsets(request));
    }

    fn ask(&mut self, request: Request) {
        self.coordinators.request(self.now, Coordination { partition: 0, to: ASKER, request });
    }

    /// What is committed for t-0, or why that is not known.
    fn fetched(&mut self) -> Result<Option<i64>, ErrorCode> {
        let groups = vec![FetchedGroup { group: "g".into(), topics: None }];
        self.ask(Request::FetchOffsets { groups, require_stable: false });
        match self.answers().pop().expect("an answer") {
            Response::OffsetsFetched(groups) => {
                let of = groups[0].topics.first();
                Ok(of.and_then(|of| of.partitions[0].1.as_ref()).map(|committed| committed.offset))
            }
            Response::Refused(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }
}

/// The batch of a call, at an offset as the log would have it.
fn batch_at(call: &Call, offset: i64) -> Vec<u8> {
    let Op::Append { batch, acks: Acks::All, .. } = &call.op else { panic!("an append: {:?}", call.op) };
    let mut bytes = batch.bytes.to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes
}

fn appended() -> Answer {
    Answer::Appended { base_offset: 0, log_append_time_ms: -1, log_start_offset: 0 }
}

fn failed(error: ErrorCode) -> Answer {
    Answer::Failed { error, log_start_offset: -1 }
}

#[test]
fn an_answer_waits_for_its_batch_and_what_comes_before_it() {
    let mut stage = Stage::serving();
    stage.commit(1);
    stage.commit(2);
    let appends = stage.calls();
    assert_eq!(appends.len(), 2);
    stage.answer(&appends[1], appended());
    assert_eq!(stage.answers(), [], "the first batch is not committed");
    stage.answer(&appends[0], appended());
    assert_eq!(stage.answers().len(), 2);
    assert_eq!(stage.fetched(), Ok(Some(2)));
}

#[test]
fn what_was_committed_is_loaded_slice_by_slice_up_to_the_end_of_the_beginning() {
    let mut stage = Stage::serving();
    stage.commit(1);
    stage.commit(2);
    let appends = stage.calls();
    stage.publish(1, 2);
    assert_eq!(stage.answers(), vec![Response::Refused(ErrorCode::NotCoordinator); 2]);
    assert_eq!(stage.fetched(), Err(ErrorCode::CoordinatorLoadInProgress));
    stage.answer(&appends[0], appended());
    stage.bounds(5, 7);
    stage.slice(batch_at(&appends[0], 5).into());
    assert_eq!(stage.fetched(), Err(ErrorCode::CoordinatorLoadInProgress));
    stage.slice(batch_at(&appends[1], 6).into());
    assert_eq!(stage.fetched(), Ok(Some(2)));
    assert!(stage.calls().is_empty());
}

/// A batch of committed offsets, each of a group of its own.
fn offsets_of_groups(base_offset: i64, count: usize) -> Bytes {
    let records = (0..count).map(|number| {
        let key =
            OffsetKey { group: format!("g{base_offset}-{number}").into(), topic: "t".into(), partition: 0 };
        let value = CommittedOffset {
            offset: 1,
            leader_epoch: -1,
            metadata: "".into(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
            topic_id: Uuid::nil(),
        };
        group::Record::Offset(key, Some(value))
    });
    let records: Vec<_> = records.collect();
    let mut bytes = batches::encode(&records, Codec::None, 0).bytes.to_vec();
    bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes.into()
}

#[test]
fn a_turn_takes_in_a_bounded_number_of_records_whatever_was_read_and_loads_take_turns() {
    let mut stage = Stage::new();
    stage.builder.apply(&stage.partition_record(1)).unwrap();
    stage.publish(1, 2);
    let records = RECORDS_MAX * 5 / 2;
    stage.bounds(0, records as i64);
    let reads = stage.calls();
    assert_eq!(reads.len(), 2, "both partitions are loaded");
    for (number, call) in reads.iter().enumerate() {
        stage.read(call, offsets_of_groups(0, records - number));
    }
    let mut taken = Vec::new();
    let mut before = [0, 0];
    while stage.coordinators.next_wake_ms() == Some(0) {
        stage.coordinators.wake(stage.now);
        let groups = [0, 1].map(|index| stage.coordinators.led[&index].coordinator.store().groups().len());
        taken.push([groups[0] - before[0], groups[1] - before[1]]);
        before = groups;
        // In between a request is answered at once.
        stage.ask(Request::List { states: Vec::new(), types: Vec::new() });
        assert_eq!(stage.answers().len(), 1);
    }
    let (all, half) = (RECORDS_MAX, RECORDS_MAX / 2);
    assert_eq!(taken, [[all, 0], [0, all], [all, 0], [0, all], [half, 0], [0, half - 1]]);
    assert_eq!(stage.fetched(), Ok(None), "the first partition is loaded");
    let rest = stage.calls().pop().expect("the second one's log has a record more");
    stage.read(&rest, offsets_of_groups(records as i64 - 1, 1));
    stage.coordinators.wake(stage.now);
    assert_eq!(stage.coordinators.led[&1].coordinator.store().groups().len(), records);
    assert!(stage.calls().is_empty());
}

#[test]
fn a_load_waits_for_what_is_not_committed_yet() {
    let mut stage = Stage::serving();
    stage.commit(1);
    let batch = batch_at(&stage.calls()[0], 0);
    stage.publish(1, 2);
    stage.bounds(0, 1);
    let read = stage.calls().pop().unwrap();
    stage.answer(&read, Answer::Read(nothing_below(0)));
    assert!(stage.calls().is_empty());
    stage.answer(&read, Answer::Fired);
    stage.slice(batch.into());
    assert_eq!(stage.fetched(), Ok(Some(1)));
}

#[test]
fn a_load_ends_where_committed_offsets_have_no_batch() {
    let mut stage = Stage::serving();
    stage.commit(1);
    let batch = batch_at(&stage.calls()[0], 0);
    stage.publish(1, 2);
    // Offsets 1 to 8 are gone, and so is what would have shown it.
    stage.bounds(0, 9);
    stage.slice(Bytes::from(batch.clone()));
    let read = stage.calls().pop().unwrap();
    stage.answer(&read, Answer::Read(nothing_below(9)));
    assert_eq!(stage.fetched(), Ok(Some(1)));
    // Where the first read finds nothing, what it finds may have been committed meanwhile: it is asked once more.
    stage.publish(1, 3);
    stage.bounds(0, 9);
    let read = stage.calls().pop().unwrap();
    stage.answer(&read, Answer::Read(nothing_below(9)));
    stage.bounds(0, 9);
    stage.slice(Bytes::from(batch));
    let again = stage.calls().pop().unwrap();
    stage.answer(&read, Answer::Fired);
    assert!(stage.calls().is_empty(), "the watch of the first attempt finds nobody");
    stage.answer(&again, Answer::Read(nothing_below(9)));
    assert_eq!(stage.fetched(), Ok(Some(1)));
}

#[test]
fn a_load_that_waits_for_what_never_reaches_the_log_begins_again() {
    let mut stage = Stage::serving();
    stage.commit(1);
    stage.calls();
    stage.publish(1, 2);
    stage.answers();
    let asked = stage.calls();
    assert!(
        asked.iter().any(|call| matches!(call.op, Op::Offset { query: OffsetQuery::Reserved, .. })),
        "what is still being written counts: {asked:?}"
    );
    let answer = |stage: &mut Stage, call: &Call, offset: i64| {
        stage.answer(call, Answer::Offset { offset, timestamp_ms: -1, leader_epoch: 2 });
    };
    answer(&mut stage, &asked[0], 0);
    answer(&mut stage, &asked[1], 1);
    let read = stage.calls().pop().unwrap();
    stage.answer(&read, Answer::Read(nothing_below(0)));
    for end in [1, 0] {
        stage.now.mono_ms += 1_000;
        assert_eq!(stage.coordinators.next_wake_ms(), Some(stage.now.mono_ms));
        stage.coordinators.wake(stage.now);
        let calls = stage.calls();
        assert_eq!(calls.len(), 1, "only the end is asked for while it waits");
        answer(&mut stage, &calls[0], end);
    }
    // The write failed: the end is another.
    stage.bounds(0, 0);
    assert_eq!(stage.fetched(), Ok(None));
}

#[test]
fn what_was_decided_under_an_earlier_leadership_is_not_appended_under_the_next() {
    let mut stage = Stage::serving();
    stage.commit(1);
    let zombie = stage.calls().pop().unwrap();
    assert!(!stage.coordinators.has_left(&zombie));
    for (leader, epoch) in [(1, 2), (-1, 3), (1, 4)] {
        stage.publish(leader, epoch);
        assert!(stage.coordinators.has_left(&zombie), "epoch {epoch}");
    }
    let others = Call { to: ASKER, ..zombie };
    assert!(!stage.coordinators.has_left(&others), "a producer's batch is no coordinator's");
}

#[test]
fn a_failed_append_loads_again_once_nothing_is_in_flight() {
    let mut stage = Stage::serving();
    stage.commit(1);
    stage.commit(2);
    stage.commit(3);
    let appends = stage.calls();
    stage.answer(&appends[0], appended());
    assert_eq!(stage.answers().len(), 1);
    stage.answer(&appends[1], failed(ErrorCode::KafkaStorageError));
    assert_eq!(stage.answers(), vec![Response::Refused(ErrorCode::NotCoordinator); 2]);
    assert_eq!(stage.fetched(), Err(ErrorCode::NotCoordinator));
    assert!(stage.calls().is_empty(), "the third batch is in flight");
    stage.answer(&appends[2], appended());
    stage.bounds(0, 2);
    let both = [batch_at(&appends[0], 0), batch_at(&appends[2], 1)].concat();
    stage.slice(both.into());
    assert_eq!(stage.fetched(), Ok(Some(3)), "what reached the log counts, also unacknowledged");
}

#[test]
fn a_load_is_tried_again_after_a_while_or_when_the_replica_begins_to_lead() {
    let mut stage = Stage::new();
    for call in stage.calls() {
        stage.answer(&call, failed(ErrorCode::NotLeaderOrFollower));
    }
    assert_eq!(stage.coordinators.next_wake_ms(), Some(2_000));
    stage.coordinators.began_to_lead(TOPIC, 0);
    let stale = stage.calls();
    stage.now.mono_ms = 2_000;
    stage.coordinators.wake(stage.now);
    for call in stale {
        stage.answer(&call, Answer::Offset { offset: 3, timestamp_ms: -1, leader_epoch: 1 });
    }
    stage.bounds(0, 0);
    assert_eq!(stage.fetched(), Ok(None), "answers to an earlier attempt change nothing");
}

#[test]
fn a_damaged_log_has_no_coordinator_and_says_so() {
    let mut stage = Stage::serving();
    stage.commit(1);
    let mut batch = batch_at(&stage.calls()[0], 0);
    *batch.last_mut().unwrap() ^= 1;
    stage.publish(1, 2);
    stage.answers();
    stage.bounds(0, 1);
    stage.slice(batch.into());
    assert_eq!(stage.fetched(), Err(ErrorCode::NotCoordinator));
    let Some(Output::Say(said)) = stage.coordinators.outputs.pop() else { panic!("the operator is told") };
    assert!(said.contains("__consumer_offsets-0 cannot be loaded"), "{said}");
}

#[test]
fn nobody_coordinates_after_the_leader_the_directory_or_the_topic_is_lost_or_the_node_stops() {
    type Loss = fn(&mut Stage);
    let losses: [(&str, Loss); 4] = [
        ("leader", |stage| stage.publish(-1, 2)),
        ("directory", |stage| stage.coordinators.fail_directory(stage.now, 0)),
        ("stop", |stage| stage.coordinators.close(stage.now)),
        ("topic", |stage| {
            stage.builder.apply(&Record::RemoveTopic { topic_id: TOPIC }).unwrap();
            stage.view.image = stage.builder.publish(9).0;
            stage.coordinators.reconcile(stage.now, &stage.view);
        }),
    ];
    for (what, lose) in losses {
        let mut stage = Stage::serving();
        stage.commit(1);
        let append = stage.calls().pop().unwrap();
        lose(&mut stage);
        assert_eq!(stage.answers(), [Response::Refused(ErrorCode::NotCoordinator)], "{what}");
        stage.answer(&append, appended());
        assert_eq!(stage.fetched(), Err(ErrorCode::NotCoordinator), "{what}");
        assert_eq!(stage.coordinators.next_wake_ms(), None, "{what}");
        assert!(stage.calls().is_empty(), "{what}");
    }
}

#[test]
fn offsets_of_a_deleted_topic_get_tombstones() {
    let mut stage = Stage::serving();
    stage.commit(1);
    let append = stage.calls().pop().unwrap();
    stage.answer(&append, appended());
    stage.coordinators.topics_deleted(stage.now, &["t".into()].into());
    let tombstone = stage.calls().pop().unwrap();
    stage.answer(&tombstone, appended());
    assert_eq!(stage.fetched(), Ok(None));
}

/// A topic's partition that nobody here coordinates anything for.
fn partition_of_t(index: i32) -> Record {
    let one = || std::iter::once(1).collect();
    Record::Partition(PartitionRecord {
        topic_id: T,
        index,
        replicas: one(),
        isr: one(),
        leader: 1,
        leader_epoch: 1,
        partition_epoch: 1,
        directories: std::iter::once(Uuid::nil()).collect(),
        ..PartitionRecord::default()
    })
}

const T: Uuid = Uuid::from_u128(8);

impl Stage {
    /// A new view with these records, which concern this topic.
    fn view(&mut self, records: &[Record], changed: &[Uuid]) {
        records.iter().for_each(|record| self.builder.apply(record).unwrap());
        self.view.image = self.builder.publish(self.view.image.version() + 1).0;
        self.view.version += 1;
        self.view.changed = changed.into();
        self.coordinators.reconcile(self.now, &self.view);
    }

    /// A member's heartbeat: heartbeat interval and how many partitions it is told of.
    fn beat(&mut self, epoch: i32) -> (i32, i32, Option<usize>) {
        let joins = epoch == 0;
        let beat = ConsumerHeartbeat {
            group: "g".into(),
            member_id: "m".into(),
            must_name_itself: true,
            epoch,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: if joins { 9_000 } else { -1 },
            topics: joins.then(|| ["t".into()].into()),
            regex: None,
            assignor: None,
            owned: joins.then(Default::default),
            client_id: "c".into(),
            client_host: "/h".into(),
            fresh_id: Uuid::nil(),
        };
        self.ask(Request::ConsumerHeartbeat(Box::new(beat)));
        for append in self.calls() {
            self.answer(&append, appended());
        }
        match self.answers().pop().expect("an answer") {
            Response::ConsumerBeat(beat) => {
                let count = |of: &Partitions| of.values().map(|partitions| partitions.len()).sum();
                (beat.epoch, beat.heartbeat_interval_ms, beat.assigned.as_ref().map(count))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn coordinators_are_told_of_topics_and_of_what_groups_have_configured() {
    let mut stage = Stage::serving();
    stage
        .view(&[Record::Topic { name: "t".into(), topic_id: T }, partition_of_t(0), partition_of_t(1)], &[T]);
    assert_eq!(stage.beat(0), (1, 5_000, Some(2)));
    stage.view(&[], &[T]);
    assert_eq!(stage.beat(1), (1, 5_000, None), "nothing changed that a group could see");
    let interval = Record::Config {
        resource_type: ResourceType::Group,
        resource: "g".into(),
        key: "consumer.heartbeat.interval.ms".into(),
        value: Some("6000".into()),
    };
    stage.view(&[partition_of_t(2), interval], &[T]);
    assert_eq!(stage.beat(1), (2, 6_000, Some(3)));
    // Who leads later is told the same.
    stage.view.changed = Arc::new([TOPIC]);
    stage.publish(1, 2);
    stage.answers();
    stage.bounds(0, 0);
    assert_eq!(stage.beat(0), (1, 6_000, Some(3)));
    stage.view.removed = Arc::new([T]);
    stage.view(&[Record::RemoveTopic { topic_id: T }], &[]);
    assert_eq!(stage.beat(1), (1, 6_000, Some(0)), "it has to give up what it had first");
}
