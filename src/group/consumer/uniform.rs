//! The `uniform` assignor where all members subscribe to the same topics: everyone gets the same number of partitions
//! or one more, and keeps what it had as far as its share goes (Kafka's `UniformHomogeneousAssignmentBuilder`).

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::assignor::{Assignments, Spec};

/// What nobody had goes first, then what is taken from those who had more than their share.
pub(super) fn assign(spec: &Spec<'_>) -> Assignments {
    let mut assignments = Assignments::new();
    let Some(topics) = spec.members.values().next().map(|member| &member.topics) else { return assignments };
    let count_of = |topic: &Uuid| spec.partitions.get(topic).copied().unwrap_or(0);
    let had = spec.members.values().flat_map(|member| member.before);
    let had: BTreeSet<_> =
        had.flat_map(|(topic, of)| of.iter().map(|partition| (*topic, *partition))).collect();
    let all = topics.iter().flat_map(|topic| (0..count_of(topic)).map(|partition| (*topic, partition)));
    let mut free: Vec<(Uuid, i32)> = all.filter(|partition| !had.contains(partition)).collect();
    let total: usize = topics.iter().map(|topic| usize::try_from(count_of(topic)).unwrap_or(0)).sum();
    let members = spec.members.len();
    let (share, mut extras) = (total / members, total % members);
    let mut unfilled = Vec::new();
    for (id, member) in &spec.members {
        let mut quota = share + usize::from(extras > 0);
        extras = extras.saturating_sub(1);
        let assignment = assignments.entry(Arc::clone(id)).or_default();
        for (topic, of) in member.before.iter().filter(|(topic, _)| topics.contains(topic)) {
            // A topic of this name may have come back with fewer.
            let of = of.iter().copied().filter(|partition| *partition < count_of(topic));
            for partition in of {
                if quota > 0 {
                    quota -= 1;
                    assignment.entry(*topic).or_default().insert(partition);
                } else {
                    free.push((*topic, partition));
                }
            }
        }
        if quota > 0 {
            unfilled.push((Arc::clone(id), quota));
        }
    }
    let mut free = free.into_iter();
    for (id, quota) in unfilled {
        let assignment = assignments.entry(id).or_default();
        for (topic, partition) in free.by_ref().take(quota) {
            assignment.entry(topic).or_default().insert(partition);
        }
    }
    assert!(free.next().is_none(), "the shares make up the whole");
    assignments
}

#[cfg(test)]
mod tests {
    use super::super::assignor::tests::{Case, shown};
    use super::*;

    #[test]
    fn everyone_gets_a_share_and_the_first_one_more() {
        let case = Case::new(&[("a", 3), ("b", 2)]).member("m1", "ab").member("m2", "ab");
        assert_eq!(shown(&case.with(assign)), "m1=a0,1,2 m2=b0,1");
        let case = Case::new(&[("a", 2)]).member("m1", "a").member("m2", "a").member("m3", "a");
        assert_eq!(shown(&case.with(assign)), "m1=a0 m2=a1 m3=");
    }

    #[test]
    fn a_new_member_takes_only_what_is_over() {
        let case = Case::new(&[("a", 3), ("b", 3)]).member("m1", "ab").member("m2", "ab").member("m3", "ab");
        let case = case.had("m1", &[("a", &[0, 1]), ("b", &[0])]).had("m2", &[("a", &[2]), ("b", &[1, 2])]);
        assert_eq!(shown(&case.with(assign)), "m1=a0,1 m2=a2;b1 m3=b0,2");
    }

    #[test]
    fn what_a_leaver_had_goes_to_the_others() {
        let case = Case::new(&[("a", 4)]).member("m1", "a").member("m2", "a").had("m1", &[("a", &[1])]);
        assert_eq!(shown(&case.with(assign)), "m1=a0,1 m2=a2,3");
    }

    #[test]
    fn topics_that_are_not_subscribed_to_any_more_are_taken_away() {
        let case = Case::new(&[("a", 2), ("b", 2)]).member("m1", "b").member("m2", "b");
        let case = case.had("m1", &[("a", &[0, 1])]).had("m2", &[("b", &[0, 1])]);
        assert_eq!(shown(&case.with(assign)), "m1=b1 m2=b0");
    }
}
