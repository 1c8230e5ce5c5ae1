//! Consumer groups, share groups, streams groups and transactions.

use super::{Key, key_table};

key_table! {
    "group.min.session.timeout.ms" Int Some("6000"), Any, ReadOnly, Honoured,
        "Shortest session that a member may ask for.";
    "group.max.session.timeout.ms" Int Some("1800000"), Any, ReadOnly, Honoured,
        "Longest session that a member may ask for.";
    "group.initial.rebalance.delay.ms" Int Some("3000"), Any, ReadOnly, Honoured,
        "How long an empty group waits for more members.";
    "group.max.size" Int Some("2147483647"), Min(1), ReadOnly, Honoured,
        "Most members of a group.";
    "offset.metadata.max.bytes" Int Some("4096"), Any, ReadOnly, Honoured,
        "Largest text beside a committed offset.";
    "offsets.commit.timeout.ms" Int Some("5000"), Min(1), ReadOnly, Honoured,
        "How long a commit waits for its replicas.";
    "offsets.retention.minutes" Int Some("10080"), Min(1), ReadOnly, Honoured,
        "How long offsets outlive their group.";
    "offsets.retention.check.interval.ms" Long Some("600000"), Min(1), ReadOnly, Honoured,
        "How often offsets are looked at for removal.";
    "offsets.topic.num.partitions" Int Some("50"), Min(1), ReadOnly, Honoured,
        "Partitions of `__consumer_offsets`.";
    "offsets.topic.replication.factor" Short Some("3"), Min(1), ReadOnly, Honoured,
        "Replicas of `__consumer_offsets`.";
    "offsets.topic.segment.bytes" Int Some("104857600"), Min(1), ReadOnly, Honoured,
        "Segment size of `__consumer_offsets`.";
    "offsets.topic.compression.codec" Int Some("0"), Range(0, 4), ReadOnly, Honoured,
        "Codec of `__consumer_offsets`, as a number.";
    "offsets.load.buffer.size" Int Some("5242880"), Min(1), ReadOnly, Ignored(JVM),
        "Bytes read at a time while offsets are loaded.";
    "group.coordinator.rebalance.protocols" List Some("classic,consumer,streams"),
        OneOf(&["consumer", "classic", "share", "streams"]), ReadOnly, Planned,
        "Group protocols that are offered.";
    "group.coordinator.append.linger.ms" Int Some("-1"), Min(-1), ReadOnly, Ignored(OWN_PACE),
        "How long the group coordinator gathers records.";
    "group.coordinator.threads" Int Some("4"), Min(1), ReadOnly, Ignored(SHARDS),
        "Threads of the group coordinator.";
    "group.coordinator.background.threads" Int Some("2"), Min(1), ReadOnly, Ignored(SHARDS),
        "Background threads of the group coordinator.";
    "group.coordinator.cached.buffer.max.bytes" Int Some("1048588"), Min(524_288), Cluster, Ignored(JVM),
        "Bytes of buffers that the group coordinator keeps.";
    "group.consumer.session.timeout.ms" Int Some("45000"), Min(1), ReadOnly, Honoured,
        "Silence after which a member is out of its group.";
    "group.consumer.min.session.timeout.ms" Int Some("45000"), Min(1), ReadOnly, Honoured,
        "Least value of a group's session timeout.";
    "group.consumer.max.session.timeout.ms" Int Some("60000"), Min(1), ReadOnly, Honoured,
        "Greatest value of a group's session timeout.";
    "group.consumer.heartbeat.interval.ms" Int Some("5000"), Min(1), ReadOnly, Honoured,
        "How often members of a group report.";
    "group.consumer.min.heartbeat.interval.ms" Int Some("5000"), Min(1), ReadOnly, Honoured,
        "Least value of a group's heartbeat interval.";
    "group.consumer.max.heartbeat.interval.ms" Int Some("15000"), Min(1), ReadOnly, Honoured,
        "Greatest value of a group's heartbeat interval.";
    "group.consumer.assignment.interval.ms" Int Some("1000"), Min(0), Cluster, Planned,
        "Least time between two assignments of a group.";
    "group.consumer.min.assignment.interval.ms" Int Some("0"), Min(0), ReadOnly, Planned,
        "Least value of a group's assignment interval.";
    "group.consumer.max.assignment.interval.ms" Int Some("15000"), Min(0), ReadOnly, Planned,
        "Greatest value of a group's assignment interval.";
    "group.consumer.max.size" Int Some("2147483647"), Min(1), ReadOnly, Honoured,
        "Most members of a consumer group.";
    "group.consumer.assignors" List Some("uniform,range"),
        OneOf(&[
            "uniform",
            "range",
            "org.apache.kafka.coordinator.group.assignor.UniformAssignor",
            "org.apache.kafka.coordinator.group.assignor.RangeAssignor",
        ]), ReadOnly, Honoured,
        "Assignors of the server, the first being the default.";
    "group.consumer.migration.policy" Text Some("bidirectional"),
        OneOfAnyCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), ReadOnly, Honoured,
        "Whether groups move between the two protocols.";
    "group.consumer.regex.refresh.interval.ms" Int Some("600000"), Min(10_000), ReadOnly, Ignored(OWN_PACE),
        "How often subscriptions by pattern are resolved again.";
    "group.share.session.timeout.ms" Int Some("45000"), Min(1), ReadOnly, Planned,
        "Silence after which a member is out of its share group.";
    "group.share.min.session.timeout.ms" Int Some("45000"), Min(1), ReadOnly, Planned,
        "Least value of a share group's session timeout.";
    "group.share.max.session.timeout.ms" Int Some("60000"), Min(1), ReadOnly, Planned,
        "Greatest value of a share group's session timeout.";
    "group.share.heartbeat.interval.ms" Int Some("5000"), Min(1), ReadOnly, Planned,
        "How often members of a share group report.";
    "group.share.min.heartbeat.interval.ms" Int Some("5000"), Min(1), ReadOnly, Planned,
        "Least value of a share group's heartbeat interval.";
    "group.share.max.heartbeat.interval.ms" Int Some("15000"), Min(1), ReadOnly, Planned,
        "Greatest value of a share group's heartbeat interval.";
    "group.share.assignment.interval.ms" Int Some("1000"), Min(0), Cluster, Planned,
        "Least time between two assignments of a share group.";
    "group.share.min.assignment.interval.ms" Int Some("0"), Min(0), ReadOnly, Planned,
        "Least value of a share group's assignment interval.";
    "group.share.max.assignment.interval.ms" Int Some("15000"), Min(0), ReadOnly, Planned,
        "Greatest value of a share group's assignment interval.";
    "group.share.max.size" Int Some("200"), Range(1, 1000), ReadOnly, Planned,
        "Most members of a share group.";
    "group.share.assignors" List Some("simple"), Any, ReadOnly, SHARE_ASSIGNORS,
        "Assignors of share groups.";
    "group.share.delivery.count.limit" Int Some("5"), Range(2, 10), ReadOnly, Planned,
        "How often a record is tried.";
    "group.share.min.delivery.count.limit" Int Some("2"), Range(2, 5), ReadOnly, Planned,
        "Least value of a share group's tries.";
    "group.share.max.delivery.count.limit" Int Some("10"), Range(5, 25), ReadOnly, Planned,
        "Greatest value of a share group's tries.";
    "group.share.record.lock.duration.ms" Int Some("30000"), Range(1000, 3_600_000), ReadOnly, Planned,
        "How long a member keeps a record to itself.";
    "group.share.min.record.lock.duration.ms" Int Some("15000"), Range(1000, 30_000), ReadOnly, Planned,
        "Least value of a share group's lock.";
    "group.share.max.record.lock.duration.ms" Int Some("60000"), Range(30_000, 3_600_000), ReadOnly, Planned,
        "Greatest value of a share group's lock.";
    "group.share.partition.max.record.locks" Int Some("2000"), Range(100, 10_000), ReadOnly, Planned,
        "Locked records of a share partition.";
    "group.share.min.partition.max.record.locks" Int Some("100"), Range(100, 2000), ReadOnly, Planned,
        "Least value of a share group's locked records.";
    "group.share.max.partition.max.record.locks" Int Some("4000"), Range(2000, 10_000), ReadOnly, Planned,
        "Greatest value of a share group's locked records.";
    "group.share.max.share.sessions" Int Some("2000"), Min(1), ReadOnly, Planned,
        "Share sessions that the node remembers.";
    "group.share.initialize.retry.interval.ms" Int Some("30000"), Min(1), ReadOnly, Planned,
        "Wait before share state is initialized again.";
    "group.share.persister.class.name" Text
        Some("org.apache.kafka.server.share.persister.DefaultStatePersister"),
        Any, ReadOnly, PLUGIN,
        "A class that keeps share state.";
    "group.streams.session.timeout.ms" Int Some("45000"), Min(1), ReadOnly, Planned,
        "Silence after which a member is out of its streams group.";
    "group.streams.min.session.timeout.ms" Int Some("45000"), Min(1), ReadOnly, Planned,
        "Least value of a streams group's session timeout.";
    "group.streams.max.session.timeout.ms" Int Some("60000"), Min(1), ReadOnly, Planned,
        "Greatest value of a streams group's session timeout.";
    "group.streams.heartbeat.interval.ms" Int Some("5000"), Min(1), ReadOnly, Planned,
        "How often members of a streams group report.";
    "group.streams.min.heartbeat.interval.ms" Int Some("5000"), Min(1), ReadOnly, Planned,
        "Least value of a streams group's heartbeat interval.";
    "group.streams.max.heartbeat.interval.ms" Int Some("15000"), Min(1), ReadOnly, Planned,
        "Greatest value of a streams group's heartbeat interval.";
    "group.streams.assignment.interval.ms" Int Some("1000"), Min(0), Cluster, Planned,
        "Least time between two assignments of a streams group.";
    "group.streams.min.assignment.interval.ms" Int Some("0"), Min(0), ReadOnly, Planned,
        "Least value of a streams group's assignment interval.";
    "group.streams.max.assignment.interval.ms" Int Some("15000"), Min(0), ReadOnly, Planned,
        "Greatest value of a streams group's assignment interval.";
    "group.streams.max.size" Int Some("2147483647"), Min(1), ReadOnly, Planned,
        "Most members of a streams group.";
    "group.streams.num.standby.replicas" Int Some("0"), Min(0), ReadOnly, Planned,
        "Standby copies of a task.";
    "group.streams.max.standby.replicas" Int Some("2"), Min(0), ReadOnly, Planned,
        "Greatest value of a streams group's standby copies.";
    "group.streams.initial.rebalance.delay.ms" Int Some("3000"), Min(0), ReadOnly, Planned,
        "How long an empty streams group waits for more members.";
    "group.streams.topology.description.plugin.class" Class None, Any, ReadOnly, PLUGIN,
        "A class that describes topologies.";
    "share.coordinator.state.topic.num.partitions" Int Some("50"), Min(1), ReadOnly, Planned,
        "Partitions of `__share_group_state`.";
    "share.coordinator.state.topic.replication.factor" Short Some("3"), Min(1), ReadOnly, Planned,
        "Replicas of `__share_group_state`.";
    "share.coordinator.state.topic.min.isr" Short Some("2"), Min(1), ReadOnly, Planned,
        "In-sync replicas that `__share_group_state` needs.";
    "share.coordinator.state.topic.segment.bytes" Int Some("104857600"), Min(1), ReadOnly, Planned,
        "Segment size of `__share_group_state`.";
    "share.coordinator.state.topic.compression.codec" Int Some("0"), Any, ReadOnly, Planned,
        "Codec of `__share_group_state`, as a number.";
    "share.coordinator.state.topic.prune.interval.ms" Int Some("300000"), Min(1), ReadOnly, Planned,
        "How often old share state is removed.";
    "share.coordinator.snapshot.update.records.per.snapshot" Int Some("500"),
        Range(0, 500), ReadOnly, Planned,
        "Updates between two snapshots of share state.";
    "share.coordinator.cold.partition.snapshot.interval.ms" Int Some("300000"), Min(1), ReadOnly, Planned,
        "How often idle share partitions are written again.";
    "share.coordinator.write.timeout.ms" Int Some("5000"), Min(1), ReadOnly, Planned,
        "How long a write of share state waits for its replicas.";
    "share.coordinator.append.linger.ms" Int Some("-1"), Min(-1), ReadOnly, Ignored(OWN_PACE),
        "How long the share coordinator gathers records.";
    "share.coordinator.load.buffer.size" Int Some("5242880"), Min(1), ReadOnly, Ignored(JVM),
        "Bytes read at a time while share state is loaded.";
    "share.coordinator.threads" Int Some("1"), Min(1), ReadOnly, Ignored(SHARDS),
        "Threads of the share coordinator.";
    "share.coordinator.cached.buffer.max.bytes" Int Some("1048588"), Min(524_288), Cluster, Ignored(JVM),
        "Bytes of buffers that the share coordinator keeps.";
    "transaction.max.timeout.ms" Int Some("900000"), Min(1), ReadOnly, Planned,
        "Longest transaction that a producer may ask for.";
    "transaction.state.log.num.partitions" Int Some("50"), Min(1), ReadOnly, Planned,
        "Partitions of `__transaction_state`.";
    "transaction.state.log.replication.factor" Short Some("3"), Min(1), ReadOnly, Planned,
        "Replicas of `__transaction_state`.";
    "transaction.state.log.min.isr" Int Some("2"), Min(1), ReadOnly, Planned,
        "In-sync replicas that `__transaction_state` needs.";
    "transaction.state.log.segment.bytes" Int Some("104857600"), Min(1), ReadOnly, Planned,
        "Segment size of `__transaction_state`.";
    "transaction.state.log.load.buffer.size" Int Some("5242880"), Min(1), ReadOnly, Ignored(JVM),
        "Bytes read at a time while transactions are loaded.";
    "transactional.id.expiration.ms" Int Some("604800000"), Min(1), ReadOnly, Planned,
        "How long an unused transactional id is kept.";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms" Int Some("10000"),
        Min(1), ReadOnly, Planned,
        "How often overdue transactions are aborted.";
    "transaction.remove.expired.transaction.cleanup.interval.ms" Int Some("3600000"),
        Min(1), ReadOnly, Planned,
        "How often unused transactional ids are removed.";
    "transaction.partition.verification.enable" Boolean Some("true"), Any, Cluster, Planned,
        "Whether a produce is checked against its transaction.";
    "transaction.two.phase.commit.enable" Boolean Some("false"), Any, ReadOnly, Planned,
        "Whether a transaction may be prepared and finished later.";
    "add.partitions.to.txn.retry.backoff.ms" Int Some("20"), Min(1), ReadOnly, Planned,
        "First wait before a partition is added to a transaction again.";
    "add.partitions.to.txn.retry.backoff.max.ms" Int Some("100"), Min(0), ReadOnly, Planned,
        "Longest such wait.";
    "producer.id.expiration.ms" Int Some("86400000"), Min(1), Cluster, Honoured,
        "How long a silent idempotent producer is remembered.";
    "producer.id.expiration.check.interval.ms" Int Some("600000"), Min(1), ReadOnly, Ignored(OWN_PACE),
        "How often silent producers are looked for.";
}
