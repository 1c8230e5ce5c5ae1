//! The `range` assignor: of each topic, every subscriber gets a run of neighbouring partitions, and members that
//! subscribe to the same topics get the same runs of each, so that partitions of one number meet (Kafka's
//! `RangeAssignor`). What members had before does not matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::assignor::{Assignments, Spec};

/// How far a topic is given away.
struct Topic {
    partitions: i32,
    quota: i32,
    extra: i32,
    next: i32,
}

/// Static members first, by their instance ids, then the others by their member ids.
fn in_order<'a>(spec: &Spec<'a>) -> Vec<&'a Arc<str>> {
    let mut members: Vec<_> = spec.members.iter().collect();
    members.sort_by_key(|(id, member)| (member.instance_id.is_none(), member.instance_id, **id));
    members.into_iter().map(|(id, _)| *id).collect()
}

pub(super) fn assign(spec: &Spec<'_>) -> Assignments {
    let mut subscribers: BTreeMap<Uuid, i32> = BTreeMap::new();
    for member in spec.members.values() {
        for topic in &member.topics {
            *subscribers.entry(*topic).or_default() += 1;
        }
    }
    let topic = |(id, count): (Uuid, i32)| {
        let partitions = spec.partitions.get(&id).copied().unwrap_or(0);
        (id, Topic { partitions, quota: partitions / count, extra: partitions % count, next: 0 })
    };
    let mut topics: BTreeMap<Uuid, Topic> = subscribers.into_iter().map(topic).collect();
    let mut assignments = Assignments::new();
    for id in in_order(spec) {
        let assignment = assignments.entry(id.clone()).or_default();
        for subscribed in spec.members.get(id).into_iter().flat_map(|member| &member.topics) {
            let Some(topic) = topics.get_mut(subscribed) else { continue };
            let mut quota = topic.quota;
            if topic.extra > 0 {
                topic.extra -= 1;
                quota += 1;
            }
            let end = (topic.next + quota).min(topic.partitions);
            if topic.next < end {
                assignment.insert(*subscribed, (topic.next..end).collect());
            }
            topic.next = end;
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::super::assignor::tests::{Case, shown};
    use super::*;

    #[test]
    fn runs_are_neighbouring_and_the_first_members_get_one_more() {
        let case = Case::new(&[("a", 5), ("b", 2)]).member("m1", "ab").member("m2", "ab").member("m3", "ab");
        assert_eq!(shown(&case.with(assign)), "m1=a0,1;b0 m2=a2,3;b1 m3=a4");
    }

    #[test]
    fn each_topic_is_shared_by_its_own_subscribers() {
        let case = Case::new(&[("a", 3), ("b", 3), ("c", 2)])
            .member("m1", "ab")
            .member("m2", "a")
            .member("m3", "bc");
        assert_eq!(shown(&case.with(assign)), "m1=a0,1;b0,1 m2=a2 m3=b2;c0,1");
    }

    #[test]
    fn static_members_come_first_by_their_instance_ids() {
        let case = Case::new(&[("a", 3)]).member("m1", "a").named("m2", "y", "a").named("m3", "x", "a");
        assert_eq!(shown(&case.with(assign)), "m1=a2 m2=a1 m3=a0");
    }

    #[test]
    fn what_members_had_does_not_matter() {
        let case = Case::new(&[("a", 4)]).member("m1", "a").member("m2", "a").had("m1", &[("a", &[2, 3])]);
        assert_eq!(shown(&case.with(assign)), "m1=a0,1 m2=a2,3");
    }
}
