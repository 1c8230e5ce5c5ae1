"""A cluster of three whose replicas move: throttled, cancelled on their way, and over racks."""

from steps import Differs, Story, tool
from stories.administration import REASSIGN, cluster, described, topics
from stories.cluster import ALL_SERVE, DEFAULTS, ENDPOINTS, QUICK, all_there, in_sync, plan, reassign
from stories.data import FIGURES, PRODUCER_PERF, offsets

# A fetch brings little, so that a small rate is kept and a move stands still for as long as the steps take.
SLOW = DEFAULTS | QUICK | {"replica.fetch.max.bytes": "65536"}
MOVE = {"move.json": plan(("r", 0, [3, 1]))}
OTHER = {"other.json": plan(("s", 0, [3, 1]))}
BOTH = {"both.json": plan(("r", 0, [3, 1]), ("s", 0, [3, 1]))}
ORDER = Differs("Kafka sorts the replicas that go, so a cancel leaves them in that order", r"Partition: 0")


def filled(topic):
    """Four megabytes in a topic."""
    return tool(PRODUCER_PERF, "--topic", topic, "--num-records", "4000", "--record-size", "1000", "--throughput", "-1",
                "--reporting-interval", "600000", masks=FIGURES)


def throttles(*names):
    """What the topics and the brokers are told of throttles."""
    return [*(described("topics", name) for name in names), *(described("brokers", number) for number in "123")]


THROTTLE_STORY = Story("cluster of three: kafka-reassign-partitions with throttles and a cancel", [
    all_there(),
    topics("--create", "--topic", "r", "--replica-assignment", "1:2"),
    topics("--create", "--topic", "s", "--replica-assignment", "2:3"),
    filled("r"),
    filled("s"),
    reassign("--execute", "move.json", "--throttle", "1000", files=MOVE),
    tool(REASSIGN, "--list"),
    topics("--describe", "--topic", "r"),
    *throttles("r", "s"),
    reassign("--verify", "move.json"),
    reassign("--execute", "other.json", "--throttle", "2000", files=OTHER),
    reassign("--execute", "move.json", "--additional", "--throttle", "2000"),
    reassign("--execute", "other.json", "--additional", "--throttle", "2000"),
    tool(REASSIGN, "--list"),
    topics("--describe", "--topic", "s"),
    *throttles("r", "s"),
    reassign("--verify", "other.json"),
    reassign("--verify", "both.json", "--preserve-throttles", files=BOTH),
    reassign("--cancel", "both.json", "--preserve-throttles"),
    tool(REASSIGN, "--list"),
    in_sync("r", 2),
    reassign("--cancel", "both.json", "--preserve-throttles"),
    reassign("--verify", "both.json", "--preserve-throttles"),
    *throttles("r", "s"),
    reassign("--execute", "both.json", "--throttle", "100000000"),
    reassign("--verify", "both.json", until=r"(?s)is completed.*is completed"),
    *throttles("r", "s"),
    tool(REASSIGN, "--list"),
    topics("--describe", "--topic", "r"),
    topics("--describe", "--topic", "s"),
    offsets("--topic-partitions", "r:0,s:0"),
    reassign("--execute", "back.json", "--throttle", "1000",
             files={"back.json": plan(("r", 0, [2]), ("s", 0, [2]))}),
    reassign("--cancel", "back.json"),
    *throttles("r", "s"),
    topics("--describe", "--topic", "r", differs=ORDER),
    offsets("--topic-partitions", "r:0,s:0"),
], SLOW, nodes=3)

# Nodes 1 and 2 share a rack. Which of them, and who leads, is a matter of chance; two of one rack stay as they are.
TWO_RACKS = {1: {"broker.rack": "a"}, 2: {"broker.rack": "a"}, 3: {"broker.rack": "b"}}
IN_BOTH = [(r"Leader: \d", "Leader: N"), (r"(Replicas|Isr): ([12],3|3,[12])(?=\s)", r"\1: a,b"),
           (r'("replicas":)\[([12],3|3,[12])\](,"log_dirs":\["any)', r"\1[a,b]\3")]
ANYWHERE = [(r'("replicas":)\[\d,\d\](,"log_dirs":\["any)', r"\1[N]\2")]
# Kafka tells no directory until the broker has told the controller.
DIRECTORIES_TOLD = r'(?m)^(?!.*"any").*"replicas"'


def generated(topic, brokers, *arguments, **more):
    """kafka-reassign-partitions --generate for one topic."""
    return tool(REASSIGN, "--generate", "--topics-to-move-json-file", "{folder}/topics.json", "--broker-list", brokers,
                *arguments, files={"topics.json": f'{{"topics": [{{"topic": "{topic}"}}], "version": 1}}'}, **more)


RACKS_STORY = Story("cluster of three: two racks", [
    cluster("list-endpoints", masks=ENDPOINTS, until=ALL_SERVE),
    topics("--create", "--topic", "spread", "--partitions", "6", "--replication-factor", "2"),
    topics("--describe", "--topic", "spread", masks=IN_BOTH),
    topics("--alter", "--topic", "spread", "--partitions", "9"),
    topics("--describe", "--topic", "spread", masks=IN_BOTH),
    topics("--create", "--topic", "one-rack", "--replica-assignment", "1:2,2:1,1:2"),
    generated("one-rack", "1,2,3", masks=IN_BOTH, until=DIRECTORIES_TOLD),
    generated("one-rack", "1,2,3", "--disable-rack-aware", masks=ANYWHERE),
    generated("one-rack", "2,3", masks=IN_BOTH),
    generated("one-rack", "1,2", masks=ANYWHERE),
    generated("one-rack", "3"),
], DEFAULTS, nodes=3, own=TWO_RACKS)

RACKLESS_STORY = Story("cluster of three: one node without a rack", [
    cluster("list-endpoints", masks=ENDPOINTS, until=ALL_SERVE),
    topics("--create", "--topic", "t", "--replica-assignment", "1:2,2:1"),
    generated("t", "1,2,3"),
    generated("t", "1,2,3", "--disable-rack-aware", masks=ANYWHERE, until=DIRECTORIES_TOLD),
    generated("t", "1,2", masks=ANYWHERE),
    topics("--create", "--topic", "everywhere", "--partitions", "2", "--replication-factor", "3"),
], DEFAULTS, nodes=3, own={1: {"broker.rack": "a"}, 2: {"broker.rack": "b"}})

STORIES = [THROTTLE_STORY, RACKS_STORY, RACKLESS_STORY]
