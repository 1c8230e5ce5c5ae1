//! Who leads a partition, and what else follows from a change of its replicas or its ISR: as Kafka's
//! PartitionChangeBuilder and ReplicationControlManager decide it.
//!
//! A [`Draft`] is a partition that shall change. Finishing it completes a reassignment whose new replicas are all in
//! the ISR, elects a leader where the one there is may not lead, keeps the eligible leader replicas (KIP-966), and
//! gives the record, or none if nothing changed. Whether a broker may lead is looked up in the state that the draft
//! is made on: that of a broker has changed there already when its partitions are looked at.
//!
//! The order of an election: the leader there is, the ISR in the order of the replicas, an eligible leader replica,
//! the last known leader if no other has been eligible, any active replica where the topic allows it.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::features::ELIGIBLE_LEADER_REPLICAS_VERSION;
use super::image::{Image, ImageBuilder, PartitionImage, TopicImage};
use super::record::{
    BrokerRegistration, DirectoryIds, LeaderRecovery, NodeIds, PartitionChange, Record, ResourceType,
};
use super::request::{ApiError, ConfigChanges, ElectionKind};
use super::topics::{Checked, apply_all, refuse};
use crate::config::NodeConfig;
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// The fewest in-sync replicas with which anything is committed; a key of topics and of all brokers.
pub(super) const MIN_ISR: &str = "min.insync.replicas";
/// Whether a replica that may lack committed records may lead; a key of topics and of all brokers.
pub(super) const UNCLEAN: &str = "unclean.leader.election.enable";
/// Most partitions that one pass of the timers changes, as in Kafka.
const PARTITIONS_PER_PASS_MAX: usize = 10_000;

/// What elections of one topic are held by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    min_isr: usize,
    unclean: bool,
    /// Eligible leader replicas are kept.
    elr: bool,
}

impl Policy {
    /// The topic's own values, else those given to all brokers, else this node's. What is given to one broker does
    /// not count: a leader and the controller must mean the same.
    pub(super) fn of(node: &NodeConfig, image: &Image, topic: &TopicImage) -> Self {
        let given = |key: &str| {
            let own = image.config(ResourceType::Topic, &topic.name, key);
            own.or_else(|| image.config(ResourceType::Broker, "", key)).map(str::trim)
        };
        let defaults = &node.topic_defaults;
        let min_isr: Option<i32> = given(MIN_ISR).and_then(|value| value.parse().ok());
        let unclean = given(UNCLEAN).map(|value| value.eq_ignore_ascii_case("true"));
        Self {
            min_isr: usize::try_from(min_isr.unwrap_or(defaults.min_insync_replicas)).unwrap_or(1),
            unclean: unclean.unwrap_or(defaults.unclean_leader_election),
            elr: image.feature(ELIGIBLE_LEADER_REPLICAS_VERSION) > 0,
        }
    }

    /// How an election goes that nobody has asked for.
    pub(super) fn election(self) -> Election {
        if self.unclean { Election::Unclean } else { Election::Clean }
    }

    pub(super) fn allows_unclean(self) -> bool {
        self.unclean
    }
}

/// Which leader is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// The one there is, or another that lacks nothing.
    Clean,
    /// The first replica if it can, else as [`Election::Clean`].
    Preferred,
    /// Any, if nobody is there who lacks nothing.
    Unclean,
}

/// A partition that shall change.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    image: &'a Image,
    topic_id: Uuid,
    index: i32,
    before: &'a PartitionImage,
    policy: Policy,
    pub(super) replicas: NodeIds,
    pub(super) isr: NodeIds,
    pub(super) adding: NodeIds,
    pub(super) removing: NodeIds,
    pub(super) recovery: LeaderRecovery,
    pub(super) election: Election,
    /// A broker whose log may have lost what it had.
    pub(super) lost: Option<i32>,
    /// A broker whose replica is a new one: it has nothing, and may not even be the last that is known.
    pub(super) emptied: Option<i32>,
    /// A broker that tells in which directory its replica is.
    pub(super) assigned: Option<(i32, Uuid)>,
}

impl<'a> Draft<'a> {
    /// A draft that changes nothing but what is out of order already.
    pub(super) fn of(
        image: &'a Image,
        policy: Policy,
        (topic_id, index): (Uuid, i32),
        before: &'a PartitionImage,
    ) -> Self {
        Self {
            image,
            topic_id,
            index,
            before,
            policy,
            replicas: before.replicas.clone(),
            isr: before.isr.clone(),
            adding: before.adding.clone(),
            removing: before.removing.clone(),
            recovery: before.recovery,
            election: Election::Clean,
            lost: None,
            emptied: None,
            assigned: None,
        }
    }

    /// The change, or none.
    pub(super) fn finish(mut self) -> Option<PartitionChange> {
        self.complete_reassignment();
        let elr = self.eligible();
        let elected = self.elect(&elr);
        let leader = elected.map_or(-1, |elected| elected.leader);
        let mut elr = elr;
        if let Some(elected) = elected {
            if elected.is_unclean {
                self.recovery = LeaderRecovery::Recovering;
            }
            if elected.is_unclean || !self.isr.contains(&leader) {
                self.isr = NodeIds::from_elem(leader, 1);
                // An unclean leader's log is the truth from now on: who had more is not eligible any more.
                elr = if elected.is_unclean { NodeIds::new() } else { self.eligible() };
            }
        } else if self.isr.is_empty() && !self.policy.elr {
            // The last in-sync replica is remembered: it leads when it is back.
            self.isr = self.before.isr.iter().copied().filter(|node| self.keeps(*node)).collect();
        }
        let last_known_elr = self.last_known(leader);
        self.change(leader, elr, last_known_elr)
    }

    /// Replicas that are to go do so when all that were added are in sync and enough stay: of those that have what was
    /// committed there must not be fewer afterwards than `min.insync.replicas`, if there were as many.
    fn complete_reassignment(&mut self) {
        if self.adding.is_empty() && self.removing.is_empty() {
            return;
        }
        let replicas = without(&self.replicas, &self.removing);
        let isr = without(&self.isr, &self.removing);
        let holders = self.holders();
        let needed = self.policy.min_isr.min(replicas.len()).min(holders.len());
        if without(&holders, &self.removing).len() < needed {
            return;
        }
        let is_complete = without(&self.adding, &self.removing).iter().all(|node| isr.contains(node));
        if !replicas.is_empty() && !isr.is_empty() && is_complete {
            (self.replicas, self.isr) = (replicas, isr);
            (self.adding, self.removing) = (NodeIds::new(), NodeIds::new());
        }
    }

    /// Who has all that was committed.
    fn holders(&self) -> NodeIds {
        let elr = self.eligible();
        self.replicas.iter().copied().filter(|node| self.isr.contains(node) || elr.contains(node)).collect()
    }

    /// Who has left an ISR that was too small to commit anything, and still has what was committed.
    fn eligible(&self) -> NodeIds {
        let needed = self.policy.min_isr.min(self.replicas.len());
        if !self.policy.elr || self.isr.len() >= needed {
            return NodeIds::new();
        }
        let had = |node: &i32| self.before.isr.contains(node) || self.before.elr.contains(node);
        let has_lost = |node: &i32| {
            [self.lost, self.emptied].contains(&Some(*node)) && !is_planted(Bug::EligibleAfterLoss)
        };
        let fits = |node: &i32| had(node) && !self.isr.contains(node) && !has_lost(node);
        self.replicas.iter().copied().filter(fits).collect()
    }

    fn elect(&self, elr: &NodeIds) -> Option<Elected> {
        let active = |node: &i32| self.image.may_lead(*node, self.directory_of(*node));
        let fits = |node: &i32| self.isr.contains(node) && active(node);
        let clean = |leader: i32| Elected { leader, is_unclean: false };
        let unclean = |leader: i32| Elected { leader, is_unclean: true };
        if is_planted(Bug::AnyReplicaLeads) {
            return self.replicas.iter().find(|node| active(node)).map(|node| clean(*node));
        }
        let preferred = self.replicas.first().filter(|_| self.election == Election::Preferred);
        let in_isr = preferred.filter(|node| fits(node)).or_else(|| {
            let there = Some(&self.before.leader).filter(|node| self.replicas.contains(node) && fits(node));
            there.or_else(|| self.replicas.iter().find(|node| fits(node)))
        });
        if let Some(leader) = in_isr {
            return Some(clean(*leader));
        }
        if let Some(leader) = self.replicas.iter().find(|node| elr.contains(node) && active(node)) {
            return Some(clean(*leader));
        }
        if self.policy.elr && self.isr.is_empty() && elr.is_empty() {
            let last = self.before.last_known_elr.first();
            let last = last.filter(|node| self.replicas.contains(node) && active(node));
            if let Some(leader) = last {
                return Some(unclean(*leader));
            }
        }
        let any = self.replicas.iter().find(|node| active(node));
        any.filter(|_| self.election == Election::Unclean).map(|leader| unclean(*leader))
    }

    /// The directory of a replica: as its broker tells it now, as it is known, or as it is for one that is added.
    fn directory_of(&self, node_id: i32) -> Uuid {
        match self.assigned {
            Some((told, directory)) if told == node_id => directory,
            _ if self.before.replicas.contains(&node_id) => self.before.directory_of(node_id),
            _ => self.image.default_directory(node_id),
        }
    }

    /// The last leader, from when nobody is in the ISR until there is a leader again.
    fn last_known(&self, leader: i32) -> NodeIds {
        if !self.policy.elr || leader != -1 {
            return NodeIds::new();
        }
        let last = match self.before.leader {
            // An ISR that was kept from when there were no eligible leader replicas goes with its last member.
            -1 if self.before.last_known_elr.is_empty() && self.isr.is_empty() => {
                self.before.isr.first().copied()
            }
            -1 => self.before.last_known_elr.first().copied(),
            last => self.isr.is_empty().then_some(last),
        };
        last.into_iter().filter(|node| self.keeps(*node)).collect()
    }

    /// Whether a node has its replica still, and not a new one in its place.
    fn keeps(&self, node: i32) -> bool {
        self.replicas.contains(&node) && self.emptied != Some(node)
    }

    fn change(self, leader: i32, elr: NodeIds, last_known_elr: NodeIds) -> Option<PartitionChange> {
        let before = self.before;
        let loses_replica = before.replicas.iter().any(|node| !self.replicas.contains(node));
        let is_new_epoch = leader != before.leader || loses_replica;
        let differs = |now: NodeIds, then: &NodeIds| (now != *then).then_some(now);
        let directories: DirectoryIds = self.replicas.iter().map(|node| self.directory_of(*node)).collect();
        let is_told = !before.directories.is_empty() || self.assigned.is_some();
        let change = PartitionChange {
            topic_id: self.topic_id,
            index: self.index,
            leader: is_new_epoch.then_some(leader),
            leader_epoch: before.leader_epoch,
            partition_epoch: before.partition_epoch,
            directories: (is_told && directories != before.directories).then_some(directories),
            replicas: differs(self.replicas, &before.replicas),
            isr: differs(self.isr, &before.isr),
            adding: differs(self.adding, &before.adding),
            removing: differs(self.removing, &before.removing),
            elr: differs(elr, &before.elr),
            last_known_elr: differs(last_known_elr, &before.last_known_elr),
            recovery: (self.recovery != before.recovery).then_some(self.recovery),
        };
        if !is_new_epoch && before.changed(&change) == *before {
            return None;
        }
        Some(PartitionChange {
            leader_epoch: before.leader_epoch
                + i32::from(is_new_epoch && !is_planted(Bug::EpochOutlivesLeader)),
            partition_epoch: before.partition_epoch + 1,
            ..change
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Elected {
    leader: i32,
    is_unclean: bool,
}

/// The nodes of the first that the second lacks, in their order.
pub(super) fn without(nodes: &[i32], gone: &[i32]) -> NodeIds {
    nodes.iter().copied().filter(|node| !gone.contains(node)).collect()
}

/// Finishes a draft of every partition that `select` picks, after `edit` had it; at most `most` changes.
fn redraw(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    most: usize,
    select: impl Fn(&PartitionImage) -> bool,
    edit: impl Fn(&mut Draft<'_>, Policy),
    records: &mut Vec<Record>,
) {
    let image = state.image();
    let mut made = Vec::new();
    for topic in image.topics_by_id() {
        let mut policy = None;
        for (index, before) in (0..).zip(&topic.partitions).filter(|(_, before)| select(before)) {
            let policy = *policy.get_or_insert_with(|| Policy::of(node, image, topic));
            let mut draft = Draft::of(image, policy, (topic.id, index), before);
            edit(&mut draft, policy);
            if made.len() < most {
                made.extend(draft.finish().map(Record::PartitionChange));
            }
        }
    }
    apply_all(state, &made, records);
}

/// A broker is not active any more: it leaves every ISR in which there is another, and leads nothing. With
/// `lost_log`, it may have lost what it had.
pub(super) fn after_loss(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    broker: i32,
    lost_log: bool,
    records: &mut Vec<Record>,
) {
    let select = |one: &PartitionImage| {
        one.leader == broker || one.isr.contains(&broker) || (lost_log && one.elr.contains(&broker))
    };
    let edit = |draft: &mut Draft<'_>, policy: Policy| {
        draft.isr.retain(|node| *node != broker);
        draft.lost = lost_log.then_some(broker);
        draft.election = policy.election();
    };
    redraw(node, state, usize::MAX, select, edit, records);
}

/// A broker has these directories left: what it has in others leaves every ISR in which there is another, and leads
/// nothing.
pub(super) fn after_lost_directories(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    broker: &BrokerRegistration,
    records: &mut Vec<Record>,
) {
    let id = broker.node_id;
    let select = |one: &PartitionImage| {
        (one.leader == id || one.isr.contains(&id)) && !broker.has_online(one.directory_of(id))
    };
    let edit = |draft: &mut Draft<'_>, policy: Policy| {
        draft.isr.retain(|node| *node != id);
        draft.election = policy.election();
    };
    redraw(node, state, usize::MAX, select, edit, records);
}

/// A broker is active: partitions of it that have no leader may get one.
pub(super) fn after_gain(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    broker: i32,
    records: &mut Vec<Record>,
) {
    let select = |one: &PartitionImage| one.leader == -1 && one.replicas.contains(&broker);
    let edit = |draft: &mut Draft<'_>, policy: Policy| draft.election = policy.election();
    redraw(node, state, usize::MAX, select, edit, records);
}

/// Values were changed that elections are held by: nobody stays eligible beside an ISR that is large enough now, and
/// a partition without a leader may be allowed to take any.
pub(super) fn after_configs(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    resources: &[ConfigChanges],
    records: &mut Vec<Record>,
) {
    let counts = |changes: &&ConfigChanges| {
        let given = |(key, _): &(String, _)| key == MIN_ISR || key == UNCLEAN;
        changes.replace || changes.changes.iter().any(given)
    };
    let kinds = [ResourceType::Topic, ResourceType::Broker];
    if resources.iter().filter(counts).any(|changes| kinds.contains(&changes.resource_type)) {
        redraw_uncertain(node, state, records);
    }
}

/// Looks at every partition that has no leader, has eligible leader replicas, or moves.
pub(super) fn redraw_uncertain(node: &NodeConfig, state: &mut ImageBuilder, records: &mut Vec<Record>) {
    let select = |one: &PartitionImage| one.leader == -1 || !one.elr.is_empty() || !one.removing.is_empty();
    let edit = |draft: &mut Draft<'_>, policy: Policy| draft.election = policy.election();
    redraw(node, state, PARTITIONS_PER_PASS_MAX, select, edit, records);
}

/// Gives partitions back to their preferred leaders where these can lead.
pub(super) fn rebalance(node: &NodeConfig, state: &mut ImageBuilder, records: &mut Vec<Record>) {
    let select = |one: &PartitionImage| one.leader != -1 && one.leader != one.preferred_leader();
    let edit = |draft: &mut Draft<'_>, _: Policy| draft.election = Election::Preferred;
    redraw(node, state, PARTITIONS_PER_PASS_MAX, select, edit, records);
}

/// Eligible leader replicas are given up: those of a partition without an ISR are its ISR again, as it would have
/// kept its last one.
pub(super) fn forget_eligible(state: &mut ImageBuilder, records: &mut Vec<Record>) {
    let changed = state.image().partitions().filter_map(|(topic_id, index, before)| {
        let eligible = if before.elr.is_empty() { &before.last_known_elr } else { &before.elr };
        if eligible.is_empty() {
            return None;
        }
        let isr = before.isr.is_empty().then(|| eligible.clone());
        // A last known leader may have lost what it had.
        let is_unsure = before.isr.is_empty() && before.elr.is_empty();
        Some(Record::PartitionChange(PartitionChange {
            topic_id,
            index,
            leader_epoch: before.leader_epoch,
            partition_epoch: before.partition_epoch + 1,
            isr,
            elr: Some(NodeIds::new()),
            last_known_elr: Some(NodeIds::new()),
            recovery: is_unsure.then_some(LeaderRecovery::Recovering),
            ..PartitionChange::default()
        }))
    });
    let made: Vec<_> = changed.collect();
    apply_all(state, &made, records);
}

/// ElectLeaders. Of all partitions (`None`) only those are answered that wanted an election.
pub(super) fn elect_leaders(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    partitions: Option<Vec<(String, i32)>>,
    kind: ElectionKind,
    records: &mut Vec<Record>,
) -> Vec<(String, i32, Checked<()>)> {
    let named = partitions.is_some();
    let asked = partitions.unwrap_or_else(|| {
        let each = state.image().topics().flat_map(|topic| {
            let wanting = (0..).zip(&topic.partitions).filter(|(_, one)| wants_election(one, kind));
            wanting.map(|(index, _)| (topic.name.to_string(), index))
        });
        each.collect()
    });
    let mut answers = Vec::new();
    let mut answered = BTreeSet::new();
    for (topic, index) in asked {
        if !answered.insert((topic.clone(), index)) {
            continue;
        }
        let result = elect_one(node, state, (&topic, index), kind, records);
        let is_needed = |error: &ApiError| error.code != ErrorCode::ElectionNotNeeded;
        if named || result.as_ref().err().is_none_or(is_needed) {
            answers.push((topic, index, result));
        }
    }
    answers
}

fn wants_election(partition: &PartitionImage, kind: ElectionKind) -> bool {
    match kind {
        ElectionKind::Preferred => partition.leader != partition.preferred_leader(),
        ElectionKind::Unclean => partition.leader == -1,
    }
}

fn elect_one(
    node: &NodeConfig,
    state: &mut ImageBuilder,
    (name, index): (&str, i32),
    kind: ElectionKind,
    records: &mut Vec<Record>,
) -> Checked<()> {
    let image = state.image();
    let Some(topic) = image.topic(name) else {
        return refuse(ErrorCode::UnknownTopicOrPartition, format!("No such topic as {name}"));
    };
    let Some(before) = image.partition(topic.id, index) else {
        return refuse(ErrorCode::UnknownTopicOrPartition, format!("No such partition as {name}-{index}"));
    };
    if !wants_election(before, kind) {
        let words = "Leader election not needed for topic partition.";
        return refuse(ErrorCode::ElectionNotNeeded, words);
    }
    let mut draft = Draft::of(image, Policy::of(node, image, topic), (topic.id, index), before);
    draft.election = match kind {
        ElectionKind::Preferred => Election::Preferred,
        ElectionKind::Unclean => Election::Unclean,
    };
    let change = draft.finish();
    let leader = change.as_ref().and_then(|change| change.leader).unwrap_or(-1);
    let is_wanted = match kind {
        ElectionKind::Preferred => leader == before.preferred_leader(),
        ElectionKind::Unclean => leader != -1,
    };
    match (change.filter(|_| is_wanted), kind) {
        (Some(change), _) => {
            apply_all(state, &[Record::PartitionChange(change)], records);
            Ok(())
        }
        (None, ElectionKind::Preferred) => {
            refuse(ErrorCode::PreferredLeaderNotAvailable, "The preferred leader was not available.")
        }
        (None, ElectionKind::Unclean) => refuse(
            ErrorCode::EligibleLeadersNotAvailable,
            "Eligible topic partition leaders are not available.",
        ),
    }
}
