//! Replicas that move between log directories in memory, which may fail, and a process that may die at any operation.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::{DirectoryFacts, FoundReplica, Opened};
use super::*;
use crate::config::TopicConfig;
use crate::controller::image::ImageBuilder;
use crate::controller::record::{METADATA_VERSION_LATEST, PartitionRecord, Record};
use crate::controller::{ImageDelta, ShardId, ShardPlacement};
use crate::effect::{FileDone, Stem};
use crate::log::batch::{BatchBuilder, BatchInfo};
use crate::log::check::CheckedBatch;
use crate::log::directory::{LogDirEntry, parse_directory_name};
use crate::log::memory_dir::MemoryDir;
use crate::log::{MOVES_MARK, Recovery, RecoveryStep, moves_of};
use crate::partition::{Acks, Op, ReplyTo};
use crate::request::ClusterView;

#[path = "moving_rate_tests.rs"]
mod rates;

const T: Uuid = Uuid::from_u128((7 << 64) + 1);

/// Log directories with their folders, and the log starts in their checkpoints.
#[derive(Clone, Debug, Default)]
struct Disks {
    folders: BTreeMap<(u16, String), MemoryDir>,
    log_starts: BTreeMap<u16, i64>,
}

impl Disks {
    fn names(&self) -> Vec<String> {
        self.folders.keys().map(|(directory, name)| format!("{directory}/{name}")).collect()
    }
}

type Which = fn(&FileOp) -> bool;

/// One shard of broker 1 with two log directories, and what it has still to carry out.
struct Stage {
    replicas: Replicas,
    view: ClusterView,
    placement: ShardPlacement,
    owners: BTreeMap<u32, (u16, String)>,
    disks: Disks,
    ordered: VecDeque<(u32, Ticket, FileOp)>,
    now: Now,
    epoch: i32,
    /// Operations that are carried out until the process dies.
    left: usize,
    /// Operations that fail like this, of a log directory.
    fails: Option<(u16, FileError, Which)>,
    appended: u64,
}

fn facts(disks: &mut Disks, directory: u16) -> DirectoryFacts {
    let mut facts = DirectoryFacts { same_boot: true, ..DirectoryFacts::default() };
    let names: Vec<String> =
        disks.folders.keys().filter(|(at, _)| *at == directory).map(|(_, name)| name.clone()).collect();
    for name in names {
        match parse_directory_name(&name) {
            LogDirEntry::Log { topic, partition } => {
                let log_start_offset = disks.log_starts.get(&directory).copied().unwrap_or(0);
                let found = FoundReplica { log_start_offset, ..FoundReplica::default() };
                facts.found.insert((topic, partition), found);
            }
            LogDirEntry::Future => facts.futures.push(name),
            LogDirEntry::Deleted => drop(disks.folders.remove(&(directory, name))),
            other => panic!("{name} is {other:?}"),
        }
    }
    facts
}

/// What the start does where a replica is in two directories.
fn drop_left_behind(disks: &mut Disks) {
    let moves = |disks: &Disks, directory: u16| {
        let folder = disks.folders.get(&(directory, "t-0".to_owned()))?;
        Some(folder.file(Stem::Named(MOVES_MARK)).map_or(0, |bytes| moves_of(bytes).unwrap()))
    };
    if let (Some(first), Some(second)) = (moves(disks, 0), moves(disks, 1)) {
        assert_ne!(first, second, "one of them is the replica: {:?}", disks.names());
        disks.folders.remove(&(u16::from(first > second), "t-0".to_owned()));
    }
}

impl Stage {
    fn new() -> Self {
        Self::over(Disks::default())
    }

    /// A start over what is there.
    fn over(mut disks: Disks) -> Self {
        drop_left_behind(&mut disks);
        let config = NodeConfig::default();
        let facts: Vec<DirectoryFacts> = (0..2).map(|directory| facts(&mut disks, directory)).collect();
        let place = facts.iter().position(|facts| facts.found.contains_key(&("t".to_owned(), 0)));
        // No two starts are in one millisecond.
        let wall_ms = if disks.folders.is_empty() { 1_700_000_000_000 } else { 1_700_000_100_000 };
        let topic = TopicConfig { segment_bytes: 2_000, file_delete_delay_ms: 0, ..TopicConfig::default() };
        let mut stage = Self {
            replicas: Replicas::new(ShardId(0), &config, Arc::from(facts)),
            placement: ShardPlacement::new(1, 1, 2),
            view: ClusterView {
                version: 1,
                topic_configs: std::iter::once((T, Arc::new(topic))).collect(),
                changed: Arc::new([T]),
                ..ClusterView::before_any(Arc::new(config))
            },
            owners: BTreeMap::new(),
            disks,
            ordered: VecDeque::new(),
            now: Now { mono_ms: 10, wall_ms },
            epoch: 0,
            left: usize::MAX,
            fails: None,
            appended: 0,
        };
        stage.assign(&[1], place.map(|place| place as u16));
        stage
    }

    /// The only partition is on these brokers now, led by the first; found in a log directory.
    fn assign(&mut self, replicas: &[i32], found: Option<u16>) {
        self.epoch += 1;
        let record = PartitionRecord {
            topic_id: T,
            index: 0,
            replicas: replicas.iter().copied().collect(),
            isr: replicas.iter().copied().collect(),
            leader: replicas[0],
            leader_epoch: self.epoch,
            partition_epoch: self.epoch,
            directories: replicas.iter().map(|_| Uuid::nil()).collect(),
            ..PartitionRecord::default()
        };
        let mut builder = ImageBuilder::default();
        builder.apply(&Record::MetadataVersion { version: METADATA_VERSION_LATEST }).unwrap();
        builder.apply(&Record::Topic { name: "t".into(), topic_id: T }).unwrap();
        builder.apply(&Record::Partition(record)).unwrap();
        let before = self.view.clone();
        self.view.image = builder.publish(before.image.version() + 1).0;
        self.view.version += 1;
        let delta = ImageDelta { topics_changed: [T].into(), ..ImageDelta::default() };
        self.view.placement = self.placement.assign(&self.view.image, &delta, |_, _| found);
        self.replicas.reconcile(self.now, &before, &self.view);
        self.take();
    }

    /// Takes in what the replicas want.
    fn take(&mut self) {
        self.replicas.end_turn(self.now);
        for output in std::mem::take(&mut self.replicas.outputs) {
            match output {
                Output::File(Owner::Replica(slot), ticket, op) => self.ordered.push_back((slot, ticket, op)),
                Output::Own { owner: Owner::Replica(slot), directory, name } => {
                    self.owners.insert(slot, (directory, name));
                }
                Output::Disown(Owner::Replica(slot)) => drop(self.owners.remove(&slot)),
                Output::Recover(slot, recovery) => self.recover(slot, *recovery),
                Output::Say(said) => println!("{said}"),
                other => panic!("unexpected {other:?}"),
            }
        }
        while let Some(directory) = self.replicas.take_failed_directory() {
            self.replicas.fail_directory(self.now, directory);
            self.take();
        }
        for start in self.replicas.take_log_starts() {
            self.disks.log_starts.insert(start.directory, start.log_start_offset);
            self.replicas.log_start_stored(self.now, &start);
            self.take();
        }
        for moved in self.replicas.take_moved() {
            self.placement.moved(moved.topic_id, moved.partition, moved.to);
        }
    }

    fn recover(&mut self, slot: u32, mut recovery: Recovery) {
        let folder = self.disks.folders.entry(self.owners[&slot].clone()).or_default();
        let mut last = None;
        let opened = loop {
            match recovery.step(last.take()) {
                RecoveryStep::Op(op) => last = Some(folder.execute(&op, std::iter::empty())),
                RecoveryStep::Done(recovered) => break Opened::Log(recovered),
                RecoveryStep::Empty { base_offset, .. } => break Opened::Empty { base_offset },
                RecoveryStep::Failed(error) => panic!("{error:?}"),
            }
        };
        self.replicas.recovered(self.now, slot, Ok(opened), &self.view);
        self.take();
    }

    /// Carries out the next operation. False where there is none, and when the process has died.
    fn one(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let Some((slot, ticket, op)) = self.ordered.pop_front() else { return false };
        self.left -= 1;
        let result = self.execute(slot, &op);
        self.replicas.completed(self.now, slot, ticket, result, &self.view);
        self.take();
        true
    }

    fn execute(&mut self, slot: u32, op: &FileOp) -> FileResult {
        let place = self.owners[&slot].clone();
        if let Some((directory, error, which)) = self.fails
            && directory == place.0
            && which(op)
        {
            return Err(error);
        }
        let folders = &mut self.disks.folders;
        let renamed = match op {
            FileOp::RetireDir => Some(format!("{}.{:032x}-delete", place.1, 77)),
            FileOp::RenameDir { name } => Some(name.clone()),
            _ => None,
        };
        if let Some(name) = renamed {
            let folder = folders.remove(&place).ok_or(FileError::NotFound)?;
            let there = (place.0, name);
            assert!(folders.insert(there.clone(), folder).is_none(), "{there:?} is there");
            self.owners.insert(slot, there);
            return Ok(FileDone::Ok);
        }
        match op {
            FileOp::MakeDir => drop(folders.entry(place).or_default()),
            FileOp::DeleteDir => drop(folders.remove(&place)),
            FileOp::SyncParent => {}
            FileOp::CopyFrom { replica, .. } => {
                let from = folders.get(&self.owners[replica]).cloned().unwrap_or_default();
                return folders.get_mut(&place).ok_or(FileError::NotFound)?.copy_from(&from, op);
            }
            FileOp::Append { .. } => {
                let partition = self.replicas.partition(slot).expect("it appends");
                let folder = folders.get_mut(&place).ok_or(FileError::NotFound)?;
                return folder.execute(op, partition.log().append_parts());
            }
            op => return folders.get_mut(&place).ok_or(FileError::NotFound)?.execute(op, std::iter::empty()),
        }
        Ok(FileDone::Ok)
    }

    fn settle(&mut self) {
        while self.one() {}
    }

    /// Time passes, and everything is carried out.
    fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.replicas.wake(self.now);
        self.take();
        self.settle();
    }

    fn call(&mut self, op: Op) {
        let to = ReplyTo { shard: 0, connection: 0, generation: 0, request: 0, part: 0 };
        self.replicas.call(self.now, Call { topic_id: T, partition: 0, to, op }, true);
        self.take();
    }

    fn append(&mut self) {
        self.appended += 1;
        let value = vec![b'v'; 50 + (self.appended as usize * 37) % 300];
        let bytes = BatchBuilder::new().record(5, None, Some(&value)).build();
        let info = BatchInfo::parse(&bytes).unwrap();
        let batch = CheckedBatch { bytes, info };
        self.call(Op::Append { batch, acks: Acks::Leader, deadline_ms: u64::MAX });
    }

    fn answers(&mut self) -> Vec<Answer> {
        std::iter::from_fn(|| self.replicas.take_delivery()).map(|delivery| delivery.answer).collect()
    }

    /// What a call is answered.
    fn asked(&mut self, op: Op) -> Answer {
        self.answers();
        self.call(op);
        loop {
            if let Some(answer) = self.answers().pop() {
                return answer;
            }
            assert!(self.one(), "it is not answered");
        }
    }

    fn slot(&self) -> u32 {
        self.replicas.by_partition[&(T, 0)]
    }

    fn directory(&self) -> u16 {
        self.owners[&self.slot()].0
    }

    /// Every byte of the log, and its end.
    fn content(&self) -> (Vec<u8>, i64) {
        let log = self.replicas.partition(self.slot()).unwrap().log();
        let folder = &self.disks.folders[&self.owners[&self.slot()]];
        let bytes = log.segments().flat_map(|segment| {
            folder.file(Stem::Log(segment.base_offset)).unwrap()[..segment.length_bytes as usize].to_vec()
        });
        (bytes.collect(), log.log_end())
    }

    /// A replica in the first directory, with some segments.
    fn filled(batches: usize) -> Self {
        let mut stage = Self::new();
        stage.settle();
        for _ in 0..batches {
            stage.append();
            stage.settle();
        }
        assert_eq!(stage.directory(), 0);
        stage
    }
}

fn failed(error: ErrorCode) -> Answer {
    Answer::Failed { error, log_start_offset: -1 }
}

#[test]
fn a_replica_moves_while_it_is_written_and_every_append_is_answered_once() {
    let mut stage = Stage::filled(30);
    let end = stage.content().1;
    assert_eq!(stage.asked(Op::Move { directory: 1 }), Answer::Moves);
    let mut appended = 0;
    let mut turns = 0;
    while stage.directory() == 0 {
        turns += 1;
        if turns % 5 == 0 && appended < 40 {
            stage.append();
            appended += 1;
        }
        assert!(stage.one(), "the move does not end: {:?}", stage.disks.names());
    }
    let told = stage.answers();
    stage.settle();
    assert_eq!(told.len() + stage.answers().len(), appended as usize);
    assert_eq!(stage.content().1, end + appended);
    stage.append();
    stage.settle();
    assert!(matches!(stage.answers()[..], [Answer::Appended { .. }]));
    assert_eq!(stage.disks.names(), ["1/t-0"], "nothing is left behind");
    assert!(!stage.replicas.is_retiring());
    let there = stage.replicas.progress().pop().unwrap();
    assert_eq!((there.directory, there.topic_id), (1, T));
    let size_bytes = stage.content().0.len() as u64;
    let placed = Placed { directory: 1, size_bytes, future: None };
    assert_eq!(stage.asked(Op::Size), Answer::Placed(placed));
}

/// Plays a move with appends and a death after so many operations; false if that was behind its end.
fn dies_after(operations: usize, delete: bool, again: bool) -> bool {
    let mut stage = Stage::filled(20);
    if delete {
        stage.call(Op::DeleteRecords { offset: 9, deadline_ms: u64::MAX });
        stage.settle();
    }
    stage.left = operations;
    stage.call(Op::Move { directory: 1 });
    let mut turns = 0;
    while stage.one() {
        turns += 1;
        if turns % 11 == 0 && turns < 200 {
            stage.append();
        }
    }
    let died = stage.left == 0;
    let is_told = stage.answers().contains(&Answer::Moves);
    let log_start = |stage: &Stage| stage.replicas.partition(stage.slot()).unwrap().log().log_start_offset();
    let (content, start) = (stage.content(), log_start(&stage));
    let mut stage = Stage::over(stage.disks);
    assert_eq!((stage.content(), log_start(&stage)), (content, start), "after {operations}");
    if again {
        // This one dies too, a few operations behind its start.
        stage.left = operations % 13;
        stage.settle();
        stage = Stage::over(stage.disks);
    }
    stage.settle();
    stage.pass(2_000);
    stage.append();
    stage.settle();
    let end = stage.directory();
    assert_eq!(stage.disks.names(), [format!("{end}/t-0")], "after {operations}");
    assert!(end == 1 || !is_told, "who was told that it moves sees it move: {operations}");
    died
}

#[test]
fn whatever_operation_is_the_last_one_the_replica_is_there_once_and_whole() {
    for (delete, again) in [(false, false), (true, false), (false, true)] {
        let mut operations = 0;
        while dies_after(operations, delete, again) {
            operations += 1;
        }
        assert!(operations > 50, "{operations} operations");
    }
}

#[test]
fn another_directory_and_the_present_one_end_a_move() {
    let mut stage = Stage::filled(10);
    assert_eq!(stage.asked(Op::Move { directory: 2 }), failed(ErrorCode::LogDirNotFound));
    assert_eq!(stage.asked(Op::Move { directory: 0 }), Answer::Moves, "it is there");
    assert_eq!(stage.disks.names(), ["0/t-0"]);
    assert_eq!(stage.asked(Op::Move { directory: 1 }), Answer::Moves);
    assert_eq!(stage.asked(Op::Move { directory: 1 }), Answer::Moves, "it is on its way");
    for _ in 0..12 {
        stage.one();
    }
    let Answer::Placed(Placed { directory: 0, future: Some(future), .. }) = stage.asked(Op::Size) else {
        panic!("it moves")
    };
    assert!(future.directory == 1 && future.offset_lag > 0, "{future:?}");
    assert_eq!(stage.disks.names().len(), 2);
    assert_eq!(stage.asked(Op::Move { directory: 0 }), Answer::Moves);
    stage.settle();
    assert_eq!((stage.directory(), stage.disks.names()), (0, vec!["0/t-0".to_owned()]));
    assert!(matches!(stage.asked(Op::Size), Answer::Placed(Placed { directory: 0, future: None, .. })));
    // Again, and there and back.
    for directory in [1, 0, 1] {
        stage.call(Op::Move { directory });
        stage.settle();
        assert_eq!((stage.directory(), stage.disks.names()), (directory, vec![format!("{directory}/t-0")]));
    }
}

#[test]
fn a_topic_that_is_deleted_takes_the_copy_along_whenever() {
    let mut operations = 0;
    loop {
        let mut stage = Stage::filled(10);
        stage.call(Op::Move { directory: 1 });
        let moved = (0..operations).any(|_| !stage.one() || stage.directory() == 1);
        let slot = stage.slot();
        stage.replicas.retire(stage.now, slot);
        stage.take();
        assert!(stage.replicas.is_retiring());
        stage.settle();
        assert!(!stage.replicas.is_retiring(), "after {operations}: {:?}", stage.disks.names());
        stage.pass(10);
        assert_eq!(stage.disks.names(), Vec::<String>::new(), "after {operations}");
        assert!(stage.replicas.all_gone(), "after {operations}");
        if moved {
            break;
        }
        operations += 1;
    }
    assert!(operations > 30, "{operations}");
}

#[test]
fn a_clean_stop_ends_a_move_and_the_next_start_begins_it_anew() {
    let mut operations = 0;
    loop {
        let mut stage = Stage::filled(10);
        stage.call(Op::Move { directory: 1 });
        let moved = (0..operations).any(|_| !stage.one() || stage.directory() == 1);
        let content = stage.content();
        stage.replicas.close(stage.now);
        stage.take();
        stage.settle();
        assert!(stage.replicas.all_gone(), "after {operations}");
        let mut stage = Stage::over(stage.disks);
        assert_eq!(stage.content(), content, "after {operations}");
        stage.settle();
        stage.pass(2_000);
        assert_eq!(stage.disks.names(), [format!("{}/t-0", stage.directory())], "after {operations}");
        assert!(stage.directory() == 1 || operations < 4, "after {operations}");
        if moved {
            break;
        }
        operations += 1;
    }
    assert!(operations > 30, "{operations}");
}

#[test]
fn a_directory_that_fails_ends_the_move_and_takes_only_its_own_along() {
    const FAILED: FileError = FileError::Io(5);
    for (directory, fails) in [
        (1, (|op: &FileOp| matches!(op, FileOp::CopyFrom { .. })) as fn(&FileOp) -> bool),
        (1, |op| matches!(op, FileOp::Sync { .. })),
        (1, |op| matches!(op, FileOp::RenameDir { .. })),
        (1, |op| matches!(op, FileOp::SyncParent)),
        (0, |op| matches!(op, FileOp::Append { .. })),
    ] {
        let mut stage = Stage::filled(10);
        stage.fails = Some((directory, FAILED, fails));
        stage.call(Op::Move { directory: 1 });
        for _ in 0..8 {
            stage.one();
        }
        stage.answers();
        stage.append();
        stage.settle();
        stage.append();
        stage.settle();
        stage.pass(2_000);
        let told = stage.answers();
        assert_eq!(told.len(), 2, "both are answered: {told:?}");
        if directory == 1 {
            assert!(told.iter().all(|answer| matches!(answer, Answer::Appended { .. })), "{told:?}");
            assert_eq!(stage.directory(), 0);
            assert_eq!(stage.asked(Op::Move { directory: 1 }), failed(ErrorCode::KafkaStorageError));
        } else {
            assert!(told.iter().all(|answer| matches!(answer, Answer::Failed { .. })), "{told:?}");
            continue;
        }
        // It comes back, whatever is in it: the replica is where it has grown.
        let content = stage.content();
        let mut stage = Stage::over(stage.disks);
        assert_eq!(stage.content(), content);
        stage.settle();
    }
}

#[test]
fn a_full_device_over_there_holds_nobody_up() {
    for fails in [
        (|op: &FileOp| matches!(op, FileOp::CopyFrom { .. })) as fn(&FileOp) -> bool,
        |op| matches!(op, FileOp::Write { .. }),
        |op| matches!(op, FileOp::RenameDir { .. }),
    ] {
        let mut stage = Stage::filled(10);
        stage.fails = Some((1, FileError::NoSpace, |op| matches!(op, FileOp::MakeDir)));
        assert_eq!(stage.asked(Op::Move { directory: 1 }), failed(ErrorCode::KafkaStorageError));
        stage.settle();
        stage.fails = Some((1, FileError::NoSpace, fails));
        stage.call(Op::Move { directory: 1 });
        for _ in 0..3 {
            stage.settle();
            stage.answers();
            stage.append();
            stage.settle();
            assert!(matches!(stage.answers()[..], [Answer::Appended { .. }]));
            stage.pass(1_100);
        }
        assert_eq!(stage.directory(), 0);
        stage.fails = None;
        stage.pass(1_100);
        stage.pass(1_100);
        assert_eq!((stage.directory(), stage.disks.names()), (1, vec!["1/t-0".to_owned()]));
    }
}

#[test]
fn a_replica_is_not_held_for_longer_than_a_moment() {
    let mut stage = Stage::filled(10);
    stage.call(Op::Move { directory: 1 });
    while !stage.replicas.moves.holds(stage.slot()) {
        assert!(stage.one());
    }
    stage.answers();
    // The device takes its time.
    stage.append();
    assert!(stage.answers().is_empty());
    let wake_ms = stage.replicas.next_wake_ms().unwrap();
    assert!(wake_ms <= stage.now.mono_ms + HOLD_MS);
    stage.now.mono_ms += HOLD_MS;
    stage.replicas.wake(stage.now);
    stage.take();
    assert!(!stage.replicas.moves.holds(stage.slot()));
    stage.settle();
    assert!(matches!(stage.answers()[..], [Answer::Appended { .. }]));
    stage.pass(AGAIN_MS);
    assert_eq!(stage.directory(), 1, "it is tried again");
}
