//! File operations: ordered by the shards, carried out by the simulated devices after a time, or made to fail.

use bytes::{Bytes, BytesMut};
use tidemill::broker::{ConnectionKey, Opened, Owner};
use tidemill::effect::{ByteSpan, FileDone, FileError, FileName, FileOp, FileResult, Stem, Suffix, Ticket};
use tidemill::log::{Recovery, RecoveryStep};
use tidemill::partition::{ReadFound, ReplyTo};

use crate::faults::Fault;
use crate::node::{Arrived, Node};
use crate::world::{Event, World, draw};

/// Something that the disk has still to do.
#[derive(Debug)]
pub struct Operation {
    shard: usize,
    owner: Owner,
    work: Work,
}

#[derive(Debug)]
pub enum Work {
    File { ticket: Ticket, op: FileOp, appended: Bytes, mark: u64 },
    Open { to: ReplyTo, found: ReadFound, mark: u64 },
    Recover { recovery: Box<Recovery>, op: FileOp, mark: u64 },
}

impl World {
    /// An owner wants an operation carried out.
    pub fn order(&mut self, node: &mut Node, shard: usize, owner: Owner, ticket: Ticket, op: FileOp) {
        let mut appended = Bytes::new();
        if let (FileOp::Append { length, .. }, Owner::Replica(slot)) = (&op, owner) {
            let partition = node.hosts[shard].core.replicas().partition(slot).expect("it appends");
            let mut bytes = BytesMut::new();
            for (header, body) in partition.log().append_parts() {
                bytes.extend_from_slice(header);
                bytes.extend_from_slice(body);
            }
            // A log that went offline in this very turn has taken its bytes back.
            assert!(bytes.is_empty() || bytes.len() as u64 == *length, "an append has the bytes it says");
            appended = bytes.freeze();
        }
        let here = self.plan.inline
            && matches!(op, FileOp::Append { .. } | FileOp::Write { .. } | FileOp::Read { .. });
        let mark = self.mark(node, shard, owner);
        if here {
            let result = self.execute(node, shard, owner, &op, &appended, mark);
            let now = self.now(node);
            node.hosts[shard].core.completed(now, owner, ticket, result);
        } else {
            self.later(node, shard, owner, Work::File { ticket, op, appended, mark });
        }
    }

    pub fn later(&mut self, node: &mut Node, shard: usize, owner: Owner, work: Work) {
        node.operations_made += 1;
        let number = node.operations_made;
        node.operations.insert(number, Operation { shard, owner, work });
        let us = draw(self.plan.disk_us, &mut self.random.disk);
        let (machine, incarnation) = (node.machine, node.incarnation);
        self.after(us, Event::Operation { machine, incarnation, number });
    }

    /// A sync of this owner that is ordered now reaches as far.
    pub fn mark(&self, node: &Node, shard: usize, owner: Owner) -> u64 {
        let disks = &self.machines[node.machine].disks;
        node.hosts[shard].owners.get(&owner).map_or(0, |owned| disks[owned.directory].mark())
    }

    /// The disk gets to an operation.
    pub fn operation(&mut self, machine: usize, incarnation: u64, number: u64) {
        if incarnation != self.machines[machine].incarnation {
            return;
        }
        let Some(mut node) = self.machines[machine].node.take() else { return };
        let Some(Operation { shard, owner, work }) = node.operations.remove(&number) else {
            return self.machines[machine].node = Some(node);
        };
        match work {
            Work::File { ticket, op, appended, mark } => {
                let result = self.execute(&mut node, shard, owner, &op, &appended, mark);
                node.hosts[shard].arrived.push_back(Arrived::Done(owner, ticket, result));
                self.turn_soon(&mut node, shard);
            }
            Work::Open { to, found, mark } => {
                let span = self.open_span(&node, shard, owner, &found, mark);
                if span.as_ref().zip(found.span).is_some_and(|(open, span)| open.length() < span.length) {
                    self.cannot_send(&mut node, to);
                }
                let Owner::Replica(slot) = owner else { unreachable!("only replicas have spans") };
                node.hosts[shard].arrived.push_back(Arrived::Opened(slot, to, found, span));
                self.turn_soon(&mut node, shard);
            }
            Work::Recover { recovery, op, mark } => {
                let result = self.execute(&mut node, shard, owner, &op, &Bytes::new(), mark);
                let Owner::Replica(slot) = owner else { unreachable!("only replicas are recovered") };
                self.recover(&mut node, shard, slot, recovery, Some(result));
            }
        }
        self.machines[machine].node = Some(node);
    }

    /// What a fetch found may have been cut off since; then there is less of it.
    fn open_span(
        &mut self,
        node: &Node,
        shard: usize,
        owner: Owner,
        found: &ReadFound,
        mark: u64,
    ) -> Option<ByteSpan> {
        let span = found.span?;
        let owned = node.hosts[shard].owners.get(&owner)?;
        let file = FileName::from(Stem::Log(span.segment_base_offset));
        let disk = &mut self.machines[node.machine].disks[owned.directory];
        let bytes = disk.read(&owned.name, file, span.position, span.length).ok()?;
        assert!(
            bytes.len() as u64 == span.length || disk.was_cut(&owned.name, file, mark),
            "a span reaches beyond its file {}/{file}: {span:?}",
            owned.name
        );
        Some(ByteSpan::Memory(bytes))
    }

    /// An answer has announced more than its file has: `sendfile` fails, and the connection is closed. Who is not a
    /// connection reads the file, and sees that it is short.
    fn cannot_send(&mut self, node: &mut Node, to: ReplyTo) {
        let (shard, key) =
            (usize::from(to.shard), ConnectionKey { slot: to.connection, generation: to.generation });
        if let Some(id) = node.hosts[shard].connections.get(&key).copied() {
            self.note(node.machine, 9, [id, 0], || {
                format!("shard {shard} cannot send what was cut off to {id}")
            });
            self.end_by_server(node, shard, id);
        }
    }

    /// Goes on with a recovery, one operation at a time.
    pub fn recover(
        &mut self,
        node: &mut Node,
        shard: usize,
        slot: u32,
        mut recovery: Box<Recovery>,
        last: Option<FileResult>,
    ) {
        let result = match recovery.step(last) {
            RecoveryStep::Op(op) => {
                let mark = self.mark(node, shard, Owner::Replica(slot));
                return self.later(node, shard, Owner::Replica(slot), Work::Recover { recovery, op, mark });
            }
            RecoveryStep::Done(recovered) => Ok(Opened::Log(recovered)),
            RecoveryStep::Empty { base_offset, .. } => Ok(Opened::Empty { base_offset }),
            RecoveryStep::Failed(error) => Err(error),
        };
        node.hosts[shard].arrived.push_back(Arrived::Recovered(slot, result));
        self.turn_soon(node, shard);
    }

    /// Carries an operation out on the disk, unless it is to fail.
    fn execute(
        &mut self,
        node: &mut Node,
        shard: usize,
        owner: Owner,
        op: &FileOp,
        appended: &Bytes,
        mark: u64,
    ) -> FileResult {
        let (machine, wall_ms) = (node.machine, self.now(node).wall_ms);
        let owned = node.hosts[shard].owners.get_mut(&owner).expect("an owner has a directory");
        let fault = self.fault(machine, owned.directory, op, appended.len());
        if let FileOp::CopyFrom { replica, file, position, length } = op {
            let (to, name) = (owned.directory, owned.name.clone());
            let Some(from) = node.hosts[shard].owners.get(&Owner::Replica(*replica)) else {
                return Ok(FileDone::Copied(Err(FileError::NotFound)));
            };
            let disks = &mut self.machines[machine].disks;
            return match (fault, disks[from.directory].read(&from.name, *file, *position, *length)) {
                (Some(error), _) => Err(error),
                (None, Ok(bytes)) => {
                    let copied = bytes.len() as u64;
                    disks[to].put(&name, *file, *position, &bytes).map(|()| FileDone::Copied(Ok(copied)))
                }
                (None, Err(error)) => Ok(FileDone::Copied(Err(error))),
            };
        }
        let (dir, random) = (&mut owned.name, &mut self.random.disk);
        let disk = &mut self.machines[machine].disks[owned.directory];
        disk.wall_ms = wall_ms;
        if let FileOp::Rename { from: FileName { stem: Stem::Log(base), .. }, to } = op
            && to.suffix == Suffix::Deleted
        {
            assert!(disk.has_later_log(dir, *base), "{dir} gives up its active segment {base}");
        }
        let result = match fault {
            Some(FileError::Short { written }) => {
                let part = appended.slice(..written as usize);
                let result = disk.execute(dir, op, &part, mark, random);
                result.and(Err(FileError::Short { written }))
            }
            Some(error) => Err(error),
            None => disk.execute(dir, op, appended, mark, random),
        };
        let failed = u64::from(result.is_err());
        self.note(machine, 8, [shard as u64, failed], || {
            format!(
                "shard {shard} {dir}: {} {}",
                shown_op(op),
                if failed == 1 { format!("{result:?}") } else { String::new() }
            )
        });
        result
    }

    fn fault(
        &mut self,
        machine: usize,
        directory: usize,
        op: &FileOp,
        appended_bytes: usize,
    ) -> Option<FileError> {
        if self.is_calm() {
            return None;
        }
        let full = self.machines[machine].full_until_us[directory] > self.now_us;
        let random = &mut self.random.disk;
        let is_append = matches!(op, FileOp::Append { .. });
        let allocates =
            is_append || matches!(op, FileOp::MakeDir | FileOp::Create { .. } | FileOp::Write { .. });
        if allocates && full && random.u8(0..10) < 7 {
            self.hits.count(Fault::Full);
            let short = is_append && random.bool();
            let written = random.usize(0..appended_bytes.max(1)) as u64;
            return Some(if short { FileError::Short { written } } else { FileError::NoSpace });
        }
        // An append of a log that went offline in the same turn has nothing to write any more.
        if is_append && appended_bytes > 0 && random.f64() < self.plan.short_appends {
            self.hits.count(Fault::ShortAppend);
            return Some(FileError::Short { written: random.usize(0..appended_bytes) as u64 });
        }
        let fails = self.plan.io_errors_in.is_none_or(|only| only == directory);
        let fails = fails && random.f64() < self.plan.io_errors;
        if fails {
            self.hits.count(Fault::Eio);
        }
        fails.then_some(FileError::Io(5))
    }

    /// What was on its way when the process died: carried out, not carried out, or an append in part.
    pub fn abandon_operations(&mut self, node: &mut Node) {
        for (_, Operation { shard, owner, work }) in std::mem::take(&mut node.operations) {
            let (op, mut appended, mark) = match work {
                Work::File { op, appended, mark, .. } => (op, appended, mark),
                Work::Recover { op, mark, .. } => (op, Bytes::new(), mark),
                Work::Open { .. } => continue,
            };
            if self.random.disk.bool() {
                continue;
            }
            if !appended.is_empty() {
                appended.truncate(self.random.disk.usize(0..=appended.len()));
            }
            let owned = node.hosts[shard].owners.get_mut(&owner).expect("an owner has a directory");
            let dir = &mut owned.name;
            let disk = &mut self.machines[node.machine].disks[owned.directory];
            let result = disk.execute(dir, &op, &appended, mark, &mut self.random.disk);
            self.note(node.machine, 9, [shard as u64, 0], || {
                format!(
                    "on its way when the process died, {dir}: {} ({} B) {}",
                    shown_op(&op),
                    appended.len(),
                    result.is_ok()
                )
            });
        }
    }
}

fn shown_op(op: &FileOp) -> String {
    match op {
        FileOp::Write { file, position, bytes } => format!("Write {file} at {position}, {} B", bytes.len()),
        FileOp::Append { base_offset, position, length } => {
            format!("Append {base_offset} at {position}, {length} B")
        }
        FileOp::Create { file, .. } => format!("Create {file}"),
        FileOp::Sync { file } => format!("Sync {file}"),
        FileOp::Delete { file } => format!("Delete {file}"),
        FileOp::Allocate { file, position, length, .. } => {
            format!("Allocate {length} at {position} of {file}")
        }
        FileOp::Truncate { file, length } => format!("Truncate {file} to {length}"),
        FileOp::Rename { from, to } => format!("Rename {from} to {to}"),
        FileOp::Read { file, position, length } => format!("Read {file} at {position}, {length} B"),
        other => format!("{other:?}"),
    }
}
