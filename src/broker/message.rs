//! What crosses a shard's border: towards other shards ([`Message`]) and towards the shell that
//! carries out its wishes ([`Output`]).

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::peers::{LinkId, PeersMessage};
use crate::config::NodeConfig;
use crate::controller::{ControllerRequest, ShardId};
use crate::effect::{ByteSpan, FileOp, Ticket};
use crate::log::Recovery;
use crate::partition::{Answer, ReadFound, ReplyTo};
use crate::request::{Answered, Call, CloseReason, ClusterView, Coordination, PreferredDirectory};

/// A connection on this shard. The generation tells successive connections in one slot apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    /// Its slot.
    pub slot: u32,
    /// How many connections had the slot before, plus one.
    pub generation: u32,
}

impl ConnectionKey {
    /// The connection of a request of this shard.
    pub(super) fn of(to: ReplyTo) -> Self {
        Self { slot: to.connection, generation: to.generation }
    }
}

/// An answer on its way back to the connection's shard.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The request part.
    pub to: ReplyTo,
    /// The answer.
    pub answer: Answer,
    /// The bytes that a read found, open for sending.
    pub span: Option<ByteSpan>,
}

/// How far one replica has got, for the checkpoint files of its log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which of the node's log directories.
    pub directory: u16,
    /// The topic's id: an answer may be older than the topic's removal.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
    /// Everything below is synced.
    pub recovery_point: i64,
    /// First offset there is.
    pub log_start_offset: i64,
    /// First offset that is not committed.
    pub high_watermark: i64,
    /// Where the log starts at least by the names of its segments, whatever a power cut undoes.
    pub gone_below: i64,
    /// Not a survey: the log start in the checkpoint is that of a log that is no more, and this one takes its place.
    pub lowers: bool,
    /// It is offline, or was closed without everything that a clean stop writes: its log directory
    /// must not pass for one that was recovered or stopped cleanly.
    pub unclean: bool,
}

/// A replica that is in another log directory now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
    /// The log directory that it left.
    pub from: u16,
    /// The one where it is.
    pub to: u16,
}

/// What one shard says to another of its node.
#[derive(Clone, Debug)]
pub enum Message {
    /// A request part for a partition there, routed by this version of the view. An owner that
    /// is behind takes nothing more from this sender until it has caught up.
    Call {
        /// The view's version.
        version: u64,
        /// The request part.
        call: Call,
    },
    /// The answer to a call.
    Delivery(Delivery),
    /// A request part for the coordinator of a partition there, routed like a call.
    Coordinate {
        /// The view's version.
        version: u64,
        /// The request part.
        coordination: Coordination,
    },
    /// To the controller's shard: a request that changes metadata.
    Control {
        /// Where the answer goes.
        to: ReplyTo,
        /// Whether it came on a listener of controllers.
        is_peer: bool,
        /// The request.
        request: Box<ControllerRequest>,
    },
    /// The answer to a request part, of whoever but a partition was asked for it; the controller's to a client
    /// comes once every shard has applied it.
    Answered(ReplyTo, Answered),
    /// From the controller's shard: the cluster as it is now.
    Publish(Arc<ClusterView>),
    /// To the controller's shard: the sender's partitions agree with this version.
    Applied(u64),
    /// From the controller's shard: tell how far your replicas have got.
    Survey,
    /// To the controller's shard: how far the sender's replicas have got, and how many are still
    /// being recovered.
    Surveyed(Vec<Progress>, usize),
    /// This log directory failed: its replicas go offline.
    DirectoryOffline(u16),
    /// To the controller's shard: make the log starts of these replicas durable.
    StoreLogStarts(Vec<Progress>),
    /// From the controller's shard: these log starts are durable.
    LogStartsStored(Vec<Progress>),
    /// To the controller's shard: a replica is in another log directory.
    Moved(Moved),
    /// To the controller's shard: where a replica is to be put if this node gets it.
    PreferDirectory(PreferredDirectory),
    /// What concerns other nodes.
    Peers(PeersMessage),
    /// From the controller's shard: stop cleanly.
    Stop,
    /// To the controller's shard: the sender's replicas are closed.
    Stopped(Vec<Progress>),
}

/// Whose directory a file operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The replica in this slot of the shard.
    Replica(u32),
    /// The controller's own log, on its shard.
    Controller,
    /// One of the node's log directories, on the controller's shard.
    Directory(u16),
}

/// What a shard asks of its shell.
#[derive(Debug)]
pub enum Output {
    /// From now on this owner's directory is `<log directory>/<name>`.
    Own {
        /// The owner.
        owner: Owner,
        /// Which of the node's log directories.
        directory: u16,
        /// Name of the owner's directory in it.
        name: String,
    },
    /// This owner asks nothing more: forget its directory and close its files.
    Disown(Owner),
    /// Carry out an operation and complete it.
    File(Owner, Ticket, FileOp),
    /// Open what a read found for sending, then deliver it.
    Open {
        /// Slot of the replica.
        slot: u32,
        /// Where the answer goes.
        to: ReplyTo,
        /// What was found; the span is there.
        found: ReadFound,
    },
    /// Tell a request how much room the log directories have (`Shard::measured`).
    Measure(ReplyTo),
    /// Read what a span covers and hand it back; no bytes where there was no descriptor to open the file.
    ReadSpan {
        /// Who wants it.
        to: ReplyTo,
        /// The range.
        span: ByteSpan,
    },
    /// Run a recovery in this replica's directory and hand back how it ended.
    Recover(u32, Box<Recovery>),
    /// Hand a message to another shard.
    Send(ShardId, Message),
    /// The connection has something to send.
    Flush(ConnectionKey),
    /// Close the connection, now.
    Close(ConnectionKey, CloseReason),
    /// Connect to another node; `Shard::link_up` or `Shard::link_down` tells what came of it. A link that was lost is
    /// dialled again under the same id.
    Dial {
        /// The link.
        link: LinkId,
        /// A name or an address without brackets.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// Send a whole frame, with its prefix, behind the earlier ones.
    LinkSend {
        /// The link; it is up.
        link: LinkId,
        /// The frame.
        bytes: Bytes,
    },
    /// End a connection or a dial. Nothing of it comes in any more; what was not sent is not sent.
    LinkClose {
        /// The link.
        link: LinkId,
    },
    /// The node is registered and every shard knows: clients may come.
    Ready,
    /// Something that the operator should know.
    Say(String),
    /// This log directory failed: nothing in it is served any more.
    DirectoryOffline(u16),
    /// The node's configuration with the values given while it runs, as it is from now on.
    Configured(Arc<NodeConfig>),
    /// The shard is closed: its part of a clean stop is done.
    Closed,
    /// The node has stopped cleanly: checkpoints and the clean-shutdown marker are written.
    Finished,
    /// The node cannot go on.
    Fatal(String),
}
