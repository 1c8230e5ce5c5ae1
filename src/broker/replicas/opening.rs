//! Replicas that do not serve: being recovered, waiting for space, given a name that another topic's
//! directory still has, offline, or going before they were ever opened.

use super::{FoundReplica, Output, Owner, REFUSED_MAX, Replicas, State};
use crate::effect::{FileError, FileOp, FileResult, Now, OpQueue, Ticket};
use crate::log::batch::BatchInfo;
use crate::log::{Recovery, RecoveryPlan};
use crate::partition::Op;
use crate::request::{Call, ClusterView};

/// How long a recovery that a full device refused rests.
const AGAIN_MS: u64 = 5000;

/// A replica whose log is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    /// Batches of idempotent producers that were sent away meanwhile.
    pub(super) refused: Vec<BatchInfo>,
    /// `None` where there is nothing to recover.
    plan: Option<RecoveryPlan>,
    /// By the checkpoint.
    pub(super) high_watermark: i64,
    /// When the recovery is tried again after a full device.
    again_ms: Option<u64>,
    /// Renames the directory of another topic.
    aside: OpQueue<()>,
}

impl Opening {
    pub(super) fn new(plan: Option<RecoveryPlan>, high_watermark: i64) -> Self {
        Self { refused: Vec::new(), plan, high_watermark, again_ms: None, aside: OpQueue::default() }
    }

    /// Whether nothing is under way.
    pub(super) fn waits(&self) -> bool {
        self.again_ms.is_some()
    }

    fn found(&self) -> FoundReplica {
        self.plan.as_ref().map_or_else(FoundReplica::default, |plan| FoundReplica {
            recovery_point: plan.recovery_point,
            log_start_offset: plan.log_start_offset,
            high_watermark: self.high_watermark,
        })
    }
}

impl Replicas {
    /// A batch that is sent away before its log is open comes again. Batches behind it may come
    /// first, when the log is open: they must not be taken for the producer's first one.
    pub(super) fn note_refused(&mut self, slot: Option<u32>, call: &Call) {
        let entry = slot.and_then(|slot| self.slots.get_mut(slot as usize));
        if let Some(super::Slot { state: State::Opening(opening), .. }) = entry
            && let Op::Append { batch, .. } = &call.op
            && batch.info.has_producer()
            && opening.refused.len() < REFUSED_MAX
        {
            opening.refused.push(batch.info);
        }
    }

    /// Orders the recovery of a replica that is being opened; false if it has none to wait for.
    pub(super) fn recover(&mut self, slot: u32) -> bool {
        let Some(entry) = self.slots.get(slot as usize) else { return true };
        let State::Opening(opening) = &entry.state else { return true };
        let Some(plan) = &opening.plan else { return false };
        let recovery = Box::new(Recovery::new(plan.clone()));
        self.count_operation(slot);
        self.outputs.push(Output::Recover(slot, recovery));
        true
    }

    /// A full device refused what the recovery had to write.
    pub(super) fn recover_later(&mut self, now: Now, slot: u32) {
        if self.closing {
            return self.close_offline(slot);
        }
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let State::Opening(opening) = &mut entry.state else { return };
        let at_ms = now.mono_ms + AGAIN_MS;
        opening.again_ms = Some(at_ms);
        entry.wake_at_ms = Some(at_ms);
        self.wakes.insert((at_ms, slot));
    }

    pub(super) fn recover_again(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        if let State::Opening(opening) = &mut entry.state
            && opening.again_ms.take().is_some()
        {
            self.recover(slot);
        }
    }

    /// From now on the replica answers that its storage failed.
    pub(super) fn set_offline(&mut self, slot: u32) {
        if self.closing {
            return self.close_offline(slot);
        }
        if let Some(entry) = self.slots.get_mut(slot as usize)
            && let State::Opening(opening) = &entry.state
        {
            entry.state = State::Offline(opening.found());
        }
    }

    /// Nothing of it is closed, but that it was there counts.
    fn close_offline(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            if let State::Opening(opening) = &entry.state {
                entry.state = State::Offline(opening.found());
            }
            self.gone(slot);
        }
    }

    /// A clean stop does not wait for space, nor for what is offline.
    pub(super) fn close_unopened(&mut self, slot: u32) {
        match self.slots.get(slot as usize).map(|entry| &entry.state) {
            Some(State::Opening(opening)) if opening.waits() => self.close_offline(slot),
            Some(State::Offline(_)) => self.close_offline(slot),
            _ => {}
        }
    }

    /// The log directory failed. A recovery under way learns it when it ends.
    pub(super) fn fail_unopened(&mut self, slot: u32) {
        if let Some(State::Opening(opening)) = self.slots.get(slot as usize).map(|entry| &entry.state)
            && opening.waits()
        {
            self.set_offline(slot);
        }
    }

    /// The directory is another topic's: it gets a name that says so, and the replica its own.
    pub(super) fn set_stranger_aside(&mut self, slot: u32) {
        if let Some(entry) = self.slots.get_mut(slot as usize)
            && let State::Opening(opening) = &mut entry.state
        {
            opening.plan = None;
            opening.high_watermark = 0;
            opening.aside.plan(FileOp::StrayDir, ());
            opening.aside.plan(FileOp::SyncParent, ());
            self.emit_unopened(slot);
        }
    }

    /// The topic of a replica that was never opened is deleted: so is the directory, at once, since
    /// nobody can be reading from it. In a log directory that failed it stays, and the start that
    /// finds it says so.
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        if self.failed.contains(&entry.directory) {
            self.set_gone(slot);
            return self.free_if_gone(slot);
        }
        let mut queue = OpQueue::default();
        for op in [FileOp::RetireDir, FileOp::SyncParent, FileOp::DeleteDir] {
            queue.plan(op, ());
        }
        entry.state = State::Removing(queue);
        self.emit_unopened(slot);
    }

    pub(super) fn emit_unopened(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let queue = match &mut entry.state {
            State::Opening(opening) => &mut opening.aside,
            State::Removing(queue) => queue,
            _ => return,
        };
        if let Some((ticket, op)) = queue.take_next() {
            self.count_operation(slot);
            self.outputs.push(Output::File(Owner::Replica(slot), ticket, op));
        }
    }

    /// An operation of a replica that does not serve has ended.
    pub(super) fn unopened_completed(
        &mut self,
        now: Now,
        slot: u32,
        ticket: Ticket,
        result: FileResult,
        view: &ClusterView,
    ) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let (ours, is_idle) = match &mut entry.state {
            State::Opening(opening) => (opening.aside.complete(ticket).is_some(), opening.aside.is_idle()),
            State::Removing(queue) => (queue.complete(ticket).is_some(), queue.is_idle()),
            _ => return,
        };
        let is_opening = matches!(entry.state, State::Opening(_));
        let (directory, name) = (entry.directory, format!("{}-{}", entry.topic, entry.partition));
        if !ours {
            return;
        }
        match result {
            Ok(_) if !is_idle => self.emit_unopened(slot),
            Ok(_) if is_opening => {
                // Its operations go by its own name again.
                self.outputs.push(Output::Own { owner: Owner::Replica(slot), directory, name });
                self.serve_created(now, slot, view);
            }
            Err(error) if is_opening || error != FileError::NotFound => {
                self.outputs.push(Output::Say(format!("{name} cannot be renamed: {error:?}")));
                if is_opening {
                    self.set_offline(slot)
                } else {
                    self.set_gone(slot)
                }
                if matches!(error, FileError::Io(_)) {
                    self.fail(directory);
                }
            }
            // Deleted, or never made.
            Ok(_) | Err(_) => self.set_gone(slot),
        }
    }
}
