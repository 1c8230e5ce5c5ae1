//! The metadata controller: requests become records, records are ordered by raft, committed records make the
//! [`Image`]. Pure: time, randomness and file results come in, file operations, Images and answers go out.
//!
//! | file | what it is |
//! |---|---|
//! | [`record`] | the records, and their bytes |
//! | [`image`] | the state that records make, and the only function that changes it |
//! | [`request`] | what is asked and answered |
//! | `topics`, `configs`, [`features`] | which records a request about these makes |
//! | `brokers`, `liveness` | brokers register, are heard, fenced, stopped and unregistered |
//! | `isr`, `elections`, `reassign` | who is in sync, who leads, and where replicas move |
//! | [`directories`] | in which log directories replicas are, and what follows when one fails |
//! | [`placement`] | which brokers, shards and log directories hold a partition |
//! | [`raft`] | the raft node |
//! | `applying` | what raft has decided becomes the Image |
//! | [`quorum`] | its members, their messages, snapshots among them |
//! | [`storage`], [`recovery`] | its log and snapshots on disk |
//!
//! A request is decided on the *speculative* state: committed records and those of all requests before it. Its
//! answer is held until the entry with its records, or the last entry it saw, is committed; so an answer never says
//! what a crash could take back. Losing the leadership drops the speculative state and refuses everything held.

mod answer;
mod applying;
mod brokers;
mod codec;
mod configs;
pub mod directories;
mod elections;
pub mod features;
mod fields;
pub mod image;
mod isr;
mod liveness;
mod partition_image;
pub mod placement;
pub mod quorum;
pub mod raft;
mod reassign;
pub mod record;
pub mod recovery;
pub mod request;
pub mod storage;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

pub use self::image::{Image, ImageDelta, PartitionImage, TopicImage};
pub use self::placement::{ShardId, ShardMap, ShardPlacement};
pub use self::quorum::{Member, Members, RaftPeer, VoterEndpoint};
pub use self::record::{BrokerRegistration, Endpoint, LeaderRecovery, ResourceType};
pub use self::recovery::{Recovered, Recovery};
pub use self::request::{
    ApiError, ControllerAnswer, ControllerRequest, ElectionKind, HeartbeatAnswer, IsrChange, IsrState,
    Reassignment,
};
pub use self::topics::{check_manual_assignment, check_topic_name};

use self::answer::answer;
use self::image::ImageBuilder;
use self::liveness::Liveness;
use self::quorum::{Founding, NOBODY, Quorum};
use self::raft::Raft;
use self::record::{METADATA_VERSION_LATEST, Record};
use self::storage::LogStorage;
use self::topics::Rules;
use crate::config::NodeConfig;
use crate::effect::{FileOp, FileResult, Now, Ticket};
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// How long the log rests after a full device refused to take more of it.
const FULL_MS: u64 = 1000;
/// Milliseconds of one raft tick.
const TICK_MS: u64 = 50;
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

/// What a controller is told at start.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// Raft id of this node, not 0; a wiped disk gets a new one.
    pub raft_id: u64,
    /// The voters of a new cluster, with their raft ids; none where the node joins one that is there. A log that
    /// names its members counts more.
    pub voters: Vec<VoterEndpoint>,
    /// Given to the cluster if the log does not name it yet.
    pub cluster_id: Arc<str>,
    /// The node's configuration: defaults of topics, and what configurations are checked against.
    pub node: Arc<NodeConfig>,
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
    /// The process of a broker is dead, told by its connections: it is fenced at once.
    BrokerGone {
        /// Which one.
        node_id: i32,
        /// Which of its lives, as it registered: an earlier one is not news.
        incarnation: uuid::Uuid,
    },
    /// The connection of a broker's heartbeats is gone, and somebody listens where it did: itself, or its next process.
    BrokerLeft {
        /// Which one.
        node_id: i32,
        /// Which of its lives.
        incarnation: uuid::Uuid,
    },
    /// A file operation ended.
    Completed {
        /// Which one.
        ticket: Ticket,
        /// How.
        result: FileResult,
    },
    /// Another member says something ([`quorum::codec`]).
    Message {
        /// Who, as its connection has shown.
        from: RaftPeer,
        /// One message.
        bytes: Bytes,
    },
    /// What was sent to that raft id may be lost: its connection broke, or cannot be made.
    PeerUnreachable {
        /// Raft id.
        to: u64,
    },
    /// The node stops in order: where it leads, another voter takes over before it is gone.
    Resign,
    /// That raft id says that it, or this node, is no member by that id any more.
    Disowned {
        /// Raft id.
        by: u64,
    },
    /// The process of that raft id is gone for certain: if it led, the next election begins at once, and the broker of
    /// the same process is gone too.
    MemberGone {
        /// Raft id.
        raft_id: u64,
    },
}

/// What a controller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Carry out an operation in the directory [`storage::METADATA_DIRECTORY`].
    File(Ticket, FileOp),
    /// A new version of the metadata, and what changed since the one published before; at first, everything.
    Publish(Arc<Image>, ImageDelta),
    /// An answer, to what is committed. It reflects the Image of `version`: whoever reads on this node gets it when
    /// every shard has applied that.
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
    /// Send a message to another member. It may be lost, or come twice or late; raft sees to it.
    Send {
        /// To whom.
        to: RaftPeer,
        /// One message.
        bytes: Bytes,
    },
    /// Who leads the quorum now, as far as this node knows.
    Leader {
        /// Its node id; `None` while there is nobody.
        node_id: Option<i32>,
        /// Term; rises with every election.
        term: u64,
    },
    /// The disk replaces a lost one: this node is another member of the quorum from now on, which has yet to join.
    RaftId(u64),
    /// What the operator should know, in words.
    Notice(String),
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
    liveness: Liveness,
}

impl Leadership {
    /// Goes on from the state that a decision has made.
    fn keep(&mut self, state: &ImageBuilder) {
        if let Some(why) = state.unfit_leader() {
            panic!("a decision leaves behind that {why}");
        }
        self.speculative = state.image().clone();
    }
}

/// The controller of one node.
pub struct Controller {
    config: ControllerConfig,
    raft: Raft,
    quorum: Quorum,
    storage: LogStorage,
    builder: ImageBuilder,
    applied_index: u64,
    applied_term: u64,
    /// The last entry that was found at the start, and the term that this node was in.
    recovered: (u64, u64),
    /// Version last published; `None` before the first.
    published: Option<u64>,
    leadership: Option<Leadership>,
    queued: VecDeque<(u64, ControllerRequest)>,
    /// Brokers whose processes are known to be gone, until a leader here has fenced them.
    gone: BTreeMap<i32, uuid::Uuid>,
    rng: fastrand::Rng,
    ticked_at_ms: Option<u64>,
    /// Monotonic time of the input that is being taken.
    now_ms: u64,
    /// The device is full: when the log is tried again.
    full_until_ms: Option<u64>,
    /// Nothing was persisted since that was said.
    full_said: bool,
    failed: bool,
}

impl Controller {
    /// Goes on from what a [`Recovery`] found. Give it a [`Input::Tick`] at once.
    pub fn new(mut config: ControllerConfig, recovered: Recovered) -> Result<Self, String> {
        let Recovered { stored, records, at, raft_id } = recovered;
        if let Some(raft_id) = raft_id {
            (config.raft_id, config.voters) = (raft_id, Vec::new());
        }
        let (applied_index, applied_term) = (stored.snapshot_index, stored.snapshot_term);
        let mut builder = ImageBuilder::default();
        for record in &records {
            builder.apply(record).map_err(|e| e.to_string())?;
        }
        let index_last = stored.entries.last().map_or(stored.snapshot_index, |entry| entry.index);
        let term = stored.hard_state.term.max(stored.entries.last().map_or(0, |entry| entry.term));
        let recovered = (index_last, term);
        let founding = Founding::of(&config, &stored);
        let raft = quorum::raft_of(&config, builder.image(), stored)?;
        let rng = fastrand::Rng::with_seed(config.seed);
        Ok(Self {
            raft,
            quorum: Quorum::new(founding),
            storage: LogStorage::new(at),
            builder,
            applied_index,
            applied_term,
            recovered,
            published: None,
            leadership: None,
            queued: VecDeque::new(),
            gone: BTreeMap::new(),
            rng,
            ticked_at_ms: None,
            now_ms: 0,
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
        self.now_ms = now.mono_ms;
        self.quorum.heard_at(now);
        let taken = match input {
            Input::Tick => {
                self.tick(now, out);
                self.look_after_members(now, out);
                self.look_after_brokers(now)
            }
            Input::Request { token, request } => {
                self.hear(now, &request);
                self.enqueue(token, request, out);
                Ok(())
            }
            Input::BrokerGone { node_id, incarnation } => self.broker_gone(node_id, incarnation),
            Input::Completed { ticket, result } => self.complete(now, ticket, result, out),
            Input::Message { from, bytes } => self.take_message(from, &bytes, out),
            Input::PeerUnreachable { to } => {
                self.lose_peer(to);
                Ok(())
            }
            Input::Resign => {
                self.resign();
                Ok(())
            }
            Input::Disowned { .. } => {
                self.disowned();
                Ok(())
            }
            Input::MemberGone { raft_id } => {
                self.raft.leader_gone(raft_id);
                self.member_gone(raft_id)
            }
            Input::BrokerLeft { node_id, incarnation } => {
                self.broker_left(node_id, incarnation);
                Ok(())
            }
        };
        if let Err(why) = taken.and_then(|()| self.settle(out)) {
            self.failed = true;
            out.push(Output::Fatal(why));
            return;
        }
        self.wake_for_brokers(now, out);
        self.close_step(now, out);
    }

    /// The committed metadata as last applied.
    pub fn image(&self) -> &Image {
        self.builder.image()
    }

    /// The raft term that this node is in.
    pub fn term(&self) -> u64 {
        self.raft.status().term
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
        self.tick_quorum(now, out);
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
        // It tells nothing of any Image.
        Output::Answer { token, version: 0, answer }
    }

    /// Carries on until nothing more follows.
    fn settle(&mut self, out: &mut Vec<Output>) -> Result<(), String> {
        loop {
            self.drain_raft(out)?;
            self.refuse_strays(out);
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

    /// Takes the lead when everything before this term is applied; gives it up when raft does. `true` if that changed.
    fn follow_leadership(&mut self, out: &mut Vec<Output>) -> Result<bool, String> {
        let status = self.raft.status();
        let lost = self.leadership.as_ref().is_some_and(|known| !status.leads || known.term != status.term);
        if lost && let Some(leadership) = self.leadership.take() {
            let tokens = leadership.held.into_iter().filter_map(|held| held.token);
            let queued = self.queued.drain(..).map(|(token, _)| token);
            let tokens: Vec<_> = tokens.chain(queued).filter(|token| *token != NOBODY).collect();
            out.extend(tokens.into_iter().map(|token| self.refusal(token)));
            return Ok(true);
        }
        if self.leadership.is_some() || !status.leads || self.applied_term != status.term {
            return Ok(false);
        }
        let own = (self.config.voters.len() == 1).then_some(self.config.node.node_id);
        let mut liveness = Liveness::new(&self.config.node, own, self.builder.image(), self.now_ms);
        if let Some((node_id, silent_ms)) = self.take_silence() {
            liveness.was_silent(node_id, silent_ms);
        }
        self.leadership = Some(Leadership {
            liveness,
            term: status.term,
            speculative: self.builder.image().clone(),
            held: VecDeque::new(),
            bytes_in_flight: 0,
        });
        if self.builder.image().cluster_id().is_none() {
            self.bootstrap()?;
            self.bootstrap_members()?;
        }
        self.fence_gone()?;
        Ok(true)
    }

    /// The first entry of a new cluster: its metadata version, then its name.
    fn bootstrap(&mut self) -> Result<(), String> {
        let mut records = vec![
            Record::MetadataVersion { version: METADATA_VERSION_LATEST },
            Record::ClusterId { cluster_id: self.config.cluster_id.clone() },
        ];
        records.extend(features::of_new_cluster(&self.config.node, self.config.voters.len()));
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        let mut state = ImageBuilder::new(&leadership.speculative);
        topics::apply_all(&mut state, &records, &mut Vec::new());
        leadership.keep(&state);
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
            if self.front_waits() {
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
        let Some(request) = self.decide_members(token, request, out)? else { return Ok(()) };
        let quorum = self.quorum_state(request == ControllerRequest::DescribeQuorum);
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        let mut state = ImageBuilder::new(&leadership.speculative);
        let mut records = Vec::new();
        let status = self.raft.status();
        let mut rules = Rules {
            node: &self.config.node,
            rng: &mut self.rng,
            now_ms: self.now_ms,
            index_next: status.index_last + 1,
            liveness: &mut leadership.liveness,
        };
        let is_whole = request.is_whole();
        let (answer, keep) = answer(&mut rules, &mut state, request, quorum, &mut records);
        if !keep {
            records.clear();
        }
        if is_whole && records.iter().map(Record::bytes_estimate).sum::<usize>() > ENTRY_BYTES_MAX {
            let answer = ControllerAnswer::Refused(ErrorCode::PolicyViolation);
            out.push(Output::Answer { token, version: self.applied_index, answer });
            return Ok(());
        }
        if !records.is_empty() {
            leadership.keep(&state);
            return self.propose(&records, Some(token), answer);
        }
        // It may speak of what is not committed yet: it leaves with the last entry that it saw.
        match leadership.held.back().map(|last| last.index) {
            Some(index) => leadership.held.push_back(Held { index, bytes: 0, token: Some(token), answer }),
            None => out.push(Output::Answer { token, version: self.applied_index, answer }),
        }
        Ok(())
    }

    /// Proposes records that may be more than one entry's; the answer waits for the last one.
    fn propose(
        &mut self,
        records: &[Record],
        token: Option<u64>,
        answer: ControllerAnswer,
    ) -> Result<(), String> {
        let mut entries = topics::entries(records);
        let last = entries.pop().unwrap_or_default();
        for entry in entries {
            let nobody = ControllerAnswer::Refused(ErrorCode::NotController);
            self.propose_entry(Record::encode_all(entry), None, nobody)?;
        }
        self.propose_entry(Record::encode_all(last), token, answer)
    }

    fn propose_entry(
        &mut self,
        data: Vec<u8>,
        token: Option<u64>,
        answer: ControllerAnswer,
    ) -> Result<(), String> {
        let bytes = data.len();
        let Some(leadership) = &mut self.leadership else { return Ok(()) };
        // The limits above keep below raft's own, and raft leads: a refusal is a fault of this code.
        let index = self.raft.propose(data).map_err(|_| "raft refused a proposal of its leader")?;
        let index = if is_planted(Bug::AnsweredBeforeCommit) { 0 } else { index };
        leadership.held.push_back(Held { index, bytes, token, answer });
        leadership.bytes_in_flight += bytes;
        Ok(())
    }
}
