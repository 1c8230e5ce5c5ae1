//! One coordinator over a log in memory, and the commands of a story.
//!
//! | command | what it does |
//! |---|---|
//! | `configure [delay=3000] [size=N] [retention=MS] [metadata=4096] [batch=BYTES]` | another coordinator, same log |
//! | `lead`, `resign` | the partition is led here, or not any more |
//! | `load` | gives it the whole log |
//! | `hold`, `commit [N]` | batches are kept from being committed; all, or N of them, are |
//! | `fail` | what is in flight is lost; it has to load again |
//! | `join NAME GROUP MEMBER\|- [KEY=VALUE…]` | also `c=` client, `i=` instance, `v=` version |
//! | `sync NAME GROUP MEMBER GENERATION [i=] [type=] [name=] [MEMBER:ASSIGNMENT…]` | a leader assigns |
//! | `heartbeat NAME GROUP MEMBER GENERATION [i=INSTANCE]` | |
//! | `leave NAME GROUP MEMBER\|MEMBER@INSTANCE\|-@INSTANCE…` | |
//! | `offsets NAME GROUP MEMBER\|- GENERATION [i=] [keep=MS] [v=] TOPIC/PARTITION:OFFSET[:METADATA]…` | commits |
//! | `fetch NAME GROUP [stable] [TOPIC/PARTITION…]` | reads these offsets, or all |
//! | `fetch-as NAME GROUP MEMBER\|- EPOCH TOPIC/PARTITION…` | reads offsets as a member |
//! | `remove NAME GROUP TOPIC/PARTITION…` | deletes offsets |
//! | `describe NAME GROUP…`, `list NAME [STATE…] [of=TYPE]`, `delete NAME GROUP…` | |
//! | `topics TOPIC=PARTITIONS…` | the cluster has these topics now |
//! | `beat NAME GROUP MEMBER\|- EPOCH [t=TOPIC+…] [re=PATTERN] [i=] [as=ASSIGNOR] [own=T/P+…] [v=1]` | KIP-848 |
//! | `consumers NAME GROUP…` | describes consumer groups |
//! | `drop-topic TOPIC` | the topic is deleted |
//! | `tick MS` | time passes |
//!
//! `p` names protocols and the topics that the member subscribes to: `p=range:a+b,rr:a`.
//!
//! A member's id is its client's name, or its instance, and a number in the order in which ids were made: `c#1`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidemill::effect::Now;
use tidemill::group::consumer::records::Partitions;
use tidemill::group::consumer::request::ConsumerHeartbeat;
use tidemill::group::consumer::topics::{Topic, Topics};
use tidemill::group::consumer::{ConsumerConfig, MigrationPolicy};
use tidemill::group::request::*;
use tidemill::group::{Coordinator, GroupConfig, Input, Output, Record, Request};
use uuid::Uuid;

use crate::shown;

/// The wall clock at monotonic time 0.
const WALL_MS: i64 = 1_000_000;

pub struct Stage {
    coordinator: Coordinator,
    /// What is committed, and what is not.
    log: Vec<Record>,
    in_flight: Vec<(u64, Vec<Record>)>,
    held: bool,
    mono_ms: u64,
    wakes_at_ms: Option<u64>,
    load: u64,
    topics: Arc<Topics>,
    ids: u128,
    names: BTreeMap<u64, String>,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            coordinator: Coordinator::new(GroupConfig::default()),
            log: Vec::new(),
            in_flight: Vec::new(),
            held: false,
            mono_ms: 0,
            wakes_at_ms: None,
            load: 0,
            topics: Arc::default(),
            ids: 0,
            names: BTreeMap::new(),
        }
    }
}

/// The words of a command.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn at(&self, at: usize) -> &'a str {
        self.0.get(at).unwrap_or_else(|| panic!("a word is missing: {:?}", self.0))
    }

    fn text(&self, at: usize) -> Arc<str> {
        id(self.at(at))
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.value(key).map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{key}={text}")))
    }

    fn rest(&self, from: usize) -> impl Iterator<Item = &'a str> {
        self.0.iter().skip(from).copied().filter(|word| !word.contains('='))
    }
}

/// `-` is empty, `c#1` is the client's name and the first id.
pub fn id(word: &str) -> Arc<str> {
    match word.split_once('#') {
        Some((name, number)) => {
            format!("{name}-{}", Uuid::from_u128(number.parse().unwrap()).as_hyphenated()).into()
        }
        None if word == "-" => "".into(),
        None => word.into(),
    }
}

/// A consumer's metadata, as version 0 has it.
pub fn subscription(topics: &str) -> Bytes {
    let topics: Vec<_> = topics.split('+').filter(|topic| !topic.is_empty()).collect();
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as u32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as u16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1i32).to_be_bytes());
    bytes.into()
}

/// The id of a topic is the number of its first letter.
pub fn topic_id(name: &str) -> Uuid {
    Uuid::from_u128(u128::from(u32::from(name.chars().next().unwrap())))
}

/// `a/0+a/1`
fn owned(text: &str) -> Partitions {
    let mut owned = Partitions::new();
    for word in text.split('+').filter(|word| !word.is_empty() && *word != "-") {
        let (topic, partition) = word.split_once('/').unwrap();
        owned.entry(topic_id(topic)).or_default().insert(partition.parse().unwrap());
    }
    owned
}

/// `TOPIC/PARTITION` words, grouped by topic.
fn topics<T>(words: impl Iterator<Item = (Arc<str>, i32, T)>) -> Vec<OfTopic<T>> {
    let mut topics: Vec<OfTopic<T>> = Vec::new();
    for (topic, partition, value) in words {
        match topics.iter_mut().find(|of| of.topic == topic) {
            Some(of) => of.partitions.push((partition, value)),
            None => {
                topics.push(OfTopic { topic, topic_id: Uuid::nil(), partitions: vec![(partition, value)] })
            }
        }
    }
    topics
}

fn partitions<'a>(words: impl Iterator<Item = &'a str>) -> Vec<OfTopic<()>> {
    topics(words.map(|word| {
        let (topic, partition) = word.split_once('/').unwrap();
        (topic.into(), partition.parse().unwrap(), ())
    }))
}

impl Stage {
    /// Carries out a command and shows what came of it.
    pub fn command(&mut self, command: &str) -> Vec<String> {
        let mut words = command.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let words = Words(words.collect());
        let mut shown = Vec::new();
        match verb {
            "configure" => self.configure(&words),
            "lead" => self.step(Input::Lead, &mut shown),
            "resign" => {
                self.in_flight.clear();
                self.step(Input::Resign, &mut shown);
            }
            "load" => self.load(&mut shown),
            "hold" => self.held = true,
            "commit" => {
                self.held = !words.0.is_empty();
                let count = words.0.first().map_or(self.in_flight.len(), |count| count.parse().unwrap());
                self.commit(count, &mut shown);
            }
            "fail" => {
                self.in_flight.clear();
                self.step(Input::Lead, &mut shown);
            }
            "tick" => self.tick(words.at(0).parse().unwrap(), &mut shown),
            "topics" => self.topics(&words, &mut shown),
            "drop-topic" => self.step(Input::TopicsDeleted { topics: [words.text(0)].into() }, &mut shown),
            _ => {
                let token = self.names.len() as u64;
                self.names.insert(token, words.at(0).to_owned());
                let request = self.request(verb, &words);
                self.step(Input::Request { token, request }, &mut shown);
            }
        }
        if !self.held {
            self.commit(self.in_flight.len(), &mut shown);
        }
        shown
    }

    fn configure(&mut self, words: &Words) {
        let default = GroupConfig::default();
        let config = GroupConfig {
            initial_rebalance_delay_ms: words.number("delay", 3000),
            group_max_size: words.number("size", default.group_max_size),
            offsets_retention_ms: words.number("retention", default.offsets_retention_ms),
            offset_metadata_max: words.number("metadata", 4096),
            batch_bytes_max: words.number("batch", default.batch_bytes_max),
            consumer: ConsumerConfig {
                group_max_size: words.number("consumers", default.consumer.group_max_size),
                migration_policy: words
                    .value("policy")
                    .map_or(MigrationPolicy::default(), |name| MigrationPolicy::named(name).unwrap()),
                ..default.consumer
            },
            ..default
        };
        let log = std::mem::take(&mut self.log);
        *self = Self {
            coordinator: Coordinator::new(config),
            log,
            topics: self.topics.clone(),
            mono_ms: self.mono_ms,
            ids: self.ids,
            ..Self::default()
        };
        self.step(Input::Topics(self.topics.clone()), &mut Vec::new());
    }

    fn topics(&mut self, words: &Words, shown: &mut Vec<String>) {
        let topic = |word: &str| {
            let (name, partitions) = word.split_once('=').unwrap();
            (name.into(), Topic { id: topic_id(name), partitions: partitions.parse().unwrap() })
        };
        let topics = words.0.iter().map(|word| topic(word));
        self.topics = Arc::new(Topics::new(self.topics.version() + 1, topics));
        self.step(Input::Topics(self.topics.clone()), shown);
    }

    fn beat(&mut self, words: &Words, group: Arc<str>, instance_id: Option<Arc<str>>) -> ConsumerHeartbeat {
        let epoch = words.at(3).parse().unwrap();
        let member_id = words.text(2);
        if member_id.is_empty() {
            self.ids += 1;
        }
        let joins = epoch == 0;
        let names = |text: &str| text.split('+').filter(|name| !name.is_empty()).map(Arc::from).collect();
        let owned = words.value("own").map(owned).or_else(|| joins.then(Partitions::new));
        ConsumerHeartbeat {
            group,
            member_id,
            must_name_itself: words.value("v") == Some("1"),
            epoch,
            instance_id,
            rack_id: None,
            rebalance_timeout_ms: words.number("rebalance", if joins { 60_000 } else { -1 }),
            topics: words.value("t").map(names),
            regex: words.value("re").map(|pattern| if pattern == "-" { "".into() } else { pattern.into() }),
            assignor: words.value("as").map(Arc::from),
            owned,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            fresh_id: Uuid::from_u128(self.ids),
        }
    }

    fn request(&mut self, verb: &str, words: &Words) -> Request {
        let instance_id = words.value("i").map(Arc::from);
        let group = if words.0.len() > 1 { words.text(1) } else { "".into() };
        match verb {
            "join" => Request::Join(Box::new(self.join(words, group, instance_id))),
            "sync" => {
                let assignments = words.rest(4).map(|word| word.split_once(':').unwrap());
                let assignments =
                    assignments.map(|(member, bytes)| (id(member), Bytes::copy_from_slice(bytes.as_bytes())));
                Request::Sync(Sync {
                    group,
                    member_id: words.text(2),
                    instance_id,
                    generation: words.at(3).parse().unwrap(),
                    protocol_type: words.value("type").map(Arc::from),
                    protocol: words.value("name").map(Arc::from),
                    assignments: assignments.collect(),
                })
            }
            "heartbeat" => {
                let generation = words.at(3).parse().unwrap();
                Request::Heartbeat(Heartbeat { group, member_id: words.text(2), instance_id, generation })
            }
            "leave" => {
                let leaver = |word: &str| match word.split_once('@') {
                    Some((member, instance)) => {
                        Leaver { member_id: id(member), instance_id: Some(instance.into()) }
                    }
                    None => Leaver { member_id: id(word), instance_id: None },
                };
                Request::Leave(Leave { group, members: words.rest(2).map(leaver).collect() })
            }
            "offsets" => Request::CommitOffsets(offsets(words, group, instance_id)),
            "fetch" => {
                let require_stable = words.0.contains(&"stable");
                let wanted = partitions(words.rest(2).filter(|word| *word != "stable"));
                let wanted = (!wanted.is_empty()).then_some(wanted);
                Request::FetchOffsets { groups: vec![FetchedGroup { group, topics: wanted }], require_stable }
            }
            "fetch-as" => {
                let wanted = partitions(words.rest(4));
                let fetched = FetchedGroup { group, topics: Some(wanted) };
                let groups = vec![(fetched, words.text(2), words.at(3).parse().unwrap())];
                Request::FetchMemberOffsets { groups, require_stable: words.0.contains(&"stable=yes") }
            }
            "remove" => Request::DeleteOffsets { group, topics: partitions(words.rest(2)) },
            "beat" => Request::ConsumerHeartbeat(Box::new(self.beat(words, group, instance_id))),
            "consumers" => Request::DescribeConsumers(words.rest(1).map(id).collect()),
            "describe" => Request::Describe(words.rest(1).map(id).collect()),
            "delete" => Request::Delete(words.rest(1).map(id).collect()),
            "list" => {
                let types = words.value("of").into_iter().map(str::to_owned).collect();
                Request::List { states: words.rest(1).map(str::to_owned).collect(), types }
            }
            _ => panic!("no such command: {verb}"),
        }
    }

    fn join(&mut self, words: &Words, group: Arc<str>, instance_id: Option<Arc<str>>) -> Join {
        let member_id = words.text(2);
        let version: i16 = words.number("v", 9);
        let protocols =
            words.value("p").unwrap_or("range:a").split(',').filter(|protocol| *protocol != "-").map(
                |protocol| {
                    let (name, topics) = protocol.split_once(':').unwrap_or((protocol, ""));
                    Protocol { name: name.into(), metadata: subscription(topics) }
                },
            );
        if member_id.is_empty() {
            self.ids += 1;
        }
        Join {
            group,
            member_id,
            instance_id,
            client_id: words.value("c").unwrap_or("c").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: words.number("session", 10_000),
            rebalance_timeout_ms: words.number("rebalance", 60_000),
            protocol_type: id(words.value("type").unwrap_or("consumer")),
            protocols: protocols.collect(),
            must_know_member_id: version >= 4,
            may_skip_assignment: version >= 9,
            fresh_id: Uuid::from_u128(self.ids),
        }
    }

    fn tick(&mut self, ms: u64, shown: &mut Vec<String>) {
        let end = self.mono_ms + ms;
        while let Some(at_ms) = self.wakes_at_ms.filter(|at_ms| *at_ms <= end) {
            self.mono_ms = self.mono_ms.max(at_ms);
            self.wakes_at_ms = None;
            let before = shown.len();
            self.step(Input::Tick, shown);
            if !self.held {
                self.commit(self.in_flight.len(), shown);
            }
            for line in &mut shown[before..] {
                *line = format!("at {}: {line}", self.mono_ms);
            }
        }
        self.mono_ms = end;
    }

    fn load(&mut self, shown: &mut Vec<String>) {
        let records = self.log.iter().map(|record| (Some(record.encode_key()), record.encode_value()));
        let records: Vec<_> = records.collect();
        // In two pieces, as a real log comes in many.
        let (first, second) = records.split_at(records.len() / 2);
        self.step(Input::Loaded { load: self.load, records: first.to_vec(), is_last: false }, shown);
        self.step(Input::Loaded { load: self.load, records: second.to_vec(), is_last: true }, shown);
    }

    fn commit(&mut self, count: usize, shown: &mut Vec<String>) {
        for (batch, records) in self.in_flight.drain(..count).collect::<Vec<_>>() {
            self.log.extend(records);
            self.step(Input::Committed { batch }, shown);
        }
    }

    fn step(&mut self, input: Input, shown: &mut Vec<String>) {
        let now = Now { mono_ms: self.mono_ms, wall_ms: WALL_MS + self.mono_ms.cast_signed() };
        let mut out = Vec::new();
        self.coordinator.step(now, input, &mut out);
        self.coordinator.check_invariants();
        for output in out {
            match output {
                Output::Load { load } => {
                    self.load = load;
                    shown.push("load".into());
                }
                Output::Append { batch, records } => {
                    shown.extend(records.iter().map(shown::record));
                    self.in_flight.push((batch, records));
                }
                Output::Answer { token, response } => {
                    let name = &self.names[&token];
                    shown
                        .extend(shown::response(&response).into_iter().map(|line| format!("{name}: {line}")));
                }
                Output::WakeAt(at_ms) => self.wakes_at_ms = Some(at_ms),
                Output::LoadFailed(why) => shown.push(format!("load failed: {why}")),
            }
        }
    }
}

fn offsets(words: &Words, group: Arc<str>, instance_id: Option<Arc<str>>) -> CommitOffsets {
    let offsets = words.rest(4).map(|word| {
        let mut parts = word.splitn(3, ':');
        let (topic, partition) = parts.next().unwrap().split_once('/').unwrap();
        let offset = parts.next().unwrap().parse().unwrap();
        let metadata = parts.next().unwrap_or_default().into();
        (topic.into(), partition.parse().unwrap(), NewOffset { offset, leader_epoch: -1, metadata })
    });
    CommitOffsets {
        group,
        member_id: words.text(2),
        instance_id,
        generation: words.at(3).parse().unwrap(),
        retention_ms: words.number("keep", -1),
        knows_missing_groups: words.number("v", 9) >= 9,
        topics: topics(offsets),
    }
}
