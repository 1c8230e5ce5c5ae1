//! Accepting connections, on the controller's shard, and handing each to the shard that has the
//! fewest. The kernel's port sharing would leave shards idle when there are few connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use glommio::io::PollableFd;
use nix::errno::Errno;
use nix::sys::socket::{SockFlag, accept4, setsockopt, sockopt};

use super::mesh::Parcel;
use super::runtime::Runtime;
use crate::config::NodeConfig;

/// Rest after the process has run out of descriptors.
const EXHAUSTED_REST: Duration = Duration::from_millis(100);
/// Connections accepted before others have their turn.
const ACCEPTS_PER_TURN: usize = 64;

/// What is asked of every connection.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    max: usize,
    max_per_ip: usize,
    overrides: BTreeMap<IpAddr, usize>,
    send_buffer_bytes: Option<usize>,
    receive_buffer_bytes: Option<usize>,
}

impl Terms {
    pub fn of(config: &NodeConfig) -> Self {
        let bytes = |value: Option<u32>| value.and_then(|value| usize::try_from(value).ok());
        let overrides = config.max_connections_per_ip_overrides.iter();
        Self {
            max: config.max_connections as usize,
            max_per_ip: config.max_connections_per_ip as usize,
            overrides: overrides
                .filter_map(|(host, max)| Some((host.parse().ok()?, *max as usize)))
                .collect(),
            send_buffer_bytes: bytes(config.socket_send_buffer_bytes),
            receive_buffer_bytes: bytes(config.socket_receive_buffer_bytes),
        }
    }

    fn per_ip(&self, ip: IpAddr) -> usize {
        self.overrides.get(&ip).copied().unwrap_or(self.max_per_ip)
    }
}

/// Accepts for ever.
pub(super) async fn listen(runtime: Rc<Runtime>, socket: OwnedFd, listener: usize, terms: Terms) {
    let Ok(socket) = PollableFd::new(socket) else { return };
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            match accept4(socket.as_raw_fd(), SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC) {
                Ok(accepted) => {
                    // SAFETY: the kernel has just given this descriptor to us alone.
                    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
                    welcome(&runtime, accepted, listener, &terms);
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    super::say("out of descriptors or memory for connections; accepting rests for a moment");
                    glommio::timer::sleep(EXHAUSTED_REST).await;
                    break;
                }
                Err(_) => {}
            }
        }
    }
}

fn welcome(runtime: &Rc<Runtime>, socket: OwnedFd, listener: usize, terms: &Terms) {
    let total: usize = runtime.common.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    if total >= terms.max || !per_ip_allows(&socket, terms) {
        return;
    }
    let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    let _ = setsockopt(&socket, sockopt::KeepAlive, &true);
    if let Some(bytes) = terms.send_buffer_bytes {
        let _ = setsockopt(&socket, sockopt::SndBuf, &bytes);
    }
    if let Some(bytes) = terms.receive_buffer_bytes {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &bytes);
    }
    let counts = (0u16..).zip(&runtime.common.connections);
    let fewest = counts.min_by_key(|(_, count)| count.load(Ordering::Relaxed));
    let Some((shard, count)) = fewest else { return };
    count.fetch_add(1, Ordering::Relaxed);
    if shard == 0 {
        return runtime.adopt(socket, listener);
    }
    runtime.state().mesh.send(shard, Parcel::Connection { socket, listener });
    runtime.bell.ring();
}

/// The per-address limit needs a count per address; it is only taken where a limit is set.
fn per_ip_allows(socket: &OwnedFd, terms: &Terms) -> bool {
    if terms.max_per_ip >= i32::MAX as usize && terms.overrides.is_empty() {
        return true;
    }
    let peer = nix::sys::socket::getpeername::<nix::sys::socket::SockaddrStorage>(socket.as_raw_fd());
    let ip = peer.ok().and_then(|peer| {
        let v4 = peer.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| peer.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    ip.is_none_or(|ip| terms.per_ip(ip) > 0)
}
