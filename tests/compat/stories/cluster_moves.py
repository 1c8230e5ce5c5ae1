"""A cluster of three whose replicas move: throttled, cancelled on their way, between racks and between directories."""

from steps import Differs, Story, tool
from stories.administration import REASSIGN, described, topics
from stories.cluster import DEFAULTS, QUICK, all_there, in_sync, plan, reassign
from stories.data import FIGURES, PRODUCER_PERF, offsets

# A fetch brings little, so that a small rate is kept and a move stands still for as long as the steps take.
SLOW = DEFAULTS | QUICK | {"replica.fetch.max.bytes": "65536"}
MOVE = {"move.json": plan(("r", 0, [3, 1]))}
OTHER = {"other.json": plan(("s", 0, [3, 1]))}
BOTH = {"both.json": plan(("r", 0, [3, 1]), ("s", 0, [3, 1]))}
RATES = Differs("Kafka knows no default of a throttle's rate, so it lists none beside the value", r"throttled\.rate=")
ORDER = Differs("Kafka sorts the replicas that go, so a cancel leaves them in that order", r"Partition: 0")


def filled(topic):
    """Four megabytes in a topic."""
    return tool(PRODUCER_PERF, "--topic", topic, "--num-records", "4000", "--record-size", "1000", "--throughput", "-1",
                "--reporting-interval", "600000", masks=FIGURES)


def throttles(rates=None):
    """What the topics and the brokers are told of throttles."""
    return [described("topics", "r"), described("topics", "s"),
            *(described("brokers", number, differs=rates) for number in ("1", "2", "3"))]


THROTTLE_STORY = Story("cluster of three: kafka-reassign-partitions with throttles and a cancel", [
    all_there(),
    topics("--create", "--topic", "r", "--replica-assignment", "1:2"),
    topics("--create", "--topic", "s", "--replica-assignment", "2:3"),
    filled("r"),
    filled("s"),
    reassign("--execute", "move.json", "--throttle", "1000", files=MOVE),
    tool(REASSIGN, "--list"),
    topics("--describe", "--topic", "r"),
    *throttles(RATES),
    reassign("--verify", "move.json"),
    reassign("--execute", "other.json", "--throttle", "2000", files=OTHER),
    reassign("--execute", "move.json", "--additional", "--throttle", "2000"),
    reassign("--execute", "other.json", "--additional", "--throttle", "2000"),
    tool(REASSIGN, "--list"),
    topics("--describe", "--topic", "s"),
    *throttles(RATES),
    reassign("--verify", "other.json"),
    reassign("--verify", "both.json", "--preserve-throttles", files=BOTH),
    reassign("--cancel", "both.json", "--preserve-throttles"),
    tool(REASSIGN, "--list"),
    in_sync("r", 2),
    reassign("--cancel", "both.json", "--preserve-throttles"),
    reassign("--verify", "both.json", "--preserve-throttles"),
    *throttles(RATES),
    reassign("--execute", "both.json", "--throttle", "100000000"),
    reassign("--verify", "both.json", until=r"(?s)is completed.*is completed"),
    *throttles(),
    tool(REASSIGN, "--list"),
    topics("--describe", "--topic", "r"),
    topics("--describe", "--topic", "s"),
    offsets("--topic-partitions", "r:0,s:0"),
    reassign("--execute", "back.json", "--throttle", "1000",
             files={"back.json": plan(("r", 0, [2]), ("s", 0, [2]))}),
    reassign("--cancel", "back.json"),
    *throttles(),
    topics("--describe", "--topic", "r", differs=ORDER),
    offsets("--topic-partitions", "r:0,s:0"),
], SLOW, nodes=3)

STORIES = [THROTTLE_STORY]
