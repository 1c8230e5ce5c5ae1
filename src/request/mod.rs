//! One request: what it needs from partitions, controller and Image, and how the answers become
//! one response. One file per API family. Pure.
//!
//! A request is started once ([`Work::start`]), which leaves calls on partitions and requests to
//! the controller in the [`Scene`]; it is stepped with each answer and with its deadline, and
//! encoded when it is done and every earlier response of its connection has been encoded.

mod acls;
mod alter_configs;
#[cfg(test)]
mod alter_configs_tests;
mod alter_log_dirs;
mod api_versions;
mod assignments;
mod authorized;
mod brokers;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod config_resources;
mod configs;
mod connection;
mod controlled;
mod coordinator;
mod credentials;
mod delete_records;
mod elections;
mod envelope;
mod epochs;
mod features;
mod fetch;
#[cfg(test)]
mod fetch_tests;
mod forward;
mod groups;
mod isr;
mod join_quorum;
mod leader_hint;
mod log_dirs;
mod metadata;
mod nearer;
mod offsets;
mod outbox;
mod partition_state;
mod produce;
mod producer_id;
mod producers;
mod quorum;
mod quotas;
mod raft_messages;
mod reassignments;
#[cfg(test)]
mod refusals_tests;
mod refused;
mod scene;
mod session;
#[cfg(test)]
mod stage;
mod topic_partitions;
mod topics;
mod traffic;
mod unregister;
mod voters;

pub use connection::{Connection, Exchange, RequestContext};
pub use forward::Forwarded;
pub use outbox::{Chunk, Outbox};
pub use producer_id::ProducerIds;
pub use raft_messages::{QuorumAsk, QuorumTold, RaftMail};
pub use refused::Refusals;
pub use scene::{Call, ClusterView, Coordination, Desk, DiskSpace, Node, PreferredDirectory, Scene, Timer};
pub use session::{FetchSessions, MovedSession, WatchFired};
pub use traffic::{MoveRule, Traffic, has_room_for};

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;

use crate::controller::ControllerAnswer;
use crate::effect::ByteSpan;
use crate::group;
use crate::log::check::Budget;
use crate::partition::{Answer, ReplyTo};
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;
use crate::wire::{StrBytes, WireError, beyond, response};

/// Why a connection is closed. Each reason is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The frame's length is negative, too small or above its limit.
    FrameLength,
    /// The header or the body does not decode.
    Malformed,
    /// An API that is not served on this listener.
    UnknownApi,
    /// A version of an API that is not served.
    UnsupportedVersion,
    /// A produce with acks=0 failed: closing is the only way to tell.
    FailedWithoutAcks,
    /// Decoding would cost more memory than allowed.
    TooCostly,
    /// Nothing arrived or left for longer than allowed.
    Idle,
    /// A frame was longer on its way than allowed.
    SlowSender,
    /// Answers were not taken while their memory was needed.
    SlowReader,
    /// The other side closed or the socket failed.
    Peer,
    /// The node stops.
    Stopping,
}

impl From<WireError> for CloseReason {
    fn from(error: WireError) -> Self {
        match error {
            WireError::FrameNegative { .. }
            | WireError::FrameShort { .. }
            | WireError::FrameTooLarge { .. } => Self::FrameLength,
            WireError::ApiUnknown { .. } => Self::UnknownApi,
            WireError::VersionUnsupported { .. } => Self::UnsupportedVersion,
            WireError::TooCostly { .. } => Self::TooCostly,
            _ => Self::Malformed,
        }
    }
}

/// What comes back for one part of a request.
#[derive(Clone, Debug)]
pub enum Answered {
    /// From a partition, with the bytes that a read found.
    Partition(Answer, Option<ByteSpan>),
    /// How much room the log directories have, by index; nothing for one that cannot be asked.
    Space(Vec<Option<DiskSpace>>),
    /// From the controller.
    Controller(Box<ControllerAnswer>),
    /// From the coordinator of a group.
    Coordinator(Box<group::Response>),
    /// From the controller of another node: the whole response, header and body; `None` where nobody could be asked.
    Forwarded(Option<Bytes>),
    /// From the controller's shard, about the metadata quorum.
    Quorum(QuorumTold),
}

/// A request between its start and its response.
#[derive(Debug)]
pub enum Work {
    /// Produce.
    Produce(produce::Produce),
    /// Fetch.
    Fetch(Box<fetch::Fetch>),
    /// ListOffsets.
    Offsets(Box<offsets::Offsets>),
    /// OffsetForLeaderEpoch.
    Epochs(Box<epochs::Epochs>),
    /// DeleteRecords.
    DeleteRecords(Box<delete_records::DeleteRecords>),
    /// DescribeLogDirs.
    LogDirs(Box<log_dirs::LogDirs>),
    /// AlterReplicaLogDirs.
    AlterLogDirs(Box<alter_log_dirs::AlterLogDirs>),
    /// DescribeProducers.
    Producers(Box<producers::Producers>),
    /// FindCoordinator that creates the offsets topic first.
    FindCoordinator(Box<coordinator::FindCoordinator>),
    /// What is asked of groups and committed offsets.
    Groups(Box<groups::Groups>),
    /// Metadata that creates topics first.
    Metadata(Box<metadata::Metadata>),
    /// CreateTopics, DeleteTopics and CreatePartitions.
    Topics(Box<topics::Topics>),
    /// Others whose answer comes from the controller.
    Controlled(Box<controlled::Controlled>),
    /// Another request that a broker passes on.
    Envelope(Box<envelope::Envelope>),
    /// InitProducerId that needs a new block of ids first.
    ProducerId(producer_id::InitProducerId),
    /// What another node's controller decides.
    Forward(Box<forward::Forward>),
    /// RaftMessages.
    RaftMessages(raft_messages::Delivered),
    /// DescribeCluster that asks who leads the controllers.
    Controllers(Box<cluster::Controllers>),
    /// The response is encoded already.
    Encoded(BytesMut),
}

impl Work {
    /// Starts a request. `to` addresses it; its parts are numbered from 0.
    pub fn start(
        header: &RequestHeader,
        body: Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Self, CloseReason> {
        match forward::Forward::start(header, &body, to, scene) {
            Some(work) => Ok(work),
            None => Self::start_here(header, body, to, scene),
        }
    }

    /// Starts a request that is served on this node.
    fn start_here(
        header: &RequestHeader,
        body: Bytes,
        to: ReplyTo,
        scene: &mut Scene,
    ) -> Result<Self, CloseReason> {
        // Produce and Fetch are read in place, in every version.
        let body =
            if header.api.barrier { beyond::request(header.api.key, header.version, body)? } else { body };
        match header.api.key {
            ApiKey::Produce => produce::Produce::start(header, body, to, scene).map(Self::Produce),
            ApiKey::Fetch => fetch::Fetch::start(header, body, to, scene),
            ApiKey::ListOffsets => offsets::Offsets::start(header, &body, to, scene),
            ApiKey::Metadata => metadata::start(header, &body, to, scene),
            ApiKey::FindCoordinator => coordinator::find(header, &body, to, scene),
            ApiKey::OffsetCommit => groups::commit(header, &body, to, scene),
            ApiKey::OffsetFetch => groups::fetch(header, &body, to, scene),
            ApiKey::JoinGroup => groups::join(header, &body, to, scene),
            ApiKey::Heartbeat => groups::heartbeat(header, &body, to, scene),
            ApiKey::LeaveGroup => groups::leave(header, &body, to, scene),
            ApiKey::SyncGroup => groups::sync(header, &body, to, scene),
            ApiKey::DescribeGroups => groups::describe(header, &body, to, scene),
            ApiKey::ListGroups => groups::list(header, &body, to, scene),
            ApiKey::DeleteGroups => groups::delete(header, &body, to, scene),
            ApiKey::OffsetDelete => groups::delete_offsets(header, &body, to, scene),
            ApiKey::ConsumerGroupHeartbeat => groups::consumer_heartbeat(header, &body, to, scene),
            ApiKey::ConsumerGroupDescribe => groups::describe_consumers(header, &body, to, scene),
            ApiKey::ApiVersions => Ok(api_versions::answer(header, &body, scene)),
            ApiKey::CreateTopics => topics::create(header, &body, to, scene),
            ApiKey::DeleteTopics => topics::delete(header, &body, to, scene),
            ApiKey::DeleteRecords => delete_records::DeleteRecords::start(header, &body, to, scene),
            ApiKey::AlterReplicaLogDirs => alter_log_dirs::start(header, &body, to, scene),
            ApiKey::DescribeLogDirs => log_dirs::LogDirs::start(header, &body, to, scene),
            ApiKey::DescribeProducers => producers::Producers::start(header, &body, to, scene),
            ApiKey::InitProducerId => producer_id::start(header, &body, to, scene),
            ApiKey::OffsetForLeaderEpoch => epochs::Epochs::start(header, &body, to, scene),
            ApiKey::DescribeConfigs => configs::describe(header, &body, scene),
            ApiKey::CreatePartitions => topics::extend(header, &body, to, scene),
            ApiKey::DescribeCluster => cluster::describe(header, &body, to, scene),
            ApiKey::AlterConfigs => alter_configs::alter(header, &body, to, scene),
            ApiKey::IncrementalAlterConfigs => alter_configs::alter_incrementally(header, &body, to, scene),
            ApiKey::ListConfigResources => config_resources::list(header, &body, scene),
            ApiKey::DescribeAcls => acls::describe(header, &body, scene),
            ApiKey::CreateAcls => acls::create(header, &body, scene),
            ApiKey::DeleteAcls => acls::delete(header, &body, scene),
            ApiKey::DescribeClientQuotas => quotas::describe(header, &body),
            ApiKey::AlterClientQuotas => quotas::alter(header, &body),
            ApiKey::DescribeUserScramCredentials => credentials::describe(header, &body),
            ApiKey::DescribeTopicPartitions => topic_partitions::describe(header, &body, scene),
            ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::UpdateFeatures
            | ApiKey::DescribeQuorum
            | ApiKey::AddRaftVoter
            | ApiKey::RemoveRaftVoter
            | ApiKey::UpdateRaftVoter
            | ApiKey::UnregisterBroker
            | ApiKey::BrokerRegistration
            | ApiKey::BrokerHeartbeat
            | ApiKey::AllocateProducerIds
            | ApiKey::AlterPartition
            | ApiKey::AssignReplicasToDirs
            | ApiKey::Envelope
            | ApiKey::RaftMessages
            | ApiKey::JoinQuorum => start_controlled(header, &body, to, scene),
        }
    }

    /// Takes an answer for one part.
    pub fn answer(&mut self, header: &RequestHeader, to: ReplyTo, answered: Answered, scene: &mut Scene) {
        if let Answered::Controller(answer) = &answered
            && !matches!(self, Self::Envelope(_) | Self::Forward(_))
        {
            refused::note_impossible(answer, header, scene);
        }
        match (self, answered) {
            (Self::Produce(produce), Answered::Partition(answer, _)) => produce.answer(to.part, answer),
            (Self::Fetch(fetch), Answered::Partition(answer, span)) => fetch.answer(to, answer, span, scene),
            (Self::Offsets(offsets), Answered::Partition(answer, _)) => offsets.answer(to.part, answer),
            (Self::Epochs(epochs), Answered::Partition(answer, _)) => epochs.answer(to.part, answer),
            (Self::DeleteRecords(deletion), Answered::Partition(answer, _)) => {
                deletion.answer(to.part, answer)
            }
            (Self::LogDirs(log_dirs), Answered::Partition(answer, _)) => log_dirs.answer(to.part, &answer),
            (Self::AlterLogDirs(alter), Answered::Partition(answer, _)) => alter.answer(to.part, &answer),
            (Self::LogDirs(log_dirs), Answered::Space(space)) => log_dirs.measured(space),
            (Self::Producers(producers), Answered::Partition(answer, _)) => producers.answer(to.part, answer),
            (Self::Metadata(metadata), Answered::Controller(_)) => metadata.created(),
            (Self::FindCoordinator(find), Answered::Controller(_)) => find.created(),
            (Self::Groups(groups), Answered::Coordinator(response)) => groups.answer(to.part, *response),
            (Self::Topics(topics), Answered::Controller(answer)) => topics.answer(*answer),
            (Self::Controlled(controlled), Answered::Controller(answer)) => controlled.answer(*answer, scene),
            (Self::RaftMessages(delivered), Answered::Quorum(told)) => delivered.answer(told, scene),
            (Self::Controllers(controllers), Answered::Quorum(told)) => controllers.answer(told),
            (Self::Envelope(envelope), answered) => envelope.answer(to, answered, scene),
            (this @ Self::ProducerId(_), Answered::Controller(answer)) => {
                *this = Self::Encoded(producer_id::finish(header, *answer, scene));
            }
            (Self::Forward(forward), Answered::Forwarded(response)) => {
                forward.answer(header, to, response, scene);
            }
            (Self::Forward(forward), answered) => {
                if let Some(work) = forward.served_here() {
                    work.answer(header, to, answered, scene);
                }
            }
            _ => {}
        }
    }

    /// The deadline that the request set has passed.
    pub fn timeout(&mut self, to: ReplyTo, scene: &mut Scene) {
        match self {
            Self::Fetch(fetch) => fetch.timeout(to, scene),
            Self::Topics(topics) => topics.timeout(),
            Self::Controlled(controlled) => controlled.timeout(),
            Self::Forward(forward) => {
                if let Some(work) = forward.served_here() {
                    work.timeout(to, scene);
                }
            }
            Self::Envelope(envelope) => envelope.timeout(to, scene),
            _ => {}
        }
    }

    /// A watch of the session with which it goes on has fired.
    pub fn watch_fired(&mut self, fired: WatchFired, to: ReplyTo, scene: &mut Scene) {
        if let Self::Fetch(fetch) = self {
            fetch.watch_fired(fired, to, scene);
        }
    }

    /// Whether it still looks at what was sent; until it has, no later request of its connection starts.
    pub fn is_checking(&self) -> bool {
        matches!(self, Self::Produce(produce) if produce.is_checking())
    }

    /// Whether looking at what was sent has cost more than its size explains.
    pub fn is_out_of_proportion(&self) -> bool {
        matches!(self, Self::Produce(produce) if produce.is_out_of_proportion())
    }

    /// Goes on looking at what was sent.
    pub fn check_on(&mut self, to: ReplyTo, scene: &mut Scene, budget: &mut Budget) {
        if let Self::Produce(produce) = self {
            produce.check_on(to, scene, budget);
        }
    }

    /// Gives up what a look at what was sent has reached: it will begin anew, and holds nothing until then.
    pub fn rewind_check(&mut self) {
        if let Self::Produce(produce) = self {
            produce.rewind();
        }
    }

    /// Whether it waits for requests of others and holds nothing of its frame: a JoinGroup must not take the room of
    /// those that it waits for.
    pub fn waits_for_others(&self) -> bool {
        matches!(self, Self::Groups(groups) if groups.waits_for_others())
    }

    /// Whether everything it waits for has come.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Produce(produce) => produce.is_done(),
            Self::Fetch(fetch) => fetch.is_done(),
            Self::Offsets(offsets) => offsets.is_done(),
            Self::Epochs(epochs) => epochs.is_done(),
            Self::DeleteRecords(deletion) => deletion.is_done(),
            Self::LogDirs(log_dirs) => log_dirs.is_done(),
            Self::AlterLogDirs(alter) => alter.is_done(),
            Self::Producers(producers) => producers.is_done(),
            Self::Metadata(metadata) => metadata.is_done(),
            Self::FindCoordinator(find) => find.is_done(),
            Self::Groups(groups) => groups.is_done(),
            Self::Topics(topics) => topics.is_done(),
            Self::Controlled(controlled) => controlled.is_done(),
            Self::Envelope(envelope) => envelope.is_done(),
            Self::ProducerId(_) => false,
            Self::Forward(forward) => forward.is_done(),
            Self::RaftMessages(delivered) => delivered.is_done(),
            Self::Controllers(controllers) => controllers.is_done(),
            Self::Encoded(_) => true,
        }
    }

    /// Encodes the response behind the earlier ones.
    pub fn encode(
        self,
        header: &RequestHeader,
        outbox: &mut Outbox,
        scene: &mut Scene,
    ) -> Result<(), CloseReason> {
        match self {
            Self::Produce(produce) => return produce.encode(header, outbox, scene),
            Self::Fetch(fetch) => fetch.encode(header, outbox, scene),
            Self::Offsets(offsets) => offsets.encode(header, outbox.buffer()),
            Self::Epochs(epochs) => epochs.encode(header, outbox.buffer()),
            Self::DeleteRecords(deletion) => deletion.encode(header, outbox.buffer()),
            Self::LogDirs(log_dirs) => log_dirs.encode(header, outbox.buffer(), scene),
            Self::AlterLogDirs(alter) => alter.encode(header, outbox.buffer()),
            Self::Producers(producers) => producers.encode(header, outbox.buffer()),
            Self::Metadata(metadata) => metadata.encode(header, outbox.buffer(), scene),
            Self::FindCoordinator(find) => find.encode(header, outbox.buffer(), scene),
            Self::Groups(groups) => groups.encode(header, outbox.buffer()),
            Self::Topics(topics) => topics.encode(header, outbox.buffer(), scene),
            Self::Controlled(controlled) => {
                return controlled.encode(header, scene).encode(header, outbox, scene);
            }
            Self::Envelope(envelope) => return envelope.encode(header, scene)?.encode(header, outbox, scene),
            Self::ProducerId(_) => unreachable!("an unanswered request is not encoded"),
            Self::Forward(forward) => return forward.into_work()?.encode(header, outbox, scene),
            Self::RaftMessages(delivered) => delivered.encode(header, outbox),
            Self::Controllers(controllers) => {
                return controllers.encode(header).encode(header, outbox, scene);
            }
            Self::Encoded(bytes) => outbox.buffer().extend_from_slice(&bytes),
        }
        Ok(())
    }

    /// The connection is gone: what was left behind elsewhere is taken back.
    pub fn cancel(self, to: ReplyTo, scene: &mut Scene) {
        if let Self::Fetch(fetch) = self {
            fetch.cancel(to, scene);
        }
    }
}

/// Starts a request that brokers, or tools for the cluster, send to the controller.
fn start_controlled(
    header: &RequestHeader,
    body: &Bytes,
    to: ReplyTo,
    scene: &mut Scene,
) -> Result<Work, CloseReason> {
    match header.api.key {
        ApiKey::ElectLeaders => elections::elect(header, body, to, scene),
        ApiKey::AlterPartitionReassignments => reassignments::alter(header, body, to, scene),
        ApiKey::ListPartitionReassignments => reassignments::list(header, body, to, scene),
        ApiKey::UpdateFeatures => features::update(header, body, to, scene),
        ApiKey::DescribeQuorum => quorum::describe(header, body, to, scene),
        ApiKey::AddRaftVoter => voters::add(header, body, to, scene),
        ApiKey::RemoveRaftVoter => voters::remove(header, body, to, scene),
        ApiKey::UpdateRaftVoter => voters::update(header, body, to, scene),
        ApiKey::UnregisterBroker => unregister::unregister(header, body, to, scene),
        ApiKey::BrokerRegistration => brokers::register(header, body, to, scene),
        ApiKey::BrokerHeartbeat => brokers::heartbeat(header, body, to, scene),
        ApiKey::AllocateProducerIds => brokers::allocate_producer_ids(header, body, to, scene),
        ApiKey::AlterPartition => isr::alter(header, body, to, scene),
        ApiKey::AssignReplicasToDirs => assignments::assign(header, body, to, scene),
        ApiKey::Envelope => envelope::open(header, body, to, scene),
        ApiKey::RaftMessages => raft_messages::deliver(body, to, scene),
        ApiKey::JoinQuorum => join_quorum::join(header, body, to, scene),
        // Nothing else is sent here.
        _ => Err(CloseReason::UnknownApi),
    }
}

/// A response that is complete. Its maker sets only fields that the request's version has, or leaves them as
/// they are by default.
fn encoded(header: &RequestHeader, answer: &impl Encodable) -> Work {
    let mut buffer = BytesMut::new();
    response::encode(&mut buffer, header.api.key, header.version, header.correlation_id, answer)
        .expect("a field is set that the version lacks");
    Work::Encoded(buffer)
}
