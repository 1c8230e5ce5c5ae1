//! One log, its disk, the checkpoints beside it, and what goes wrong.

mod checkpoint;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tidemill::config::TopicConfig;
use tidemill::effect::{FileDone, FileError, FileOp, FileResult, Now, Stem, Ticket};
use tidemill::log::batch::BatchInfo;
use tidemill::log::check::CheckedBatch;
use tidemill::log::{
    Appended, Found, Log, LogEvent, LookupStep, Query, Recovered, Recovery, RecoveryPlan, RecoveryStep,
};
use tidemill::wire::ErrorCode;
use uuid::Uuid;

use checkpoint::{Checkpoint, Store};

use crate::disk::{Cut, Disk};
use crate::model::{Draft, Goal, Item, Model};

const DIR: &str = "t-0";
const TOPIC_ID: Uuid = Uuid::from_u128(7);
const MARK: &str = ".tidemill-truncation";

/// What the histories met.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub truncated: u64,
    pub restarted: u64,
    pub cut_while_truncating: u64,
    pub cut_while_recovering: u64,
    pub marks_kept: u64,
    pub starts_lowered: u64,
    pub recovered: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.truncated += other.truncated;
        self.restarted += other.restarted;
        self.cut_while_truncating += other.cut_while_truncating;
        self.cut_while_recovering += other.cut_while_recovering;
        self.marks_kept += other.marks_kept;
        self.starts_lowered += other.starts_lowered;
        self.recovered += other.recovered;
    }
}

struct InFlight {
    ticket: Ticket,
    op: FileOp,
    mark: u64,
    appended: Bytes,
}

pub struct World {
    rng: fastrand::Rng,
    disk: Disk,
    cut: Cut,
    now: Now,
    config: Arc<TopicConfig>,
    log: Log,
    in_flight: Vec<InFlight>,
    model: Model,
    checkpoint: Checkpoint,
    /// A recovery point and a log start on their way into the checkpoint.
    surveyed: Option<Checkpoint>,
    /// Log starts that were asked for, oldest first.
    stores: VecDeque<Store>,
    /// The last one that was to be lower.
    lowers_to: Option<i64>,
    /// What the log said last.
    log_start: i64,
    /// What truncations under way are to come to, in order.
    goals: Vec<Goal>,
    /// The power was cut and no recovery has ended since.
    after_power_cut: bool,
    closed: bool,
    full: f64,
    epoch: i32,
    serial: u64,
    tally: Tally,
    /// The last stop and start: nothing dies any more.
    is_at_rest: bool,
    pub steps: usize,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = Arc::new(TopicConfig {
            segment_bytes: *rng.choice(&[600, 1500, 4000]).unwrap(),
            index_interval_bytes: *rng.choice(&[100, 300]).unwrap(),
            flush_messages: *rng.choice(&[1, 4, i64::MAX, i64::MAX]).unwrap(),
            file_delete_delay_ms: *rng.choice(&[0, 500, 60_000]).unwrap(),
            retention_bytes: *rng.choice(&[-1, 3000]).unwrap(),
            retention_ms: -1,
            ..TopicConfig::default()
        });
        let now = Now { mono_ms: 10, wall_ms: 1_000_000 };
        let cut = Cut {
            sector_bytes: *rng.choice(&[64, 512]).unwrap(),
            kept: *rng.choice(&[0.0, 0.5, 0.9, 1.0]).unwrap(),
            metadata_kept: *rng.choice(&[0.0, 0.5, 1.0]).unwrap(),
        };
        let full = *rng.choice(&[0.0, 0.0, 0.02]).unwrap();
        let steps = rng.usize(30..120);
        let log = Log::create(TOPIC_ID, Arc::clone(&config), now, seed);
        Self {
            rng,
            disk: Disk::default(),
            cut,
            now,
            config,
            log,
            in_flight: Vec::new(),
            model: Model::default(),
            checkpoint: Checkpoint::default(),
            surveyed: None,
            stores: VecDeque::new(),
            lowers_to: None,
            log_start: 0,
            goals: Vec::new(),
            after_power_cut: false,
            closed: false,
            full,
            epoch: 0,
            serial: 0,
            tally: Tally::default(),
            is_at_rest: false,
            steps,
        }
    }

    pub fn step(&mut self) {
        match self.rng.u32(0..100) {
            0..24 => self.append_as_leader(),
            24..44 => self.append_as_follower(),
            44..64 => self.run_some(),
            64..70 => self.pass_time(),
            70..74 => self.delete_records(),
            74..78 => self.survey(),
            78..82 => self.store_one(),
            82..91 => self.truncate(),
            91..93 => self.run_all(),
            93..95 => self.retain(),
            95..96 => self.stop_and_start(),
            96..98 => self.crash(false),
            _ => self.crash(true),
        }
        self.emit();
        self.log.check_invariants();
    }

    /// The history ends with everything carried out, a clean stop and a start.
    pub fn end(mut self) -> Tally {
        self.full = 0.0;
        self.run_all();
        self.check();
        self.stop_and_start();
        self.run_all();
        self.check();
        self.is_at_rest = true;
        self.stop_and_start();
        assert!(!self.has_mark(), "the checkpoint holds what the log said at its end");
        self.tally
    }

    fn has_mark(&mut self) -> bool {
        let list = self.execute(&FileOp::List, &Bytes::new(), u64::MAX).unwrap();
        let FileDone::Listing(names) = list else { panic!("{list:?}") };
        names.iter().any(|(name, _)| name == MARK)
    }

    fn execute(&mut self, op: &FileOp, appended: &Bytes, mark: u64) -> FileResult {
        let mut dir = DIR.to_owned();
        self.disk.execute(&mut dir, op, appended, mark, &mut self.rng)
    }

    fn draft(&mut self) -> Draft {
        self.serial += 1;
        let producer = self.rng.bool().then(|| {
            let id = self.rng.i64(1..4);
            (id, self.model.next_sequence(id))
        });
        let value_bytes = if self.rng.u8(0..8) == 0 { 700 } else { self.rng.usize(0..200) };
        Draft { records: self.rng.usize(1..4), value_bytes, serial: self.serial, producer }
    }

    fn append_as_leader(&mut self) {
        let draft = self.draft();
        let bytes = draft.build(0, -1);
        let info = BatchInfo::parse(&bytes).unwrap();
        self.epoch += i32::from(self.rng.u8(0..10) == 0);
        match self.log.append(self.now, &CheckedBatch { bytes, info }, self.epoch) {
            Ok(Appended::New { base_offset, .. }) => {
                assert!(!self.log.is_truncating());
                self.take(draft.build(base_offset, self.epoch));
            }
            Ok(Appended::Duplicate { .. } | Appended::Old { .. }) => panic!("nothing is sent twice"),
            Err(ErrorCode::RecordListTooLarge) => {}
            Err(error) => assert!(self.log.is_truncating() || self.full > 0.0, "{error:?}"),
        }
    }

    fn take(&mut self, bytes: Bytes) {
        let info = BatchInfo::parse(&bytes).unwrap();
        self.model.items.push(Item { info, bytes });
    }

    fn append_as_follower(&mut self) {
        let (mut run, before) = (Vec::new(), self.model.clone());
        for _ in 0..self.rng.usize(1..5) {
            let gap = if self.rng.u8(0..6) == 0 { self.rng.i64(1..20) } else { 0 };
            self.epoch += i32::from(self.rng.u8(0..10) == 0);
            let base_offset = if run.is_empty() { self.log.reserved_end() } else { self.model.end() };
            let bytes = self.draft().build(base_offset + gap, self.epoch);
            run.extend_from_slice(&bytes);
            self.take(bytes);
        }
        match self.log.append_as_follower(self.now, run.into()) {
            Ok(end) => assert_eq!(end, self.model.end()),
            Err(error) => {
                assert!(self.log.is_truncating() || self.full > 0.0, "{error:?}");
                self.model = before;
            }
        }
    }

    /// Takes what the log asks for.
    fn emit(&mut self) {
        self.log.end_turn(self.now);
        while let Some((ticket, op)) = self.log.next_op(self.now) {
            let is_append = matches!(op, FileOp::Append { .. });
            let parts = self.log.append_parts().flat_map(|(header, body)| [&header[..], body]);
            let appended = if is_append { parts.collect::<Vec<_>>().concat().into() } else { Bytes::new() };
            self.in_flight.push(InFlight { ticket, op, mark: self.disk.mark(), appended });
        }
        if self.lowers_to != self.log.start_to_lower() {
            self.lowers_to = self.log.start_to_lower();
            self.stores.extend(self.lowers_to.map(Store::Lower));
        }
    }

    fn complete_one(&mut self) {
        let at = self.rng.usize(0..self.in_flight.len());
        let InFlight { ticket, op, mark, appended } = self.in_flight.remove(at);
        let takes_space = matches!(op, FileOp::Create { .. } | FileOp::Write { .. } | FileOp::Append { .. });
        let result = if takes_space && self.rng.f64() < self.full {
            Err(FileError::NoSpace)
        } else {
            self.execute(&op, &appended, mark)
        };
        let event = self.log.completed(self.now, ticket, result);
        self.log.check_invariants();
        match event {
            LogEvent::Truncated { log_end } => self.truncated(log_end),
            LogEvent::Dropped { from_offset, .. } => {
                self.model.items.retain(|item| item.info.base_offset < from_offset);
            }
            LogEvent::Expired(offset) => self.move_log_start(offset),
            LogEvent::Closed => self.closed = true,
            LogEvent::None | LogEvent::Appended => {}
            other => panic!("{other:?} after {op:?}"),
        }
        self.emit();
    }

    fn run_some(&mut self) {
        self.emit();
        for _ in 0..self.rng.usize(1..30) {
            if !self.in_flight.is_empty() {
                self.complete_one();
            }
        }
    }

    /// Until nothing is on its way, whatever a full device refuses.
    fn run_all(&mut self) {
        for _ in 0..10_000 {
            self.emit();
            if !self.in_flight.is_empty() {
                self.complete_one();
            } else if !self.stores.is_empty() {
                self.store_one();
            } else if self.log.waits_for_space() || self.log.has_gathered() || self.log.is_truncating() {
                self.now.mono_ms += 1000;
                self.log.wake(self.now);
            } else {
                return;
            }
        }
        panic!("the log never rests");
    }

    fn pass_time(&mut self) {
        let ms = *self.rng.choice(&[1, 600, 1_100, 31_000, 70_000]).unwrap();
        self.now.mono_ms += ms;
        self.now.wall_ms += ms as i64;
        self.log.wake(self.now);
    }

    fn delete_records(&mut self) {
        let range = self.log.log_start_offset()..=self.log.log_end();
        if !self.log.is_truncating() && !range.is_empty() {
            let offset = self.rng.i64(range);
            self.move_log_start(offset);
        }
    }

    fn retain(&mut self) {
        if let Some(offset) = self.log.retention(self.now, self.log.log_end()) {
            self.move_log_start(offset);
        }
    }

    fn truncate(&mut self) {
        let start = self.log.log_start_offset();
        // Where leaders are elected uncleanly a log may have to go back behind its start.
        let below = if self.rng.u8(0..4) == 0 { self.rng.i64(0..50) } else { 0 };
        let least = (start - below).max(0);
        if self.rng.u8(0..5) == 0 {
            let offset = least + self.rng.i64(0..200);
            self.goals.push(Goal::Anew(offset));
            self.log.begin_restart_at(self.now, offset);
        } else {
            let end = self.log.reserved_end().max(start);
            let least = if self.rng.bool() { least } else { least.max(end - 12) };
            let offset = self.rng.i64(least..=end + 2);
            self.goals.push(if offset < start { Goal::Anew(offset) } else { Goal::Cut(offset) });
            self.log.begin_truncate(self.now, offset);
        }
        assert!(self.log.is_truncating());
    }

    fn truncated(&mut self, log_end: i64) {
        self.model.truncate(&self.goals, self.log_start);
        let began_anew = self.goals.iter().any(|goal| matches!(goal, Goal::Anew(_)));
        self.tally.truncated += 1;
        self.tally.restarted += u64::from(began_anew);
        self.goals.clear();
        self.log_start = if began_anew { self.model.begin } else { self.log_start };
        assert_eq!(self.log.log_start_offset(), self.log_start, "what was promised is not what is");
        assert_eq!(self.log.written_end(), self.model.end());
        assert_eq!(log_end, self.log.log_end());
        self.tally.marks_kept += u64::from(self.has_mark());
        self.check();
    }

    /// Files, look-ups, epochs and producers against the list.
    fn check(&mut self) {
        let start = self.log.log_start_offset();
        assert_eq!(self.log.written_end(), self.model.end());
        assert_eq!(self.log.producers().snapshot(), self.model.producers().snapshot(), "producers");
        let mut epochs = self.log.epochs().clone();
        epochs.truncate_from_end(self.model.end());
        // An epoch of which no record is left may be forgotten or not, and where one begins before its first record
        // that is left, it does so at the log start or there.
        let mut expected = self.model.epochs(start);
        let first = self.model.items.iter().find(|item| item.end() > start);
        let first = first.map_or(start, |item| item.info.base_offset.max(start));
        epochs.truncate_from_start(first);
        expected.truncate_from_start(first);
        assert_eq!(epochs, expected, "leader epochs");
        let segments: Vec<_> = self.log.segments().map(|one| (one.base_offset, one.length_bytes)).collect();
        let mut held = Vec::new();
        for (base, length) in segments.iter().filter(|(_, length)| *length > 0) {
            held.extend_from_slice(&self.disk.read(DIR, Stem::Log(*base).into(), 0, *length).unwrap());
        }
        let items: Vec<Item> =
            self.model.items.iter().filter(|item| item.end() > segments[0].0).cloned().collect();
        let expected: Vec<u8> = items.iter().flat_map(|item| item.bytes.to_vec()).collect();
        assert!(held == expected, "the files hold the batches of the list");
        let mut next = start;
        let log_end = self.log.log_end();
        for item in items.iter().filter(|item| item.end() > start && item.end() <= log_end) {
            self.check_fetch(next, item);
            self.check_fetch(item.info.last_offset(), item);
            next = item.end();
        }
    }

    fn check_fetch(&mut self, offset: i64, item: &Item) {
        let end = self.log.log_end_position();
        let (mut lookup, mut step) = self.log.lookup(Query::Fetch { offset, max_bytes: 1, end });
        while let LookupStep::Read(op) = step {
            let result = self.execute(&op, &Bytes::new(), u64::MAX);
            step = self.log.lookup_next(&mut lookup, result);
        }
        let LookupStep::Found(Found::Span(span)) = step else { panic!("offset {offset}: {step:?}") };
        let file = Stem::Log(span.segment_base_offset).into();
        let bytes = self.disk.read(DIR, file, span.position, span.length).unwrap();
        assert!(bytes == item.bytes, "offset {offset} is in its batch");
    }

    fn stop_and_start(&mut self) {
        self.log.begin_close(self.now);
        self.closed = self.log.is_closed();
        self.emit();
        while !self.closed {
            assert!(!self.in_flight.is_empty(), "a stop ends");
            self.complete_one();
        }
        self.closed = false;
        let clean = !self.log.is_unclean();
        while !self.stores.is_empty() && self.rng.bool() {
            let _ = self.store();
        }
        let reached = self.reached(self.log.written_end());
        let last = self.reached_now();
        self.store_survey(last);
        self.surveyed = None;
        self.recover(clean, reached);
    }

    /// The process dies, perhaps because the power does. What was on its way may have been carried out.
    fn crash(&mut self, power: bool) {
        self.emit();
        while !self.stores.is_empty() && self.rng.bool() {
            let _ = self.store();
        }
        // A survey that was answered may still be written.
        if let Some(surveyed) = self.surveyed.take().filter(|_| self.rng.bool()) {
            self.store_survey(surveyed);
        }
        let mut reached = self.reached(if power { self.log.durable_end() } else { self.log.written_end() });
        reached.end = reached.end.min(self.model.end());
        for flight in std::mem::take(&mut self.in_flight) {
            if self.rng.bool() {
                let _ = self.execute(&flight.op, &flight.appended, flight.mark);
            }
        }
        if power {
            self.tally.cut_while_truncating += u64::from(self.log.is_truncating());
            self.disk.cut_power(self.cut, &mut self.rng);
            self.after_power_cut = true;
        }
        self.recover(false, reached);
    }

    fn reached(&self, end: i64) -> Reached {
        let promised = self.log.log_start_promised();
        let mut reached = Reached {
            end,
            begins: Vec::new(),
            starts: self.goals.is_empty().then_some((self.log_start, promised)),
            believes_checkpoint: self.checkpoint.log_start <= promised,
        };
        let mut begin = None;
        for goal in &self.goals {
            begin = match (*goal, begin) {
                (Goal::Anew(offset), _) => Some(offset),
                (Goal::Cut(offset), Some(begin)) => Some(offset.min(begin)),
                (Goal::Cut(offset), None) => {
                    reached.end = reached.end.min(self.model.end_below(offset));
                    (reached.end < self.log_start).then_some(self.log_start)
                }
            };
            reached.begins.extend(begin);
        }
        reached
    }

    fn recover(&mut self, mut clean: bool, mut reached: Reached) {
        self.in_flight.clear();
        self.goals.clear();
        self.stores.clear();
        self.lowers_to = None;
        let found = loop {
            match self.recover_once(clean) {
                Ok(found) => break found,
                Err(power) => {
                    clean = false;
                    self.after_power_cut |= power;
                    self.tally.cut_while_recovering += u64::from(power);
                }
            }
            if self.after_power_cut {
                // What was only written may be gone now.
                reached.end = reached.end.min(self.log.durable_end());
            }
        };
        self.after_power_cut = false;
        self.tally.recovered += 1;
        self.log = match found {
            Ok(found) => {
                assert_eq!(found.quarantined, None, "nothing is damaged");
                Log::recovered(*found, Arc::clone(&self.config), self.now, 1)
            }
            Err(base) => Log::create_at(TOPIC_ID, base, Arc::clone(&self.config), self.now, 1),
        };
        self.settle(&reached);
        self.log_start = self.log.log_start_offset();
        if let Some((least, most)) = reached.starts {
            let is = self.log_start;
            assert!((least.min(self.model.end())..=most).contains(&is), "{least} to {most} is now {is}");
        }
        self.check();
        self.emit();
    }

    /// The list becomes what the recovered log holds, if it may hold no more than that.
    fn settle(&mut self, reached: &Reached) {
        let (first, end) = (self.log.first_segment_base_offset(), self.log.written_end());
        let mut kept = self.model.clone();
        kept.cut(end);
        let is_prefix = kept.end() == end && reached.end <= end;
        // Where both are possible, what is known of producers tells them apart.
        if is_prefix && kept.producers().snapshot() == self.log.producers().snapshot() {
            self.model = kept;
            return;
        }
        let is_behind_its_start =
            reached.believes_checkpoint && first == self.checkpoint.log_start && reached.end <= first;
        assert!(
            self.log.size_bytes() == 0
                && first == end
                && (reached.begins.contains(&first) || is_behind_its_start),
            "{reached:?} may not become a log from {first} to {end}; {:?}",
            self.checkpoint,
        );
        self.model.begin_anew(first);
    }

    /// Runs a recovery, or a part of it; whether it was a power cut that ended it then.
    #[allow(clippy::type_complexity)]
    fn recover_once(&mut self, clean: bool) -> Result<Result<Box<Recovered>, i64>, bool> {
        let mut recovery = Recovery::new(RecoveryPlan {
            topic_id: TOPIC_ID,
            clean,
            same_boot: !self.after_power_cut,
            recovery_point: self.checkpoint.recovery_point,
            log_start_offset: self.checkpoint.log_start,
            config: Arc::clone(&self.config),
            wall_ms: self.now.wall_ms,
        });
        let mut last = None;
        let dies_after =
            if !self.is_at_rest && self.rng.u8(0..3) == 0 { self.rng.usize(0..40) } else { usize::MAX };
        for operations in 0.. {
            match recovery.step(last.take()) {
                RecoveryStep::Op(_) if operations == dies_after => break,
                RecoveryStep::Op(op) => last = Some(self.execute(&op, &Bytes::new(), u64::MAX)),
                RecoveryStep::Done(found) => return Ok(Ok(found)),
                RecoveryStep::Empty { base_offset, .. } => return Ok(Err(base_offset)),
                RecoveryStep::Failed(error) => panic!("{error:?}"),
            }
        }
        let power = self.rng.bool();
        if power {
            self.disk.cut_power(self.cut, &mut self.rng);
        }
        Err(power)
    }
}

/// What a crash may not take back.
#[derive(Debug)]
struct Reached {
    /// The log ends there or later,
    end: i64,
    /// or is empty and begins at one of these.
    begins: Vec<i64>,
    /// Where nothing was to be truncated: the least and the highest log start.
    starts: Option<(i64, i64)>,
    /// The log start in the checkpoint is one that was promised, not that of a log which is no more.
    believes_checkpoint: bool,
}
