//! Bytes of an outbox to a socket, without ever waiting: for the socket, for the device, or for
//! too long.
//!
//! Encoded bytes and spans under 32 KiB leave together in one `sendmsg`. Larger spans are
//! checked for residency in the page cache (`cachestat`) and sent with `sendfile` in steps of at
//! most 256 KiB, after a header sent with `MSG_MORE`. A span that is not in the page cache is
//! left to a helper, which brings it there.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, sendmsg};
use smallvec::SmallVec;

use super::files::read_no_wait;
use crate::effect::ByteSpan;
use crate::request::{Chunk, Outbox};

/// A span below this is copied into the message instead of sent from the file.
const COPY_BELOW_BYTES: u64 = 32 * 1024;
/// One `sendfile`, and one turn of a connection.
const STEP_BYTES: u64 = 256 * 1024;
/// Encoded bytes and small spans gathered for one `sendmsg`.
const GATHER_BYTES: usize = 256 * 1024;

/// How far an outbox came.
#[derive(Debug)]
pub(super) enum Sent {
    /// Everything is sent.
    All,
    /// The socket takes no more until it is writable.
    Blocked,
    /// This turn's share is used up; there is more.
    Yield,
    /// The next span is not in the page cache.
    Cold { file: Arc<OwnedFd>, position: u64, length: u64 },
    /// The connection is gone, or a response cannot be finished.
    Failed,
}

/// Sends what can be sent now. `warmed` says that a helper has just brought the first span into
/// the page cache: it is sent whatever the kernel says of it.
pub(super) fn send(socket: &OwnedFd, outbox: &mut Outbox, warmed: bool) -> Sent {
    if let Some(plain) = outbox.plain() {
        return send_plain(socket, plain);
    }
    let mut gathered = Gathered::new();
    let mut gathered_bytes = 0;
    while let Some(chunk) = outbox.pop() {
        match small(chunk) {
            Ok(Gather::Piece(piece)) => {
                gathered_bytes += piece.bytes.len();
                gathered.push(piece);
                if gathered_bytes >= GATHER_BYTES {
                    return match send_gathered(socket, outbox, gathered, MsgFlags::empty()) {
                        Sent::All => Sent::Yield,
                        other => other,
                    };
                }
            }
            Ok(Gather::File { file, position, length }) => {
                let resident = warmed || is_resident(&file, position, length.min(STEP_BYTES));
                let (span_file, at) = (Arc::clone(&file), position);
                outbox.unpop(Chunk::Span(ByteSpan::File { file, position, length }));
                // The header leaves with MSG_MORE only when the records follow at once.
                let more = MsgFlags::from_bits_retain(libc::MSG_MORE);
                let flags = if resident { more } else { MsgFlags::empty() };
                return match send_gathered(socket, outbox, gathered, flags) {
                    Sent::All if resident => send_step(socket, outbox),
                    Sent::All => {
                        Sent::Cold { file: span_file, position: at, length: length.min(4 * STEP_BYTES) }
                    }
                    other => other,
                };
            }
            Err(()) => return Sent::Failed,
        }
    }
    send_gathered(socket, outbox, gathered, MsgFlags::empty())
}

/// Bytes on their way into one message.
struct Piece {
    bytes: Bytes,
    /// The file that they were read from, and where they end in it.
    from: Option<(Arc<OwnedFd>, u64)>,
}

type Gathered = SmallVec<[Piece; 8]>;

impl Piece {
    /// What was not sent, as the outbox keeps it: a client that does not read holds no memory for
    /// bytes that lie in a file.
    fn into_chunk(self) -> Chunk {
        let length = self.bytes.len() as u64;
        match self.from {
            Some((file, end)) => Chunk::Span(ByteSpan::File { file, position: end - length, length }),
            None => Chunk::Bytes(self.bytes),
        }
    }
}

enum Gather {
    Piece(Piece),
    File { file: Arc<OwnedFd>, position: u64, length: u64 },
}

/// A chunk as bytes if it is small and at hand, else the file range. An error is a span that ends
/// before it should: its response can never be finished.
fn small(chunk: Chunk) -> Result<Gather, ()> {
    let span = match chunk {
        Chunk::Bytes(bytes) | Chunk::Span(ByteSpan::Memory(bytes)) => {
            return Ok(Gather::Piece(Piece { bytes, from: None }));
        }
        Chunk::Span(span) => span,
    };
    let ByteSpan::File { file, position, length } = span else { return Err(()) };
    if length < COPY_BELOW_BYTES {
        let mut bytes = BytesMut::zeroed(length as usize);
        match read_no_wait(&file, position, &mut bytes) {
            Some(count) if count == bytes.len() => {
                let from = Some((file, position + length));
                return Ok(Gather::Piece(Piece { bytes: bytes.freeze(), from }));
            }
            Some(0) => return Err(()),
            _ => {}
        }
    }
    Ok(Gather::File { file, position, length })
}

fn send_plain(socket: &OwnedFd, bytes: &mut BytesMut) -> Sent {
    while !bytes.is_empty() {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match nix::sys::socket::send(socket.as_raw_fd(), bytes, flags) {
            Ok(count) if count == bytes.len() => bytes.clear(),
            Ok(count) => bytes.advance(count),
            Err(Errno::EAGAIN) => return Sent::Blocked,
            Err(Errno::EINTR) => {}
            Err(_) => return Sent::Failed,
        }
    }
    Sent::All
}

/// Sends all gathered bytes; what does not fit goes back to the front of the outbox.
fn send_gathered(socket: &OwnedFd, outbox: &mut Outbox, mut gathered: Gathered, flags: MsgFlags) -> Sent {
    let flags = flags | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let mut first = 0;
    while first < gathered.len() {
        let slices = gathered.iter().skip(first).take(512).map(|piece| IoSlice::new(&piece.bytes));
        let slices: SmallVec<[IoSlice; 8]> = slices.collect();
        let result = sendmsg::<()>(socket.as_raw_fd(), &slices, &[], flags, None);
        drop(slices);
        let mut sent = match result {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => {
                for piece in gathered.drain(first..).rev() {
                    outbox.unpop(piece.into_chunk());
                }
                return Sent::Blocked;
            }
            Err(_) => return Sent::Failed,
        };
        while let Some(piece) = gathered.get_mut(first) {
            if sent < piece.bytes.len() {
                piece.bytes.advance(sent);
                break;
            }
            sent -= piece.bytes.len();
            first += 1;
        }
    }
    Sent::All
}

/// One `sendfile` from the span at the front.
fn send_step(socket: &OwnedFd, outbox: &mut Outbox) -> Sent {
    let Some(Chunk::Span(ByteSpan::File { file, position, length })) = outbox.pop() else {
        return Sent::Failed;
    };
    let step = length.min(STEP_BYTES);
    let mut offset = position as libc::off_t;
    // SAFETY: both descriptors are open for the length of the call; the offset is a local.
    let count = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &mut offset, step as usize) };
    let (sent, outcome) = match count {
        0 => return Sent::Failed,
        count if count > 0 => (count as u64, if (count as u64) < step { Sent::Blocked } else { Sent::Yield }),
        _ => match Errno::last() {
            Errno::EAGAIN => (0, Sent::Blocked),
            Errno::EINTR => (0, Sent::Yield),
            _ => return Sent::Failed,
        },
    };
    if sent < length {
        let (position, length) = (position + sent, length - sent);
        outbox.unpop(Chunk::Span(ByteSpan::File { file, position, length }));
    } else if outbox.is_empty() {
        return Sent::All;
    }
    outcome
}

/// `struct cachestat_range` and `struct cachestat` of Linux 6.5.
#[repr(C)]
struct CacheRange {
    offset: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

const SYS_CACHESTAT: libc::c_long = 451;
static CACHESTAT_MISSING: AtomicBool = AtomicBool::new(false);

/// Whether every page of the range is in the page cache. On kernels without `cachestat` the first
/// and the last byte stand for the range.
fn is_resident(file: &OwnedFd, position: u64, length: u64) -> bool {
    if !CACHESTAT_MISSING.load(Ordering::Relaxed) {
        let range = CacheRange { offset: position, length };
        let mut stat = CacheStat::default();
        // SAFETY: both structs have the kernel's layout and outlive the call; flags are 0.
        let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &range, &mut stat, 0) };
        if result == 0 {
            let page = 4096;
            let pages = (position + length).div_ceil(page) - position / page;
            return stat.cached >= pages;
        }
        CACHESTAT_MISSING.store(Errno::last() == Errno::ENOSYS, Ordering::Relaxed);
    }
    let probe = |at: u64| read_no_wait(file, at, &mut [0]) == Some(1);
    probe(position) && probe(position + length.max(1) - 1)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn drain(socket: &OwnedFd, reader: &mut UnixStream, outbox: &mut Outbox) -> Vec<u8> {
        let mut received = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let sent = send(socket, outbox, true);
            reader.set_nonblocking(true).unwrap();
            while let Ok(count) = reader.read(&mut buffer) {
                received.extend_from_slice(&buffer[..count]);
            }
            match sent {
                Sent::All => return received,
                Sent::Failed => panic!("the socket is open and the file whole"),
                _ => {}
            }
        }
    }

    #[test]
    fn bytes_and_spans_of_all_sizes_arrive_in_order() {
        let mut file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..1_500_000u32).map(|n| (n % 251) as u8).collect();
        file.write_all(&data).unwrap();
        let file = Arc::new(OwnedFd::from(file));
        let (left, mut right) = UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        let left = OwnedFd::from(left);
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(b"headnext");
        let span = |position, length| ByteSpan::File { file: Arc::clone(&file), position, length };
        outbox.lay_spans([(4, span(7, 1_400_000)), (4, span(3, 100)), (8, span(0, 40_000))].into_iter());
        outbox.buffer().extend_from_slice(b"end");
        let mut expected = b"head".to_vec();
        expected.extend_from_slice(&data[7..1_400_007]);
        expected.extend_from_slice(&data[3..103]);
        expected.extend_from_slice(b"next");
        expected.extend_from_slice(&data[..40_000]);
        expected.extend_from_slice(b"end");
        assert!(drain(&left, &mut right, &mut outbox) == expected);
    }

    #[test]
    fn a_span_past_the_end_of_its_file_fails_the_connection() {
        let file = Arc::new(OwnedFd::from(tempfile::tempfile().unwrap()));
        let (left, _right) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::default();
        outbox.lay_spans([(0, ByteSpan::File { file, position: 0, length: 100_000 })].into_iter());
        assert!(matches!(send(&OwnedFd::from(left), &mut outbox, true), Sent::Failed));
    }
}
