//! Connections: between a client and a shard, or between a machine that dialed and a shard of another one. Bytes arrive
//! in order and once, or the connection breaks.

use bytes::{Bytes, BytesMut};
use tidemill::broker::ConnectionKey;
use tidemill::effect::ByteSpan;
use tidemill::request::{Chunk, CloseReason};

use crate::faults::Fault;
use crate::links::LinkEnd;
use crate::network::Site;
use crate::node::{Arrived, Node};
use crate::trace::digest;
use crate::world::{Event, World, at_machine, draw};

/// The listener for clients and brokers, among those of a node.
pub const CLIENTS_LISTENER: usize = 0;
/// The listener of a node that votes, for brokers and controllers.
pub const CONTROLLERS_LISTENER: usize = 1;

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The client in this seat.
    Client(usize),
    /// A machine.
    Link(LinkEnd),
}

/// A connection, as the machine that accepted it has it.
#[derive(Debug)]
pub struct Connection {
    /// Who opened it.
    pub caller: Caller,
    /// Which machine serves it.
    pub machine: usize,
    /// Which shard does.
    pub shard: usize,
    pub key: Option<ConnectionKey>,
    /// Received and not yet a whole frame, or more than the shard takes at the moment.
    pub received: BytesMut,
    pub to_server_at_us: u64,
    pub to_client_at_us: u64,
    /// When its last request was taken: who waits longest is next.
    pub taken_us: u64,
    /// Its client does not read at the moment.
    pub blocked: bool,
    /// Its client may be refused for what it sends.
    pub hostile: bool,
    /// The listener by which it came in.
    pub listener: usize,
}

impl World {
    /// Where the one who opened a connection is.
    pub fn site_of(&self, caller: Caller) -> Site {
        match caller {
            Caller::Client(seat) => self.network.site_of_client(seat),
            Caller::Link(end) => end.machine,
        }
    }

    /// When something arrives that leaves now.
    pub fn arrival_us(&mut self, from: Site, to: Site) -> u64 {
        let us = draw(self.plan.network_us, &mut self.random.network);
        let arrival = self.network.arrival(from, to, self.now_us, us);
        if let Some(fault) = arrival.met {
            self.hits.count(fault);
        }
        arrival.at_us
    }

    /// A client opens a connection to a machine of its cluster.
    pub fn open(&mut self, client: usize) {
        let Some(machine) = self.machine_for(client) else { return };
        self.open_at(client, machine);
    }

    /// A client opens a connection to this machine.
    pub fn open_at(&mut self, client: usize, machine: usize) {
        let (here, there) = (self.network.site_of_client(client), machine);
        let us = draw(self.plan.network_us, &mut self.random.network);
        let cut = self.network.cut_until(here, there, self.now_us);
        if let Some((_, fault)) = cut.or_else(|| self.network.cut_until(there, here, self.now_us)) {
            self.hits.count(fault);
            let patience_us = self.random.network.u64(200_000..2_000_000);
            return self.after(patience_us, Event::Opened { client, connection: None });
        }
        if !self.machines[machine].takes_clients() {
            return self.after(us, Event::Opened { client, connection: None });
        }
        let hostile = self.seats[client].client.is_hostile();
        let id = self.accept(Caller::Client(client), machine, us, hostile, CLIENTS_LISTENER);
        self.seats[client].connection = Some((id, machine));
        self.after(us, Event::Opened { client, connection: Some(id) });
    }

    /// Which machine a client tries now.
    fn machine_for(&mut self, client: usize) -> Option<usize> {
        let cluster = self.seats[client].cluster;
        let members: Vec<usize> =
            (0..self.machines.len()).filter(|at| self.machines[*at].cluster == cluster).collect();
        match members.as_slice() {
            [only] => Some(*only),
            several => self.random.network.choice(several).copied(),
        }
    }

    /// A machine takes a connection, on any of its shards.
    pub fn accept(&mut self, caller: Caller, machine: usize, us: u64, hostile: bool, listener: usize) -> u64 {
        self.connections_made += 1;
        let id = self.connections_made;
        let shard = self.random.network.usize(0..usize::from(self.plan.shards));
        let connection = Connection {
            caller,
            machine,
            shard,
            key: None,
            received: BytesMut::new(),
            to_server_at_us: self.now_us + us,
            to_client_at_us: self.now_us + us,
            taken_us: self.now_us,
            blocked: false,
            hostile,
            listener,
        };
        self.connections.insert(id, connection);
        self.arrive(machine, shard, Arrived::Connect(id));
        id
    }

    /// Bytes leave for the machine that serves a connection.
    pub fn send_to_server(&mut self, id: u64, bytes: Bytes) {
        let Some((caller, machine)) = self.connections.get(&id).map(|c| (c.caller, c.machine)) else {
            // The time that it would have taken is drawn all the same.
            let _ = draw(self.plan.network_us, &mut self.random.network);
            return;
        };
        let arrival_us = self.arrival_us(self.site_of(caller), machine);
        let connection = self.connections.get_mut(&id).expect("it was there");
        connection.to_server_at_us = connection.to_server_at_us.max(arrival_us);
        let at_us = connection.to_server_at_us;
        self.at(at_us, Event::ToServer { connection: id, bytes: Some(bytes) });
    }

    /// The end of a connection leaves for its server; `late` lets what was sent arrive first.
    pub fn end_to_server(&mut self, id: u64, late: bool) {
        let known = self.connections.get(&id).map(|c| (c.caller, c.machine, c.to_server_at_us));
        let mut at_us = match known {
            Some((.., behind_us)) if late => behind_us,
            _ => self.now_us,
        };
        if let Some((caller, machine, _)) = known
            && let Some((until_us, fault)) =
                self.network.cut_until(self.site_of(caller), machine, self.now_us)
        {
            self.hits.count(fault);
            at_us = at_us.max(until_us);
        }
        self.at(at_us, Event::ToServer { connection: id, bytes: None });
    }

    /// Bytes leave for the one who opened a connection, or (none) the end of it does.
    pub fn send_to_client(&mut self, id: u64, bytes: Option<Bytes>) {
        let Some((caller, machine)) = self.connections.get(&id).map(|c| (c.caller, c.machine)) else {
            let _ = draw(self.plan.network_us, &mut self.random.network);
            return;
        };
        let arrival_us = self.arrival_us(machine, self.site_of(caller));
        let connection = self.connections.get_mut(&id).expect("it was there");
        connection.to_client_at_us = connection.to_client_at_us.max(arrival_us);
        let at_us = connection.to_client_at_us;
        self.at(at_us, Event::ToClient { connection: id, caller, bytes });
    }

    /// The process of a machine is gone, and with it every connection that it served. Clients learn it at once,
    /// machines over the network, or from their own clocks.
    pub fn close_all(&mut self, machine: usize) {
        let served: Vec<(u64, Caller)> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.machine == machine)
            .map(|(id, connection)| (*id, connection.caller))
            .collect();
        for (id, caller) in served {
            if let Caller::Link(end) = caller {
                self.link_lost_its_server(end, id, machine);
            }
            self.connections.remove(&id);
        }
        for client in 0..self.seats.len() {
            if self.seats[client].connection.take_if(|(_, at)| *at == machine).is_some() {
                self.step(client, |client, stage| client.closed(stage));
            }
        }
    }

    /// Some client's connection breaks.
    pub fn drop_connection(&mut self) {
        let client = self.random.faults.usize(0..self.seats.len());
        let late = self.random.faults.bool();
        if self.lose_connection(client, late) {
            self.hits.count(if late { Fault::ResetAfter } else { Fault::ResetBefore });
        }
    }

    /// A client's connection breaks; `late` lets what it has sent arrive first. Whether there was one.
    pub fn lose_connection(&mut self, client: usize, late: bool) -> bool {
        let Some((id, _)) = self.seats[client].connection.take() else { return false };
        self.end_to_server(id, late);
        self.step(client, |client, stage| client.closed(stage));
        true
    }

    /// Something reaches the one who opened a connection.
    pub fn reach_client(&mut self, id: u64, caller: Caller, bytes: Option<Bytes>) {
        let seat = match caller {
            Caller::Client(seat) => seat,
            Caller::Link(end) => return self.reach_link(id, end, bytes),
        };
        let connection = self.seats.get(seat).and_then(|seat| seat.connection);
        if connection.is_none_or(|(open, _)| open != id) {
            return;
        }
        let hash = bytes.as_deref().map_or(0, digest);
        let length = bytes.as_ref().map_or(0, Bytes::len);
        self.trace.note(self.now_us, 5, [id, hash], || format!("client {seat} gets {length} bytes on {id}"));
        match bytes {
            Some(bytes) => self.step(seat, |client, stage| client.received(bytes, stage)),
            None => {
                self.seats[seat].connection = None;
                self.step(seat, |client, stage| client.closed(stage));
            }
        }
    }

    /// A connection that a client asked for is there, or was refused.
    pub fn opened(&mut self, client: usize, connection: Option<u64>) {
        let waits_for = self.seats.get(client).and_then(|seat| seat.connection).map(|(open, _)| open);
        match connection {
            Some(id) if self.connections.contains_key(&id) && waits_for == Some(id) => {
                self.step(client, |client, stage| client.opened(stage));
            }
            Some(_) => {}
            None => self.step(client, |client, stage| client.closed(stage)),
        }
    }

    /// Something reaches the machine that serves a connection.
    pub fn reach_server(&mut self, id: u64, bytes: Option<Bytes>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (machine, shard) = (connection.machine, connection.shard);
        let hash = bytes.as_deref().map_or(0, digest);
        let length = bytes.as_ref().map_or(0, Bytes::len);
        self.trace.note(self.now_us, at_machine(machine, 6), [id, hash], || {
            format!("machine {machine} shard {shard} gets {length} bytes on {id}")
        });
        let arrived = match bytes {
            Some(bytes) => {
                connection.received.extend_from_slice(&bytes);
                Arrived::Bytes
            }
            None => Arrived::Gone(id, true),
        };
        self.arrive(machine, shard, arrived);
    }

    /// Takes what a connection has to send and puts it on its way.
    pub fn flush(&mut self, node: &mut Node, shard: usize, key: ConnectionKey) {
        let host = &mut node.hosts[shard];
        let Some(id) = host.connections.get(&key).copied() else { return };
        let Some(outbox) = host.core.outbox(key) else { return };
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.blocked) else {
            return;
        };
        if !self.phase.is_calm() && self.random.network.f64() < self.plan.slow_readers {
            connection.blocked = true;
            self.hits.count(Fault::SlowReader);
            let us = self.random.network.u64(0..400_000);
            return self.after(us, Event::Writable { connection: id });
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = outbox.pop() {
            match chunk {
                Chunk::Bytes(chunk) | Chunk::Span(ByteSpan::Memory(chunk)) => bytes.extend_from_slice(&chunk),
                Chunk::Span(ByteSpan::File { .. }) => unreachable!("spans of the simulator are in memory"),
            }
        }
        let mut bytes = bytes.freeze();
        if bytes.len() > 1 && self.random.network.u8(0..4) == 0 {
            let first = bytes.split_to(self.random.network.usize(1..bytes.len()));
            self.send_to_client(id, Some(first));
        }
        self.send_to_client(id, Some(bytes));
        self.let_go(node, shard, key);
    }

    /// A client reads on.
    pub fn writable(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.blocked = false;
        let (machine, shard, key) = (connection.machine, connection.shard, connection.key);
        let (Some(mut node), Some(key)) = (self.machines[machine].node.take(), key) else { return };
        self.flush(&mut node, shard, key);
        self.turn_soon(&mut node, shard);
        self.machines[machine].node = Some(node);
    }

    /// A shard closes a connection.
    pub fn close(&mut self, node: &mut Node, shard: usize, key: ConnectionKey, reason: CloseReason) {
        self.flush(node, shard, key);
        let Some(id) = node.hosts[shard].connections.get(&key).copied() else { return };
        self.note(node.machine, 7, [id, 0], || format!("shard {shard} closes {id}: {reason:?}"));
        let expected = matches!(reason, CloseReason::FailedWithoutAcks | CloseReason::Stopping)
            || self.connections.get(&id).is_some_and(|connection| connection.hostile);
        assert!(expected, "a connection is closed: {reason:?}");
        self.end_by_server(node, shard, id);
    }

    /// A connection ends at the side that serves it.
    pub fn end_by_server(&mut self, node: &mut Node, shard: usize, id: u64) {
        self.send_to_client(id, None);
        node.hosts[shard].arrived.push_back(Arrived::Gone(id, false));
        self.turn_soon(node, shard);
    }
}
