//! Topics and logs: the defaults of topics, and what the node does with its log directories.

use super::{Key, key_table};

key_table! {
    "log.dir" List Some("./tidemill-data"), Any, ReadOnly, Honoured,
        "Log directories when `log.dirs` is not given; `./tidemill-data` when neither is.";
    "log.dirs" List None, Any, ReadOnly, Honoured,
        "Log directories, comma-separated.";
    "metadata.log.dir" Text None, Any, ReadOnly, Honoured,
        "Directory of the controller's log; the first log directory when not given.";
    "cordoned.log.dirs" List Some(""), Any, Broker, Planned,
        "Log directories that take no new partitions.";
    "num.partitions" Int Some("1"), Min(1), ReadOnly, Honoured,
        "Partitions of an auto-created topic, or of a created one that does not say.";
    "default.replication.factor" Int Some("1"), Range(1, 32_767), ReadOnly, Honoured,
        "Replicas of an auto-created topic, or of a created one that does not say.";
    "auto.create.topics.enable" Boolean Some("true"), Any, ReadOnly, Honoured,
        "Whether asking for an unknown topic creates it.";
    "delete.topic.enable" Boolean Some("true"), Any, ReadOnly, Honoured,
        "Whether topics may be deleted.";
    "message.max.bytes" Int Some("1048588"), Min(0), Cluster, Honoured,
        "The largest record batch, after compression.";
    "min.insync.replicas" Int Some("1"), Min(1), Cluster, Honoured,
        "In-sync replicas that acks=all needs.";
    "unclean.leader.election.enable" Boolean Some("false"), Any, Cluster, Honoured,
        "Whether a replica that is not in sync may lead, at the price of records.";
    "compression.type" Text Some("producer"),
        OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]), Cluster, Honoured,
        "How batches are stored: `producer` keeps what was sent.";
    "compression.gzip.level" Int Some("-1"), RangeOr(1, 9, -1), Cluster, Honoured,
        "Level of gzip; -1 is the codec's own.";
    "compression.lz4.level" Int Some("9"), Range(1, 17), Cluster, Planned,
        "Level of lz4; the fast encoder takes the place of every level.";
    "compression.zstd.level" Int Some("3"), Range(-131_072, 22), Cluster, Honoured,
        "Level of zstd.";
    "log.segment.bytes" Int Some("1073741824"), Min(1_048_576), Cluster, Honoured,
        "A segment of this size is closed.";
    "log.roll.ms" Long None, Min(1), Cluster, Honoured,
        "A segment of this age is closed; over `log.roll.hours`.";
    "log.roll.hours" Int Some("168"), Min(1), ReadOnly, Honoured,
        "A segment of this age is closed.";
    "log.roll.jitter.ms" Long None, Min(0), Cluster, Honoured,
        "Most random time taken off a segment's age; over `log.roll.jitter.hours`.";
    "log.roll.jitter.hours" Int Some("0"), Min(0), ReadOnly, Honoured,
        "Most random time taken off a segment's age.";
    "log.retention.bytes" Long Some("-1"), Min(-1), Cluster, Honoured,
        "A partition's oldest segments beyond this size are deleted; -1 is no limit.";
    "log.retention.ms" Long None, RangeOr(1, i64::MAX, -1), Cluster, Honoured,
        "Segments older than this are deleted, -1 never; over minutes and hours.";
    "log.retention.minutes" Int None, RangeOr(1, i64::MAX, -1), ReadOnly, Honoured,
        "Segments older than this are deleted; over hours.";
    "log.retention.hours" Int Some("168"), RangeOr(1, i64::MAX, -1), ReadOnly, Honoured,
        "Segments older than this are deleted.";
    "log.retention.check.interval.ms" Long Some("300000"), Min(1), ReadOnly, Honoured,
        "How often segments are looked at for deletion.";
    "log.cleanup.policy" List Some("delete"), OneOf(&["compact", "delete"]), Cluster, Honoured,
        "`delete`, `compact`, both, or neither: keep for ever. There is no compaction yet: `compact` alone keeps every record.";
    "log.index.size.max.bytes" Int Some("10485760"), Min(4), Cluster, Honoured,
        "Largest offset or time index of a segment.";
    "log.index.interval.bytes" Int Some("4096"), Min(0), Cluster, Honoured,
        "Bytes of log between two index entries.";
    "log.flush.interval.messages" Long Some("9223372036854775807"), Min(1), Cluster, Honoured,
        "Records after which a log is synced; 1 acknowledges only synced records.";
    "log.flush.interval.ms" Long None, Min(0), Cluster, Honoured,
        "Time after which a log is synced; `log.flush.scheduler.interval.ms` when not given.";
    "log.flush.scheduler.interval.ms" Long Some("9223372036854775807"), Min(1), ReadOnly, Honoured,
        "How often logs are looked at for a sync by time.";
    "log.flush.offset.checkpoint.interval.ms" Int Some("60000"), Min(0), ReadOnly, Honoured,
        "How often recovery points are written down.";
    "log.flush.start.offset.checkpoint.interval.ms" Int Some("60000"), Min(0), ReadOnly, Ignored(OWN_PACE),
        "How often log start offsets are written down.";
    "log.segment.delete.delay.ms" Long Some("60000"), Min(0), Cluster, Honoured,
        "Time between a segment's renaming and its deletion.";
    "log.preallocate" Boolean Some("false"), Any, Cluster, Honoured,
        "Whether a segment's space is reserved when it is created.";
    "log.message.timestamp.type" Text Some("CreateTime"),
        OneOf(&["CreateTime", "LogAppendTime"]), Cluster, Honoured,
        "`CreateTime` keeps the producer's timestamp, `LogAppendTime` sets the broker's.";
    "log.message.timestamp.before.max.ms" Long Some("9223372036854775807"), Min(0), Cluster, Honoured,
        "How far a timestamp may lie in the past.";
    "log.message.timestamp.after.max.ms" Long Some("3600000"), Min(0), Cluster, Honoured,
        "How far a timestamp may lie in the future.";
    "log.dir.failure.timeout.ms" Long Some("30000"), Min(1), ReadOnly, Ignored(OWN_PACE),
        "How long a failed log directory may go unannounced to the controller before the node stops.";
    "log.initial.task.delay.ms" Long Some("30000"), Min(0), ReadOnly, Honoured,
        "Wait before the first look at retention.";
    "log.cleaner.enable" Boolean Some("true"), Any, ReadOnly, CLEANER,
        "Whether compacted topics are compacted.";
    "log.cleaner.delete.retention.ms" Long Some("86400000"), Min(0), Cluster, Planned,
        "How long a compacted topic shows a tombstone.";
    "log.cleaner.min.cleanable.ratio" Double Some("0.5"), Share(0.0, 1.0), Cluster, Planned,
        "Share of a log not yet compacted that starts compaction.";
    "log.cleaner.min.compaction.lag.ms" Long Some("0"), Min(0), Cluster, Planned,
        "How long a record stays as it is.";
    "log.cleaner.max.compaction.lag.ms" Long Some("9223372036854775807"), Min(1), Cluster, Planned,
        "How long a record may wait for compaction.";
    "log.cleaner.backoff.ms" Long Some("15000"), Min(0), Cluster, Planned,
        "How long compaction rests when there is nothing to do.";
    "log.cleaner.io.max.bytes.per.second" Double Some("1.7976931348623157E308"), Any, Cluster, Planned,
        "Most bytes that compaction reads and writes per second.";
    "log.cleaner.dedupe.buffer.size" Long Some("134217728"), Any, Cluster, Planned,
        "Bytes that compaction may use to remember keys.";
    "log.cleaner.threads" Int Some("1"), Min(0), Cluster, Ignored(SHARDS),
        "Threads of compaction.";
    "log.cleaner.io.buffer.size" Int Some("524288"), Min(0), Cluster, Ignored(JVM),
        "Bytes of input and output buffers of compaction.";
    "log.cleaner.io.buffer.load.factor" Double Some("0.9"), Any, Cluster, Ignored(JVM),
        "How full the key table of compaction may be.";
    "log.local.retention.bytes" Long Some("-2"), Min(-2), Cluster, Planned,
        "Bytes of a tiered partition kept on local disks.";
    "log.local.retention.ms" Long Some("-2"), Min(-2), Cluster, Planned,
        "How long records of a tiered partition are kept on local disks.";
    "num.recovery.threads.per.data.dir" Int Some("2"), Min(1), Cluster, Honoured,
        "Threads that recover logs at start.";
    "num.replica.alter.log.dirs.threads" Int None, Any, ReadOnly, Ignored(SHARDS),
        "Threads that move replicas between directories.";
}
