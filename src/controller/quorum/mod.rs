//! The metadata quorum: who belongs to it, what its members say to each other, and how a node is brought up to date.
//!
//! | file | what it is |
//! |---|---|
//! | [`members`] | voters and learners, and the record that holds them |
//! | [`codec`] | the bytes of messages |
//! | `proto` | messages and entries as the raft library has them |
//! | `memory` | the log in memory, as the library reads it |
//! | `transfer` | snapshots in chunks |
//! | `founding` | a voter with an empty disk finds out whether its quorum is new |
//! | `care` | what a leader does for its quorum by itself |
//! | `requests` | who may join, vote and go |
//! | `replicas` | what a leader knows of the other members |
//! | `host` | the part of the [`Controller`](super::Controller) that has to do with it |
//!
//! A node alone in its quorum needs none of it: it has nobody to send to and never ticks.

mod care;
pub mod codec;
mod founding;
mod host;
pub mod members;
pub(super) mod memory;
pub(super) mod proto;
mod replicas;
mod requests;
mod transfer;

use std::collections::{BTreeMap, VecDeque};

pub(super) use self::founding::Founding;
pub(super) use self::host::raft_of;
pub use self::members::{Member, Members, RaftPeer, VoterEndpoint, founder_raft_id, raft_id_of};

use self::codec::Message;
use self::replicas::Replicas;
use self::transfer::{Receiver, Senders};
use super::image::Image;
use super::record::METADATA_VERSION_LATEST;
use crate::effect::Now;

/// The first metadata version whose records may name the members: 3, or the latest as long as that is older.
pub const QUORUM_METADATA_VERSION: u16 =
    if METADATA_VERSION_LATEST < 3 { METADATA_VERSION_LATEST } else { 3 };
/// The token of a request that the controller makes itself: nobody waits for its answer.
pub(super) const NOBODY: u64 = u64::MAX;

/// What a controller keeps for its quorum beside raft itself.
#[derive(Debug, Default)]
pub(super) struct Quorum {
    /// Messages that wait until the work of that number is persisted.
    pub(super) held: VecDeque<(u64, Message)>,
    senders: Senders,
    /// A snapshot that is arriving.
    making: Option<Receiver>,
    /// A snapshot that has arrived and was given to raft, which may not want it.
    pub(super) arrived: Option<Arrived>,
    /// The one that raft took, until it is on disk.
    pub(super) installing: Option<(u64, Arrived)>,
    replicas: Replicas,
    /// Node ids of senders that are no members as far as this node knows.
    strangers: BTreeMap<u64, i32>,
    /// This node does not know yet whether its quorum is new; until then it says nothing to raft.
    pub(super) founding: Option<Founding>,
    /// Who founded the quorum with this node, and the numbers of their lives.
    founders: BTreeMap<u64, u64>,
    /// The raft id that this node is to have, as soon as that is on its disk.
    renewing: Option<u64>,
    /// Leader and term that were told last.
    told: Option<(Option<i32>, u64)>,
    /// The last other leader.
    silence: Option<Silence>,
    wall_ms: i64,
}

/// For how long a leader was not heard, in ticks that this node has lived through: while it was stopped itself it could
/// hear nobody.
#[derive(Clone, Copy, Debug)]
struct Silence {
    raft_id: u64,
    ticks: u64,
}

/// A leader's snapshot, read.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) bytes: bytes::Bytes,
    pub(super) image: Image,
}

impl Quorum {
    /// Of a node that has yet to find out whether its quorum is new, or not.
    pub(super) fn new(founding: Option<Founding>) -> Self {
        Self { founding, ..Self::default() }
    }

    /// What is done now is as of this moment.
    pub(super) fn heard_at(&mut self, now: Now) {
        self.wall_ms = now.wall_ms;
    }
}
