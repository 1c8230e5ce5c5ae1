//! One connection: bytes off its socket into frames, and its outbox onto the socket.
//!
//! A connection that is idle holds no buffer: bytes are received into the shard's buffer, frames
//! are slices of it, and only the beginning of a frame whose rest is still on its way is moved
//! into a buffer of the connection's own, which grows as bytes arrive.

use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::{Buf, BytesMut};
use glommio::io::{PollState, PollableFd};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::runtime::Runtime;
use crate::broker::ConnectionKey;
use crate::request::CloseReason;
use crate::wire::frame;

/// What one `recv` may bring.
pub(super) const RECEIVE_BYTES: usize = 64 * 1024;
/// The shard's receive buffer is taken in blocks of this size.
const BLOCK_BYTES: usize = 256 * 1024;
/// A frame's own buffer grows by at most this much at a time.
const GROWTH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes taken off one socket before the others have their turn.
const TURN_BYTES: usize = 1024 * 1024;
/// Requests that one connection may have in flight before it is read no further.
pub(super) const IN_FLIGHT_MAX: usize = 100;
/// Unsent answers in memory before the connection is read no further.
pub(super) const UNSENT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Unsent spans and what lies between them before the connection is read no further.
pub(super) const UNSENT_PIECES_MAX: usize = 2 * IN_FLIGHT_MAX;

/// What the shell knows of a connection besides what the broker does.
#[derive(Debug)]
pub(super) struct Socket {
    pub key: ConnectionKey,
    pub fd: Rc<PollableFd<OwnedFd>>,
    /// The task that waits on it.
    pub waker: Option<Waker>,
    /// The task should look again.
    pub poked: bool,
    /// Its socket took no more; it waits until it is writable.
    pub blocked: bool,
    /// A helper brings its next span into the page cache.
    pub warming: bool,
    /// A helper has brought it.
    pub warmed: bool,
    /// It is to be closed.
    pub closing: Option<CloseReason>,
    /// What the frame that is being received takes of the shard's budget.
    pub reserved_bytes: usize,
    /// A frame of this size waits for room in the budget; 0 if none does.
    pub awaited_bytes: usize,
    /// Not read while it or its shard has too much to do.
    pub paused: bool,
    /// Monotonic time of the last byte in or out.
    pub active_ms: u64,
    /// When the frame that is being received began, if one is.
    pub frame_since_ms: Option<u64>,
}

impl Socket {
    pub fn new(key: ConnectionKey, fd: Rc<PollableFd<OwnedFd>>, now_ms: u64) -> Self {
        Self {
            key,
            fd,
            waker: None,
            poked: false,
            blocked: false,
            warming: false,
            warmed: false,
            closing: None,
            reserved_bytes: 0,
            awaited_bytes: 0,
            paused: false,
            active_ms: now_ms,
            frame_since_ms: None,
        }
    }

    /// Makes its task look again.
    pub fn poke(&mut self) {
        self.poked = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Why the task of a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Readable,
    Writable,
    Poked,
    Closing(CloseReason),
}

/// Serves a connection until it is closed.
pub(super) async fn serve(runtime: Rc<Runtime>, key: ConnectionKey, fd: Rc<PollableFd<OwnedFd>>) {
    let mut own = BytesMut::new();
    let (mut reading, mut writing) = (PollState::new(), PollState::new());
    let reason = loop {
        match next_event(&runtime, key, &fd, &mut reading, &mut writing).await {
            Event::Readable => {
                reading = PollState::new();
                if let Err(reason) = receive(&runtime, key, &fd, &mut own) {
                    break reason;
                }
            }
            Event::Writable => {
                writing = PollState::new();
                runtime.writable(key);
            }
            Event::Poked => {
                runtime.flush(key);
                if !own.is_empty()
                    && let Err(reason) = dispatch(&runtime, key, &mut own)
                {
                    break reason;
                }
            }
            Event::Closing(reason) => break reason,
        }
    };
    runtime.disconnect(key, reason);
}

async fn next_event(
    runtime: &Runtime,
    key: ConnectionKey,
    fd: &PollableFd<OwnedFd>,
    reading: &mut PollState,
    writing: &mut PollState,
) -> Event {
    poll_fn(|context| {
        let (blocked, paused) = {
            let mut state = runtime.state();
            let Some(socket) = state.socket(key) else {
                return Poll::Ready(Event::Closing(CloseReason::Peer));
            };
            if let Some(reason) = socket.closing {
                return Poll::Ready(Event::Closing(reason));
            }
            if std::mem::take(&mut socket.poked) {
                return Poll::Ready(Event::Poked);
            }
            match &mut socket.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            (socket.blocked, socket.paused)
        };
        if blocked && fd.poll_writable(context, writing).is_ready() {
            return Poll::Ready(Event::Writable);
        }
        if !paused && fd.poll_readable(context, reading).is_ready() {
            return Poll::Ready(Event::Readable);
        }
        Poll::Pending
    })
    .await
}

/// Takes what the socket has and dispatches every whole frame.
fn receive(
    runtime: &Runtime,
    key: ConnectionKey,
    fd: &PollableFd<OwnedFd>,
    own: &mut BytesMut,
) -> Result<(), CloseReason> {
    let mut taken = 0;
    loop {
        let into_own = !own.is_empty();
        // A frame is admitted after its length and before its body.
        if into_own && !runtime.admit(key, frame_bytes(own)) {
            return Ok(());
        }
        let mut shared = if into_own { BytesMut::new() } else { runtime.take_receive_buffer(BLOCK_BYTES) };
        let buffer = if into_own { &mut *own } else { &mut shared };
        let received = receive_into(fd, buffer);
        let full = buffer.len() == buffer.capacity();
        if !into_own {
            let dispatched = received.and_then(|count| dispatch(runtime, key, &mut shared).map(|()| count));
            move_rest(&mut shared, own);
            shared.clear();
            runtime.give_receive_buffer(shared);
            taken += dispatched?;
        } else {
            taken += received?;
            dispatch(runtime, key, own)?;
        }
        runtime.note_received(key, own.is_empty());
        // A buffer that was not filled means that the socket is empty.
        if !full || taken >= TURN_BYTES || runtime.is_paused(key) {
            return Ok(());
        }
    }
}

/// What the frame at the front takes when it is all there; a `recv` where that is not known yet.
fn frame_bytes(buffer: &BytesMut) -> usize {
    frame::length_at_front(buffer, u32::MAX >> 1).ok().flatten().unwrap_or(RECEIVE_BYTES)
}

/// One `recv` into the spare room; 0 bytes means the socket had none after all.
fn receive_into(fd: &PollableFd<OwnedFd>, buffer: &mut BytesMut) -> Result<usize, CloseReason> {
    let wanted = frame_bytes(buffer).saturating_sub(buffer.len());
    if buffer.capacity() == buffer.len() {
        buffer.reserve(wanted.clamp(4096, GROWTH_BYTES_MAX));
    }
    let spare = buffer.spare_capacity_mut();
    let flags = MsgFlags::MSG_DONTWAIT;
    loop {
        // SAFETY: the pointer and length are those of the buffer's spare room; the kernel writes
        // at most that much, and exactly `count` bytes of it are then initialised.
        let count =
            unsafe { libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), flags.bits()) };
        match usize::try_from(count) {
            Ok(0) => return Err(CloseReason::Peer),
            Ok(count) => {
                // SAFETY: `recv` initialised `count` bytes behind the buffer's length.
                unsafe { buffer.set_len(buffer.len() + count) };
                return Ok(count);
            }
            Err(_) => match Errno::last() {
                Errno::EAGAIN => return Ok(0),
                Errno::EINTR => {}
                _ => return Err(CloseReason::Peer),
            },
        }
    }
}

/// Hands every whole frame to the broker, as long as it takes more.
fn dispatch(runtime: &Runtime, key: ConnectionKey, buffer: &mut BytesMut) -> Result<(), CloseReason> {
    let limit_bytes = runtime.frame_limit_bytes();
    while !runtime.pause_if_full(key) {
        let Some(frame) = frame::split(buffer, limit_bytes)? else { return Ok(()) };
        runtime.frame(key, frame);
    }
    Ok(())
}

/// The beginning of a frame goes into the connection's own buffer, so that the shard's is free.
fn move_rest(shared: &mut BytesMut, own: &mut BytesMut) {
    if shared.is_empty() {
        *own = BytesMut::new();
        return;
    }
    own.reserve(frame_bytes(shared).min(GROWTH_BYTES_MAX).max(shared.len()));
    own.extend_from_slice(shared);
    shared.advance(shared.len());
}
