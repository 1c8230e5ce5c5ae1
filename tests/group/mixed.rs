//! Random members of both protocols in one group, failing appends and reloads, from one seed: no partition is ever read
//! by two members at once, a reload gives the same group, and when the faults stop everything is read by somebody.
//!
//! Members of the consumer protocol give up what they are told to at their next step; those of the classic one are
//! eager: they give up everything when they are asked to join again, and when they lead they assign in turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tidemill::effect::Now;
use tidemill::group::consumer::records::Partitions;
use tidemill::group::consumer::request::{ConsumerBeat, ConsumerHeartbeat};
use tidemill::group::consumer::topics::{Topic, Topics};
use tidemill::group::request::*;
use tidemill::group::{Coordinator, GroupConfig, Input, Output, Record, Request};
use tidemill::wire::ErrorCode;
use uuid::Uuid;

use crate::stage::{subscription, topic_id};

/// Seeds of one run; `GROUP_SEED=N` takes one, `GROUP_SEEDS=N` that many.
const SEEDS: u64 = 150;
const STEPS: usize = 600;
const CLIENTS: usize = 7;
const SESSION_MS: u64 = 45_000;
const CLASSIC_SESSION_MS: u64 = 10_000;
/// Longer than any timeout that something may have to wait for.
const CALM_STEPS: usize = 400;

type Owned = BTreeSet<(String, i32)>;

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    /// Is not in the group.
    Out,
    Join,
    Sync(Vec<Arc<str>>),
    Live,
}

#[derive(Clone, Debug)]
struct Client {
    is_classic: bool,
    instance_id: Option<Arc<str>>,
    member_id: Arc<str>,
    epoch: i32,
    phase: Phase,
    topics: &'static str,
    /// What it reads.
    owned: Owned,
    /// What it was told to have, once it has given up the rest.
    told: Option<Owned>,
    waits: Option<u64>,
    /// An answer was lost, so the next heartbeat says everything and is told everything.
    says_all: bool,
    asked_ms: u64,
    /// When it asked what it has an answer to: the coordinator counts its session from there.
    heard_ms: u64,
}

struct World {
    rng: fastrand::Rng,
    coordinator: Coordinator,
    log: Vec<Record>,
    in_flight: Vec<(u64, Vec<Record>)>,
    now_ms: u64,
    wakes_at_ms: Option<u64>,
    load: Option<u64>,
    topics: BTreeMap<&'static str, i32>,
    version: i64,
    clients: Vec<Client>,
    asked: BTreeMap<u64, usize>,
    tokens: u64,
    ids: u128,
    /// How often a group was of each type after a step.
    seen: [usize; 2],
}

impl Client {
    /// It is in the group no more, as far as it knows.
    fn restart(&mut self) {
        self.phase = Phase::Join;
        self.epoch = 0;
        self.owned.clear();
        self.told = None;
        if self.is_classic {
            self.member_id = "".into();
        }
    }

    fn learn(&mut self, response: &Response) {
        match response {
            // What it asked for may count all the same, and nobody has told it.
            Response::Refused(ErrorCode::NotCoordinator | ErrorCode::CoordinatorLoadInProgress) => {
                self.says_all = true;
            }
            Response::Refused(_) | Response::BeatRefused(_) if self.phase == Phase::Out => {}
            Response::Refused(_) | Response::BeatRefused(_) => self.restart(),
            Response::ConsumerBeat(beat) if beat.epoch < 0 => {}
            Response::ConsumerBeat(beat) => self.beaten(beat),
            Response::Joined(joined) => match joined.error {
                None => {
                    self.member_id = joined.member_id.clone();
                    self.epoch = joined.generation;
                    self.heard_ms = self.asked_ms;
                    self.phase = Phase::Sync(joined.members.iter().map(|of| of.member_id.clone()).collect());
                }
                Some(ErrorCode::MemberIdRequired) => self.member_id = joined.member_id.clone(),
                Some(ErrorCode::RebalanceInProgress) => {}
                Some(_) => self.restart(),
            },
            Response::Synced(synced) => match synced.error {
                None => {
                    self.heard_ms = self.asked_ms;
                    self.phase = Phase::Live;
                    self.owned = read(&synced.assignment);
                }
                Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration) => self.join_again(),
                Some(_) => self.restart(),
            },
            Response::Heartbeat(None) => self.heard_ms = self.asked_ms,
            Response::Heartbeat(Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration)) => {
                self.join_again();
            }
            Response::Heartbeat(Some(_)) => self.restart(),
            _ => {}
        }
    }

    fn join_again(&mut self) {
        self.owned.clear();
        self.phase = Phase::Join;
    }

    fn beaten(&mut self, beat: &ConsumerBeat) {
        self.heard_ms = self.asked_ms;
        self.says_all = false;
        self.epoch = beat.epoch;
        self.phase = Phase::Live;
        if let Some(assigned) = &beat.assigned {
            let each = assigned.iter().flat_map(|(topic, of)| of.iter().map(|at| (letter(*topic), *at)));
            let told: Owned = each.collect();
            // What is new may be read at once; what is gone is still read for a while.
            self.owned.extend(told.iter().cloned());
            self.told = Some(told);
        }
    }
}

fn letter(topic: Uuid) -> String {
    char::from_u32(topic.as_u128() as u32).unwrap().into()
}

fn partitions(owned: &Owned) -> Partitions {
    let mut partitions = Partitions::new();
    for (topic, partition) in owned {
        partitions.entry(topic_id(topic)).or_default().insert(*partition);
    }
    partitions
}

/// An assignment of the embedded protocol, version 0.
fn written(owned: &Owned) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((owned.len() as u32).to_be_bytes());
    for (topic, partition) in owned {
        bytes.extend((topic.len() as u16).to_be_bytes());
        bytes.extend(topic.as_bytes());
        bytes.extend([0, 0, 0, 1]);
        bytes.extend(partition.to_be_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.into()
}

fn read(bytes: &[u8]) -> Owned {
    let mut owned = Owned::new();
    if bytes.is_empty() {
        return owned;
    }
    let number = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 6;
    for _ in 0..number(2) {
        let length = usize::from(bytes[at + 1]);
        let topic = String::from_utf8(bytes[at + 2..at + 2 + length].to_vec()).unwrap();
        at += 2 + length;
        let count = number(at) as usize;
        owned.extend((0..count).map(|index| (topic.clone(), number(at + 4 + index * 4))));
        at += 4 + count * 4;
    }
    owned
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() };
        let classics = rng.usize(0..CLIENTS);
        let client = |at: usize| Client {
            is_classic: at < classics,
            instance_id: (at % 3 == 2).then(|| format!("instance{at}").into()),
            member_id: format!("m{at}").into(),
            epoch: 0,
            phase: Phase::Out,
            topics: ["a", "a+b", "a"][at % 3],
            owned: Owned::new(),
            told: None,
            waits: None,
            says_all: false,
            asked_ms: 0,
            heard_ms: 0,
        };
        let mut world = Self {
            rng,
            coordinator: Coordinator::new(config),
            log: Vec::new(),
            in_flight: Vec::new(),
            now_ms: 0,
            wakes_at_ms: None,
            load: None,
            topics: [("a", 5), ("b", 3)].into(),
            version: 0,
            clients: (0..CLIENTS).map(client).collect(),
            asked: BTreeMap::new(),
            tokens: 0,
            ids: 0,
            seen: [0; 2],
        };
        world.tell_topics();
        world.step(Input::Lead);
        world
    }

    fn tell_topics(&mut self) {
        self.version += 1;
        let topic = |(name, partitions): (&&str, &i32)| {
            (Arc::from(*name), Topic { id: topic_id(name), partitions: *partitions })
        };
        let topics = Topics::new(self.version, self.topics.iter().map(topic));
        self.step(Input::Topics(Arc::new(topics)));
    }

    fn step(&mut self, input: Input) {
        let now = Now { mono_ms: self.now_ms, wall_ms: self.now_ms.cast_signed() };
        let mut out = Vec::new();
        self.coordinator.step(now, input, &mut out);
        self.coordinator.check_invariants();
        for output in out {
            match output {
                Output::Load { load } => self.load = Some(load),
                Output::Append { batch, records } => self.in_flight.push((batch, records)),
                Output::Answer { token, response } => {
                    let at = self.asked.remove(&token).expect("one answer for each request");
                    if self.clients[at].waits == Some(token) {
                        self.clients[at].waits = None;
                        self.clients[at].learn(&response);
                    }
                }
                Output::WakeAt(at_ms) => self.wakes_at_ms = Some(at_ms),
                Output::LoadFailed(why) => panic!("{why}"),
            }
        }
        if let Some(stored) = self.coordinator.store().groups().get("g") {
            self.seen[usize::from(stored.consumer.is_some())] += 1;
        }
        self.check_readers();
    }

    fn check_readers(&self) {
        let mut readers: BTreeMap<&(String, i32), usize> = BTreeMap::new();
        for (at, client) in self.clients.iter().enumerate() {
            for partition in &client.owned {
                let other = readers.insert(partition, at);
                assert_eq!(other, None, "{partition:?} is read by {at} too: {:#?}", self.clients);
            }
        }
    }

    fn ask(&mut self, at: usize, request: Request) {
        let token = self.tokens;
        self.tokens += 1;
        self.asked.insert(token, at);
        self.clients[at].waits = Some(token);
        self.clients[at].asked_ms = self.now_ms;
        self.step(Input::Request { token, request });
    }

    fn act(&mut self, at: usize, is_calm: bool) {
        if self.clients[at].waits.is_some() {
            // A connection breaks, and the client asks again on another.
            if !is_calm && self.rng.u8(..) < 20 {
                self.clients[at].waits = None;
                self.clients[at].says_all = true;
            }
            return;
        }
        if !is_calm && self.clients[at].phase != Phase::Out && self.rng.u8(..) < 12 {
            return self.leave(at);
        }
        if self.clients[at].phase == Phase::Out {
            // In the end some are left out.
            if !is_calm && self.rng.u8(..) < 60 {
                self.clients[at].restart();
                self.ids += 1;
                if !self.clients[at].is_classic && self.rng.bool() {
                    self.clients[at].member_id = format!("n{}", self.ids).into();
                }
            }
            return;
        }
        let request = match self.clients[at].is_classic {
            true => self.classic(at),
            false => self.beat(at),
        };
        self.ask(at, request);
    }

    /// A member leaves, or only goes away.
    fn leave(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let is_joined = client.phase != Phase::Join;
        client.owned.clear();
        client.told = None;
        client.phase = Phase::Out;
        let (member_id, instance_id) = (client.member_id.clone(), client.instance_id.clone());
        if self.rng.u8(..3) == 0 || !is_joined {
            return;
        }
        if self.clients[at].is_classic {
            let members = vec![Leaver { member_id, instance_id }];
            return self.ask(at, Request::Leave(Leave { group: "g".into(), members }));
        }
        let is_static = instance_id.is_some();
        let mut request = self.heartbeat(at);
        request.epoch = if is_static && self.rng.bool() { -2 } else { -1 };
        self.ask(at, Request::ConsumerHeartbeat(Box::new(request)));
    }

    fn heartbeat(&mut self, at: usize) -> ConsumerHeartbeat {
        let client = &self.clients[at];
        ConsumerHeartbeat {
            group: "g".into(),
            member_id: client.member_id.clone(),
            must_name_itself: true,
            epoch: client.epoch,
            instance_id: client.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: -1,
            topics: None,
            regex: None,
            assignor: None,
            owned: Some(partitions(&client.owned)),
            client_id: "c".into(),
            client_host: "/h".into(),
            fresh_id: Uuid::nil(),
        }
    }

    fn beat(&mut self, at: usize) -> Request {
        let is_lazy = self.rng.u8(..) < 60;
        let client = &mut self.clients[at];
        if let Some(told) = client.told.take_if(|_| !is_lazy) {
            client.owned = told;
        }
        let mut request = self.heartbeat(at);
        if self.clients[at].phase == Phase::Join {
            request.epoch = 0;
            request.owned = Some(Partitions::new());
        }
        if self.clients[at].phase == Phase::Join || self.clients[at].says_all {
            request.rebalance_timeout_ms = 300_000;
            request.topics = Some(self.clients[at].topics.split('+').map(Arc::from).collect());
            request.assignor =
                [None, Some("range".into()), Some("uniform".into())][self.rng.usize(..3)].clone();
        }
        Request::ConsumerHeartbeat(Box::new(request))
    }

    fn classic(&mut self, at: usize) -> Request {
        self.ids += 1;
        let client = self.clients[at].clone();
        let (group, member_id) = (Arc::from("g"), client.member_id.clone());
        let (instance_id, generation) = (client.instance_id.clone(), client.epoch);
        match &client.phase {
            Phase::Out | Phase::Join => Request::Join(Box::new(Join {
                group,
                member_id,
                instance_id,
                client_id: "c".into(),
                client_host: "/h".into(),
                session_timeout_ms: CLASSIC_SESSION_MS as i32,
                rebalance_timeout_ms: 20_000,
                protocol_type: "consumer".into(),
                protocols: vec![Protocol { name: "range".into(), metadata: subscription(client.topics) }],
                must_know_member_id: true,
                may_skip_assignment: false,
                fresh_id: Uuid::from_u128(self.ids),
            })),
            Phase::Sync(members) => {
                let all = self
                    .topics
                    .iter()
                    .flat_map(|(topic, count)| (0..*count).map(|at| (topic.to_string(), at)));
                let mut assignments: Vec<_> = members.iter().map(|id| (id.clone(), Owned::new())).collect();
                let count = assignments.len().max(1);
                for (at, partition) in all.enumerate() {
                    assignments
                        .get_mut(at % count)
                        .into_iter()
                        .for_each(|of| _ = of.1.insert(partition.clone()));
                }
                let assignments = assignments.into_iter().map(|(id, of)| (id, written(&of))).collect();
                let (protocol_type, protocol) = (None, None);
                Request::Sync(Sync {
                    group,
                    member_id,
                    instance_id,
                    generation,
                    protocol_type,
                    protocol,
                    assignments,
                })
            }
            Phase::Live => Request::Heartbeat(Heartbeat { group, member_id, instance_id, generation }),
        }
    }

    fn commit(&mut self, count: usize) {
        let Some((batch, _)) = self.in_flight.get(count.wrapping_sub(1)) else { return };
        let batch = *batch;
        self.log.extend(self.in_flight.drain(..count).flat_map(|(_, records)| records));
        self.step(Input::Committed { batch });
    }

    /// Another replica leads, or an append fails; some of what was in flight is in the log all the same.
    fn fail(&mut self) {
        let kept = self.rng.usize(0..=self.in_flight.len());
        let kept: Vec<_> = self.in_flight.drain(..).take(kept).collect();
        self.log.extend(kept.into_iter().flat_map(|(_, records)| records));
        self.step(Input::Lead);
    }

    fn finish_load(&mut self) {
        let Some(load) = self.load.take() else { return };
        let records = self.log.iter().map(|record| (Some(record.encode_key()), record.encode_value()));
        self.step(Input::Loaded { load, records: records.collect(), is_last: true });
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        // Who was not heard of knows it as the coordinator does, and a little earlier.
        for client in &mut self.clients {
            let session_ms = if client.is_classic { CLASSIC_SESSION_MS } else { SESSION_MS };
            if end >= client.heard_ms + session_ms && client.phase != Phase::Out {
                client.owned.clear();
                client.told = None;
                if client.phase == Phase::Live {
                    client.restart();
                }
            }
        }
        while let Some(at_ms) = self.wakes_at_ms.filter(|at_ms| *at_ms <= end) {
            self.now_ms = self.now_ms.max(at_ms);
            self.wakes_at_ms = None;
            self.step(Input::Tick);
        }
        self.now_ms = end;
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.rng.u8(..100) {
                0..60 => {
                    let at = self.rng.usize(..CLIENTS);
                    self.act(at, false);
                }
                60..80 => {
                    let count = self.rng.usize(0..=self.in_flight.len());
                    self.commit(count);
                }
                80..92 => {
                    let ms = self.rng.u64(0..3_000);
                    self.pass(ms);
                }
                92..96 => self.finish_load(),
                96 => self.fail(),
                97 => {
                    let topic = *self.rng.choice(&["a", "b"]).unwrap();
                    *self.topics.get_mut(topic).unwrap() += 1;
                    self.tell_topics();
                }
                _ => {}
            }
        }
        self.calm();
    }

    fn calm(&mut self) {
        for _ in 0..CALM_STEPS {
            self.finish_load();
            self.commit(self.in_flight.len());
            (0..CLIENTS).for_each(|at| self.act(at, true));
            self.commit(self.in_flight.len());
            self.pass(1_000);
        }
        let live: Vec<_> = self.clients.iter().filter(|client| client.phase != Phase::Out).collect();
        assert!(live.iter().all(|client| client.phase == Phase::Live), "everyone is in: {:#?}", self.clients);
        let wanted: BTreeSet<&str> = live.iter().flat_map(|client| client.topics.split('+')).collect();
        let stored = self.coordinator.store().groups().get("g").cloned();
        let is_consumer = stored.as_ref().is_some_and(|stored| stored.consumer.is_some());
        let read: BTreeSet<_> = live.iter().flat_map(|client| client.owned.iter().cloned()).collect();
        for topic in wanted.iter().filter(|_| is_consumer) {
            let all = (0..self.topics[topic]).map(|at| ((*topic).to_string(), at));
            let missing: Vec<_> = all.filter(|partition| !read.contains(partition)).collect();
            assert!(missing.is_empty(), "{missing:?} is read by nobody: {:#?}", self.clients);
        }
        assert!(live.is_empty() || !read.is_empty(), "something is read");
        // What the log gives is what was there.
        self.in_flight.clear();
        self.step(Input::Lead);
        self.finish_load();
        assert_eq!(self.coordinator.store().groups().get("g").cloned(), stored);
    }
}

#[test]
fn no_partition_is_read_by_two_members_of_either_protocol_and_all_are_read_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("GROUP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GROUP_SEEDS").unwrap_or(SEEDS),
    };
    let mut seen = [0; 2];
    for seed in seeds.clone() {
        eprintln!("seed {seed}");
        let mut world = World::new(seed);
        world.run();
        (0..2).for_each(|of| seen[of] += world.seen[of]);
    }
    assert!(
        seeds.end - seeds.start == 1 || seen.iter().all(|count| *count > 0),
        "groups of both types: {seen:?}"
    );
}
