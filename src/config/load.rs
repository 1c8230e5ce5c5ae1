//! From text to [`NodeConfig`]: every key judged by the table, then the rules that join several keys.
//!
//! Nothing is read but the arguments, and every problem is reported, not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::cluster::{self, Checked};
use super::given::{Given, Problem, Warning};
use super::listeners;
use super::throttles;
use super::topic;
use super::{
    ConfigError, ConsumerGroupConfig, GroupConfig, NodeConfig, ProcessRoles, ShardCpus, TransactionConfig,
};

impl Default for NodeConfig {
    /// What a node is without any file.
    fn default() -> Self {
        Self::load(None, &[]).expect("the defaults pass every check").0
    }
}

impl NodeConfig {
    /// Makes the configuration from the text of a properties file with `overrides` on top, later ones winning.
    pub fn load(
        text: Option<&str>,
        overrides: &[(String, String)],
    ) -> Result<(Self, Vec<Warning>), ConfigError> {
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let given = Given::read(text, overrides, &mut warnings, &mut problems);
        if given.text("zookeeper.connect").is_some() && given.text("process.roles").is_none() {
            warnings.push(Warning {
                key: "process.roles".to_owned(),
                message: "is not given; the node starts as broker and controller, with metadata of its own"
                    .to_owned(),
            });
        }
        let config = build(&given, &mut warnings, &mut problems);
        check_limits(&given, &config, &mut problems);
        if problems.is_empty() { Ok((config, warnings)) } else { Err(ConfigError { problems }) }
    }
}

fn build(given: &Given, warnings: &mut Vec<Warning>, problems: &mut Vec<Problem>) -> NodeConfig {
    let node_id = node_id(given, problems);
    let roles = roles(given, problems);
    let listeners = listeners::read(given, roles, problems);
    let cluster = cluster::read(given, problems);
    let replica_lag_time_max_ms = given.number("replica.lag.time.max.ms");
    let checked =
        Checked { node_id, roles, listeners: &listeners, cluster: &cluster, replica_lag_time_max_ms };
    cluster::check(&checked, problems);
    cluster::warn(&checked, warnings);
    let log_dirs = log_dirs(given, problems);
    let first_log_dir = log_dirs.first().cloned().unwrap_or_default();
    let (topic_defaults, compression_levels) = topic::node_defaults(given, problems);
    NodeConfig {
        node_id,
        roles,
        rack: given.text_or_default("broker.rack").map(str::to_owned),
        listeners: listeners.listeners,
        inter_broker_listener: listeners.inter_broker,
        controller_listeners: listeners.controller,
        log_dirs,
        metadata_log_dir: given.text_or_default("metadata.log.dir").map_or(first_log_dir, PathBuf::from),
        shard_count: given.number("shard.count"),
        shard_cpus: shard_cpus(given, problems),
        shard_connections_move: given.switch("shard.connections.move"),
        shard_memory_percent: given.number("shard.memory.percent"),
        recovery_threads_per_log_dir: given.number("num.recovery.threads.per.data.dir"),
        log_dir_free_floor_bytes: given.number_unless_negative("log.dir.free.floor.bytes"),
        num_partitions: given.number("num.partitions"),
        default_replication_factor: given.number("default.replication.factor"),
        auto_create_topics: given.switch("auto.create.topics.enable"),
        delete_topic_enable: given.switch("delete.topic.enable"),
        topic_defaults,
        compression_levels,
        socket_request_max_bytes: given.number("socket.request.max.bytes"),
        socket_send_buffer_bytes: given.number_unless_negative("socket.send.buffer.bytes"),
        // Kafka's default would be a fixed buffer, through which a frame of 1 MB comes in nine pieces.
        socket_receive_buffer_bytes: given
            .text("socket.receive.buffer.bytes")
            .and_then(|_| given.number_unless_negative("socket.receive.buffer.bytes")),
        socket_listen_backlog: given.number("socket.listen.backlog.size"),
        max_connections: given.number("max.connections"),
        max_connections_per_ip: given.number("max.connections.per.ip"),
        max_connections_per_ip_overrides: per_ip_overrides(given, problems),
        max_connection_creation_rate: given.number("max.connection.creation.rate"),
        connections_max_idle_ms: given.number_unless_negative("connections.max.idle.ms"),
        queued_max_request_bytes: given
            .number_unless_negative("queued.max.request.bytes")
            .filter(|&bytes: &u64| bytes > 0),
        fetch_max_bytes: given.number("fetch.max.bytes"),
        fetch_session_slots: given.number("max.incremental.fetch.session.cache.slots"),
        max_request_partition_size_limit: given.number("max.request.partition.size.limit"),
        log_flush_offset_checkpoint_interval_ms: given.number("log.flush.offset.checkpoint.interval.ms"),
        high_watermark_checkpoint_interval_ms: given.number("replica.high.watermark.checkpoint.interval.ms"),
        log_initial_task_delay_ms: given.number("log.initial.task.delay.ms"),
        log_retention_check_interval_ms: given.number("log.retention.check.interval.ms"),
        producer_id_expiration_ms: given.number("producer.id.expiration.ms"),
        replica_lag_time_max_ms,
        replication_limits: throttles::read(given),
        rack_aware_reads: given.text_or_default("replica.selector.class").is_some(),
        cluster,
        group: group(given),
        transaction: transaction(given),
        given: given.values.clone(),
    }
}

fn group(given: &Given) -> GroupConfig {
    GroupConfig {
        min_session_timeout_ms: given.number("group.min.session.timeout.ms"),
        max_session_timeout_ms: given.number("group.max.session.timeout.ms"),
        initial_rebalance_delay_ms: given.number("group.initial.rebalance.delay.ms"),
        max_size: given.number("group.max.size"),
        offsets_retention_minutes: given.number("offsets.retention.minutes"),
        offsets_retention_check_interval_ms: given.number("offsets.retention.check.interval.ms"),
        offsets_topic_num_partitions: given.number("offsets.topic.num.partitions"),
        offsets_topic_replication_factor: given.number("offsets.topic.replication.factor"),
        offsets_topic_segment_bytes: given.number("offsets.topic.segment.bytes"),
        offsets_topic_compression_codec: given.number("offsets.topic.compression.codec"),
        offset_metadata_max_bytes: given.number("offset.metadata.max.bytes"),
        offsets_commit_timeout_ms: given.number("offsets.commit.timeout.ms"),
        consumer: consumer_groups(given),
    }
}

fn consumer_groups(given: &Given) -> ConsumerGroupConfig {
    /// Kafka's names of its own classes.
    const CLASSES: [(&str, &str); 2] = [
        ("org.apache.kafka.coordinator.group.assignor.UniformAssignor", "uniform"),
        ("org.apache.kafka.coordinator.group.assignor.RangeAssignor", "range"),
    ];
    let short = |name: &str| {
        let class = CLASSES.iter().find(|(class, _)| *class == name);
        class.map_or(name, |(_, short)| *short).to_owned()
    };
    ConsumerGroupConfig {
        session_timeout_ms: given.number("group.consumer.session.timeout.ms"),
        min_session_timeout_ms: given.number("group.consumer.min.session.timeout.ms"),
        max_session_timeout_ms: given.number("group.consumer.max.session.timeout.ms"),
        heartbeat_interval_ms: given.number("group.consumer.heartbeat.interval.ms"),
        min_heartbeat_interval_ms: given.number("group.consumer.min.heartbeat.interval.ms"),
        max_heartbeat_interval_ms: given.number("group.consumer.max.heartbeat.interval.ms"),
        max_size: given.number("group.consumer.max.size"),
        assignors: given.list("group.consumer.assignors").into_iter().map(short).collect(),
        migration_policy: given
            .text_or_default("group.consumer.migration.policy")
            .unwrap_or_default()
            .to_owned(),
    }
}

/// Kafka refuses to start with times of groups that contradict each other.
fn check_consumer_groups(config: &ConsumerGroupConfig, problems: &mut Vec<Problem>) {
    let of = |kind: &str| format!("group.consumer.{kind}");
    let times = [
        (
            "heartbeat.interval.ms",
            config.min_heartbeat_interval_ms,
            config.heartbeat_interval_ms,
            config.max_heartbeat_interval_ms,
        ),
        (
            "session.timeout.ms",
            config.min_session_timeout_ms,
            config.session_timeout_ms,
            config.max_session_timeout_ms,
        ),
    ];
    for (kind, least, own, most) in times {
        let (key_least, key_most) = (of(&format!("min.{kind}")), of(&format!("max.{kind}")));
        if most < least {
            let message = format!("{key_most} must be greater than or equal to {key_least}");
            problems.push(Problem::new(&key_most, most.to_string(), message));
        }
        if own < least {
            let message = format!("{} must be greater than or equal to {key_least}", of(kind));
            problems.push(Problem::new(&of(kind), own.to_string(), message));
        }
        if own > most {
            let message = format!("{} must be less than or equal to {key_most}", of(kind));
            problems.push(Problem::new(&of(kind), own.to_string(), message));
        }
    }
    if config.heartbeat_interval_ms >= config.session_timeout_ms {
        let key = of("heartbeat.interval.ms");
        let message = format!("{key} must be less than {}", of("session.timeout.ms"));
        problems.push(Problem::new(&key, config.heartbeat_interval_ms.to_string(), message));
    }
}

fn transaction(given: &Given) -> TransactionConfig {
    TransactionConfig {
        max_timeout_ms: given.number("transaction.max.timeout.ms"),
        state_log_num_partitions: given.number("transaction.state.log.num.partitions"),
        state_log_replication_factor: given.number("transaction.state.log.replication.factor"),
        state_log_min_isr: given.number("transaction.state.log.min.isr"),
        state_log_segment_bytes: given.number("transaction.state.log.segment.bytes"),
        transactional_id_expiration_ms: given.number("transactional.id.expiration.ms"),
    }
}

/// `node.id`, or `broker.id` unless it is -1, which used to ask ZooKeeper for a number.
fn node_id(given: &Given, problems: &mut Vec<Problem>) -> i32 {
    let broker_id: i32 = given.number("broker.id");
    let node_id: i32 = given.number("node.id");
    if given.text("node.id").is_none() && broker_id >= 0 {
        return broker_id;
    }
    if broker_id >= 0 && broker_id != node_id {
        let message = format!("broker.id is {broker_id}; give both the same value, or only node.id");
        problems.push(Problem::new("node.id", node_id.to_string(), message));
    }
    node_id
}

fn roles(given: &Given, problems: &mut Vec<Problem>) -> ProcessRoles {
    let names = given.list("process.roles");
    let roles = ProcessRoles { broker: names.contains(&"broker"), controller: names.contains(&"controller") };
    if !(roles.broker || roles.controller) {
        let message = "allowed are broker, controller and broker,controller";
        problems.push(Problem::new("process.roles", names.join(","), message));
    }
    roles
}

fn log_dirs(given: &Given, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let key = if given.list("log.dirs").is_empty() { "log.dir" } else { "log.dirs" };
    let names = given.list(key);
    if names.is_empty() {
        problems.push(Problem::new(key, "", "at least one log directory is needed"));
    }
    let mut seen = BTreeSet::new();
    for name in &names {
        if !seen.insert(name.trim_end_matches('/')) {
            problems.push(Problem::new(key, *name, "a log directory is named twice"));
        }
    }
    names.into_iter().map(PathBuf::from).collect()
}

fn shard_cpus(given: &Given, problems: &mut Vec<Problem>) -> ShardCpus {
    let text = given.text("shard.cpus").unwrap_or("all");
    ShardCpus::parse(text).unwrap_or_else(|message| {
        problems.push(Problem::new("shard.cpus", text, message));
        ShardCpus::All
    })
}

/// `host:limit` entries; the host may be an IPv6 address in brackets.
fn per_ip_overrides(given: &Given, problems: &mut Vec<Problem>) -> BTreeMap<String, u32> {
    const KEY: &str = "max.connections.per.ip.overrides";
    let (overrides, wrong) = parse_per_ip_overrides(given.text(KEY).unwrap_or_default());
    problems.extend(wrong.map(|entry| Problem::new(KEY, entry, "allowed are entries such as 127.0.0.1:100")));
    overrides
}

/// `host:limit` entries, and those that are none.
pub(super) fn parse_per_ip_overrides(
    text: &str,
) -> (BTreeMap<String, u32>, impl Iterator<Item = &str> + Clone) {
    let parse = |entry: &str| {
        let (host, limit) = entry.rsplit_once(':')?;
        let host = host.trim().trim_start_matches('[').trim_end_matches(']');
        let limit = limit.trim().parse::<u32>().ok().filter(|&limit| limit <= i32::MAX.cast_unsigned())?;
        (!host.is_empty()).then(|| (host.to_owned(), limit))
    };
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let overrides = entries.clone().filter_map(parse).collect();
    (overrides, entries.filter(move |entry| parse(entry).is_none()))
}

fn check_limits(given: &Given, config: &NodeConfig, problems: &mut Vec<Problem>) {
    let frame_bytes = u64::from(config.socket_request_max_bytes);
    if let Some(bytes) = config.queued_max_request_bytes.filter(|&bytes| bytes < frame_bytes) {
        let message = format!("it must be at least socket.request.max.bytes, {frame_bytes}");
        problems.push(Problem::new("queued.max.request.bytes", bytes.to_string(), message));
    }
    if config.max_connections_per_ip == 0 && config.max_connections_per_ip_overrides.is_empty() {
        let message = "0 is allowed only with max.connections.per.ip.overrides";
        problems.push(Problem::new("max.connections.per.ip", "0", message));
    }
    let (floor, ceiling) = (config.group.min_session_timeout_ms, config.group.max_session_timeout_ms);
    if floor > ceiling {
        let message = format!("it must be at most group.max.session.timeout.ms, {ceiling}");
        problems.push(Problem::new("group.min.session.timeout.ms", floor.to_string(), message));
    }
    check_consumer_groups(&config.group.consumer, problems);
    if let ShardCpus::List(cpus) = &config.shard_cpus {
        let room = cpus.len().saturating_mul(SHARDS_PER_CPU_MAX);
        if usize::try_from(config.shard_count).is_ok_and(|count| count > room) {
            let message = format!("at most {SHARDS_PER_CPU_MAX} shards per CPU of shard.cpus are allowed");
            problems.push(Problem::new("shard.count", config.shard_count.to_string(), message));
        }
    }
    if given.text("advertised.host.name").is_some() && given.text("listeners").is_some() {
        let message = "it is of the time before listeners; use advertised.listeners";
        problems.push(Problem::new("advertised.host.name", "given", message));
    }
}

/// More shards than this on one CPU are a mistake, not a plan.
const SHARDS_PER_CPU_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Endpoint;
    use super::super::keys::{Tier, broker_keys};
    use super::*;

    /// What the file that comes with Kafka 4.3 sets, in our own words.
    const KAFKA_4: &str = "
# Roles and quorum
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\\
    SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
#log.flush.interval.messages=10000
log.retention.hours=168
#log.retention.bytes=1073741824
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
";

    /// What tutorials of the time of ZooKeeper set.
    const ZOOKEEPER: &str = "
broker.id=3
port=9092
zookeeper.connect=localhost:2181/kafka
zookeeper.connection.timeout.ms=18000
num.network.threads=3
log.dirs=/data/a, /data/b
log.retention.hours=24
log.cleaner.enable=true
inter.broker.protocol.version=2.8
log.message.format.version=2.8
group.initial.rebalance.delay.ms=0
confluent.support.metrics.enable=false
";

    fn overrides(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
        let error = NodeConfig::load(None, &overrides(pairs)).unwrap_err();
        error.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn no_file_starts_a_node_of_both_roles_on_this_machine() {
        let (config, warnings) = NodeConfig::load(None, &[]).unwrap();
        assert_eq!(warnings, []);
        assert_eq!((config.node_id, config.shard_count), (1, 0));
        assert_eq!(config.log_dirs, [PathBuf::from("./tidemill-data")]);
        assert_eq!(config.metadata_log_dir, PathBuf::from("./tidemill-data"));
        assert_eq!(config.max_connections_per_ip, i32::MAX.cast_unsigned());
        assert_eq!(config.queued_max_request_bytes, None);
        assert_eq!(config.socket_send_buffer_bytes, Some(102_400));
        assert_eq!(
            config.socket_receive_buffer_bytes, None,
            "the kernel's own, unless somebody asks for one"
        );
        assert_eq!(config, NodeConfig::default());
    }

    #[test]
    fn kafkas_own_file_loads_with_a_warning_for_each_key_without_effect() {
        let (config, warnings) = NodeConfig::load(Some(KAFKA_4), &[]).unwrap();
        assert_eq!(config.log_dirs, [PathBuf::from("/tmp/kraft-combined-logs")]);
        assert_eq!(config.socket_receive_buffer_bytes, Some(102_400));
        let bind = Endpoint { host: String::new(), port: 9092 };
        assert_eq!(config.listeners.first().unwrap().bind, bind);
        assert_eq!(config.group.offsets_topic_replication_factor, 1);
        let keys: Vec<&str> = warnings.iter().map(|warning| warning.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "num.io.threads",
                "num.network.threads",
                "share.coordinator.state.topic.min.isr",
                "share.coordinator.state.topic.replication.factor",
                "transaction.state.log.min.isr",
                "transaction.state.log.replication.factor",
            ]
        );
    }

    #[test]
    fn a_file_of_zookeepers_time_loads_and_says_what_is_different() {
        let (config, warnings) = NodeConfig::load(Some(ZOOKEEPER), &[]).unwrap();
        assert_eq!(config.node_id, 3);
        assert_eq!(config.log_dirs, [PathBuf::from("/data/a"), PathBuf::from("/data/b")]);
        assert_eq!(config.topic_defaults.retention_ms, 86_400_000);
        let said = |key: &str| warnings.iter().find(|warning| warning.key == key).unwrap().message.clone();
        assert!(said("zookeeper.connect").contains("no ZooKeeper"));
        assert!(said("process.roles").contains("broker and controller"));
        assert!(said("confluent.support.metrics.enable").contains("not a known key"));
        assert!(said("inter.broker.protocol.version").contains("removed"));
    }

    #[test]
    fn later_values_win_and_repetition_is_said() {
        let (config, warnings) = NodeConfig::load(Some("num.partitions=2\nnum.partitions=3\n"), &[]).unwrap();
        assert_eq!(config.num_partitions, 3);
        assert!(warnings.first().unwrap().to_string().contains("line 2 counts"));
        let twice = overrides(&[("num.partitions", "4"), ("num.partitions", "5")]);
        let (config, _) = NodeConfig::load(Some("num.partitions=2"), &twice).unwrap();
        assert_eq!(config.num_partitions, 5);
    }

    #[test]
    fn every_problem_is_reported_with_key_value_and_what_is_allowed() {
        let found = problems(&[("num.partitions", "0"), ("shard.cpus", "x"), ("listeners", "SSL://:1")]);
        assert_eq!(found.len(), 3);
        assert!(found.contains(
            &"Invalid value 0 for configuration num.partitions: Value must be at least 1".to_owned()
        ));
    }

    #[test]
    fn security_without_its_feature_and_plug_ins_are_refused() {
        for (key, value) in [
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("ssl.client.auth", "required"),
            ("sasl.enabled.mechanisms", "PLAIN,GSSAPI"),
            ("listener.name.client.sasl.enabled.mechanisms", "GSSAPI"),
            ("listener.name.client.plain.sasl.server.callback.handler.class", "com.example.Handler"),
            ("principal.builder.class", "com.example.Builder"),
            ("config.providers", "vault"),
            ("log.cleaner.enable", "false"),
            ("zookeeper.metadata.migration.enable", "true"),
            ("group.consumer.assignors", "com.example.Assignor"),
        ] {
            assert_eq!(problems(&[(key, value)]).len(), 1, "{key}");
        }
        let secret = problems(&[("listener.name.x.ssl.engine.factory.class", "a"), ("broker.id", "x")]);
        assert_eq!(secret.len(), 2);
    }

    #[test]
    fn every_default_of_the_table_may_be_written_out_but_where_it_asks_for_kerberos() {
        for key in broker_keys() {
            let Some(default) = key.default.filter(|_| key.name != "sasl.enabled.mechanisms") else {
                continue;
            };
            let loaded = NodeConfig::load(None, &overrides(&[(key.name, default)]));
            let (_, warnings) = loaded.unwrap_or_else(|error| panic!("{}: {error}", key.name));
            assert_eq!(warnings.is_empty(), key.tier == Tier::Honoured, "{}: {warnings:?}", key.name);
        }
    }

    #[test]
    fn times_of_consumer_groups_must_agree_with_each_other() {
        let of = |pairs: &[(&str, &str)]| problems(pairs);
        for (key, value) in [
            ("group.consumer.session.timeout.ms", "44999"),
            ("group.consumer.max.heartbeat.interval.ms", "4000"),
            ("group.consumer.heartbeat.interval.ms", "15001"),
        ] {
            assert!(!of(&[(key, value)]).is_empty(), "{key}={value}");
        }
        let both = [
            ("group.consumer.max.heartbeat.interval.ms", "50000"),
            ("group.consumer.heartbeat.interval.ms", "45000"),
        ];
        assert!(of(&both)[0].contains("must be less than group.consumer.session.timeout.ms"));
        let class = "org.apache.kafka.coordinator.group.assignor.RangeAssignor";
        let given = [
            ("group.consumer.assignors", class),
            ("group.consumer.migration.policy", "Upgrade"),
            ("group.consumer.session.timeout.ms", "50000"),
        ];
        let config = NodeConfig::load(None, &overrides(&given)).unwrap().0.group.consumer;
        assert_eq!((config.assignors, config.session_timeout_ms), (vec!["range".to_owned()], 50_000));
        assert_eq!(config.migration_policy, "Upgrade");
    }

    #[test]
    fn a_node_that_is_told_of_others_does_not_make_a_cluster_of_its_own() {
        let listeners = [
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            ("controller.listener.names", "CONTROLLER"),
        ];
        let is_told = |more: &[(&str, &str)]| {
            let given = [&listeners[..], more].concat();
            NodeConfig::load(None, &overrides(&given)).unwrap().0.is_told_of_others()
        };
        assert!(!is_told(&[]));
        assert!(!is_told(&[("controller.quorum.voters", "1@a:9093")]));
        assert!(is_told(&[("controller.quorum.voters", "1@a:9093,2@b:9093")]));
        assert!(is_told(&[("controller.quorum.bootstrap.servers", "a:9093,b:9093")]));
        assert!(problems(&[("controller.quorum.voters", "2@a:9093")])[0].contains("the node id 1 must be"));
        assert!(problems(&[("process.roles", "")])[0].contains("broker,controller"));
        assert!(problems(&[("node.id", "2"), ("broker.id", "3")])[0].contains("same value"));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        assert_eq!(problems(&[("queued.max.request.bytes", "10")]).len(), 1);
        assert_eq!(problems(&[("max.connections.per.ip", "0")]).len(), 1);
        assert_eq!(problems(&[("log.dirs", "/a,/a/")]).len(), 1);
        assert_eq!(problems(&[("shard.cpus", "0"), ("shard.count", "65")]).len(), 1);
        assert_eq!(problems(&[("max.connections.per.ip.overrides", "a:b")]).len(), 1);
        let loaded =
            NodeConfig::load(None, &overrides(&[("max.connections.per.ip.overrides", "[::1]:5, h:6")]));
        assert_eq!(loaded.unwrap().0.max_connections_per_ip_overrides.get("::1"), Some(&5));
    }

    proptest! {
        #[test]
        fn any_file_loads_or_is_refused(
            text in "\\PC*",
            key in prop::sample::select(broker_keys().collect::<Vec<_>>()),
            value in "\\PC{0,20}|-?[0-9]{1,20}",
        ) {
            let _ = NodeConfig::load(Some(&text), &[(key.name.to_owned(), value)]);
        }
    }
}
