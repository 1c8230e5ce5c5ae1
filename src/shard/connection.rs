//! One connection: bytes off its socket into frames, and its outbox onto the socket.
//!
//! A connection that is idle holds no buffer: bytes are received into the shard's buffer, frames
//! are slices of it, and only the beginning of a frame whose rest is still on its way is moved
//! into a buffer of the connection's own, which grows as bytes arrive.

use std::future::poll_fn;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use glommio::io::{PollState, PollableFd};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use super::intake::RECEIVE_BYTES;
use super::runtime::Runtime;
use crate::broker::ConnectionKey;
use crate::request::CloseReason;
use crate::wire::{WireError, frame};

/// The shard's receive buffer is taken in blocks of this size.
const BLOCK_BYTES: usize = 256 * 1024;
/// A frame's own buffer grows by at most this much at a time.
const GROWTH_BYTES_MAX: usize = 1024 * 1024;
/// And to at most so many times what has arrived.
const GROWTH_FACTOR: usize = 16;
/// Bytes taken off one socket before the others have their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// Why the task of a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Readable,
    Writable,
    Poked,
    /// The receive queue is to be emptied though nothing of it can be served.
    Draining,
    Closing(CloseReason),
}

/// Serves a connection until it is closed or goes to another shard. `own` is what was received of it and not yet taken.
pub(super) async fn serve(
    runtime: Rc<Runtime>,
    key: ConnectionKey,
    fd: Rc<PollableFd<OwnedFd>>,
    mut own: BytesMut,
) {
    let (mut reading, mut writing) = (PollState::new(), PollState::new());
    let reason = loop {
        match next_event(&runtime, key, &fd, &mut reading, &mut writing).await {
            Event::Readable => {
                reading = PollState::new();
                let started = Instant::now();
                let received = receive(&runtime, key, &fd, &mut own);
                runtime.state().counters.took("reading a connection", started.elapsed());
                if let Err(reason) = received {
                    break reason;
                }
            }
            Event::Writable => {
                writing = PollState::new();
                runtime.writable(key);
            }
            Event::Poked => {
                runtime.flush(key);
                if let Some(to) = runtime.departure(key) {
                    drop((reading, writing));
                    return runtime.send_off(key, to, fd, own);
                }
                if !own.is_empty()
                    && let Err(reason) = go_on(&runtime, key, &mut own)
                {
                    break reason;
                }
            }
            Event::Draining => {
                if let Err(reason) = drain(&runtime, key, &fd, &mut own) {
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
            if std::mem::take(&mut socket.draining) {
                return Poll::Ready(Event::Draining);
            }
            match &mut socket.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            (socket.blocked_since_ms.is_some(), socket.pause.is_some())
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
        let (count, asked) = if own.is_empty() {
            if !runtime.may_receive(key) {
                return Ok(());
            }
            receive_shared(runtime, key, fd, own)?
        } else {
            let asked = match frame::front(own, runtime.frame_limit_bytes(key))? {
                Some(front) => {
                    let step = front.length_bytes.saturating_sub(own.len()).min(GROWTH_BYTES_MAX);
                    if step > 0 && !runtime.may_grow(key, front, step) {
                        return Ok(());
                    }
                    step
                }
                None => frame::FRONT_BYTES.saturating_sub(own.len()),
            };
            let count = if asked == 0 { 0 } else { receive_into(fd, own, asked)? };
            go_on(runtime, key, own)?;
            (count, asked)
        };
        taken += count;
        // Less than was asked for means that the socket is empty.
        if count < asked || taken >= TURN_BYTES || runtime.is_paused(key) {
            return Ok(());
        }
    }
}

/// Receives into the shard's buffer. The beginning of a frame whose rest is on its way, and what
/// cannot be admitted now, goes into the connection's own buffer, so that the shard's is free.
fn receive_shared(
    runtime: &Runtime,
    key: ConnectionKey,
    fd: &PollableFd<OwnedFd>,
    own: &mut BytesMut,
) -> Result<(usize, usize), CloseReason> {
    let mut shared = runtime.take_receive_buffer(BLOCK_BYTES);
    let received = receive_into(fd, &mut shared, RECEIVE_BYTES).map_err(CloseReason::from);
    let dispatched = received.and_then(|count| dispatch(runtime, key, &mut shared).map(|()| count));
    if !shared.is_empty() {
        let wanted = frame_bytes(&shared).min(growth_max(shared.len())).max(shared.len());
        *own = BytesMut::with_capacity(wanted);
        own.extend_from_slice(&shared);
        shared.clear();
    }
    runtime.give_receive_buffer(shared);
    runtime.note_buffer(key, own.len());
    Ok((dispatched?, RECEIVE_BYTES))
}

/// Takes what the socket has received into the connection's own buffer, a receive queue at most.
fn drain(
    runtime: &Runtime,
    key: ConnectionKey,
    fd: &PollableFd<OwnedFd>,
    own: &mut BytesMut,
) -> Result<(), CloseReason> {
    while runtime.may_drain(key) {
        own.reserve(RECEIVE_BYTES);
        let count = receive_into(fd, own, RECEIVE_BYTES)?;
        runtime.note_buffer(key, own.len());
        if count < RECEIVE_BYTES {
            break;
        }
    }
    Ok(())
}

/// Dispatches what the connection's own buffer holds, and lets go of it when nothing is left: an
/// idle connection keeps no memory of its last frame.
fn go_on(runtime: &Runtime, key: ConnectionKey, own: &mut BytesMut) -> Result<(), CloseReason> {
    let dispatched = dispatch(runtime, key, own);
    if own.is_empty() {
        *own = BytesMut::new();
    }
    runtime.note_buffer(key, own.len());
    dispatched
}

/// What the frame at the front takes when it is all there; a `recv` where that is not known yet.
fn frame_bytes(buffer: &[u8]) -> usize {
    frame::length_at_front(buffer, u32::MAX >> 1).ok().flatten().unwrap_or(RECEIVE_BYTES)
}

/// How large a buffer may be that holds so many bytes of a frame: memory follows what has arrived,
/// never what a length promises.
fn growth_max(arrived_bytes: usize) -> usize {
    (arrived_bytes * GROWTH_FACTOR).min(arrived_bytes + GROWTH_BYTES_MAX)
}

/// How the bytes of a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The other side closed it.
    Closed,
    /// It failed.
    Failed(Errno),
}

impl From<Ended> for CloseReason {
    fn from(_: Ended) -> Self {
        Self::Peer
    }
}

/// One `recv` of at most `asked` bytes into the spare room, which is made where there is none;
/// 0 bytes means the socket had none after all.
pub(super) fn receive_into(
    fd: &PollableFd<OwnedFd>,
    buffer: &mut BytesMut,
    asked: usize,
) -> Result<usize, Ended> {
    if buffer.capacity() == buffer.len() {
        let room = growth_max(buffer.len()).saturating_sub(buffer.len()).max(frame::FRONT_BYTES);
        buffer.reserve(frame_bytes(buffer).saturating_sub(buffer.len()).clamp(frame::FRONT_BYTES, room));
    }
    let spare = buffer.spare_capacity_mut();
    let length = spare.len().min(asked);
    let flags = MsgFlags::MSG_DONTWAIT;
    loop {
        // SAFETY: the pointer is that of the buffer's spare room, which has at least `length`
        // bytes; the kernel writes at most that many, and `count` of them are then initialised.
        let count = unsafe { libc::recv(fd.as_raw_fd(), spare.as_mut_ptr().cast(), length, flags.bits()) };
        match usize::try_from(count) {
            Ok(0) => return Err(Ended::Closed),
            Ok(count) => {
                // SAFETY: `recv` initialised `count` bytes behind the buffer's length.
                unsafe { buffer.set_len(buffer.len() + count) };
                return Ok(count);
            }
            Err(_) => match Errno::last() {
                Errno::EAGAIN => return Ok(0),
                Errno::EINTR => {}
                errno => return Err(Ended::Failed(errno)),
            },
        }
    }
}

/// Hands every whole frame that is admitted to the broker.
fn dispatch(runtime: &Runtime, key: ConnectionKey, buffer: &mut BytesMut) -> Result<(), CloseReason> {
    let limit_bytes = runtime.frame_limit_bytes(key);
    loop {
        let front = match frame::front(buffer, limit_bytes) {
            // Its front is enough for the broker, which says who is refused, and closes.
            Err(WireError::ApiUnknown { .. }) => {
                runtime.frame(key, frame::take_front(buffer));
                buffer.clear();
                break;
            }
            front => front?,
        };
        let Some(front) = front else { break };
        if buffer.len() < front.length_bytes || !runtime.admit(key, front) {
            break;
        }
        let Some(frame) = frame::take(buffer, front) else { break };
        runtime.frame(key, frame);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_with_what_has_arrived() {
        assert_eq!(growth_max(8), 128);
        assert_eq!(growth_max(RECEIVE_BYTES), 1 << 20);
        assert_eq!(growth_max(10 << 20), 11 << 20);
    }
}
