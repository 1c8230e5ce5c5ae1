//! What an assignor is given and what it gives. Members and topics are gone through in the order of their ids, so the
//! same group gets the same assignment everywhere; Kafka goes through hash maps where the order decides nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::records::Partitions;
use super::{range, uniform, uniform_mixed};

/// The one that is used where no member prefers another, unless configured otherwise.
pub const UNIFORM: &str = "uniform";
/// The other one.
pub const RANGE: &str = "range";

/// A member.
pub struct Subscriber<'a> {
    /// `group.instance.id` of a static member.
    pub instance_id: Option<&'a Arc<str>>,
    /// The ids of the topics that it subscribes to and that are there.
    pub topics: BTreeSet<Uuid>,
    /// What was meant for it before.
    pub before: &'a Partitions,
}

/// A group.
pub struct Spec<'a> {
    /// Its members, by member id.
    pub members: BTreeMap<&'a Arc<str>, Subscriber<'a>>,
    /// How many partitions the topics have.
    pub partitions: BTreeMap<Uuid, i32>,
}

impl Spec<'_> {
    /// Whether all members subscribe to the same topics.
    pub fn is_homogeneous(&self) -> bool {
        let mut topics = self.members.values().map(|member| &member.topics);
        let first = topics.next();
        topics.all(|topics| Some(topics) == first)
    }
}

/// What each member shall have.
pub type Assignments = BTreeMap<Arc<str>, Partitions>;

/// Whether there is an assignor of the name.
pub fn is_known(name: &str) -> bool {
    matches!(name, UNIFORM | RANGE)
}

/// What the assignor of the name gives; that of an unknown name is the uniform one.
pub fn assign(name: &str, spec: &Spec<'_>) -> Assignments {
    match name {
        RANGE => range::assign(spec),
        _ if spec.is_homogeneous() => uniform::assign(spec),
        _ => uniform_mixed::assign(spec),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Instance id, letters of topics, what it had.
    type Subscribed = (Option<Arc<str>>, String, Partitions);

    /// A group for tests; topics have letters for names.
    #[derive(Default)]
    pub struct Case {
        topics: BTreeMap<char, i32>,
        members: BTreeMap<Arc<str>, Subscribed>,
    }

    pub fn id(topic: char) -> Uuid {
        Uuid::from_u128(u128::from(u32::from(topic)))
    }

    impl Case {
        pub fn new(topics: &[(&str, i32)]) -> Self {
            let topics = topics.iter().map(|(name, count)| (name.chars().next().unwrap(), *count)).collect();
            Self { topics, ..Self::default() }
        }

        pub fn member(mut self, member: &str, topics: &str) -> Self {
            self.members.insert(member.into(), (None, topics.into(), Partitions::new()));
            self
        }

        pub fn named(mut self, member: &str, instance: &str, topics: &str) -> Self {
            self.members.insert(member.into(), (Some(instance.into()), topics.into(), Partitions::new()));
            self
        }

        pub fn had(mut self, member: &str, before: &[(&str, &[i32])]) -> Self {
            let before = before
                .iter()
                .map(|(topic, of)| (id(topic.chars().next().unwrap()), of.iter().copied().collect()));
            self.members.get_mut(member).unwrap().2 = before.collect();
            self
        }

        pub fn with(&self, assign: impl Fn(&Spec<'_>) -> Assignments) -> Assignments {
            let members = self.members.iter().map(|(member, (instance, topics, before))| {
                let topics = topics.chars().map(id).collect();
                (member, Subscriber { instance_id: instance.as_ref(), topics, before })
            });
            let partitions = self.topics.iter().map(|(topic, count)| (id(*topic), *count)).collect();
            let spec = Spec { members: members.collect(), partitions };
            let assignments = assign(&spec);
            let mut given = BTreeSet::new();
            for (member, partitions) in &assignments {
                for (topic, of) in partitions {
                    assert!(
                        spec.members[member].topics.contains(topic),
                        "{member} subscribes to what it gets"
                    );
                    assert!(of.iter().all(|partition| given.insert((*topic, *partition))), "one owner");
                }
            }
            let wanted: BTreeSet<_> =
                spec.members.values().flat_map(|member| member.topics.clone()).collect();
            let all = wanted.iter().flat_map(|topic| (0..spec.partitions[topic]).map(|at| (*topic, at)));
            assert_eq!(given, all.collect(), "everything is given away");
            assignments
        }
    }

    pub fn shown(assignments: &Assignments) -> String {
        let letter = |topic: &Uuid| char::from_u32(topic.as_u128() as u32).unwrap();
        let each = assignments.iter().map(|(member, of)| {
            let topics = of.iter().map(|(topic, partitions)| {
                let numbers: Vec<_> = partitions.iter().map(i32::to_string).collect();
                format!("{}{}", letter(topic), numbers.join(","))
            });
            format!("{member}={}", topics.collect::<Vec<_>>().join(";"))
        });
        each.collect::<Vec<_>>().join(" ")
    }
}
