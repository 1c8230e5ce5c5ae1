//! AlterPartition: a leader wants another ISR. Checked as Kafka's ReplicationControlManager checks it.

use uuid::Uuid;

use super::ENTRY_BYTES_MAX;
use super::elections::{Draft, Policy};
use super::image::{Image, ImageBuilder, PartitionImage};
use super::record::{LeaderRecovery, NodeIds, Record};
use super::request::{IsrChange, IsrState};
use super::topics::{Rules, apply_all};
use crate::planted::{Bug, is_planted};
use crate::wire::ErrorCode;

/// What became of each partition of an AlterPartition: topic, index, its state or why not.
pub(super) type IsrResults = Vec<(Uuid, i32, Result<IsrState, ErrorCode>)>;

/// The answer of the whole; what was asked of a partition is done or refused for itself.
pub(super) fn alter(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    (node_id, epoch): (i32, i64),
    changes: Vec<(Uuid, i32, IsrChange)>,
    records: &mut Vec<Record>,
) -> Result<IsrResults, ErrorCode> {
    if state.image().broker(node_id).is_none_or(|broker| broker.epoch != epoch) {
        return Err(ErrorCode::StaleBrokerEpoch);
    }
    let mut bytes = 0;
    let mut results = Vec::with_capacity(changes.len());
    for (topic_id, index, change) in changes {
        let made = records.len();
        let result = if bytes > ENTRY_BYTES_MAX / 2 {
            // The rest is for another entry: the leader asks again.
            Err(ErrorCode::OperationNotAttempted)
        } else {
            alter_one(rules, state, node_id, (topic_id, index), &change, records)
        };
        bytes += records.iter().skip(made).map(Record::bytes_estimate).sum::<usize>();
        results.push((topic_id, index, result));
    }
    Ok(results)
}

fn alter_one(
    rules: &Rules<'_>,
    state: &mut ImageBuilder,
    node_id: i32,
    (topic_id, index): (Uuid, i32),
    change: &IsrChange,
    records: &mut Vec<Record>,
) -> Result<IsrState, ErrorCode> {
    let image = state.image();
    let topic = image.topic_by_id(topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let before = image.partition(topic_id, index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    check(image, node_id, before, change)?;
    let policy = Policy::of(rules.node, image, topic);
    let mut draft = Draft::of(image, policy, (topic_id, index), before);
    draft.isr = change.isr.iter().map(|(node, _)| *node).collect();
    draft.recovery = change.recovery;
    draft.election = policy.election();
    if let Some(made) = draft.finish() {
        apply_all(state, &[Record::PartitionChange(made)], records);
    }
    let now = state.image().partition(topic_id, index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if now.leader != node_id {
        // The change completed a reassignment that has no place for this leader.
        return Err(ErrorCode::NewLeaderElected);
    }
    Ok(IsrState {
        leader: now.leader,
        leader_epoch: now.leader_epoch,
        partition_epoch: now.partition_epoch,
        isr: now.isr.clone(),
        recovery: now.recovery,
    })
}

fn check(image: &Image, node_id: i32, now: &PartitionImage, change: &IsrChange) -> Result<(), ErrorCode> {
    // A leader that is ahead of this controller has heard of a later one.
    if change.leader_epoch > now.leader_epoch || change.partition_epoch > now.partition_epoch {
        return Err(ErrorCode::NotController);
    }
    if change.leader_epoch < now.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if node_id != now.leader {
        return Err(ErrorCode::InvalidRequest);
    }
    if change.partition_epoch < now.partition_epoch && !is_planted(Bug::IsrChangedBlindly) {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let isr: NodeIds = change.isr.iter().map(|(node, _)| *node).collect();
    let is_repeated = |(at, node): (usize, &i32)| isr.iter().take(at).any(|before| before == node);
    let is_isr = isr.iter().all(|node| now.replicas.contains(node)) && isr.contains(&now.leader);
    if !is_isr || isr.iter().enumerate().any(is_repeated) {
        return Err(ErrorCode::InvalidRequest);
    }
    if change.recovery == LeaderRecovery::Recovering
        && (isr.len() > 1 || now.recovery == LeaderRecovery::Recovered)
    {
        return Err(ErrorCode::InvalidRequest);
    }
    // An epoch of -1 is not told.
    let fits = |(node, epoch): &(i32, i64)| {
        let broker = image.broker(*node).filter(|_| image.may_lead(*node, now.directory_of(*node)));
        broker.is_some_and(|broker| *epoch == -1 || *epoch == broker.epoch)
    };
    if change.isr.iter().all(fits) { Ok(()) } else { Err(ErrorCode::IneligibleReplica) }
}
