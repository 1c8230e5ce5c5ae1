//! What a shard knows of its sockets besides what the broker does: which are read, which wait and
//! for what, and which are closed because they stand still.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Waker;

use bytes::{Bytes, BytesMut};
use glommio::io::PollableFd;

use super::clock;
use super::door::Seat;
use super::helpers::Job;
use super::intake::{RECEIVE_BYTES, Share};
use super::listener::let_survive_cuts;
use super::memory;
use super::runtime::{Common, Runtime, State};
use super::transfer::{self, Sent};
use crate::broker::{ConnectionKey, QUEUE_KEPT};
use crate::request::{CloseReason, Connection};
use crate::wire::api::{ApiKey, RAFT_FRAME_BYTES};
use crate::wire::frame::Front;

/// Requests that one connection may have in flight before it is read no further.
const IN_FLIGHT_MAX: usize = 100;
/// How often sockets are looked over, in milliseconds.
const SWEEP_MS: u64 = 1_000;
/// Giving memory back takes at most this part of a shard's time: the larger its heap, the rarer.
const REST_SHARE: u64 = 1_000;
/// A connection that was quiet for so long gives back the memory of its busy time, in milliseconds.
const QUIET_MS: u64 = 2_000;
/// Every frame may take so long to arrive, in milliseconds: a client's own patience by default.
const FRAME_MS: u64 = 30_000;
/// A large one may take longer: it must come at so many bytes a millisecond (256 KiB a second).
const FRAME_BYTES_PER_MS: u64 = 262;
/// A client that takes nothing of its answers for so long is closed where memory is needed.
const UNTAKEN_MS: u64 = 30_000;
/// A connection whose client takes nothing of its answers is read in spite of it after so long, in
/// milliseconds, and then after twice the time each: see [`Socket::is_to_be_drained`].
const DRAIN_MS: u64 = 4_000;
/// Unsent answers in memory below this hurt nobody, in bytes.
const UNTAKEN_BYTES: usize = 256 * 1024;

/// Why a connection is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// It has too much in flight, or its client takes no answers.
    Own,
    /// There is no room for bytes whose frame is not admitted.
    Openings,
    /// Its next frame waits for room in the budget.
    Room,
}

/// What the shell knows of a connection.
#[derive(Debug)]
pub(super) struct Socket {
    pub key: ConnectionKey,
    pub fd: Rc<PollableFd<OwnedFd>>,
    /// Counted until it is closed.
    pub seat: Seat,
    /// The task that waits on it.
    pub waker: Option<Waker>,
    /// The task should look again.
    pub poked: bool,
    /// A helper brings its next span into the page cache.
    warming: bool,
    /// A helper has brought it.
    warmed: bool,
    /// Its memory is as small as it gets.
    slim: bool,
    /// Another node is at its other end.
    of_node: bool,
    /// It is to be closed.
    pub closing: Option<CloseReason>,
    pub pause: Option<Pause>,
    /// Since when its socket takes no more; it waits until it is writable.
    pub blocked_since_ms: Option<u64>,
    /// What its socket has received is to be taken though the connection is paused.
    pub draining: bool,
    /// How often that was done since it is blocked.
    drained: u32,
    /// What it takes of the shard's memory.
    share: Share,
    /// Monotonic time of the last byte in or out.
    active_ms: u64,
    /// When the frame that is being received began, and its length as far as it is known.
    pub frame: Option<(u64, u64)>,
}

impl Socket {
    pub fn new(key: ConnectionKey, fd: Rc<PollableFd<OwnedFd>>, seat: Seat, now_ms: u64) -> Self {
        Self {
            key,
            fd,
            seat,
            waker: None,
            poked: false,
            warming: false,
            warmed: false,
            slim: true,
            of_node: false,
            closing: None,
            pause: None,
            blocked_since_ms: None,
            draining: false,
            drained: 0,
            share: Share::default(),
            active_ms: now_ms,
            frame: None,
        }
    }

    /// Makes its task look again.
    pub fn poke(&mut self) {
        self.poked = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether and why it is to be closed for standing still.
    fn overdue(&self, now_ms: u64, idle_ms: u64, is_pressed: bool) -> Option<CloseReason> {
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms);
        if self.pause.is_none()
            && self.frame.is_some_and(|(began_ms, bytes)| since(began_ms) > frame_ms_max(bytes))
        {
            return Some(CloseReason::SlowSender);
        }
        if self.blocked_since_ms.is_some_and(|at_ms| since(at_ms) > UNTAKEN_MS)
            && (is_pressed || self.share.unsent_bytes() > UNTAKEN_BYTES)
        {
            return Some(CloseReason::SlowReader);
        }
        (since(self.active_ms) > idle_ms).then_some(CloseReason::Idle)
    }

    /// Whether its receive queue is to be emptied though nothing of it can be served.
    ///
    /// Where both directions are full, Linux may drop a segment for want of memory and close the
    /// window at once. From 6.17 on it then discards what the client sends, and with it the news
    /// that the client has room for answers again, until the receive queue is empty: without this
    /// the connection is dead although both ends would go on.
    fn is_to_be_drained(&self, now_ms: u64) -> bool {
        let due_ms = DRAIN_MS << self.drained.min(16);
        self.pause == Some(Pause::Own)
            && self.blocked_since_ms.is_some_and(|at_ms| now_ms.saturating_sub(at_ms) > due_ms)
    }
}

/// Whether a connection has too much in flight or in its outbox, or is to have nothing there so that it can move.
fn takes_no_more(connection: &Connection) -> bool {
    connection.in_flight() >= IN_FLIGHT_MAX || connection.outbox.is_full() || connection.comes_to_rest()
}

/// How long a frame may be on its way, in milliseconds.
fn frame_ms_max(frame_bytes: u64) -> u64 {
    FRAME_MS + frame_bytes / FRAME_BYTES_PER_MS
}

impl Runtime {
    /// Whether a connection's next bytes may be received though their frame is not admitted yet.
    pub fn may_receive(&self, key: ConnectionKey) -> bool {
        let mut state = self.state();
        let why = if state.is_busy(key) {
            Pause::Own
        } else if !state.intake.may_open() && !state.is_of_node(key) {
            Pause::Openings
        } else {
            return true;
        };
        state.pause(key, why);
        false
    }

    /// Admits the frame at the front of a connection's bytes, or pauses the connection until there
    /// is room for it: an unread socket is how its client learns of it.
    pub fn admit(&self, key: ConnectionKey, front: Front) -> bool {
        self.state().admit(key, front)
    }

    /// Whether so many bytes more of the frame at the front may be received: there is room for
    /// them, or for all of it.
    pub fn may_grow(&self, key: ConnectionKey, front: Front, step_bytes: usize) -> bool {
        let state = &mut *self.state();
        let Some(socket) = State::find(&mut state.sockets, key) else { return false };
        if let Some((_, bytes)) = &mut socket.frame {
            *bytes = front.length_bytes as u64;
        }
        state.intake.may_grow(&socket.share, step_bytes) || state.admit(key, front)
    }

    /// A whole frame has arrived that was admitted.
    pub fn frame(&self, key: ConnectionKey, frame: Bytes) {
        let mut state = self.state();
        state.hand_over(key);
        state.core.frame(self.clock.now(), key, frame);
        self.bell.ring();
    }

    /// The largest frame that may come on a connection.
    pub fn frame_limit_bytes(&self, key: ConnectionKey) -> u32 {
        let of_clients = self.common.frame_limit_bytes;
        if of_clients >= RAFT_FRAME_BYTES { of_clients } else { self.state().core.frame_limit_bytes(key) }
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

    /// Notes what a connection's own buffer holds after some of its bytes were looked at.
    pub fn note_buffer(&self, key: ConnectionKey, buffer_bytes: usize) {
        let now_ms = self.clock.now().mono_ms;
        let state = &mut *self.state();
        let Some(socket) = State::find(&mut state.sockets, key) else { return };
        state.intake.note_buffer(&mut socket.share, buffer_bytes);
        socket.active_ms = now_ms;
        socket.slim = false;
        socket.frame =
            if buffer_bytes == 0 { None } else { socket.frame.or(Some((now_ms, RECEIVE_BYTES as u64))) };
    }

    /// Whether bytes may be received that no frame of the connection can be served from yet.
    pub fn may_drain(&self, key: ConnectionKey) -> bool {
        let state = &mut *self.state();
        let Some(socket) = State::find(&mut state.sockets, key) else { return false };
        state.intake.may_drain(&socket.share)
    }

    pub fn is_paused(&self, key: ConnectionKey) -> bool {
        self.state().socket(key).is_none_or(|socket| socket.pause.is_some())
    }

    /// The socket takes bytes again.
    pub fn writable(&self, key: ConnectionKey) {
        if let Some(socket) = self.state().socket(key) {
            socket.blocked_since_ms = None;
            socket.drained = 0;
            socket.active_ms = self.clock.now().mono_ms;
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
    fn find(sockets: &mut [Option<Socket>], key: ConnectionKey) -> Option<&mut Socket> {
        sockets.get_mut(key.slot as usize)?.as_mut().filter(|socket| socket.key == key)
    }

    /// A connection that is still there.
    pub fn socket(&mut self, key: ConnectionKey) -> Option<&mut Socket> {
        Self::find(&mut self.sockets, key)
    }

    /// A connection is served here no more. Gives what was known of it, if it was still there.
    pub fn leave(&mut self, key: ConnectionKey) -> Option<Socket> {
        self.socket(key)?;
        let mut socket = self.sockets.get_mut(key.slot as usize)?.take()?;
        self.intake.leave(key, &mut socket.share);
        Some(socket)
    }

    /// Reads a connection no further until [`State::resume`] finds room.
    fn pause(&mut self, key: ConnectionKey, why: Pause) {
        let Some(socket) = self.socket(key) else { return };
        if socket.pause.replace(why).is_none() && why != Pause::Room {
            self.paused.push(key);
        }
    }

    fn is_busy(&mut self, key: ConnectionKey) -> bool {
        self.core.connection(key).is_some_and(|connection| takes_no_more(connection))
    }

    fn is_of_node(&mut self, key: ConnectionKey) -> bool {
        self.core.connection(key).is_some_and(|connection| connection.of_node)
    }

    fn admit(&mut self, key: ConnectionKey, front: Front) -> bool {
        let admitted_bytes = self.core.admitted_bytes();
        let Some(connection) = self.core.connection(key) else { return false };
        // Clients begin with ApiVersions. Who begins with a Fetch is taken for a follower, as acks=all producers that
        // wait for it may have all of the clients' part; what it reads later tells.
        let of_node = connection.of_node || connection.is_new() && front.api == ApiKey::Fetch;
        let own_bytes = connection.cost_bytes();
        let is_busy = takes_no_more(connection)
            || (own_bytes > 0 && own_bytes + front.cost_bytes > self.intake.connection_bytes());
        let Some(socket) = Self::find(&mut self.sockets, key) else { return false };
        if of_node && !std::mem::replace(&mut socket.of_node, true) {
            let_survive_cuts(socket.fd.get_ref());
        }
        if is_busy {
            self.pause(key, Pause::Own);
            return false;
        }
        let (share, cost_bytes) = (&mut socket.share, front.cost_bytes);
        if of_node && self.intake.admit_node(share, cost_bytes, admitted_bytes)
            || self.intake.admit(key, share, cost_bytes, admitted_bytes)
        {
            return true;
        }
        self.counters.frames_waited += 1;
        self.pause(key, Pause::Room);
        false
    }

    fn hand_over(&mut self, key: ConnectionKey) {
        if let Some(socket) = Self::find(&mut self.sockets, key) {
            self.intake.hand_over(&mut socket.share);
            socket.frame = None;
        }
    }

    /// A helper has brought a connection's next span into the page cache.
    pub fn warmed(&mut self, key: ConnectionKey) {
        if let Some(socket) = self.socket(key) {
            socket.warming = false;
            socket.warmed = true;
            socket.poke();
        }
    }

    /// A connection is to be closed.
    pub fn close(&mut self, key: ConnectionKey, reason: CloseReason, now_ms: u64) {
        self.flush(key, now_ms);
        if let Some(socket) = self.socket(key) {
            socket.closing = Some(reason);
            socket.poke();
        }
    }

    /// Sends what a connection has to send, as far as it goes without waiting.
    pub fn flush(&mut self, key: ConnectionKey, now_ms: u64) {
        let Some(socket) = Self::find(&mut self.sockets, key) else { return };
        if socket.blocked_since_ms.is_some() || socket.warming {
            return;
        }
        let Some(outbox) = self.core.outbox(key) else { return };
        if outbox.is_empty() {
            return self.let_go(key);
        }
        let warmed = std::mem::take(&mut socket.warmed);
        let sent = transfer::send(socket.fd.get_ref(), outbox, warmed);
        let unsent_bytes = if matches!(sent, Sent::All) { 0 } else { outbox.memory_bytes() };
        self.intake.note_unsent(&mut socket.share, unsent_bytes);
        match sent {
            Sent::All => {
                socket.active_ms = now_ms;
                socket.slim = false;
                self.let_go(key);
            }
            Sent::Yield => {
                socket.active_ms = now_ms;
                socket.poke();
            }
            Sent::Blocked => {
                socket.blocked_since_ms = Some(now_ms);
                // Its task must start to wait for the socket.
                socket.wake();
            }
            Sent::Cold { file, position, length } => {
                socket.warming = true;
                self.counters.cold_spans += 1;
                self.files.order_unowned(Job::Warm { connection: key, file, position, length });
            }
            Sent::Failed => {
                socket.closing = Some(CloseReason::Peer);
                socket.poke();
            }
        }
    }

    /// Reads on from connections that were paused and have room again.
    pub fn resume(&mut self, now_ms: u64) {
        while let Some((key, cost_bytes)) = self.intake.next_granted(self.core.admitted_bytes()) {
            let Some(socket) = Self::find(&mut self.sockets, key) else { continue };
            self.intake.grant(&mut socket.share, cost_bytes, self.core.admitted_bytes());
            socket.go_on(now_ms);
        }
        if self.paused.is_empty() {
            return;
        }
        let mut paused = std::mem::take(&mut self.paused);
        paused.retain(|key| {
            let busy = self.is_busy(*key)
                || self.core.connection(*key).is_some_and(|connection| {
                    // What it waits for is not known here; with nothing in flight anything may come.
                    connection.cost_bytes() > self.intake.connection_bytes() / 2
                });
            let may_open = self.intake.may_open();
            match self.socket(*key) {
                Some(socket) if !busy && (may_open || socket.pause == Some(Pause::Own)) => {
                    socket.go_on(now_ms);
                    false
                }
                Some(_) => true,
                None => false,
            }
        });
        self.paused = paused;
    }

    /// Gives back the memory that nothing uses any more.
    fn rest(&mut self, now_ms: u64) {
        if now_ms < self.rest_at_ms {
            return;
        }
        let started = clock::thread_time();
        self.core.rest();
        self.outputs.shrink_to(QUEUE_KEPT);
        memory::give_back();
        let took = clock::thread_time().saturating_sub(started);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.rest_at_ms = now_ms.saturating_add(took_us.saturating_mul(REST_SHARE) / 1_000);
    }

    /// Now and then closes connections that stand still, and slims those that are quiet.
    pub fn sweep(&mut self, now_ms: u64, common: &Common) {
        if now_ms < self.swept_ms + SWEEP_MS {
            return;
        }
        let (idle_ms, passed_ms) = (common.idle_ms, now_ms - self.swept_ms);
        self.swept_ms = now_ms;
        self.note_busy(now_ms, passed_ms, common);
        let is_pressed = self.intake.is_pressed(self.core.admitted_bytes());
        for socket in self.sockets.iter_mut().flatten() {
            if let Some(reason) = socket.overdue(now_ms, idle_ms.unwrap_or(u64::MAX), is_pressed) {
                socket.closing = Some(reason);
                socket.poke();
            } else if socket.is_to_be_drained(now_ms) {
                socket.draining = true;
                socket.drained += 1;
                socket.wake();
            } else if !socket.slim && now_ms.saturating_sub(socket.active_ms) > QUIET_MS {
                socket.slim = true;
                if let Some(connection) = self.core.connection(socket.key) {
                    connection.slim();
                }
            }
        }
        let longest = self.sockets.iter().rposition(Option::is_some).map_or(0, |at| at + 1);
        if longest < self.sockets.len() / 4 {
            self.sockets.truncate(longest);
            self.sockets.shrink_to(2 * longest);
        }
        self.rest(now_ms);
        self.share_descriptors(common);
    }
}

impl Socket {
    /// It is read again; what it had to wait does not count as its own slowness.
    fn go_on(&mut self, now_ms: u64) {
        self.pause = None;
        if let Some((began_ms, _)) = &mut self.frame {
            *began_ms = now_ms;
        }
        self.poke();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_frame_has_half_a_minute_and_a_large_one_comes_at_a_quarter_of_a_mebibyte_a_second() {
        assert_eq!(frame_ms_max(100), 30_000);
        assert_eq!(frame_ms_max(1 << 20), 34_002);
        assert!((420_000..440_000).contains(&frame_ms_max(100 << 20)));
    }
}
