//! Loading: a coordinator is given its partition's log from the start to the end that the log has now, one bounded
//! slice after another. A turn of the shard takes in at most [`RECORDS_MAX`] records, of one partition; then the shard
//! does what else there is to do, and the next partition that loads has its turn.
//!
//! The end is behind everything that has been given an offset by then, and what is not committed yet is waited for: a
//! batch that is in flight when the load begins, of this broker's own earlier leadership above all, is neither missed
//! nor taken for committed. If it never reaches the log (its write fails), the end goes back, and the load begins
//! again; so a load that waits asks for the end now and then. After a power cut the log may end in offsets without a
//! batch, which nobody fills: where the end was known as committed before a read that found nothing, the load is over.
//! A look-up or read that fails is tried again after a while, or when the replica begins to lead.

use bytes::Bytes;

use super::batches::{self, KeysAndValues};
use super::{Coordinators, Led, PART_END, PART_READ, PART_START};
use crate::broker::Output;
use crate::effect::{ByteSpan, FileDone, FileResult, Now};
use crate::group::Input;
use crate::partition::{Answer, OffsetQuery, Op, Read, Reader};

/// What one slice reads, unless a single batch is longer.
const SLICE_BYTES: u64 = 64 * 1024;
/// Records that one turn takes in: less than a millisecond of work.
pub(super) const RECORDS_MAX: usize = 500;
/// How long a load rests after a failure.
const RETRY_MS: u64 = 1_000;

/// How far a load has come.
#[derive(Debug)]
pub(super) struct Load {
    /// The coordinator's number for it.
    id: u64,
    /// The next offset to read, once the log's start is known.
    next: Option<i64>,
    /// The log's end when it began, once that is known.
    end: Option<i64>,
    /// The high watermark as the last read told it.
    high_watermark: i64,
    /// It waits for what comes next to be committed.
    waits: bool,
    /// A slice that was read and waits for its turn.
    read: Option<Bytes>,
    /// Records in front of `next` that wait for their turn.
    records: std::vec::IntoIter<(Option<Bytes>, Option<Bytes>)>,
}

impl Coordinators {
    /// Begins a load, or begins it again.
    pub(super) fn begin_load(&mut self, partition: i32, id: u64) {
        let life = self.new_life();
        let Some(led) = self.led.get_mut(&partition) else { return };
        // Answers to an earlier attempt find nobody.
        led.life = life;
        let high_watermark =
            led.load.as_ref().filter(|load| load.id == id).map_or(-1, |load| load.high_watermark);
        let records = Vec::new().into_iter();
        let (next, end, read, waits) = (None, None, None, false);
        led.load = Some(Load { id, next, end, high_watermark, waits, read, records });
        self.ask_for(partition, PART_START, OffsetQuery::Earliest);
        self.ask_for(partition, PART_END, OffsetQuery::Reserved);
    }

    fn ask_for(&mut self, partition: i32, part: u32, query: OffsetQuery) {
        self.call(partition, part, Op::Offset { query, isolation: None, current_leader_epoch: -1 });
    }

    /// Time has passed, and the partition still loads: either something failed, or it waits.
    pub(super) fn load_wake(&mut self, partition: i32) {
        let load = self.led.get(&partition).and_then(|led| led.load.as_ref());
        if load.is_some_and(|load| load.waits) {
            self.ask_for(partition, PART_END, OffsetQuery::Reserved);
        } else {
            self.load_again(partition);
        }
    }

    /// The replica has begun to lead, or enough time has passed since a failure.
    pub(super) fn load_again(&mut self, partition: i32) {
        if let Some(id) = self.led.get(&partition).and_then(|led| led.load.as_ref()).map(|load| load.id) {
            self.begin_load(partition, id);
        }
    }

    /// The partition has answered a part of the load.
    pub(super) fn load_answered(
        &mut self,
        now: Now,
        partition: i32,
        part: u32,
        answer: Answer,
        span: Option<ByteSpan>,
    ) {
        let Some(load) = self.led.get_mut(&partition).and_then(|led| led.load.as_mut()) else { return };
        let again_ms = now.mono_ms + RETRY_MS;
        match answer {
            Answer::Offset { offset, .. } if part == PART_END && load.end.is_some() => match load.waits {
                true if load.end > Some(offset) => self.load_again(partition),
                true => self.set_wake(partition, Some(again_ms)),
                false => {}
            },
            Answer::Offset { offset, .. } => {
                let known = if part == PART_START { &mut load.next } else { &mut load.end };
                *known = Some(offset);
                self.load_on(now, partition);
            }
            Answer::Read(found) => {
                let known = std::mem::replace(&mut load.high_watermark, found.high_watermark);
                let is_committed = |high_watermark| load.end.is_some_and(|end| high_watermark >= end);
                match span {
                    Some(span) => {
                        let to = self.address(partition, PART_READ);
                        self.outputs.push(Output::ReadSpan { to, span });
                    }
                    None if is_committed(known) => self.load_records(now, partition, Vec::new(), true),
                    // Perhaps it was committed while the read was under way.
                    None if is_committed(found.high_watermark) => self.load_again(partition),
                    // A watch was left behind: what comes next is not committed yet.
                    None => {
                        load.waits = true;
                        self.set_wake(partition, Some(again_ms));
                    }
                }
            }
            Answer::Fired => {
                load.waits = false;
                self.load_on(now, partition);
            }
            // A failure; the others answer what is not asked here.
            _ => {
                load.waits = false;
                self.set_wake(partition, Some(again_ms));
            }
        }
    }

    /// Reads the next slice, or tells the coordinator that this was all.
    fn load_on(&mut self, now: Now, partition: i32) {
        let load = self.led.get(&partition).and_then(|led| led.load.as_ref());
        let Some(Load { next: Some(next), end: Some(end), .. }) = load else { return };
        if next >= end {
            return self.load_records(now, partition, Vec::new(), true);
        }
        let read = Read { watch_below_bytes: 1, ..Read::new(Reader::Consumer, *next, SLICE_BYTES) };
        self.call(partition, PART_READ, Op::Read(read));
    }

    /// The bytes of a slice have come: they wait for their turn.
    pub(super) fn load_read(&mut self, now: Now, partition: i32, result: FileResult) {
        let Some(load) = self.led.get_mut(&partition).and_then(|led| led.load.as_mut()) else { return };
        match result {
            Ok(FileDone::Bytes(bytes)) if !bytes.is_empty() => {
                load.read = Some(bytes);
                self.loading.push_back(partition);
            }
            _ => self.set_wake(partition, Some(now.mono_ms + RETRY_MS)),
        }
    }

    /// One turn's part of the loads that have something to take in.
    pub(super) fn load_turn(&mut self, now: Now) {
        while let Some(partition) = self.loading.pop_front() {
            if self.take_in(now, partition) {
                return;
            }
        }
    }

    /// Takes in some of what was read, and goes on behind it; whether there was any.
    fn take_in(&mut self, now: Now, partition: i32) -> bool {
        let Some(load) = self.led.get_mut(&partition).and_then(|led| led.load.as_mut()) else { return false };
        let Load { next: Some(next), end: Some(end), .. } = load else { return false };
        if let Some(bytes) = load.read.take() {
            match batches::decode(bytes, *next) {
                Ok((_, reached)) if reached == *next => {
                    self.load_failed(now, partition, "the log does not go on");
                    return true;
                }
                Ok((records, reached)) => {
                    *next = reached;
                    load.records = records.into_iter();
                }
                Err(why) => {
                    self.load_failed(now, partition, &why);
                    return true;
                }
            }
        } else if load.records.len() == 0 {
            // It has begun again since.
            return false;
        }
        let is_read = *next >= *end;
        let records: KeysAndValues = load.records.by_ref().take(RECORDS_MAX).collect();
        let is_left = load.records.len() > 0;
        self.load_records(now, partition, records, is_read && !is_left);
        if is_left {
            self.loading.push_back(partition);
        } else if !is_read {
            self.load_on(now, partition);
        }
        true
    }

    fn load_records(&mut self, now: Now, partition: i32, records: KeysAndValues, is_last: bool) {
        let Some(Led { load: Some(load), .. }) = self.led.get(&partition) else { return };
        let load = load.id;
        if is_last && let Some(led) = self.led.get_mut(&partition) {
            led.load = None;
        }
        self.step(now, partition, Input::Loaded { load, records, is_last });
    }

    /// What the log holds cannot be read: the partition has no coordinator until it is led again.
    fn load_failed(&mut self, now: Now, partition: i32, why: &str) {
        self.say_load_failed(partition, why);
        self.step(now, partition, Input::Resign);
    }

    pub(super) fn say_load_failed(&mut self, partition: i32, why: &str) {
        if let Some(led) = self.led.get_mut(&partition) {
            led.load = None;
        }
        self.outputs.push(Output::Say(format!(
            "the groups of {}-{partition} cannot be loaded: {why}",
            crate::group::OFFSETS_TOPIC
        )));
    }
}
