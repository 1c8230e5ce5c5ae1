//! The topics of the cluster as groups see them: ids, names, how many partitions. And the patterns that name them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use uuid::Uuid;

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
    by_name: BTreeMap<Arc<str>, Topic>,
    names: BTreeMap<Uuid, Arc<str>>,
    version: i64,
}

fn mixed(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(HASH_PRIME))
}

impl Topics {
    /// `version` rises with every change.
    pub fn new(version: i64, topics: impl IntoIterator<Item = (Arc<str>, Topic)>) -> Self {
        let by_name: BTreeMap<_, _> = topics.into_iter().collect();
        let names = by_name.iter().map(|(name, topic)| (topic.id, name.clone())).collect();
        Self { by_name, names, version }
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
    pub fn matching(&self, pattern: &str) -> Result<BTreeSet<Arc<str>>, ErrorCode> {
        let compiled = compile(pattern)?;
        Ok(self.by_name.keys().filter(|name| compiled.is_match(name)).cloned().collect())
    }
}

/// Checks a pattern.
///
/// # Errors
/// INVALID_REGULAR_EXPRESSION.
pub fn check_pattern(pattern: &str) -> Result<(), ErrorCode> {
    compile(pattern).map(|_| ())
}

fn compile(pattern: &str) -> Result<Regex, ErrorCode> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(ErrorCode::InvalidRegularExpression);
    }
    // Alone first, so that it cannot close the group around it.
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    build(pattern)
        .and_then(|_| build(&format!("^(?:{pattern})$")))
        .map_err(|_| ErrorCode::InvalidRegularExpression)
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
            assert_eq!(matching(bad), Err(ErrorCode::InvalidRegularExpression), "{bad:.20}");
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
