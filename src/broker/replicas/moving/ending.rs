//! Moves that end before they are over: given up, because the replica goes or is to be elsewhere, because the node
//! stops, or because a log directory failed; and what is said to the next start of a rename that nobody knows the end
//! of.

use std::collections::VecDeque;

use super::{AGAIN_MS, End, TakingBack};
use crate::broker::message::{Output, Owner};
use crate::broker::replicas::{Replicas, State};
use crate::effect::{FileError, FileOp, FileResult, Now, OpQueue, Ticket};
use crate::wire::ErrorCode;

impl Replicas {
    /// A move ends here. A replica that is held goes on.
    pub(super) fn give_up(&mut self, now: Now, slot: u32, end: End) {
        let Some(future) = self.moves.by_replica.remove(&slot) else { return };
        if let Some(future) = self.future(future) {
            future.ends = Some(end);
        }
        let failed = [slot, future].into_iter().filter_map(|slot| self.slots.get(slot as usize));
        let has_failed = failed.into_iter().any(|entry| self.failed.contains(&entry.directory));
        self.refuse_asked(
            future,
            if has_failed { ErrorCode::KafkaStorageError } else { ErrorCode::ReplicaNotAvailable },
        );
        self.end_future(future);
        self.let_go(now, slot, slot, false);
    }

    /// Deletes what a move leaves behind, or leaves it, when nothing of it is on its way.
    pub(super) fn end_future(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return };
        let State::Future(future) = &entry.state else { return };
        if entry.in_flight > 0 {
            return;
        }
        if future.ends == Some(End::Discard) && !self.failed.contains(&entry.directory) {
            let mut queue = OpQueue::default();
            // A start that found it under its name would begin the move anew. One that was not made may not be there.
            let retire = [FileOp::RetireDir, FileOp::SyncParent];
            retire.into_iter().filter(|_| future.copy.is_made()).for_each(|op| queue.plan(op, ()));
            queue.plan(FileOp::DeleteDir, ());
            entry.state = State::Removing(queue);
            self.emit_unopened(slot);
        } else {
            self.set_gone(slot);
            self.free_if_gone(slot);
        }
    }

    pub(super) fn is_committing(&self, slot: u32) -> bool {
        let future = self.moves.by_replica.get(&slot).and_then(|future| self.slots.get(*future as usize));
        future.is_some_and(|entry| matches!(&entry.state, State::Future(of) if of.copy.is_committing()))
    }

    /// A replica is to go. If its folder is just being exchanged, it goes when that is over: then this is false.
    pub(in crate::broker::replicas) fn may_retire(&mut self, now: Now, slot: u32) -> bool {
        if self.is_committing(slot) || self.moves.taking_back.contains_key(&slot) {
            self.moves.retire_later.insert(slot);
            return false;
        }
        self.give_up(now, slot, End::Discard);
        true
    }

    /// A clean stop: what was copied stays, and the next start begins the move anew. One whose folders are just being
    /// exchanged is closed afterwards.
    pub(in crate::broker::replicas) fn close_moves(&mut self, now: Now) {
        let replicas: Vec<u32> = self.moves.by_replica.keys().copied().collect();
        for slot in replicas {
            if !self.is_committing(slot) {
                self.give_up(now, slot, End::Leave);
            }
        }
    }

    /// A log directory failed: moves from and to it end.
    pub(in crate::broker::replicas) fn fail_moves(&mut self, now: Now, directory: u16) {
        let at = |slot: u32| self.slots.get(slot as usize).map(|entry| entry.directory);
        let touched =
            |(slot, future): &(&u32, &u32)| at(**slot) == Some(directory) || at(**future) == Some(directory);
        let moves: Vec<u32> = self.moves.by_replica.iter().filter(touched).map(|(slot, _)| *slot).collect();
        for slot in moves {
            let is_here = self.slots.get(slot as usize).is_some_and(|entry| entry.directory == directory);
            if self.is_committing(slot) && !is_here {
                self.take_back(now, slot);
            } else {
                self.give_up(now, slot, End::Leave);
            }
        }
        let lost =
            |slot: &u32| self.slots.get(*slot as usize).is_some_and(|entry| entry.directory == directory);
        let lost: Vec<u32> = self.moves.taking_back.keys().copied().filter(lost).collect();
        for slot in lost {
            self.moves.taking_back.remove(&slot);
            self.let_go(now, slot, slot, false);
        }
    }

    /// Nobody knows whether the folder there has the replica's name: the one here counts more from now on, and
    /// nothing is written to it before that is durable.
    pub(super) fn take_back(&mut self, now: Now, slot: u32) {
        let Some(future) = self.moves.by_replica.remove(&slot) else { return };
        let Some(given_up) = self.future(future) else { return };
        given_up.ends = Some(End::Leave);
        let ops = VecDeque::from(given_up.copy.take_back_ops());
        self.moves.taking_back.insert(slot, TakingBack { ops, in_flight: None });
        self.end_future(future);
        self.take_back_on(now, slot);
    }

    pub(super) fn take_back_on(&mut self, now: Now, slot: u32) {
        let Some(taking) = self.moves.taking_back.get_mut(&slot) else { return };
        if taking.in_flight.is_some() {
            return;
        }
        let Some(op) = taking.ops.pop_front() else {
            self.moves.taking_back.remove(&slot);
            return self.let_go(now, slot, slot, false);
        };
        let Some(State::Open(partition)) = self.slots.get_mut(slot as usize).map(|entry| &mut entry.state)
        else {
            return;
        };
        let ticket = partition.ticket();
        taking.in_flight = Some((ticket, op.clone()));
        self.count_operation(slot);
        self.outputs.push(Output::File(Owner::Replica(slot), ticket, op));
    }

    /// Takes the completion of an operation that makes a replica count more than its copy; false if it is none.
    pub(in crate::broker::replicas) fn took_back(
        &mut self,
        now: Now,
        slot: u32,
        ticket: Ticket,
        result: &FileResult,
    ) -> bool {
        let Some(taking) = self.moves.taking_back.get_mut(&slot) else { return false };
        let Some((_, op)) = taking.in_flight.take_if(|(expected, _)| *expected == ticket) else {
            return false;
        };
        match result {
            Ok(_) => self.take_back_on(now, slot),
            Err(FileError::NoSpace | FileError::Short { .. }) => {
                taking.ops.push_front(op);
                self.wake_at(slot, now.mono_ms + AGAIN_MS);
            }
            Err(_) => {
                let directory = self.slots.get(slot as usize).map(|entry| entry.directory);
                directory.into_iter().for_each(|directory| self.fail(directory));
            }
        }
        true
    }
}
