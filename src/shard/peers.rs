//! Connections that this shard makes to other nodes: dialled, written and read as the broker asks
//! (`Output::Dial`, `Output::LinkSend`, `Output::LinkClose`).
//!
//! A link's task dials, then waits on its socket. Frames are split off the shard's receive buffer where they are
//! small. A large one, as the answer to a follower's fetch is, is known after its first bytes: it gets one buffer of
//! its own length and is received straight into that, so its records are where they stay until they are written.
//!
//! Memory: what is being received on links is bounded beside what connections hold ([`Links::new`]), and has to be:
//! clients wait for followers, so their requests must not keep the answers out that they wait for.
//!
//! Names are looked up by threads of their own, since a name server may take seconds.

use std::cell::RefMut;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes, BytesMut};
use glommio::io::{PollState, PollableFd};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{self, Ended};
use super::listener::let_survive_cuts;
use super::runtime::Runtime;
use crate::broker::{LinkId, LinkLoss};
use crate::wire::frame::PREFIX_BYTES;

/// The first bytes of what comes are received into the shard's buffer: whole small frames, and the beginning of a
/// large one.
const FRONT_BYTES: usize = 8 * 1024;
/// The shard's receive buffer is taken in blocks of this size.
const BLOCK_BYTES: usize = 256 * 1024;
/// Bytes taken off one link before others have their turn.
const TURN_BYTES: usize = 1024 * 1024;
/// Names that a shard looks up at the same time; a dial beyond that fails.
const LOOKUPS_MAX: usize = 8;

/// What happens to a link.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Up,
    Down(LinkLoss),
    /// Without its prefix.
    Frame(Bytes),
}

/// Whose links they are.
pub(super) trait LinkHome: 'static {
    fn links(&self) -> RefMut<'_, Links>;
    fn happened(&self, link: LinkId, event: LinkEvent);
    /// The shard's receive buffer, with room for one `recv`.
    fn take_buffer(&self) -> BytesMut;
    fn give_buffer(&self, buffer: BytesMut);
}

impl LinkHome for Runtime {
    fn links(&self) -> RefMut<'_, Links> {
        RefMut::map(self.state(), |state| &mut state.links)
    }

    fn happened(&self, link: LinkId, event: LinkEvent) {
        let (now, mut state) = (self.clock.now(), self.state());
        let core = &mut state.core;
        match event {
            LinkEvent::Up => core.link_up(now, link),
            LinkEvent::Down(loss) => core.link_down(now, link, loss),
            LinkEvent::Frame(frame) => core.link_frame(now, link, frame),
        }
        self.bell.ring();
    }

    fn take_buffer(&self) -> BytesMut {
        self.take_receive_buffer(BLOCK_BYTES)
    }

    fn give_buffer(&self, buffer: BytesMut) {
        self.give_receive_buffer(buffer);
    }
}

/// One link that is being dialled or is up.
#[derive(Debug)]
struct Open {
    /// Tells the connections that the link has had apart.
    number: u64,
    fd: Option<Rc<PollableFd<OwnedFd>>>,
    unsent: VecDeque<Bytes>,
    /// Its socket takes no more for now.
    blocked: bool,
    /// Sending has failed.
    failed: Option<LinkLoss>,
    /// Bytes of the large frame that is being received.
    reserved_bytes: usize,
    /// It waits for room for a large frame.
    waits: bool,
    waker: Option<Waker>,
}

impl Open {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A shard's connections to other nodes.
#[derive(Debug)]
pub(super) struct Links {
    open: BTreeMap<LinkId, Open>,
    number_next: u64,
    frame_bytes_max: usize,
    /// Large frames that are being received, in bytes, and the most that they may be together.
    reserved_bytes: usize,
    reserved_bytes_max: usize,
    waiting: VecDeque<LinkId>,
    lookups: Arc<AtomicUsize>,
}

impl Links {
    /// None yet. A frame may be as large as `frame_bytes_max`; all that are being received together take
    /// `receiving_bytes_max`, or one is received alone.
    pub fn new(frame_bytes_max: usize, receiving_bytes_max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            number_next: 0,
            frame_bytes_max,
            reserved_bytes: 0,
            reserved_bytes_max: receiving_bytes_max,
            waiting: VecDeque::new(),
            lookups: Arc::default(),
        }
    }

    /// A link is dialled: what its task is to know it by.
    pub fn begin(&mut self, link: LinkId) -> u64 {
        self.close(link);
        self.number_next += 1;
        let number = self.number_next;
        let open = Open {
            number,
            fd: None,
            unsent: VecDeque::new(),
            blocked: false,
            failed: None,
            reserved_bytes: 0,
            waits: false,
            waker: None,
        };
        self.open.insert(link, open);
        number
    }

    /// Sends a frame behind the earlier ones.
    pub fn send(&mut self, link: LinkId, frame: Bytes) {
        if let Some(open) = self.open.get_mut(&link) {
            open.unsent.push_back(frame);
            open.flush();
        }
    }

    /// A link is wanted no more. Its task ends without a word.
    pub fn close(&mut self, link: LinkId) {
        if let Some(mut open) = self.open.remove(&link) {
            self.reserved_bytes -= open.reserved_bytes;
            open.wake();
            self.wake_waiting();
        }
    }

    fn find(&mut self, link: LinkId, number: u64) -> Option<&mut Open> {
        self.open.get_mut(&link).filter(|open| open.number == number)
    }

    /// Whether a large frame of so many bytes may be received now; if not, the link waits for room.
    fn reserve(&mut self, link: LinkId, number: u64, bytes: usize) -> bool {
        let fits = self.reserved_bytes == 0 || self.reserved_bytes + bytes <= self.reserved_bytes_max;
        let Some(open) = self.open.get_mut(&link).filter(|open| open.number == number) else { return false };
        if fits {
            open.reserved_bytes = bytes;
            self.reserved_bytes += bytes;
        } else {
            open.waits = true;
            self.waiting.push_back(link);
        }
        fits
    }

    /// A large frame is handed over.
    fn release(&mut self, link: LinkId, number: u64) {
        if let Some(open) = self.find(link, number) {
            let bytes = std::mem::take(&mut open.reserved_bytes);
            self.reserved_bytes -= bytes;
            self.wake_waiting();
        }
    }

    fn wake_waiting(&mut self) {
        for link in std::mem::take(&mut self.waiting) {
            if let Some(open) = self.open.get_mut(&link) {
                open.waits = false;
                open.wake();
            }
        }
    }
}

impl Open {
    /// Sends what can be sent without waiting.
    fn flush(&mut self) {
        let Some(fd) = &self.fd else { return };
        while let Some(front) = self.unsent.front_mut().filter(|_| !self.blocked && self.failed.is_none()) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match nix::sys::socket::send(fd.get_ref().as_raw_fd(), front, flags) {
                Ok(count) if count >= front.len() => drop(self.unsent.pop_front()),
                Ok(count) => front.advance(count),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.blocked = true,
                Err(errno) => self.failed = Some(loss_of(errno)),
            }
        }
        if self.blocked || self.failed.is_some() {
            // Its task waits until the socket is writable, or ends.
            self.wake();
        }
    }
}

/// What an error of a socket says of the other side.
fn loss_of(errno: Errno) -> LinkLoss {
    match errno {
        Errno::ECONNREFUSED => LinkLoss::Refused,
        Errno::ECONNRESET | Errno::EPIPE => LinkLoss::Reset,
        _ => LinkLoss::Timeout,
    }
}

/// Dials a link and serves it until it ends, or is not wanted any more.
pub(super) async fn run<H: LinkHome>(home: Rc<H>, link: LinkId, number: u64, host: Arc<str>, port: u16) {
    let loss = match dial(&*home, link, number, &host, port).await {
        Err(loss) => loss,
        Ok(fd) => {
            let fd = Rc::new(fd);
            match home.links().find(link, number) {
                Some(open) => open.fd = Some(Rc::clone(&fd)),
                None => return,
            }
            home.happened(link, LinkEvent::Up);
            serve(&*home, link, number, &fd).await
        }
    };
    let is_wanted = home.links().find(link, number).is_some();
    if is_wanted {
        home.links().close(link);
        home.happened(link, LinkEvent::Down(loss));
    }
}

/// Connects to the first address that takes it.
async fn dial(
    home: &impl LinkHome,
    link: LinkId,
    number: u64,
    host: &Arc<str>,
    port: u16,
) -> Result<PollableFd<OwnedFd>, LinkLoss> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => look_up(home, link, number, host, port).await.ok_or(LinkLoss::Timeout)?,
    };
    let mut loss = LinkLoss::Timeout;
    for address in addresses {
        match connect(home, link, number, address).await {
            Ok(fd) => return Ok(fd),
            // One that is refused says more than one that cannot be reached.
            Err(LinkLoss::Refused) => loss = LinkLoss::Refused,
            Err(_) => {}
        }
    }
    Err(loss)
}

async fn connect(
    home: &impl LinkHome,
    link: LinkId,
    number: u64,
    address: SocketAddr,
) -> Result<PollableFd<OwnedFd>, LinkLoss> {
    let failed = |error: std::io::Error| loss_of(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    // Best effort, as on accepted connections.
    let _ = (socket.set_tcp_nodelay(true), socket.set_keepalive(true));
    let_survive_cuts(&socket);
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(failed(error)),
        _ => {}
    }
    let fd = PollableFd::new(OwnedFd::from(socket)).map_err(|_| LinkLoss::Timeout)?;
    let mut writing = PollState::new();
    poll_fn(|context| {
        let mut links = home.links();
        let Some(open) = links.find(link, number) else { return Poll::Ready(()) };
        open.waker = Some(context.waker().clone());
        fd.poll_writable(context, &mut writing).map(|_| ())
    })
    .await;
    drop(writing);
    match getsockopt(fd.get_ref(), sockopt::SocketError) {
        Ok(0) => Ok(fd),
        Ok(errno) => Err(loss_of(Errno::from_raw(errno))),
        Err(errno) => Err(loss_of(errno)),
    }
}

/// A name that is being looked up, and who waits for it.
#[derive(Debug, Default)]
struct Lookup {
    found: Mutex<Option<Option<Vec<SocketAddr>>>>,
    waker: AtomicWaker,
}

/// The addresses of a name; `None` if it has none, or too many names are being looked up.
async fn look_up(
    home: &impl LinkHome,
    link: LinkId,
    number: u64,
    host: &Arc<str>,
    port: u16,
) -> Option<Vec<SocketAddr>> {
    let lookups = Arc::clone(&home.links().lookups);
    if lookups.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
        lookups.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    let lookup = Arc::new(Lookup::default());
    let (asked, host, counted) = (Arc::clone(&lookup), Arc::clone(host), Arc::clone(&lookups));
    let spawned = std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        let found = (&*host, port).to_socket_addrs().ok().map(Iterator::collect);
        *asked.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        counted.fetch_sub(1, Ordering::Relaxed);
        asked.waker.wake();
    });
    if spawned.is_err() {
        lookups.fetch_sub(1, Ordering::Relaxed);
        return None;
    }
    poll_fn(|context| {
        match home.links().find(link, number) {
            Some(open) => open.waker = Some(context.waker().clone()),
            None => return Poll::Ready(None),
        }
        lookup.waker.register(context.waker());
        match lookup.found.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(found) => Poll::Ready(found),
            None => Poll::Pending,
        }
    })
    .await
}

/// Why a link's task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Readable,
    Writable,
    /// Nobody wants the link any more, or it has failed.
    Ended(LinkLoss),
}

async fn serve(home: &impl LinkHome, link: LinkId, number: u64, fd: &PollableFd<OwnedFd>) -> LinkLoss {
    let (mut reading, mut writing) = (PollState::new(), PollState::new());
    let mut own = BytesMut::new();
    loop {
        match next_wake(home, link, number, fd, &mut reading, &mut writing).await {
            Wake::Readable => {
                reading = PollState::new();
                if let Err(loss) = receive(home, link, number, fd, &mut own) {
                    return loss;
                }
            }
            Wake::Writable => {
                writing = PollState::new();
                if let Some(open) = home.links().find(link, number) {
                    open.blocked = false;
                    open.flush();
                }
            }
            Wake::Ended(loss) => return loss,
        }
    }
}

async fn next_wake(
    home: &impl LinkHome,
    link: LinkId,
    number: u64,
    fd: &PollableFd<OwnedFd>,
    reading: &mut PollState,
    writing: &mut PollState,
) -> Wake {
    poll_fn(|context| {
        let (blocked, waits) = {
            let mut links = home.links();
            let Some(open) = links.find(link, number) else {
                return Poll::Ready(Wake::Ended(LinkLoss::Closed));
            };
            if let Some(loss) = open.failed {
                return Poll::Ready(Wake::Ended(loss));
            }
            open.waker = Some(context.waker().clone());
            (open.blocked, open.waits)
        };
        if blocked && fd.poll_writable(context, writing).is_ready() {
            return Poll::Ready(Wake::Writable);
        }
        if !waits && fd.poll_readable(context, reading).is_ready() {
            return Poll::Ready(Wake::Readable);
        }
        Poll::Pending
    })
    .await
}

/// Takes what the socket has, and hands over every whole frame.
fn receive(
    home: &impl LinkHome,
    link: LinkId,
    number: u64,
    fd: &PollableFd<OwnedFd>,
    own: &mut BytesMut,
) -> Result<(), LinkLoss> {
    let mut taken = 0;
    while taken < TURN_BYTES {
        let asked = match length_at_front(home, own)? {
            None if own.is_empty() => {
                let count = receive_front(home, link, number, fd, own)?;
                taken += count;
                // Less than was asked for means that the socket is empty.
                if count < FRONT_BYTES && own.is_empty() {
                    return Ok(());
                }
                continue;
            }
            None => PREFIX_BYTES - own.len(),
            Some(length) => {
                // Small parts of frames are not counted.
                let is_counted = home.links().find(link, number).is_none_or(|open| open.reserved_bytes > 0);
                if !is_counted && !home.links().reserve(link, number, length) {
                    return Ok(());
                }
                own.reserve(length - own.len());
                length - own.len()
            }
        };
        let count = received(connection::receive_into(fd, own, asked))?;
        taken += count;
        if length_at_front(home, own)? == Some(own.len()) {
            home.links().release(link, number);
            hand_over(home, link, std::mem::take(own));
        }
        if count < asked {
            return Ok(());
        }
    }
    Ok(())
}

/// Receives into the shard's buffer and hands over the whole frames. The beginning of one whose rest is on its way is
/// left in the link's own buffer.
fn receive_front(
    home: &impl LinkHome,
    link: LinkId,
    number: u64,
    fd: &PollableFd<OwnedFd>,
    own: &mut BytesMut,
) -> Result<usize, LinkLoss> {
    let mut shared = home.take_buffer();
    let count = connection::receive_into(fd, &mut shared, FRONT_BYTES);
    let mut frames = Vec::new();
    let split = loop {
        match length_at_front(home, &shared) {
            Ok(Some(length)) if length <= shared.len() => frames.push(shared.split_to(length)),
            Ok(_) => break Ok(()),
            Err(loss) => break Err(loss),
        }
    };
    own.extend_from_slice(&shared);
    shared.clear();
    home.give_buffer(shared);
    for frame in frames {
        // What a frame says may close the link.
        if home.links().find(link, number).is_some() {
            hand_over(home, link, frame);
        }
    }
    split?;
    received(count)
}

fn received(count: Result<usize, Ended>) -> Result<usize, LinkLoss> {
    count.map_err(|ended| match ended {
        Ended::Closed => LinkLoss::Closed,
        Ended::Failed(errno) => loss_of(errno),
    })
}

fn hand_over(home: &impl LinkHome, link: LinkId, mut frame: BytesMut) {
    frame.advance(PREFIX_BYTES);
    home.happened(link, LinkEvent::Frame(frame.freeze()));
}

/// Bytes of the frame at the front with its prefix, as soon as that is there. A length that no answer has is nobody's
/// that this node knows.
fn length_at_front(home: &impl LinkHome, buffer: &[u8]) -> Result<Option<usize>, LinkLoss> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*prefix)).map_err(|_| LinkLoss::Reset)?;
    if length > home.links().frame_bytes_max {
        return Err(LinkLoss::Reset);
    }
    Ok(Some(PREFIX_BYTES + length))
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
