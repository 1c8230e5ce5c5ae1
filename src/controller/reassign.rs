//! AlterPartitionReassignments and ListPartitionReassignments: replicas move to other brokers, as Kafka's
//! ReplicationControlManager decides it.
//!
//! A partition that moves has the replicas it shall have and those that go. It is done when all that were added are
//! in the ISR ([`super::elections`] sees to that with every change); a cancelled move gives up those that were added.

use super::elections::{Draft, Election, Policy, without};
use super::image::{Image, ImageBuilder, PartitionImage, TopicImage};
use super::record::{METADATA_VERSION_CLUSTER, NodeIds, Record};
use super::request::Reassignment;
use super::topics::{Checked, Rules, apply_all, check_manual_assignment, refuse};
use crate::wire::ErrorCode;

/// What a partition shall move to: topic, index, replicas; `None` cancels.
pub(super) type Move = (String, i32, Option<Vec<i32>>);

pub(super) fn alter(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    changes: Vec<Move>,
    allow_factor: bool,
    records: &mut Vec<Record>,
) -> Vec<(String, i32, Checked<()>)> {
    let one = |(topic, index, replicas): Move| {
        let result = alter_one(rules, state, (&topic, index), replicas, allow_factor, records);
        (topic, index, result)
    };
    changes.into_iter().map(one).collect()
}

fn alter_one(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    (name, index): (&str, i32),
    replicas: Option<Vec<i32>>,
    allow_factor: bool,
    records: &mut Vec<Record>,
) -> Checked<()> {
    let image = state.image();
    let unknown = |words: String| refuse(ErrorCode::UnknownTopicOrPartition, words);
    let Some(topic) = image.topic(name) else {
        return unknown(format!("Unable to find a topic named {name}."));
    };
    let Some(before) = image.partition(topic.id, index) else {
        return unknown(format!("Unable to find partition {name}:{index}."));
    };
    let policy = Policy::of(rules.node, image, topic);
    let mut draft = Draft::of(image, policy, (topic.id, index), before);
    draft.election = policy.election();
    match replicas {
        None => cancel(&mut draft, policy, (topic, index), before)?,
        Some(wanted) => begin(&mut draft, image, before, &wanted, allow_factor)?,
    }
    if let Some(change) = draft.finish() {
        apply_all(state, &[Record::PartitionChange(change)], records);
    }
    Ok(())
}

fn begin(
    draft: &mut Draft<'_>,
    image: &Image,
    before: &PartitionImage,
    wanted: &[i32],
    allow_factor: bool,
) -> Checked<()> {
    check_manual_assignment(image, wanted, None)?;
    let has = before.replication_factor();
    if !allow_factor && has != wanted.len() {
        let words = format!("The replication factor is changed from {has} to {}", wanted.len());
        return refuse(ErrorCode::InvalidReplicationFactor, words);
    }
    if before.replicas.as_slice() == wanted && !before.is_reassigning() {
        return Ok(());
    }
    if image.metadata_version() < METADATA_VERSION_CLUSTER {
        let words = "The cluster's metadata.version is too old for this; upgrade it with kafka-features.";
        return refuse(ErrorCode::UnsupportedVersion, words);
    }
    go_to(draft, before, wanted);
    Ok(())
}

/// What an earlier move was adding goes at once, unless it has all that was committed: then it stays until the move is
/// done, still as one that was added, so that a cancelled move leaves as many replicas as there were.
fn go_to(draft: &mut Draft<'_>, before: &PartitionImage, wanted: &[i32]) {
    let own = without(&before.replicas, &before.adding);
    let stays = |node: &i32| own.contains(node) || before.isr.contains(node) || before.elr.contains(node);
    let stay: NodeIds = before.replicas.iter().copied().filter(stays).collect();
    draft.removing = without(&stay, wanted);
    draft.replicas = wanted.iter().chain(&draft.removing).copied().collect();
    draft.adding = without(&draft.replicas, &own);
    draft.isr.retain(|node| draft.replicas.contains(node));
}

fn cancel(
    draft: &mut Draft<'_>,
    policy: Policy,
    (topic, index): (&TopicImage, i32),
    before: &PartitionImage,
) -> Checked<()> {
    if !before.is_reassigning() {
        return refuse(ErrorCode::NoReassignmentInProgress, "");
    }
    let own = without(&before.replicas, &before.adding);
    // Only replicas that were added are in sync: whoever led instead may lack what was committed.
    let only_added = !before.isr.is_empty() && before.isr.iter().all(|node| before.adding.contains(node));
    if own.is_empty() || (only_added && !policy.allows_unclean()) {
        let words = format!(
            "Unable to revert partition assignment for {}:{index} because it would require an unclean leader \
             election.",
            topic.name
        );
        return refuse(ErrorCode::InvalidReplicaAssignment, words);
    }
    if only_added {
        (draft.replicas, draft.isr, draft.election) = (own, NodeIds::new(), Election::Unclean);
        (draft.adding, draft.removing) = (NodeIds::new(), NodeIds::new());
    } else {
        go_to(draft, before, &own);
    }
    Ok(())
}

/// The partitions that move, of these or of all; by topic name and index.
pub(super) fn list(image: &Image, partitions: Option<Vec<(String, i32)>>) -> Vec<Reassignment> {
    let told = |name: &str, index: i32, one: &PartitionImage| Reassignment {
        topic: name.to_owned(),
        index,
        replicas: one.replicas.to_vec(),
        adding: one.adding.to_vec(),
        removing: one.removing.to_vec(),
    };
    let Some(asked) = partitions else {
        let each = image.topics().flat_map(|topic| {
            let moving = (0..).zip(&topic.partitions).filter(|(_, one)| one.is_reassigning());
            moving.map(|(index, one)| told(&topic.name, index, one))
        });
        return each.collect();
    };
    let found = asked.into_iter().filter_map(|(name, index)| {
        let one = image.partition(image.topic(&name)?.id, index)?;
        one.is_reassigning().then(|| told(&name, index, one))
    });
    found.collect()
}
