//! Groups that change their protocol while they have members: members keep what they have.
//!
//! A classic group whose members use the consumer protocol's subscriptions becomes a consumer group when a member that
//! follows the new protocol joins; a consumer group becomes a classic one when the last such member leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::embedded::{Subscription, decode_assignment, encode_assignment};
use super::plan::Plan;
use super::records::{
    ClassicPart, ConsumerRecord, Current, GroupEpoch, MemberMetadata, MemberState, Partitions,
};
use super::request::BeatRefused;
use super::state::ConsumerState;
use super::timers::Timer;
use super::topics::Topics;
use crate::effect::Now;
use crate::group::classic::{CONSUMER, ClassicGroup, State};
use crate::group::member::Member;
use crate::group::record::GroupMetadata;
use crate::wire::ErrorCode;

/// Makes a consumer group of a classic one with members, at the epoch of its generation.
///
/// # Errors
/// GROUP_ID_NOT_FOUND if its members are no consumers, or their bytes are not what consumers send.
pub(super) fn upgrade(group: &ClassicGroup, plan: &mut Plan<'_>) -> Result<(), BeatRefused> {
    let refused = |why: &str| {
        let words = format!("Cannot upgrade classic group {} to consumer group because {why}", group.id);
        BeatRefused::new(ErrorCode::GroupIdNotFound, words)
    };
    let no_consumers = || refused("the group does not use the consumer embedded protocol.");
    let malformed = || refused("the embedded consumer protocol is malformed.");
    if group.protocol_type.as_deref() != Some(CONSUMER) {
        return Err(no_consumers());
    }
    let protocol = group.protocol.clone().or_else(|| group.chosen_protocol()).ok_or_else(no_consumers)?;
    let mut given = BTreeSet::new();
    let mut members = Vec::new();
    for member in group.members.values() {
        let bytes = member.metadata(&protocol);
        let subscription = Subscription::decode(&bytes, plan.topics).map_err(|_| malformed())?;
        let mut assigned = decode_assignment(&member.assignment, plan.topics).map_err(|_| malformed())?;
        // A leader may have given a partition to two: the second joins again anyway.
        for (topic, of) in &mut assigned {
            of.retain(|partition| given.insert((*topic, *partition)));
        }
        assigned.retain(|_, of| !of.is_empty());
        members.push((member, subscription, assigned));
    }
    for (member, subscription, _) in &members {
        plan.write(ConsumerRecord::Member(member.id.clone(), Some(Arc::new(metadata(member, subscription)))));
    }
    let epoch = group.generation;
    let metadata_hash = plan.topics.hash(&plan.state.subscribed());
    plan.write(ConsumerRecord::Epoch(Some(GroupEpoch { epoch, metadata_hash })));
    for (member, _, assigned) in &members {
        plan.write(ConsumerRecord::Target(member.id.clone(), Some(Arc::new(assigned.clone()))));
    }
    plan.write(ConsumerRecord::TargetEpoch(Some(epoch)));
    for (member, _, assigned) in members {
        let current = Current {
            epoch,
            previous_epoch: epoch,
            state: MemberState::Stable,
            assigned,
            revoking: Partitions::new(),
        };
        plan.write(ConsumerRecord::Current(member.id.clone(), Some(Arc::new(current))));
        plan.set_timer(&member.id, Timer::Session, member.session_timeout_ms);
    }
    Ok(())
}

fn metadata(member: &Member, subscription: &Subscription) -> MemberMetadata {
    MemberMetadata {
        instance_id: member.instance_id.clone(),
        rack_id: subscription.rack_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topics: subscription.topics.clone(),
        regex: None,
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        assignor: None,
        classic: Some(ClassicPart {
            session_timeout_ms: member.session_timeout_ms,
            protocols: member.protocols.clone(),
        }),
    }
}

/// A classic group that was a consumer group, and the record that says so.
pub(super) struct Downgraded {
    pub(super) group: ClassicGroup,
    pub(super) stored: GroupMetadata,
}

/// Makes a classic group of the members of a consumer group that follow the classic protocol, which are all but
/// `without`. `None` if they have no protocol in common any more.
pub(super) fn downgrade(
    id: &Arc<str>,
    state: &ConsumerState,
    without: Option<&Arc<str>>,
    topics: &Topics,
    now: Now,
) -> Option<Downgraded> {
    let mut group = ClassicGroup::new(id.clone(), None, now);
    group.generation = state.group.epoch;
    group.protocol_type = Some(CONSUMER.into());
    for (member_id, member) in state.members().filter(|(member_id, _)| Some(*member_id) != without) {
        let classic = member.metadata.classic.as_ref()?;
        let first = classic.protocols.first()?;
        let version = Subscription::decode(&first.metadata, topics).ok()?.version;
        // What it may still be reading, not what it shall have: Kafka takes that, and if the group becomes a consumer
        // group again before everyone has joined, two members can have a partition.
        let mut held = member.current.assigned.clone();
        for (topic, of) in &member.current.revoking {
            held.entry(*topic).or_default().extend(of);
        }
        group.add(Member {
            id: member_id.clone(),
            instance_id: member.metadata.instance_id.clone(),
            client_id: member.metadata.client_id.clone(),
            client_host: member.metadata.client_host.clone(),
            rebalance_timeout_ms: member.metadata.rebalance_timeout_ms,
            session_timeout_ms: classic.session_timeout_ms,
            protocols: classic.protocols.clone(),
            assignment: encode_assignment(&held, topics, version),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            expires_at_ms: None,
        });
    }
    group.protocol = Some(group.chosen_protocol()?);
    group.enter(State::Stable, now);
    group.must_rebalance = true;
    let stored = group.to_stored(|member| member.assignment.clone());
    Some(Downgraded { group, stored })
}
