//! The configuration of the node and of topics value by value, with where each value comes from: what
//! DescribeConfigs and CreateTopics answer.
//!
//! Follows Kafka's `ConfigHelper` and `KafkaConfigSchema`, with one trait that surprises there too: the
//! synonyms of a topic's key are listed from its first broker key on. Where only a later one has a value
//! (`log.retention.hours`, by default), the list is empty and the source reads as the default.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::NodeConfig;
use super::keys::{
    GROUP_KEYS, Key, Kind, METRICS_KEYS, ResourceKey, TOPIC_KEYS, Tier, TopicKey, UpdateMode, broker_key,
    broker_keys, is_legacy, items,
};
use super::topic::milliseconds_per_unit;

/// Where a value comes from, with Kafka's numbers (`DescribeConfigsResponse.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// The topic's own value.
    Topic = 1,
    /// Given to this broker while it runs.
    DynamicBroker = 2,
    /// Given to all brokers while they run.
    DynamicDefaultBroker = 3,
    /// The node's file or its command line.
    StaticBroker = 4,
    /// The table.
    Default = 5,
    /// The client-metrics subscription's own value.
    ClientMetrics = 7,
    /// The group's own value.
    Group = 8,
}

/// A key that gives, or would give, another one its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key.
    pub name: Cow<'static, str>,
    /// Its value; `None` is null, and what is sensitive.
    pub value: Option<String>,
    /// Where that comes from.
    pub source: ConfigSource,
}

/// One key as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// The key; one that no table has only where it was given to brokers while they run.
    pub name: Cow<'static, str>,
    /// The value that counts; `None` is null, and what is sensitive.
    pub value: Option<String>,
    /// Its type, if the key is known.
    pub kind: Option<Kind>,
    /// Where the value comes from as DescribeConfigs tells it: the source of the first synonym.
    pub source: ConfigSource,
    /// Where the value comes from as CreateTopics tells it: any synonym counts.
    pub origin: ConfigSource,
    /// The value is never shown.
    pub is_sensitive: bool,
    /// A new value needs a restart.
    pub is_read_only: bool,
    /// What gives the value, first what counts most.
    pub synonyms: Vec<ConfigSynonym>,
    /// One sentence.
    pub doc: &'static str,
}

/// Values of broker keys that were given while the node runs, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicConfigs<'a> {
    /// For this broker.
    pub broker: BTreeMap<&'a str, &'a str>,
    /// For all brokers.
    pub default: BTreeMap<&'a str, &'a str>,
}

impl DynamicConfigs<'_> {
    /// What is given for one broker key, first what counts most; the table's default last.
    fn layers(&self, node: &NodeConfig, key: &'static Key) -> impl Iterator<Item = (ConfigSource, String)> {
        let given = [
            (ConfigSource::DynamicBroker, self.broker.get(key.name).copied()),
            (ConfigSource::DynamicDefaultBroker, self.default.get(key.name).copied()),
            (ConfigSource::StaticBroker, node.given.get(key.name).map(String::as_str)),
            (ConfigSource::Default, key.default),
        ];
        given.map(|(source, value)| Some((source, canonical(key.kind, value?)))).into_iter().flatten()
    }
}

/// The value as Kafka would write it.
fn canonical(kind: Kind, value: &str) -> String {
    let value = value.trim();
    match kind {
        Kind::Boolean => value.to_ascii_lowercase(),
        Kind::List => items(value).collect::<Vec<_>>().join(","),
        Kind::Short | Kind::Int | Kind::Long => value.trim_start_matches('+').to_owned(),
        Kind::Double => value.parse().map_or_else(|_| value.to_owned(), java_double),
        Kind::Text | Kind::Class | Kind::Password => value.to_owned(),
    }
}

/// A number as `Double.toString` writes it: an exponent from 10⁷ on and below 10⁻³, always a digit behind the point.
fn java_double(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// Kafka has these beside its table of keys: no default stands behind what they are given.
const BESIDE_THE_TABLE: [&str; 3] = [
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// The keys that stand for one another, first what counts most (`DynamicBrokerConfig.brokerConfigSynonyms`).
fn broker_synonyms(name: &'static str) -> Vec<&'static str> {
    let topic = TOPIC_KEYS.iter().find(|topic| topic.synonyms.len() > 1 && topic.synonyms.contains(&name));
    match topic {
        // Kafka knows this one in the other direction only.
        Some(_) if name == "log.flush.scheduler.interval.ms" => vec![name],
        Some(topic) => topic.synonyms.to_vec(),
        None => vec![name],
    }
}

fn synonyms_of(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    name: &'static str,
    is_sensitive: bool,
) -> Vec<ConfigSynonym> {
    let keys: Vec<&Key> = broker_synonyms(name).into_iter().filter_map(broker_key).collect();
    let mut all: Vec<ConfigSynonym> = keys
        .iter()
        .flat_map(|key| {
            dynamic.layers(node, key).map(|(source, value)| ConfigSynonym {
                name: key.name.into(),
                value: Some(value).filter(|_| !is_sensitive),
                source,
            })
        })
        .collect();
    all.sort_by_key(|synonym| synonym.source as i8);
    let first = all.iter().position(|synonym| synonym.name == name).unwrap_or(all.len());
    all.split_off(first)
}

/// Every key of this node, or, with `defaults_only`, the values given for all brokers while they run.
/// Keys that were removed from Kafka are there if they are given.
pub fn describe_broker(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    defaults_only: bool,
) -> Vec<DescribedConfig> {
    let shown = |key: &&Key| {
        if defaults_only {
            dynamic.default.contains_key(key.name)
        } else {
            !is_legacy(key) || node.given.contains_key(key.name)
        }
    };
    let known = broker_keys().filter(shown).map(|key| describe_broker_key(node, dynamic, key, defaults_only));
    known.chain(describe_unknown(dynamic, defaults_only)).collect()
}

/// Keys that no table has, given while brokers run: nobody knows what is in them, so they pass for secrets.
fn describe_unknown(dynamic: &DynamicConfigs<'_>, defaults_only: bool) -> Vec<DescribedConfig> {
    let of = |layer: &BTreeMap<&str, &str>, source| {
        let unknown = layer.keys().filter(|name| broker_key(name).is_none());
        unknown.map(|name| ((*name).to_owned(), source)).collect::<Vec<_>>()
    };
    let mut sources: BTreeMap<String, Vec<ConfigSource>> = BTreeMap::new();
    if !defaults_only {
        for (name, source) in of(&dynamic.broker, ConfigSource::DynamicBroker) {
            sources.entry(name).or_default().push(source);
        }
    }
    for (name, source) in of(&dynamic.default, ConfigSource::DynamicDefaultBroker) {
        sources.entry(name).or_default().push(source);
    }
    let described = sources.into_iter().map(|(name, sources)| {
        let source = sources.first().copied().unwrap_or(ConfigSource::Default);
        let synonym = |source| ConfigSynonym { name: name.clone().into(), value: None, source };
        DescribedConfig {
            synonyms: sources.into_iter().map(synonym).collect(),
            name: name.clone().into(),
            value: None,
            kind: None,
            source,
            origin: source,
            is_sensitive: true,
            is_read_only: true,
            doc: "",
        }
    });
    described.collect()
}

/// Every key of a group with these values of its own.
pub fn describe_group(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    own: &BTreeMap<&str, &str>,
) -> Vec<DescribedConfig> {
    let inherited = |key: &ResourceKey| match key.synonym {
        Some(synonym) => synonyms_of(node, dynamic, synonym, false),
        None => vec![ConfigSynonym {
            name: key.name.into(),
            value: Some(key.default.to_owned()),
            source: ConfigSource::Default,
        }],
    };
    let keys = GROUP_KEYS.iter();
    keys.map(|key| describe_resource_key(key, own, ConfigSource::Group, inherited(key))).collect()
}

/// Every key of a client-metrics subscription with these values of its own.
pub fn describe_metrics(own: &BTreeMap<&str, &str>) -> Vec<DescribedConfig> {
    let keys = METRICS_KEYS.iter();
    keys.map(|key| describe_resource_key(key, own, ConfigSource::ClientMetrics, Vec::new())).collect()
}

fn describe_resource_key(
    key: &'static ResourceKey,
    own: &BTreeMap<&str, &str>,
    own_source: ConfigSource,
    mut synonyms: Vec<ConfigSynonym>,
) -> DescribedConfig {
    if let Some(value) = own.get(key.name) {
        let value = Some(canonical(key.kind, value));
        synonyms.insert(0, ConfigSynonym { name: key.name.into(), value, source: own_source });
    }
    let first = synonyms.first();
    let source = first.map_or(ConfigSource::Default, |synonym| synonym.source);
    let inherited = first.and_then(|synonym| synonym.value.clone());
    DescribedConfig {
        name: key.name.into(),
        value: inherited.or_else(|| Some(key.default.to_owned())),
        kind: Some(key.kind),
        source,
        origin: source,
        is_sensitive: false,
        is_read_only: false,
        synonyms,
        doc: key.doc,
    }
}

fn describe_broker_key(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    key: &'static Key,
    defaults_only: bool,
) -> DescribedConfig {
    let is_sensitive = key.kind == Kind::Password;
    let mut synonyms = synonyms_of(node, dynamic, key.name, is_sensitive);
    let counts = |source: ConfigSource| !defaults_only || source == ConfigSource::DynamicDefaultBroker;
    let has_default = !BESIDE_THE_TABLE.contains(&key.name);
    let is_told = |source| counts(source) && (has_default || source != ConfigSource::Default);
    synonyms.retain(|synonym| is_told(synonym.source));
    let value = dynamic.layers(node, key).find(|(source, _)| counts(*source)).map(|(_, value)| value);
    let source = synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
    DescribedConfig {
        name: key.name.into(),
        value: value.filter(|_| !is_sensitive),
        kind: Some(key.kind),
        source,
        origin: source,
        is_sensitive,
        is_read_only: key.mode == UpdateMode::ReadOnly,
        synonyms,
        doc: key.doc,
    }
}

/// Every key of a topic with these values of its own, by name. Keys that only a test sets, and those that
/// were removed from Kafka, are there if the topic has them.
pub fn describe_topic<'a>(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    overrides: impl Iterator<Item = (&'a str, &'a str)>,
) -> Vec<DescribedConfig> {
    let overrides: BTreeMap<&str, &str> = overrides.collect();
    let shown = |key: &&TopicKey| {
        let hidden = key.name.starts_with("internal.") || matches!(key.tier, Tier::Ignored(_));
        !hidden || overrides.contains_key(key.name)
    };
    let keys = TOPIC_KEYS.iter().filter(shown);
    let mut described: Vec<DescribedConfig> =
        keys.map(|key| describe_topic_key(node, dynamic, key, overrides.get(key.name).copied())).collect();
    described.sort_by(|one, other| one.name.cmp(&other.name));
    described
}

fn describe_topic_key(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    key: &'static TopicKey,
    own: Option<&str>,
) -> DescribedConfig {
    let own = own.map(|value| canonical(key.kind, value));
    let first = key.synonyms.first();
    let mut synonyms = first.map_or_else(Vec::new, |name| synonyms_of(node, dynamic, name, false));
    if let Some(value) = &own {
        let synonym =
            ConfigSynonym { name: key.name.into(), value: Some(value.clone()), source: ConfigSource::Topic };
        synonyms.insert(0, synonym);
    }
    let (origin, value) = match own {
        Some(value) => (ConfigSource::Topic, Some(value)),
        None => inherited(node, dynamic, key),
    };
    DescribedConfig {
        name: key.name.into(),
        value,
        kind: Some(key.kind),
        source: synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source),
        origin,
        is_sensitive: false,
        is_read_only: false,
        synonyms,
        doc: key.doc,
    }
}

/// What a topic without a value of its own has: the first broker key with a value, layer by layer.
fn inherited(
    node: &NodeConfig,
    dynamic: &DynamicConfigs<'_>,
    key: &TopicKey,
) -> (ConfigSource, Option<String>) {
    let static_value = |name: &str| node.given.get(name).map(String::as_str);
    let difference = || match key.name {
        "message.timestamp.before.max.ms" | "message.timestamp.after.max.ms" => {
            static_value("log.message.timestamp.difference.max.ms").map(|value| ("", value))
        }
        _ => None,
    };
    let in_layer = |value: &dyn Fn(&str) -> Option<String>| {
        key.synonyms.iter().find_map(|name| Some((*name, value(name)?)))
    };
    let owned = |value: &&str| (*value).to_owned();
    let layers = [
        (ConfigSource::DynamicBroker, in_layer(&|name| dynamic.broker.get(name).map(owned))),
        (ConfigSource::DynamicDefaultBroker, in_layer(&|name| dynamic.default.get(name).map(owned))),
        (
            ConfigSource::StaticBroker,
            in_layer(&|name| static_value(name).map(str::to_owned))
                .or_else(|| difference().map(|(name, value)| (name, value.to_owned()))),
        ),
    ];
    let found = layers.into_iter().find_map(|(source, found)| found.map(|found| (source, found)));
    match found {
        Some((source, (name, value))) => {
            let value = canonical(key.kind, &value);
            let count = value.parse::<i64>().ok().filter(|count| *count >= 0);
            let in_ms =
                milliseconds_per_unit(name).zip(count).map(|(factor, count)| count.saturating_mul(factor));
            (source, Some(in_ms.map_or(value, |ms| ms.to_string())))
        }
        None => (ConfigSource::Default, key.default.map(|value| canonical(key.kind, value))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(pairs: &[(&str, &str)]) -> NodeConfig {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        NodeConfig::load(None, &pairs).unwrap().0
    }

    fn topic_key(node: &NodeConfig, dynamic: &DynamicConfigs<'_>, name: &str) -> DescribedConfig {
        describe_topic(node, dynamic, std::iter::empty()).into_iter().find(|one| one.name == name).unwrap()
    }

    #[test]
    fn numbers_are_written_as_java_writes_them() {
        for (given, told) in [
            ("0", "0.0"),
            ("0.5", "0.5"),
            ("1", "1.0"),
            ("9999999", "9999999.0"),
            ("10000000", "1.0E7"),
            ("-12500000", "-1.25E7"),
            ("0.001", "0.001"),
            ("0.0001", "1.0E-4"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
            ("some", "some"),
        ] {
            assert_eq!(canonical(Kind::Double, given), told);
        }
    }

    #[test]
    fn a_topics_value_comes_from_the_topic_the_node_or_the_table() {
        let node = node(&[("log.segment.bytes", "+2097152")]);
        let none = DynamicConfigs::default();
        let own = describe_topic(&node, &none, [("segment.bytes", "1048576")].into_iter());
        let own = own.iter().find(|one| one.name == "segment.bytes").unwrap();
        assert_eq!((own.value.as_deref(), own.source), (Some("1048576"), ConfigSource::Topic));
        let sources: Vec<_> = own.synonyms.iter().map(|one| (&*one.name, one.source as i8)).collect();
        assert_eq!(sources, [("segment.bytes", 1), ("log.segment.bytes", 4), ("log.segment.bytes", 5)]);
        let inherited = topic_key(&node, &none, "segment.bytes");
        assert_eq!(
            (inherited.value.as_deref(), inherited.source),
            (Some("2097152"), ConfigSource::StaticBroker)
        );
        let untouched = topic_key(&node, &none, "max.message.bytes");
        assert_eq!((untouched.value.as_deref(), untouched.source), (Some("1048588"), ConfigSource::Default));
        let unknown_to_brokers = topic_key(&node, &none, "remote.storage.enable");
        assert_eq!(unknown_to_brokers.synonyms, []);
    }

    #[test]
    fn hours_become_milliseconds_and_are_no_synonym_of_the_first_key() {
        let node = node(&[("log.retention.hours", "2")]);
        let retention = topic_key(&node, &DynamicConfigs::default(), "retention.ms");
        assert_eq!(retention.value.as_deref(), Some("7200000"));
        assert_eq!((retention.source, retention.origin), (ConfigSource::Default, ConfigSource::StaticBroker));
        assert_eq!(retention.synonyms, []);
    }

    #[test]
    fn values_given_at_run_time_come_before_the_file() {
        let node = node(&[("message.max.bytes", "2000")]);
        let dynamic = DynamicConfigs {
            broker: [("message.max.bytes", "4000")].into(),
            default: [("message.max.bytes", "3000"), ("log.cleaner.threads", "2")].into(),
        };
        let described = topic_key(&node, &dynamic, "max.message.bytes");
        assert_eq!(
            (described.value.as_deref(), described.source),
            (Some("4000"), ConfigSource::DynamicBroker)
        );
        let sources: Vec<_> = described.synonyms.iter().map(|one| one.source as i8).collect();
        assert_eq!(sources, [2, 3, 4, 5]);
        let defaults = describe_broker(&node, &dynamic, true);
        let shown: Vec<_> =
            defaults.iter().map(|one| (&*one.name, one.value.as_deref(), one.source as i8)).collect();
        assert!(shown.contains(&("message.max.bytes", Some("3000"), 3)), "{shown:?}");
        assert!(shown.contains(&("log.cleaner.threads", Some("2"), 3)) && shown.len() == 2, "{shown:?}");
    }

    #[test]
    fn nothing_stands_behind_a_throttle_that_is_given() {
        let rate = "leader.replication.throttled.rate";
        let dynamic = DynamicConfigs { broker: [(rate, "7")].into(), default: BTreeMap::new() };
        for (dynamic, value, sources) in
            [(dynamic, "7", &[2][..]), (DynamicConfigs::default(), "9223372036854775807", &[])]
        {
            let described = describe_broker(&node(&[]), &dynamic, false);
            let told = described.iter().find(|one| one.name == rate).unwrap();
            assert_eq!(told.value.as_deref(), Some(value));
            assert_eq!(told.synonyms.iter().map(|one| one.source as i8).collect::<Vec<_>>(), sources);
        }
    }

    #[test]
    fn every_key_of_the_node_is_there_once_and_secrets_are_not() {
        let node = node(&[("node.id", "7"), ("log.dirs", " /a , /b ")]);
        let described = describe_broker(&node, &DynamicConfigs::default(), false);
        let mut names: Vec<_> = described.iter().map(|one| &*one.name).collect();
        assert!(names.len() > 300);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), described.len());
        let find = |name: &str| described.iter().find(|one| one.name == name).unwrap();
        let id = find("node.id");
        assert_eq!(
            (id.value.as_deref(), id.source, id.is_read_only),
            (Some("7"), ConfigSource::StaticBroker, true)
        );
        assert_eq!(find("log.dirs").value.as_deref(), Some("/a,/b"));
        let secret = find("ssl.key.password");
        assert!(secret.is_sensitive && secret.value.is_none());
        assert!(!find("log.cleaner.threads").is_read_only);
        // Kafka lists the synonyms of one of several keys from itself on.
        let hours: Vec<_> = find("log.retention.hours").synonyms.iter().map(|one| &*one.name).collect();
        assert_eq!(hours, ["log.retention.hours"]);
        assert_eq!(describe_broker(&node, &DynamicConfigs::default(), true), []);
    }
}
