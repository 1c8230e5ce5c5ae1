//! The second shell: carries out what the shards ask for, as `src/shard/` does, on the simulated disk and clock.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use tidemill::broker::{ConnectionKey, Message, Opened, Output, Owner, Shard};
use tidemill::controller::ShardId;
use tidemill::effect::{ByteSpan, FileError, FileName, FileOp, FileResult, Stem, Ticket};
use tidemill::log::{Recovery, RecoveryError, RecoveryStep};
use tidemill::partition::{ReadFound, ReplyTo};
use tidemill::request::{Chunk, CloseReason, RequestContext};
use tidemill::security::Principal;
use tidemill::wire::frame;

use crate::history::Place;
use crate::world::{Event, World, draw};

/// Requests of a connection after which it is read no further, as in the real shell.
const IN_FLIGHT_MAX: usize = 100;
const FRAME_LIMIT_BYTES: u32 = 1 << 20;

/// One process.
#[derive(Debug)]
pub struct Node {
    started_us: u64,
    hosts: Vec<Host>,
    /// Messages from one shard to another (`from * shards + to`), with the time from which they are seen.
    lanes: Vec<VecDeque<(u64, Message)>>,
    operations: BTreeMap<u64, Operation>,
    operations_made: u64,
    ready: bool,
    stopping: bool,
    finished: bool,
    /// The log directory failed: a stop is no clean one.
    offline: bool,
    fatal: Option<String>,
}

/// One shard and what its shell knows.
#[derive(Debug)]
struct Host {
    core: Shard,
    /// The name of each owner's directory, and the partition's number.
    owners: BTreeMap<Owner, (String, i32)>,
    arrived: VecDeque<Arrived>,
    /// When its next turn is.
    turn_at_us: Option<u64>,
    outputs: Vec<Output>,
    connections: BTreeMap<ConnectionKey, u64>,
}

/// What a shard finds at its next turn.
#[derive(Debug)]
pub enum Arrived {
    /// A client has connected.
    Connect(u64),
    /// There are bytes on a connection.
    Bytes(u64),
    /// A connection is gone.
    Gone(u64),
    /// A file operation has ended.
    Done(Owner, Ticket, FileResult),
    /// A span was opened, or could not be.
    Opened(u32, ReplyTo, ReadFound, Option<ByteSpan>),
    /// A recovery has ended.
    Recovered(u32, Result<Opened, RecoveryError>),
}

/// Something that the disk has still to do.
#[derive(Debug)]
struct Operation {
    shard: usize,
    owner: Owner,
    work: Work,
}

#[derive(Debug)]
enum Work {
    File { ticket: Ticket, op: FileOp, appended: Bytes, mark: u64 },
    Open { to: ReplyTo, found: ReadFound },
    Recover { recovery: Box<Recovery>, op: FileOp, mark: u64 },
}

impl Node {
    /// Whether clients may connect.
    pub fn takes_clients(&self) -> bool {
        self.ready && !self.stopping
    }

    /// The replicas that are there, by shard.
    pub fn owners(&self) -> Vec<Vec<&str>> {
        self.hosts.iter().map(|host| host.owners.values().map(|(name, _)| name.as_str()).collect()).collect()
    }

    /// How far each replica claims to be synced.
    pub fn durable(&self) -> Vec<(Place, i64)> {
        let replicas = self.hosts.iter().flat_map(|host| host.owners.iter().map(move |owned| (host, owned)));
        let durable = replicas.filter_map(|(host, (owner, (_, index)))| {
            let Owner::Replica(slot) = owner else { return None };
            let log = host.core.replicas().partition(*slot)?.log();
            Some(((log.topic_id(), *index), log.durable_end()))
        });
        durable.collect()
    }
}

impl World {
    /// A process begins with these shards.
    pub fn start_node(&mut self, shards: Vec<Shard>) {
        let count = shards.len();
        let host = |core| Host {
            core,
            owners: BTreeMap::new(),
            arrived: VecDeque::new(),
            turn_at_us: None,
            outputs: Vec::new(),
            connections: BTreeMap::new(),
        };
        let mut node = Node {
            started_us: self.now_us,
            hosts: shards.into_iter().map(host).collect(),
            lanes: (0..count * count).map(|_| VecDeque::new()).collect(),
            operations: BTreeMap::new(),
            operations_made: 0,
            ready: false,
            stopping: false,
            finished: false,
            offline: false,
            fatal: None,
        };
        for shard in 0..count {
            node.hosts[shard].core.start(self.now(node.started_us));
            self.turn_soon(&mut node, shard);
        }
        self.node = Some(node);
    }

    /// A turn of a shard comes soon.
    fn turn_soon(&mut self, node: &mut Node, shard: usize) {
        let us = draw(self.plan.turn_us, &mut self.random.schedule);
        self.turn_at(node, shard, self.now_us + us);
    }

    fn turn_at(&mut self, node: &mut Node, shard: usize, at_us: u64) {
        let host = &mut node.hosts[shard];
        if host.turn_at_us.is_none_or(|planned| at_us < planned) {
            host.turn_at_us = Some(at_us);
            self.at(at_us, Event::Turn { incarnation: self.incarnation, shard });
        }
    }

    /// Something has come for a shard.
    pub fn arrive(&mut self, shard: usize, arrived: Arrived) {
        let Some(mut node) = self.node.take() else { return };
        node.hosts[shard].arrived.push_back(arrived);
        self.turn_soon(&mut node, shard);
        self.node = Some(node);
    }

    /// Begins a clean stop.
    pub fn begin_stop(&mut self) {
        let Some(mut node) = self.node.take() else { return };
        if node.ready && !node.stopping {
            self.trace.note(self.now_us, 27, [0, 0], || "told to stop".into());
            node.stopping = true;
            self.turn_soon(&mut node, 0);
        }
        self.node = Some(node);
    }

    /// One turn of a shard.
    pub fn turn(&mut self, incarnation: u64, shard: usize) {
        if incarnation != self.incarnation {
            return;
        }
        let Some(mut node) = self.node.take() else { return };
        if node.hosts[shard].turn_at_us == Some(self.now_us) {
            node.hosts[shard].turn_at_us = None;
            self.take_turn(&mut node, shard);
        }
        if let Some(why) = &node.fatal {
            let why = why.clone();
            self.trace.note(self.now_us, 28, [0, 0], || format!("fatal: {why}"));
            let allowed = self.plan.io_errors > 0.0 || self.plan.full_every_ms > 0;
            assert!(allowed, "the node cannot go on: {why}");
            self.node = Some(node);
            return self.crash(false);
        }
        if node.finished {
            return self.stopped(!node.offline);
        }
        self.node = Some(node);
    }

    fn take_turn(&mut self, node: &mut Node, shard: usize) {
        let now = self.now(node.started_us);
        self.trace.note(self.now_us, 1, [shard as u64, 0], || format!("turn of shard {shard}"));
        let count = node.hosts.len();
        for from in 0..count {
            let lane = from * count + shard;
            while let Some((_, message)) = node.lanes[lane].pop_front_if(|(at_us, _)| *at_us <= self.now_us) {
                self.trace.note(self.now_us, 2, [from as u64, shard as u64], || {
                    format!("shard {shard} gets from {from}: {}", shown(&message))
                });
                node.hosts[shard].core.message(now, ShardId(from as u16), message);
            }
        }
        while let Some(arrived) = node.hosts[shard].arrived.pop_front() {
            self.take_in(node, shard, arrived);
        }
        let core = &mut node.hosts[shard].core;
        if core.next_wake_ms().is_some_and(|at_ms| at_ms <= now.mono_ms) {
            core.wake(now);
        }
        if node.stopping && shard == 0 {
            core.begin_stop(now);
        }
        loop {
            let host = &mut node.hosts[shard];
            host.core.end_turn(now);
            let mut outputs = std::mem::take(&mut host.outputs);
            host.core.take_outputs(&mut outputs);
            if outputs.is_empty() {
                host.outputs = outputs;
                break;
            }
            for output in outputs.drain(..) {
                self.carry_out(node, shard, output);
            }
            node.hosts[shard].outputs = outputs;
        }
        self.resume(node, shard);
        self.check_invariants(node, shard);
        let lanes = (0..count).filter_map(|from| Some(node.lanes[from * count + shard].front()?.0));
        if let Some(at_us) = lanes.min() {
            self.turn_at(node, shard, at_us);
        }
        if let Some(at_ms) = node.hosts[shard].core.next_wake_ms() {
            let at_us = (node.started_us + at_ms * 1000).max(self.now_us + 1000);
            self.turn_at(node, shard, at_us);
        }
    }

    fn take_in(&mut self, node: &mut Node, shard: usize, arrived: Arrived) {
        let now = self.now(node.started_us);
        let host = &mut node.hosts[shard];
        match arrived {
            Arrived::Connect(id) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let key = host.core.connect(RequestContext { listener: 0, principal: Principal::Anonymous });
                connection.key = Some(key);
                host.connections.insert(key, id);
            }
            Arrived::Bytes(id) => self.frames(node, shard, id),
            Arrived::Gone(id) => {
                if let Some(key) = self.connections.remove(&id).and_then(|connection| connection.key) {
                    host.connections.remove(&key);
                    host.core.disconnect(now, key);
                }
            }
            Arrived::Done(owner, ticket, result) => host.core.completed(now, owner, ticket, result),
            Arrived::Opened(slot, to, found, span) => host.core.opened(now, slot, to, found, span),
            Arrived::Recovered(slot, result) => host.core.recovered(now, slot, result),
        }
    }

    /// Hands the whole frames of a connection over, as long as it takes them.
    fn frames(&mut self, node: &mut Node, shard: usize, id: u64) {
        let now = self.now(node.started_us);
        let core = &mut node.hosts[shard].core;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(key) = connection.key else { return };
        while core.in_flight(key) < IN_FLIGHT_MAX {
            match frame::split(&mut connection.received, FRAME_LIMIT_BYTES) {
                Ok(Some(frame)) => core.frame(now, key, frame),
                Ok(None) => return,
                Err(error) => panic!("a client's frame is refused: {error}"),
            }
        }
    }

    /// Reads on from connections that have room again.
    fn resume(&mut self, node: &mut Node, shard: usize) {
        let waiting: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.shard == shard && !connection.received.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            self.frames(node, shard, id);
            self.turn_soon(node, shard);
        }
    }

    fn carry_out(&mut self, node: &mut Node, shard: usize, output: Output) {
        let host = &mut node.hosts[shard];
        match output {
            Output::Own { owner, name, .. } => {
                let index = name.rsplit_once('-').and_then(|(_, index)| index.parse().ok()).unwrap_or(-1);
                host.owners.insert(owner, (name, index));
            }
            Output::Disown(owner) => drop(host.owners.remove(&owner)),
            Output::File(owner, ticket, op) => self.order(node, shard, owner, ticket, op),
            Output::Open { slot, to, found } => {
                self.later(node, shard, Owner::Replica(slot), Work::Open { to, found });
            }
            Output::Recover(slot, recovery) => self.recover(node, shard, slot, recovery, None),
            Output::Send(to, message) => {
                let us = draw(self.plan.turn_us / 4, &mut self.random.schedule);
                let lane = shard * node.hosts.len() + usize::from(to.0);
                let at_us = node.lanes[lane].back().map_or(0, |(at_us, _)| *at_us).max(self.now_us + us);
                node.lanes[lane].push_back((at_us, message));
                self.turn_at(node, usize::from(to.0), at_us);
            }
            Output::Flush(key) => self.flush(node, shard, key),
            Output::Close(key, reason) => self.close(node, shard, key, reason),
            Output::Ready => node.ready = true,
            Output::Say(line) => {
                self.trace.note(self.now_us, 3, [0, 0], || format!("shard {shard} says: {line}"));
                assert!(!line.contains("is damaged below"), "quarantine: {line}");
            }
            Output::DirectoryOffline(_) => {
                self.trace.note(self.now_us, 4, [0, 0], || "the log directory is offline".into());
                let allowed = self.plan.io_errors > 0.0 || self.full_until_us > self.now_us;
                assert!(allowed, "the log directory is offline though no device failed");
                node.offline = true;
                let us = self.random.faults.u64(10_000..1_500_000);
                self.after(us, Event::Crash { incarnation: self.incarnation, power: false });
            }
            Output::Closed => {}
            Output::Finished => node.finished = true,
            Output::Fatal(why) => node.fatal = Some(why),
        }
    }

    /// Takes what a connection has to send and puts it on its way.
    fn flush(&mut self, node: &mut Node, shard: usize, key: ConnectionKey) {
        let host = &mut node.hosts[shard];
        let Some(id) = host.connections.get(&key).copied() else { return };
        let Some(outbox) = host.core.outbox(key) else { return };
        let mut bytes = BytesMut::new();
        while let Some(chunk) = outbox.pop() {
            match chunk {
                Chunk::Bytes(chunk) | Chunk::Span(ByteSpan::Memory(chunk)) => bytes.extend_from_slice(&chunk),
                Chunk::Span(ByteSpan::File { .. }) => unreachable!("spans of the simulator are in memory"),
            }
        }
        let mut bytes = bytes.freeze();
        if bytes.len() > 1 && self.random.network.u8(0..4) == 0 {
            let first = bytes.split_to(self.random.network.usize(1..bytes.len()));
            self.send_to_client(id, Some(first));
        }
        self.send_to_client(id, Some(bytes));
    }

    fn send_to_client(&mut self, id: u64, bytes: Option<Bytes>) {
        let us = draw(self.plan.network_us, &mut self.random.network);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.to_client_at_us = connection.to_client_at_us.max(self.now_us + us);
        let at_us = connection.to_client_at_us;
        self.at(at_us, Event::ToClient { connection: id, bytes });
    }

    fn close(&mut self, node: &mut Node, shard: usize, key: ConnectionKey, reason: CloseReason) {
        self.flush(node, shard, key);
        let Some(id) = node.hosts[shard].connections.get(&key).copied() else { return };
        self.trace.note(self.now_us, 7, [id, 0], || format!("shard {shard} closes {id}: {reason:?}"));
        let expected = matches!(reason, CloseReason::FailedWithoutAcks | CloseReason::Stopping);
        assert!(expected, "a connection is closed: {reason:?}");
        self.send_to_client(id, None);
        node.hosts[shard].arrived.push_back(Arrived::Gone(id));
        self.turn_soon(node, shard);
    }

    /// An owner wants an operation carried out.
    fn order(&mut self, node: &mut Node, shard: usize, owner: Owner, ticket: Ticket, op: FileOp) {
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
        let mark = self.disk.mark();
        if here {
            let result = self.execute(node, shard, owner, &op, &appended, mark);
            let now = self.now(node.started_us);
            node.hosts[shard].core.completed(now, owner, ticket, result);
        } else {
            self.later(node, shard, owner, Work::File { ticket, op, appended, mark });
        }
    }

    fn later(&mut self, node: &mut Node, shard: usize, owner: Owner, work: Work) {
        node.operations_made += 1;
        let number = node.operations_made;
        node.operations.insert(number, Operation { shard, owner, work });
        let us = draw(self.plan.disk_us, &mut self.random.disk);
        self.after(us, Event::Operation { incarnation: self.incarnation, number });
    }

    /// The disk gets to an operation.
    pub fn operation(&mut self, incarnation: u64, number: u64) {
        if incarnation != self.incarnation {
            return;
        }
        let Some(mut node) = self.node.take() else { return };
        let Some(Operation { shard, owner, work }) = node.operations.remove(&number) else {
            return self.node = Some(node);
        };
        match work {
            Work::File { ticket, op, appended, mark } => {
                let result = self.execute(&mut node, shard, owner, &op, &appended, mark);
                node.hosts[shard].arrived.push_back(Arrived::Done(owner, ticket, result));
                self.turn_soon(&mut node, shard);
            }
            Work::Open { to, found } => {
                let span = self.open_span(&node, shard, owner, &found);
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
        self.node = Some(node);
    }

    fn open_span(&mut self, node: &Node, shard: usize, owner: Owner, found: &ReadFound) -> Option<ByteSpan> {
        let span = found.span?;
        let (dir, _) = node.hosts[shard].owners.get(&owner)?;
        let file = FileName::from(Stem::Log(span.segment_base_offset));
        let bytes = self.disk.read(dir, file, span.position, span.length).ok()?;
        assert_eq!(bytes.len() as u64, span.length, "a span reaches beyond its file {dir}/{file}: {span:?}");
        Some(ByteSpan::Memory(bytes))
    }

    /// Goes on with a recovery, one operation at a time.
    fn recover(
        &mut self,
        node: &mut Node,
        shard: usize,
        slot: u32,
        mut recovery: Box<Recovery>,
        last: Option<FileResult>,
    ) {
        let result = match recovery.step(last) {
            RecoveryStep::Op(op) => {
                let mark = self.disk.mark();
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
        let (dir, _) = node.hosts[shard].owners.get_mut(&owner).expect("an owner has a directory");
        let fault = self.fault(op, appended.len());
        let random = &mut self.random.disk;
        let result = match fault {
            Some(FileError::Short { written }) => {
                let part = appended.slice(..written as usize);
                let result = self.disk.execute(dir, op, &part, mark, random);
                result.and(Err(FileError::Short { written }))
            }
            Some(error) => Err(error),
            None => self.disk.execute(dir, op, appended, mark, random),
        };
        let failed = u64::from(result.is_err());
        self.trace.note(self.now_us, 8, [shard as u64, failed], || {
            format!(
                "shard {shard} {dir}: {} {}",
                shown_op(op),
                if failed == 1 { format!("{result:?}") } else { String::new() }
            )
        });
        result
    }

    fn fault(&mut self, op: &FileOp, appended_bytes: usize) -> Option<FileError> {
        if self.is_calm() {
            return None;
        }
        let random = &mut self.random.disk;
        let is_append = matches!(op, FileOp::Append { .. });
        let allocates =
            is_append || matches!(op, FileOp::MakeDir | FileOp::Create { .. } | FileOp::Write { .. });
        if allocates && self.full_until_us > self.now_us && random.u8(0..10) < 7 {
            let short = is_append && random.bool();
            let written = random.usize(0..appended_bytes.max(1)) as u64;
            return Some(if short { FileError::Short { written } } else { FileError::NoSpace });
        }
        if is_append && random.f64() < self.plan.short_appends {
            return Some(FileError::Short { written: random.usize(0..appended_bytes) as u64 });
        }
        (random.f64() < self.plan.io_errors).then_some(FileError::Io(5))
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
            let (dir, _) = node.hosts[shard].owners.get_mut(&owner).expect("an owner has a directory");
            let result = self.disk.execute(dir, &op, &appended, mark, &mut self.random.disk);
            self.trace.note(self.now_us, 9, [shard as u64, 0], || {
                format!(
                    "on its way when the process died, {dir}: {} ({} B) {}",
                    shown_op(&op),
                    appended.len(),
                    result.is_ok()
                )
            });
        }
    }

    fn check_invariants(&mut self, node: &Node, shard: usize) {
        let host = &node.hosts[shard];
        for (owner, (_, index)) in &host.owners {
            let Owner::Replica(slot) = owner else { continue };
            if let Some(partition) = host.core.replicas().partition(*slot) {
                partition.check_invariants();
                let log = partition.log();
                log.check_invariants();
                let synced = self.synced.entry((log.topic_id(), *index)).or_default();
                // A clean stop makes everything durable and closes the log in one step.
                *synced = if node.stopping { log.written_end() } else { log.durable_end() }.max(*synced);
            }
        }
    }

    /// Nobody is connected: no frame may be accounted for any more.
    pub fn check_idle(&self) {
        let node = self.node.as_ref().expect("nothing crashes any more");
        for host in &node.hosts {
            assert_eq!(host.core.admitted_bytes(), 0, "an idle shard has admitted bytes");
        }
    }
}

fn shown(message: &Message) -> String {
    let mut text = format!("{message:?}");
    text.truncate(text.char_indices().nth(160).map_or(text.len(), |(at, _)| at));
    text
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
        FileOp::Truncate { file, length } => format!("Truncate {file} to {length}"),
        FileOp::Rename { from, to } => format!("Rename {from} to {to}"),
        FileOp::Read { file, position, length } => format!("Read {file} at {position}, {length} B"),
        other => format!("{other:?}"),
    }
}
