//! The topics of the cluster as groups see them: ids, names, how many partitions. And the patterns that name them.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use regex::{Regex, RegexBuilder};
use uuid::Uuid;

use super::request::BeatRefused;
use crate::wire::ErrorCode;

/// Bytes of the longest pattern; a topic name has at most 249.
const PATTERN_BYTES_MAX: usize = 4096;
/// Bytes that a compiled pattern may take; repetitions of repetitions grow fast.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// FNV-1a, 64 bits.
const HASH_SEED: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x0100_0000_01b3;

/// One topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: i32,
}

/// All topics at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topics {
    by_name: OrdMap<Arc<str>, Topic>,
    names: OrdMap<Uuid, Arc<str>>,
    version: i64,
}

fn mixed(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(HASH_PRIME))
}

impl Topics {
    /// `version` rises with every change.
    pub fn new(version: i64, topics: impl IntoIterator<Item = (Arc<str>, Topic)>) -> Self {
        let by_name: OrdMap<Arc<str>, Topic> = topics.into_iter().collect();
        let names = by_name.iter().map(|(name, topic)| (topic.id, name.clone())).collect();
        Self { by_name, names, version }
    }

    /// What becomes of them when these ids change: a name and how many partitions, or `None` for one that is gone.
    /// `None` if nothing does that groups could see.
    pub fn changed(
        &self,
        version: i64,
        changes: impl IntoIterator<Item = (Uuid, Option<(Arc<str>, i32)>)>,
    ) -> Option<Self> {
        let mut next = Self { version, ..self.clone() };
        for (id, change) in changes {
            if let Some(name) = next.names.remove(&id)
                && next.by_name.get(&name).is_some_and(|topic| topic.id == id)
            {
                next.by_name.remove(&name);
            }
            if let Some((name, partitions)) = change {
                next.names.insert(id, name.clone());
                next.by_name.insert(name, Topic { id, partitions });
            }
        }
        (next.by_name != self.by_name).then_some(next)
    }

    /// Which state of the metadata this is.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// A topic by its name.
    pub fn topic(&self, name: &str) -> Option<Topic> {
        self.by_name.get(name).copied()
    }

    /// The name of an id.
    pub fn name(&self, id: Uuid) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    /// A number that changes when one of these topics does: its id or how many partitions it has. 0 if none is there.
    /// It need only be the same for the same topics here, after every restart.
    pub fn hash(&self, names: &BTreeSet<Arc<str>>) -> i64 {
        let there = names.iter().filter_map(|name| Some((name, self.by_name.get(name)?)));
        let hash = there.fold(None, |hash, (name, topic)| {
            let hash = mixed(hash.unwrap_or(HASH_SEED), name.as_bytes());
            let hash = mixed(hash, topic.id.as_bytes());
            Some(mixed(hash, &topic.partitions.to_be_bytes()))
        });
        // 0 is for none.
        hash.map_or(0, |hash| hash.max(1).cast_signed())
    }

    /// The names that a pattern matches as a whole.
    ///
    /// # Errors
    /// INVALID_REGULAR_EXPRESSION.
    pub fn matching(&self, pattern: &str) -> Result<BTreeSet<Arc<str>>, BeatRefused> {
        let compiled = compile(pattern)?;
        Ok(self.by_name.keys().filter(|name| compiled.is_match(name)).cloned().collect())
    }
}

/// Checks a pattern.
///
/// # Errors
/// INVALID_REGULAR_EXPRESSION.
pub fn check_pattern(pattern: &str) -> Result<(), BeatRefused> {
    compile(pattern).map(|_| ())
}

fn compile(pattern: &str) -> Result<Regex, BeatRefused> {
    let refused = |why: &str| {
        let words = format!("SubscribedTopicRegex `{pattern}` is not a valid regular expression: {why}.");
        BeatRefused::new(ErrorCode::InvalidRegularExpression, words)
    };
    if pattern.len() > PATTERN_BYTES_MAX {
        let words = "SubscribedTopicRegex is too long";
        return Err(BeatRefused::new(ErrorCode::InvalidRegularExpression, words));
    }
    // Alone first, so that it cannot close the group around it.
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    build(pattern)
        .and_then(|_| build(&format!("^(?:{pattern})$")))
        .map_err(|error| refused(&last_line(&error.to_string())))
}

/// What the library says last is what is wrong; above it, it draws where.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(of: &[(&str, u128, i32)]) -> Topics {
        let topic = |(name, id, partitions): &(&str, u128, i32)| {
            (Arc::from(*name), Topic { id: Uuid::from_u128(*id), partitions: *partitions })
        };
        Topics::new(1, of.iter().map(topic))
    }

    #[test]
    fn a_pattern_matches_whole_names() {
        let topics = topics(&[("ab", 1, 1), ("abc", 2, 1), ("b", 3, 1)]);
        let matching = |pattern: &str| {
            topics
                .matching(pattern)
                .map(|names| names.iter().map(|name| name.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(matching("a.*"), Ok(vec!["ab".into(), "abc".into()]));
        assert_eq!(matching("b|ab"), Ok(vec!["ab".into(), "b".into()]));
        assert_eq!(matching("z"), Ok(vec![]));
        for bad in ["(", "a)(b", "(?=a)", "((a{1000}){1000}){1000}", &"a".repeat(5000)] {
            let refused = matching(bad).unwrap_err();
            assert_eq!(refused.error, ErrorCode::InvalidRegularExpression, "{bad:.20}");
        }
    }

    #[test]
    fn changes_are_what_groups_can_see_of_them() {
        let before = topics(&[("a", 1, 1), ("b", 2, 1)]);
        let id = Uuid::from_u128;
        assert_eq!(before.changed(2, [(id(1), Some(("a".into(), 1)))]), None, "a leader, say");
        let grown = before.changed(2, [(id(1), Some(("a".into(), 3)))]).unwrap();
        assert_eq!((grown.topic("a").unwrap().partitions, grown.version()), (3, 2));
        let gone = before.changed(2, [(id(2), None)]).unwrap();
        assert_eq!((gone.topic("b"), gone.name(id(2))), (None, None));
        for order in [[0, 1], [1, 0]] {
            let changes = [(id(2), None), (id(3), Some(("b".into(), 1)))];
            let again = before.changed(2, order.map(|at| changes[at].clone())).unwrap();
            assert_eq!(again.topic("b").map(|topic| topic.id), Some(id(3)), "made again under its name");
            assert_eq!((again.name(id(2)), again.name(id(3)).map(|name| &**name)), (None, Some("b")));
        }
    }

    #[test]
    fn the_hash_changes_with_the_topics_it_is_over() {
        let names: BTreeSet<Arc<str>> = ["a".into(), "b".into()].into();
        let before = topics(&[("a", 1, 1), ("z", 9, 1)]).hash(&names);
        assert_eq!(before, topics(&[("a", 1, 1)]).hash(&names));
        assert_eq!(topics(&[("z", 9, 1)]).hash(&names), 0);
        for other in [topics(&[("a", 1, 2)]), topics(&[("a", 2, 1)]), topics(&[("a", 1, 1), ("b", 2, 1)])] {
            assert_ne!(before, other.hash(&names));
        }
    }
}
