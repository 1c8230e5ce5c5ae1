//! How a member gets from what it has to what it shall have: it gives up first, and is given only what nobody else has.
//!
//! Kafka's `CurrentAssignmentBuilder`: a member that has to give something up keeps its epoch until it says that it
//! did; then it moves to the epoch of the target and gets what is free; it waits for the rest.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::records::{Current, MemberState, Partitions};
use crate::wire::ErrorCode;

/// What a member is led to.
pub struct Goal<'a> {
    /// The epoch of the target assignment.
    pub epoch: i32,
    /// What it shall have.
    pub target: &'a Partitions,
    /// What some member has, or has not given up.
    pub owned: &'a BTreeSet<(Uuid, i32)>,
    /// What it says it has; `None` if it does not say.
    pub reported: Option<&'a Partitions>,
}

/// The partitions of `of` that `keep` holds for.
fn filtered(of: &Partitions, keep: impl Fn(Uuid, i32) -> bool) -> Partitions {
    let kept = of.iter().map(|(topic, partitions)| {
        (*topic, partitions.iter().copied().filter(|partition| keep(*topic, *partition)).collect())
    });
    kept.filter(|(_, partitions): &(Uuid, BTreeSet<i32>)| !partitions.is_empty()).collect()
}

pub(super) fn contains(of: &Partitions, topic: Uuid, partition: i32) -> bool {
    of.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
}

/// Whether every partition of `part` is in `whole`.
pub(super) fn is_subset(part: &Partitions, whole: &Partitions) -> bool {
    part.iter().all(|(topic, partitions)| {
        partitions.is_empty() || whole.get(topic).is_some_and(|of| partitions.is_subset(of))
    })
}

impl Goal<'_> {
    /// What the member has next.
    ///
    /// # Errors
    /// FENCED_MEMBER_EPOCH: it is in a state that this build does not know, and has to join again.
    pub fn next(&self, current: &Current) -> Result<Current, ErrorCode> {
        match current.state {
            MemberState::Stable if current.epoch == self.epoch => Ok(current.clone()),
            MemberState::Stable | MemberState::UnreleasedPartitions => {
                Ok(self.advance(current, current.epoch))
            }
            MemberState::UnrevokedPartitions if self.still_has(&current.revoking) => Ok(current.clone()),
            MemberState::UnrevokedPartitions => Ok(self.advance(current, current.epoch.saturating_add(1))),
            MemberState::Unknown if self.reported.is_some_and(Partitions::is_empty) => {
                Ok(self.advance(current, self.epoch))
            }
            MemberState::Unknown => Err(ErrorCode::FencedMemberEpoch),
        }
    }

    /// Whether the member has some of these still; if it does not say, it has.
    fn still_has(&self, revoking: &Partitions) -> bool {
        let has = |reported: &Partitions| {
            reported
                .iter()
                .any(|(topic, of)| of.iter().any(|partition| contains(revoking, *topic, *partition)))
        };
        self.reported.is_none_or(has)
    }

    fn advance(&self, current: &Current, epoch: i32) -> Current {
        let in_target = |topic, partition| contains(self.target, topic, partition);
        let mut assigned = filtered(&current.assigned, in_target);
        let revoking = filtered(&current.assigned, |topic, partition| !in_target(topic, partition));
        let missing =
            filtered(self.target, |topic, partition| !contains(&current.assigned, topic, partition));
        let free = filtered(&missing, |topic, partition| !self.owned.contains(&(topic, partition)));
        if !revoking.is_empty() && self.still_has(&revoking) {
            let state = MemberState::UnrevokedPartitions;
            return Current { epoch, previous_epoch: current.epoch, state, assigned, revoking };
        }
        let state = if free == missing { MemberState::Stable } else { MemberState::UnreleasedPartitions };
        for (topic, of) in free {
            assigned.entry(topic).or_default().extend(of);
        }
        Current {
            epoch: self.epoch,
            previous_epoch: current.epoch,
            state,
            assigned,
            revoking: Partitions::new(),
        }
    }
}
