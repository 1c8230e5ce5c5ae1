//! The second shell: carries out what the shards ask for, as `src/shard/` does, on the simulated disk and clock.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidemill::broker::{ConnectionKey, Luggage, Message, Opened, Output, Owner, Shard};
use tidemill::controller::{BrokerRegistration, ShardId};
use tidemill::effect::{ByteSpan, FileDone, FileResult, Ticket};
use tidemill::log::RecoveryError;
use tidemill::partition::{ReadFound, ReplyTo};
use tidemill::request::RequestContext;
use tidemill::security::Principal;
use tidemill::wire::api::ApiKey;
use tidemill::wire::frame;
use uuid::Uuid;

use crate::boot::Booted;
use crate::faults::Fault;
use crate::history::Place;
use crate::links::{LinkEnd, LinkNews, LinkOrder};
use crate::operations::{Operation, Work};
use crate::probe::Probe;
use crate::watch::Shown;
use crate::world::{Event, World, draw};

/// Unsent bytes of a connection after which it is read no further, as in the real shell.
const UNSENT_BYTES_MAX: usize = 16 << 10;
const FRAME_LIMIT_BYTES: u32 = 1 << 20;
/// Room for what other nodes send beyond what clients may take, as the real shell has at least.
const OPENINGS_BYTES: usize = 512 << 10;

/// One process.
#[derive(Debug)]
pub struct Node {
    /// The machine that it runs on.
    pub machine: usize,
    /// Which process of that machine it is.
    pub incarnation: u64,
    /// By what the metadata knows it, where it is part of a cluster of several machines.
    pub registers_as: Option<Uuid>,
    pub started_us: u64,
    pub hosts: Vec<Host>,
    /// What goes from one shard to another (`from * shards + to`), with the time from which it is seen.
    lanes: Vec<VecDeque<(u64, Parcel)>>,
    pub operations: BTreeMap<u64, Operation>,
    pub operations_made: u64,
    owners_made: u64,
    ready: bool,
    pub stopping: bool,
    finished: bool,
    /// The log directory failed: a stop is no clean one.
    offline: bool,
    fatal: Option<String>,
    /// What dials other machines beside the broker.
    pub probe: Option<Probe>,
}

/// What goes from one shard to another.
#[derive(Debug)]
enum Parcel {
    /// A message of the broker.
    Message(Message),
    /// A connection that is served there from now on.
    Connection(u64, Luggage),
}

/// One shard and what its shell knows.
#[derive(Debug)]
pub struct Host {
    pub core: Shard,
    /// Where each owner's files are.
    pub owners: BTreeMap<Owner, Owned>,
    pub arrived: VecDeque<Arrived>,
    /// When its next turn is.
    turn_at_us: Option<u64>,
    outputs: Vec<Output>,
    pub connections: BTreeMap<ConnectionKey, u64>,
}

/// The directory of an owner.
#[derive(Debug)]
pub struct Owned {
    /// Which of the log directories it is in.
    pub directory: usize,
    /// Its name there.
    pub name: String,
    /// The partition's number.
    pub partition: i32,
    /// Tells apart those that had the owner's place one after another.
    pub number: u64,
    /// What its replica showed last: who looks again at what has not changed looks in vain.
    pub shown: Cell<Option<Shown>>,
}

/// What a shard finds at its next turn.
#[derive(Debug)]
pub enum Arrived {
    /// A client has connected.
    Connect(u64),
    /// There are bytes on one of the connections.
    Bytes,
    /// A connection is gone, and whether the other side ended it.
    Gone(u64, bool),
    /// A file operation has ended.
    Done(Owner, Ticket, FileResult),
    /// A span was opened, or could not be.
    Opened(u32, ReplyTo, ReadFound, Option<ByteSpan>),
    /// What a span covers was read.
    SpanRead(ReplyTo, FileResult),
    /// A recovery has ended.
    Recovered(u32, Result<Opened, RecoveryError>),
    /// Something has happened to a link that the shard dialed, after this dial.
    Link(LinkEnd, u64, LinkNews),
}

impl Node {
    /// Whether a registration is that of this process.
    pub fn is_registered(&self, broker: Option<&Arc<BrokerRegistration>>) -> bool {
        broker.is_some_and(|broker| Some(broker.incarnation) == self.registers_as)
    }

    /// Whether clients may connect.
    pub fn takes_clients(&self) -> bool {
        self.ready && !self.stopping
    }

    /// The replicas that are there, by shard.
    pub fn owners(&self) -> Vec<Vec<&str>> {
        self.hosts
            .iter()
            .map(|host| host.owners.values().map(|owned| owned.name.as_str()).collect())
            .collect()
    }

    /// How far each replica claims to be synced.
    pub fn durable(&self) -> Vec<(Place, i64)> {
        let replicas = self.hosts.iter().flat_map(|host| host.owners.iter().map(move |owned| (host, owned)));
        let durable = replicas.filter_map(|(host, (owner, owned))| {
            let Owner::Replica(slot) = owner else { return None };
            let log = host.core.replicas().partition(*slot)?.log();
            Some(((log.topic_id(), owned.partition), log.durable_end()))
        });
        durable.collect()
    }
}

impl World {
    /// A process begins.
    pub fn start_node(&mut self, machine: usize, booted: Booted) {
        let Booted { shards, peers, .. } = booted;
        self.machines[machine].firsts.clear();
        let count = shards.len();
        let host = |core| Host {
            core,
            owners: BTreeMap::new(),
            arrived: VecDeque::new(),
            turn_at_us: None,
            outputs: Vec::new(),
            connections: BTreeMap::new(),
        };
        let mut node = Node {
            machine,
            incarnation: self.machines[machine].incarnation,
            registers_as: peers.as_ref().map(|peers| peers.registration.incarnation),
            started_us: self.now_us,
            hosts: shards.into_iter().map(host).collect(),
            lanes: (0..count * count).map(|_| VecDeque::new()).collect(),
            operations: BTreeMap::new(),
            operations_made: 0,
            owners_made: 0,
            ready: false,
            stopping: false,
            finished: false,
            offline: false,
            fatal: None,
            probe: None,
        };
        if let Some(peers) = peers {
            let now = self.now(&node);
            node.hosts[0].core.join_cluster(now, peers);
        }
        for shard in 0..count {
            let now = self.now(&node);
            node.hosts[shard].core.start(now);
            self.turn_soon(&mut node, shard);
        }
        self.machines[machine].node = Some(node);
    }

    /// A turn of a shard comes soon.
    pub fn turn_soon(&mut self, node: &mut Node, shard: usize) {
        let us = draw(self.plan.turn_us, &mut self.random.schedule);
        self.turn_at(node, shard, self.now_us + us);
    }

    fn turn_at(&mut self, node: &mut Node, shard: usize, at_us: u64) {
        let host = &mut node.hosts[shard];
        if host.turn_at_us.is_none_or(|planned| at_us < planned) {
            host.turn_at_us = Some(at_us);
            let (machine, incarnation) = (node.machine, node.incarnation);
            self.at(at_us, Event::Turn { machine, incarnation, shard });
        }
    }

    /// Something has come for a shard.
    pub fn arrive(&mut self, machine: usize, shard: usize, arrived: Arrived) {
        let Some(mut node) = self.machines[machine].node.take() else { return };
        node.hosts[shard].arrived.push_back(arrived);
        self.turn_soon(&mut node, shard);
        self.machines[machine].node = Some(node);
    }

    /// Begins a clean stop.
    pub fn begin_stop(&mut self, machine: usize) {
        let Some(mut node) = self.machines[machine].node.take() else { return };
        if node.ready && !node.stopping {
            self.note(machine, 27, [0, 0], || "told to stop".into());
            node.stopping = true;
            self.turn_soon(&mut node, 0);
        }
        self.machines[machine].node = Some(node);
    }

    /// One turn of a shard.
    pub fn turn(&mut self, machine: usize, incarnation: u64, shard: usize) {
        if incarnation != self.machines[machine].incarnation {
            return;
        }
        let Some(mut node) = self.machines[machine].node.take() else { return };
        let until_us = self.machines[machine].paused_until_us;
        if node.hosts[shard].turn_at_us == Some(self.now_us) {
            node.hosts[shard].turn_at_us = None;
            if until_us > self.now_us {
                self.hits.count(Fault::Pause);
                self.turn_at(&mut node, shard, until_us);
            } else {
                self.take_turn(&mut node, shard);
            }
        }
        if let Some(why) = &node.fatal {
            let why = why.clone();
            self.note(machine, 28, [0, 0], || format!("fatal: {why}"));
            let allowed = self.plan.io_errors > 0.0 || self.plan.full_every_ms > 0;
            assert!(allowed, "the node cannot go on: {why}");
            self.machines[machine].node = Some(node);
            return self.crash(machine, false);
        }
        if node.finished {
            return self.stopped(machine, !node.offline);
        }
        self.machines[machine].node = Some(node);
    }

    fn take_turn(&mut self, node: &mut Node, shard: usize) {
        let (now, machine) = (self.now(node), node.machine);
        self.note(machine, 1, [shard as u64, 0], || format!("turn of shard {shard}"));
        let count = node.hosts.len();
        for from in 0..count {
            let lane = from * count + shard;
            while let Some((_, parcel)) = node.lanes[lane].pop_front_if(|(at_us, _)| *at_us <= self.now_us) {
                let message = match parcel {
                    Parcel::Message(message) => message,
                    Parcel::Connection(id, luggage) => {
                        self.arrive_from(node, shard, id, luggage);
                        continue;
                    }
                };
                self.note(machine, 2, [from as u64, shard as u64], || {
                    format!("shard {shard} gets from {from}: {}", shown(&message))
                });
                node.hosts[shard].core.message(now, ShardId(from as u16), message);
            }
        }
        while let Some(arrived) = node.hosts[shard].arrived.pop_front() {
            self.take_in(node, shard, arrived);
        }
        let core = &mut node.hosts[shard].core;
        if core.next_wake_ms().is_some_and(|at_ms| at_ms <= now.mono_ms) {
            core.wake(now);
        }
        if node.stopping && shard == 0 {
            core.begin_stop(now);
        }
        loop {
            let host = &mut node.hosts[shard];
            host.core.end_turn(now);
            let mut outputs = std::mem::take(&mut host.outputs);
            host.core.take_outputs(&mut outputs);
            if outputs.is_empty() {
                host.outputs = outputs;
                break;
            }
            for output in outputs.drain(..) {
                self.carry_out(node, shard, output);
            }
            node.hosts[shard].outputs = outputs;
        }
        self.resume(node, shard);
        self.watch_shard(node, shard);
        let lanes = (0..count).filter_map(|from| Some(node.lanes[from * count + shard].front()?.0));
        if let Some(at_us) = lanes.min() {
            self.turn_at(node, shard, at_us);
        }
        if let Some(at_ms) = node.hosts[shard].core.next_wake_ms() {
            let at_us = self.machines[machine].clock.at_us(node.started_us, at_ms).max(self.now_us + 1000);
            self.turn_at(node, shard, at_us);
        }
    }

    fn take_in(&mut self, node: &mut Node, shard: usize, arrived: Arrived) {
        let now = self.now(node);
        let host = &mut node.hosts[shard];
        match arrived {
            Arrived::Connect(id) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                let key = host.core.connect(RequestContext {
                    listener: connection.listener,
                    peer: std::net::Ipv4Addr::LOCALHOST.into(),
                    principal: Principal::Anonymous,
                });
                connection.key = Some(key);
                host.connections.insert(key, id);
            }
            // Nobody overtakes those who wait for room.
            Arrived::Bytes => self.resume(node, shard),
            Arrived::Gone(id, by_peer)
                if self.connections.get(&id).is_some_and(|gone| gone.shard != shard) =>
            {
                // It has gone to another shard meanwhile.
                let there = self.connections.get(&id).map_or(shard, |gone| gone.shard);
                node.hosts[there].arrived.push_back(Arrived::Gone(id, by_peer));
                self.turn_soon(node, there);
            }
            Arrived::Gone(id, by_peer) => {
                if let Some(key) = self.connections.remove(&id).and_then(|connection| connection.key) {
                    host.connections.remove(&key);
                    if by_peer {
                        host.core.ended_by_peer(now, key);
                    }
                    host.core.disconnect(now, key);
                }
            }
            Arrived::Done(owner, ticket, result) => host.core.completed(now, owner, ticket, result),
            Arrived::Opened(slot, to, found, span) => host.core.opened(now, slot, to, found, span),
            Arrived::SpanRead(to, result) => host.core.span_read(now, to, result),
            Arrived::Recovered(slot, result) => host.core.recovered(now, slot, result),
            Arrived::Link(end, dial, news) => self.take_link_news(node, end, dial, news),
        }
    }

    /// Hands the whole frames of a connection over, as long as it takes them; whether there was one.
    fn frames(&mut self, node: &mut Node, shard: usize, id: u64) -> bool {
        let now = self.now(node);
        let core = &mut node.hosts[shard].core;
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let Some(key) = connection.key else { return false };
        let (in_flight_max, budget_bytes) = (self.plan.in_flight_max, self.plan.budget_bytes);
        let mut taken = false;
        while core.in_flight(key) < in_flight_max
            && may_admit(core, key, &connection.received, budget_bytes)
            && core.outbox(key).is_some_and(|outbox| outbox.memory_bytes() < UNSENT_BYTES_MAX)
            && !core.connection(key).is_some_and(|connection| connection.comes_to_rest())
        {
            match frame::split(&mut connection.received, FRAME_LIMIT_BYTES) {
                Ok(Some(frame)) => core.frame(now, key, frame),
                Ok(None) => return taken,
                Err(error) => {
                    assert!(connection.hostile, "a client's frame is refused: {error}");
                    connection.received.clear();
                    self.close(node, shard, key, error.into());
                    return taken;
                }
            }
            (taken, connection.taken_us) = (true, self.now_us);
        }
        taken
    }

    /// Reads on from connections that have room again.
    fn resume(&mut self, node: &mut Node, shard: usize) {
        let here = node.hosts[shard].connections.values();
        let mut waiting: Vec<(u64, u64)> = here
            .filter_map(|id| Some((id, self.connections.get(id)?)))
            .filter(|(_, connection)| connection.shard == shard && !connection.received.is_empty())
            .map(|(id, connection)| (connection.taken_us, *id))
            .collect();
        waiting.sort_unstable();
        for (_, id) in waiting {
            if self.frames(node, shard, id) {
                self.turn_soon(node, shard);
            }
        }
    }

    fn carry_out(&mut self, node: &mut Node, shard: usize, output: Output) {
        let host = &mut node.hosts[shard];
        match output {
            Output::Own { owner, directory, name } => {
                let partition = name.rsplit_once('-').and_then(|(_, index)| index.parse().ok()).unwrap_or(-1);
                node.owners_made += 1;
                let number = node.owners_made;
                let directory = usize::from(directory);
                let owned = Owned { directory, name, partition, number, shown: Cell::default() };
                node.hosts[shard].owners.insert(owner, owned);
            }
            Output::Disown(owner) => drop(host.owners.remove(&owner)),
            Output::File(owner, ticket, op) => self.order(node, shard, owner, ticket, op),
            Output::Open { slot, to, found } => {
                let mark = self.mark(node, shard, Owner::Replica(slot));
                self.later(node, shard, Owner::Replica(slot), Work::Open { to, found, mark });
            }
            Output::Measure(to) => {
                let now = self.now(node);
                node.hosts[shard].core.measured(now, to, Vec::new());
            }
            Output::ReadSpan { to, span } => {
                let ByteSpan::Memory(bytes) = span else {
                    unreachable!("spans of the simulator are in memory")
                };
                host.arrived.push_back(Arrived::SpanRead(to, Ok(FileDone::Bytes(bytes))));
                self.turn_soon(node, shard);
            }
            Output::Recover(slot, recovery) => self.recover(node, shard, slot, recovery, None),
            Output::Send(to, message) => self.send(node, shard, to, Parcel::Message(message)),
            Output::Flush(key) => self.flush(node, shard, key),
            Output::Close(key, reason) => self.close(node, shard, key, reason),
            Output::Ready => node.ready = true,
            Output::Say(line) => {
                self.note(node.machine, 3, [0, 0], || format!("shard {shard} says: {line}"));
                assert!(!line.contains("is damaged below"), "quarantine: {line}");
            }
            Output::DirectoryOffline(directory) => self.directory_failed(node, usize::from(directory)),
            Output::Configured(_) | Output::Closed => {}
            Output::Dial { link, host, port } => {
                self.order_link(node, shard, link, LinkOrder::Dial { host: host.to_string(), port });
            }
            Output::LinkSend { link, bytes } => {
                self.watches[self.machines[node.machine].cluster].promises.left(&bytes);
                self.order_link(node, shard, link, LinkOrder::Send(bytes));
            }
            Output::LinkClose { link } => self.order_link(node, shard, link, LinkOrder::Close),
            Output::Finished => node.finished = true,
            Output::Fatal(why) => node.fatal = Some(why),
        }
    }

    fn directory_failed(&mut self, node: &mut Node, directory: usize) {
        let machine = node.machine;
        self.note(machine, 4, [directory as u64, 0], || format!("directory {directory} is offline"));
        let full = self.machines[machine].full_until_us[directory] > self.now_us;
        let allowed = self.plan.io_errors > 0.0 || full;
        assert!(allowed, "a log directory is offline though no device failed");
        node.offline = true;
        // The operator takes a while; whatever is elsewhere goes on.
        let us = self.random.faults.u64(10_000..3_000_000);
        self.after(us, Event::Crash { machine, incarnation: node.incarnation, power: false });
    }

    /// Puts something on the lane to another shard.
    fn send(&mut self, node: &mut Node, shard: usize, to: ShardId, parcel: Parcel) {
        let us = draw(self.plan.turn_us / 4, &mut self.random.schedule);
        let lane = shard * node.hosts.len() + usize::from(to.0);
        let at_us = node.lanes[lane].back().map_or(0, |(at_us, _)| *at_us).max(self.now_us + us);
        node.lanes[lane].push_back((at_us, parcel));
        self.turn_at(node, usize::from(to.0), at_us);
    }

    /// Hands a connection to the shard where it wishes to be, unless that has no room for it.
    pub fn let_go(&mut self, node: &mut Node, shard: usize, key: ConnectionKey) {
        let host = &mut node.hosts[shard];
        let Some(to) = host.core.departure(key) else { return };
        if self.random.schedule.u8(0..4) == 0 {
            host.core.stay(key);
            return self.turn_soon(node, shard);
        }
        let Some(id) = host.connections.remove(&key) else { return };
        let luggage = host.core.depart(key).expect("it was to go");
        let connection = self.connections.get_mut(&id).expect("it is served");
        (connection.shard, connection.key) = (usize::from(to.0), None);
        self.moves += 1;
        self.note(node.machine, 29, [id, to.0.into()], || format!("{id} goes from {shard} to {}", to.0));
        self.send(node, shard, to, Parcel::Connection(id, luggage));
    }

    /// A connection comes from another shard, unless it was closed on its way.
    fn arrive_from(&mut self, node: &mut Node, shard: usize, id: u64, luggage: Luggage) {
        let now = self.now(node);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let host = &mut node.hosts[shard];
        let key = host.core.arrive(now, luggage);
        connection.key = Some(key);
        host.connections.insert(key, id);
    }

    /// Nobody is connected: no frame may be accounted for any more.
    pub fn check_idle(&self) {
        for machine in &self.machines {
            let node = machine.node.as_ref().expect("nothing crashes any more");
            for host in &node.hosts {
                assert_eq!(host.core.admitted_bytes(), 0, "an idle shard has admitted bytes");
            }
        }
    }
}

/// Whether a shard has room for the next frame of a connection, which begins what was received. What waits for other
/// nodes holds its bytes, so theirs have room beyond, and so has a Fetch that comes first, as in the real shell.
fn may_admit(core: &mut Shard, key: ConnectionKey, received: &[u8], budget_bytes: usize) -> bool {
    let is_fetch = received.get(4..6) == Some(&(ApiKey::Fetch as i16).to_be_bytes()[..]);
    let of_node =
        core.connection(key).is_some_and(|connection| connection.of_node || connection.is_new() && is_fetch);
    let beyond_bytes = if of_node { OPENINGS_BYTES } else { 0 };
    let held_bytes = core.admitted_bytes();
    held_bytes == 0 || held_bytes < budget_bytes.saturating_add(beyond_bytes)
}

fn shown(message: &Message) -> String {
    let mut text = format!("{message:?}");
    text.truncate(text.char_indices().nth(160).map_or(text.len(), |(at, _)| at));
    text
}
