"""A cluster of three with two log directories each: moves between them, held on their way, cancelled and to others."""

import json

from steps import Story, node, tool
from stories.administration import REASSIGN, described, topics
from stories.cluster import all_there, elect, in_sync, plan, reassign
from stories.cluster_moves import SLOW, throttles
from stories.data import LOG_DIRS, consume, produce, reader, shown

# At a byte a second a copy takes one fetch and then stands, however slow the machine.
CRAWL, RUSH = "1", "1000000000"
# Many times what a copy takes at once.
RECORDS, RECORD_BYTES = 120, 80_000
# Which of two empty directories a replica comes to is the broker's own affair.
CHOSEN = [(r'/(data|more)"', '/CHOSEN"')]
COPY_BEGUN = r'"size":[1-9]\d*,"offsetLag":[1-9]\d*,"isFuture":true'
GONE = r'(?s)^(?!.*"d-0").*"brokers"'
NOT_MOVING = r"(?s)is completed(?!.*progress)"


def filled(topic):
    """Numbered keys with large values, written to a topic."""
    lines = "".join(f"{number}:{'v' * RECORD_BYTES}\n" for number in range(RECORDS))
    return produce(topic, lines, *reader("parse.key=true", "key.separator=:"))


def whole(topic):
    """All keys of a topic with their offsets."""
    return consume("--topic", topic, "--partition", "0", "--offset", "earliest", "--max-messages", str(RECORDS),
                   *shown("print.key=true", "print.value=false", "print.offset=true"))


def in_order(found):
    """What kafka-log-dirs says, without the order of a hash map, and without sizes."""
    told = json.loads(found[0])
    for one in told["brokers"]:
        one["logDirs"].sort(key=lambda directory: directory["logDir"])
        for partition in [partition for directory in one["logDirs"] for partition in directory["partitions"]]:
            partition["size"] = "BYTES"
            partition["offsetLag"] = "SOME" if partition["offsetLag"] else 0
    return json.dumps(told)


def directories(broker, topic, **more):
    """kafka-log-dirs of one topic on one broker."""
    return tool(LOG_DIRS, "--describe", "--broker-list", broker, "--topic-list", topic, masks=[(r"^\{.*", in_order)],
                **more)


DIRECTORY_STORY = Story("cluster of three: moves between directories", [
    all_there(),
    topics("--create", "--topic", "d", "--replica-assignment", "1:2"),
    filled("d"),
    reassign("--execute", "data.json", masks=CHOSEN, files={"data.json": plan(("d", 0, [1, 2], ["data", "data"]))}),
    reassign("--verify", "data.json", until=NOT_MOVING),
    directories("1", "d"),
    directories("2", "d"),
    # Nothing moves by this. The rate is there before anything does.
    reassign("--execute", "data.json", "--replica-alter-log-dirs-throttle", CRAWL),
    described("brokers", "2", until="second=1 "),
    reassign("--execute", "more.json", "--replica-alter-log-dirs-throttle", CRAWL,
             files={"more.json": plan(("d", 0, [1, 2], ["data", "more"]))}),
    reassign("--verify", "more.json"),
    directories("2", "d", until=COPY_BEGUN),
    *throttles("d"),
    tool(REASSIGN, "--list"),
    reassign("--cancel", "more.json", "--preserve-throttles"),
    reassign("--verify", "more.json", "--preserve-throttles"),
    directories("2", "d"),
    reassign("--execute", "more.json", "--replica-alter-log-dirs-throttle", CRAWL),
    directories("2", "d", until=COPY_BEGUN),
    # A crash in the middle: the move is still on its way afterwards.
    node("kill", 2),
    in_sync("d", 1),
    node("start", 2),
    all_there(),
    in_sync("d", 2),
    directories("2", "d", until=COPY_BEGUN),
    reassign("--execute", "more.json", "--replica-alter-log-dirs-throttle", RUSH),
    reassign("--verify", "more.json", until=NOT_MOVING),
    *throttles("d"),
    directories("2", "d"),
    reassign("--execute", "away.json", "--throttle", RUSH, "--replica-alter-log-dirs-throttle", RUSH,
             files={"away.json": plan(("d", 0, [3, 1], ["more", "data"]))}),
    reassign("--verify", "away.json", until=NOT_MOVING),
    *throttles("d"),
    directories("1", "d"),
    directories("2", "d", until=GONE),
    directories("3", "d"),
    reassign("--execute", "nowhere.json", "--timeout", "3000",
             files={"nowhere.json": plan(("d", 0, [3, 1], ["nowhere", "any"]))}),
    node("stop", 3),
    node("start", 3),
    in_sync("d", 2),
    elect("preferred", "--topic", "d", "--partition", "0"),
    directories("3", "d"),
    whole("d"),
], SLOW | {"log.dirs": "{folder}/data,{folder}/more"}, nodes=3)

STORIES = [DIRECTORY_STORY]
