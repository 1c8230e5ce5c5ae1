//! One partition of the Image: its replicas, who leads it, and what is always true of these.

use uuid::Uuid;

use super::image::{ApplyError, refuse};
use super::record::{DirectoryIds, LeaderRecovery, NodeIds, PartitionChange, PartitionRecord};

/// One partition's assignment and leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionImage {
    /// Node ids, the preferred leader first.
    pub replicas: NodeIds,
    /// In-sync subset of the replicas.
    pub isr: NodeIds,
    /// Node id, -1 when there is no leader.
    pub leader: i32,
    /// Rises with every change of leader.
    pub leader_epoch: i32,
    /// Rises with every change of this partition.
    pub partition_epoch: i32,
    /// Log directory of each replica; the nil id is "not assigned yet".
    pub directories: DirectoryIds,
    /// Replicas that a reassignment adds; a subset of the replicas.
    pub adding: NodeIds,
    /// Replicas that go when those that are added are in sync; a subset of the replicas.
    pub removing: NodeIds,
    /// Replicas outside the ISR that have everything committed (KIP-966): they left it when it had fewer than
    /// `min.insync.replicas`, below which nothing is committed.
    pub elr: NodeIds,
    /// Who led last when nobody in the ISR or among the eligible replicas could; empty, or one node id.
    pub last_known_elr: NodeIds,
    /// Whether the leader was elected uncleanly and has not recovered from that yet.
    pub recovery: LeaderRecovery,
}

impl PartitionImage {
    /// Whether replicas are being added or removed.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Replicas that it has when nothing moves: those that a reassignment takes away do not count. Kafka counts them
    /// where a topic gets more partitions meanwhile, which then have more replicas for good.
    pub fn replication_factor(&self) -> usize {
        self.replicas.len() - self.removing.len()
    }

    /// The replica that leads if it can.
    pub fn preferred_leader(&self) -> i32 {
        self.replicas.first().copied().unwrap_or(-1)
    }

    /// ISR ⊆ replicas, leader ∈ ISR, no eligible replica in the ISR, a directory for each replica or for none.
    pub(super) fn check(&self, topic_id: Uuid, index: i32) -> Result<(), ApplyError> {
        let is_replica = |node: &i32| self.replicas.contains(node);
        let why = if !self.isr.iter().all(is_replica) {
            "the ISR goes beyond the replicas"
        } else if self.leader != -1 && !self.isr.contains(&self.leader) {
            "the leader is not in the ISR"
        } else if !self.directories.is_empty() && self.directories.len() != self.replicas.len() {
            "there are not as many directories as replicas"
        } else if !self.adding.iter().chain(&self.removing).all(is_replica) {
            "a reassignment goes beyond the replicas"
        } else if !self.elr.iter().all(is_replica) {
            "the eligible leader replicas go beyond the replicas"
        } else if self.elr.iter().any(|node| self.isr.contains(node)) {
            "an eligible leader replica is in the ISR"
        } else {
            return Ok(());
        };
        refuse(format!("partition {index} of {topic_id}: {why}"))
    }

    pub(super) fn of_record(record: &PartitionRecord) -> Self {
        Self {
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
            directories: record.directories.clone(),
            adding: record.adding.clone(),
            removing: record.removing.clone(),
            elr: record.elr.clone(),
            last_known_elr: record.last_known_elr.clone(),
            recovery: record.recovery,
        }
    }

    pub(super) fn to_record(&self, topic_id: Uuid, index: i32) -> PartitionRecord {
        PartitionRecord {
            topic_id,
            index,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            leader: self.leader,
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: self.directories.clone(),
            adding: self.adding.clone(),
            removing: self.removing.clone(),
            elr: self.elr.clone(),
            last_known_elr: self.last_known_elr.clone(),
            recovery: self.recovery,
        }
    }

    /// What it is after a change.
    pub(super) fn changed(&self, change: &PartitionChange) -> Self {
        let nodes = |new: &Option<NodeIds>, old: &NodeIds| new.as_ref().unwrap_or(old).clone();
        Self {
            replicas: nodes(&change.replicas, &self.replicas),
            isr: nodes(&change.isr, &self.isr),
            leader: change.leader.unwrap_or(self.leader),
            leader_epoch: change.leader_epoch,
            partition_epoch: change.partition_epoch,
            directories: change.directories.as_ref().unwrap_or(&self.directories).clone(),
            adding: nodes(&change.adding, &self.adding),
            removing: nodes(&change.removing, &self.removing),
            elr: nodes(&change.elr, &self.elr),
            last_known_elr: nodes(&change.last_known_elr, &self.last_known_elr),
            recovery: change.recovery.unwrap_or(self.recovery),
        }
    }
}
