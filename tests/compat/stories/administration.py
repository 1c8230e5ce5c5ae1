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
    topics("--alter", "--topic", "orders", "--partitions", "5"),
    topics("--alter", "--topic", "orders", "--partitions", "2"),
    topics("--alter", "--topic", "orders", "--partitions", "5"),
    topics("--alter", "--topic", "nowhere", "--partitions", "5"),
    topics("--delete", "--topic", "a.b"),
    topics("--delete", "--topic", "a.b"),
    topics("--delete", "--if-exists", "--topic", "a.b"),
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
])

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
    tool(FEATURES, "version-mapping"),
    tool(FEATURES, "feature-dependencies", "--feature", "metadata.version=30"),
])

NUMBERS = [(r"(LeaderEpoch|HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs):(\s+)\d+", r"\1:\2N"),
           (r"^(\d+\t+\s*\S*\s*)\d+(\s+\d+\s+).*(Leader|Follower|Observer)", r"\1N\2\3")]

QUORUM_STORY = Story("kafka-metadata-quorum", [
    tool(QUORUM, "describe", "--status", masks=NUMBERS,
         differs=Differs("clients' listeners take what is for the controller", r"^CurrentVoters:")),
    tool(QUORUM, "describe", "--replication",
         masks=[(r"^(1\s+\S+)\s+\d+\s+(\d+)\s+\d+\s+\d+\s+Leader.*", r"\1 N \2 Leader")]),
])

CLUSTER_STORY = Story("kafka-cluster, kafka-leader-election and others", [
    cluster("cluster-id"),
    cluster("unregister", "--id", "7"),
    cluster("list-endpoints", masks=[(r"127\.0\.0\.1\s+\d+", "HOST PORT")]),
    created("t", "--partitions", "2"),
    tool(ELECTION, "--election-type", "preferred", "--all-topic-partitions"),
    tool(ELECTION, "--election-type", "unclean", "--all-topic-partitions"),
    tool(ELECTION, "--election-type", "preferred", "--topic", "t", "--partition", "0"),
    tool(ELECTION, "--election-type", "preferred", "--topic", "t", "--partition", "9"),
    tool(ELECTION, "--election-type", "unclean", "--topic", "nowhere", "--partition", "0"),
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
