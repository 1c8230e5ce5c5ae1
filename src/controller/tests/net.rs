//! Several controllers in one thread, from one seed: a network that delays, drops, doubles, reorders and is cut in one
//! direction; disks that lose what was not synced, or everything; machines that crash and come back.
//!
//! After every step: one leader a term; whatever index a node applies holds what any other node applied there; Images
//! of one version are equal; no block of producer ids is given out twice. At the end, when faults have ended, everyone
//! has everything that was ever acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::super::quorum::codec::{self, Body};
use super::super::quorum::{RaftPeer, VoterEndpoint, founder_raft_id};
use super::super::record::Endpoint;
use super::*;
use crate::config::{self, ClusterConfig, Voter};

/// Operators look at the quorum so often, in milliseconds.
const OPERATOR_MS: u64 = 150;

/// How bad it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Messages that are lost, in percent.
    pub(super) drop: u8,
    /// Messages that come twice, in percent.
    pub(super) double: u8,
    /// Longest delay of a message, in milliseconds.
    pub(super) delay_ms: u64,
    /// Longest time that an operation on a disk takes, in milliseconds.
    pub(super) disk_ms: u64,
    /// Whether machines crash, and links are cut.
    pub(super) breaks: bool,
    /// Whether disks are lost.
    pub(super) loses: bool,
    /// Whether voters come and go.
    pub(super) changes: bool,
    /// Whether configurations name the voters, whose raft ids are of cluster and node then: a lost disk comes back
    /// under the id of the one before it, and the leader alone repairs the quorum.
    pub(super) named: bool,
    /// Whether such a disk asks nobody as whom it comes back: the checks say that this must not be.
    pub(super) rash: bool,
    /// Whether disks forget in a crash what they said was synced: a quorum cannot bear that, and the checks say so.
    pub(super) lies: bool,
}

enum Event {
    Deliver { to: usize, from: RaftPeer, bytes: Bytes },
    Disk { at: usize, life: u32 },
    Wake { at: usize, life: u32, at_ms: u64 },
    Gone { at: usize, raft_id: u64 },
    Restart { at: usize },
    Heal,
    Operator,
    Client,
    Fault,
}

pub(super) struct Machine {
    pub(super) node_id: i32,
    pub(super) raft_id: u64,
    pub(super) controller: Option<Controller>,
    pub(super) image: Arc<Image>,
    disk: Disk,
    /// As it was at the start.
    disk_before: Disk,
    disk_latest: Option<(Ticket, FileOp)>,
    wake_ms: Option<u64>,
    life: u32,
    checked: u64,
    founder: bool,
}

pub(super) struct Net {
    pub(super) rng: fastrand::Rng,
    pub(super) now_ms: u64,
    pub(super) weather: Weather,
    pub(super) machines: Vec<Machine>,
    pub(super) answers: Vec<(u64, ControllerAnswer)>,
    pub(super) bytes_most: usize,
    pub(super) voters_wanted: usize,
    pub(super) counts: BTreeMap<&'static str, u32>,
    pub(super) notices: Vec<String>,
    founders: Vec<VoterEndpoint>,
    events: BTreeMap<(u64, u64), Event>,
    event_next: u64,
    token_next: u64,
    raft_id_next: u64,
    cut: BTreeSet<(usize, usize)>,
    leaders: BTreeMap<u64, u64>,
    applied: BTreeMap<u64, (u64, Bytes)>,
    images: BTreeMap<u64, Arc<Image>>,
    blocks: BTreeSet<i64>,
    seed: u64,
}

pub(super) fn endpoint(node_id: i32) -> Endpoint {
    let host = format!("host-{node_id}");
    Endpoint { name: "CONTROLLER".into(), host: host.as_str().into(), port: 9093, security_protocol: 0 }
}

/// The raft id that a machine begins with.
fn first_raft_id(at: usize, weather: Weather) -> u64 {
    if weather.named { founder_raft_id(&config(0).cluster_id, at as i32) } else { 100 + at as u64 }
}

/// The voters as a configuration names them.
fn named_voters(count: usize) -> Vec<Voter> {
    let each = (0..count as i32).map(|node_id| {
        let endpoint = endpoint(node_id);
        let endpoint = config::Endpoint { host: endpoint.host.to_string(), port: endpoint.port };
        Voter { node_id, endpoint }
    });
    each.collect()
}

impl Net {
    /// So many machines, of which the first few vote from the start; the others join.
    pub(super) fn new(seed: u64, machines: usize, voters: usize, weather: Weather) -> Self {
        let founders: Vec<_> = (0..voters)
            .map(|at| VoterEndpoint {
                node_id: at as i32,
                raft_id: Some(first_raft_id(at, weather)).filter(|_| !weather.named || weather.rash),
                host: endpoint(at as i32).host,
                port: 9093,
            })
            .collect();
        let mut net = Self {
            rng: fastrand::Rng::with_seed(seed),
            now_ms: 1000,
            weather,
            machines: Vec::new(),
            answers: Vec::new(),
            bytes_most: 0,
            voters_wanted: voters,
            counts: BTreeMap::new(),
            notices: Vec::new(),
            founders,
            events: BTreeMap::new(),
            event_next: 0,
            token_next: 0,
            raft_id_next: 1000,
            cut: BTreeSet::new(),
            leaders: BTreeMap::new(),
            applied: BTreeMap::new(),
            images: BTreeMap::new(),
            blocks: BTreeSet::new(),
            seed,
        };
        (0..machines).for_each(|_| net.add_machine());
        net.plan(OPERATOR_MS, Event::Operator);
        net.plan(50, Event::Client);
        net.plan(300, Event::Fault);
        net
    }

    pub(super) fn add_machine(&mut self) {
        let at = self.machines.len();
        self.machines.push(Machine {
            node_id: at as i32,
            raft_id: first_raft_id(at, self.weather),
            controller: None,
            image: Arc::default(),
            disk: Disk::default(),
            disk_before: Disk::default(),
            disk_latest: None,
            wake_ms: None,
            life: 0,
            checked: 0,
            founder: at < self.founders.len(),
        });
        self.start(at);
    }

    fn plan(&mut self, in_ms: u64, event: Event) {
        self.event_next += 1;
        self.events.insert((self.now_ms + in_ms, self.event_next), event);
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(super) fn start(&mut self, at: usize) {
        let seed = self.rng.u64(..);
        let founders = self.founders.clone();
        let machine = &mut self.machines[at];
        if machine.controller.is_some() {
            return;
        }
        machine.life += 1;
        machine.disk_before = machine.disk.clone();
        let recovered = recover(&mut machine.disk).unwrap();
        machine.checked = recovered.stored.snapshot_index;
        let mut config = config(seed);
        let pairs = [("node.id".to_string(), machine.node_id.to_string())];
        let node = NodeConfig::load(None, &pairs).unwrap().0;
        let named = if self.weather.named { named_voters(founders.len()) } else { Vec::new() };
        let cluster = ClusterConfig { voters: named, ..node.cluster.clone() };
        config.node = Arc::new(NodeConfig { cluster, ..node });
        config.raft_id = machine.raft_id;
        config.voters = if machine.founder { founders } else { Vec::new() };
        config.snapshot_entries = 25;
        machine.controller = Some(Controller::new(config, recovered).unwrap());
        machine.image = Arc::default();
        self.give(at, Input::Tick);
    }

    /// Power is cut: some of what was not synced may have reached the disk.
    pub(super) fn crash(&mut self, at: usize) {
        let torn = [0, 13, 400, usize::MAX][self.rng.usize(0..4)];
        let half_done = self.rng.bool();
        let machine = &mut self.machines[at];
        machine.controller = None;
        machine.wake_ms = None;
        machine.life += 1;
        if let Some((_, op)) = machine.disk_latest.take().filter(|_| half_done) {
            let _ = machine.disk.run(&op);
        }
        machine.disk.crash(torn);
        if self.weather.lies {
            machine.disk = machine.disk_before.clone();
        }
        self.count("crash");
    }

    /// The machine comes back with an empty disk, as another member.
    pub(super) fn lose_disk(&mut self, at: usize) {
        self.crash(at);
        self.raft_id_next += 1;
        let raft_id = self.raft_id_next;
        let machine = &mut self.machines[at];
        machine.disk = Disk::default();
        (machine.raft_id, machine.founder) = if self.weather.named && machine.founder {
            (first_raft_id(at, self.weather), true)
        } else {
            (raft_id, false)
        };
        self.count("lost disk");
    }

    pub(super) fn give(&mut self, at: usize, input: Input) {
        let now = Now { mono_ms: self.now_ms, wall_ms: self.now_ms as i64 };
        let Some(controller) = &mut self.machines[at].controller else { return };
        let mut out = Vec::new();
        controller.step(now, input, &mut out);
        for output in out {
            self.carry(at, output);
        }
        self.check(at);
    }

    fn carry(&mut self, at: usize, output: Output) {
        let life = self.machines[at].life;
        match output {
            Output::File(ticket, op) => {
                self.machines[at].disk_latest = Some((ticket, op));
                let in_ms = self.rng.u64(0..=self.weather.disk_ms);
                self.plan(in_ms, Event::Disk { at, life });
            }
            Output::Publish(image, delta) => self.published(at, image, &delta),
            Output::Answer { token, version, answer } => {
                assert!(
                    version <= self.machines[at].image.version()
                        || matches!(answer, ControllerAnswer::Refused(_))
                );
                if let ControllerAnswer::ProducerIds { first, .. } = answer {
                    assert!(self.blocks.insert(first), "ids from {first} were given out twice");
                    self.count("block of ids");
                }
                self.answers.push((token, answer));
            }
            Output::WakeAt(at_ms) => {
                self.machines[at].wake_ms = Some(at_ms);
                let in_ms = at_ms.saturating_sub(self.now_ms);
                self.plan(in_ms, Event::Wake { at, life, at_ms });
            }
            Output::Send { to, bytes } => self.send(at, to, bytes),
            Output::Leader { .. } => {}
            Output::RaftId(raft_id) => {
                self.machines[at].raft_id = raft_id;
                self.count("renewed disk");
            }
            Output::Notice(said) => self.notices.push(said),
            Output::Full => panic!("there is space"),
            Output::Fatal(why) => panic!("node {at} at {} ms: {why}", self.now_ms),
        }
    }

    fn send(&mut self, at: usize, to: RaftPeer, bytes: Bytes) {
        self.bytes_most = self.bytes_most.max(bytes.len());
        match codec::decode(&bytes).unwrap().body {
            Body::Chunk(_) => self.count("chunk"),
            Body::Vote { pre: false, .. } => self.count("vote"),
            Body::Append { entries, .. } if !entries.is_empty() => self.count("append"),
            Body::Appended { refused: Some(_), .. } => self.count("refused append"),
            _ => {}
        }
        let machine = &self.machines[at];
        let from = RaftPeer { node_id: machine.node_id, raft_id: machine.raft_id };
        // It goes to whoever has the node id now, also to another disk.
        let Some(target) = self.machines.iter().position(|machine| machine.node_id == to.node_id) else {
            assert!(self.weather.named, "{to:?} is nobody");
            return;
        };
        if self.cut.contains(&(at, target)) || self.rng.u8(0..100) < self.weather.drop {
            self.count("lost message");
            return;
        }
        let copies = if self.rng.u8(0..100) < self.weather.double { 2 } else { 1 };
        for _ in 0..copies {
            let in_ms = self.rng.u64(0..=self.weather.delay_ms);
            self.plan(in_ms, Event::Deliver { to: target, from, bytes: bytes.clone() });
        }
    }

    fn published(&mut self, at: usize, image: Arc<Image>, delta: &ImageDelta) {
        let known = &self.machines[at].image;
        assert!(image.version() >= known.version(), "Images rise");
        let gone = known.topics().filter(|topic| image.topic_by_id(topic.id).is_none());
        assert!(gone.map(|topic| topic.id).all(|id| delta.topics_removed.contains_key(&id)));
        let expected = self.images.entry(image.version()).or_insert_with(|| image.clone());
        assert_eq!(**expected, *image, "one state at version {}", image.version());
        self.machines[at].image = image;
    }

    /// What holds after every step.
    fn check(&mut self, at: usize) {
        let seed = self.seed;
        let machine = &mut self.machines[at];
        let Some(controller) = &machine.controller else { return };
        let status = controller.raft.status();
        if status.leads {
            let leader = *self.leaders.entry(status.term).or_insert(machine.raft_id);
            assert_eq!(leader, machine.raft_id, "two leaders in term {} (seed {seed})", status.term);
        }
        for index in machine.checked + 1..=controller.applied_index {
            // What came in a snapshot is compared as part of the Image.
            let Some(entry) = controller.raft.entry(index) else { continue };
            let expected = self.applied.entry(index).or_insert_with(|| (entry.term, entry.data.clone()));
            assert_eq!(*expected, (entry.term, entry.data), "entry {index} at node {at} (seed {seed})");
        }
        let installed = controller.quorum.installing.is_some();
        machine.checked = controller.applied_index;
        if installed {
            self.count("step while a snapshot is installed");
        }
    }

    /// The machine that decides requests, if somebody does.
    pub(super) fn leader(&self) -> Option<usize> {
        let active = |machine: &Machine| machine.controller.as_ref().is_some_and(Controller::is_active);
        let each = (0..self.machines.len()).filter(|at| active(&self.machines[*at]));
        each.max_by_key(|at| self.machines[*at].controller.as_ref().map(|c| c.raft.status().term))
    }

    pub(super) fn ask(&mut self, at: usize, request: ControllerRequest) -> u64 {
        self.token_next += 1;
        let token = self.token_next;
        self.give(at, Input::Request { token, request });
        token
    }

    /// Lets so much time pass.
    pub(super) fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((at_ms, _), event) = entry.remove_entry();
            self.now_ms = self.now_ms.max(at_ms);
            self.happen(event);
        }
        self.now_ms = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, from, bytes } => self.deliver(to, from, bytes),
            Event::Disk { at, life } if self.machines[at].life == life => {
                let machine = &mut self.machines[at];
                let Some((ticket, op)) = machine.disk_latest.take() else { return };
                let result = machine.disk.run(&op);
                self.give(at, Input::Completed { ticket, result });
            }
            Event::Wake { at, life, at_ms }
                if self.machines[at].life == life && self.machines[at].wake_ms == Some(at_ms) =>
            {
                self.machines[at].wake_ms = None;
                self.give(at, Input::Tick);
            }
            Event::Disk { .. } | Event::Wake { .. } => {}
            Event::Gone { at, raft_id } => self.give(at, Input::MemberGone { raft_id }),
            Event::Restart { at } => self.start(at),
            Event::Heal => self.heal(),
            Event::Operator => {
                self.operate();
                self.plan(OPERATOR_MS, Event::Operator);
            }
            Event::Client => {
                let at = self.rng.usize(0..self.machines.len());
                self.ask(at, ControllerRequest::AllocateProducerIds);
                let in_ms = self.rng.u64(5..60);
                self.plan(in_ms, Event::Client);
            }
            Event::Fault => {
                self.fault();
                let in_ms = self.rng.u64(50..900);
                self.plan(in_ms, Event::Fault);
            }
        }
    }

    /// The sender learns, as by the answer on its connection, that its message was for another disk, or that the
    /// leader does not know it.
    fn deliver(&mut self, to: usize, from: RaftPeer, bytes: Bytes) {
        let meant = codec::decode(&bytes).unwrap().to;
        self.give(to, Input::Message { from, bytes });
        let is_disowned = self.machines[to].controller.as_ref().is_some_and(|controller| {
            let is_stranger = controller.is_active() && controller.members().get(from.raft_id).is_none();
            controller.raft_id() != meant || is_stranger
        });
        let sender = self.machines.iter().position(|machine| machine.raft_id == from.raft_id);
        if let Some(sender) = sender.filter(|_| is_disowned) {
            self.give(sender, Input::Disowned { by: meant });
        }
    }

    /// Machines that are no members join; voters whose disk is lost go; there are as many voters as wanted.
    fn operate(&mut self) {
        let Some(leader) = self.leader() else { return };
        let members = self.machines[leader].controller.as_ref().unwrap().members().clone();
        let current = |node_id: i32| self.machines[node_id as usize].raft_id;
        let is_named = self.weather.named;
        let lost = members.voters().find(|voter| voter.raft_id != current(voter.node_id) && !is_named);
        let request = if let Some(lost) = lost {
            ControllerRequest::RemoveVoter { node_id: lost.node_id, raft_id: lost.raft_id }
        } else if let Some(new) = self.machines.iter().find(|machine| members.get(machine.raft_id).is_none())
        {
            let endpoint = endpoint(new.node_id);
            ControllerRequest::JoinQuorum { node_id: new.node_id, raft_id: new.raft_id, endpoint }
        } else if is_named {
            return;
        } else if members.voters().count() < self.voters_wanted {
            let learners: Vec<_> = members.learners().map(|learner| learner.peer()).collect();
            let Some(RaftPeer { node_id, raft_id }) = self.rng.choice(learners) else { return };
            ControllerRequest::AddVoter { node_id, raft_id, endpoint: endpoint(node_id) }
        } else if members.voters().count() > self.voters_wanted {
            let voters: Vec<_> = members.voters().map(|voter| voter.peer()).collect();
            let Some(RaftPeer { node_id, raft_id }) = self.rng.choice(voters) else { return };
            ControllerRequest::RemoveVoter { node_id, raft_id }
        } else {
            if self.weather.changes {
                self.voters_wanted = self.rng.usize(1..=self.machines.len());
            }
            return;
        };
        self.count("change of members");
        self.ask(leader, request);
    }

    /// Everything arrives again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Nothing that this machine sends arrives any more, nor what is sent to it.
    pub(super) fn cut_off(&mut self, at: usize) {
        let others = (0..self.machines.len()).filter(|other| *other != at);
        self.cut.extend(others.flat_map(|other| [(at, other), (other, at)]));
    }

    fn fault(&mut self) {
        if !self.weather.breaks {
            return;
        }
        let at = self.rng.usize(0..self.machines.len());
        match self.rng.u8(0..6) {
            0 | 1 => {
                let others: Vec<_> = (0..self.machines.len()).filter(|other| *other != at).collect();
                for other in others {
                    if self.rng.u8(0..3) > 0 {
                        self.cut.insert(if self.rng.bool() { (at, other) } else { (other, at) });
                    }
                }
                self.count("cut");
                let in_ms = self.rng.u64(20..1500);
                self.plan(in_ms, Event::Heal);
            }
            2 if self.weather.loses && self.may_lose(at) => {
                self.lose_disk(at);
                let in_ms = self.rng.u64(1..1500);
                self.plan(in_ms, Event::Restart { at });
            }
            _ if self.machines[at].controller.is_some() => self.crash_for_a_while(at),
            _ => {}
        }
    }

    fn crash_for_a_while(&mut self, at: usize) {
        let raft_id = self.machines[at].raft_id;
        self.crash(at);
        for other in (0..self.machines.len()).filter(|other| *other != at) {
            if self.rng.bool() {
                let in_ms = self.rng.u64(0..5);
                self.plan(in_ms, Event::Gone { at: other, raft_id });
                self.give(other, Input::PeerUnreachable { to: raft_id });
            }
        }
        let in_ms = self.rng.u64(1..1500);
        self.plan(in_ms, Event::Restart { at });
    }

    /// One disk may be lost when all others who vote have theirs, and everybody agrees who that is.
    fn may_lose(&self, at: usize) -> bool {
        let all: Option<Vec<_>> =
            self.machines.iter().map(|machine| Some(machine.controller.as_ref()?.members())).collect();
        let Some(all) = all else { return false };
        let members = all[at];
        let is_whole = |voter: &Member| self.machines[voter.node_id as usize].raft_id == voter.raft_id;
        let is_mute = |machine: &Machine| machine.controller.as_ref().is_some_and(Controller::is_mute);
        all.iter().all(|other| *other == members)
            && !self.machines.iter().any(is_mute)
            && members.voters().count() >= 3
            && members.voters().count() == self.voters_wanted
            && members.voters().all(is_whole)
    }

    /// Faults end; everybody catches up, and everything that was acknowledged is there.
    pub(super) fn end_well(&mut self) {
        let seed = self.seed;
        let Weather { named, rash, .. } = self.weather;
        self.weather = Weather { delay_ms: 2, disk_ms: 1, named, rash, ..Weather::default() };
        self.cut.clear();
        for at in 0..self.machines.len() {
            self.start(at);
        }
        // A lost voter has to be silent for a while before its place is given away.
        self.run(if named { 30_000 } else { 15_000 });
        let leader = self.leader().unwrap_or_else(|| panic!("nobody leads (seed {seed})"));
        let given = self.blocks.len();
        let token = self.ask(leader, ControllerRequest::AllocateProducerIds);
        self.events.retain(|_, event| !matches!(event, Event::Client | Event::Operator | Event::Fault));
        self.run(2000);
        assert!(
            self.answers.iter().any(|(of, _)| *of == token) && self.blocks.len() > given,
            "no progress ({seed})"
        );
        let last = self.machines[leader].image.clone();
        let next = last.producer_id_next();
        assert!(self.blocks.iter().all(|first| *first < next), "an acknowledged block is lost (seed {seed})");
        for machine in &self.machines {
            assert_eq!(machine.image, last, "node {} is behind (seed {seed})", machine.node_id);
            let members = machine.controller.as_ref().unwrap().members();
            assert!(
                members.get(machine.raft_id).is_some(),
                "node {} is no member (seed {seed})",
                machine.node_id
            );
            assert_eq!(members.voters().count(), self.voters_wanted, "seed {seed}");
        }
    }
}
