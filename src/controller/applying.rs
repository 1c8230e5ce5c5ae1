//! What raft has decided becomes the Image: committed entries one by one, or a leader's snapshot at once; messages
//! leave when what they promise is on disk.

use super::quorum::Arrived;
use super::raft::{Entry, Work};
use super::record::Record;
use super::storage::{Snapshot, StorageEvent};
use super::{Controller, FULL_MS, Output};
use crate::effect::{FileResult, Now, Ticket};
use crate::planted::{Bug, is_planted};

impl Controller {
    pub(super) fn drain_raft(&mut self, out: &mut Vec<Output>) -> Result<(), String> {
        while let Some(work) = self.raft.ready() {
            self.carry_out(work, out)?;
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry, out: &mut Vec<Output>) -> Result<(), String> {
        assert_eq!(entry.index, self.applied_index + 1, "entries are applied in order, each once");
        let records = Record::decode_all(&entry.data).map_err(|e| format!("entry {}: {e}", entry.index))?;
        if self.published.is_some() && records.iter().any(|record| self.builder.reuses_name(record)) {
            // The name's last owner goes with one Image and the next one comes with another.
            self.publish(out);
        }
        for record in records {
            self.builder.apply(&record).map_err(|e| format!("entry {}: {e}", entry.index))?;
            if let Record::Quorum(members) = &record {
                self.raft.change_members(members)?;
            }
        }
        self.applied_index = entry.index;
        self.applied_term = entry.term;
        self.raft.applied(entry.index, entry.term);
        Ok(())
    }

    /// Whether an Image may be the first after a start: nothing that the node knew before, and acted on, is missing in
    /// it. What is committed is on disk before it is applied, but that it is committed may not be: so every entry that
    /// was found is applied, or has given way to one of a later term. An older Image may lack partitions that are here,
    /// or have a topic that was deleted and made again: their directories would be taken for somebody else's.
    fn may_publish_first(&self) -> bool {
        let (index, term) = self.recovered;
        let is_whole = self.applied_index >= index || self.applied_term > term;
        is_whole && self.applied_term == self.raft.status().term
    }

    /// Publishes what was applied, then releases the answers that waited for it.
    fn publish(&mut self, out: &mut Vec<Output>) {
        if self.published.is_none() && !self.may_publish_first() {
            return;
        }
        if self.published.unwrap_or(0) < self.applied_index {
            let (image, delta) = self.builder.publish(self.applied_index);
            self.published = Some(self.applied_index);
            self.forget_unregistered(&image, &delta);
            out.push(Output::Publish(image, delta));
        }
        let Some(leadership) = &mut self.leadership else { return };
        if leadership.term != self.applied_term {
            return;
        }
        while let Some(held) = leadership.held.pop_front_if(|held| held.index <= self.applied_index) {
            leadership.bytes_in_flight -= held.bytes;
            if let Some(token) = held.token {
                out.push(Output::Answer { token, version: self.applied_index, answer: held.answer });
            }
        }
    }

    /// Does what raft wants done, in its order.
    fn carry_out(&mut self, work: Work, out: &mut Vec<Output>) -> Result<(), String> {
        let Work { number, .. } = work;
        for message in work.messages {
            self.send(message, out);
        }
        for entry in &work.committed {
            self.apply_entry(entry, out)?;
        }
        self.publish(out);
        self.quorum.held.extend(work.messages_after.into_iter().map(|message| (number, message)));
        if is_planted(Bug::PromisedBeforePersisted) {
            let early = std::mem::take(&mut self.quorum.held);
            early.into_iter().for_each(|(_, message)| self.send(message, out));
        }
        let mut hard_state = work.hard_state;
        if let Some((index, term)) = work.snapshot {
            let arrived = self.quorum.arrived.take().filter(|arrived| arrived.index == index);
            let arrived = arrived.ok_or("raft took a snapshot that nobody sent")?;
            self.storage.install(number, hard_state.take(), index, term, arrived.bytes.clone())?;
            self.quorum.installing = Some((number, arrived));
        }
        if !self.storage.append(number, hard_state, work.entries, work.must_sync) {
            self.persisted(number, out)?;
        }
        Ok(())
    }

    /// Work up to that number is on disk: what it promises may be said.
    pub(super) fn persisted(&mut self, number: u64, out: &mut Vec<Output>) -> Result<(), String> {
        self.raft.persisted(number);
        if let Some((_, arrived)) = self.quorum.installing.take_if(|(of, _)| *of <= number) {
            self.adopt(arrived, out)?;
        }
        while let Some((_, message)) = self.quorum.held.pop_front_if(|(of, _)| *of <= number) {
            self.send(message, out);
        }
        Ok(())
    }

    /// Goes on from a leader's snapshot that is on disk by now.
    fn adopt(&mut self, arrived: Arrived, out: &mut Vec<Output>) -> Result<(), String> {
        let Arrived { index, term, image, .. } = arrived;
        if index <= self.applied_index {
            return Err("a snapshot is older than what is applied".into());
        }
        // The last owner of a name goes with one Image, the next one comes with another.
        let removed = self.builder.reused_names(&image);
        for topic_id in &removed {
            self.builder.apply(&Record::RemoveTopic { topic_id: *topic_id }).map_err(|e| e.to_string())?;
        }
        if self.published.is_some() && !removed.is_empty() {
            let (image, delta) = self.builder.publish(self.applied_index);
            out.push(Output::Publish(image, delta));
        }
        self.builder.adopt(image);
        (self.applied_index, self.applied_term) = (index, term);
        self.raft.installed(index, term);
        self.publish(out);
        Ok(())
    }

    pub(super) fn complete(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: FileResult,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        match self.storage.complete(ticket, result) {
            StorageEvent::None => {}
            StorageEvent::Full => {
                let until = now.mono_ms + FULL_MS;
                self.full_until_ms = Some(until);
                if !std::mem::replace(&mut self.full_said, true) {
                    out.push(Output::Full);
                }
                // A node that ticks anyway comes by.
                if !self.needs_ticks() {
                    out.push(Output::WakeAt(until));
                }
            }
            StorageEvent::Persisted(number) => {
                self.full_said = false;
                self.persisted(number, out)?;
            }
            // Who lacks half of what a snapshot comes after gets entries, not the snapshot.
            StorageEvent::SnapshotTaken(index) => {
                self.raft
                    .compact(index, usize::try_from(self.config.snapshot_entries / 2).unwrap_or_default());
            }
            StorageEvent::Renewed(raft_id) => self.renewed(raft_id, out)?,
            StorageEvent::Failed(why) => return Err(why),
        }
        Ok(())
    }

    pub(super) fn maybe_snapshot(&mut self) -> Result<(), String> {
        let due = self.storage.is_snapshot_due(self.config.snapshot_entries, self.config.snapshot_bytes);
        // What was written since may be more than enough, and none of it applied: it would be the last one again.
        let is_newer = self.applied_index > self.storage.snapshot_index();
        if !due || !is_newer || self.storage.is_taking_snapshot() {
            return Ok(());
        }
        let records = Record::encode_all(&self.builder.image().to_records());
        self.storage.take_snapshot(&Snapshot {
            index: self.applied_index,
            term: self.applied_term,
            hard_state: self.storage.hard_state(),
            records: records.into(),
        })
    }
}
