//! Values that are given while the node runs: whether they may be, and the node's configuration with them.
//!
//! The one place where the layers meet: what is given for this broker, for all brokers, in the node's file, and
//! the table's default, in this order. Follows Kafka's `DynamicBrokerConfig`, `GroupConfig` and
//! `ClientMetricsConfigs`, words included; where Kafka names a set of keys, it is in order here.

use std::collections::BTreeMap;

use super::describe::DynamicConfigs;
use super::given::{Problem, checked_number};
use super::keys::{
    GROUP_KEYS, Key, METRICS_KEYS, ResourceKey, Tier, UpdateMode, broker_key, broker_keys, group_key, items,
    metrics_key, named, parse_integer,
};
use super::load::parse_per_ip_overrides;
use super::{NodeConfig, topic};

/// Why values are refused, with Kafka's words for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Kafka calls the request invalid.
    Request(String),
    /// Kafka calls the configuration invalid.
    Config(String),
}

/// Keys of the node's own, beside the defaults of topics, whose new value counts at once.
const NODE_KEYS: &[&str] = &[
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "max.connection.creation.rate",
    "producer.id.expiration.ms",
    "leader.replication.throttled.rate",
    "follower.replication.throttled.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Listener keys that may be given for all brokers.
const CLUSTER_LEVEL: &[&str] = &["max.connections", "max.connection.creation.rate", "num.network.threads"];

/// Whether a new value of the key counts while the node runs.
pub(super) fn takes_effect(key: &Key) -> bool {
    key.tier == Tier::Honoured && is_taken_up(key)
}

/// Whether a new value of the key becomes part of the configuration. What topics' keys are checked against does,
/// also where nothing acts on it yet.
fn is_taken_up(key: &Key) -> bool {
    key.mode != UpdateMode::ReadOnly
        && matches!(key.tier, Tier::Honoured | Tier::Planned)
        && (key.topic_synonym().is_some() || NODE_KEYS.contains(&key.name))
}

impl NodeConfig {
    /// This configuration with the values given while the node runs over it. Values that the table refuses
    /// (written by another version) and those without effect at run time change nothing.
    pub fn with_dynamic(&self, dynamic: &DynamicConfigs<'_>) -> Self {
        let mut config = self.clone();
        for key in broker_keys().filter(|key| is_taken_up(key)) {
            let value = dynamic.broker.get(key.name).or_else(|| dynamic.default.get(key.name)).copied();
            if let Some(value) = value.filter(|value| key.verdict(value).is_ok()) {
                config.set_dynamic(key, value.trim());
            }
        }
        config
    }

    fn set_dynamic(&mut self, key: &'static Key, value: &str) {
        match key.name {
            "max.connections" => self.max_connections = checked_number(value),
            "max.connections.per.ip" => self.max_connections_per_ip = checked_number(value),
            "max.connections.per.ip.overrides" => {
                self.max_connections_per_ip_overrides = parse_per_ip_overrides(value).0;
            }
            "max.connection.creation.rate" => self.max_connection_creation_rate = checked_number(value),
            "producer.id.expiration.ms" => self.producer_id_expiration_ms = checked_number(value),
            "leader.replication.throttled.rate" => {
                self.replication_limits.leader_bytes_per_s = checked_number(value);
            }
            "follower.replication.throttled.rate" => {
                self.replication_limits.follower_bytes_per_s = checked_number(value);
            }
            "replica.alter.log.dirs.io.max.bytes.per.second" => {
                self.replication_limits.moves_bytes_per_s = checked_number(value);
            }
            name => {
                topic::set_default(&mut self.topic_defaults, &mut self.compression_levels, name, value);
            }
        }
    }
}

/// What the operator is told of a broker key that is given while the node runs; `None` if it has its effect.
pub fn warn_of(name: &str) -> Option<String> {
    let why = match broker_key(name) {
        Some(key) if takes_effect(key) => return None,
        Some(Key { tier: Tier::Honoured, .. }) => "counts after a restart, from the node's file".to_owned(),
        Some(Key { tier: Tier::Ignored(reason), .. }) => format!("has no effect, because {reason}"),
        Some(_) => "has no effect yet, because what it configures is not built".to_owned(),
        None => "is not a known key and has no effect".to_owned(),
    };
    Some(format!("{name}: {why}"))
}

/// A key of the form `listener.name.NAME.KEY`, without what is before KEY.
fn listener_key(name: &str) -> Option<&str> {
    Some(name.strip_prefix("listener.name.")?.split_once('.')?.1)
}

/// Whether a broker (`of_one`), or all of them, may have these values, all together; `node` is the
/// configuration of the node without them, `others` the values of the other level.
pub fn check_broker_configs(
    node: &NodeConfig,
    values: &BTreeMap<&str, &str>,
    others: &BTreeMap<&str, &str>,
    of_one: bool,
) -> Result<(), Refusal> {
    let rows = || values.keys().filter_map(|name| broker_key(name));
    refuse_any(
        "Cannot update these configs dynamically",
        rows().filter(|key| key.mode == UpdateMode::ReadOnly),
    )?;
    refuse_any(
        "These security configs can be dynamically updated only per-listener using the listener prefix",
        rows().filter(|key| key.mode == UpdateMode::Broker && key.name.starts_with("ssl.")),
    )?;
    for (&name, &value) in values {
        let key = broker_key(listener_key(name).unwrap_or(name));
        if let Some((key, Err(message))) = key.map(|key| (key, key.verdict(value))) {
            let shown = named(key.kind, key.check, key.shown(value));
            return Err(Refusal::Request(match key.name {
                // Kafka's table takes 0, and its class then does not.
                "log.retention.ms" if parse_integer(key.kind, value).is_ok() => {
                    "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1"
                        .to_owned()
                }
                _ => Problem::new(key.name, shown, message).to_string(),
            }));
        }
    }
    if !of_one {
        let is_one_brokers = |name: &&str| match listener_key(name) {
            Some(base) => !CLUSTER_LEVEL.contains(&base),
            None => broker_key(name).is_some_and(|key| key.mode == UpdateMode::Broker),
        };
        let names: Vec<&str> = values.keys().copied().filter(is_one_brokers).collect();
        refuse_named(
            "Cannot update these configs at default cluster level, broker id must be specified",
            &names,
        )?;
    }
    check_together(node, values, others, of_one)
}

fn refuse_any(words: &str, keys: impl Iterator<Item = &'static Key>) -> Result<(), Refusal> {
    refuse_named(words, &keys.map(|key| key.name).collect::<Vec<_>>())
}

fn refuse_named(words: &str, names: &[&str]) -> Result<(), Refusal> {
    if names.is_empty() { Ok(()) } else { Err(Refusal::Request(format!("{words}: [{}]", names.join(", ")))) }
}

/// Rules that join several keys, and keys whose new value this broker could only pretend to honour.
fn check_together(
    node: &NodeConfig,
    values: &BTreeMap<&str, &str>,
    others: &BTreeMap<&str, &str>,
    of_one: bool,
) -> Result<(), Refusal> {
    const OVERRIDES: &str = "max.connections.per.ip.overrides";
    for name in values.keys() {
        let is_fixed = matches!(*name, "listeners" | "listener.security.protocol.map");
        if is_fixed || listener_key(name).is_some() {
            let words = "a listener cannot be changed while this broker runs; set it in the node's file";
            return Err(Refusal::Request(format!("{name}: {words}")));
        }
    }
    if let Some(entry) = values.get(OVERRIDES).and_then(|text| parse_per_ip_overrides(text).1.next()) {
        let words = format!(
            "Error parsing configuration property '{OVERRIDES}': {entry}: allowed are entries such as 127.0.0.1:100"
        );
        return Err(Refusal::Request(words));
    }
    let (one, all) = if of_one { (values, others) } else { (others, values) };
    let dynamic = DynamicConfigs { broker: one.clone(), default: all.clone() };
    let config = node.with_dynamic(&dynamic);
    if config.max_connections_per_ip == 0 && config.max_connections_per_ip_overrides.is_empty() {
        let words = "requirement failed: max.connections.per.ip can be set to zero only if \
                     max.connections.per.ip.overrides property is set.";
        return Err(Refusal::Request(words.to_owned()));
    }
    Ok(())
}

fn verdict(key: &ResourceKey, value: &str) -> Result<(), Refusal> {
    let worded = |message: String| {
        let message = match key.name {
            "share.auto.offset.reset" => {
                format!("Invalid value `{value}` for configuration {}. {message}", key.name)
            }
            _ => message,
        };
        Refusal::Config(Problem::new(key.name, value, message).to_string())
    };
    key.verdict(value).map_err(worded)
}

/// Whether a group may have these values of its own, all together.
pub fn check_group_configs(node: &NodeConfig, values: &BTreeMap<&str, &str>) -> Result<(), Refusal> {
    if let Some(name) = values.keys().find(|name| group_key(name).is_none()) {
        return Err(Refusal::Config(format!("Unknown group config name: {name}")));
    }
    for (name, value) in values {
        group_key(name).map_or(Ok(()), |key| verdict(key, value))?;
    }
    for key in GROUP_KEYS {
        let Some(number) = values.get(key.name).and_then(|value| parse_integer(key.kind, value).ok()) else {
            continue;
        };
        if let Some(least) = key.least.filter(|least| number < broker_number(node, least)) {
            return Err(Refusal::Config(format!("{} must be greater than or equal to {least}", key.name)));
        }
        if let Some(most) = key.most.filter(|most| number > broker_number(node, most)) {
            return Err(Refusal::Config(format!("{} must be less than or equal to {most}", key.name)));
        }
    }
    for kind in ["consumer", "share", "streams"] {
        let (session, heartbeat) =
            (format!("{kind}.session.timeout.ms"), format!("{kind}.heartbeat.interval.ms"));
        let is_given = values.contains_key(&*session) || values.contains_key(&*heartbeat);
        let of = |name: &str| group_number(node, values, name);
        if is_given && of(&session) <= of(&heartbeat) {
            return Err(Refusal::Config(format!("{session} must be greater than {heartbeat}")));
        }
    }
    Ok(())
}

/// The number that a broker key has in the node's file, or by default.
fn broker_number(node: &NodeConfig, name: &str) -> i64 {
    let key = broker_key(name);
    let text = node.given.get(name).map(String::as_str).or_else(|| key.and_then(|key| key.default));
    text.zip(key).and_then(|(text, key)| parse_integer(key.kind, text).ok()).unwrap_or_default()
}

/// The number that a group has: its own, or else the broker's.
pub fn group_number(node: &NodeConfig, values: &BTreeMap<&str, &str>, name: &str) -> i64 {
    let Some(key) = group_key(name) else { return 0 };
    let own = values.get(name).and_then(|value| parse_integer(key.kind, value).ok());
    own.unwrap_or_else(|| key.synonym.map_or(0, |synonym| broker_number(node, synonym)))
}

/// Whether a client-metrics subscription may have these values, all together.
pub fn check_metrics_configs(values: &BTreeMap<&str, &str>) -> Result<(), Refusal> {
    const INTERVAL_MS: std::ops::RangeInclusive<i64> = 100..=3_600_000;
    if let Some(name) = values.keys().find(|name| metrics_key(name).is_none()) {
        return Err(Refusal::Request(format!("Unknown client metrics configuration: {name}")));
    }
    for key in METRICS_KEYS {
        let Some(&value) = values.get(key.name) else { continue };
        verdict(key, value)?;
        match key.name {
            "interval.ms" => {
                let number: i64 = checked_number(value);
                if !INTERVAL_MS.contains(&number) {
                    return Err(Refusal::Request(format!(
                        "Invalid value {value} for interval.ms, interval must be between 100 and 3600000 (1 hour)"
                    )));
                }
            }
            "match" => {
                if let Some(pattern) = items(value).find(|pattern| !is_client_pattern(pattern)) {
                    return Err(Refusal::Config(format!("Illegal client matching pattern: {pattern}")));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `field=pattern` with a field that Kafka knows. The pattern is a regular expression that nobody here runs: what
/// is checked is that its brackets close.
fn is_client_pattern(text: &str) -> bool {
    const FIELDS: [&str; 6] = [
        "client_id",
        "client_instance_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    ];
    let Some((field, pattern)) = text.split_once('=') else { return false };
    FIELDS.contains(&field.trim()) && has_closed_brackets(pattern)
}

fn has_closed_brackets(pattern: &str) -> bool {
    let mut open = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match (character, open.last()) {
            ('\\', _) if characters.next().is_some() => {}
            ('\\', _) => return false,
            (']', Some('[')) | (')', Some('(')) => drop(open.pop()),
            (_, Some('[')) => {}
            ('[' | '(', _) => open.push(character),
            (')', _) => return false,
            _ => {}
        }
    }
    open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(pairs: &[(&str, &str)]) -> NodeConfig {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        NodeConfig::load(None, &pairs).unwrap().0
    }

    fn broker(values: &[(&'static str, &'static str)], of_one: bool) -> Result<(), String> {
        let values = values.iter().copied().collect();
        check_broker_configs(&node(&[]), &values, &BTreeMap::new(), of_one).map_err(|refusal| match refusal {
            Refusal::Request(words) => words,
            Refusal::Config(words) => panic!("Kafka calls the request invalid: {words}"),
        })
    }

    #[test]
    fn what_is_given_for_this_broker_comes_before_what_is_given_for_all_and_the_file() {
        let node =
            node(&[("message.max.bytes", "2000"), ("log.retention.hours", "1"), ("max.connections", "9")]);
        assert_eq!(node.with_dynamic(&DynamicConfigs::default()), node);
        let dynamic = DynamicConfigs {
            broker: [("message.max.bytes", "4000"), ("max.connections.per.ip.overrides", "h:3")].into(),
            default: [
                ("message.max.bytes", "3000"),
                ("max.connections", "7"),
                ("log.retention.ms", "5"),
                ("compression.zstd.level", "9"),
                ("log.cleanup.policy", "compact"),
                ("log.segment.bytes", "1"),
                ("node.id", "8"),
            ]
            .into(),
        };
        let config = node.with_dynamic(&dynamic);
        assert_eq!((config.topic_defaults.max_message_bytes, config.max_connections), (4000, 7));
        assert_eq!((config.topic_defaults.retention_ms, config.compression_levels.zstd), (5, 9));
        assert!(config.topic_defaults.cleanup_policy.compact);
        assert_eq!(config.max_connections_per_ip_overrides.get("h"), Some(&3));
        assert_eq!(config.topic_defaults.segment_bytes, node.topic_defaults.segment_bytes);
        assert_eq!((config.node_id, &config.given), (node.node_id, &node.given));
    }

    #[test]
    fn every_key_that_counts_at_run_time_changes_the_configuration() {
        let node = node(&[]);
        for key in broker_keys().filter(|key| takes_effect(key) && !key.name.ends_with(".level")) {
            let probes = ["17", "compact", "lz4", "LogAppendTime", "0.25", "true", "1048577", "h:1"];
            let changes = |probe: &&str| {
                let dynamic =
                    DynamicConfigs { broker: [(key.name, *probe)].into(), default: BTreeMap::new() };
                key.verdict(probe).is_ok() && node.with_dynamic(&dynamic) != node
            };
            assert!(probes.iter().any(changes), "{}", key.name);
            assert_eq!(warn_of(key.name), None);
        }
        assert!(warn_of("log.cleaner.threads").unwrap().contains("no effect"));
        assert!(warn_of("no.such.key").unwrap().contains("not a known key"));
    }

    #[test]
    fn broker_values_are_refused_in_kafkas_words() {
        for (values, of_one, words) in [
            (&[("node.id", "2")][..], true, "Cannot update these configs dynamically: [node.id]"),
            (
                &[("ssl.keystore.location", "x")][..],
                true,
                "These security configs can be dynamically updated only per-listener using the listener prefix: \
                 [ssl.keystore.location]",
            ),
            (
                &[("listeners", "PLAINTEXT://:1")][..],
                false,
                "Cannot update these configs at default cluster level, broker id must be specified: [listeners]",
            ),
            (
                &[("log.retention.ms", "abc")][..],
                true,
                "Invalid value abc for configuration log.retention.ms: Not a number of type LONG",
            ),
            (
                &[("log.retention.ms", "0")][..],
                true,
                "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
            ),
            (
                &[("max.connections.per.ip", "0")][..],
                false,
                "requirement failed: max.connections.per.ip can be set to zero only if \
                 max.connections.per.ip.overrides property is set.",
            ),
            (
                &[("listener.name.plaintext.max.connections", "x")][..],
                false,
                "Invalid value x for configuration max.connections: Not a number of type INT",
            ),
        ] {
            assert_eq!(broker(values, of_one).unwrap_err(), words);
        }
        assert_eq!(
            broker(&[("max.connections.per.ip", "0"), ("max.connections.per.ip.overrides", "h:1")], true),
            Ok(())
        );
        assert!(broker(&[("max.connections.per.ip.overrides", "a")], false).is_err());
        assert!(
            broker(&[("listeners", "PLAINTEXT://:1")], true).unwrap_err().contains("while this broker runs")
        );
        assert_eq!(broker(&[("no.such.key", "1"), ("num.io.threads", "9")], false), Ok(()));
    }

    #[test]
    fn group_values_are_held_against_the_brokers_bounds() {
        let check = |values: &[(&'static str, &'static str)]| {
            check_group_configs(&node(&[]), &values.iter().copied().collect())
        };
        let config = |words: &str| Err(Refusal::Config(words.to_owned()));
        assert_eq!(
            check(&[
                ("consumer.session.timeout.ms", "50000"),
                ("share.auto.offset.reset", "by_duration:PT1H")
            ]),
            Ok(())
        );
        assert_eq!(check(&[("nope", "1")]), config("Unknown group config name: nope"));
        let words = "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms";
        assert_eq!(check(&[("consumer.session.timeout.ms", "1")]), config(words));
        let words =
            "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas";
        assert_eq!(check(&[("streams.num.standby.replicas", "3")]), config(words));
        let words = "Invalid value 1 for configuration share.delivery.count.limit: Value must be at least 2";
        assert_eq!(check(&[("share.delivery.count.limit", "1")]), config(words));
        for value in
            ["foo", "by_duration:-PT1H", "LATEST", "by_duration:P", "by_duration:PT", "by_duration:1H"]
        {
            let words = format!(
                "Invalid value {value} for configuration share.auto.offset.reset: Invalid value `{value}` for \
                 configuration share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the \
                 format 'by_duration:<PnDTnHnMn.nS>'."
            );
            assert_eq!(check(&[("share.auto.offset.reset", value)]), config(&words));
        }
        let node = node(&[("group.consumer.min.session.timeout.ms", "1000")]);
        let values = [("consumer.session.timeout.ms", "2000")].into();
        assert_eq!(
            check_group_configs(&node, &values),
            config("consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms")
        );
        assert_eq!(group_number(&node, &values, "consumer.session.timeout.ms"), 2000);
        assert_eq!(group_number(&node, &values, "consumer.heartbeat.interval.ms"), 5000);
    }

    #[test]
    fn subscriptions_are_checked_as_kafka_checks_them() {
        let check = |key: &'static str, value: &'static str| check_metrics_configs(&[(key, value)].into());
        assert_eq!(check("interval.ms", "1000"), Ok(()));
        assert_eq!(check("match", "client_id=a.*,client_software_name=(java|[)])"), Ok(()));
        let request = |words: &str| Err(Refusal::Request(words.to_owned()));
        let config = |words: &str| Err(Refusal::Config(words.to_owned()));
        let words = "Invalid value 1 for interval.ms, interval must be between 100 and 3600000 (1 hour)";
        assert_eq!(check("interval.ms", "1"), request(words));
        assert_eq!(check("foo", "1"), request("Unknown client metrics configuration: foo"));
        for pattern in ["foo=bar", "client_id=[", "nonsense", "client_id=a)", "client_id=\\"] {
            let values = [("match", pattern)].into();
            let words = format!("Illegal client matching pattern: {pattern}");
            assert_eq!(check_metrics_configs(&values), config(&words));
        }
    }

    #[test]
    fn the_rows_of_groups_name_broker_keys_with_the_same_default() {
        for key in GROUP_KEYS {
            assert_eq!(key.verdict(key.default), Ok(()), "{}", key.name);
            if let Some(synonym) = key.synonym {
                assert_eq!(broker_key(synonym).unwrap().default, Some(key.default), "{}", key.name);
            }
            assert!(
                key.least.into_iter().chain(key.most).all(|name| broker_key(name).is_some()),
                "{}",
                key.name
            );
        }
    }
}
