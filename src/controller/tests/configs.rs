//! Configurations and features: what is asked, what is answered, and what is left in the Image, as a story of lines.
//!
//! A line is `resource: key op value, … -> answer`, then what the resource overrides. Codes and words are those that
//! Apache Kafka 4.3.1 gave to the same requests.

use super::super::request::{ConfigChanges, ConfigOp, FeatureUpdate, QuorumState};
use super::scenarios::one_broker;
use super::*;

fn changes(resource: &str, ops: &str, replace: bool) -> ConfigChanges {
    let (kind, name) = resource.split_once(' ').unwrap_or((resource, ""));
    let resource_type = match kind {
        "topic" => ResourceType::Topic,
        "broker" => ResourceType::Broker,
        "group" => ResourceType::Group,
        _ => ResourceType::ClientMetrics,
    };
    let op = |op: &str| {
        let mut words = op.splitn(3, ' ');
        let (key, how, value) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let value = value.to_string();
        let op = match how {
            "=" => ConfigOp::Set(value),
            "+" => ConfigOp::Append(value),
            "-" => ConfigOp::Subtract(value),
            _ => ConfigOp::Delete,
        };
        (key.to_string(), op)
    };
    let changes = ops.split("; ").filter(|op| !op.is_empty()).map(op).collect();
    ConfigChanges { resource_type, name: name.to_string(), changes, replace }
}

fn alter(node: &mut Node, changes: ConfigChanges, validate_only: bool) -> String {
    let (kind, name) = (changes.resource_type, changes.name.clone());
    let request = ControllerRequest::AlterConfigs { resources: vec![changes], validate_only };
    let ControllerAnswer::Configs(answers) = node.call(request) else { panic!("another answer") };
    let [(told_kind, told_name, result)] = answers.as_slice() else { panic!("not one answer") };
    assert_eq!((*told_kind, told_name), (kind, &name));
    let told = match result {
        Ok(()) => "ok".to_string(),
        Err(error) => format!("{:?}: {}", error.code, error.message),
    };
    let has: Vec<_> =
        node.image.config_overrides(kind, &name).map(|(key, value)| format!("{key}={value}")).collect();
    format!("{told} | {}", has.join(" "))
}

#[test]
fn values_are_set_taken_away_and_lists_changed_item_by_item() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("t", 1, 1)]));
    for (resource, ops, expected) in [
        ("topic t", "retention.ms = 9000", "ok | retention.ms=9000"),
        ("topic t", "retention.ms delete; no.such delete", "ok | "),
        ("topic t", "cleanup.policy + compact", "ok | cleanup.policy=delete,compact"),
        ("topic t", "cleanup.policy + delete,compact", "ok | cleanup.policy=delete,compact"),
        ("topic t", "cleanup.policy - delete", "ok | cleanup.policy=compact"),
        ("topic t", "cleanup.policy - compact", "ok | cleanup.policy="),
        ("topic t", "cleanup.policy delete", "ok | "),
        (
            "topic t",
            "cleanup.policy + shred",
            "InvalidConfig: Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete | ",
        ),
        (
            "topic t",
            "retention.ms + 1",
            "InvalidConfig: Can't APPEND to key retention.ms because its type is not LIST. | ",
        ),
        ("topic t", "a - 1", "InvalidConfig: Can't SUBTRACT to key a because its type is not LIST. | "),
        ("topic u", "retention.ms = 1", "UnknownTopicOrPartition: The topic 'u' does not exist. | "),
        ("topic", "retention.ms = 1", "InvalidRequest: Default topic resources are not allowed. | "),
        (
            "topic u",
            "retention.ms = x",
            "InvalidConfig: Invalid value x for configuration retention.ms: Not a number of type LONG | ",
        ),
        (
            "topic t",
            "min.compaction.lag.ms = 5; max.compaction.lag.ms = 4",
            "InvalidConfig: conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (4) | ",
        ),
        ("broker 0", "log.cleanup.policy + compact", "ok | log.cleanup.policy=delete,compact"),
        ("broker 0", "log.cleanup.policy delete", "ok | "),
        ("broker 0", "no.such.key + 1", "InvalidConfig: Unknown config name: no.such.key | "),
        (
            "broker 0",
            "log.retention.ms - 1",
            "InvalidConfig: Config value subtract is not allowed for config key: log.retention.ms | ",
        ),
        ("broker 7", "log.retention.ms = 1", "BrokerIdNotRegistered: No broker with id 7 found. | "),
        ("broker", "message.max.bytes = 2000", "ok | message.max.bytes=2000"),
        (
            "broker",
            "node.id = 3",
            "InvalidRequest: Cannot update these configs dynamically: [node.id] | message.max.bytes=2000",
        ),
        ("group g", "consumer.session.timeout.ms = 50000", "ok | consumer.session.timeout.ms=50000"),
        (
            "group g",
            "consumer.session.timeout.ms + 1",
            "InvalidConfig: Can't APPEND to key consumer.session.timeout.ms because its type is not LIST. | consumer.session.timeout.ms=50000",
        ),
        (
            "group",
            "consumer.session.timeout.ms = 50000",
            "InvalidRequest: Default group resources are not allowed. | ",
        ),
        ("metrics m", "interval.ms = 1000; metrics = a,b", "ok | interval.ms=1000 metrics=a,b"),
        ("metrics", "interval.ms = 1000", "InvalidRequest: Subscription name can't be empty | "),
    ] {
        assert_eq!(alter(&mut node, changes(resource, ops, false), false), expected, "{resource}: {ops}");
    }
    let groups: Vec<_> = node.image.configured(ResourceType::Group).map(|name| name.to_string()).collect();
    assert_eq!(groups, ["g"]);
}

#[test]
fn the_older_request_replaces_everything_and_a_check_changes_nothing() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("t", 1, 1)]));
    alter(&mut node, changes("topic t", "retention.ms = 1; flush.ms = 2", false), false);
    let checked = alter(&mut node, changes("topic t", "retention.ms = 5", true), true);
    assert_eq!(checked, "ok | flush.ms=2 retention.ms=1");
    let replaced = alter(&mut node, changes("topic t", "retention.ms = 5", true), false);
    assert_eq!(replaced, "ok | retention.ms=5");
    // What a resource keeps is checked with what it gets.
    alter(&mut node, changes("topic t", "max.compaction.lag.ms = 9", false), false);
    let conflict = alter(&mut node, changes("topic t", "min.compaction.lag.ms = 10", false), false);
    assert!(conflict.starts_with("InvalidConfig: conflict topic config setting"));
    let version = node.image.version();
    assert_eq!(
        alter(&mut node, changes("topic t", "retention.ms = 5", false), false),
        "ok | max.compaction.lag.ms=9 retention.ms=5"
    );
    assert_eq!(node.image.version(), version, "a value that is there already makes no record");
}

#[test]
fn defaults_of_all_brokers_count_where_topics_are_checked_and_described() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("t", 1, 1)]));
    alter(&mut node, changes("broker", "log.cleaner.max.compaction.lag.ms = 5", false), false);
    let conflict = alter(&mut node, changes("topic t", "min.compaction.lag.ms = 10", false), false);
    assert!(conflict.contains("(10) > max.compaction.lag.ms (5)"), "{conflict}");
    alter(&mut node, changes("broker 0", "log.cleaner.max.compaction.lag.ms = 50", false), false);
    assert_eq!(
        alter(&mut node, changes("topic t", "min.compaction.lag.ms = 10", false), false),
        "ok | min.compaction.lag.ms=10"
    );
    let dynamic = node.image.dynamic_configs(0);
    let key = "log.cleaner.max.compaction.lag.ms";
    assert_eq!((dynamic.broker.get(key), dynamic.default.get(key)), (Some(&"50"), Some(&"5")));
}

#[test]
fn everything_is_there_again_after_a_restart_and_a_snapshot() {
    let mut node = one_broker();
    node.call(create(vec![new_topic("t", 1, 1)]));
    for (resource, ops) in [
        ("topic t", "retention.ms = 9000"),
        ("broker 0", "message.max.bytes = 4000"),
        ("broker", "message.max.bytes = 3000"),
        ("group g", "consumer.session.timeout.ms = 50000"),
        ("metrics m", "interval.ms = 1000"),
        ("group h", "share.isolation.level = read_committed"),
    ] {
        assert!(alter(&mut node, changes(resource, ops, false), false).starts_with("ok"), "{resource}");
    }
    let before = (*node.image).clone();
    let Node { mut disk, .. } = node;
    disk.crash(0);
    let mut again = Node::start(disk, 9);
    again.run(1000);
    let image = |image: &Image| {
        let records = image.to_records();
        records.into_iter().filter(|record| matches!(record, Record::Config { .. })).collect::<Vec<_>>()
    };
    assert_eq!(image(&again.image), image(&before));
    assert_eq!(image(&before).len(), 6);
}

fn update(node: &mut Node, name: &str, level: i16, upgrade_type: i8) -> Result<(), String> {
    let updates = vec![FeatureUpdate { name: name.into(), level, upgrade_type }];
    let request = ControllerRequest::UpdateFeatures { updates, validate_only: false };
    let ControllerAnswer::Features(result) = node.call(request) else { panic!("another answer") };
    result.map_err(|error| format!("{:?}: {}", error.code, error.message))
}

#[test]
fn features_are_refused_in_kafkas_words() {
    let mut node = one_broker();
    assert_eq!(features::finalized(&node.image).last(), Some(&("metadata.version".to_string(), 30)));
    assert_eq!(update(&mut node, "metadata.version", 30, 1), Ok(()));
    for (name, level, upgrade_type, words) in [
        (
            "metadata.version",
            99,
            1,
            "Invalid update version 99 for feature metadata.version. Local controller 0 only supports versions 7-30",
        ),
        (
            "metadata.version",
            7,
            1,
            "Invalid update version 7 for feature metadata.version. Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade.",
        ),
        (
            "metadata.version",
            29,
            2,
            "Unsupported metadata.version downgrade from 30 to 29. Refusing to perform the requested downgrade because it might delete metadata information.",
        ),
        (
            "metadata.version",
            7,
            3,
            "Unsupported metadata.version downgrade from 30 to 7. Unsafe metadata downgrade is not supported in this version.",
        ),
        (
            "metadata.version",
            -1,
            1,
            "Invalid update version -1 for feature metadata.version. A feature version cannot be less than 0.",
        ),
        (
            "metadata.version",
            30,
            9,
            "Invalid update version 30 for feature metadata.version. The controller does not support the given upgrade type.",
        ),
        (
            "nope",
            1,
            1,
            "Invalid update version 1 for feature nope. Local controller 0 does not support this feature.",
        ),
    ] {
        let words = format!(
            "InvalidUpdateVersion: The update failed for all features since the following feature had an error: {words}"
        );
        assert_eq!(update(&mut node, name, level, upgrade_type), Err(words));
    }
}

/// A cluster whose log was begun by a build of metadata version 1 keeps to it until somebody upgrades it.
#[test]
fn configurations_of_groups_wait_for_the_metadata_version_that_has_them() {
    let mut state = ImageBuilder::default();
    let group = Record::Config {
        resource_type: ResourceType::Group,
        resource: "g".into(),
        key: "consumer.session.timeout.ms".into(),
        value: Some("50000".into()),
    };
    state.apply(&Record::MetadataVersion { version: 1 }).unwrap();
    assert!(state.apply(&group).is_err());
    let mut records = Vec::new();
    let to = |level| [FeatureUpdate { name: "metadata.version".into(), level, upgrade_type: 1 }];
    assert_eq!(features::finalized(state.image()), [("metadata.version".to_string(), 28)]);
    features::update(&node_config(), &mut state, &to(28), &mut records).unwrap();
    assert_eq!(records, []);
    features::update(&node_config(), &mut state, &to(29), &mut records).unwrap();
    assert_eq!(records, [Record::MetadataVersion { version: 2 }]);
    state.apply(&group).unwrap();
}

#[test]
fn the_quorum_is_told_with_what_is_committed() {
    let mut node = one_broker();
    let ControllerAnswer::Quorum(before) = node.call(ControllerRequest::DescribeQuorum) else { panic!() };
    assert_eq!(before.high_watermark, before.log_end_offset);
    assert_eq!(before.high_watermark, node.image.version() as i64);
    node.call(create(vec![new_topic("t", 1, 1)]));
    let ControllerAnswer::Quorum(after) = node.call(ControllerRequest::DescribeQuorum) else { panic!() };
    let voters: Vec<_> = after.voters.iter().map(|voter| (voter.node_id, voter.log_end_offset)).collect();
    assert_eq!(voters, [(0, after.log_end_offset)]);
    assert_eq!(
        after.clone(),
        QuorumState {
            high_watermark: before.high_watermark + 1,
            log_end_offset: before.log_end_offset + 1,
            voters: after.voters.clone(),
            ..before
        }
    );
}
