//! Random clients, failing appends and reloads, from one seed: what is answered is in the log, a reload gives back
//! exactly what is in the log, a member of a generation has one assignment, every request is answered once, and when
//! the faults stop every client gets its assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tidemill::effect::Now;
use tidemill::group::request::*;
use tidemill::group::{Coordinator, GroupConfig, Input, Output, Record, Request};
use tidemill::wire::ErrorCode;
use uuid::Uuid;

use crate::stage::subscription;

/// Seeds of one run; `GROUP_SEED=N` takes one, `GROUP_SEEDS=N` that many.
const SEEDS: u64 = 100;
const STEPS: usize = 600;
const CLIENTS: usize = 9;
const GROUPS: [&str; 3] = ["g", "h", "i"];

/// What a client does next.
#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Join,
    Sync(Vec<Arc<str>>),
    Live,
}

#[derive(Clone, Debug)]
struct Client {
    group: Arc<str>,
    instance_id: Option<Arc<str>>,
    member_id: Arc<str>,
    generation: i32,
    phase: Phase,
    /// The request that it waits for.
    waits: Option<u64>,
}

/// What was asked under a token, and the batch that its step sent off.
struct Asked {
    client: Option<usize>,
    member_id: Arc<str>,
    generation: i32,
    group: Arc<str>,
    batch: Option<u64>,
}

struct World {
    rng: fastrand::Rng,
    coordinator: Coordinator,
    log: Vec<Record>,
    in_flight: Vec<(u64, Vec<Record>)>,
    committed: BTreeSet<u64>,
    mono_ms: u64,
    wakes_at_ms: Option<u64>,
    load: Option<u64>,
    clients: Vec<Client>,
    asked: BTreeMap<u64, Asked>,
    tokens: u64,
    assignments: BTreeMap<(Arc<str>, Arc<str>, i32), Bytes>,
    ids: u128,
}

type Offsets = BTreeMap<(Arc<str>, Arc<str>, i32), i64>;

fn offsets_of(log: &[Record]) -> Offsets {
    let mut offsets = Offsets::new();
    for record in log {
        if let Record::Offset(key, value) = record {
            let key = (key.group.clone(), key.topic.clone(), key.partition);
            match value {
                Some(value) => offsets.insert(key, value.offset),
                None => offsets.remove(&key),
            };
        }
    }
    offsets
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = GroupConfig {
            initial_rebalance_delay_ms: *rng.choice(&[0, 500, 3000]).unwrap(),
            group_max_size: *rng.choice(&[4, 1000]).unwrap(),
            offsets_retention_ms: 40_000,
            expiry_interval_ms: 15_000,
            ..GroupConfig::default()
        };
        let client = |at: usize| Client {
            group: GROUPS[at % GROUPS.len()].into(),
            instance_id: (at % 4 == 3).then(|| format!("instance{at}").into()),
            member_id: "".into(),
            generation: -1,
            phase: Phase::Join,
            waits: None,
        };
        let mut world = Self {
            rng,
            coordinator: Coordinator::new(config),
            log: Vec::new(),
            in_flight: Vec::new(),
            committed: BTreeSet::new(),
            mono_ms: 0,
            wakes_at_ms: None,
            load: None,
            clients: (0..CLIENTS).map(client).collect(),
            asked: BTreeMap::new(),
            tokens: 0,
            assignments: BTreeMap::new(),
            ids: 0,
        };
        world.step(Input::Lead);
        world
    }

    fn step(&mut self, input: Input) -> Option<u64> {
        let now = Now { mono_ms: self.mono_ms, wall_ms: self.mono_ms.cast_signed() };
        let mut out = Vec::new();
        self.coordinator.step(now, input, &mut out);
        self.coordinator.check_invariants();
        let mut sent = None;
        for output in out {
            match output {
                Output::Load { load } => self.load = Some(load),
                Output::Append { batch, records } => {
                    sent = Some(batch);
                    self.in_flight.push((batch, records));
                }
                Output::Answer { token, response } => self.answered(token, &response),
                Output::WakeAt(at_ms) => self.wakes_at_ms = Some(at_ms),
                Output::LoadFailed(why) => panic!("{why}"),
            }
        }
        sent
    }

    fn ask(&mut self, client: Option<usize>, group: &str, request: Request) {
        let token = self.tokens;
        self.tokens += 1;
        let of = client.map(|at| self.clients[at].clone());
        let member_id = of.as_ref().map_or("".into(), |client| client.member_id.clone());
        let generation = of.map_or(-1, |client| client.generation);
        self.asked.insert(token, Asked { client, member_id, generation, group: group.into(), batch: None });
        if let Some(at) = client {
            self.clients[at].waits = Some(token);
        }
        let sent = self.step(Input::Request { token, request });
        if let Some(asked) = self.asked.get_mut(&token) {
            asked.batch = sent;
        } else {
            assert_eq!(sent, None, "an answer left together with its records");
        }
    }

    fn answered(&mut self, token: u64, response: &Response) {
        let asked = self.asked.remove(&token).expect("one answer for each request");
        let is_committed = asked.batch.is_none_or(|batch| self.committed.contains(&batch));
        match response {
            Response::OffsetsCommitted(_)
            | Response::OffsetsDeleted(_)
            | Response::Deleted(_)
            | Response::Left(_) => {
                assert!(is_committed, "answered before it was committed: {response:?}");
            }
            Response::Synced(synced) if synced.error.is_none() => {
                assert!(is_committed, "assigned before it was committed");
                let key = (asked.group.clone(), asked.member_id.clone(), asked.generation);
                let first = self.assignments.entry(key).or_insert_with(|| synced.assignment.clone());
                assert_eq!(
                    *first, synced.assignment,
                    "{} of generation {}",
                    asked.member_id, asked.generation
                );
            }
            _ => {}
        }
        let Some(client) = asked.client.map(|at| &mut self.clients[at]) else { return };
        if client.waits == Some(token) {
            client.waits = None;
            client.learn(response);
        }
    }

    fn act(&mut self, at: usize, is_calm: bool) {
        let mut client = self.clients[at].clone();
        if client.waits.is_some() {
            // A connection breaks, and the client asks again on another.
            if !is_calm && self.rng.u8(..) < 8 {
                self.clients[at].waits = None;
            }
            return;
        }
        if !is_calm && self.rng.u8(..) < 10 {
            client.generation += self.rng.i32(-1..2);
            self.clients[at] = client.clone();
        }
        let (group, member_id, instance_id) =
            (client.group.clone(), client.member_id.clone(), client.instance_id.clone());
        let generation = client.generation;
        let request = match &client.phase {
            Phase::Join => Request::Join(Box::new(self.join(&client))),
            Phase::Sync(members) => {
                let round = self.rng.u32(..);
                let assignments =
                    members.iter().map(|id| (id.clone(), format!("{id} {generation} {round}").into()));
                let assignments = assignments.collect();
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
            Phase::Live => match self.rng.u8(..100) {
                0..3 if !is_calm => {
                    Request::Leave(Leave { group, members: vec![Leaver { member_id, instance_id }] })
                }
                3..6 if !is_calm => {
                    self.clients[at].restart();
                    return;
                }
                6..12 if !is_calm => Request::Join(Box::new(self.join(&client))),
                12..50 => Request::CommitOffsets(self.offsets(group, member_id, instance_id, generation)),
                _ => Request::Heartbeat(Heartbeat { group, member_id, instance_id, generation }),
            },
        };
        self.ask(Some(at), &client.group, request);
    }

    fn join(&mut self, client: &Client) -> Join {
        self.ids += 1;
        let protocols = self.rng.choice(["range", "range,sticky", "sticky,range"]).unwrap().split(',');
        let metadata = subscription(self.rng.choice(["t", "t+u"]).unwrap());
        Join {
            group: client.group.clone(),
            member_id: client.member_id.clone(),
            instance_id: client.instance_id.clone(),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: self.rng.i32(1..8000),
            protocol_type: "consumer".into(),
            protocols: protocols
                .map(|name| Protocol { name: name.into(), metadata: metadata.clone() })
                .collect(),
            must_know_member_id: self.rng.bool(),
            may_skip_assignment: self.rng.bool(),
            fresh_id: Uuid::from_u128(self.ids),
        }
    }

    fn offsets(
        &mut self,
        group: Arc<str>,
        member_id: Arc<str>,
        instance_id: Option<Arc<str>>,
        generation: i32,
    ) -> CommitOffsets {
        let topics = ["t", "u", "v"].into_iter().filter(|_| self.rng.bool()).collect::<Vec<_>>();
        let topics = topics.into_iter().map(|topic| {
            let new = NewOffset { offset: self.rng.i64(0..1000), leader_epoch: -1, metadata: "".into() };
            OfTopic {
                topic: topic.into(),
                topic_id: Uuid::nil(),
                partitions: vec![(self.rng.i32(0..3), new)],
            }
        });
        let topics = topics.collect();
        CommitOffsets {
            group,
            member_id,
            instance_id,
            generation,
            retention_ms: -1,
            knows_missing_groups: true,
            topics,
        }
    }

    /// Something that is none of the members' business.
    fn meddle(&mut self) {
        let group: Arc<str> =
            (*self.rng.choice([GROUPS[0], GROUPS[1], GROUPS[2], "simple"].iter()).unwrap()).into();
        let topics =
            vec![OfTopic { topic: "t".into(), topic_id: Uuid::nil(), partitions: vec![(0, ()), (1, ())] }];
        let require_stable = self.rng.bool();
        let request = match self.rng.u8(..6) {
            0 => Request::Delete(vec![group.clone()]),
            1 => Request::DeleteOffsets { group: group.clone(), topics },
            2 => Request::CommitOffsets(self.offsets("simple".into(), "".into(), None, -1)),
            3 => {
                let groups = vec![FetchedGroup { group: group.clone(), topics: Some(topics) }];
                Request::FetchOffsets { groups, require_stable }
            }
            4 => Request::Describe(vec![group.clone()]),
            _ => {
                self.step(Input::TopicsDeleted { topics: ["u".into()].into() });
                return;
            }
        };
        self.ask(None, &group, request);
    }

    fn commit(&mut self, count: usize) {
        let Some((last, _)) = self.in_flight.get(count.wrapping_sub(1)) else { return };
        let last = *last;
        for (batch, records) in self.in_flight.drain(..count) {
            self.committed.insert(batch);
            self.log.extend(records);
        }
        self.step(Input::Committed { batch: last });
        self.check_store();
    }

    /// The committed state is what the log says.
    fn check_store(&self) {
        let mut stored = Offsets::new();
        for (group, of) in self.coordinator.store().groups() {
            for (topic, partitions) in of.offsets.iter() {
                let offsets = partitions.iter();
                stored
                    .extend(offsets.map(|(partition, value)| {
                        ((group.clone(), topic.clone(), *partition), value.offset)
                    }));
            }
        }
        assert_eq!(stored, offsets_of(&self.log));
    }

    /// An append fails or another replica leads: some of what was in flight is in the log all the same.
    fn fail(&mut self) {
        let kept = self.rng.usize(0..=self.in_flight.len());
        let kept: Vec<_> = self.in_flight.drain(..).take(kept).collect();
        self.log.extend(kept.into_iter().flat_map(|(_, records)| records));
        if self.rng.bool() {
            self.load = None;
            self.step(Input::Resign);
        }
        self.step(Input::Lead);
    }

    fn finish_load(&mut self) {
        let Some(load) = self.load.take() else { return };
        let records = self.log.iter().map(|record| (Some(record.encode_key()), record.encode_value()));
        let records = records.collect();
        self.step(Input::Loaded { load, records, is_last: true });
        self.check_store();
    }

    fn pass(&mut self, ms: u64) {
        let end = self.mono_ms + ms;
        while let Some(at_ms) = self.wakes_at_ms.filter(|at_ms| *at_ms <= end) {
            self.mono_ms = self.mono_ms.max(at_ms);
            self.wakes_at_ms = None;
            self.step(Input::Tick);
            if self.rng.bool() {
                self.mono_ms += 1;
            }
        }
        self.mono_ms = self.mono_ms.max(end);
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.rng.u8(..100) {
                0 => self.fail(),
                1..4 => self.finish_load(),
                4..10 => self.meddle(),
                10..30 => {
                    let count = self.rng.usize(0..=self.in_flight.len());
                    self.commit(count);
                }
                30..40 => {
                    let ms = self.rng.u64(0..2500);
                    self.pass(ms);
                }
                _ => {
                    let at = self.rng.usize(..CLIENTS);
                    self.act(at, false);
                }
            }
        }
    }

    /// Faults stop; everybody who may be in a group is to have an assignment of its last generation.
    fn calm_down(&mut self) {
        self.finish_load();
        for _ in 0..400 {
            self.commit(self.in_flight.len());
            (0..CLIENTS).for_each(|at| self.act(at, true));
            self.commit(self.in_flight.len());
            self.pass(250);
        }
        for group in GROUPS {
            let live = self.clients.iter().filter(|client| &*client.group == group);
            let generations: BTreeSet<_> = live.clone().map(|client| client.generation).collect();
            let is_done = live.clone().all(|client| client.phase == Phase::Live && client.waits.is_none());
            assert!(is_done && generations.len() == 1, "{group}: {:?}", live.collect::<Vec<_>>());
        }
        self.step(Input::Resign);
        assert!(
            self.asked.is_empty(),
            "every request is answered: {:?}",
            self.asked.keys().collect::<Vec<_>>()
        );
    }
}

impl Client {
    fn restart(&mut self) {
        (self.member_id, self.generation, self.phase) = ("".into(), -1, Phase::Join);
    }

    fn fail(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId | ErrorCode::GroupMaxSizeReached => {
                self.restart()
            }
            ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration => self.phase = Phase::Join,
            // The coordinator is elsewhere or not ready: the same again, but a request that was lost is a new join.
            _ if matches!(self.phase, Phase::Sync(_)) => self.phase = Phase::Join,
            _ => {}
        }
    }

    fn learn(&mut self, response: &Response) {
        match response {
            Response::Joined(joined) if joined.error == Some(ErrorCode::MemberIdRequired) => {
                self.member_id = joined.member_id.clone();
            }
            Response::Joined(Joined { error: Some(error), .. })
            | Response::Synced(Synced { error: Some(error), .. })
            | Response::Heartbeat(Some(error))
            | Response::Refused(error) => self.fail(*error),
            Response::Joined(joined) => {
                self.member_id = joined.member_id.clone();
                self.generation = joined.generation;
                let members = joined.members.iter().map(|member| member.member_id.clone());
                self.phase = Phase::Sync(if joined.skip_assignment { Vec::new() } else { members.collect() });
            }
            Response::Synced(_) => self.phase = Phase::Live,
            Response::Left(_) => self.restart(),
            _ => {}
        }
    }
}

#[test]
fn random_clients_and_failing_appends_break_no_promise() {
    let number = |key: &str| std::env::var(key).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match (number("GROUP_SEED"), number("GROUP_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    };
    let mut assigned = 0;
    for seed in seeds.clone() {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.calm_down();
            world.assignments.len()
        });
        assigned += result.unwrap_or_else(|_| panic!("again with GROUP_SEED={seed}"));
    }
    assert!(assigned > 20 * seeds.count(), "the clients did something: {assigned}");
}
