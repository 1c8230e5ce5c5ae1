//! The `uniform` assignor where members subscribe to different topics: everyone keeps what it had, what is free goes to
//! the subscriber with the least, and then topic by topic those with most give to those with least until no topic can
//! be shared more evenly (Kafka's `UniformHeterogeneousAssignmentBuilder`).
//!
//! Members are numbered in the order of their ids, topics are taken with most partitions for each subscriber first.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::assignor::{Assignments, Spec};

/// Rounds over all topics; in each, what one topic gave may unbalance another.
const ROUNDS_MAX: usize = 16;

struct Topic {
    id: Uuid,
    /// Numbers of members.
    subscribers: Vec<usize>,
    /// The owner of each partition.
    owners: Vec<Option<usize>>,
}

struct Builder {
    members: Vec<Arc<str>>,
    /// How many partitions each member has.
    loads: Vec<usize>,
    /// In the order in which they are taken.
    topics: Vec<Topic>,
}

pub(super) fn assign(spec: &Spec<'_>) -> Assignments {
    let mut builder = Builder::new(spec);
    (0..builder.topics.len()).for_each(|topic| builder.give_free(topic));
    builder.balance();
    builder.finish()
}

impl Builder {
    fn new(spec: &Spec<'_>) -> Self {
        let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for (number, member) in spec.members.values().enumerate() {
            member.topics.iter().for_each(|topic| subscribers.entry(*topic).or_default().push(number));
        }
        let mut loads = vec![0; spec.members.len()];
        let mut topics = Vec::new();
        for (id, subscribers) in subscribers {
            let count = spec.partitions.get(&id).and_then(|count| usize::try_from(*count).ok()).unwrap_or(0);
            let mut owners = vec![None; count];
            for (number, member) in spec.members.values().enumerate() {
                let before = member.before.get(&id).filter(|_| member.topics.contains(&id));
                for partition in before.into_iter().flatten() {
                    let slot = usize::try_from(*partition).ok().and_then(|at| owners.get_mut(at));
                    if let Some(slot) = slot.filter(|slot| slot.is_none()) {
                        *slot = Some(number);
                        add(&mut loads, number, true);
                    }
                }
            }
            topics.push(Topic { id, subscribers, owners });
        }
        topics.sort_by(Topic::cmp);
        Self { members: spec.members.keys().map(|id| Arc::clone(id)).collect(), loads, topics }
    }

    fn sorted(&self, topic: usize) -> Vec<usize> {
        let mut members = self.topics.get(topic).map(|topic| topic.subscribers.clone()).unwrap_or_default();
        members.sort_by_key(|member| (self.load(*member), *member));
        members
    }

    fn load(&self, member: usize) -> usize {
        self.loads.get(member).copied().unwrap_or(0)
    }

    fn give(&mut self, topic: usize, partition: usize, member: usize) {
        let slot = self.topics.get_mut(topic).and_then(|topic| topic.owners.get_mut(partition));
        let Some(slot) = slot else { return };
        if let Some(before) = slot.replace(member) {
            add(&mut self.loads, before, false);
        }
        add(&mut self.loads, member, true);
    }

    fn give_free(&mut self, topic: usize) {
        let Some(of) = self.topics.get(topic) else { return };
        let owners = of.owners.iter().enumerate();
        let free: Vec<_> = owners.filter(|(_, owner)| owner.is_none()).map(|(at, _)| at).collect();
        if free.is_empty() {
            return;
        }
        let mut range = Ranges::new(self, topic);
        for partition in free {
            let member = range.next_least(self);
            self.give(topic, partition, member);
        }
    }

    fn balance(&mut self) {
        let shared: Vec<usize> = self
            .topics
            .iter()
            .enumerate()
            .filter(|(_, topic)| topic.subscribers.len() >= 2)
            .map(|(at, _)| at)
            .collect();
        let mut last = None;
        for _ in 0..ROUNDS_MAX {
            for topic in &shared {
                if last == Some(*topic) {
                    return;
                }
                if self.balance_topic(*topic) > 0 || last.is_none() {
                    last = Some(*topic);
                }
            }
        }
    }

    /// How many partitions changed hands.
    fn balance_topic(&mut self, topic: usize) -> usize {
        let mut range = Ranges::new(self, topic);
        let spread = range.members.last().map_or(0, |most| self.load(*most))
            - range.members.first().map_or(0, |least| self.load(*least));
        if spread <= 1 {
            return 0;
        }
        let mut owned: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (partition, owner) in
            self.topics.get(topic).into_iter().flat_map(|of| of.owners.iter().enumerate())
        {
            owner.iter().for_each(|owner| owned.entry(*owner).or_default().push(partition));
        }
        let mut moved = 0;
        while !range.is_balanced() {
            let partition = loop {
                let Some(most) = range.next_most(self) else { return moved };
                match owned.get_mut(&most).and_then(Vec::pop) {
                    Some(partition) => break partition,
                    None => range.exclude_most(),
                }
            };
            let least = range.next_least(self);
            if range.is_balanced() {
                break;
            }
            self.give(topic, partition, least);
            moved += 1;
        }
        moved
    }

    fn finish(self) -> Assignments {
        let mut assignments: Assignments =
            self.members.iter().map(|id| (id.clone(), Default::default())).collect();
        for topic in &self.topics {
            for (partition, owner) in (0..).zip(&topic.owners) {
                let member = owner.and_then(|owner| self.members.get(owner));
                if let Some(assignment) = member.and_then(|id| assignments.get_mut(id)) {
                    assignment.entry(topic.id).or_default().insert(partition);
                }
            }
        }
        assignments
    }
}

fn add(loads: &mut [usize], member: usize, more: bool) {
    if let Some(load) = loads.get_mut(member) {
        *load = if more { *load + 1 } else { *load - 1 };
    }
}

impl Topic {
    fn cmp(&self, other: &Self) -> Ordering {
        // Partitions for each subscriber, without fractions.
        let (own, others) =
            (self.owners.len() * other.subscribers.len(), other.owners.len() * self.subscribers.len());
        others
            .cmp(&own)
            .then(self.subscribers.len().cmp(&other.subscribers.len()))
            .then(self.id.cmp(&other.id))
    }
}

/// The subscribers of a topic, sorted by load: those with the least are a run at the front that widens as partitions
/// are given to them, those with the most a run at the back.
struct Ranges {
    members: Vec<usize>,
    least_end: usize,
    least_load: Option<usize>,
    least_next: usize,
    most_start: usize,
    most_end: usize,
    most_load: usize,
    /// One more than the index of the next, so that it can pass the front.
    most_next: usize,
}

impl Ranges {
    fn new(builder: &Builder, topic: usize) -> Self {
        let members = builder.sorted(topic);
        let count = members.len();
        let least = members.first().map_or(0, |member| builder.load(*member));
        let most = members.last().map_or(0, |member| builder.load(*member));
        Self {
            members,
            least_end: 0,
            least_load: least.checked_sub(1),
            least_next: 0,
            most_start: count,
            most_end: count,
            most_load: most + 1,
            most_next: count,
        }
    }

    fn load_at(&self, builder: &Builder, at: usize) -> Option<usize> {
        self.members.get(at).map(|member| builder.load(*member))
    }

    /// The next member to be given a partition: in turn among those with the least.
    fn next_least(&mut self, builder: &Builder) -> usize {
        if self.least_next >= self.least_end {
            let load = self.least_load.map_or(0, |load| load + 1);
            self.least_load = Some(load);
            while self.load_at(builder, self.least_end) == Some(load) {
                self.least_end += 1;
            }
            self.least_next = 0;
        }
        let member = self.members.get(self.least_next).copied().unwrap_or(0);
        self.least_next += 1;
        member
    }

    /// The next member to give a partition away: in turn among those with the most.
    fn next_most(&mut self, builder: &Builder) -> Option<usize> {
        if self.most_next <= self.most_start {
            if self.most_end <= self.most_start && self.most_start > 0 {
                self.most_load = self.load_at(builder, self.most_start - 1).unwrap_or(0);
            } else {
                self.most_load = self.most_load.saturating_sub(1);
            }
            while self.most_start > 0 && self.load_at(builder, self.most_start - 1) == Some(self.most_load) {
                self.most_start -= 1;
            }
            self.most_next = self.most_end;
        }
        let at = self.most_next.checked_sub(1)?;
        self.most_next = at;
        self.members.get(at).copied()
    }

    /// The one that was next had nothing of this topic to give: it is left out from now on.
    fn exclude_most(&mut self) {
        if let Some(last) = self.most_end.checked_sub(1) {
            self.members.swap(self.most_next, last);
            self.most_end = last;
        }
    }

    fn is_balanced(&self) -> bool {
        let least = self.least_load.map_or(-1, |load| i64::try_from(load).unwrap_or(i64::MAX));
        i64::try_from(self.most_load).unwrap_or(i64::MAX) - least <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::assignor::tests::{Case, shown};
    use super::*;

    #[test]
    fn topics_with_most_partitions_for_each_subscriber_go_first() {
        let case = Case::new(&[("a", 3), ("b", 2)]).member("m1", "a").member("m2", "ab");
        assert_eq!(shown(&case.with(assign)), "m1=a0,1,2 m2=b0,1");
    }

    #[test]
    fn everyone_keeps_what_it_had_while_that_is_even() {
        let case = Case::new(&[("a", 2), ("b", 2)]).member("m1", "ab").member("m2", "b");
        let case = case.had("m1", &[("a", &[0, 1])]).had("m2", &[("b", &[0, 1])]);
        assert_eq!(shown(&case.with(assign)), "m1=a0,1 m2=b0,1");
    }

    #[test]
    fn those_with_most_give_to_those_with_least() {
        let case = Case::new(&[("a", 6), ("b", 1)]).member("m1", "ab").member("m2", "a").member("m3", "a");
        let case = case.had("m1", &[("a", &[0, 1, 2, 3, 4, 5]), ("b", &[0])]);
        assert_eq!(shown(&case.with(assign)), "m1=a0,1;b0 m2=a3,5 m3=a2,4");
    }

    #[test]
    fn members_without_topics_get_nothing() {
        let case = Case::new(&[("a", 1)]).member("m1", "a").member("m2", "");
        assert_eq!(shown(&case.with(assign)), "m1=a0 m2=");
    }

    #[test]
    fn shares_differ_by_one_at_most_where_all_share_one_topic() {
        for count in 0..20 {
            let case =
                Case::new(&[("a", count), ("b", 3)]).member("m1", "ab").member("m2", "a").member("m3", "a");
            let given = case.had("m2", &[("a", &(0..count).collect::<Vec<_>>())]).with(assign);
            let loads: Vec<usize> = given.values().map(|of| of.values().map(|of| of.len()).sum()).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(count < 5 || most - least <= 1, "{count}: {loads:?}");
        }
    }
}
