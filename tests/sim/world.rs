//! One run: virtual time, the queue of events, the machines, the network between them and the clients.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidemill::effect::Now;
use uuid::Uuid;

use crate::auditor::Auditor;
use crate::boot::{self, Failed};
use crate::connections::{Caller, Connection};
use crate::faults::{Fault, Hits};
use crate::group_auditor::GroupAuditor;
use crate::history::{History, Place};
use crate::links::{LinkEnd, LinkNews, LinkOrder, Links};
use crate::machine::{Clock, Machine};
use crate::membership;
use crate::network::Network;
use crate::node::Node;
use crate::plan::Plan;
use crate::probe;
use crate::seats::{Seat, Topic};
use crate::trace::Trace;
use crate::watch::{Watch, demand};

/// Faults are over this long before a client that is not done is stuck.
const CALM_US: u64 = 60_000_000;

/// What is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A shard takes in what has come.
    Turn { machine: usize, incarnation: u64, shard: usize },
    /// A file operation is carried out.
    Operation { machine: usize, incarnation: u64, number: u64 },
    /// Bytes reach the machine that serves a connection, or (none) the end of it does.
    ToServer { connection: u64, bytes: Option<Bytes> },
    /// Bytes reach the one who opened a connection, or the end of it does.
    ToClient { connection: u64, caller: Caller, bytes: Option<Bytes> },
    /// A machine learns something of a link that it dialed.
    ToLink { end: LinkEnd, dial: u64, news: LinkNews },
    /// A machine has dialed itself.
    DialSelf { end: LinkEnd, dial: u64, port: u16 },
    /// Something wants this of a link that it dials.
    Order { end: LinkEnd, order: LinkOrder },
    /// The connection that a client asked for is there, or was refused.
    Opened { client: usize, connection: Option<u64> },
    /// A client that did not read reads on.
    Writable { connection: u64 },
    /// A client wanted to be woken.
    Wake { client: usize },
    /// The broker of a machine is started.
    Boot { machine: usize },
    /// A broker dies, if it is still the same process, perhaps because the power does.
    Crash { machine: usize, incarnation: u64, power: bool },
    /// A broker dies, if it is still the same process and leads this partition.
    Overthrow { machine: usize, incarnation: u64, place: Place },
    /// Time for a fault.
    Due(Due),
    /// Time to see whether the run is over.
    Look,
}

/// Faults that come again and again, each at its own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// A process dies or is stopped.
    Crash,
    /// A client loses its connection.
    Drop,
    /// A device is full for a while.
    Full,
    /// A wall clock jumps.
    Jump,
    /// Ways of the network are cut for a while.
    Cut,
    /// A machine is far away for a while.
    Slow,
    /// A process gets no CPU for a while.
    Pause,
    /// A link between machines breaks.
    Reset,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Faults happen: nothing may go wrong that a fault does not excuse.
    Faulty,
    /// They do not any more; everyone finishes.
    Calm,
    /// What was sent without waiting for an answer arrives.
    Settling { until_us: u64 },
    /// Everything is read.
    Audit,
    /// The connections are closed: nothing may be left of them.
    Idle { until_us: u64 },
    /// The brokers stop cleanly, then lose their power.
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

/// Streams of randomness, one for each part, so that a change in one does not shuffle the others.
pub struct Randoms {
    pub schedule: fastrand::Rng,
    pub disk: fastrand::Rng,
    pub network: fastrand::Rng,
    pub faults: fastrand::Rng,
    pub clients: fastrand::Rng,
    /// What links between machines draw.
    pub links: fastrand::Rng,
}

/// Everything there is in one run.
pub struct World {
    pub plan: Plan,
    pub now_us: u64,
    events: BTreeMap<(u64, u64), Event>,
    events_made: u64,
    pub trace: Trace,
    pub machines: Vec<Machine>,
    pub network: Network,
    pub random: Randoms,
    pub connections: BTreeMap<u64, Connection>,
    pub connections_made: u64,
    pub links: Links,
    pub seats: Vec<Seat>,
    /// What the clients of each cluster did and saw.
    pub histories: Vec<History>,
    /// What was seen of each cluster's machines.
    pub watches: Vec<Watch>,
    /// Names of the topics, the same in each cluster.
    pub names: Vec<String>,
    pub flushed: Vec<bool>,
    pub phase: Phase,
    calm_since_us: u64,
    /// How often each fault hit something.
    pub hits: Hits,
    /// Faults that came when they were due.
    pub faults_made: u64,
    pub crashes: u64,
    /// Connections that went to another shard.
    pub moves: u64,
    /// The machine that lost something not long ago, where one does at a time: not everybody has everything again.
    pub in_doubt: Option<usize>,
    /// Of machines of one cluster: the id of the disk on which each keeps the metadata.
    pub disk_ids: Vec<Uuid>,
}

fn randoms(seed: u64) -> Randoms {
    let stream = |number: u64| fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9) ^ number << 56);
    Randoms {
        schedule: stream(1),
        disk: stream(2),
        network: stream(3),
        faults: stream(4),
        clients: stream(5),
        links: stream(6),
    }
}

/// The topics of a run; those that are deleted and made again come last.
pub fn topics_of(plan: &Plan) -> Vec<Topic> {
    let stable = plan.topics.iter().map(|(partitions, flushed)| (*partitions, *flushed, false));
    let churning = (0..plan.churn_topics).map(|number| (2, number == 1, true));
    stable.chain(churning).collect()
}

/// Marks an event of the trace as one of that machine.
pub fn at_machine(machine: usize, kind: u64) -> u64 {
    kind + 1_000 * machine as u64
}

impl World {
    /// A world at its beginning.
    pub fn new(plan: Plan, with_words: bool) -> Self {
        let topics = topics_of(&plan);
        let name =
            |(at, topic): (usize, &Topic)| if topic.2 { format!("churn-{at}") } else { format!("t{at}") };
        let clusters = plan.clusters();
        let mut drifts = fastrand::Rng::with_seed(plan.seed ^ 0xd21f7);
        let mut clock = || Clock {
            wall_offset_ms: 0,
            drift_ppm: if plan.drift_ppm > 0 { drifts.i64(-plan.drift_ppm..=plan.drift_ppm) } else { 0 },
        };
        let machine = |number: usize| Machine::new(number.min(clusters - 1), plan.directories, clock());
        let mut world = Self {
            now_us: 0,
            events: BTreeMap::new(),
            events_made: 0,
            trace: Trace::new(with_words),
            machines: (0..plan.machines).map(machine).collect(),
            network: Network::new(plan.machines),
            random: randoms(plan.seed),
            connections: BTreeMap::new(),
            connections_made: 0,
            links: Links::default(),
            seats: Vec::new(),
            histories: (0..clusters).map(|_| History::new(&plan)).collect(),
            watches: (0..clusters).map(|_| Watch::default()).collect(),
            names: topics.iter().enumerate().map(name).collect(),
            flushed: topics.iter().map(|(_, flushed, _)| *flushed).collect(),
            phase: Phase::Faulty,
            calm_since_us: 0,
            hits: Hits::default(),
            faults_made: 0,
            crashes: 0,
            moves: 0,
            in_doubt: None,
            disk_ids: (0..plan.machines).map(|at| membership::directory_id(&plan, at, 0, 0)).collect(),
            plan,
        };
        for cluster in 0..clusters {
            world.seat_clients(cluster, &topics);
        }
        for machine in 0..world.machines.len() {
            world.at(0, Event::Boot { machine });
        }
        world.at(world.plan.faulty_ms * 1000, Event::Look);
        world.plan_faults();
        world
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

    /// The clocks as a process sees them.
    pub fn now(&self, node: &Node) -> Now {
        self.machines[node.machine].clock.now(self.now_us, node.started_us)
    }

    /// Notes an event of a machine.
    pub fn note(&mut self, machine: usize, kind: u64, details: [u64; 2], words: impl FnOnce() -> String) {
        let several = self.machines.len() > 1;
        let words = || if several { format!("machine {machine}: {}", words()) } else { words() };
        self.trace.note(self.now_us, at_machine(machine, kind), details, words);
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
            Event::Turn { machine, incarnation, shard } => self.turn(machine, incarnation, shard),
            Event::Operation { machine, incarnation, number } => self.operation(machine, incarnation, number),
            Event::ToServer { connection, bytes } => self.reach_server(connection, bytes),
            Event::ToClient { connection, caller, bytes } => self.reach_client(connection, caller, bytes),
            Event::ToLink { end, dial, news } => self.tell_link(end, dial, news),
            Event::DialSelf { end, dial, port } => self.dial_self(end, dial, port),
            Event::Order { end, order } if self.machines[end.machine].incarnation == end.incarnation => {
                let runs = self.machines[end.machine].node.as_ref().is_some_and(|node| node.probe.is_some());
                if runs {
                    self.carry_link(end, order);
                }
            }
            Event::Order { .. } => {}
            Event::Writable { connection } => self.writable(connection),
            Event::Opened { client, connection } => self.opened(client, connection),
            Event::Wake { client } => self.step(client, |client, stage| client.wake(stage)),
            Event::Boot { machine } => self.boot(machine),
            Event::Crash { machine, incarnation, power }
                if incarnation == self.machines[machine].incarnation =>
            {
                self.crash(machine, power && !self.is_calm());
            }
            Event::Crash { .. } => {}
            Event::Overthrow { machine, incarnation, place }
                if incarnation == self.machines[machine].incarnation && !self.is_calm() =>
            {
                self.end_reign(machine, place);
            }
            Event::Overthrow { .. } => {}
            Event::Due(_) if self.is_calm() => {}
            Event::Due(due) => self.fault_due(due),
            Event::Look => self.look(),
        }
    }

    fn look(&mut self) {
        let done = self.seats.iter().all(|seat| seat.client.is_done());
        match self.phase {
            Phase::Faulty => {
                self.phase = Phase::Calm;
                self.calm_since_us = self.now_us;
                self.end_faults();
                self.trace.note(self.now_us, 21, [0, 0], || "faults are over".into());
            }
            Phase::Calm if done => self.phase = Phase::Settling { until_us: self.now_us + 2_000_000 },
            Phase::Settling { until_us } if until_us <= self.now_us => {
                self.phase = Phase::Audit;
                self.seat_auditors();
            }
            Phase::Audit if done => {
                for client in 0..self.seats.len() {
                    self.lose_connection(client, false);
                }
                self.seats.clear();
                probe::end(self);
                self.phase = Phase::Idle { until_us: self.now_us + 5_000_000 };
            }
            Phase::Idle { until_us } if until_us <= self.now_us => {
                self.compare_replicas();
                if self.plan.linked {
                    self.check_leftovers();
                    self.end_all();
                } else {
                    self.check_idle();
                    self.phase = Phase::Stopping;
                    self.stop_all();
                }
            }
            Phase::Stopping if self.machines.iter().any(|machine| machine.node.is_some()) => self.stop_all(),
            Phase::Stopping => {
                self.phase = Phase::AuditAgain;
                self.seat_auditors();
            }
            Phase::AuditAgain if done => self.phase = Phase::Over,
            _ => {}
        }
        let patience_us = if self.plan.linked { 2 * CALM_US } else { CALM_US };
        if self.now_us > self.calm_since_us + patience_us && self.phase != Phase::Over {
            self.fail_stuck();
        }
        self.after(20_000, Event::Look);
    }

    fn seat_auditors(&mut self) {
        if self.plan.linked {
            return self.seat_linked_auditors();
        }
        for cluster in 0..self.histories.len() {
            self.seat(cluster, Box::new(Auditor::new()));
            self.seat(cluster, Box::new(GroupAuditor::new()));
        }
    }

    fn stop_all(&mut self) {
        (0..self.machines.len()).for_each(|machine| self.begin_stop(machine));
    }

    /// Every process of a cluster dies in the same moment, then everything is read again.
    fn end_all(&mut self) {
        self.phase = Phase::AuditAgain;
        let power = self.plan.power_cuts > 0.0;
        (0..self.machines.len()).for_each(|machine| self.crash(machine, power));
        self.seat_auditors();
    }

    fn fail_stuck(&self) {
        let waiting = self.seats.iter().find(|seat| !seat.client.is_done());
        let waiting = waiting.map_or("the broker".into(), |seat| seat.client.state());
        let nodes = self.machines.iter().map(|machine| machine.node.as_ref().map(Node::owners));
        panic!("stuck in phase {:?}: {waiting}; replicas {:?}", self.phase, nodes.collect::<Vec<_>>());
    }

    fn boot(&mut self, machine: usize) {
        assert!(self.machines[machine].node.is_none(), "one process at a time");
        let crash_after =
            (!self.is_calm() && self.random.faults.u8(0..6) == 0).then(|| self.random.faults.u64(0..60));
        let at = &mut self.machines[machine];
        let boot_id = format!("boot-{}", at.boot_number);
        at.incarnation += 1;
        at.is_dark = false;
        at.look_at_disks();
        let incarnation = at.incarnation;
        let booted = boot::boot(&self.plan, machine, at, &boot_id, crash_after, &mut self.random.disk);
        match booted {
            Ok(booted) => {
                self.note(machine, 22, [incarnation, 0], || format!("start ({boot_id})"));
                let (raft_id, stored) = &booted.known;
                demand(self.watches[self.machines[machine].cluster].promises.kept(*raft_id, stored));
                if self.machines[machine].clock.drift_ppm != 0 {
                    self.hits.count(Fault::Drift);
                }
                self.start_node(machine, booted);
                self.start_probe(machine);
            }
            Err(Failed::Crashed) => {
                self.note(machine, 23, [incarnation, 0], || "start, cut short".into());
                self.crashes += 1;
                self.hits.count(Fault::CrashInStart);
                if self.random.faults.f64() < self.plan.power_cuts && self.may_lose(machine) {
                    self.cut_power(machine, &[]);
                }
                self.after(20_000, Event::Boot { machine });
            }
            Err(Failed::Refused(why)) => panic!("the broker refuses to start: {why}"),
        }
    }

    fn start_probe(&mut self, machine: usize) {
        if self.plan.probes {
            probe::start(self, machine);
        }
    }

    /// What the run did, in one line.
    pub fn summary(&self) -> String {
        let (mut acked, mut read, mut starts, mut commits) = (0, 0, 0, 0);
        for history in &self.histories {
            let counts = history.counts();
            (acked, read, starts) = (acked + counts.0, read + counts.1, starts + counts.2);
            commits += history.commits.count();
        }
        format!(
            "{} events, {} ms, {} crashes, {} moves, {acked} records acknowledged, {read} read, {starts} log starts, {commits} offsets committed",
            self.trace.events(),
            self.now_us / 1000,
            self.crashes,
            self.moves,
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
