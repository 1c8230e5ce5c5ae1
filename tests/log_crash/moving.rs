//! A log that moves between two disks that forget: kills and power cuts at any operation of the log and of its copy.
//! Whatever was durable is there afterwards, in one of the two, and what follows it is what was written.

use std::sync::Arc;

use bytes::Bytes;
use tidemill::config::TopicConfig;
use tidemill::effect::{FileDone, FileError, FileOp, FileResult, Now, Stem};
use tidemill::log::batch::BatchInfo;
use tidemill::log::directory::{LogDirEntry, parse_directory_name};
use tidemill::log::{
    FutureCopy, FutureEvent, Log, MOVES_MARK, Recovery, RecoveryPlan, RecoveryStep, future_name, moves_of,
};
use uuid::Uuid;

use crate::disk::{Cut, Disk};
use crate::model::Draft;

const DIR: &str = "t-0";
const TOPIC_ID: Uuid = Uuid::from_u128(7);

#[derive(Default)]
pub struct Tally {
    pub moved: u64,
    pub died: u64,
    /// Starts that found the replica on both disks.
    pub twins: u64,
}

struct World {
    rng: fastrand::Rng,
    /// For each thousand of other steps: rare enough in some histories that a move ends.
    deaths: u32,
    disks: [Disk; 2],
    cut: Cut,
    now: Now,
    config: Arc<TopicConfig>,
    log: Log,
    /// On which disk it is.
    at: usize,
    /// What each disk's checkpoint says is synced.
    recovery_points: [i64; 2],
    copy: Option<(FutureCopy, String)>,
    /// Every batch that was given an offset.
    written: Vec<(BatchInfo, Bytes)>,
    serial: u64,
    tally: Tally,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let deaths = *rng.choice(&[3, 10, 30]).unwrap();
        let config = Arc::new(TopicConfig {
            segment_bytes: *rng.choice(&[600, 1500, 4000]).unwrap(),
            index_interval_bytes: 100,
            flush_messages: *rng.choice(&[1, 4, i64::MAX]).unwrap(),
            ..TopicConfig::default()
        });
        let cut = Cut {
            sector_bytes: 64,
            kept: *rng.choice(&[0.0, 0.5, 1.0]).unwrap(),
            metadata_kept: *rng.choice(&[0.0, 0.5, 1.0]).unwrap(),
        };
        let now = Now { mono_ms: 10, wall_ms: 1_000_000 };
        let log = Log::create(TOPIC_ID, Arc::clone(&config), now, seed);
        Self {
            deaths,
            rng,
            disks: [Disk::default(), Disk::default()],
            cut,
            now,
            config,
            log,
            at: 0,
            recovery_points: [0; 2],
            copy: None,
            written: Vec::new(),
            serial: 0,
            tally: Tally::default(),
        }
    }

    fn step(&mut self) {
        match self.rng.u32(0..1_000 + self.deaths) {
            // Few enough that a copy comes to its end.
            0..100 => self.append(),
            100..130 => {
                self.now.mono_ms += 31_000;
                self.log.wake(self.now);
            }
            130..160 => self.recovery_points[self.at] = self.log.recovery_point(),
            160..220 if self.copy.is_none() => self.begin(),
            160..1_000 => self.copy_on(),
            _ => {
                let power = self.rng.bool();
                self.die(power);
            }
        }
        self.run();
    }

    fn append(&mut self) {
        if self.log.is_held() {
            return;
        }
        self.serial += 1;
        let value_bytes = self.rng.usize(0..300);
        let draft = Draft { records: self.rng.usize(1..4), value_bytes, serial: self.serial, producer: None };
        let bytes = draft.build(self.log.reserved_end(), 0);
        self.written.push((BatchInfo::parse(&bytes).unwrap(), bytes.clone()));
        self.log.append_as_follower(self.now, bytes).unwrap();
    }

    /// A few operations of the log.
    fn run(&mut self) {
        for _ in 0..self.rng.usize(1..12) {
            self.log.end_turn(self.now);
            let Some((ticket, op)) = self.log.next_op(self.now) else { return };
            let mut appended = Vec::new();
            if let FileOp::Append { .. } = op {
                for (header, body) in self.log.append_parts() {
                    appended.extend_from_slice(header);
                    appended.extend_from_slice(body);
                }
            }
            let appended = Bytes::from(appended);
            let result = self.execute(self.at, DIR, &op, &appended).0;
            self.log.completed(self.now, ticket, result);
            self.log.check_invariants();
        }
    }

    /// The result, and the folder's new name.
    fn execute(&mut self, disk: usize, dir: &str, op: &FileOp, appended: &Bytes) -> (FileResult, String) {
        let mut dir = dir.to_owned();
        let disk = &mut self.disks[disk];
        let mark = disk.mark();
        let result = disk.execute(&mut dir, op, appended, mark, &mut self.rng);
        (result, dir)
    }

    fn begin(&mut self) {
        self.serial += 1;
        // What an earlier move left there has its other name by now.
        if self.execute(1 - self.at, DIR, &FileOp::RetireDir, &Bytes::new()).0.is_ok() {
            self.execute(1 - self.at, "", &FileOp::SyncDir, &Bytes::new()).0.unwrap();
        }
        // A start goes on in the folder that it finds.
        let (list, _) = self.execute(1 - self.at, "", &FileOp::List, &Bytes::new());
        let Ok(FileDone::Listing(names)) = list else { panic!("{list:?}") };
        let found = names.into_iter().map(|(name, _)| name).find(|name| name.ends_with("-future"));
        let name = found.unwrap_or_else(|| future_name("t", 0, TOPIC_ID, self.serial));
        self.copy = Some((FutureCopy::new(0, &self.log), name));
    }

    fn copy_on(&mut self) {
        let Some((mut copy, mut name)) = self.copy.take() else { return };
        if copy.is_near(&self.log) && !self.log.is_held() && self.rng.bool() {
            self.log.hold();
        }
        if self.log.is_held() && !self.log.is_still() {
            self.copy = Some((copy, name));
            return;
        }
        if copy.is_complete() && self.rng.bool() {
            copy.commit(DIR.to_owned());
        }
        let Some((ticket, op)) = copy.next_op(&self.log) else {
            self.copy = Some((copy, name));
            return;
        };
        let result = match &op {
            FileOp::CopyFrom { file, position, length, .. } => {
                match self.disks[self.at].read(DIR, *file, *position, *length) {
                    Ok(bytes) => {
                        self.disks[1 - self.at].put(&name, *file, *position, &bytes).unwrap();
                        Ok(FileDone::Copied(Ok(bytes.len() as u64)))
                    }
                    Err(error) => Ok(FileDone::Copied(Err(error))),
                }
            }
            op => {
                let (result, renamed) = self.execute(1 - self.at, &name, op, &Bytes::new());
                name = renamed;
                result
            }
        };
        match copy.completed(&self.log, ticket, result) {
            FutureEvent::Going(_) => self.copy = Some((copy, name)),
            FutureEvent::Committed => self.swap(),
            other => panic!("{other:?} after {op:?}"),
        }
    }

    fn swap(&mut self) {
        self.recovery_points[self.at] = 0;
        // The folder that it left may be there for a while.
        if self.rng.bool() {
            self.execute(self.at, DIR, &FileOp::RetireDir, &Bytes::new()).0.unwrap();
            self.execute(self.at, "", &FileOp::SyncDir, &Bytes::new()).0.unwrap();
        }
        self.at = 1 - self.at;
        self.log.release(self.now, true);
        self.tally.moved += 1;
    }

    fn die(&mut self, power: bool) {
        self.tally.died += 1;
        let durable_end = if power { self.log.durable_end() } else { self.log.written_end() };
        if power {
            self.disks.iter_mut().for_each(|disk| disk.cut_power(self.cut, &mut self.rng));
        }
        self.copy = None;
        let Some(at) = self.find() else {
            assert_eq!(durable_end, 0, "it is nowhere");
            self.written.clear();
            self.log = Log::create(TOPIC_ID, Arc::clone(&self.config), self.now, 1);
            return;
        };
        self.at = at;
        let mut recovery = Recovery::new(RecoveryPlan {
            topic_id: TOPIC_ID,
            clean: false,
            same_boot: !power,
            recovery_point: self.recovery_points[self.at],
            log_start_offset: 0,
            config: Arc::clone(&self.config),
            wall_ms: self.now.wall_ms,
        });
        let mut last = None;
        self.log = loop {
            match recovery.step(last.take()) {
                RecoveryStep::Op(op) => last = Some(self.execute(self.at, DIR, &op, &Bytes::new()).0),
                RecoveryStep::Done(found) => {
                    assert_eq!(found.quarantined, None);
                    break Log::recovered(*found, Arc::clone(&self.config), self.now, 1);
                }
                RecoveryStep::Empty { base_offset, .. } => {
                    let config = Arc::clone(&self.config);
                    break Log::create_at(TOPIC_ID, base_offset, config, self.now, 1);
                }
                RecoveryStep::Failed(error) => panic!("{error:?}"),
            }
        };
        let end = self.log.log_end();
        assert!(self.log.written_end() >= durable_end, "{end} of {durable_end} is there");
        self.written.retain(|(info, _)| info.base_offset < self.log.written_end());
        self.check();
    }

    /// What a start does: what a move left behind goes, and of the copies that are not finished those that are not
    /// begun anew.
    fn find(&mut self) -> Option<usize> {
        // The names that it finds are made durable before it takes one away: a rename may not have been.
        for disk in 0..2 {
            self.execute(disk, "", &FileOp::SyncDir, &Bytes::new()).0.unwrap();
        }
        let mut moves = [None; 2];
        for (disk, moves) in moves.iter_mut().enumerate() {
            let (list, _) = self.execute(disk, "", &FileOp::List, &Bytes::new());
            let Ok(FileDone::Listing(names)) = list else { panic!("{list:?}") };
            for (name, _) in names {
                match parse_directory_name(&name) {
                    LogDirEntry::Log { .. } => {
                        let mark = Stem::Named(MOVES_MARK).into();
                        let count = match self.disks[disk].read(DIR, mark, 0, 1 << 20) {
                            Ok(bytes) => moves_of(&bytes).expect("it is durable before the name is"),
                            Err(error) => {
                                assert_eq!(error, FileError::NotFound);
                                0
                            }
                        };
                        *moves = Some(count);
                    }
                    LogDirEntry::Future if self.rng.bool() => {}
                    _ => drop(self.execute(disk, &name, &FileOp::DeleteDir, &Bytes::new())),
                }
            }
        }
        match moves {
            [Some(first), Some(second)] => {
                assert_ne!(first, second, "nobody can tell");
                self.tally.twins += 1;
                let at = usize::from(second > first);
                self.execute(1 - at, DIR, &FileOp::RetireDir, &Bytes::new()).0.unwrap();
                self.execute(1 - at, "", &FileOp::SyncDir, &Bytes::new()).0.unwrap();
                Some(at)
            }
            [Some(_), None] => Some(0),
            [None, Some(_)] => Some(1),
            // Before anything of it was durable it is nowhere.
            [None, None] => None,
        }
    }

    /// The files hold what was written, and nothing else.
    fn check(&mut self) {
        let mut found = Vec::new();
        for segment in self.log.segments().cloned().collect::<Vec<_>>() {
            let file = Stem::Log(segment.base_offset).into();
            let bytes = self.disks[self.at].read(DIR, file, 0, segment.length_bytes);
            found.extend_from_slice(&bytes.unwrap_or_default());
        }
        let expected = self.written.iter().flat_map(|(_, bytes)| bytes.to_vec());
        assert!(found == expected.collect::<Vec<u8>>(), "other bytes than were written");
    }
}

/// One history.
pub fn play(seed: u64) -> Tally {
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.step();
    }
    world.die(false);
    world.tally
}
