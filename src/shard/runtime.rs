//! One shard at work: its tasks feed the broker's [`Shard`] and its turn carries out what it asks.
//!
//! Tasks borrow the state, step it and let go; no borrow lives across an `.await`. The turn runs
//! after every task that was ready before it, so everything that arrived together is written
//! together.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use glommio::io::PollableFd;

use super::bell::Bell;
use super::clock::Clock;
use super::connection::{self, IN_FLIGHT_MAX, RECEIVE_BYTES, Socket, UNSENT_BYTES_MAX, UNSENT_PIECES_MAX};
use super::counters::Counters;
use super::files::Files;
use super::helpers::{Job, Outcome, Returns};
use super::mesh::{Mesh, Parcel};
use super::transfer::{self, Sent};
use crate::broker::{ConnectionKey, Output, Owner, Shard};
use crate::effect::{ByteSpan, FileName, FileOp, Stem};
use crate::partition::{ReadFound, ReplyTo};
use crate::request::{CloseReason, RequestContext};
use crate::security::Principal;

/// How long a lane that overflowed rests before it is tried again.
const LANE_RETRY_MS: u64 = 1;
/// What is due at once lets sockets and other tasks go first.
const YIELD: Duration = Duration::from_micros(10);

/// What the shards of a node share: counters, and nothing that anyone waits for.
#[derive(Debug)]
pub(super) struct Common {
    /// Connections of each shard; a new one goes where the fewest are.
    pub connections: Vec<AtomicUsize>,
    /// Set by a signal: the controller's shard begins a clean stop.
    pub stop: std::sync::atomic::AtomicBool,
    /// Largest frame, without its length prefix.
    pub frame_limit_bytes: u32,
    /// Bytes of unanswered frames per shard before its connections are read no further.
    pub budget_bytes: usize,
    /// A connection without traffic is closed after this.
    pub idle_ms: Option<u64>,
}

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
    core: Shard,
    files: Files,
    pub mesh: Mesh,
    returns: Arc<Returns>,
    sockets: Vec<Option<Socket>>,
    receive_buffer: Option<BytesMut>,
    /// What frames that are being received take of the budget.
    reserved_bytes: usize,
    outputs: Vec<Output>,
    came_back: VecDeque<(Owner, Outcome)>,
    paused: Vec<ConnectionKey>,
    pub counters: Counters,
    swept_ms: u64,
    ready: bool,
    closed: bool,
    finished: bool,
}

impl State {
    /// A connection that is still there.
    pub fn socket(&mut self, key: ConnectionKey) -> Option<&mut Socket> {
        self.sockets.get_mut(key.slot as usize)?.as_mut().filter(|socket| socket.key == key)
    }
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
            reserved_bytes: 0,
            outputs: Vec::new(),
            came_back: VecDeque::new(),
            paused: Vec::new(),
            counters: Counters::default(),
            swept_ms: 0,
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
        let mut armed_ms: Option<u64> = None;
        loop {
            let lanes_left = self.turn();
            let wake_ms = {
                let state = self.state();
                if state.finished || (state.closed && state.core.id().0 != 0) {
                    return;
                }
                state.core.next_wake_ms()
            };
            let now_ms = self.clock.now().mono_ms;
            let wake_ms = if lanes_left { Some(now_ms + LANE_RETRY_MS) } else { wake_ms };
            armed_ms = armed_ms.filter(|at_ms| *at_ms > now_ms);
            if let Some(at_ms) = wake_ms
                && armed_ms.is_none_or(|armed_ms| at_ms < armed_ms)
            {
                armed_ms = Some(at_ms);
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
        state.sweep(self, now.mono_ms);
        state.resume(self);
        let left = state.mesh.ring();
        state.counters.turn(started.elapsed());
        drop(state);
        for (socket, listener) in adopted {
            self.adopt(socket, listener);
        }
        left
    }

    /// Takes a connection on: from now on its task serves it.
    pub fn adopt(self: &Rc<Self>, socket: OwnedFd, listener: usize) {
        let Ok(fd) = PollableFd::new(socket) else { return };
        let fd = Rc::new(fd);
        let key = {
            let mut state = self.state();
            let key = state.core.connect(RequestContext { listener, principal: Principal::Anonymous });
            let at = key.slot as usize;
            if state.sockets.len() <= at {
                state.sockets.resize_with(at + 1, || None);
            }
            let socket = Socket::new(key, Rc::clone(&fd), self.clock.now().mono_ms);
            if let Some(slot) = state.sockets.get_mut(at) {
                *slot = Some(socket);
            }
            state.counters.accepted += 1;
            key
        };
        glommio::spawn_local(connection::serve(Rc::clone(self), key, fd)).detach();
    }

    /// A connection's task has ended.
    pub fn disconnect(&self, key: ConnectionKey, reason: CloseReason) {
        let mut state = self.state();
        if state.socket(key).is_none() {
            return;
        }
        state.release(key);
        if let Some(slot) = state.sockets.get_mut(key.slot as usize) {
            *slot = None;
        }
        state.counters.closed(reason);
        let shard = usize::from(state.core.id().0);
        state.core.disconnect(self.clock.now(), key);
        if let Some(count) = self.common.connections.get(shard) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
        self.bell.ring();
    }

    /// A whole frame has arrived.
    pub fn frame(&self, key: ConnectionKey, frame: Bytes) {
        self.state().core.frame(self.clock.now(), key, frame);
        self.bell.ring();
    }

    pub fn frame_limit_bytes(&self) -> u32 {
        self.common.frame_limit_bytes
    }

    /// The shard's receive buffer, with room for at least one `recv`.
    pub fn take_receive_buffer(&self, block_bytes: usize) -> BytesMut {
        let mut buffer = self.state().receive_buffer.take().unwrap_or_default();
        if buffer.capacity() < RECEIVE_BYTES {
            // Reclaims the block when no frame of it is in use any more.
            buffer.reserve(block_bytes);
        }
        buffer
    }

    pub fn give_receive_buffer(&self, buffer: BytesMut) {
        self.state().receive_buffer = Some(buffer);
    }

    /// Notes traffic, and since when a frame has been on its way.
    pub fn note_received(&self, key: ConnectionKey, whole_frames: bool) {
        let now_ms = self.clock.now().mono_ms;
        if let Some(socket) = self.state().socket(key) {
            socket.active_ms = now_ms;
            socket.frame_since_ms = if whole_frames { None } else { socket.frame_since_ms.or(Some(now_ms)) };
        }
        if whole_frames {
            self.state().release(key);
        }
    }

    pub fn is_paused(&self, key: ConnectionKey) -> bool {
        self.state().socket(key).is_none_or(|socket| socket.paused)
    }

    /// Takes a frame that is being received into the shard's budget, or pauses its connection
    /// until there is room for it. A frame that is larger than the whole budget is received when
    /// nothing else is.
    pub fn admit(&self, key: ConnectionKey, frame_bytes: usize) -> bool {
        let mut state = self.state();
        let budget_bytes = self.common.budget_bytes;
        let admitted = state.admit(key, frame_bytes, budget_bytes);
        if !admitted {
            state.pause(key);
        }
        admitted
    }

    /// Pauses a connection that has too much in flight, or whose shard has: an unread socket is
    /// how its client learns of it.
    pub fn pause_if_full(&self, key: ConnectionKey) -> bool {
        let mut state = self.state();
        let full = state.is_full(key, self.common.budget_bytes);
        if full {
            state.pause(key);
        }
        full
    }

    /// The socket takes bytes again.
    pub fn writable(&self, key: ConnectionKey) {
        if let Some(socket) = self.state().socket(key) {
            socket.blocked = false;
        }
        self.flush(key);
    }

    /// Sends what can be sent.
    pub fn flush(&self, key: ConnectionKey) {
        self.state().flush(key, self.clock.now().mono_ms);
        self.bell.ring();
    }
}

impl State {
    /// Reads a connection no further until [`State::resume`] finds room.
    fn pause(&mut self, key: ConnectionKey) {
        if let Some(socket) = self.socket(key)
            && !std::mem::replace(&mut socket.paused, true)
        {
            self.paused.push(key);
        }
    }

    /// Takes in parcels of other shards and what helpers have brought back.
    fn take_in(&mut self, runtime: &Runtime, adopted: &mut Vec<(OwnedFd, usize)>) {
        let now = runtime.clock.now();
        let shards = runtime.common.connections.len() as u16;
        for from in 0..shards {
            while let Some(parcel) = self.mesh.receive(from) {
                match parcel {
                    Parcel::Message(message) => {
                        self.core.message(now, crate::controller::ShardId(from), message);
                    }
                    Parcel::Connection { socket, listener } => adopted.push((socket, listener)),
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
                let file = opened.map(|opened| self.files.keep(owner, file, opened));
                let span = file.zip(found.span).map(|(file, span)| ByteSpan::File {
                    file,
                    position: span.position,
                    length: span.length,
                });
                self.core.opened(now, slot, to, found, span);
            }
            (Outcome::Recover(result), Owner::Replica(slot)) => self.core.recovered(now, slot, result),
            (Outcome::Warm(key), _) => {
                if let Some(socket) = self.socket(key) {
                    socket.warming = false;
                    socket.warmed = true;
                    socket.poke();
                }
            }
            (Outcome::Open { .. } | Outcome::Recover(_), _) => {}
        }
    }

    fn carry_out(&mut self, runtime: &Runtime, output: Output) {
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
            Output::Recover(slot, recovery) => {
                self.files.order(Owner::Replica(slot), Job::Recover(recovery));
            }
            Output::Send(to, message) => self.mesh.send(to.0, Parcel::Message(message)),
            Output::Flush(key) => self.flush(key, now.mono_ms),
            Output::Close(key, reason) => {
                self.flush(key, now.mono_ms);
                if let Some(socket) = self.socket(key) {
                    socket.closing = Some(reason);
                    socket.poke();
                }
            }
            Output::DirectoryOffline(directory) => {
                super::say(&format!("log directory {directory} failed: its partitions are offline"));
            }
            Output::Say(line) => super::say(&line),
            Output::Ready => {
                self.ready = true;
                runtime.opened.ring();
            }
            Output::Closed => self.closed = true,
            Output::Finished => self.finished = true,
            Output::Fatal(message) => super::die(&message),
        }
    }

    fn open(&mut self, runtime: &Runtime, slot: u32, to: ReplyTo, found: ReadFound) {
        let Some(span) = found.span else { return };
        let owner = Owner::Replica(slot);
        let file = FileName::from(Stem::Log(span.segment_base_offset));
        match self.files.cached(owner, file) {
            Some(open) => {
                let span =
                    ByteSpan::File { file: Arc::clone(open), position: span.position, length: span.length };
                self.core.opened(runtime.clock.now(), slot, to, found, Some(span));
            }
            None => self.files.order(owner, Job::Open { to, found, file }),
        }
    }

    /// Sends what a connection has to send, as far as it goes without waiting.
    fn flush(&mut self, key: ConnectionKey, now_ms: u64) {
        let Some(socket) = self.sockets.get_mut(key.slot as usize).and_then(Option::as_mut) else { return };
        if socket.key != key || socket.blocked || socket.warming {
            return;
        }
        let Some(outbox) = self.core.outbox(key) else { return };
        if outbox.is_empty() {
            return;
        }
        let warmed = std::mem::take(&mut socket.warmed);
        match transfer::send(socket.fd.get_ref(), outbox, warmed) {
            Sent::All => socket.active_ms = now_ms,
            Sent::Yield => {
                socket.active_ms = now_ms;
                socket.poke();
            }
            Sent::Blocked => {
                socket.blocked = true;
                // Its task must start to wait for the socket.
                if let Some(waker) = socket.waker.take() {
                    waker.wake();
                }
            }
            Sent::Cold { file, position, length } => {
                socket.warming = true;
                self.counters.cold_spans += 1;
                self.files.warm(Job::Warm { connection: key, file, position, length });
            }
            Sent::Failed => {
                socket.closing = Some(CloseReason::Peer);
                socket.poke();
            }
        }
    }

    fn admit(&mut self, key: ConnectionKey, frame_bytes: usize, budget_bytes: usize) -> bool {
        let fits = self.fits(key, frame_bytes, budget_bytes);
        let Some(socket) = self.socket(key) else { return false };
        socket.awaited_bytes = if fits { 0 } else { frame_bytes };
        if fits {
            let missing = frame_bytes.saturating_sub(socket.reserved_bytes);
            socket.reserved_bytes += missing;
            self.reserved_bytes += missing;
        }
        fits
    }

    /// Whether a frame of this size may be received: it is admitted already, or there is room for
    /// it, or nothing else takes any.
    fn fits(&mut self, key: ConnectionKey, frame_bytes: usize, budget_bytes: usize) -> bool {
        let used = self.core.admitted_bytes() + self.reserved_bytes;
        let Some(socket) = self.socket(key) else { return false };
        let others = used - socket.reserved_bytes;
        frame_bytes <= socket.reserved_bytes || others == 0 || others + frame_bytes <= budget_bytes
    }

    /// The frame is whole, and counted with its request from now on, or its connection is gone.
    fn release(&mut self, key: ConnectionKey) {
        let reserved = self.socket(key).map_or(0, |socket| std::mem::take(&mut socket.reserved_bytes));
        self.reserved_bytes -= reserved;
    }

    fn is_full(&mut self, key: ConnectionKey, budget_bytes: usize) -> bool {
        let (own, awaited) =
            self.socket(key).map_or((0, 0), |socket| (socket.reserved_bytes, socket.awaited_bytes));
        self.core.admitted_bytes() + self.reserved_bytes - own > budget_bytes
            || !self.fits(key, awaited, budget_bytes)
            || self.core.in_flight(key) >= IN_FLIGHT_MAX
            || self.core.outbox(key).is_some_and(|outbox| {
                outbox.pieces() > UNSENT_PIECES_MAX || outbox.memory_bytes() > UNSENT_BYTES_MAX
            })
    }

    /// Reads on from connections that were paused and have room again.
    fn resume(&mut self, runtime: &Runtime) {
        if self.paused.is_empty() {
            return;
        }
        let mut paused = std::mem::take(&mut self.paused);
        paused.retain(|key| {
            let full = self.is_full(*key, runtime.common.budget_bytes);
            match self.socket(*key) {
                Some(socket) if !full => {
                    socket.paused = false;
                    socket.poke();
                    false
                }
                Some(_) => true,
                None => false,
            }
        });
        self.paused = paused;
    }

    /// Now and then closes connections that are idle, or whose frame does not come on.
    fn sweep(&mut self, runtime: &Runtime, now_ms: u64) {
        const EVERY_MS: u64 = 5_000;
        const FRAME_MS_MAX: u64 = 30_000;
        if now_ms < self.swept_ms + EVERY_MS {
            return;
        }
        self.swept_ms = now_ms;
        let idle_ms = runtime.common.idle_ms.unwrap_or(u64::MAX);
        for socket in self.sockets.iter_mut().flatten() {
            let idle = now_ms.saturating_sub(socket.active_ms) > idle_ms;
            let stuck = !socket.paused
                && socket.frame_since_ms.is_some_and(|since| now_ms.saturating_sub(since) > FRAME_MS_MAX)
                && now_ms.saturating_sub(socket.active_ms) > FRAME_MS_MAX;
            if idle || stuck {
                socket.closing = Some(CloseReason::Idle);
                socket.poke();
            }
        }
    }
}
