"""Groups: kafka-consumer-groups, kafka-groups and kafka-streams-application-reset, with members and without."""

from steps import Step, Story, end, start, tool
from stories.data import GROUPS, consume, created, dated, offsets, produce, reader

CONSUMER_GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
ALL_GROUPS = "org.apache.kafka.tools.GroupsCommand"
STREAMS = "org.apache.kafka.tools.StreamsResetter"

# Keys go to partitions by their hash, so each partition's end is known.
LETTERS = "".join(f"{letter}:{letter}\n" for letter in "abcdefghijkl")


def groups(*arguments, **more):
    """kafka-consumer-groups; its rows stand in the order of hash maps."""
    return tool(CONSUMER_GROUPS, *arguments, unordered=True, **more)


def described(group, *arguments, **more):
    """kafka-consumer-groups --describe of one group."""
    return groups("--describe", "--group", group, *arguments, **more)


def reset(group, *arguments, **more):
    """kafka-consumer-groups --reset-offsets of one group."""
    return groups("--reset-offsets", "--group", group, *arguments, **more)


def listed(*arguments, **more):
    """kafka-groups --list."""
    return tool(ALL_GROUPS, "--list", *arguments, unordered=True, **more)


def member(name, group, topic, *properties):
    """A console consumer that stays in a group under a client id, and commits often."""
    settings = [f"client.id={name}", "auto.commit.interval.ms=100", *properties]
    return start(name, consume("--topic", topic, "--group", group, "--from-beginning",
                               *(word for one in settings for word in ("--command-property", one))))


def stable(group, members):
    """Waits until a group has settled with so many members."""
    return described(group, "--state", until=rf"Stable\s+{members}\b")


def letters(topic):
    """Twelve records with keys."""
    return produce(topic, LETTERS, *reader("parse.key=true", "key.separator=:"))


# Every partition of the group is read and committed.
CAUGHT_UP = r"(?s)\A(?!.*\s-\s+\d+\s+-\s).*?(\s(\d+)\s+\2\s+0\s.*)+\Z"

MEMBER_STORY = Story("kafka-consumer-groups with members", [
    groups("--list"),
    groups("--describe", "--all-groups"),
    described("nowhere"),
    described("nowhere", "--members"),
    described("nowhere", "--state"),
    created("wide", "3"), created("other"),
    letters("wide"),
    member("m1", "busy", "wide"),
    stable("busy", 1),
    described("busy", until=CAUGHT_UP),
    described("busy", "--offsets", "--verbose"),
    described("busy", "--members"),
    described("busy", "--members", "--verbose"),
    described("busy", "--state"),
    described("busy", "--state", "--verbose"),
    described("busy", "--members", "--state"),
    groups("--list"),
    groups("--list", "--state"),
    groups("--list", "--type"),
    groups("--list", "--state", "--type"),
    groups("--list", "--state", "stable"),
    groups("--list", "--state", "Empty,PreparingRebalance"),
    groups("--list", "--state", "nonsense"),
    groups("--list", "--type", "classic"),
    groups("--list", "--type", "consumer"),
    groups("--list", "--type", "classic,consumer", "--state", "stable,empty"),
    groups("--list", "--type", "nonsense"),
    listed(), listed("--group-type", "classic"), listed("--group-type", "consumer"), listed("--consumer"),
    member("m2", "busy", "wide"),
    stable("busy", 2),
    described("busy", "--members"),
    described("busy", "--members", "--verbose"),
    letters("wide"),
    described("busy", until=CAUGHT_UP),
    reset("busy", "--to-earliest", "--topic", "wide", "--execute"),
    reset("busy", "--to-earliest", "--topic", "wide"),
    groups("--delete", "--group", "busy"),
    groups("--delete-offsets", "--group", "busy", "--topic", "wide"),
    groups("--delete-offsets", "--group", "busy", "--topic", "other"),
    member("s1", "static", "wide", "group.instance.id=one", "partition.assignment.strategy="
           "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"),
    stable("static", 1),
    described("static", "--members", "--verbose"),
    described("static", "--state"),
    groups("--describe", "--all-groups", "--state"),
    groups("--describe", "--all-groups", "--members"),
    end("m2"),
    stable("busy", 1),
    described("busy", "--members", "--verbose"),
    end("m1"),
    described("busy", "--state", until="Empty"),
    described("busy"),
    described("busy", "--members"),
    # A static member that goes keeps its place until its session ends.
    end("s1"),
    described("static", "--state"),
    described("static", "--members", "--verbose"),
    groups("--list", "--state"),
], GROUPS)

PLAN = {"plan.csv": "wide,0,1\nwide,2,2\n"}

RESET_STORY = Story("kafka-consumer-groups resets and deletes", [
    created("wide", "3"), created("dated"), created("empty"),
    letters("wide"),
    dated("dated", "2020"), dated("dated", "2021"), dated("dated", "2022"),
    consume("--topic", "wide", "--group", "g", "--from-beginning", "--max-messages", "12", unordered=True),
    described("g"),
    reset("g", "--to-earliest", "--topic", "wide"),
    reset("g", "--to-earliest", "--topic", "wide", "--dry-run"),
    reset("g", "--to-earliest", "--all-topics", "--execute"),
    described("g"),
    reset("g", "--to-latest", "--topic", "wide:1,2", "--execute"),
    described("g"),
    reset("g", "--to-current", "--topic", "wide", "--execute"),
    reset("g", "--to-offset", "2", "--topic", "wide", "--execute"),
    reset("g", "--to-offset", "99", "--topic", "wide:0", "--execute"),
    reset("g", "--to-offset", "-3", "--topic", "wide:0", "--execute"),
    reset("g", "--shift-by", "-1", "--topic", "wide:1", "--execute"),
    reset("g", "--shift-by", "1", "--topic", "wide", "--execute"),
    reset("g", "--shift-by", "-99", "--topic", "wide:0,1", "--dry-run"),
    reset("g", "--shift-by", "99", "--topic", "wide:0", "--dry-run"),
    reset("g", "--shift-by", "1", "--topic", "dated"),
    reset("g", "--to-current", "--topic", "dated"),
    *(reset("g", "--to-datetime", time, "--topic", "dated") for time in (
        "2020-01-01T00:00:00.000", "2020-07-01T00:00:00.000", "2021-12-31T23:59:59.999", "2021-12-31T23:59:59.999+02:00",
        "2023-01-01T00:00:00.000", "2099-01-01T00:00:00.000", "yesterday")),
    reset("g", "--to-datetime", "2021-01-01T00:00:00.000", "--topic", "dated", "--topic", "wide", "--execute"),
    described("g"),
    reset("g", "--by-duration", "P9999D", "--topic", "dated"),
    reset("g", "--by-duration", "PT0S", "--topic", "dated"),
    reset("g", "--by-duration", "nonsense", "--topic", "dated"),
    reset("g", "--to-earliest", "--topic", "wide", "--export"),
    reset("g", "--to-earliest", "--all-topics", "--export", "--dry-run"),
    reset("g", "--from-file", "{folder}/plan.csv", "--dry-run", files=PLAN),
    reset("g", "--from-file", "{folder}/plan.csv", "--execute"),
    reset("g", "--from-file", "{folder}/broken.csv", "--execute", files={"broken.csv": "wide,x,2\n"}),
    reset("g", "--from-file", "{folder}/missing.csv", "--execute"),
    reset("g", "--from-file", "{folder}/groups.csv", "--group", "h", "--execute",
          files={"groups.csv": "g,wide,0,2\nh,wide,1,1\n"}),
    described("g"), described("h"),
    reset("fresh", "--to-latest", "--topic", "wide", "--execute"),
    described("fresh"),
    reset("fresh", "--to-offset", "0", "--topic", "empty", "--execute"),
    reset("g", "--to-earliest", "--topic", "nowhere", "--execute"),
    reset("g", "--to-earliest", "--topic", "wide:9", "--execute"),
    reset("g", "--to-earliest", "--topic", "wide:x", "--execute"),
    reset("nowhere", "--to-current", "--all-topics"),
    reset("g", "--topic", "wide"),
    reset("g", "--to-earliest", "--to-latest", "--topic", "wide"),
    reset("g", "--to-earliest"),
    reset("g", "--to-earliest", "--topic", "wide", "--execute", "--dry-run"),
    groups("--reset-offsets", "--all-groups", "--to-earliest", "--topic", "wide:0", "--execute"),
    groups("--reset-offsets", "--to-earliest", "--topic", "wide"),
    groups("--list", "--state"),
    groups("--list", "--type"),
    listed(), listed("--protocol", "consumer"), listed("--protocol", ""), listed("--protocol", "x"), listed("--consumer"),
    listed("--share"), listed("--streams"), listed("--group-type", "share"), listed("--group-type", "nonsense"),
    tool(ALL_GROUPS), listed("--share", "--streams"),
    groups("--delete-offsets", "--group", "g", "--topic", "wide:1"),
    groups("--delete-offsets", "--group", "g", "--topic", "wide:1,9"),
    groups("--delete-offsets", "--group", "g", "--topic", "nowhere"),
    groups("--delete-offsets", "--group", "nowhere", "--topic", "wide"),
    groups("--delete-offsets", "--group", "g"),
    described("g"),
    tool("org.apache.kafka.tools.TopicCommand", "--delete", "--topic", "dated"),
    described("g", until=r"\A(?!.*dated)"),
    groups("--delete", "--group", "fresh", "--group", "nowhere"),
    groups("--delete", "--group", "h"),
    groups("--delete", "--group", "h"),
    groups("--delete", "--group", ""),
    described(""),
    groups("--delete"),
    groups("--delete", "--all-groups"),
    groups("--list"),
    groups(),
    groups("--list", "--describe"),
    groups("--describe", "--group", "g", "--all-groups"),
    groups("--list", "--members"),
    # Which of its calls has no time left is chance.
    groups("--describe", "--group", "g", "--timeout", "1", masks=[(r"TimeoutException: .*", "TimeoutException: WORDS")]),
    Step(CONSUMER_GROUPS, ["--validate-regex", "wi.*"]),
    Step(CONSUMER_GROUPS, ["--validate-regex", "wi(.*"]),
], GROUPS)


def streams(*arguments, **more):
    """kafka-streams-application-reset of one application."""
    return tool(STREAMS, "--application-id", "app", *arguments, unordered=True, **more)


STREAM_STORY = Story("kafka-streams-application-reset", [
    created("input", "2"), created("middle"), created("dated"), created("app-store-changelog"),
    created("app-keys-repartition"), created("apple-store-changelog"),
    letters("input"), letters("middle"),
    dated("dated", "2020"), dated("dated", "2021"),
    # Kafka makes the offsets topic first, which takes longer than this tool waits for on a slow machine.
    described("app", until="does not exist"),
    streams("--input-topics", "input", "--dry-run"),
    member("m1", "app", "input"),
    stable("app", 1),
    described("app", until=CAUGHT_UP),
    streams("--input-topics", "input"),
    end("m1"),
    described("app", "--state", until="Empty"),
    streams("--input-topics", "input", "--dry-run"),
    described("app"),
    streams("--input-topics", "input,dated", "--to-offset", "2"),
    described("app"),
    streams("--input-topics", "input", "--to-latest"),
    streams("--input-topics", "input", "--shift-by", "-2"),
    streams("--input-topics", "input", "--shift-by", "-99"),
    streams("--input-topics", "input", "--to-offset", "99"),
    streams("--input-topics", "dated", "--to-datetime", "2021-01-01T00:00:00.000"),
    streams("--input-topics", "dated", "--to-datetime", "2099-01-01T00:00:00.000"),
    streams("--input-topics", "dated", "--to-datetime", "yesterday"),
    streams("--input-topics", "dated", "--by-duration", "P9999D"),
    streams("--input-topics", "input", "--from-file", "{folder}/plan.csv", files={"plan.csv": "input,0,1\ninput,1,2\n"}),
    streams("--input-topics", "input", "--from-file", "{folder}/broken.csv", files={"broken.csv": "input,0\n"}),
    streams("--intermediate-topics", "middle"),
    streams("--input-topics", "nowhere"),
    streams("--internal-topics", "input"),
    described("app"),
    tool("org.apache.kafka.tools.TopicCommand", "--list", "--exclude-internal"),
    created("app-one-changelog"), created("app-two-changelog"),
    streams("--internal-topics", "app-one-changelog"),
    tool("org.apache.kafka.tools.TopicCommand", "--list", "--exclude-internal"),
    streams(),
    tool("org.apache.kafka.tools.TopicCommand", "--list", "--exclude-internal"),
    member("m2", "app", "input", "session.timeout.ms=45000"),
    stable("app", 1),
    streams("--input-topics", "input", "--force", "--dry-run"),
    end("m2"),
    tool(STREAMS, "--input-topics", "input"),
    offsets("--topic", "input"),
], GROUPS)

STORIES = [MEMBER_STORY, RESET_STORY, STREAM_STORY]
