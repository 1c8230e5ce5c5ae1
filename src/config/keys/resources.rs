//! The keys that one group, and one client-metrics subscription, may have of its own: Apache Kafka 4.3's
//! `GroupConfig` and `ClientMetricsConfigs`.

use super::Check::*;
use super::Kind::*;
use super::{Check, Kind, unit_of};

/// One key of a group or of a client-metrics subscription.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResourceKey {
    /// The name in the resource's configuration.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// The default as it would be written, where no broker key gives it.
    pub default: &'static str,
    /// What a value must satisfy.
    pub check: Check,
    /// The broker key that gives its default.
    pub synonym: Option<&'static str>,
    /// The broker key that holds the least value.
    pub least: Option<&'static str>,
    /// The broker key that holds the greatest value.
    pub most: Option<&'static str>,
    /// One sentence.
    pub doc: &'static str,
}

impl ResourceKey {
    /// The unit of its value; empty where there is none.
    pub fn unit(&self) -> &'static str {
        unit_of(self.name, self.kind)
    }
}

/// The group's key of that name.
pub fn group_key(name: &str) -> Option<&'static ResourceKey> {
    GROUP_KEYS.iter().find(|key| key.name == name)
}

/// The key of that name of a client-metrics subscription.
pub fn metrics_key(name: &str) -> Option<&'static ResourceKey> {
    METRICS_KEYS.iter().find(|key| key.name == name)
}

/// What `share.auto.offset.reset` says of a value that it does not take.
pub const SHARE_RESET_WORDS: &str = "The value must be either 'earliest', 'latest' or of the format \
     'by_duration:<PnDTnHnMn.nS>'.";

macro_rules! resource_table {
    ($(#[$meta:meta])* $table:ident:
     $($name:literal $kind:ident $default:literal, $check:expr, $synonym:expr, $least:expr, $most:expr,
       $doc:literal;)*) => {
        $(#[$meta])*
        pub const $table: &[ResourceKey] = &[$(ResourceKey {
            name: $name, kind: $kind, default: $default, check: $check,
            synonym: $synonym, least: $least, most: $most, doc: $doc,
        }),*];
    };
}

resource_table! {
    /// Every group key, in the order in which Kafka compares them with the broker's bounds.
    GROUP_KEYS:
    "consumer.heartbeat.interval.ms" Int "5000", Min(1), Some("group.consumer.heartbeat.interval.ms"),
        Some("group.consumer.min.heartbeat.interval.ms"), Some("group.consumer.max.heartbeat.interval.ms"),
        "How often members of a consumer group report.";
    "consumer.session.timeout.ms" Int "45000", Min(1), Some("group.consumer.session.timeout.ms"),
        Some("group.consumer.min.session.timeout.ms"), Some("group.consumer.max.session.timeout.ms"),
        "Silence after which a member is out of its consumer group.";
    "consumer.assignment.interval.ms" Int "1000", Min(0), Some("group.consumer.assignment.interval.ms"),
        Some("group.consumer.min.assignment.interval.ms"), Some("group.consumer.max.assignment.interval.ms"),
        "Least time between two assignments of a consumer group.";
    "share.heartbeat.interval.ms" Int "5000", Min(1), Some("group.share.heartbeat.interval.ms"),
        Some("group.share.min.heartbeat.interval.ms"), Some("group.share.max.heartbeat.interval.ms"),
        "How often members of a share group report.";
    "share.session.timeout.ms" Int "45000", Min(1), Some("group.share.session.timeout.ms"),
        Some("group.share.min.session.timeout.ms"), Some("group.share.max.session.timeout.ms"),
        "Silence after which a member is out of its share group.";
    "share.record.lock.duration.ms" Int "30000", Min(1000), Some("group.share.record.lock.duration.ms"),
        Some("group.share.min.record.lock.duration.ms"), Some("group.share.max.record.lock.duration.ms"),
        "How long a member keeps a record to itself.";
    "share.delivery.count.limit" Int "5", Min(2), Some("group.share.delivery.count.limit"),
        Some("group.share.min.delivery.count.limit"), Some("group.share.max.delivery.count.limit"),
        "How often a record is tried.";
    "share.partition.max.record.locks" Int "2000", Min(100), Some("group.share.partition.max.record.locks"),
        Some("group.share.min.partition.max.record.locks"), Some("group.share.max.partition.max.record.locks"),
        "Locked records of a share partition.";
    "share.assignment.interval.ms" Int "1000", Min(0), Some("group.share.assignment.interval.ms"),
        Some("group.share.min.assignment.interval.ms"), Some("group.share.max.assignment.interval.ms"),
        "Least time between two assignments of a share group.";
    "share.auto.offset.reset" Text "latest", ShareReset, None, None, None,
        "Where a share partition begins: `earliest`, `latest` or `by_duration:` with an ISO 8601 duration.";
    "share.isolation.level" Text "read_uncommitted", OneOf(&["read_committed", "read_uncommitted"]),
        None, None, None,
        "Whether a share group sees records of open and aborted transactions.";
    "share.renew.acknowledge.enable" Boolean "true", Any, None, None, None,
        "Whether a member may renew its hold on a record.";
    "streams.heartbeat.interval.ms" Int "5000", Min(1), Some("group.streams.heartbeat.interval.ms"),
        Some("group.streams.min.heartbeat.interval.ms"), Some("group.streams.max.heartbeat.interval.ms"),
        "How often members of a streams group report.";
    "streams.session.timeout.ms" Int "45000", Min(1), Some("group.streams.session.timeout.ms"),
        Some("group.streams.min.session.timeout.ms"), Some("group.streams.max.session.timeout.ms"),
        "Silence after which a member is out of its streams group.";
    "streams.num.standby.replicas" Int "0", Min(0), Some("group.streams.num.standby.replicas"),
        None, Some("group.streams.max.standby.replicas"),
        "Standby copies of a task.";
    "streams.initial.rebalance.delay.ms" Int "3000", Min(0), Some("group.streams.initial.rebalance.delay.ms"),
        None, None,
        "How long an empty streams group waits for more members.";
    "streams.assignment.interval.ms" Int "1000", Min(0), Some("group.streams.assignment.interval.ms"),
        Some("group.streams.min.assignment.interval.ms"), Some("group.streams.max.assignment.interval.ms"),
        "Least time between two assignments of a streams group.";
}

resource_table! {
    /// Every key of a client-metrics subscription.
    METRICS_KEYS:
    "interval.ms" Int "300000", Any, None, None, None,
        "How often clients push their metrics.";
    "match" List "", Any, None, None, None,
        "Which clients are asked: `field=pattern` pairs.";
    "metrics" List "", Any, None, None, None,
        "Prefixes of the metrics that are asked for.";
}
