"""A cluster of three: replicas, elections, reassignments, the quorum, nodes that come and go."""

import json

from steps import Differs, Step, Story, node, tool
from stories.administration import CLUSTER, ELECTION, QUORUM, REASSIGN, cluster, topics
from stories.data import LOG_DIRS

QUICK = {"broker.session.timeout.ms": "6000", "broker.heartbeat.interval.ms": "500"}
DEFAULTS = {"offsets.topic.replication.factor": "3", "auto.leader.rebalance.enable": "false"}
# Where a topic's replicas are is a matter of chance unless they are given.
PLACED = [(r"Leader: \d", "Leader: N"), (r"(Replicas|Isr): [\d,]+", r"\1: N")]
ENDPOINTS = [(r"127\.0\.0\.1\s+\d+", "HOST PORT")]
ALL_SERVE = r"(?s)\n1 .*unfenced.*\n2 .*unfenced.*\n3 .*unfenced"
NUMBERS = [(r"(LeaderEpoch|HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs|LeaderId):(\s+)-?\d+", r"\1:\2N"),
           (r"^\d(\s+\S+)\s+.*(Leader|Follower|Observer).*", r"N\1 \2")]


WORDS = Differs("Kafka lists all voters, in the order of a hash map", "VoterNotFoundException")


def all_there():
    """Waits until all three brokers serve."""
    return cluster("list-endpoints", masks=ENDPOINTS, until=ALL_SERVE)


def in_sync(topic, count):
    """Waits until every partition of a topic has so many replicas in sync."""
    other = rf"\bIsr: (?!\d(,\d){{{count - 1}}}(\s|$))"
    return topics("--describe", "--topic", topic, until=rf"(?s)^(?!.*{other}).*\bIsr: ")


def elect(kind, *arguments, **more):
    """kafka-leader-election."""
    return tool(ELECTION, "--election-type", kind, *arguments, **more)


def reassign(what, plan, *arguments, files=None, **more):
    """kafka-reassign-partitions with a plan."""
    return tool(REASSIGN, what, "--reassignment-json-file", "{folder}/" + plan, *arguments, files=files or {}, **more)


def plan(*partitions):
    """A reassignment: topic, partition and replicas of each, and the directory of each replica where that is told."""
    entries = []
    for topic, partition, replicas, *directories in partitions:
        entry = {"topic": topic, "partition": partition, "replicas": replicas}
        for names in directories:
            entry["log_dirs"] = [name if name == "any" else f"{{folder}}/node-{replica}/{name}"
                                 for replica, name in zip(replicas, names)]
        entries.append(entry)
    return json.dumps({"version": 1, "partitions": entries})


TOPICS_STORY = Story("cluster of three: topics and elections", [
    all_there(),
    topics("--create", "--topic", "spread", "--partitions", "6", "--replication-factor", "3"),
    topics("--describe", "--topic", "spread", masks=PLACED),
    topics("--create", "--topic", "wide", "--partitions", "1", "--replication-factor", "4"),
    topics("--create", "--topic", "t", "--replica-assignment", "1:2:3,2:3:1,3:1:2", "--config", "min.insync.replicas=2"),
    topics("--create", "--topic", "wrong", "--replica-assignment", "1:2:7"),
    topics("--create", "--topic", "wrong", "--replica-assignment", "1:2,3"),
    topics("--describe", "--topic", "t"),
    topics("--describe", "--under-replicated-partitions"),
    elect("preferred", "--all-topic-partitions"),
    node("stop", 1),
    in_sync("t", 2),
    topics("--describe", "--topic", "t", "--under-replicated-partitions"),
    topics("--describe", "--topic", "t", "--at-min-isr-partitions"),
    topics("--describe", "--topic", "t", "--under-min-isr-partitions"),
    topics("--describe", "--topic", "t", "--unavailable-partitions"),
    elect("preferred", "--topic", "t", "--partition", "0"),
    elect("preferred", "--topic", "t", "--partition", "1"),
    elect("unclean", "--topic", "t", "--partition", "0"),
    cluster("list-endpoints", masks=ENDPOINTS),
    cluster("list-endpoints", "--include-fenced-brokers", masks=ENDPOINTS),
    node("start", 1),
    in_sync("t", 3),
    elect("preferred", "--topic", "t", "--partition", "0"),
    topics("--describe", "--topic", "t"),
    elect("preferred", "--path-to-json-file", "{folder}/elect.json",
          files={"elect.json": '{"partitions": [{"topic": "t", "partition": 1}, {"topic": "t", "partition": 0}]}'},
          unordered=True),
    topics("--alter", "--topic", "t", "--partitions", "5", "--replica-assignment", "1:2:3,2:3:1,3:1:2,1:3:2,2:1:3"),
    in_sync("t", 3),
    topics("--delete", "--topic", "t"),
    topics("--list"),
], DEFAULTS | QUICK, nodes=3)

REASSIGN_STORY = Story("cluster of three: kafka-reassign-partitions", [
    all_there(),
    topics("--create", "--topic", "r", "--replica-assignment", "1:2,2:3"),
    # Kafka tells no directory until the broker has told the controller.
    tool(REASSIGN, "--generate", "--topics-to-move-json-file", "{folder}/topics.json", "--broker-list", "1,2,3",
         until=r'assignment\n(?!.*"any").*\n',
         files={"topics.json": '{"topics": [{"topic": "r"}], "version": 1}'},
         masks=[(r'("replicas":)\[[\d,]+\](,"log_dirs":\["any)', r"\1[N]\2")]),
    reassign("--execute", "move.json", files={"move.json": plan(("r", 0, [3, 1]))}),
    reassign("--verify", "move.json", until="is completed"),
    topics("--describe", "--topic", "r"),
    reassign("--execute", "more.json", files={"more.json": plan(("r", 0, [3, 1, 2]), ("r", 1, [2, 3, 1]))}),
    reassign("--verify", "more.json", until=r"(?s)is completed.*is completed"),
    in_sync("r", 3),
    reassign("--execute", "fewer.json", files={"fewer.json": plan(("r", 0, [1]), ("r", 1, [2]))}),
    reassign("--verify", "fewer.json", until=r"(?s)is completed.*is completed"),
    topics("--describe", "--topic", "r", until=r"Isr: 1\s(?s:.*)Isr: 2\s"),
    reassign("--execute", "wrong.json", files={"wrong.json": plan(("r", 0, [1, 7]))}),
    reassign("--execute", "twice.json", files={"twice.json": plan(("r", 0, [1, 1]))}),
    reassign("--execute", "none.json", files={"none.json": plan(("r", 5, [1, 2]))}),
    reassign("--cancel", "move.json"),
], DEFAULTS | QUICK, nodes=3)

QUORUM_STORY = Story("cluster of three: kafka-metadata-quorum", [
    all_there(),
    tool(QUORUM, "describe", "--status", masks=NUMBERS),
    tool(QUORUM, "describe", "--replication", masks=NUMBERS),
    Step(QUORUM, ["--bootstrap-controller", "{controllers}", "describe", "--status"], masks=NUMBERS),
    Step(CLUSTER, ["list-endpoints", "--bootstrap-controller", "{controllers}"], masks=ENDPOINTS),
    Step(CLUSTER, ["cluster-id", "--bootstrap-controller", "{controllers}"]),
    tool(QUORUM, "remove-controller", "--controller-id", "3", "--controller-directory-id", "MvDxzVmcRsaTz33bUuRU6A",
         differs=WORDS),
    tool(QUORUM, "remove-controller", "--controller-id", "7", "--controller-directory-id", "07R5amHmR32VDA6jHkGbTA",
         differs=WORDS),
    tool(QUORUM, "remove-controller", "--controller-id", "3", "--controller-directory-id", "07R5amHmR32VDA6jHkGbTA"),
    tool(QUORUM, "describe", "--status", masks=NUMBERS, until=r'CurrentObservers:\s+\[\{"id": 3'),
    tool(QUORUM, "describe", "--replication", masks=NUMBERS),
    tool(QUORUM, "--command-config", "{folder}/node-3/server.properties", "add-controller", masks=NUMBERS),
    tool(QUORUM, "describe", "--status", masks=NUMBERS, until=r'CurrentVoters:.*"id": 3'),
], DEFAULTS, nodes=3)

NODES_STORY = Story("cluster of three: kafka-cluster and kafka-log-dirs", [
    all_there(),
    cluster("cluster-id"),
    topics("--create", "--topic", "t", "--replica-assignment", "1:2:3,2:3:1"),
    topics("--create", "--topic", "one", "--replica-assignment", "1:2:3"),
    # Partitions and brokers come in the order of a hash map.
    tool(LOG_DIRS, "--describe", "--broker-list", "1,2,3", "--topic-list", "one", until='"one-0".*"one-0".*"one-0"'),
    tool(LOG_DIRS, "--describe", "--broker-list", "2", "--topic-list", "one"),
    tool(LOG_DIRS, "--describe", "--broker-list", "7"),
    cluster("unregister", "--id", "7"),
    node("kill", 3),
    cluster("list-endpoints", masks=ENDPOINTS, until=r"(?s)^(?!.*\n3 )"),
    cluster("list-endpoints", "--include-fenced-brokers", masks=ENDPOINTS),
    in_sync("t", 2),
    cluster("unregister", "--id", "3"),
    cluster("list-endpoints", "--include-fenced-brokers", masks=ENDPOINTS),
    topics("--describe", "--topic", "t"),
    node("start", 3),
    all_there(),
    in_sync("t", 3),
], DEFAULTS | QUICK, nodes=3)

STORIES = [TOPICS_STORY, REASSIGN_STORY, QUORUM_STORY, NODES_STORY]
