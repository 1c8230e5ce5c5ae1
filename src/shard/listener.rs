//! Accepting connections, on the controller's shard, and handing each to the shard that has the
//! fewest. The kernel's port sharing would leave shards idle when there are few connections.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use glommio::io::PollableFd;
use nix::errno::Errno;
use nix::sys::socket::{SockFlag, accept4, setsockopt, sockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

use super::door::Door;
use super::mesh::Parcel;
use super::moves::{Arrival, Origin};
use super::runtime::Runtime;
use crate::config::NodeConfig;
use crate::request::RequestContext;
use crate::security::Principal;

/// Rest after the process has run out of descriptors.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);
/// Connections accepted before others have their turn: each takes the kernel some 30 µs, and whoever is served waits.
const ACCEPTS_PER_TURN: usize = 8;

/// What connections inherit from their listener: no delay, signs of life, and the kernel's buffers where the
/// configuration says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inherited {
    send_bytes: Option<usize>,
    receive_bytes: Option<usize>,
}

impl Inherited {
    pub fn of(config: &NodeConfig) -> Self {
        let bytes = |value: Option<u32>| value.and_then(|value| usize::try_from(value).ok());
        Self {
            send_bytes: bytes(config.socket_send_buffer_bytes),
            receive_bytes: bytes(config.socket_receive_buffer_bytes),
        }
    }

    /// Makes a listener's connections have it: no system calls for each of them, and only before the handshake
    /// does the receive buffer decide the window.
    pub fn give(self, socket: &impl std::os::fd::AsFd) {
        let _ = setsockopt(socket, sockopt::TcpNoDelay, &true);
        let _ = setsockopt(socket, sockopt::KeepAlive, &true);
        if let Some(bytes) = self.send_bytes {
            let _ = setsockopt(socket, sockopt::SndBuf, &bytes);
        }
        if let Some(bytes) = self.receive_bytes {
            let _ = setsockopt(socket, sockopt::RcvBuf, &bytes);
        }
    }
}

/// From `linux/tcp.h`; the libraries do not know it yet.
const TCP_RTO_MAX_MS: libc::c_int = 44;

sockopt_impl!(
    /// The longest time until the kernel sends again, in milliseconds (Linux 6.15).
    TcpRtoMaxMs,
    Both,
    libc::IPPROTO_TCP,
    TCP_RTO_MAX_MS,
    u32
);

/// How often at least the kernel sends again what another node has not acknowledged.
const RESEND_MS_MAX: u32 = 1000;

/// How long it does: as long as a follower waits for an answer (`replica.socket.timeout.ms` by default).
const RESEND_MS_IN_ALL: u32 = 30_000;

/// Makes a connection between nodes go on within a second after a cut. The kernel doubles the time until it sends
/// again each time, so that a connection would stand still for as long again as the cut took, and with it whoever waits
/// for a replica there. Best effort: older kernels do not know it.
pub(super) fn let_survive_cuts(socket: &impl std::os::fd::AsFd) {
    // With the short times the kernel would give up after some 13 s.
    if setsockopt(socket, TcpRtoMaxMs, &RESEND_MS_MAX).is_ok() {
        let _ = setsockopt(socket, sockopt::TcpUserTimeout, &RESEND_MS_IN_ALL);
    }
}

/// Accepts for ever.
pub(super) async fn listen(runtime: Rc<Runtime>, socket: OwnedFd, listener: usize, door: Rc<RefCell<Door>>) {
    let Ok(socket) = PollableFd::new(socket) else { return };
    let mut exhausted = false;
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let wait_ms = door.borrow_mut().wait_ms(runtime.clock.now().mono_ms);
            if let Some(wait_ms) = wait_ms {
                glommio::timer::sleep(Duration::from_millis(wait_ms)).await;
                break;
            }
            match accept4(socket.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
                Ok(accepted) => {
                    exhausted = false;
                    // SAFETY: the kernel has just given this descriptor to us alone.
                    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
                    welcome(&runtime, accepted, listener, &door);
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    if !std::mem::replace(&mut exhausted, true) {
                        super::say("out of descriptors or memory: new connections wait until there are some");
                    }
                    glommio::timer::sleep(EXHAUSTED_REST).await;
                    break;
                }
                Err(_) => {}
            }
        }
    }
}

fn welcome(runtime: &Rc<Runtime>, socket: OwnedFd, listener: usize, door: &RefCell<Door>) {
    let mut door = door.borrow_mut();
    let peer = peer(&socket);
    // Also where no address has a limit: one may be set while the connection is open.
    let Some(seat) = door.seat(peer) else {
        return runtime.state().counters.refused();
    };
    drop(door);
    let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.to_canonical());
    let context = RequestContext { listener, peer, principal: Principal::Anonymous };
    let shard = seat.shard();
    let arrival = Arrival { socket, seat, origin: Origin::Listener(context) };
    if shard == 0 {
        return runtime.adopt(arrival);
    }
    runtime.state().mesh.send(shard, Parcel::Connection(Box::new(arrival)));
    runtime.bell.ring();
}

fn peer(socket: &OwnedFd) -> Option<IpAddr> {
    let peer = nix::sys::socket::getpeername::<nix::sys::socket::SockaddrStorage>(socket.as_raw_fd()).ok()?;
    let v4 = peer.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| peer.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn a_connection_between_nodes_is_tried_again_every_second_for_half_a_minute() {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        // Kernels before 6.15 do not know the one, and keep the other as it is.
        let knows = getsockopt(&socket, TcpRtoMaxMs).is_ok();
        let_survive_cuts(&socket);
        assert_eq!(getsockopt(&socket, TcpRtoMaxMs).ok(), knows.then_some(RESEND_MS_MAX));
        let given_up_ms = if knows { RESEND_MS_IN_ALL } else { 0 };
        assert_eq!(getsockopt(&socket, sockopt::TcpUserTimeout), Ok(given_up_ms));
    }
}
