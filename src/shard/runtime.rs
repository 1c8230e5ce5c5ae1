//! One shard at work: its tasks feed the broker's [`Shard`] and its turn carries out what it asks.
//!
//! Tasks borrow the state, step it and let go; no borrow lives across an `.await`. The turn runs
//! after every task that was ready before it, so everything that arrived together is written
//! together.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;

use super::bell::Bell;
use super::clock::Clock;
use super::counters::Counters;
use super::door::Door;
use super::files::Files;
use super::helpers::{Job, Outcome, Returns};
use super::intake::{Budget, Intake};
use super::mesh::{Mesh, Parcel};
use super::moves::{Arrival, Busy};
use super::node::Descriptors;
use super::peers::{self, Links};
use super::sockets::Socket;
use crate::broker::{ConnectionKey, LinkId, Output, Owner, Shard};
use crate::effect::{ByteSpan, FileName, FileOp, Stem};
use crate::partition::{ReadFound, ReplyTo};
use crate::request::CloseReason;

/// How long a lane that overflowed rests before it is tried again.
const LANE_RETRY_MS: u64 = 1;
/// How much longer an answer of another node may be than the largest request: it holds what was one, and more.
const ANSWER_BYTES: usize = 16 << 20;
/// What is due at once lets sockets and other tasks go first.
const DISTRUST_MAX: Duration = Duration::from_secs(1);
const YIELD: Duration = Duration::from_micros(10);

/// What the shards of a node share: counters, and nothing that anyone waits for.
#[derive(Debug)]
pub(super) struct Common {
    /// Connections of each shard; a new one goes where the fewest are.
    pub connections: Arc<[AtomicUsize]>,
    /// How many of the process's descriptors they may have.
    pub descriptors: Descriptors,
    /// How busy each shard is.
    pub busy: Arc<[Busy]>,
    /// Set by a signal: the controller's shard begins a clean stop.
    pub stop: std::sync::atomic::AtomicBool,
    /// Largest frame, without its length prefix.
    pub frame_limit_bytes: u32,
    /// What the connections of each shard may hold.
    pub budget: Budget,
    /// A connection without traffic is closed after this.
    pub idle_ms: Option<u64>,
}

/// A connection that is to be made: the link, which of its connections it is, host and port.
type Dial = (LinkId, u64, Arc<str>, u16);

/// One shard's shell.
#[derive(Debug)]
pub(super) struct Runtime {
    state: RefCell<State>,
    pub bell: Arc<Bell>,
    pub clock: Clock,
    pub common: Arc<Common>,
    /// Rings when clients may come.
    opened: Bell,
}

#[derive(Debug)]
pub(super) struct State {
    pub core: Shard,
    pub files: Files,
    pub mesh: Mesh,
    returns: Arc<Returns>,
    pub sockets: Vec<Option<Socket>>,
    pub receive_buffer: Option<BytesMut>,
    /// What connections take of the shard's memory.
    pub intake: Intake,
    /// Connections to other nodes.
    pub links: Links,
    /// Who is to be dialled at the end of the turn.
    dials: Vec<Dial>,
    pub(super) outputs: Vec<Output>,
    came_back: VecDeque<(Owner, Outcome)>,
    /// Connections that are not read for a reason of their own.
    pub paused: Vec<ConnectionKey>,
    /// Who may come in, on the shard that listens.
    pub door: Option<Rc<RefCell<Door>>>,
    pub counters: Counters,
    pub swept_ms: u64,
    /// How many connections may go to other shards until the sockets are looked over again.
    pub may_go: usize,
    /// The CPU time of the shard's thread when they were looked over last.
    pub cpu: Duration,
    /// When memory is given back next.
    pub rest_at_ms: u64,
    ready: bool,
    closed: bool,
    finished: bool,
}

impl Runtime {
    pub fn new(
        core: Shard,
        files: Files,
        mesh: Mesh,
        returns: Arc<Returns>,
        bell: Arc<Bell>,
        clock: Clock,
        common: Arc<Common>,
    ) -> Rc<Self> {
        let state = State {
            core,
            files,
            mesh,
            returns,
            sockets: Vec::new(),
            receive_buffer: None,
            intake: Intake::new(common.budget),
            links: Links::new(common.frame_limit_bytes as usize + ANSWER_BYTES, common.budget.openings / 2),
            dials: Vec::new(),
            outputs: Vec::new(),
            came_back: VecDeque::new(),
            paused: Vec::new(),
            door: None,
            counters: Counters::default(),
            swept_ms: 0,
            may_go: 0,
            cpu: Duration::ZERO,
            rest_at_ms: 0,
            ready: false,
            closed: false,
            finished: false,
        };
        Rc::new(Self { state: RefCell::new(state), bell, clock, common, opened: Bell::default() })
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Waits until clients may come.
    pub async fn ready(&self) {
        poll_fn(|context| self.opened.poll_heard(context)).await;
    }

    /// Runs turns until the shard (on the controller's shard: the node) has stopped.
    pub async fn run(self: Rc<Self>) {
        self.state().core.start(self.clock.now());
        // Alarms that have not rung, each earlier than the one before it. One that is no longer needed cannot be taken
        // back, but it serves for whatever is due later: forgotten ones would add up to thousands.
        let mut armed_ms: Vec<u64> = Vec::new();
        loop {
            let lanes_left = self.turn();
            let wake_ms = {
                let mut state = self.state();
                if state.finished || (state.closed && state.core.id().0 != 0) {
                    let shard = state.core.id().0;
                    state.counters.tell_all(shard);
                    return;
                }
                state.core.next_wake_ms()
            };
            let now_ms = self.clock.now().mono_ms;
            let wake_ms = if lanes_left { Some(now_ms + LANE_RETRY_MS) } else { wake_ms };
            while armed_ms.pop_if(|at_ms| *at_ms <= now_ms).is_some() {}
            if let Some(at_ms) = wake_ms
                && armed_ms.last().is_none_or(|armed_ms| at_ms < *armed_ms)
            {
                armed_ms.push(at_ms);
                let delay = Duration::from_millis(at_ms.saturating_sub(now_ms));
                self.ring_after(delay.max(YIELD));
            }
            poll_fn(|context| self.bell.poll_heard(context)).await;
        }
    }

    /// Rings the bell later. A task of its own: a glommio timer that is polled before it fires
    /// registers itself again each time, so it must not be polled beside the bell.
    fn ring_after(&self, delay: Duration) {
        let bell = Arc::clone(&self.bell);
        glommio::spawn_local(async move {
            glommio::timer::sleep(delay).await;
            bell.ring();
        })
        .detach();
    }

    /// One turn: takes in what has come, lets the shard work, carries out what it asks until it
    /// asks nothing more. Says whether parcels are left that did not fit their lane.
    fn turn(self: &Rc<Self>) -> bool {
        let started = std::time::Instant::now();
        let now = self.clock.now();
        let mut adopted = Vec::new();
        let mut state = self.state();
        state.take_in(self, &mut adopted);
        if state.core.next_wake_ms().is_some_and(|at_ms| at_ms <= now.mono_ms) {
            state.core.wake(now);
        }
        if self.common.stop.load(Ordering::Relaxed) {
            state.core.begin_stop(now);
        }
        loop {
            state.core.end_turn(now);
            let mut outputs = std::mem::take(&mut state.outputs);
            state.core.take_outputs(&mut outputs);
            if outputs.is_empty() {
                state.outputs = outputs;
                break;
            }
            for output in outputs.drain(..) {
                state.carry_out(self, output);
            }
            state.outputs = outputs;
        }
        state.sweep(now.mono_ms, &self.common);
        state.resume(now.mono_ms);
        let left = state.mesh.ring();
        state.counters.took("a turn", started.elapsed());
        let shard = state.core.id().0;
        state.counters.tell(now.mono_ms, shard);
        let dials = std::mem::take(&mut state.dials);
        drop(state);
        // A task takes its first steps while it is spawned, and those need the state.
        for (link, number, host, port) in dials {
            glommio::spawn_local(peers::run(Rc::clone(self), link, number, host, port)).detach();
        }
        adopted.into_iter().for_each(|arrival| self.adopt(arrival));
        left
    }

    /// A connection's task has ended.
    pub fn disconnect(&self, key: ConnectionKey, reason: CloseReason) {
        let mut state = self.state();
        if state.leave(key).is_none() {
            return;
        }
        state.counters.closed(reason);
        if reason == CloseReason::Peer {
            state.core.ended_by_peer(self.clock.now(), key);
        }
        state.core.disconnect(self.clock.now(), key);
        self.bell.ring();
    }
}

impl Common {
    /// Connections of the whole node.
    fn connection_count(&self) -> usize {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl State {
    /// Files give way to connections, and take what those leave.
    pub(super) fn share_descriptors(&mut self, common: &Common) {
        let shards = common.connections.len();
        self.files.keep_open(common.descriptors.files_per_shard(common.connection_count(), shards));
    }

    /// Takes in parcels of other shards and what helpers have brought back.
    fn take_in(&mut self, runtime: &Runtime, adopted: &mut Vec<Arrival>) {
        let now = runtime.clock.now();
        let shards = runtime.common.connections.len() as u16;
        for from in 0..shards {
            while let Some(parcel) = self.mesh.receive(from) {
                match parcel {
                    Parcel::Message(message) => {
                        self.core.message(now, crate::controller::ShardId(from), message);
                    }
                    Parcel::Connection(arrival) => adopted.push(*arrival),
                }
            }
        }
        let mut came_back = std::mem::take(&mut self.came_back);
        self.returns.take(&mut came_back);
        for (owner, outcome) in came_back.drain(..) {
            self.came_back(runtime, owner, outcome);
        }
        self.came_back = came_back;
    }

    fn came_back(&mut self, runtime: &Runtime, owner: Owner, outcome: Outcome) {
        let now = runtime.clock.now();
        match (outcome, owner) {
            (Outcome::File(ticket, result, aftermath), owner) => {
                self.files.note(owner, aftermath);
                self.core.completed(now, owner, ticket, result);
            }
            (Outcome::Open { to, found, file, opened }, Owner::Replica(slot)) => {
                let file = self.files.opened(owner, file, opened);
                let span = file.zip(found.span).map(|(file, span)| ByteSpan::File {
                    file,
                    position: span.position,
                    length: span.length,
                });
                self.core.opened(now, slot, to, found, span);
            }
            (Outcome::Recover(result), Owner::Replica(slot)) => self.core.recovered(now, slot, result),
            (Outcome::Warm(key), _) => self.warmed(key),
            (Outcome::ReadSpan(to, result), _) => self.core.span_read(now, to, result),
            (Outcome::Open { .. } | Outcome::Recover(_), _) => {}
        }
    }

    fn carry_out(&mut self, runtime: &Rc<Runtime>, output: Output) {
        let now = runtime.clock.now();
        match output {
            Output::Own { owner, directory, name } => self.files.own(owner, directory, &name),
            Output::Disown(owner) => self.files.disown(owner),
            Output::File(Owner::Replica(slot), ticket, FileOp::Append { base_offset, position, .. }) => {
                let owner = Owner::Replica(slot);
                let Some(partition) = self.core.replicas().partition(slot) else { return };
                let result = self.files.append(owner, base_offset, position, partition.log().append_parts());
                self.counters.appends += 1;
                self.core.completed(now, owner, ticket, result);
            }
            Output::File(owner, ticket, op) => {
                if let Some(result) = self.files.execute(owner, ticket, op) {
                    self.core.completed(now, owner, ticket, result);
                }
            }
            Output::Open { slot, to, found } => self.open(runtime, slot, to, found),
            Output::Measure(to) => {
                let space = self.files.space();
                self.core.measured(now, to, space);
            }
            Output::ReadSpan { to, span } => {
                if let Some(result) = self.files.read_span(to, span) {
                    self.core.span_read(now, to, result);
                }
            }
            Output::Recover(slot, recovery) => {
                self.files.order(Owner::Replica(slot), Job::Recover(recovery));
            }
            Output::Send(to, message) => self.mesh.send(to.0, Parcel::Message(message)),
            Output::Flush(key) => self.flush(key, now.mono_ms),
            Output::Close(key, reason) => self.close(key, reason, now.mono_ms),
            Output::Dial { link, host, port } => {
                let number = self.links.begin(link);
                self.dials.push((link, number, host, port));
            }
            Output::LinkSend { link, bytes } => self.links.send(link, bytes),
            Output::LinkClose { link } => self.links.close(link),
            Output::DirectoryOffline(directory) => {
                drop(super::distrust(self.files.log_dir(directory)));
                super::say(&format!("log directory {directory} failed: its partitions are offline"));
            }
            Output::Configured(config) => {
                if let Some(door) = &self.door {
                    door.borrow_mut().configure(&config);
                }
            }
            Output::Say(line) => super::say(&line),
            Output::Ready => {
                self.ready = true;
                runtime.opened.ring();
            }
            Output::Closed => self.closed = true,
            Output::Finished => self.finished = true,
            Output::Fatal(message) => {
                let _ = super::distrust(self.files.log_dirs()).recv_timeout(DISTRUST_MAX);
                super::die(&message)
            }
        }
    }

    fn open(&mut self, runtime: &Runtime, slot: u32, to: ReplyTo, found: ReadFound) {
        let Some(span) = found.span else { return };
        let owner = Owner::Replica(slot);
        let file = FileName::from(Stem::Log(span.segment_base_offset));
        let span = if let Some(open) = self.files.cached(owner, file) {
            ByteSpan::File { file: Arc::clone(open), position: span.position, length: span.length }
        } else if self.files.may_open() {
            return self.files.order_open(owner, to, found, file);
        } else {
            // Every descriptor is in use: nothing is found this time, and the client asks again.
            self.counters.opens_put_off += 1;
            ByteSpan::Memory(bytes::Bytes::new())
        };
        self.core.opened(runtime.clock.now(), slot, to, found, Some(span));
    }
}
