//! Connections that begin on this shard: from the listener, or from another shard that served them until now; and those
//! that go to another one.
//!
//! What goes is the descriptor, its seat, what the broker knows of it (`broker::Luggage`), and the bytes that were
//! received and not yet taken. It goes over the mesh like a message. The broker says when (`Shard::departure`); here
//! is only asked whether the other shard has room for it, and that not everybody goes at once: how busy the shards
//! are is known once a second.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use glommio::io::PollableFd;

use super::clock;
use super::connection;
use super::door::Seat;
use super::mesh::Parcel;
use super::runtime::{Common, Runtime, State};
use super::sockets::Socket;
use crate::broker::{ConnectionKey, Luggage};
use crate::controller::ShardId;
use crate::request::{RequestContext, has_room_for};

/// So many connections may go in a second, or a quarter of all.
const GO_MIN: usize = 8;
const GO_SHARE: usize = 4;
/// A shard that has not said for so long how busy it is, in milliseconds, had nothing to do.
const BUSY_KNOWN_MS: u64 = 3_000;

/// How busy a shard was in its last second with anything to do.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// When that was, in monotonic milliseconds, and thousandths of the time in the low ten bits.
    told: AtomicU64,
}

impl Busy {
    fn tell(&self, now_ms: u64, permille: u32) {
        self.told.store(now_ms << 10 | u64::from(permille.min(1_000)), Ordering::Relaxed);
    }

    fn permille(&self, now_ms: u64) -> u32 {
        let told = self.told.load(Ordering::Relaxed);
        if now_ms.saturating_sub(told >> 10) > BUSY_KNOWN_MS { 0 } else { (told & 0x3ff) as u32 }
    }
}

/// A connection on its way to the shard that serves it from now on.
#[derive(Debug)]
pub(super) struct Arrival {
    pub socket: OwnedFd,
    /// Its place among those that are counted.
    pub seat: Seat,
    pub origin: Origin,
}

/// Where a connection comes from.
#[derive(Debug)]
pub(super) enum Origin {
    /// It is new.
    Listener(RequestContext),
    /// Another shard has served it.
    Shard {
        luggage: Luggage,
        /// What was received and not yet taken.
        received: BytesMut,
        /// When the frame at the end of that began, and its length as far as it is known.
        frame: Option<(u64, u64)>,
    },
}

impl Runtime {
    /// Takes a connection on: from now on its task serves it.
    pub fn adopt(self: &Rc<Self>, arrival: Arrival) {
        let Arrival { socket, seat, origin } = arrival;
        let Ok(fd) = PollableFd::new(socket) else { return };
        let (fd, now) = (Rc::new(fd), self.clock.now());
        let mut state = self.state();
        let (key, received, frame) = match origin {
            Origin::Listener(context) => {
                state.counters.accepted += 1;
                state.share_descriptors(&self.common);
                (state.core.connect(context), BytesMut::new(), None)
            }
            Origin::Shard { luggage, received, frame } => (state.core.arrive(now, luggage), received, frame),
        };
        let at = key.slot as usize;
        if state.sockets.len() <= at {
            state.sockets.resize_with(at + 1, || None);
        }
        let mut socket = Socket::new(key, Rc::clone(&fd), seat, now.mono_ms);
        // It looks first at what came with it.
        socket.poked = !received.is_empty();
        if let Some(slot) = state.sockets.get_mut(at) {
            *slot = Some(socket);
        }
        drop(state);
        self.note_buffer(key, received.len());
        if let Some(socket) = self.state().socket(key) {
            socket.frame = frame;
        }
        glommio::spawn_local(connection::serve(Rc::clone(self), key, fd, received)).detach();
        // A shard that stops has said that it is to be closed.
        self.bell.ring();
    }

    /// Where a connection goes now, if it goes.
    pub fn departure(&self, key: ConnectionKey) -> Option<ShardId> {
        let state = &mut *self.state();
        let to = state.core.departure(key)?;
        let now_ms = self.clock.now().mono_ms;
        let busy =
            |shard: ShardId| self.common.busy.get(usize::from(shard.0)).map(|busy| busy.permille(now_ms));
        let has_room = busy(to).zip(busy(state.core.id())).is_some_and(|(to, home)| has_room_for(to, home));
        if has_room && state.may_go > 0 {
            state.may_go -= 1;
            return Some(to);
        }
        state.core.stay(key);
        None
    }

    /// Hands a connection whose departure was given to the other shard. Its task ends.
    pub fn send_off(&self, key: ConnectionKey, to: ShardId, fd: Rc<PollableFd<OwnedFd>>, received: BytesMut) {
        let state = &mut *self.state();
        let Some(Socket { mut seat, frame, .. }) = state.leave(key) else { return };
        let Some(luggage) = state.core.depart(key) else { return };
        let fd = Rc::try_unwrap(fd).expect("a connection's descriptor is its socket's and its task's");
        seat.move_to(to.0);
        let origin = Origin::Shard { luggage, received, frame };
        let arrival = Arrival { socket: fd.into_inner(), seat, origin };
        state.mesh.send(to.0, Parcel::Connection(Box::new(arrival)));
        state.counters.went += 1;
        self.bell.ring();
    }
}

impl State {
    /// Wakes the task of a connection that goes to another shard.
    pub fn let_go(&mut self, key: ConnectionKey) {
        if self.core.departure(key).is_some()
            && let Some(socket) = self.socket(key)
        {
            socket.poke();
        }
    }

    /// Tells how busy this shard was, and lets the next connections go.
    pub fn note_busy(&mut self, now_ms: u64, passed_ms: u64, common: &Common) {
        let Some(shard) = common.busy.get(usize::from(self.core.id().0)).filter(|_| common.busy.len() > 1)
        else {
            return;
        };
        let cpu = clock::thread_time();
        let busy = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        let permille = busy.as_micros() / u128::from(passed_ms.max(1));
        shard.tell(now_ms, u32::try_from(permille).unwrap_or(u32::MAX));
        let own = common.connections.get(usize::from(self.core.id().0));
        let own = own.map_or(0, |count| count.load(Ordering::Relaxed));
        self.may_go = (own / GO_SHARE).max(GO_MIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_that_says_nothing_for_a_while_is_idle() {
        let busy = Busy::default();
        assert_eq!(busy.permille(5_000), 0);
        busy.tell(5_000, 730);
        assert_eq!((busy.permille(5_000), busy.permille(8_000), busy.permille(8_001)), (730, 730, 0));
        busy.tell(9_000, 4_000);
        assert_eq!(busy.permille(9_000), 1_000);
    }
}
