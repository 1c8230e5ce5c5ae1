//! One request: what it needs from partitions, controller and Image, and how the answers become
//! one response. One file per API family. Pure.
//!
//! A request is started once ([`Work::start`]), which leaves calls on partitions and requests to
//! the controller in the [`Scene`]; it is stepped with each answer and with its deadline, and
//! encoded when it is done and every earlier response of its connection has been encoded.

mod api_versions;
mod authorized;
mod cluster;
mod configs;
mod connection;
mod coordinator;
mod delete_records;
mod epochs;
mod fetch;
#[cfg(test)]
mod fetch_tests;
mod leader_hint;
mod log_dirs;
mod metadata;
mod offsets;
mod outbox;
mod partition_state;
mod produce;
mod producer_id;
mod producers;
mod scene;
mod session;
#[cfg(test)]
mod stage;
mod topic_partitions;
mod topics;

pub use connection::{Connection, Exchange, RequestContext};
pub use outbox::{Chunk, Outbox};
pub use producer_id::ProducerIds;
pub use scene::{Call, ClusterView, Desk, DiskSpace, Node, Scene, Timer};
pub use session::FetchSessions;

use bytes::{Bytes, BytesMut};

use crate::controller::ControllerAnswer;
use crate::effect::ByteSpan;
use crate::log::check::Budget;
use crate::partition::{Answer, ReplyTo};
use crate::wire::WireError;
use crate::wire::api::ApiKey;
use crate::wire::header::RequestHeader;

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
#[derive(Debug)]
pub enum Answered {
    /// From a partition, with the bytes that a read found.
    Partition(Answer, Option<ByteSpan>),
    /// How much room the log directories have, by index; nothing for one that cannot be asked.
    Space(Vec<Option<DiskSpace>>),
    /// From the controller.
    Controller(Box<ControllerAnswer>),
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
    /// DescribeProducers.
    Producers(Box<producers::Producers>),
    /// Metadata that creates topics first.
    Metadata(Box<metadata::Metadata>),
    /// CreateTopics, DeleteTopics and CreatePartitions.
    Topics(Box<topics::Topics>),
    /// InitProducerId that needs a new block of ids first.
    ProducerId(producer_id::InitProducerId),
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
        match header.api.key {
            ApiKey::Produce => produce::Produce::start(header, body, to, scene).map(Self::Produce),
            ApiKey::Fetch => fetch::Fetch::start(header, body, to, scene),
            ApiKey::ListOffsets => offsets::Offsets::start(header, &body, to, scene),
            ApiKey::Metadata => metadata::start(header, &body, to, scene),
            ApiKey::FindCoordinator => coordinator::find(header, &body),
            ApiKey::ApiVersions => Ok(api_versions::answer(header, &body, scene)),
            ApiKey::CreateTopics => topics::create(header, &body, to, scene),
            ApiKey::DeleteTopics => topics::delete(header, &body, to, scene),
            ApiKey::DeleteRecords => delete_records::DeleteRecords::start(header, &body, to, scene),
            ApiKey::AlterReplicaLogDirs => log_dirs::alter(header, &body, scene),
            ApiKey::DescribeLogDirs => log_dirs::LogDirs::start(header, &body, to, scene),
            ApiKey::DescribeProducers => producers::Producers::start(header, &body, to, scene),
            ApiKey::InitProducerId => producer_id::start(header, &body, to, scene),
            ApiKey::OffsetForLeaderEpoch => epochs::Epochs::start(header, &body, to, scene),
            ApiKey::DescribeConfigs => configs::describe(header, &body, scene),
            ApiKey::CreatePartitions => topics::extend(header, &body, to, scene),
            ApiKey::DescribeCluster => cluster::describe(header, &body, scene),
            ApiKey::DescribeTopicPartitions => topic_partitions::describe(header, &body, scene),
        }
    }

    /// Takes an answer for one part.
    pub fn answer(&mut self, header: &RequestHeader, to: ReplyTo, answered: Answered, scene: &mut Scene) {
        match (self, answered) {
            (Self::Produce(produce), Answered::Partition(answer, _)) => produce.answer(to.part, answer),
            (Self::Fetch(fetch), Answered::Partition(answer, span)) => fetch.answer(to, answer, span, scene),
            (Self::Offsets(offsets), Answered::Partition(answer, _)) => offsets.answer(to.part, answer),
            (Self::Epochs(epochs), Answered::Partition(answer, _)) => epochs.answer(to.part, answer),
            (Self::DeleteRecords(deletion), Answered::Partition(answer, _)) => {
                deletion.answer(to.part, answer)
            }
            (Self::LogDirs(log_dirs), Answered::Partition(answer, _)) => log_dirs.answer(to.part, &answer),
            (Self::LogDirs(log_dirs), Answered::Space(space)) => log_dirs.measured(space),
            (Self::Producers(producers), Answered::Partition(answer, _)) => producers.answer(to.part, answer),
            (Self::Metadata(metadata), Answered::Controller(_)) => metadata.created(),
            (Self::Topics(topics), Answered::Controller(answer)) => topics.answer(*answer),
            (this @ Self::ProducerId(_), Answered::Controller(answer)) => {
                *this = Self::Encoded(producer_id::finish(header, *answer, scene));
            }
            _ => {}
        }
    }

    /// The deadline that the request set has passed.
    pub fn timeout(&mut self, to: ReplyTo, scene: &mut Scene) {
        match self {
            Self::Fetch(fetch) => fetch.timeout(to, scene),
            Self::Topics(topics) => topics.timeout(),
            _ => {}
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

    /// Whether everything it waits for has come.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Produce(produce) => produce.is_done(),
            Self::Fetch(fetch) => fetch.is_done(),
            Self::Offsets(offsets) => offsets.is_done(),
            Self::Epochs(epochs) => epochs.is_done(),
            Self::DeleteRecords(deletion) => deletion.is_done(),
            Self::LogDirs(log_dirs) => log_dirs.is_done(),
            Self::Producers(producers) => producers.is_done(),
            Self::Metadata(metadata) => metadata.is_done(),
            Self::Topics(topics) => topics.is_done(),
            Self::ProducerId(_) => false,
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
            Self::Producers(producers) => producers.encode(header, outbox.buffer()),
            Self::Metadata(metadata) => metadata.encode(header, outbox.buffer(), scene),
            Self::Topics(topics) => topics.encode(header, outbox.buffer(), scene),
            Self::ProducerId(_) => unreachable!("an unanswered request is not encoded"),
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
