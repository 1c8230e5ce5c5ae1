//! One replica over a directory in memory, and the commands of a story.
//!
//! | command | what it does |
//! |---|---|
//! | `create [hw=N] [lag=MS] [KEY=VALUE…]` | a new replica under this topic configuration; what the checkpoint says |
//! | `configure [KEY=VALUE…]` | a changed topic configuration |
//! | `assign epoch=N [pe=N] [leader=1] [replicas=1] [isr=1] [alive=1:EPOCH] [unclean]` | what the Image says of it |
//! | `produce NAME [acks=all\|1] [records=1] [size=10] [pid=P seq=S pe=E] [timeout=30000] [time=T]` | one batch |
//! | `read NAME offset=N [max=1000000] [watch=BYTES] [epoch=-1] [anywhere] [nearer=ID,…]` | a fetch |
//! | `fetch NAME from=ID offset=N [last=-1] [be=1] [start=0] [watch=BYTES] [epoch=-1] [withheld]` | a replica's fetch |
//! | `change epoch=N … KEY=VALUE…` | `assign` and `configure` in one: by the same Image |
//! | `isr ok\|answered\|ERROR` | the controller takes the ISR wanted (answer and Image, or answer alone), or refuses |
//! | `position` | what a follower wants next |
//! | `offset NAME latest\|earliest\|max-timestamp\|MILLISECONDS` | a ListOffsets |
//! | `epoch-end NAME EPOCH [epoch=-1]` | an OffsetForLeaderEpoch |
//! | `delete-records NAME OFFSET` | a DeleteRecords, -1 for the high watermark |
//! | `stored OFFSET`, `lowered OFFSET` | the checkpoint holds this log start; was lowered to it |
//! | `retention` | retention's round comes by |
//! | `unwatch NAME` | the reader has gone |
//! | `end-turn` | what was gathered is written |
//! | `complete [KIND] [enospc\|eio\|short=BYTES]` | ends the oldest operation in flight |
//! | `settle` | ends turns and operations until there are none; shows everything but the operations |
//! | `tick MS` | time passes |
//! | `close`, `retire` | a clean stop; the topic is deleted |
//! | `state`, `files`, `pending` | shows the offsets, the files, the operations in flight |
//!
//! `complete` with a kind ends operations well until one of that kind is in flight, and that one as it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill::config::{NodeConfig, TopicConfig};
use tidemill::effect::{FileDone, FileError, FileOp, FileResult, Now, Ticket};
use tidemill::log::Log;
use tidemill::log::batch::{BatchBuilder, BatchInfo};
use tidemill::log::check::CheckedBatch;
use tidemill::log::memory_dir::{Kind, MemoryDir};
use tidemill::partition::{
    Acks, Assignment, Effect, Isolation, IsrState, LeaderRecovery, OffsetQuery, Op, Partition, Read, Reader,
    ReplyTo,
};
use tidemill::wire::ErrorCode;

use crate::shown;

/// The wall clock at monotonic time 0.
const WALL_MS: i64 = 1_000_000;

/// A partition, its directory and what is in flight.
#[derive(Default)]
pub struct Stage {
    /// The broker that the replica is on.
    pub node_id: i32,
    pub partition: Option<Partition>,
    pub directory: MemoryDir,
    pub in_flight: Vec<(Ticket, FileOp)>,
    mono_ms: u64,
    names: BTreeMap<u32, String>,
}

/// `KEY=VALUE` words of a command, and words without a value.
pub struct Words<'a> {
    command: &'a str,
    pub words: Vec<&'a str>,
}

impl<'a> Words<'a> {
    pub fn new(command: &'a str) -> Self {
        Self { command, words: command.split_whitespace().skip(1).collect() }
    }

    pub fn word(&self, at: usize) -> &'a str {
        self.words.get(at).unwrap_or_else(|| panic!("a word is missing: {}", self.command))
    }

    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        let parsed = self.value(key).map(|value| value.parse().ok());
        parsed.map_or(default, |number| number.unwrap_or_else(|| panic!("{key}: {}", self.command)))
    }

    fn list(&self, key: &str) -> impl Iterator<Item = i32> {
        let ids = self.value(key).unwrap_or("1").split(',').filter(|id| !id.is_empty());
        ids.map(|id| id.parse().unwrap())
    }
}

impl Stage {
    pub fn on(node_id: i32, mono_ms: u64) -> Self {
        Self { node_id, mono_ms, ..Self::default() }
    }

    /// Carries out a command and shows what came of it.
    pub fn command(&mut self, command: &str) -> Vec<String> {
        let verb = command.split_whitespace().next().unwrap_or_default();
        let words = Words::new(command);
        let mut effects = Vec::new();
        match verb {
            "create" => return self.create(&words),
            "settle" => return self.settle(),
            "complete" => return self.complete(&words),
            "state" => return self.state(),
            "files" => return self.files(),
            "position" => return vec![shown::position(self.partition.as_ref().unwrap().fetch_position())],
            "pending" => return self.in_flight.iter().map(|(_, op)| shown::op(op)).collect(),
            "tick" => self.mono_ms += words.word(0).parse::<u64>().unwrap(),
            _ => {}
        }
        let now = self.now();
        let to = self.reply_to(words.words.first().unwrap_or(&""));
        let partition = self.partition.as_mut().expect("a story begins with create");
        match verb {
            "tick" => partition.wake(now, &mut effects),
            "configure" => {
                let known = partition.assignment().clone();
                partition.change(now, config(&words), known, &mut effects);
            }
            "assign" => partition.assign(now, assignment(&words), &mut effects),
            "change" => partition.change(now, config(&words), assignment(&words), &mut effects),
            "produce" => partition.call(now, to, append(&words, now), &mut effects),
            "read" => partition.call(now, to, read(&words, to, Reader::Consumer), &mut effects),
            "fetch" => partition.call(now, to, read(&words, to, replica(&words)), &mut effects),
            "isr" => isr_altered(partition, now, (self.node_id, words.word(0)), &mut effects),
            "offset" => partition.call(now, to, offset(&words), &mut effects),
            "epoch-end" => partition.call(now, to, epoch_end(&words), &mut effects),
            "delete-records" => {
                let (offset, deadline_ms) = (words.word(1).parse().unwrap(), now.mono_ms + 30_000);
                partition.call(now, to, Op::DeleteRecords { offset, deadline_ms }, &mut effects);
            }
            "stored" => {
                partition.log_start_stored(now, words.word(0).parse().unwrap(), &mut effects);
            }
            "lowered" => {
                partition.log_start_lowered(now, words.word(0).parse().unwrap(), &mut effects);
            }
            "retention" => partition.apply_retention(now, &mut effects),
            "unwatch" => {
                let to = session(&words, to).unwrap_or(to);
                partition.call(now, to, Op::Unwatch, &mut effects);
            }
            "end-turn" => partition.end_turn(now, &mut effects),
            "close" => partition.close(now, &mut effects),
            "retire" => partition.retire(now, &mut effects),
            _ => panic!("no such command: {command}"),
        }
        self.take(effects)
    }

    pub fn now(&self) -> Now {
        Now { mono_ms: self.mono_ms, wall_ms: WALL_MS + self.mono_ms.cast_signed() }
    }

    /// The part of a request that a story calls by this name; a name is one request for ever.
    pub fn reply_to(&mut self, name: &str) -> ReplyTo {
        let known = self.names.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
        let request = known.unwrap_or(self.names.len() as u32);
        self.names.insert(request, name.to_owned());
        ReplyTo { shard: 0, connection: 0, generation: 0, request, part: 0 }
    }

    fn create(&mut self, words: &Words) -> Vec<String> {
        let config = config(words);
        let log = Log::create(uuid::Uuid::from_u128(7), Arc::clone(&config), self.now(), 1);
        *self = Self::on(self.node_id, self.mono_ms);
        let mut partition = Partition::new(self.node_id, config, log);
        partition.restore(words.number("hw", 0), words.number("lag", 30_000));
        self.partition = Some(partition);
        Vec::new()
    }

    /// Shows effects and keeps the operations among them.
    pub fn take(&mut self, effects: Vec<Effect>) -> Vec<String> {
        let shown = effects.iter().map(|effect| shown::effect(effect, &self.names)).collect();
        for effect in effects {
            if let Effect::File(ticket, op) = effect {
                self.in_flight.push((ticket, op));
            }
        }
        shown
    }

    fn complete(&mut self, words: &Words) -> Vec<String> {
        let results = ["enospc", "eio"];
        let wanted = words.words.first().filter(|word| !word.contains('=') && !results.contains(word));
        let mut lines = Vec::new();
        while let Some(kind) = wanted {
            if let Some(at) = self.in_flight.iter().position(|(_, op)| shown::kind(op) == *kind) {
                let found = self.in_flight.remove(at);
                self.in_flight.insert(0, found);
                break;
            }
            lines.extend(self.complete(&Words { command: words.command, words: Vec::new() }).drain(1..));
        }
        assert!(!self.in_flight.is_empty(), "nothing is in flight: {}", words.command);
        let (ticket, op) = self.in_flight.remove(0);
        if let Some(written) = words.value("short") {
            let written = written.parse().unwrap();
            self.directory.fail_next(Kind::Append, FileError::Short { written });
        }
        let result = match words.words.last() {
            Some(&"enospc") => Err(FileError::NoSpace),
            Some(&"eio") => Err(FileError::Io(5)),
            _ => self.execute(&op),
        };
        let effects = self.completed(ticket, result);
        lines.retain(|line| line.contains(": "));
        lines.insert(0, format!("({})", shown::op(&op)));
        lines.extend(self.take(effects));
        lines
    }

    pub fn execute(&mut self, op: &FileOp) -> FileResult {
        let partition = self.partition.as_ref().unwrap();
        self.directory.execute(op, partition.log().append_parts())
    }

    pub fn completed(&mut self, ticket: Ticket, result: Result<FileDone, FileError>) -> Vec<Effect> {
        let (mut effects, now) = (Vec::new(), self.now());
        self.partition.as_mut().unwrap().completed(now, ticket, result, &mut effects);
        effects
    }

    /// Everything runs until nothing more comes; only answers and ends are worth a line.
    pub fn settle(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..1000 {
            let (mut effects, now) = (Vec::new(), self.now());
            self.partition.as_mut().unwrap().end_turn(now, &mut effects);
            if !self.in_flight.is_empty() {
                let (ticket, op) = self.in_flight.remove(0);
                let result = self.execute(&op);
                effects.extend(self.completed(ticket, result));
            }
            let worth =
                |effect: &&Effect| !matches!(effect, Effect::File(..) | Effect::EndTurn | Effect::Following);
            lines.extend(effects.iter().filter(worth).map(|effect| shown::effect(effect, &self.names)));
            let quiet = effects.is_empty();
            self.take(effects);
            if quiet && self.in_flight.is_empty() {
                return lines;
            }
        }
        panic!("it never settles");
    }

    fn state(&self) -> Vec<String> {
        let partition = self.partition.as_ref().unwrap();
        let log = partition.log();
        let (start, end) = (log.log_start_offset(), log.log_end());
        let (durable, written, reserved) = (log.durable_end(), log.written_end(), log.reserved_end());
        let wake = partition.next_wake_ms().map_or("never".to_owned(), |ms| format!("at {ms}"));
        vec![
            format!("high watermark {}, log start {start}, log end {end}", partition.high_watermark()),
            format!("durable {durable}, written {written}, reserved {reserved}; wakes {wake}"),
        ]
    }

    fn files(&self) -> Vec<String> {
        let length = |name| self.directory.file(name).unwrap_or_default().len();
        self.directory.names().map(|name| format!("{name} {} bytes", length(name))).collect()
    }
}

/// Kafka's defaults with the keys of the command over them.
fn config(words: &Words) -> Arc<TopicConfig> {
    let pairs = words.words.iter().filter_map(|word| word.split_once('='));
    Arc::new(TopicConfig::effective(&NodeConfig::default(), pairs))
}

/// All replicas are alive with broker epoch 1 where nothing else is said.
fn assignment(words: &Words) -> Assignment {
    let epoch = words.number("epoch", 0);
    let replicas: Vec<i32> = words.list("replicas").collect();
    let told = |alive: &str| {
        let (id, epoch) = alive.split_once(':').unwrap_or((alive, "1"));
        (id.parse().unwrap(), epoch.parse().unwrap())
    };
    let alive = words.value("alive").map(|alive| alive.split(',').map(told).collect());
    Assignment {
        leader: words.number("leader", 1),
        leader_epoch: epoch,
        partition_epoch: words.number("pe", epoch),
        isr: words.list("isr").collect(),
        recovery: match words.words.contains(&"unclean") {
            true => LeaderRecovery::Recovering,
            false => LeaderRecovery::Recovered,
        },
        broker_epochs: alive.unwrap_or_else(|| replicas.iter().map(|id| (*id, 1)).collect()),
        replicas: replicas.into_iter().collect(),
    }
}

/// The controller takes the change that is in flight and says so, perhaps before the Image does; or it refuses it with
/// an error.
fn isr_altered(partition: &mut Partition, now: Now, (leader, word): (i32, &str), effects: &mut Vec<Effect>) {
    let change = partition.isr_change().expect("a change is in flight").clone();
    let result = match word {
        "ok" | "answered" => Ok(IsrState {
            leader,
            leader_epoch: change.leader_epoch,
            partition_epoch: change.partition_epoch + 1,
            isr: change.isr.iter().map(|(id, _)| *id).collect(),
            recovery: change.recovery,
        }),
        "IneligibleReplica" => Err(ErrorCode::IneligibleReplica),
        "InvalidUpdateVersion" => Err(ErrorCode::InvalidUpdateVersion),
        "FencedLeaderEpoch" => Err(ErrorCode::FencedLeaderEpoch),
        "NotController" => Err(ErrorCode::NotController),
        "OperationNotAttempted" => Err(ErrorCode::OperationNotAttempted),
        other => panic!("no such word of the controller: {other}"),
    };
    let (known, told) = (partition.assignment().clone(), result.clone());
    partition.isr_altered(now, result, effects);
    if let (Ok(IsrState { partition_epoch, isr, recovery, .. }), "ok") = (told, word) {
        partition.assign(now, Assignment { partition_epoch, isr, recovery, ..known }, effects);
    }
}

fn replica(words: &Words) -> Reader {
    Reader::Replica {
        id: words.number("from", 2),
        epoch: words.number("be", 1),
        log_start_offset: words.number("start", 0),
        last_fetched_epoch: words.number("last", -1),
    }
}

fn append(words: &Words, now: Now) -> Op {
    let value = vec![b'v'; words.number("size", 10)];
    let mut builder = BatchBuilder::new();
    if let Some(producer) = words.value("pid") {
        let (epoch, sequence) = (words.number("pe", 0), words.number("seq", 0));
        builder = builder.producer(producer.parse().unwrap(), epoch, sequence);
    }
    let time: i64 = words.number("time", 5_000);
    for _ in 0..words.number("records", 1) {
        builder.push(time, None, Some(&value), &[]);
    }
    let bytes = builder.build();
    let info = BatchInfo::parse(&bytes).unwrap();
    let acks = match words.value("acks") {
        Some("1") => Acks::Leader,
        _ => Acks::All,
    };
    let deadline_ms = now.mono_ms + words.number("timeout", 30_000_u64);
    Op::Append { batch: CheckedBatch { bytes, info }, acks, deadline_ms }
}

/// The address of the watch that a read of a session leaves.
fn session(words: &Words, to: ReplyTo) -> Option<ReplyTo> {
    let id = words.value("session").map(|id| id.parse().unwrap())?;
    Some(ReplyTo::session(to.shard, id, to.request, to.part))
}

fn read(words: &Words, to: ReplyTo, reader: Reader) -> Op {
    let ids = |key: &str| words.value(key).map(|_| words.list(key).collect()).unwrap_or_default();
    Op::Read(Read {
        current_leader_epoch: words.number("epoch", -1),
        watch_below_bytes: words.number("watch", 0),
        session: session(words, to),
        from_follower: words.words.contains(&"anywhere"),
        nearer: ids("nearer"),
        withheld: words.words.contains(&"withheld"),
        ..Read::new(reader, words.number("offset", 0), words.number("max", 1_000_000))
    })
}

fn offset(words: &Words) -> Op {
    let query = match words.word(1) {
        "latest" => OffsetQuery::Latest,
        "earliest" => OffsetQuery::Earliest,
        "max-timestamp" => OffsetQuery::MaxTimestamp,
        time => OffsetQuery::Timestamp(time.parse().unwrap()),
    };
    let isolation = Some(Isolation::Uncommitted);
    Op::Offset { query, isolation, current_leader_epoch: words.number("epoch", -1) }
}

fn epoch_end(words: &Words) -> Op {
    let leader_epoch = words.word(1).parse().unwrap();
    Op::EpochEnd { leader_epoch, current_leader_epoch: words.number("epoch", -1) }
}
