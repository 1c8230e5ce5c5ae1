//! Logs that are copied while they are written, over directories in memory.

use super::*;
use crate::config::TopicConfig;
use crate::log::memory_dir::{Kind, MemoryDir};
use crate::log::tests::{Driver, batch, small};
use crate::log::{Recovery, RecoveryPlan, RecoveryStep};

const SLOT: u32 = 3;
const TOPIC: Uuid = Uuid::from_u128(7);

/// A log, and the folder to which it is copied.
struct Mover {
    driver: Driver,
    copy: FutureCopy,
    there: MemoryDir,
}

impl Mover {
    fn new(driver: Driver) -> Self {
        Self { copy: FutureCopy::new(SLOT, &driver.log), driver, there: MemoryDir::default() }
    }

    fn carry_out(&mut self, op: &FileOp) -> FileResult {
        match op {
            FileOp::CopyFrom { replica, .. } => {
                assert_eq!(*replica, SLOT);
                self.there.copy_from(&self.driver.dir, op)
            }
            op => self.there.execute(op, std::iter::empty()),
        }
    }

    /// One operation; nothing where there is none.
    fn go_on(&mut self) -> Option<FutureEvent> {
        let (ticket, op) = self.copy.next_op(&self.driver.log)?;
        let result = self.carry_out(&op);
        Some(self.copy.completed(&self.driver.log, ticket, result))
    }

    /// Holds the log as soon as that may be, and goes to the end; the log then goes on over there.
    fn finish(mut self) -> (Driver, MemoryDir) {
        for _ in 0..10_000 {
            if self.copy.is_near(&self.driver.log) && self.driver.log.hold() {
                break;
            }
            let event = self.go_on();
            assert!(
                !matches!(event, Some(FutureEvent::SourceFailed(_) | FutureEvent::TargetFailed(_))),
                "{event:?}"
            );
        }
        self.driver.run();
        assert!(self.driver.log.is_still());
        while self.go_on().is_some() {}
        assert!(self.copy.is_complete() && !self.copy.is_committing());
        assert_eq!(self.copy.end_offset(&self.driver.log), self.driver.log.log_end());
        assert_eq!(
            self.copy.size_bytes(),
            self.driver.log.segments().map(|one| one.length_bytes).sum::<u64>()
        );
        self.copy.commit("t-0".to_owned());
        assert_eq!(self.go_on(), Some(FutureEvent::Going(0)));
        assert!(self.copy.is_committing() && !self.copy.is_committed());
        assert_eq!(self.go_on(), Some(FutureEvent::Committed));
        self.driver.log.release(self.driver.now, true);
        let left = std::mem::replace(&mut self.driver.dir, self.there);
        (self.driver, left)
    }
}

/// Every segment is there as the log says, and so are the small files.
fn check(driver: &Driver, left: &MemoryDir) {
    for segment in driver.log.segments() {
        let base = segment.base_offset;
        let files = [
            (Stem::Log(base), segment.length_bytes),
            (Stem::OffsetIndex(base), segment.index_bytes),
            (Stem::TimeIndex(base), segment.time_index_bytes),
        ];
        for (stem, length) in files {
            let (here, there) = (driver.dir.file(stem).unwrap(), left.file(stem).unwrap());
            assert_eq!(here, &there[..length as usize], "{}", FileName::from(stem));
        }
        assert_eq!(driver.dir.file(Stem::ProducerSnapshot(base)), left.file(Stem::ProducerSnapshot(base)));
    }
    for name in ["partition.metadata", "leader-epoch-checkpoint"] {
        assert_eq!(driver.dir.file(Stem::Named(name)), left.file(Stem::Named(name)), "{name}");
    }
    assert!(driver.dir.names().all(|name| name.suffix == crate::effect::Suffix::None));
    let first = driver.log.first_segment_base_offset();
    let old = driver.dir.names().find(|name| matches!(name.stem, Stem::Log(base) if base < first));
    assert_eq!(old, None, "what is deleted here is not there");
}

/// The process dies over there, and starts again.
fn restarted(mut driver: Driver) -> Driver {
    let config = std::sync::Arc::new(small());
    let mut recovery = Recovery::new(RecoveryPlan {
        topic_id: TOPIC,
        clean: false,
        same_boot: true,
        recovery_point: 0,
        log_start_offset: driver.log.log_start_offset(),
        config: std::sync::Arc::clone(&config),
        wall_ms: driver.now.wall_ms,
    });
    let mut last = None;
    let found = loop {
        match recovery.step(last.take()) {
            RecoveryStep::Op(op) => last = Some(driver.dir.execute(&op, std::iter::empty())),
            RecoveryStep::Done(found) => break *found,
            end => panic!("{end:?}"),
        }
    };
    assert_eq!((found.truncated_bytes, found.quarantined), (0, None));
    let log = Log::recovered(found, config, driver.now, 1);
    Driver { log, ..driver }
}

fn append(driver: &mut Driver, rng: &mut fastrand::Rng) {
    driver.append(&batch(&[rng.i64(1..1_000)], rng.usize(1..700)));
}

#[test]
fn a_log_is_copied_while_it_is_written_and_goes_on_in_its_copy() {
    for seed in 0..60 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut driver = Driver::new(small());
        for _ in 0..rng.usize(0..40) {
            append(&mut driver, &mut rng);
        }
        let mut mover = Mover::new(driver);
        for _ in 0..rng.usize(0..300) {
            match rng.u8(0..20) {
                0..3 => append(&mut mover.driver, &mut rng),
                3 => {
                    let (start, end) = (mover.driver.log.log_start_offset(), mover.driver.log.durable_end());
                    let offset = rng.i64(start..=end.max(start));
                    mover.driver.log.delete_records(mover.driver.now, offset);
                    mover.driver.run();
                }
                4 => drop(mover.driver.pass(rng.u64(1..70_000))),
                5 if rng.u8(0..8) == 0 => {
                    let (start, end) = (mover.driver.log.log_start_offset(), mover.driver.log.log_end());
                    let log = &mut mover.driver.log;
                    log.begin_truncate(mover.driver.now, rng.i64(start..=end));
                    mover.driver.run();
                }
                6 if rng.u8(0..4) == 0 => mover.there.fail_next(Kind::Write, FileError::NoSpace),
                _ => {
                    let event = mover.go_on();
                    let failed =
                        matches!(event, Some(FutureEvent::SourceFailed(_) | FutureEvent::TargetFailed(_)));
                    assert!(!failed, "seed {seed}: {event:?}");
                }
            }
        }
        let (mut driver, left) = mover.finish();
        check(&driver, &left);
        let ends = (driver.log.log_start_offset(), driver.log.log_end());
        let offsets: Vec<i64> = (ends.0..ends.1).map(|at| driver.first_batch(at).base_offset).collect();
        append(&mut driver, &mut rng);
        append(&mut driver, &mut rng);
        let mut driver = restarted(driver);
        assert_eq!(
            (driver.log.log_start_offset(), driver.log.log_end()),
            (ends.0, ends.1 + 2),
            "seed {seed}"
        );
        let again: Vec<i64> = (ends.0..ends.1).map(|at| driver.first_batch(at).base_offset).collect();
        assert_eq!(offsets, again, "seed {seed}");
    }
}

#[test]
fn a_log_that_is_held_takes_nothing_and_goes_on_as_it_was() {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    driver.gather(&batch(&[2], 100));
    assert!(driver.log.hold());
    assert!(driver.log.append(driver.now, &batch(&[3], 100), 3).is_err());
    assert!(driver.log.is_held() && !driver.log.is_still(), "a batch is on its way");
    driver.run();
    assert!(driver.log.is_still());
    assert_eq!(driver.log.log_end(), 2);
    driver.pass(100_000);
    assert!(driver.log.is_still(), "nothing begins");
    assert!(!driver.log.hold(), "once");
    driver.log.release(driver.now, false);
    driver.append(&batch(&[4], 100));
    assert_eq!(driver.log.log_end(), 3);
}

#[test]
fn a_log_is_not_held_while_something_that_takes_long_is_on_its_way() {
    let mut driver = Driver::new(TopicConfig { flush_messages: 1, ..small() });
    driver.hold_syncs = true;
    driver.append(&batch(&[1], 100));
    assert!(!driver.log.hold(), "a sync");
    driver.release();
    assert!(driver.log.hold());
}

#[test]
fn the_count_of_moves_rises_and_the_one_that_stays_counts_more() {
    let mut driver = Driver::new(small());
    for moves in 1..4 {
        driver.append(&batch(&[1], 100));
        let (moved, left) = Mover::new(driver).finish();
        driver = moved;
        let count = |dir: &MemoryDir| dir.file(Stem::Named(MOVES_MARK)).map(|bytes| moves_of(bytes).unwrap());
        assert_eq!((count(&driver.dir), count(&left).unwrap_or(0)), (Some(moves), moves - 1));
    }
    let mut mover = Mover::new(driver);
    while mover.copy.phase == Phase::Begin {
        mover.go_on();
    }
    let FileOp::Write { bytes, .. } = &mover.copy.take_back_ops()[1] else { panic!("it is written second") };
    assert_eq!(moves_of(bytes), Some(5), "the copy would have had 4");
}

#[test]
fn a_damaged_count_is_none() {
    assert_eq!(encode_moves(3), "0\n3\n1e53109b\n");
    let whole = encode_moves(12);
    assert_eq!(moves_of(whole.as_bytes()), Some(12));
    for at in 0..whole.len() {
        let mut damaged = whole.clone().into_bytes();
        damaged[at] ^= 1;
        assert_eq!((moves_of(&damaged), moves_of(&damaged[..at])), (None, None), "byte {at}");
    }
    assert_eq!(moves_of(b"0\n+1\n"), None);
}

#[test]
fn the_folder_of_a_copy_is_known_by_its_name() {
    use crate::log::directory::{LogDirEntry, parse_directory_name};
    for topic in ["t".to_owned(), "a-b.c".to_owned(), "x".repeat(249)] {
        for partition in [0, i32::MAX] {
            let name = future_name(&topic, partition, Uuid::from_u128(7 << 64), 9);
            assert!(name.len() <= 255 && parse_directory_name(&name) == LogDirEntry::Future, "{name}");
            assert!(is_future_of(&name, &topic, partition, Uuid::from_u128((7 << 64) + 1)));
            let others = [
                (&*topic, 1, Uuid::from_u128(7 << 64)),
                (&*topic, partition, Uuid::from_u128(8 << 64)),
                ("other", partition, Uuid::from_u128(7 << 64)),
            ];
            for (topic, partition, id) in others {
                assert!(!is_future_of(&name, topic, partition, id), "{name}");
            }
        }
    }
}

#[test]
fn a_source_that_cannot_be_read_and_a_target_that_cannot_be_written_are_told_apart() {
    let mut driver = Driver::new(small());
    driver.append(&batch(&[1], 100));
    let mut mover = Mover::new(driver);
    while mover.copy.phase == Phase::Begin {
        mover.go_on();
    }
    let answered = |mover: &mut Mover, result: FileResult| {
        let (ticket, op) = mover.copy.next_op(&mover.driver.log).unwrap();
        assert!(matches!(op, FileOp::CopyFrom { .. }), "{op:?}");
        mover.copy.completed(&mover.driver.log, ticket, result)
    };
    let io = FileError::Io(5);
    assert_eq!(answered(&mut mover, Err(FileError::NoSpace)), FutureEvent::Full);
    assert_eq!(answered(&mut mover, Ok(FileDone::Copied(Err(io)))), FutureEvent::SourceFailed(io));
    assert_eq!(answered(&mut mover, Err(io)), FutureEvent::TargetFailed(io));
    let short = FileError::Short { written: 3 };
    assert_eq!(answered(&mut mover, Ok(FileDone::Copied(Ok(3)))), FutureEvent::SourceFailed(short));
}
