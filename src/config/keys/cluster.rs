//! Replication, the metadata quorum, fetch limits, quotas, tiered storage and metrics.

use super::{Key, key_table};

key_table! {
    "replica.lag.time.max.ms" Long Some("30000"), Min(1), ReadOnly, Honoured,
        "A follower that is not caught up for this long leaves the in-sync set.";
    "replica.high.watermark.checkpoint.interval.ms" Long Some("5000"), Min(1), ReadOnly, Honoured,
        "How often high watermarks are written down.";
    "replica.fetch.min.bytes" Int Some("1"), Any, ReadOnly, Honoured,
        "Bytes that a follower's fetch waits for.";
    "replica.fetch.max.bytes" Int Some("1048576"), Min(0), ReadOnly, Honoured,
        "Bytes that a follower asks for per partition.";
    "replica.fetch.wait.max.ms" Int Some("500"), Any, ReadOnly, Honoured,
        "How long a follower's fetch waits.";
    "replica.fetch.response.max.bytes" Int Some("10485760"), Min(0), ReadOnly, Honoured,
        "Bytes that a follower asks for per fetch.";
    "replica.fetch.backoff.ms" Int Some("1000"), Min(0), ReadOnly, Honoured,
        "How long a follower rests after a failed fetch.";
    "replica.selector.class" Text None,
        OneOf(&["org.apache.kafka.common.replica.RackAwareReplicaSelector"]), ReadOnly, Honoured,
        "How a consumer's near replica is chosen; without it consumers are sent to leaders.";
    "replica.alter.log.dirs.io.max.bytes.per.second" Long Some("9223372036854775807"),
        Min(0), Cluster, Honoured,
        "Most bytes per second that moves between directories may use.";
    "leader.replication.throttled.rate" Long Some("9223372036854775807"), Min(0), Cluster, Honoured,
        "Most bytes per second that leaders send to throttled followers.";
    "follower.replication.throttled.rate" Long Some("9223372036854775807"), Min(0), Cluster, Honoured,
        "Most bytes per second that throttled followers take.";
    "auto.leader.rebalance.enable" Boolean Some("true"), Any, ReadOnly, Honoured,
        "Whether leadership returns to preferred replicas by itself.";
    "leader.imbalance.check.interval.seconds" Long Some("300"), Min(1), ReadOnly, Honoured,
        "How often leadership is looked at for that.";
    "unclean.leader.election.interval.ms" Long Some("300000"), Min(1), ReadOnly, Honoured,
        "How often partitions without a leader are looked at for an unclean election.";
    "broker.heartbeat.interval.ms" Int Some("2000"), Any, ReadOnly, Honoured,
        "How often a broker tells the controller that it lives.";
    "broker.session.timeout.ms" Int Some("9000"), Any, ReadOnly, Honoured,
        "How long the controller waits for a heartbeat.";
    "controlled.shutdown.enable" Boolean Some("true"), Any, ReadOnly, Honoured,
        "Whether leadership moves away before a stop.";
    "fetch.max.bytes" Int Some("57671680"), Min(1024), ReadOnly, Honoured,
        "Most bytes of a fetch response.";
    "max.incremental.fetch.session.cache.slots" Int Some("1000"), Min(0), ReadOnly, Honoured,
        "Fetch sessions that the node remembers.";
    "max.request.partition.size.limit" Int Some("2000"), Min(1), ReadOnly, Honoured,
        "Most partitions that one DescribeTopicPartitions response holds.";
    "telemetry.max.bytes" Int Some("1048576"), Min(1), ReadOnly, Planned,
        "Largest metrics push of a client.";
    "quota.window.num" Int Some("11"), Min(1), ReadOnly, Planned,
        "Windows that client quotas look back on.";
    "quota.window.size.seconds" Int Some("1"), Min(1), ReadOnly, Planned,
        "Length of a window of client quotas.";
    "controller.quota.window.num" Int Some("11"), Min(1), ReadOnly, Planned,
        "Windows that controller quotas look back on.";
    "controller.quota.window.size.seconds" Int Some("1"), Min(1), ReadOnly, Planned,
        "Length of a window of controller quotas.";
    "replication.quota.window.num" Int Some("11"), Min(1), ReadOnly, Honoured,
        "Windows that replication throttles look back on.";
    "replication.quota.window.size.seconds" Int Some("1"), Min(1), ReadOnly, Honoured,
        "Length of a window of replication throttles.";
    "alter.log.dirs.replication.quota.window.num" Int Some("11"), Min(1), ReadOnly, Honoured,
        "Windows that the throttle between directories looks back on.";
    "alter.log.dirs.replication.quota.window.size.seconds" Int Some("1"), Min(1), ReadOnly, Honoured,
        "Length of a window of the throttle between directories.";
    "client.quota.callback.class" Class None, Any, ReadOnly, PLUGIN,
        "A class that decides quotas.";
    "create.topic.policy.class.name" Class None, Any, ReadOnly, PLUGIN,
        "A class that judges new topics.";
    "alter.config.policy.class.name" Class None, Any, ReadOnly, PLUGIN,
        "A class that judges changes of configuration.";
    "config.providers" List Some(""), Any, Cluster, PROVIDERS,
        "Where values such as `${file:…}` come from.";
    "remote.log.storage.system.enable" Boolean Some("false"), Any, ReadOnly, Planned,
        "Whether tiered storage is on.";
    "remote.log.storage.manager.class.name" Text None, NonEmpty, ReadOnly, PLUGIN,
        "A class that keeps remote segments.";
    "remote.log.storage.manager.class.path" Text None, Any, ReadOnly, Planned,
        "Where that class is found.";
    "remote.log.storage.manager.impl.prefix" Text Some("rsm.config."), NonEmpty, ReadOnly, Planned,
        "Prefix of that class's own keys.";
    "remote.log.metadata.manager.class.name" Text
        Some("org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager"),
        NonEmpty, ReadOnly, PLUGIN,
        "A class that keeps the metadata of remote segments.";
    "remote.log.metadata.manager.class.path" Text None, Any, ReadOnly, Planned,
        "Where that class is found.";
    "remote.log.metadata.manager.impl.prefix" Text Some("rlmm.config."), NonEmpty, ReadOnly, Planned,
        "Prefix of that class's own keys.";
    "remote.log.metadata.manager.listener.name" Text None, NonEmpty, ReadOnly, Planned,
        "Listener that the metadata of remote segments travels on.";
    "remote.log.metadata.custom.metadata.max.bytes" Int Some("128"), Min(0), ReadOnly, Planned,
        "Largest metadata of a remote segment.";
    "remote.log.index.file.cache.total.size.bytes" Long Some("1073741824"), Min(1), Cluster, Planned,
        "Bytes of remote indexes kept on local disks.";
    "remote.log.index.file.cache.ttl.ms" Long Some("900000"), Min(-1), ReadOnly, Planned,
        "How long an unused remote index is kept.";
    "remote.log.manager.task.interval.ms" Long Some("30000"), Min(1), ReadOnly, Planned,
        "How often segments are copied and expired.";
    "remote.log.manager.task.retry.backoff.ms" Long Some("500"), Min(1), ReadOnly, Planned,
        "First wait after a failed remote task.";
    "remote.log.manager.task.retry.backoff.max.ms" Long Some("30000"), Min(1), ReadOnly, Planned,
        "Longest wait after failed remote tasks.";
    "remote.log.manager.task.retry.jitter" Double Some("0.2"), Share(0.0, 0.5), ReadOnly, Planned,
        "Random share of those waits.";
    "remote.log.manager.copy.max.bytes.per.second" Long Some("9223372036854775807"), Min(1), Cluster, Planned,
        "Most bytes per second copied to remote storage.";
    "remote.log.manager.copy.quota.window.num" Int Some("11"), Min(1), ReadOnly, Planned,
        "Windows that the copy limit looks back on.";
    "remote.log.manager.copy.quota.window.size.seconds" Int Some("1"), Min(1), ReadOnly, Planned,
        "Length of a window of the copy limit.";
    "remote.log.manager.fetch.max.bytes.per.second" Long Some("9223372036854775807"),
        Min(1), Cluster, Planned,
        "Most bytes per second read from remote storage.";
    "remote.log.manager.fetch.quota.window.num" Int Some("11"), Min(1), ReadOnly, Planned,
        "Windows that the read limit looks back on.";
    "remote.log.manager.fetch.quota.window.size.seconds" Int Some("1"), Min(1), ReadOnly, Planned,
        "Length of a window of the read limit.";
    "remote.fetch.max.wait.ms" Int Some("500"), Min(1), Cluster, Planned,
        "How long a fetch waits for remote storage.";
    "remote.list.offsets.request.timeout.ms" Long Some("30000"), Min(1), Cluster, Planned,
        "How long an offset look-up waits for remote storage.";
    "follower.fetch.last.tiered.offset.enable" Boolean Some("false"), Any, Cluster, Planned,
        "Whether a new follower starts at the last tiered offset.";
    "remote.log.manager.thread.pool.size" Int Some("2"), Min(1), ReadOnly, Ignored(SHARDS),
        "Threads of remote tasks.";
    "remote.log.manager.copier.thread.pool.size" Int Some("10"), Min(1), Cluster, Ignored(SHARDS),
        "Threads that copy to remote storage.";
    "remote.log.manager.expiration.thread.pool.size" Int Some("10"), Min(1), Cluster, Ignored(SHARDS),
        "Threads that expire remote segments.";
    "remote.log.manager.follower.thread.pool.size" Int Some("2"), Min(1), Cluster, Ignored(SHARDS),
        "Threads of followers of tiered partitions.";
    "remote.log.reader.threads" Int Some("10"), Min(1), Cluster, Ignored(SHARDS),
        "Threads that read remote storage.";
    "remote.log.reader.max.pending.tasks" Int Some("100"), Min(1), ReadOnly, Ignored(SHARDS),
        "Reads of remote storage that wait for a thread.";
    "num.network.threads" Int Some("3"), Min(1), Cluster, Ignored(SHARDS),
        "Threads that read and write sockets.";
    "num.io.threads" Int Some("8"), Min(1), Cluster, Ignored(SHARDS),
        "Threads that serve requests.";
    "background.threads" Int Some("10"), Min(1), Cluster, Ignored(SHARDS),
        "Threads of background work.";
    "queued.max.requests" Int Some("500"), Min(1), ReadOnly, Ignored(SHARDS),
        "Requests that wait for a thread.";
    "num.replica.fetchers" Int Some("1"), Min(1), Cluster, Ignored(SHARDS),
        "Threads that fetch from each leader.";
    "producer.purgatory.purge.interval.requests" Int Some("1000"), Any, ReadOnly, Ignored(JVM),
        "Produces between two sweeps of waiting ones.";
    "fetch.purgatory.purge.interval.requests" Int Some("1000"), Any, ReadOnly, Ignored(JVM),
        "Fetches between two sweeps of waiting ones.";
    "delete.records.purgatory.purge.interval.requests" Int Some("1"), Any, ReadOnly, Ignored(JVM),
        "Record deletions between two sweeps of waiting ones.";
    "share.fetch.purgatory.purge.interval.requests" Int Some("1000"), Any, ReadOnly, Ignored(JVM),
        "Share fetches between two sweeps of waiting ones.";
    "metric.reporters" List Some("org.apache.kafka.common.metrics.JmxReporter"), Any, Cluster, Ignored(JMX),
        "Classes that report metrics.";
    "metrics.num.samples" Int Some("2"), Min(1), ReadOnly, Ignored(JMX),
        "Samples kept per metric.";
    "metrics.sample.window.ms" Long Some("30000"), Min(1), ReadOnly, Ignored(JMX),
        "Length of a sample.";
    "metrics.recording.level" Text Some("INFO"), Any, ReadOnly, Ignored(JMX),
        "How much is measured.";
    "kafka.metrics.reporters" List Some(""), Any, ReadOnly, Ignored(JMX),
        "Classes that report the older metrics.";
    "kafka.metrics.polling.interval.secs" Int Some("10"), Min(1), ReadOnly, Ignored(JMX),
        "How often those classes are asked.";
    "auto.include.jmx.reporter" Boolean Some("true"), Any, ReadOnly, Ignored(JMX),
        "Whether JMX reports without being named.";
    "controller.quorum.election.timeout.ms" Int Some("1000"), Min(0), ReadOnly, Ignored(QUORUM),
        "Wait for votes before another election.";
    "controller.quorum.election.backoff.max.ms" Int Some("1000"), Min(0), ReadOnly, Ignored(QUORUM),
        "Longest wait between elections.";
    "controller.quorum.fetch.timeout.ms" Int Some("2000"), Min(0), ReadOnly, Ignored(QUORUM),
        "Silence of the leader that starts an election.";
    "controller.quorum.fetch.max.bytes" Int Some("1048576"), Min(1), ReadOnly, Ignored(QUORUM),
        "Bytes of a fetch among controllers.";
    "controller.quorum.fetch.snapshot.max.bytes" Int Some("1048576"), Min(1), ReadOnly, Ignored(QUORUM),
        "Bytes of a snapshot fetch among controllers.";
    "controller.quorum.request.timeout.ms" Int Some("2000"), Min(0), ReadOnly, Ignored(QUORUM),
        "How long a request among controllers waits.";
    "controller.quorum.append.linger.ms" Int Some("25"), Min(0), ReadOnly, Ignored(QUORUM),
        "How long the controller gathers records.";
    "controller.quorum.retry.backoff.ms" Int Some("20"), Min(0), ReadOnly, Ignored(QUORUM),
        "Wait after a failed request among controllers.";
    "controller.quorum.auto.join.enable" Boolean Some("false"), Any, ReadOnly, Ignored(QUORUM),
        "Whether a controller joins the quorum by itself.";
    "controller.performance.sample.period.ms" Long Some("60000"), Min(100), ReadOnly, Ignored(QUORUM),
        "How often slow controller events are counted.";
    "controller.performance.always.log.threshold.ms" Long Some("2000"), Min(0), ReadOnly, Ignored(QUORUM),
        "A controller event this slow is always logged.";
    "controller.socket.timeout.ms" Int Some("30000"), Any, ReadOnly, Ignored(QUORUM),
        "How long a call to the controller waits.";
    "metadata.log.max.record.bytes.between.snapshots" Long Some("20971520"),
        Min(1), ReadOnly, Ignored(QUORUM),
        "Bytes of metadata log between two snapshots.";
    "metadata.log.max.snapshot.interval.ms" Long Some("3600000"), Min(0), ReadOnly, Ignored(QUORUM),
        "Longest time between two snapshots.";
    "metadata.log.segment.bytes" Int Some("1073741824"), Min(8_388_608), ReadOnly, Ignored(QUORUM),
        "Size of a segment of the metadata log.";
    "metadata.log.segment.ms" Long Some("604800000"), Any, ReadOnly, Ignored(QUORUM),
        "Age of a segment of the metadata log.";
    "metadata.log.segment.min.bytes" Int Some("8388608"), Min(12), ReadOnly, Ignored(QUORUM),
        "Smallest segment of the metadata log.";
    "metadata.max.idle.interval.ms" Int Some("500"), Min(0), ReadOnly, Ignored(QUORUM),
        "How often an idle controller writes a record.";
    "metadata.max.retention.bytes" Long Some("104857600"), Any, ReadOnly, Ignored(QUORUM),
        "Size of the metadata log before it is cut.";
    "metadata.max.retention.ms" Long Some("604800000"), Any, ReadOnly, Ignored(QUORUM),
        "Age of the metadata log before it is cut.";
    "internal.metadata.log.segment.bytes" Int None, Any, ReadOnly, Ignored(QUORUM),
        "Size of a segment of the metadata log, for tests.";
    "internal.metadata.max.batch.size.in.bytes" Int Some("8388608"), Any, ReadOnly, Ignored(QUORUM),
        "Largest batch of the metadata log, for tests.";
    "internal.metadata.max.fetch.size.in.bytes" Int Some("8388608"), Any, ReadOnly, Ignored(QUORUM),
        "Largest fetch of the metadata log, for tests.";
    "internal.metadata.delete.delay.millis" Long Some("60000"), Any, ReadOnly, Ignored(QUORUM),
        "Wait before metadata segments are deleted, for tests.";
    "initial.broker.registration.timeout.ms" Int Some("60000"), Any, ReadOnly, Honoured,
        "How long a broker tries to register.";
    "replica.socket.timeout.ms" Int Some("30000"), Any, ReadOnly, Honoured,
        "How long a follower's fetch may take.";
    "replica.socket.receive.buffer.bytes" Int Some("65536"), Any, ReadOnly, Ignored(QUORUM),
        "Kernel receive buffer of a follower.";
    "request.timeout.ms" Int Some("30000"), Any, ReadOnly, Honoured,
        "How long a call between nodes may take.";
    "socket.connection.setup.timeout.ms" Long Some("10000"), Any, ReadOnly, Ignored(QUORUM),
        "How long connecting to a node may take at first.";
    "socket.connection.setup.timeout.max.ms" Long Some("30000"), Any, ReadOnly, Ignored(QUORUM),
        "How long connecting to a node may take at most.";
    "server.max.startup.time.ms" Long Some("9223372036854775807"), Min(0), ReadOnly, Ignored(QUORUM),
        "How long a start may take.";
    "unstable.api.versions.enable" Boolean Some("false"), Any, ReadOnly, Ignored(QUORUM),
        "Whether unfinished API versions are offered.";
    "unstable.feature.versions.enable" Boolean Some("false"), Any, ReadOnly, Ignored(QUORUM),
        "Whether unfinished features are offered.";
}
