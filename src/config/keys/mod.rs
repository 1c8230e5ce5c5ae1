//! The table of every configuration key: Kafka's broker and topic keys and our own, each once.
//!
//! A key that is not in this table is unknown, and said to be. Names, types, defaults and ranges are those of
//! Apache Kafka 4.3; the keys of older versions are in [`legacy`]. Where the default is ours and not Kafka's
//! (`listeners`, `log.dir`, `node.id`, `process.roles`) that is because a node starts without any file.

mod check;
mod cluster;
mod coordinator;
mod legacy;
mod log;
mod node;
mod own;
mod reason;
mod resources;
mod security;
mod topics;

pub(super) use check::{items, named, parse_double, parse_integer};
pub use resources::{GROUP_KEYS, METRICS_KEYS, ResourceKey, group_key, metrics_key};
pub use topics::{TOPIC_KEYS, TopicKey, topic_key};

/// The type of a value, in Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// 16 bits with sign.
    Short,
    /// 32 bits with sign.
    Int,
    /// 64 bits with sign.
    Long,
    /// A floating-point number.
    Double,
    /// Any text.
    Text,
    /// Texts separated by commas.
    List,
    /// The name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

impl Kind {
    /// Kafka's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Short => "short",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::Text => "string",
            Self::List => "list",
            Self::Class => "class",
            Self::Password => "password",
        }
    }
}

/// What a value must satisfy beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// Nothing.
    Any,
    /// At least this.
    Min(i64),
    /// Between these, both included.
    Range(i64, i64),
    /// Between the first two, or exactly the third.
    RangeOr(i64, i64, i64),
    /// Between these, for floating-point numbers.
    Share(f64, f64),
    /// One of these; of a list, every item.
    OneOf(&'static [&'static str]),
    /// One of these in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// Not empty when given.
    NonEmpty,
    /// `partition:broker` pairs, or `*`.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:` with a duration that is not negative.
    ShareReset,
}

/// When a new value counts, as Kafka tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// After a restart.
    ReadOnly,
    /// At once, for one broker.
    Broker,
    /// At once, for one broker or for all.
    Cluster,
}

impl UpdateMode {
    /// Kafka's name of the mode.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Broker => "per-broker",
            Self::Cluster => "cluster-wide",
        }
    }
}

/// What becomes of a value that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// It has its effect.
    Honoured,
    /// It is known, but what it configures is not built yet: a warning.
    Planned,
    /// It has no meaning here, for this reason: a warning.
    Ignored(&'static str),
    /// A node with it does not start.
    Refused {
        /// Values (of a list: items) that are accepted all the same, with a warning; where there are none,
        /// the default is.
        unless: &'static [&'static str],
        /// Why, and what to do.
        why: &'static str,
    },
}

impl Tier {
    /// One word for the documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Planned => "planned",
            Self::Ignored(_) => "ignored",
            Self::Refused { .. } => "refused",
        }
    }
}

/// One broker key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The name in a properties file.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// The default as it would be written; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// What a value must satisfy.
    pub check: Check,
    /// When a new value counts.
    pub mode: UpdateMode,
    /// What becomes of a value.
    pub tier: Tier,
    /// One sentence.
    pub doc: &'static str,
}

impl Key {
    /// The unit of its value, which Kafka's names carry; empty where there is none.
    pub fn unit(&self) -> &'static str {
        unit_of(self.name, self.kind)
    }

    /// The topic key whose default this is, if any.
    pub fn topic_synonym(&self) -> Option<&'static str> {
        TOPIC_KEYS.iter().find(|topic| topic.synonyms.contains(&self.name)).map(|topic| topic.name)
    }

    /// The value as it may be shown.
    pub fn shown<'a>(&self, value: &'a str) -> &'a str {
        if self.kind == Kind::Password { "[hidden]" } else { value }
    }
}

fn unit_of(name: &str, kind: Kind) -> &'static str {
    if !matches!(kind, Kind::Short | Kind::Int | Kind::Long | Kind::Double) {
        return "";
    }
    const UNITS: &[(&str, &str)] = &[
        ("bytes.per.second", "bytes/s"),
        ("throttled.rate", "bytes/s"),
        ("creation.rate", "1/s"),
        ("bytes", "bytes"),
        ("log.cleaner.dedupe.buffer.size", "bytes"),
        ("log.cleaner.io.buffer.size", "bytes"),
        ("load.buffer.size", "bytes"),
        ("max.receive.size", "bytes"),
        (".ms", "ms"),
        (".millis", "ms"),
        ("before.relogin", "ms"),
        ("seconds", "s"),
        (".secs", "s"),
        ("minutes", "min"),
        ("hours", "h"),
        ("percent", "%"),
        ("percentage", "%"),
    ];
    UNITS.iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("", |(_, unit)| unit)
}

/// Every broker key, in the order of its group's file.
pub fn broker_keys() -> impl Iterator<Item = &'static Key> {
    groups().into_iter().flat_map(|(_, keys)| keys)
}

/// The groups of broker keys, in the order in which they are documented.
pub fn groups() -> [(&'static str, &'static [Key]); 7] {
    [
        ("Shards and their limits (our own)", own::KEYS),
        ("Node, listeners and connections", node::KEYS),
        ("Topics and logs", log::KEYS),
        ("Replication, metadata quorum, fetch limits, quotas", cluster::KEYS),
        ("Groups and transactions", coordinator::KEYS),
        ("Security", security::KEYS),
        ("Removed from Kafka, still in older files", legacy::KEYS),
    ]
}

/// Whether Kafka 4 no longer has the key.
pub(super) fn is_legacy(key: &Key) -> bool {
    legacy::KEYS.iter().any(|legacy| legacy.name == key.name)
}

/// The broker key of that name.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    broker_keys().find(|key| key.name == name)
}

/// Makes `KEYS` from rows of name, type, default, check, update mode, tier and sentence. A macro keeps a row
/// on two lines where a formatted struct would take nine.
macro_rules! key_table {
    ($($name:literal $kind:ident $default:expr, $check:expr, $mode:ident, $tier:expr, $doc:literal;)*) => {
        pub(super) const KEYS: &[Key] = {
            #[allow(unused_imports, reason = "not every group has every kind of row")]
            use super::{Check::*, Kind::*, Tier::*, UpdateMode::*, reason::*};
            &[$(Key {
                name: $name, kind: $kind, default: $default, check: $check,
                mode: $mode, tier: $tier, doc: $doc,
            }),*]
        };
    };
}
use key_table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_there_once_with_a_sentence_and_a_default_that_passes_its_own_check() {
        let mut seen = std::collections::BTreeSet::new();
        for key in broker_keys() {
            assert!(seen.insert(key.name), "{} is there twice", key.name);
            assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{} has no sentence", key.name);
            if let Some(default) = key.default {
                assert_eq!(key.verdict(default), Ok(()), "{}", key.name);
            }
        }
        assert!(seen.len() > 350, "{}", seen.len());
        for key in TOPIC_KEYS {
            assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{} has no sentence", key.name);
            if let Some(default) = key.default {
                assert_eq!(key.verdict(default), Ok(()), "{}", key.name);
            }
        }
    }

    #[test]
    fn a_topic_key_has_the_default_of_the_broker_key_that_stands_for_it() {
        for topic in TOPIC_KEYS {
            for synonym in topic.synonyms {
                assert_eq!(broker_key(synonym).unwrap().topic_synonym(), Some(topic.name));
            }
            if let [only] = topic.synonyms {
                assert_eq!(broker_key(only).unwrap().default, topic.default, "{}", topic.name);
            }
        }
    }

    #[test]
    fn units_come_from_names() {
        assert_eq!(broker_key("log.retention.ms").unwrap().unit(), "ms");
        assert_eq!(broker_key("log.segment.bytes").unwrap().unit(), "bytes");
        assert_eq!(broker_key("log.flush.interval.messages").unwrap().unit(), "");
        assert_eq!(broker_key("shard.memory.percent").unwrap().unit(), "%");
    }

    #[test]
    fn passwords_are_never_shown() {
        assert_eq!(broker_key("ssl.key.password").unwrap().shown("secret"), "[hidden]");
        assert_eq!(broker_key("node.id").unwrap().shown("7"), "7");
    }
}
