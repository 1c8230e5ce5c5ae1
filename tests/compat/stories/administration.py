"""Topics, configurations, features, the quorum, elections, reassignments, access rules and the cluster."""

from steps import Differs, Step, Story, tool

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
FEATURES = "org.apache.kafka.tools.FeatureCommand"
QUORUM = "org.apache.kafka.tools.MetadataQuorumCommand"
ELECTION = "org.apache.kafka.tools.LeaderElectionCommand"
CLUSTER = "org.apache.kafka.tools.ClusterTool"
VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"
ACLS = "org.apache.kafka.tools.AclCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
METRICS = "org.apache.kafka.tools.ClientMetricsCommand"


def topics(*arguments, **more):
    """kafka-topics."""
    return tool(TOPICS, *arguments, **more)


def configs(*arguments, **more):
    """kafka-configs."""
    return tool(CONFIGS, *arguments, **more)


def cluster(what, *arguments, **more):
    """kafka-cluster, whose options come behind what it is to do."""
    return Step(CLUSTER, [what, "--bootstrap-server", "{bootstrap}", *arguments], **more)


def created(name, *arguments):
    """A topic, made."""
    return topics("--create", "--topic", name, "--replication-factor", "1", *arguments)


def alter(kind, name, *arguments, **more):
    """kafka-configs --alter of one entity; no name is the default of all."""
    entity = ["--entity-type", kind, *(["--entity-name", name] if name else ["--entity-default"])]
    return configs("--alter", *entity, *arguments, **more)


def described(kind, name, *arguments, **more):
    """kafka-configs --describe of one entity."""
    entity = ["--entity-type", kind, *(["--entity-name", name] if name else ["--entity-default"])]
    return configs("--describe", *entity, *arguments, **more)


TOPIC_STORY = Story("kafka-topics", [
    topics("--list"),
    created("orders", "--partitions", "3", "--config", "retention.ms=86400000", "--config", "segment.bytes=16777216"),
    created("orders", "--partitions", "1"),
    topics("--create", "--if-not-exists", "--topic", "orders"),
    created("a.b", "--partitions", "1"),
    created("a_b", "--partitions", "1"),
    created("bad name", "--partitions", "1"),
    created("wide", "--partitions", "0"),
    topics("--create", "--topic", "wide", "--partitions", "1", "--replication-factor", "3"),
    created("wide", "--config", "retention.ms=-7"),
    created("wide", "--config", "message.format.version=2.0"),
    topics("--list"),
    topics("--list", "--exclude-internal"),
    topics("--describe", "--topic", "orders"),
    topics("--describe", "--topic", "nowhere"),
    topics("--describe", "--under-replicated-partitions"),
    topics("--describe", "--unavailable-partitions"),
    topics("--describe", "--at-min-isr-partitions"),
    topics("--describe", "--under-min-isr-partitions"),
    topics("--describe", "--topics-with-overrides"),
    topics("--describe", "--topic", "ord.*"),
    topics("--describe", "--topic", "orders", "--partition-size-limit-per-response", "2"),
    topics("--describe", "--topic", "nowhere", "--if-exists"),
    topics("--describe", "--topic-id", "AAAAAAAAAAAAAAAAAAAAAQ"),
    topics("--describe", "--topic-id", "nonsense"),
    topics("--list", "--topic", "o.*|a.*"),
    topics("--create", "--topic", "placed", "--replica-assignment", "1,1,1", "--config", "cleanup.policy=compact,delete"),
    topics("--create", "--topic", "misplaced", "--replica-assignment", "1,7"),
    topics("--create", "--topic", "misplaced", "--replica-assignment", "1:1"),
    topics("--create", "--topic", "misplaced", "--replica-assignment", "1", "--partitions", "2"),
    topics("--create", "--partitions", "2"),
    topics("--create", "--topic", "x" * 250),
    topics("--create", "--topic", "."),
    topics("--create", "--topic", "defaults"),
    topics("--describe", "--topic", "defaults"),
    topics("--alter", "--topic", "placed", "--partitions", "5", "--replica-assignment", "1,1,1,1,1"),
    topics("--alter", "--topic", "placed", "--partitions", "6", "--replica-assignment", "1,1,1,1,1,7"),
    topics("--alter", "--topic", "placed", "--config", "retention.ms=1"),
    topics("--alter", "--topic", "placed"),
    topics("--describe", "--topic", "placed"),
    topics("--alter", "--topic", "orders", "--partitions", "5"),
    topics("--alter", "--topic", "orders", "--partitions", "2"),
    topics("--alter", "--topic", "orders", "--partitions", "5"),
    topics("--alter", "--topic", "nowhere", "--partitions", "5"),
    topics("--delete", "--topic", "a.b"),
    topics("--delete", "--topic", "a.b"),
    topics("--delete", "--if-exists", "--topic", "a.b"),
    topics("--delete", "--topic", "pla.*"),
    topics("--delete"),
    topics("--list"),
])

TOPIC_CONFIG_STORY = Story("kafka-configs of topics", [
    created("t", "--partitions", "2"),
    described("topics", "t"),
    alter("topics", "t", "--add-config", "retention.ms=9000,max.message.bytes=2000"),
    described("topics", "t"),
    described("topics", "t", "--all", unordered=True),
    alter("topics", "t", "--add-config", "cleanup.policy=[compact,delete]"),
    described("topics", "t"),
    alter("topics", "t", "--delete-config", "retention.ms"),
    alter("topics", "t", "--delete-config", "retention.ms"),
    alter("topics", "t", "--add-config", "retention.ms=-7"),
    alter("topics", "t", "--add-config", "no.such.key=1"),
    alter("topics", "t", "--add-config", "segment.bytes=1"),
    alter("topics", "t", "--add-config", "cleanup.policy=shred"),
    alter("topics", "t", "--add-config", "min.compaction.lag.ms=5,max.compaction.lag.ms=4"),
    alter("topics", "nowhere", "--add-config", "retention.ms=1"),
    described("topics", "nowhere"),
    configs("--describe", "--entity-type", "topics"),
    alter("topics", "t", "--add-config", "leader.replication.throttled.replicas=[0:1,1:1]"),
    described("topics", "t"),
    alter("topics", "t", "--add-config-file", "{folder}/topic.properties",
          files={"topic.properties": "retention.bytes=5000\nfile.delete.delay.ms=1000\n"}),
    described("topics", "t"),
    alter("topics", "t", "--add-config", "retention.ms=1", "--delete-config", "retention.bytes,file.delete.delay.ms"),
    alter("topics", "t", "--add-config", "retention.ms"),
    alter("topics", "t", "--add-config", "retention.ms="),
    alter("topics", "t", "--delete-config", "no.such.key"),
    alter("topics", "t", "--add-config", "max.message.bytes=-1,no.such.key=3"),
    alter("topics", "t", "--add-config", "message.timestamp.type=Now"),
    alter("topics", "t", "--add-config", "unclean.leader.election.enable=maybe"),
    alter("topics", "t", "--add-config", "min.insync.replicas=0"),
    alter("topics", "t", "--add-config", "compression.type=brotli"),
    alter("topics", "t", "--add-config", "compression.gzip.level=77"),
    alter("topics", "t", "--add-config", "remote.storage.enable=true"),
    alter("topics", "t", "--add-config", "preallocate=true,segment.ms=3600000,flush.messages=10"),
    configs("--describe", "--topic", "t"),
    configs("--describe", "--topic", "nowhere", "--all"),
    configs("--alter", "--topic", "t"),
    configs("--describe", "--entity-type", "nonsense"),
    configs("--describe", "--alter", "--topic", "t"),
    alter("topics", "", "--add-config", "retention.ms=1"),
])

# Values that are a node's own: where it lies, what it listens on.
OWN = [(r"^  (\S+)=.*(HOST:PORT|FOLDER|:\d{4,5}\b).*", r"  \1=OWN")]
# What the reference is given to run as one node, where it lies, and what only Tidemill tells: its own keys, keys that
# Kafka keeps to itself, and those that matter in other roles.
REFERENCE = ["broker.id", "node.id", "process.roles", "log.dir", "controller.listener.names", "controller.quorum.voters",
             "offsets.topic.replication.factor", "transaction.state.log.min.isr", "transaction.state.log.replication.factor"]
MORE = ["allow.everyone.if.no.acl.found", "auto.include.jmx.reporter", "controller.performance.\\S+", "follower.replication.\\S+",
        "group.consumer.regex.refresh.interval.ms", "group.share.(initialize|persister).\\S+", "group.streams.topology.\\S+",
        "internal.metadata.\\S+", "leader.replication.\\S+", "log.dir.free.floor.bytes", "log.initial.task.delay.ms",
        "metadata.log.segment.min.bytes", "producer.id.expiration.check.interval.ms", "remote.log.index.file.cache.ttl.ms",
        "remote.log.manager.task.retry.\\S+", "replica.alter.log.dirs.\\S+", "sasl.oauthbearer.header.urlencode",
        "server.max.startup.time.ms", "shard.\\S+", "share.coordinator.\\S+", "super.users",
        "unclean.leader.election.interval.ms", "unstable.\\S+"]
NOT_KNOWN = Differs("neither is set up like the other, and Tidemill tells more keys", rf"^  ({'|'.join(REFERENCE + MORE)})=")

BROKER_CONFIG_STORY = Story("kafka-configs of brokers", [
    created("t", "--partitions", "1"),
    alter("brokers", "1", "--add-config", "log.retention.ms=9000"),
    alter("brokers", "", "--add-config", "message.max.bytes=2000000,max.connections.per.ip=1000"),
    described("brokers", "1"),
    described("brokers", "", unordered=True),
    described("topics", "t", "--all", unordered=True),
    alter("brokers", "1", "--add-config", "node.id=2"),
    alter("brokers", "", "--add-config", "listeners=PLAINTEXT://:1"),
    alter("brokers", "1", "--add-config", "log.retention.ms=abc"),
    alter("brokers", "1", "--add-config", "log.retention.ms=0"),
    alter("brokers", "", "--add-config", "log.segment.bytes=1"),
    alter("brokers", "1", "--add-config", "ssl.keystore.location=x"),
    alter("brokers", "2", "--add-config", "log.retention.ms=1"),
    alter("brokers", "1", "--delete-config", "log.retention.ms"),
    alter("brokers", "1", "--delete-config", "log.retention.ms"),
    described("brokers", "1"),
    described("brokers", "2"),
    described("brokers", "1", "--all", unordered=True, masks=OWN, differs=NOT_KNOWN),
    configs("--describe", "--entity-type", "brokers", unordered=True),
    configs("--describe", "--broker", "1"),
    configs("--describe", "--broker-defaults", unordered=True),
    alter("brokers", "1", "--add-config-file", "{folder}/broker.properties",
          files={"broker.properties": "log.cleaner.threads=2\nlog.retention.bytes=1000000\n"}),
    described("brokers", "1"),
    alter("brokers", "1", "--delete-config", "log.cleaner.threads,log.retention.bytes"),
    alter("brokers", "", "--delete-config", "message.max.bytes,max.connections.per.ip"),
    alter("brokers", "", "--delete-config", "message.max.bytes"),
    alter("brokers", "", "--add-config", "no.such.key=1"),
    alter("brokers", "1", "--add-config", "message.max.bytes=-1"),
    alter("brokers", "1", "--add-config", "num.io.threads=0"),
    alter("brokers", "x", "--add-config", "message.max.bytes=1000"),
    described("brokers", "x"),
    described("brokers", ""),
    configs("--describe", "--entity-type", "broker-loggers", "--entity-name", "2"),
])


GROUP_CONFIG_STORY = Story("kafka-configs of groups and client metrics", [
    alter("groups", "g", "--add-config", "consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000"),
    described("groups", "g", unordered=True),
    described("groups", "g", "--all", unordered=True),
    alter("groups", "g", "--add-config", "consumer.session.timeout.ms=1"),
    alter("groups", "g", "--add-config", "consumer.session.timeout.ms=x"),
    alter("groups", "g", "--add-config", "no.such.key=1"),
    configs("--describe", "--entity-type", "groups", unordered=True),
    alter("groups", "g", "--delete-config", "consumer.session.timeout.ms,consumer.heartbeat.interval.ms"),
    described("groups", "g"),
    configs("--describe", "--group", "g"),
    configs("--alter", "--group", "g", "--add-config", "share.auto.offset.reset=earliest,streams.num.standby.replicas=1"),
    alter("groups", "g", "--add-config", "share.auto.offset.reset=never"),
    alter("groups", "g", "--add-config", "consumer.heartbeat.interval.ms=60000"),
    alter("groups", "g", "--add-config", "share.isolation.level=dirty"),
    alter("groups", "g", "--delete-config", "share.auto.offset.reset"),
    alter("groups", "g", "--delete-config", "no.such.key"),
    alter("groups", "", "--add-config", "consumer.session.timeout.ms=50000"),
    described("groups", "g", unordered=True),
    described("groups", "nowhere"),
    described("groups", "nowhere", "--all", unordered=True),
    alter("client-metrics", "m", "--add-config", "interval.ms=1000,metrics=[a.,b.],match=[client_id=a.*]"),
    described("client-metrics", "m", unordered=True),
    alter("client-metrics", "m", "--add-config", "interval.ms=1"),
    alter("client-metrics", "m", "--add-config", "match=nonsense"),
    tool(METRICS, "--list"),
    tool(METRICS, "--describe", "--name", "m", unordered=True),
    tool(METRICS, "--delete", "--name", "m"),
    tool(METRICS, "--list"),
])

QUOTA_STORY = Story("kafka-configs of users", [
    configs("--describe", "--entity-type", "users"),
    configs("--describe", "--entity-type", "users", "--entity-name", "alice"),
    configs("--describe", "--entity-type", "clients"),
    configs("--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config", "nonsense=1"),
    configs("--alter", "--entity-type", "users", "--entity-name", "alice", "--delete-config", "consumer_byte_rate"),
    configs("--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config", "consumer_byte_rate=x"),
    configs("--alter", "--entity-type", "users", "--entity-name", "alice", "--add-config", "consumer_byte_rate=1000",
            differs=Differs("quotas are not served", ".")),
    configs("--describe", "--entity-type", "ips", "--entity-name", "nowhere.invalid"),
    configs("--describe", "--entity-type", "users", "--entity-type", "clients"),
    configs("--describe", "--user-defaults"),
    configs("--describe", "--client", "c"),
])

NOT_SERVED = Differs("features of what is not served are not told",
                     r"Feature: (eligible\.leader\.replicas|group|kraft|share|streams|transaction)\.version")

FEATURE_STORY = Story("kafka-features", [
    tool(FEATURES, "describe", unordered=True, differs=NOT_SERVED, masks=[(r"Epoch: \d+", "Epoch: N")]),
    tool(FEATURES, "upgrade", "--feature", "metadata.version=30"),
    tool(FEATURES, "upgrade", "--feature", "metadata.version=99"),
    tool(FEATURES, "upgrade", "--feature", "nonsense=1"),
    tool(FEATURES, "downgrade", "--feature", "metadata.version=7"),
    tool(FEATURES, "downgrade", "--dry-run", "--feature", "metadata.version=29"),
    tool(FEATURES, "disable", "--feature", "nonsense"),
    tool(FEATURES, "disable", "--feature", "metadata.version"),
    tool(FEATURES, "disable"),
    tool(FEATURES, "upgrade"),
    tool(FEATURES, "upgrade", "--dry-run", "--feature", "metadata.version=30"),
    tool(FEATURES, "upgrade", "--feature", "metadata.version=30", "--release-version", "4.3-IV0"),
    tool(FEATURES, "upgrade", "--release-version", "nonsense"),
    tool(FEATURES, "upgrade", "--feature", "metadata.version"),
    tool(FEATURES, "upgrade", "--feature", "metadata.version=30", "--feature", "nonsense=1"),
    tool(FEATURES, "downgrade", "--feature", "metadata.version=99"),
    tool(FEATURES, "downgrade", "--unsafe", "--feature", "metadata.version=7"),
    tool(FEATURES, "downgrade", "--release-version", "3.0-IV1"),
    tool(FEATURES, "downgrade", "--feature", "nonsense=0"),
    tool(FEATURES, "nonsense"),
    tool(FEATURES, "version-mapping", "--release-version", "4.0"),
    tool(FEATURES, "version-mapping", "--release-version", "9.9"),
    tool(FEATURES, "feature-dependencies", "--feature", "nonsense=1"),
    tool(FEATURES, "feature-dependencies", "--feature", "transaction.version=2"),
    tool(FEATURES, "version-mapping"),
    tool(FEATURES, "feature-dependencies", "--feature", "metadata.version=30"),
])

NUMBERS = [(r"(LeaderEpoch|HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs):(\s+)\d+", r"\1:\2N"),
           (r"^(\d+\t+\s*\S*\s*)\d+(\s+\d+\s+).*(Leader|Follower|Observer)", r"\1N\2\3")]

REPLICA = [(r"^(1\s+\S+)\s+\d+\s+(\d+)\s+\S.*Leader.*", r"\1 N \2 Leader")]

QUORUM_STORY = Story("kafka-metadata-quorum", [
    tool(QUORUM, "describe", "--status", masks=NUMBERS,
         differs=Differs("clients' listeners take what is for the controller", r"^CurrentVoters:")),
    tool(QUORUM, "describe", "--replication",
         masks=REPLICA),
    tool(QUORUM, "describe", "--replication", "--human-readable", masks=REPLICA),
    tool(QUORUM, "describe", "--status", "--replication"),
    tool(QUORUM, "describe", "--status", "--human-readable"),
    tool(QUORUM, "describe"),
    tool(QUORUM, "nonsense"),
    Step(QUORUM, ["describe", "--status"]),
])

CLUSTER_STORY = Story("kafka-cluster, kafka-leader-election and others", [
    cluster("cluster-id"),
    cluster("unregister", "--id", "7"),
    cluster("list-endpoints", masks=[(r"127\.0\.0\.1\s+\d+", "HOST PORT")]),
    cluster("list-endpoints", "--include-fenced-brokers", masks=[(r"127\.0\.0\.1\s+\d+", "HOST PORT")]),
    # This tool ends its JVM when it does not understand.
    cluster("unregister", alone=True),
    cluster("unregister", "--id", "x", alone=True),
    cluster("unregister", "--id", "-1"),
    cluster("nonsense", alone=True),
    Step(CLUSTER, ["cluster-id"], alone=True),
    created("t", "--partitions", "2"),
    tool(ELECTION, "--election-type", "preferred", "--all-topic-partitions"),
    tool(ELECTION, "--election-type", "unclean", "--all-topic-partitions"),
    tool(ELECTION, "--election-type", "preferred", "--topic", "t", "--partition", "0"),
    tool(ELECTION, "--election-type", "preferred", "--topic", "t", "--partition", "9"),
    tool(ELECTION, "--election-type", "unclean", "--topic", "nowhere", "--partition", "0"),
    tool(ELECTION, "--election-type", "preferred", "--path-to-json-file", "{folder}/elect.json",
         files={"elect.json": '{"partitions": [{"topic": "t", "partition": 1}, {"topic": "t", "partition": 0}]}'},
         unordered=True),
    tool(ELECTION, "--election-type", "unclean", "--path-to-json-file", "{folder}/elect.json", unordered=True),
    tool(ELECTION, "--election-type", "preferred", "--path-to-json-file", "{folder}/twice.json",
         files={"twice.json": '{"partitions": [{"topic": "t", "partition": 1}, {"topic": "t", "partition": 1}]}'}),
    tool(ELECTION, "--election-type", "preferred", "--path-to-json-file", "{folder}/broken.json",
         files={"broken.json": '{"partitions": ['}),
    tool(ELECTION, "--election-type", "preferred", "--path-to-json-file", "{folder}/missing.json"),
    tool(ELECTION, "--election-type", "nonsense", "--all-topic-partitions"),
    tool(ELECTION, "--election-type", "preferred", "--topic", "t"),
    tool(ELECTION, "--election-type", "preferred", "--topic", "t", "--partition", "0", "--all-topic-partitions"),
    tool(ELECTION, "--all-topic-partitions"),
    tool(ELECTION, "--election-type", "preferred"),
    tool(REASSIGN, "--list"),
    tool(REASSIGN, "--generate", "--topics-to-move-json-file", "{folder}/topics.json", "--broker-list", "1",
         files={"topics.json": '{"topics": [{"topic": "t"}], "version": 1}'}),
    tool(REASSIGN, "--execute", "--reassignment-json-file", "{folder}/plan.json",
         files={"plan.json": '{"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [1]}]}'}),
    tool(REASSIGN, "--verify", "--reassignment-json-file", "{folder}/plan.json"),
    tool(REASSIGN, "--cancel", "--reassignment-json-file", "{folder}/plan.json"),
    tool(REASSIGN, "--execute", "--reassignment-json-file", "{folder}/wrong.json",
         files={"wrong.json": '{"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [2]}]}'}),
    tool(ACLS, "--list"),
    tool(ACLS, "--add", "--allow-principal", "User:a", "--operation", "read", "--topic", "t"),
    tool(ACLS, "--remove", "--force", "--allow-principal", "User:a", "--operation", "read", "--topic", "t"),
    # Versions and APIs are docs/PROTOCOL.md's; what is told of the node has to be the same.
    tool(VERSIONS, differs=Differs("not every API and version is served yet", r"^\t\w+\(\d+\): ")),
])

STORIES = [TOPIC_STORY, TOPIC_CONFIG_STORY, BROKER_CONFIG_STORY, GROUP_CONFIG_STORY, QUOTA_STORY, FEATURE_STORY,
           QUORUM_STORY, CLUSTER_STORY]
