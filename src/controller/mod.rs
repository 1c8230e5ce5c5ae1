//! The metadata controller: requests become records, records are ordered by raft, committed records make the
//! [`Image`]. Pure: time, randomness and file results come in, file operations, Images and answers go out.
//!
//! | file | what it is |
//! |---|---|
//! | [`record`] | the records, and their bytes |
//! | [`image`] | the state that records make, and the only function that changes it |
//! | [`request`] | what is asked and answered |
//! | `topics` | which records a request makes |
//! | [`placement`] | which brokers, shards and log directories hold a partition |
//! | [`raft`] | the raft node |
//! | [`storage`], [`recovery`] | its log and snapshots on disk |
//!
//! A request is decided on the *speculative* state: committed records and those of all requests before it. Its
//! answer is held until the entry with its records, or the last entry it saw, is committed; so an answer never says
//! what a crash could take back. Losing the leadership drops the speculative state and refuses everything held.

mod codec;
pub mod image;
pub mod placement;
pub mod raft;
pub mod record;
pub mod recovery;
pub mod request;
pub mod storage;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::VecDeque;
use std::sync::Arc;

pub use self::image::{Image, ImageDelta, PartitionImage, TopicImage};
pub use self::placement::{ShardId, ShardMap, ShardPlacement};
pub use self::record::{BrokerRegistration, Endpoint, ResourceType};
pub use self::recovery::{Recovered, Recovery};
pub use self::request::{ApiError, ControllerAnswer, ControllerRequest};
pub use self::topics::{ConfigCheck, check_topic_name};

use self::image::ImageBuilder;
use self::raft::{Entry, Raft};
use self::record::{METADATA_VERSION_LATEST, Record};
use self::request::{NewTopic, TopicAnswer};
use self::storage::{LogStorage, Snapshot, StorageEvent};
use self::topics::Rules;
use crate::effect::{FileOp, FileResult, Now, Ticket};
use crate::wire::ErrorCode;

/// How long the log rests after a full device refused to take more of it.
const FULL_MS: u64 = 1000;
/// Milliseconds of one raft tick.
const TICK_MS: u64 = 20;
/// Ticks made up for after a pause; more would only hold elections that the pause already decided.
const TICKS_AT_ONCE_MAX: u64 = 5;
/// Requests that wait for a leader or for room in the log; more are refused.
const QUEUED_REQUESTS_MAX: usize = 1024;
/// Answers that wait for their commit; further requests queue.
const HELD_ANSWERS_MAX: usize = 4096;
/// Bytes of proposals that wait for their commit; further requests queue.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Bytes of one entry.
const ENTRY_BYTES_MAX: usize = 8 << 20;
/// Producer ids in one block, as in Kafka.
const PRODUCER_ID_BLOCK: i32 = 1000;

/// What a controller is told at start.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Raft id of this node, not 0; a wiped disk gets a new one.
    pub raft_id: u64,
    /// Raft ids of all voters.
    pub voters: Vec<u64>,
    /// Given to the cluster if the log does not name it yet.
    pub cluster_id: Arc<str>,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// Checks a topic's key and value.
    pub check_topic_config: ConfigCheck,
    /// Checks a broker's dynamic key and value.
    pub check_broker_config: ConfigCheck,
    /// A snapshot is taken after that many entries.
    pub snapshot_entries: u64,
    /// A snapshot is taken after that many bytes of log, or as many as the last one has if those are more.
    pub snapshot_bytes: u64,
    /// For topic ids, placement and election timeouts. New at every start of a real node.
    pub seed: u64,
}

/// What happens to a controller.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed; also the first input after [`Controller::new`].
    Tick,
    /// Somebody wants a change.
    Request {
        /// Comes back with the answer.
        token: u64,
        /// What is wanted.
        request: ControllerRequest,
    },
    /// A file operation ended.
    Completed {
        /// Which one.
        ticket: Ticket,
        /// How.
        result: FileResult,
    },
}

/// What a controller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Carry out an operation in the directory [`storage::METADATA_DIRECTORY`].
    File(Ticket, FileOp),
    /// A new version of the metadata, and what changed since the one published before; at first, everything.
    Publish(Arc<Image>, ImageDelta),
    /// An answer. It reflects the Image of `version`: it leaves when every shard has applied that.
    Answer {
        /// As given with the request.
        token: u64,
        /// Image version.
        version: u64,
        /// The answer.
        answer: ControllerAnswer,
    },
    /// Give a [`Input::Tick`] at this monotonic millisecond; replaces an earlier one.
    WakeAt(u64),
    /// The device that holds the metadata log is full: changes of the metadata wait for space.
    Full,
    /// The node must stop; why, in words for the operator. Nothing follows.
    Fatal(String),
}

/// An answer that waits for its commit.
#[derive(Debug)]
struct Held {
    index: u64,
    bytes: usize,
    /// `None` for the controller's own entries.
    token: Option<u64>,
    answer: ControllerAnswer,
}

/// What a leader knows beyond what is committed.
#[derive(Debug)]
struct Leadership {
    term: u64,
    /// The state with every proposal in it. Nobody asks what changed in it, so it must not be a builder that
    /// remembers that for ever.
    speculative: Image,
    /// In order of their indexes.
    held: VecDeque<Held>,
    bytes_in_flight: usize,
}

/// The controller of one node.
pub struct Controller {
    config: ControllerConfig,
    raft: Raft,
    storage: LogStorage,
    builder: ImageBuilder,
    applied_index: u64,
    applied_term: u64,
    /// Version last published; `None` before the first.
    published: Option<u64>,
    leadership: Option<Leadership>,
    queued: VecDeque<(u64, ControllerRequest)>,
    rng: fastrand::Rng,
    ticked_at_ms: Option<u64>,
    /// The device is full: when the log is tried again.
    full_until_ms: Option<u64>,
    /// Nothing was persisted since that was said.
    full_said: bool,
    failed: bool,
}

impl Controller {
    /// Goes on from what a [`Recovery`] found. Give it a [`Input::Tick`] at once.
    pub fn new(config: ControllerConfig, recovered: Recovered) -> Result<Self, String> {
        let Recovered { stored, records, at } = recovered;
        let (applied_index, applied_term) = (stored.snapshot_index, stored.snapshot_term);
        let mut builder = ImageBuilder::default();
        for record in &records {
            builder.apply(record).map_err(|e| e.to_string())?;
        }
        let raft = Raft::new(config.raft_id, &config.voters, stored, config.seed)?;
        let rng = fastrand::Rng::with_seed(config.seed);
        Ok(Self {
            raft,
            storage: LogStorage::new(at),
            builder,
            applied_index,
            applied_term,
            published: None,
            leadership: None,
            queued: VecDeque::new(),
            rng,
            ticked_at_ms: None,
            full_until_ms: None,
            full_said: false,
            failed: false,
            config,
        })
    }

    /// Takes an input; appends to `out` what follows from it.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        if self.failed {
            return;
        }
        let taken = match input {
            Input::Tick => {
                self.tick(now, out);
                Ok(())
            }
            Input::Request { token, request } => {
                self.enqueue(token, request, out);
                Ok(())
            }
            Input::Completed { ticket, result } => self.complete(now, ticket, result, out),
        };
        if let Err(why) = taken.and_then(|()| self.settle(out)) {
            self.failed = true;
            out.push(Output::Fatal(why));
        }
    }

    /// The committed metadata as last applied.
    pub fn image(&self) -> &Image {
        self.builder.image()
    }

    /// Whether this node leads and decides requests.
    pub fn is_active(&self) -> bool {
        self.leadership.is_some()
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        if let Some(until) = self.full_until_ms {
            if until <= now.mono_ms {
                self.full_until_ms = None;
                self.storage.try_again();
            } else {
                out.push(Output::WakeAt(until));
            }
        }
        // A single voter has nobody to wait for: it leads from the start and needs no clock.
        if self.config.voters.len() == 1 {
            return;
        }
        let since = self.ticked_at_ms.get_or_insert(now.mono_ms);
        let ticks = now.mono_ms.saturating_sub(*since) / TICK_MS;
        *since += ticks * TICK_MS;
        let next = *since + TICK_MS;
        (0..ticks.min(TICKS_AT_ONCE_MAX)).for_each(|_| self.raft.tick());
        out.push(Output::WakeAt(next));
    }

    fn enqueue(&mut self, token: u64, request: ControllerRequest, out: &mut Vec<Output>) {
        let status = self.raft.status();
        let elsewhere = !status.leads && status.leader_id != 0;
        if elsewhere || self.queued.len() >= QUEUED_REQUESTS_MAX {
            out.push(self.refusal(token));
        } else {
            self.queued.push_back((token, request));
        }
    }

    fn refusal(&self, token: u64) -> Output {
        let answer = ControllerAnswer::Refused(ErrorCode::NotController);
        Output::Answer { token, version: self.applied_index, answer }
    }

    fn complete(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: FileResult,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        match self.storage.complete(ticket, result) {
            StorageEvent::None => {}
            StorageEvent::Full => {
                let until = now.mono_ms + FULL_MS;
                self.full_until_ms = Some(until);
                if !std::mem::replace(&mut self.full_said, true) {
                    out.push(Output::Full);
                }
                // A node that ticks anyway comes by.
                if self.config.voters.len() == 1 {
                    out.push(Output::WakeAt(until));
                }
            }
            StorageEvent::Persisted(number) => {
                self.full_said = false;
                self.raft.persisted(number);
            }
            StorageEvent::SnapshotTaken(index) => self.raft.compact(index),
            StorageEvent::Failed(why) => return Err(why),
        }
        Ok(())
    }

    /// Carries on until nothing more follows.
    fn settle(&mut self, out: &mut Vec<Output>) -> Result<(), String> {
        loop {
            self.drain_raft(out)?;
            if !self.follow_leadership(out)? && !self.decide_queued(out)? {
                break;
            }
        }
        self.maybe_snapshot()?;
        if let Some((ticket, op)) = self.storage.next_op() {
            out.push(Output::File(ticket, op));
        }
        Ok(())
    }

    fn drain_raft(&mut self, out: &mut Vec<Output>) -> Result<(), String> {
        while let Some(work) = self.raft.ready() {
            for entry in &work.committed {
                self.apply_entry(entry, out)?;
            }
            self.publish(out);
            if !self.storage.append(work.number, work.hard_state, work.entries, work.must_sync) {
                self.raft.persisted(work.number);
            }
        }
        Ok(())
    }

    fn apply_entry(&mut self, entry: &Entry, out: &mut Vec<Output>) -> Result<(), String> {
        assert_eq!(entry.index, self.applied_index + 1, "entries are applied in order, each once");
        let records = Record::decode_all(&entry.data).map_err(|e| format!("entry {}: {e}", entry.index))?;
        if self.published.is_some() && records.iter().any(|record| self.builder.reuses_name(record)) {
            // The name's last owner goes with one Image and the next one comes with another.
            self.publish(out);
        }
        for record in records {
            self.builder.apply(&record).map_err(|e| format!("entry {}: {e}", entry.index))?;
        }
        self.applied_index = entry.index;
        self.applied_term = entry.term;
        Ok(())
    }

    /// Publishes what was applied, then releases the answers that waited for it. Nothing before an
    /// entry of this term is applied: only then is everything that was committed before. An older
    /// Image may have a topic that was deleted and made again, whose new directory would be taken
    /// for another topic's and be removed.
    fn publish(&mut self, out: &mut Vec<Output>) {
        if self.published.is_none() && self.applied_term != self.raft.status().term {
            return;
        }
        if self.published.unwrap_or(0) < self.applied_index {
            let (image, delta) = self.builder.publish(self.applied_index);
            self.published = Some(self.applied_index);
            out.push(Output::Publish(image, delta));
        }
        let Some(leadership) = &mut self.leadership else { return };
        if leadership.term != self.applied_term {
            return;
        }
        while let Some(held) = leadership.held.pop_front_if(|held| held.index <= self.applied_index) {
            leadership.bytes_in_flight -= held.bytes;
            if let Some(token) = held.token {
                out.push(Output::Answer { token, version: self.applied_index, answer: held.answer });
            }
        }
    }

    /// Takes the lead when everything before this term is applied; gives it up when raft does. `true` if that changed.
    fn follow_leadership(&mut self, out: &mut Vec<Output>) -> Result<bool, String> {
        let status = self.raft.status();
        let lost = self.leadership.as_ref().is_some_and(|known| !status.leads || known.term != status.term);
        if lost && let Some(leadership) = self.leadership.take() {
            let tokens = leadership.held.into_iter().filter_map(|held| held.token);
            let queued = self.queued.drain(..).map(|(token, _)| token);
            let tokens: Vec<_> = tokens.chain(queued).collect();
            out.extend(tokens.into_iter().map(|token| self.refusal(token)));
            return Ok(true);
        }
        if self.leadership.is_some() || !status.leads || self.applied_term != status.term {
            return Ok(false);
        }
        self.leadership = Some(Leadership {
            term: status.term,
            speculative: self.builder.image().clone(),
            held: VecDeque::new(),
            bytes_in_flight: 0,
        });
        if self.builder.image().cluster_id().is_none() {
            self.bootstrap()?;
        }
        Ok(true)
    }

    /// The first entry of a new cluster: its metadata version, then its name.
    fn bootstrap(&mut self) -> Result<(), String> {
        let records = [
            Record::MetadataVersion { version: METADATA_VERSION_LATEST },
            Record::ClusterId { cluster_id: self.config.cluster_id.clone() },
        ];
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        let mut state = ImageBuilder::new(&leadership.speculative);
        topics::apply_all(&mut state, &records, &mut Vec::new());
        leadership.speculative = state.image().clone();
        self.propose(&records, None, ControllerAnswer::Refused(ErrorCode::NotController))
    }

    /// Decides requests as long as there is room for their entries. `true` if there was one.
    fn decide_queued(&mut self, out: &mut Vec<Output>) -> Result<bool, String> {
        let mut decided = false;
        while let Some(leadership) = &self.leadership {
            if leadership.held.len() >= HELD_ANSWERS_MAX || leadership.bytes_in_flight >= IN_FLIGHT_BYTES_MAX
            {
                break;
            }
            let Some((token, request)) = self.queued.pop_front() else { break };
            decided = true;
            self.decide(token, request, out)?;
        }
        Ok(decided)
    }

    fn decide(
        &mut self,
        token: u64,
        request: ControllerRequest,
        out: &mut Vec<Output>,
    ) -> Result<(), String> {
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        let mut state = ImageBuilder::new(&leadership.speculative);
        let mut records = Vec::new();
        let entry_index = self.raft.status().index_last + 1;
        let mut rules = Rules {
            num_partitions: self.config.num_partitions,
            default_replication_factor: self.config.default_replication_factor,
            check_topic_config: self.config.check_topic_config,
            check_broker_config: self.config.check_broker_config,
            rng: &mut self.rng,
        };
        let (answer, keep) = answer(&mut rules, &mut state, request, entry_index, &mut records);
        if !keep {
            records.clear();
        }
        if records.iter().map(Record::bytes_estimate).sum::<usize>() > ENTRY_BYTES_MAX {
            let answer = ControllerAnswer::Refused(ErrorCode::PolicyViolation);
            out.push(Output::Answer { token, version: self.applied_index, answer });
            return Ok(());
        }
        if !records.is_empty() {
            leadership.speculative = state.image().clone();
            return self.propose(&records, Some(token), answer);
        }
        // It may speak of what is not committed yet: it leaves with the last entry that it saw.
        match leadership.held.back().map(|last| last.index) {
            Some(index) => leadership.held.push_back(Held { index, bytes: 0, token: Some(token), answer }),
            None => out.push(Output::Answer { token, version: self.applied_index, answer }),
        }
        Ok(())
    }

    fn propose(
        &mut self,
        records: &[Record],
        token: Option<u64>,
        answer: ControllerAnswer,
    ) -> Result<(), String> {
        let data = Record::encode_all(records);
        let bytes = data.len();
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        // The limits above keep below raft's own, and raft leads: a refusal is a fault of this code.
        let index = self.raft.propose(data).map_err(|_| "raft refused a proposal of its leader")?;
        leadership.held.push_back(Held { index, bytes, token, answer });
        leadership.bytes_in_flight += bytes;
        Ok(())
    }

    fn maybe_snapshot(&mut self) -> Result<(), String> {
        let due = self.storage.is_snapshot_due(self.config.snapshot_entries, self.config.snapshot_bytes);
        if !due || self.storage.is_taking_snapshot() || self.applied_index == 0 {
            return Ok(());
        }
        let records = Record::encode_all(&self.builder.image().to_records());
        self.storage.take_snapshot(&Snapshot {
            index: self.applied_index,
            term: self.applied_term,
            hard_state: self.storage.hard_state(),
            records: records.into(),
        })
    }
}

/// What a request makes and is answered, and whether its records are to be kept.
fn answer(
    rules: &mut Rules<'_>,
    state: &mut ImageBuilder,
    request: ControllerRequest,
    entry_index: u64,
    records: &mut Vec<Record>,
) -> (ControllerAnswer, bool) {
    match request {
        ControllerRequest::RegisterBroker { node_id, incarnation, listeners, rack } => {
            let epoch = entry_index as i64;
            let broker = BrokerRegistration { node_id, incarnation, epoch, listeners, rack, fenced: false };
            topics::apply_all(state, &[Record::RegisterBroker(broker)], records);
            (ControllerAnswer::Registered { epoch }, true)
        }
        ControllerRequest::CreateTopics { topics, validate_only } => {
            let answers = topics::create_topics(rules, state, &topics, false, records);
            (ControllerAnswer::Topics(answers), !validate_only)
        }
        ControllerRequest::AutoCreateTopics { names } => {
            let wanted: Vec<NewTopic> = names
                .into_iter()
                .map(|name| NewTopic { name, partitions: -1, replication_factor: -1, ..NewTopic::default() })
                .collect();
            let answers: Vec<TopicAnswer> = topics::create_topics(rules, state, &wanted, true, records);
            (ControllerAnswer::Topics(answers), true)
        }
        ControllerRequest::DeleteTopics { topics } => {
            (ControllerAnswer::Deleted(topics::delete_topics(state, &topics, records)), true)
        }
        ControllerRequest::CreatePartitions { topics, validate_only } => {
            let answers = topics::create_partitions(rules, state, &topics, records);
            (ControllerAnswer::Partitions(answers), !validate_only)
        }
        ControllerRequest::AllocateProducerIds => {
            let first = state.image().producer_id_next();
            let producer_id_next = first.saturating_add(i64::from(PRODUCER_ID_BLOCK));
            topics::apply_all(state, &[Record::ProducerIdBlock { producer_id_next }], records);
            (ControllerAnswer::ProducerIds { first, count: PRODUCER_ID_BLOCK }, true)
        }
        ControllerRequest::AlterConfigs { resources, validate_only } => {
            let answers = topics::alter_configs(rules, state, &resources, records);
            (ControllerAnswer::Configs(answers), !validate_only)
        }
    }
}
