"""Records that go: kafka-delete-records, retention as kafka-get-offsets sees it, and kafka-log-dirs."""

import json

from steps import Step, Story, tool

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
DELETE = "org.apache.kafka.tools.DeleteRecordsCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"


def created(name, *arguments):
    """A topic, made."""
    return tool(TOPICS, "--create", "--topic", name, "--partitions", "1", "--replication-factor", "1", *arguments)


def produced(topic, *values):
    """Records, sent."""
    return tool(PRODUCER, "--topic", topic, stdin="".join(f"{value}\n" for value in values))


def consumed(topic, count):
    """So many records from where the topic starts."""
    return tool(CONSUMER, "--topic", topic, "--from-beginning", "--max-messages", str(count), "--timeout-ms", "20000")


def deleted(*places, version=1, **more):
    """kafka-delete-records of (topic, partition, offset)."""
    asked = [{"topic": topic, "partition": partition, "offset": offset} for topic, partition, offset in places]
    text = json.dumps({"partitions": asked, "version": version})
    return tool(DELETE, "--offset-json-file", "{folder}/delete.json", files={"delete.json": text}, unordered=True, **more)


def offsets(topic, time, **more):
    """kafka-get-offsets."""
    return tool(OFFSETS, "--topic", topic, "--time", time, **more)


def log_dirs(*arguments):
    """kafka-log-dirs; paths and sizes are each broker's own."""
    masks = [(r'"logDir":"[^"]*"', '"logDir":"PATH"'), (r'"size":[1-9]\d*', '"size":BYTES'),
             (r'"(total|usable)Bytes":\d+', r'"\1Bytes":BYTES')]
    return tool(LOG_DIRS, "--describe", *arguments, masks=masks)


def altered(topic, *arguments):
    """kafka-configs --alter of a topic."""
    return tool(CONFIGS, "--alter", "--entity-type", "topics", "--entity-name", topic, *arguments)


DELETE_STORY = Story("kafka-delete-records step by step", [
    created("cut"),
    produced("cut", *"abcdef"),
    offsets("cut", "earliest"),
    deleted(("cut", 0, 2)),
    offsets("cut", "earliest"),
    offsets("cut", "latest"),
    consumed("cut", 4),
    # Further back than the log starts: it stays where it is.
    deleted(("cut", 0, 1)),
    deleted(("cut", 0, 99)),
    deleted(("cut", 0, -2)),
    offsets("cut", "earliest"),
    created("kept", "--config", "cleanup.policy=compact"),
    deleted(("kept", 0, 0)),
    created("both", "--config", "cleanup.policy=compact,delete"),
    deleted(("both", 0, 0), ("cut", 0, -1)),
    offsets("cut", "earliest"),
    produced("cut", "g"),
    consumed("cut", 1),
    deleted(("cut", 0, 1), ("cut", 0, 2)),
    deleted(("cut", 0, 1), version=2),
    tool(DELETE, "--offset-json-file", "{folder}/no-such.json"),
    Step(DELETE, ["--bootstrap-server", "{bootstrap}"]),
])

RETENTION_STORY = Story("retention as kafka-get-offsets sees it", [
    created("short", "--config", "retention.ms=1000"),
    created("long"),
    produced("short", *"abc"),
    produced("long", *"abc"),
    offsets("short", "earliest", until=r"short:0:3"),
    offsets("short", "latest"),
    offsets("long", "earliest"),
    altered("long", "--add-config", "retention.ms=1000"),
    offsets("long", "earliest", until=r"long:0:3"),
    altered("long", "--delete-config", "retention.ms"),
    produced("long", "d"),
    offsets("long", "earliest"),
    offsets("long", "latest"),
    consumed("long", 1),
], properties={"log.retention.check.interval.ms": "500", "log.initial.task.delay.ms": "500"})

LOG_DIRS_STORY = Story("kafka-log-dirs of several topics", [
    created("sized"),
    created("empty"),
    produced("sized", *"abc"),
    log_dirs("--topic-list", "sized"),
    log_dirs("--topic-list", "sized,empty"),
    log_dirs("--broker-list", "1", "--topic-list", "empty"),
    log_dirs("--topic-list", "nowhere"),
    log_dirs("--broker-list", "9", "--topic-list", "sized"),
    tool(LOG_DIRS, "--topic-list", "sized"),
])

STORIES = [DELETE_STORY, RETENTION_STORY, LOG_DIRS_STORY]
