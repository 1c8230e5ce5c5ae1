//! The keys that one topic may have of its own, each with the broker keys that give its default.

use super::Check::*;
use super::Kind::*;
use super::Tier::*;
use super::reason::REMOVED;
use super::{Check, Kind, Tier, unit_of};

/// One topic key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicKey {
    /// The name in a topic's configuration.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// The default as it would be written; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// What a value must satisfy.
    pub check: Check,
    /// What becomes of a value.
    pub tier: Tier,
    /// Broker keys that give the default, the first that is set winning.
    pub synonyms: &'static [&'static str],
    /// One sentence.
    pub doc: &'static str,
}

impl TopicKey {
    /// The unit of its value; empty where there is none.
    pub fn unit(&self) -> &'static str {
        unit_of(self.name, self.kind)
    }
}

/// The topic key of that name.
pub fn topic_key(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

macro_rules! topic_table {
    ($($name:literal $kind:ident $default:expr, $check:expr, $tier:expr,
       [$($synonym:literal),*], $doc:literal;)*) => {
        /// Every topic key, in alphabetical order, then those of older versions.
        pub const TOPIC_KEYS: &[TopicKey] = &[$(TopicKey {
            name: $name, kind: $kind, default: $default, check: $check, tier: $tier,
            synonyms: &[$($synonym),*], doc: $doc,
        }),*];
    };
}

topic_table! {
    "cleanup.policy" List Some("delete"), OneOf(&["compact", "delete"]), Honoured, ["log.cleanup.policy"],
        "`delete`, `compact`, both, or neither: keep for ever. There is no compaction yet: `compact` alone keeps every record.";
    "compression.gzip.level" Int Some("-1"), RangeOr(1, 9, -1), Honoured, ["compression.gzip.level"],
        "Level of gzip; -1 is the codec's own.";
    "compression.lz4.level" Int Some("9"), Range(1, 17), Planned, ["compression.lz4.level"],
        "Level of lz4; the fast encoder takes the place of every level.";
    "compression.type" Text Some("producer"),
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Honoured,
        ["compression.type"],
        "How batches are stored: `producer` keeps what was sent.";
    "compression.zstd.level" Int Some("3"), Range(-131_072, 22), Honoured, ["compression.zstd.level"],
        "Level of zstd.";
    "delete.retention.ms" Long Some("86400000"), Min(0), Planned, ["log.cleaner.delete.retention.ms"],
        "How long a compacted topic shows a tombstone.";
    "file.delete.delay.ms" Long Some("60000"), Min(0), Honoured, ["log.segment.delete.delay.ms"],
        "Time between a segment's renaming and its deletion.";
    "flush.messages" Long Some("9223372036854775807"), Min(1), Honoured, ["log.flush.interval.messages"],
        "Records after which the log is synced; 1 acknowledges only synced records.";
    "flush.ms" Long Some("9223372036854775807"), Min(0), Honoured,
        ["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        "Time after which the log is synced.";
    "follower.replication.throttled.replicas" List Some(""), ThrottledReplicas, Honoured, [],
        "Replicas whose fetches are throttled.";
    "index.interval.bytes" Int Some("4096"), Min(0), Honoured, ["log.index.interval.bytes"],
        "Bytes of log between two index entries.";
    "internal.segment.bytes" Int None, Min(1), Honoured, [],
        "Segment size below the least that Kafka allows, for tests.";
    "leader.replication.throttled.replicas" List Some(""), ThrottledReplicas, Honoured, [],
        "Replicas to which the leader's sending is throttled.";
    "local.retention.bytes" Long Some("-2"), Min(-2), Planned, ["log.local.retention.bytes"],
        "Bytes kept on local disks when the topic is tiered.";
    "local.retention.ms" Long Some("-2"), Min(-2), Planned, ["log.local.retention.ms"],
        "How long records are kept on local disks when the topic is tiered.";
    "max.compaction.lag.ms" Long Some("9223372036854775807"), Min(1), Planned,
        ["log.cleaner.max.compaction.lag.ms"],
        "How long a record may wait for compaction.";
    "max.message.bytes" Int Some("1048588"), Min(0), Honoured, ["message.max.bytes"],
        "The largest record batch, after compression.";
    "message.timestamp.after.max.ms" Long Some("3600000"), Min(0), Honoured,
        ["log.message.timestamp.after.max.ms"],
        "How far a timestamp may lie in the future.";
    "message.timestamp.before.max.ms" Long Some("9223372036854775807"), Min(0), Honoured,
        ["log.message.timestamp.before.max.ms"],
        "How far a timestamp may lie in the past.";
    "message.timestamp.type" Text Some("CreateTime"), OneOf(&["CreateTime", "LogAppendTime"]), Honoured,
        ["log.message.timestamp.type"],
        "`CreateTime` keeps the producer's timestamp, `LogAppendTime` sets the broker's.";
    "min.cleanable.dirty.ratio" Double Some("0.5"), Share(0.0, 1.0), Planned,
        ["log.cleaner.min.cleanable.ratio"],
        "Share of the log not yet compacted that starts compaction.";
    "min.compaction.lag.ms" Long Some("0"), Min(0), Planned, ["log.cleaner.min.compaction.lag.ms"],
        "How long a record stays as it is.";
    "min.insync.replicas" Int Some("1"), Min(1), Honoured, ["min.insync.replicas"],
        "In-sync replicas that acks=all needs.";
    "preallocate" Boolean Some("false"), Any, Honoured, ["log.preallocate"],
        "Whether a segment's space is reserved when it is created.";
    "remote.log.copy.disable" Boolean Some("false"), Any, Planned, [],
        "Whether a tiered topic stops copying segments away.";
    "remote.log.delete.on.disable" Boolean Some("false"), Any, Planned, [],
        "Whether leaving tiered storage deletes what is there.";
    "remote.storage.enable" Boolean Some("false"), Any, Planned, [],
        "Whether the topic is tiered.";
    "retention.bytes" Long Some("-1"), Min(-1), Honoured, ["log.retention.bytes"],
        "A partition's oldest segments beyond this size are deleted; -1 is no limit.";
    "retention.ms" Long Some("604800000"), Min(-1), Honoured,
        ["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
        "Segments older than this are deleted; -1 never.";
    "segment.bytes" Int Some("1073741824"), Min(1_048_576), Honoured, ["log.segment.bytes"],
        "A segment of this size is closed.";
    "segment.index.bytes" Int Some("10485760"), Min(4), Honoured, ["log.index.size.max.bytes"],
        "Largest offset or time index of a segment.";
    "segment.jitter.ms" Long Some("0"), Min(0), Honoured, ["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "Most random time taken off a segment's age.";
    "segment.ms" Long Some("604800000"), Min(1), Honoured, ["log.roll.ms", "log.roll.hours"],
        "A segment of this age is closed.";
    "unclean.leader.election.enable" Boolean Some("false"), Any, Honoured, ["unclean.leader.election.enable"],
        "Whether a replica that is not in sync may lead, at the price of records.";
    "message.downconversion.enable" Boolean Some("true"), Any, Ignored(REMOVED), [],
        "Whether records were rewritten for old consumers.";
    "message.format.version" Text None, Any, Ignored(REMOVED), [],
        "Record format on disk; it is always version 2.";
}
