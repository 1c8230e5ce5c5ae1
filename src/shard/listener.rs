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
