//! One run: virtual time, the queue of events, the clients and the faults.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use tidemill::broker::ConnectionKey;
use tidemill::effect::Now;

use crate::admin::Admin;
use crate::auditor::Auditor;
use crate::boot::{self, Failed};
use crate::client::{Action, Client, Stage};
use crate::consumer::Consumer;
use crate::consumer_member::ConsumerMember;
use crate::disk::Disk;
use crate::eraser::Eraser;
use crate::group_auditor::GroupAuditor;
use crate::history::{History, Kind, Place};
use crate::hostile::Hostile;
use crate::member::Member;
use crate::node::{Arrived, Node};
use crate::plan::Plan;
use crate::producer::{Producer, Work};
use crate::trace::{Trace, digest};
use crate::tuner::Tuner;

/// Faults are over this long before a client that is not done is stuck.
const CALM_US: u64 = 60_000_000;

/// What is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A shard takes in what has come.
    Turn { incarnation: u64, shard: usize },
    /// A file operation is carried out.
    Operation { incarnation: u64, number: u64 },
    /// Bytes reach the broker, or (none) the end of the connection does.
    ToServer { connection: u64, bytes: Option<Bytes> },
    /// Bytes reach the client, or the end of the connection does.
    ToClient { connection: u64, bytes: Option<Bytes> },
    /// The connection that a client asked for is there, or was refused.
    Opened { client: usize, connection: Option<u64> },
    /// A client that did not read reads on.
    Writable { connection: u64 },
    /// A client wanted to be woken.
    Wake { client: usize },
    /// The broker is started.
    Boot,
    /// The broker dies, if it is still the same process, perhaps because the power does.
    Crash { incarnation: u64, power: bool },
    /// Time for a crash.
    CrashDue,
    /// Time for a client to lose its connection.
    DropDue,
    /// The device is full for a while.
    FullDue,
    /// The wall clock jumps.
    JumpDue,
    /// Time to see whether the run is over.
    Look,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults happen.
    Faulty,
    /// They do not any more; everyone finishes.
    Calm,
    /// What was sent without waiting for an answer arrives.
    Settling { until_us: u64 },
    /// Everything is read.
    Audit,
    /// The connections are closed: nothing may be left of them.
    Idle { until_us: u64 },
    /// The broker stops cleanly, then loses its power.
    Stopping,
    /// Everything is read again.
    AuditAgain,
    /// Nothing is left to do.
    Over,
}

impl Phase {
    /// Whether nothing fails any more.
    pub fn is_calm(self) -> bool {
        self != Self::Faulty
    }
}

/// A connection from a client to a shard.
#[derive(Debug)]
pub struct Connection {
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
}

struct Seat {
    client: Box<dyn Client>,
    connection: Option<u64>,
}

/// Streams of randomness, one for each part, so that a change in one does not shuffle the others.
pub struct Randoms {
    pub schedule: fastrand::Rng,
    pub disk: fastrand::Rng,
    pub network: fastrand::Rng,
    pub faults: fastrand::Rng,
    pub clients: fastrand::Rng,
}

/// Everything there is in one run.
pub struct World {
    pub plan: Plan,
    pub now_us: u64,
    events: BTreeMap<(u64, u64), Event>,
    events_made: u64,
    pub trace: Trace,
    /// One device for each log directory.
    pub disks: Vec<Disk>,
    pub random: Randoms,
    pub node: Option<Node>,
    pub incarnation: u64,
    pub boot_number: u64,
    pub connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    seats: Vec<Seat>,
    pub history: History,
    names: Vec<String>,
    flushed: Vec<bool>,
    pub wall_offset_ms: i64,
    pub power_was_cut: bool,
    pub full_until_us: Vec<u64>,
    pub phase: Phase,
    calm_since_us: u64,
    pub crashes: u64,
    /// Connections that went to another shard.
    pub moves: u64,
    /// How far each replica ever claimed to be synced.
    pub synced: BTreeMap<Place, i64>,
    /// Base offset of each replica's oldest segment, and the log start with which it was opened, while this process
    /// runs.
    pub firsts: BTreeMap<Place, (i64, i64)>,
}

impl World {
    /// A world at its beginning.
    pub fn new(plan: Plan, with_words: bool) -> Self {
        let stream =
            |number: u64| fastrand::Rng::with_seed(plan.seed.wrapping_mul(0x9e37_79b9) ^ number << 56);
        let stable = plan.topics.iter().map(|(partitions, flushed)| (*partitions, *flushed, false));
        let churning = (0..plan.churn_topics).map(|number| (2, number == 1, true));
        let topics: Vec<(i32, bool, bool)> = stable.chain(churning).collect();
        let name = |(at, topic): (usize, &(i32, bool, bool))| {
            if topic.2 { format!("churn-{at}") } else { format!("t{at}") }
        };
        let mut world = Self {
            now_us: 0,
            events: BTreeMap::new(),
            events_made: 0,
            trace: Trace::new(with_words),
            disks: (0..plan.directories).map(|_| Disk::default()).collect(),
            random: Randoms {
                schedule: stream(1),
                disk: stream(2),
                network: stream(3),
                faults: stream(4),
                clients: stream(5),
            },
            node: None,
            incarnation: 0,
            boot_number: 0,
            connections: BTreeMap::new(),
            connections_made: 0,
            seats: Vec::new(),
            history: History::new(&plan),
            names: topics.iter().enumerate().map(name).collect(),
            flushed: topics.iter().map(|(_, flushed, _)| *flushed).collect(),
            wall_offset_ms: 0,
            power_was_cut: false,
            full_until_us: vec![0; plan.directories],
            phase: Phase::Faulty,
            calm_since_us: 0,
            crashes: 0,
            moves: 0,
            synced: BTreeMap::new(),
            firsts: BTreeMap::new(),
            plan,
        };
        world.seat(Box::new(Admin::new(&topics, world.plan.quick_churn, world.plan.more_partitions)));
        world.seat_clients(&topics);
        world.at(0, Event::Boot);
        world.at(world.plan.faulty_ms * 1000, Event::Look);
        world.plan_faults();
        world
    }

    fn seat_clients(&mut self, topics: &[(i32, bool, bool)]) {
        let plan = self.plan.clone();
        let all: Vec<(usize, i32)> = (0..topics.len())
            .flat_map(|topic| {
                let more = if topics[topic].2 { 0 } else { plan.more_partitions };
                (0..topics[topic].0 + more).map(move |partition| (topic, partition))
            })
            .collect();
        let stable: Vec<(usize, i32)> = all.iter().copied().filter(|(topic, _)| !topics[*topic].2).collect();
        let kinds = [
            (Kind::Idempotent, plan.idempotent),
            (Kind::LeaderAcks, plan.leader_acks),
            (Kind::NoAcks, plan.no_acks),
        ];
        for (kind, count) in kinds {
            for _ in 0..count {
                let only_stable = kind == Kind::Idempotent && !plan.idempotent_churn;
                let from = if only_stable { &stable } else { &all };
                let targets = self.some_of(from);
                let work = Work {
                    records: plan.records,
                    pace: plan.pace,
                    give_up_us: plan.expiration_ms.map_or(u64::MAX, |ms| ms * 1000 / 3),
                };
                let producer = self.with_stage(|stage| Producer::new(kind, targets, work, stage));
                self.seat(Box::new(producer));
            }
        }
        let lasting = (0..topics.len()).filter(|at| !topics[*at].2);
        if plan.tunes || plan.shortens.retains() {
            let tuned: Vec<String> = lasting.clone().map(|at| self.names[at].clone()).collect();
            self.seat(Box::new(Tuner::new(&tuned, &plan)));
        }
        if plan.shortens.by_request {
            self.seat(Box::new(Eraser::new(lasting.collect())));
        }
        for number in 0..plan.hostile {
            self.seat(Box::new(Hostile::new(number)));
        }
        for number in 0..plan.members.0 {
            let group = format!("group-{}", number % plan.members.1);
            let member = self.with_stage(|stage| Member::new(number, group, topics[0].0, stage));
            self.seat(Box::new(member));
        }
        let mut random = fastrand::Rng::with_seed(plan.seed ^ 0x848_848);
        for number in 0..plan.consumer_members.0 {
            let group = format!("consumers-{}", number % plan.consumer_members.1);
            self.seat(Box::new(ConsumerMember::new(number, group, topics[0].0, &mut random)));
        }
        for number in 0..plan.consumers {
            let targets = self.some_of(&all);
            let consumer = self.with_stage(|stage| Consumer::new(number, targets, stage));
            self.seat(Box::new(consumer));
        }
    }

    fn some_of(&mut self, from: &[(usize, i32)]) -> Vec<(usize, i32)> {
        let random = &mut self.random.clients;
        let mut chosen: Vec<_> = from.iter().copied().filter(|_| random.u8(0..3) > 0).collect();
        if chosen.is_empty() {
            chosen.push(*random.choice(from).expect("a topic has a partition"));
        }
        chosen
    }

    fn seat(&mut self, client: Box<dyn Client>) {
        let number = self.seats.len();
        self.seats.push(Seat { client, connection: None });
        self.after(0, Event::Wake { client: number });
    }

    /// Something will happen at a time.
    pub fn at(&mut self, at_us: u64, event: Event) {
        self.events_made += 1;
        self.events.insert((at_us.max(self.now_us), self.events_made), event);
    }

    /// Something will happen after a time.
    pub fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    /// The clocks as the running process sees them.
    pub fn now(&self, started_us: u64) -> Now {
        Now { mono_ms: (self.now_us - started_us) / 1000, wall_ms: self.wall_ms() }
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + (self.now_us / 1000) as i64 + self.wall_offset_ms
    }

    /// Whether nothing fails any more.
    pub fn is_calm(&self) -> bool {
        self.phase.is_calm()
    }

    /// Runs to the end; a violation panics.
    pub fn run(&mut self) {
        while self.phase != Phase::Over {
            let ((at_us, _), event) = self.events.pop_first().expect("something is always to come");
            self.now_us = at_us;
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { incarnation, shard } => self.turn(incarnation, shard),
            Event::Operation { incarnation, number } => self.operation(incarnation, number),
            Event::ToServer { connection, bytes } => self.reach_server(connection, bytes),
            Event::ToClient { connection, bytes } => self.reach_client(connection, bytes),
            Event::Writable { connection } => self.writable(connection),
            Event::Opened { client, connection } => self.opened(client, connection),
            Event::Wake { client } => self.step(client, |client, stage| client.wake(stage)),
            Event::Boot => self.boot(),
            Event::Crash { incarnation, power } if incarnation == self.incarnation => {
                self.crash(power && !self.is_calm());
            }
            Event::Crash { .. } => {}
            Event::CrashDue | Event::DropDue | Event::FullDue | Event::JumpDue if self.is_calm() => {}
            Event::CrashDue | Event::DropDue | Event::FullDue | Event::JumpDue => self.fault_due(event),
            Event::Look => self.look(),
        }
    }

    fn look(&mut self) {
        let done = self.seats.iter().all(|seat| seat.client.is_done());
        match self.phase {
            Phase::Faulty => {
                self.phase = Phase::Calm;
                self.calm_since_us = self.now_us;
                self.full_until_us.fill(0);
                self.trace.note(self.now_us, 21, [0, 0], || "faults are over".into());
            }
            Phase::Calm if done => self.phase = Phase::Settling { until_us: self.now_us + 2_000_000 },
            Phase::Settling { until_us } if until_us <= self.now_us => {
                self.phase = Phase::Audit;
                self.seat(Box::new(Auditor::new()));
                self.seat(Box::new(GroupAuditor::new()));
            }
            Phase::Audit if done => {
                for client in 0..self.seats.len() {
                    self.lose_connection(client, false);
                }
                self.seats.clear();
                self.phase = Phase::Idle { until_us: self.now_us + 5_000_000 };
            }
            Phase::Idle { until_us } if until_us <= self.now_us => {
                self.check_idle();
                self.phase = Phase::Stopping;
                self.begin_stop();
            }
            Phase::Stopping if self.node.is_some() => self.begin_stop(),
            Phase::Stopping => {
                self.phase = Phase::AuditAgain;
                self.seat(Box::new(Auditor::new()));
                self.seat(Box::new(GroupAuditor::new()));
            }
            Phase::AuditAgain if done => self.phase = Phase::Over,
            _ => {}
        }
        if self.now_us > self.calm_since_us + CALM_US && self.phase != Phase::Over {
            let waiting = self.seats.iter().find(|seat| !seat.client.is_done());
            let waiting = waiting.map_or("the broker".into(), |seat| seat.client.state());
            let owners = self.node.as_ref().map(Node::owners);
            panic!("stuck in phase {:?}: {waiting}; replicas {owners:?}", self.phase);
        }
        self.after(20_000, Event::Look);
    }

    fn boot(&mut self) {
        assert!(self.node.is_none(), "one process at a time");
        let crash_after =
            (!self.is_calm() && self.random.faults.u8(0..6) == 0).then(|| self.random.faults.u64(0..60));
        let boot_id = format!("boot-{}", self.boot_number);
        self.incarnation += 1;
        let random = &mut self.random.disk;
        let shards = boot::boot(&self.plan, &mut self.disks, &boot_id, crash_after, random, &self.synced);
        match shards {
            Ok(shards) => {
                self.trace.note(self.now_us, 22, [self.incarnation, 0], || format!("start ({boot_id})"));
                self.start_node(shards);
            }
            Err(Failed::Crashed) => {
                self.trace.note(self.now_us, 23, [self.incarnation, 0], || "start, cut short".into());
                self.crashes += 1;
                if self.random.faults.f64() < self.plan.power_cuts {
                    self.cut_power(&[]);
                }
                self.after(20_000, Event::Boot);
            }
            Err(Failed::Refused(why)) => panic!("the broker refuses to start: {why}"),
        }
    }

    pub fn close_all(&mut self) {
        self.connections.clear();
        for client in 0..self.seats.len() {
            if self.seats[client].connection.take().is_some() {
                self.step(client, |client, stage| client.closed(stage));
            }
        }
    }

    pub fn drop_connection(&mut self) {
        let client = self.random.faults.usize(0..self.seats.len());
        let late = self.random.faults.bool();
        self.lose_connection(client, late);
    }

    /// A client's connection breaks; `late` lets what it has sent arrive first.
    fn lose_connection(&mut self, client: usize, late: bool) {
        let Some(id) = self.seats[client].connection.take() else { return };
        let at_us = self.connections.get(&id).map_or(0, |connection| connection.to_server_at_us);
        let at_us = if late { at_us } else { self.now_us };
        self.at(at_us, Event::ToServer { connection: id, bytes: None });
        self.step(client, |client, stage| client.closed(stage));
    }

    fn reach_client(&mut self, id: u64, bytes: Option<Bytes>) {
        let Some(seat) = self.seats.iter().position(|seat| seat.connection == Some(id)) else { return };
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

    fn opened(&mut self, client: usize, connection: Option<u64>) {
        match connection {
            Some(id) if self.connections.contains_key(&id) && self.seats[client].connection == Some(id) => {
                self.step(client, |client, stage| client.opened(stage));
            }
            Some(_) => {}
            None => self.step(client, |client, stage| client.closed(stage)),
        }
    }

    fn reach_server(&mut self, id: u64, bytes: Option<Bytes>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (shard, hash) = (connection.shard, bytes.as_deref().map_or(0, digest));
        let length = bytes.as_ref().map_or(0, Bytes::len);
        self.trace.note(self.now_us, 6, [id, hash], || format!("shard {shard} gets {length} bytes on {id}"));
        let arrived = match bytes {
            Some(bytes) => {
                connection.received.extend_from_slice(&bytes);
                Arrived::Bytes
            }
            None => Arrived::Gone(id),
        };
        self.arrive(shard, arrived);
    }

    fn with_stage<T>(&mut self, step: impl FnOnce(&mut Stage) -> T) -> T {
        let mut actions = Vec::new();
        let mut stage = Stage {
            now_us: self.now_us,
            wall_ms: 1_700_000_000_000 + (self.now_us / 1000) as i64,
            random: &mut self.random.clients,
            history: &mut self.history,
            actions: &mut actions,
            names: &self.names,
            flushed: &self.flushed,
            power_was_cut: self.power_was_cut,
            calm: self.phase != Phase::Faulty,
        };
        step(&mut stage)
    }

    /// Steps a client and carries out what it wants.
    fn step(&mut self, client: usize, step: impl FnOnce(&mut dyn Client, &mut Stage)) {
        let Some(seat) = self.seats.get_mut(client) else { return };
        let mut actions = Vec::new();
        let mut stage = Stage {
            now_us: self.now_us,
            wall_ms: 1_700_000_000_000 + (self.now_us / 1000) as i64,
            random: &mut self.random.clients,
            history: &mut self.history,
            actions: &mut actions,
            names: &self.names,
            flushed: &self.flushed,
            power_was_cut: self.power_was_cut,
            calm: self.phase != Phase::Faulty,
        };
        step(seat.client.as_mut(), &mut stage);
        for action in actions {
            self.act(client, action);
        }
    }

    fn act(&mut self, client: usize, action: Action) {
        match action {
            Action::Open => self.open(client),
            Action::Send(bytes) => {
                let Some(id) = self.seats[client].connection else { return };
                let us = draw(self.plan.network_us, &mut self.random.network);
                let Some(connection) = self.connections.get_mut(&id) else { return };
                connection.to_server_at_us = connection.to_server_at_us.max(self.now_us + us);
                let at_us = connection.to_server_at_us;
                self.at(at_us, Event::ToServer { connection: id, bytes: Some(bytes) });
            }
            Action::Close => {
                let Some(id) = self.seats[client].connection.take() else { return };
                let at_us = self.connections.get(&id).map_or(0, |connection| connection.to_server_at_us);
                self.at(at_us, Event::ToServer { connection: id, bytes: None });
            }
            Action::CutPower { after_us } if self.plan.power_cuts > 0.0 && !self.is_calm() => {
                let incarnation = self.incarnation;
                self.after(after_us, Event::Crash { incarnation, power: true });
            }
            Action::CutPower { .. } => {}
            Action::WakeAt(at_us) => self.at(at_us, Event::Wake { client }),
        }
    }

    fn open(&mut self, client: usize) {
        let us = draw(self.plan.network_us, &mut self.random.network);
        if !self.node.as_ref().is_some_and(Node::takes_clients) {
            return self.after(us, Event::Opened { client, connection: None });
        }
        self.connections_made += 1;
        let id = self.connections_made;
        let shard = self.random.network.usize(0..usize::from(self.plan.shards));
        let connection = Connection {
            shard,
            key: None,
            received: BytesMut::new(),
            to_server_at_us: self.now_us + us,
            to_client_at_us: self.now_us + us,
            taken_us: self.now_us,
            blocked: false,
            hostile: self.seats[client].client.is_hostile(),
        };
        self.connections.insert(id, connection);
        self.seats[client].connection = Some(id);
        self.arrive(shard, Arrived::Connect(id));
        self.after(us, Event::Opened { client, connection: Some(id) });
    }

    /// What the run did, in one line.
    pub fn summary(&self) -> String {
        let (acked, read, starts) = self.history.counts();
        format!(
            "{} events, {} ms, {} crashes, {} moves, {acked} records acknowledged, {read} read, {starts} log starts, {} offsets committed",
            self.trace.events(),
            self.now_us / 1000,
            self.crashes,
            self.moves,
            self.history.commits.count()
        )
    }
}

/// A time around a mean: mostly near it, sometimes many times longer.
pub fn draw(mean_us: u64, random: &mut fastrand::Rng) -> u64 {
    match random.u8(..) {
        0..=2 => random.u64(0..mean_us * 30 + 1),
        _ => random.u64(0..mean_us * 2 + 1),
    }
}
