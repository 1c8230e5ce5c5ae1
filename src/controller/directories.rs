//! Which log directory each replica is in, and what follows when one fails (KIP-858): as Kafka's
//! ReplicationControlManager decides it.
//!
//! A broker registers with the ids of its log directories that can be used, tells with its heartbeats which of these
//! have failed since, and with AssignReplicasToDirs where its replicas are. A replica may lead and be in sync only in a
//! directory that its broker has. One that was never assigned to any passes for one that is in such a directory, since
//! nobody knows better; a broker that looks for it in vain says that it is [`LOST`]. It says that first of a replica
//! which is known in a directory that it does not have any more, too: what is there now is a new one, without anything
//! of what was committed.

use uuid::Uuid;

use super::ENTRY_BYTES_MAX;
use super::elections::{self, Draft, Policy};
use super::image::{Image, ImageBuilder, PartitionImage};
use super::record::{BrokerRegistration, METADATA_VERSION_CLUSTER, Record};
use super::topics::{Rules, apply_all};
use crate::wire::ErrorCode;

/// The directory of a replica that its broker has not put anywhere yet (Kafka's `DirectoryId.UNASSIGNED`).
pub const UNASSIGNED: Uuid = Uuid::nil();
/// The directory of a replica that is in none that its broker can use (Kafka's `DirectoryId.LOST`).
pub const LOST: Uuid = Uuid::from_u128(1);
/// The directory of a replica that has one, which nobody has told (Kafka's `DirectoryId.MIGRATING`).
pub const MIGRATING: Uuid = Uuid::from_u128(2);

/// Whether it is the id of a directory, and not a word in its place.
pub fn is_real(directory: Uuid) -> bool {
    ![UNASSIGNED, LOST, MIGRATING].contains(&directory)
}

/// Where a broker's replica is: topic id, partition index, directory id.
pub type Assignment = (Uuid, i32, Uuid);

/// What became of an [`Assignment`], by topic id and partition index.
pub type Assigned = (Uuid, i32, Result<(), ErrorCode>);

impl BrokerRegistration {
    /// Whether a replica in that directory can be served. A broker that has told no directories has all of them.
    pub fn has_online(&self, directory: Uuid) -> bool {
        match directory {
            UNASSIGNED | MIGRATING => true,
            LOST => false,
            _ => self.directories.is_empty() || self.directories.contains(&directory),
        }
    }
}

impl PartitionImage {
    /// The directory of a broker's replica, [`UNASSIGNED`] where none is known.
    pub fn directory_of(&self, node_id: i32) -> Uuid {
        let at = self.replicas.iter().position(|replica| *replica == node_id);
        at.and_then(|at| self.directories.get(at)).copied().unwrap_or(UNASSIGNED)
    }
}

impl Image {
    /// Whether a broker is active and its replica in that directory can be served: it may lead and be in sync.
    pub fn may_lead(&self, node_id: i32, directory: Uuid) -> bool {
        self.broker(node_id).is_some_and(|broker| broker.is_active() && broker.has_online(directory))
    }

    /// Where a new replica of a broker will be, if that is known: in the only directory that it has.
    pub(super) fn default_directory(&self, node_id: i32) -> Uuid {
        match self.broker(node_id).map(|broker| &*broker.directories) {
            Some([only]) => *only,
            _ => UNASSIGNED,
        }
    }

    /// Whether a directory is another broker's.
    pub(super) fn is_directory_of_another(&self, node_id: i32, directories: &[Uuid]) -> bool {
        let mut others = self.brokers().filter(|broker| broker.node_id != node_id);
        others.any(|broker| broker.directories.iter().any(|id| directories.contains(id)))
    }
}

/// A broker is registered as `broker` from now on, perhaps with fewer directories than before: replicas in those that
/// are gone lead nothing, and leave every ISR in which there is another. The record about the broker comes last.
pub(super) fn replace(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    broker: BrokerRegistration,
    records: &mut Vec<Record>,
) {
    let now = broker.clone();
    let mut last = Vec::new();
    apply_all(state, &[Record::RegisterBroker(broker)], &mut last);
    elections::after_lost_directories(rules.node, state, &now, records);
    records.append(&mut last);
}

/// A broker tells which of its directories have failed; it does so with every heartbeat, and what is known changes
/// nothing. `true` if it has none left: it has nothing to serve from.
pub(super) fn lose(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    node_id: i32,
    offline: &[Uuid],
    records: &mut Vec<Record>,
) -> bool {
    let image = state.image();
    if offline.is_empty() || image.metadata_version() < METADATA_VERSION_CLUSTER {
        return false;
    }
    let Some(known) = image.broker(node_id) else { return false };
    let left: Vec<Uuid> = known.directories.iter().filter(|id| !offline.contains(id)).copied().collect();
    if left.len() == known.directories.len() {
        return false;
    }
    // A registration without directories would have all of them: it stays as it is, and the broker is fenced.
    if left.is_empty() {
        return true;
    }
    let broker = BrokerRegistration { directories: left, ..(**known).clone() };
    replace(rules, state, broker, records);
    false
}

/// AssignReplicasToDirs: the answer of the whole; what was asked of a replica is done or refused for itself.
pub(super) fn assign(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    (node_id, epoch): (i32, i64),
    assignments: Vec<Assignment>,
    records: &mut Vec<Record>,
) -> Result<Vec<Assigned>, ErrorCode> {
    if state.image().metadata_version() < METADATA_VERSION_CLUSTER {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let broker = state.image().broker(node_id).filter(|broker| broker.epoch == epoch).cloned();
    let broker = broker.ok_or(ErrorCode::StaleBrokerEpoch)?;
    let mut bytes = 0;
    let mut results = Vec::with_capacity(assignments.len());
    for assignment in assignments {
        let made = records.len();
        let result = if bytes > ENTRY_BYTES_MAX / 2 {
            // The rest is for another entry: the broker asks again.
            Err(ErrorCode::OperationNotAttempted)
        } else {
            assign_one(rules, state, &broker, assignment, records)
        };
        bytes += records.iter().skip(made).map(Record::bytes_estimate).sum::<usize>();
        results.push((assignment.0, assignment.1, result));
    }
    Ok(results)
}

fn assign_one(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    broker: &BrokerRegistration,
    (topic_id, index, directory): Assignment,
    records: &mut Vec<Record>,
) -> Result<(), ErrorCode> {
    let image = state.image();
    let topic = image.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let before = image.partition(topic_id, index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if !before.replicas.contains(&broker.node_id) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let policy = Policy::of(rules.node, image, topic);
    let mut draft = Draft::of(image, policy, (topic_id, index), before);
    draft.election = policy.election();
    draft.assigned = Some((broker.node_id, directory));
    draft.emptied =
        (directory == LOST && is_real(before.directory_of(broker.node_id))).then_some(broker.node_id);
    if !broker.has_online(directory) {
        draft.isr.retain(|node| *node != broker.node_id);
    }
    if let Some(change) = draft.finish() {
        apply_all(state, &[Record::PartitionChange(change)], records);
    }
    Ok(())
}
