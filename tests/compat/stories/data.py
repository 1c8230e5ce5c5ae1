"""Records: the console's tools, offsets, deletions, log directories, the load generators and dump-log."""

from steps import Differs, Step, Story, end, start, stop_broker, tool

TOPICS = "org.apache.kafka.tools.TopicCommand"
PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
DELETE = "org.apache.kafka.tools.DeleteRecordsCommand"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
PRODUCER_PERF = "org.apache.kafka.tools.ProducerPerformance"
CONSUMER_PERF = "org.apache.kafka.tools.ConsumerPerformance"
VERIFIABLE_PRODUCER = "org.apache.kafka.tools.VerifiableProducer"
VERIFIABLE_CONSUMER = "org.apache.kafka.tools.VerifiableConsumer"
LATENCY = "org.apache.kafka.tools.EndToEndLatency"
DUMP = "org.apache.kafka.tools.DumpLogSegments"

# Groups on one partition, without a delay for members that may come.
GROUPS = {"offsets.topic.num.partitions": "1", "group.initial.rebalance.delay.ms": "0"}
FIGURES = [(r"\d+(\.\d+)?", "N"), (r"\bNaN\b", "N"), (r"E-N", "")]
# When records were made: days of 2020, 2021 and 2022, in milliseconds.
DAYS = {"2020": "1590969600000", "2021": "1622505600000", "2022": "1654041600000"}


def topics(*arguments, **more):
    """kafka-topics."""
    return tool(TOPICS, *arguments, **more)


def created(name, partitions="1", *configs):
    """A topic, made."""
    settings = [word for config in configs for word in ("--config", config)]
    return topics("--create", "--topic", name, "--partitions", partitions, "--replication-factor", "1", *settings)


def produce(topic, stdin, *arguments, **more):
    """kafka-console-producer, which is given lines."""
    return tool(PRODUCER, "--topic", topic, *arguments, stdin=stdin, **more)


def consume(*arguments, **more):
    """kafka-console-consumer."""
    return tool(CONSUMER, *arguments, **more)


def reader(*properties):
    """Properties of the console producer's reader."""
    return [word for one in properties for word in ("--reader-property", one)]


def shown(*names):
    """What the console consumer's formatter prints."""
    return [word for name in names for word in ("--formatter-property", name)]


def offsets(*arguments, **more):
    """kafka-get-offsets."""
    return tool(OFFSETS, *arguments, **more)


def verifiable_producer(topic, *arguments, **more):
    """kafka-verifiable-producer, which needs a JVM of its own."""
    masks = [(r'"timestamp":\d+', '"timestamp":N'), (r'"avg_throughput":[\d.E-]+', '"avg_throughput":N')]
    return tool(VERIFIABLE_PRODUCER, "--topic", topic, *arguments, alone=True, masks=masks, **more)


def verifiable_consumer(topic, *arguments, **more):
    """kafka-verifiable-consumer, which needs a JVM of its own. How its records came apart in polls is chance."""
    masks = [(r'"timestamp":\d+', '"timestamp":N'), (r'"(count|minOffset|maxOffset|offset)":\d+', r'"\1":N')]
    return tool(VERIFIABLE_CONSUMER, "--topic", topic, *arguments, alone=True, masks=masks, **more)


def dated(topic, year):
    """Five records of a year, at offsets of their own in each."""
    return verifiable_producer(topic, "--max-messages", "5", "--message-create-time", DAYS[year], "--value-prefix", year)


HEADERS = "trace:1,kind:new\tk1\tv1\nkind:\tk2\tv2\nNULL\tNULL\tNULL\ntrace:2\tk3\tNULL\n"
ALL_SHOWN = shown("print.timestamp=true", "print.key=true", "print.offset=true", "print.partition=true",
                  "print.headers=true", "print.epoch=true")

CONSOLE_STORY = Story("kafka-console-producer and -consumer", [
    created("text"), created("keyed"), created("wide", "3"),
    created("small", "1", "max.message.bytes=200"),
    produce("text", "one\ntwo\nthree\n"),
    produce("text", "four\n", "--sync", "--compression-codec", "zstd"),
    produce("text", "five\n", "--compression-codec", "--request-required-acks", "0"),
    produce("text", "six\n", "--command-property", "linger.ms=5", "--request-required-acks", "1", "--batch-size", "100"),
    produce("text", "seven\n", "--compression-codec", "nonsense"),
    produce("text", "eight\n", "--request-required-acks", "7"),
    produce("bad topic", "x\n", "--max-block-ms", "3000"),
    produce("small", "x" * 300 + "\n", "--sync",
            differs=Differs("the sizes are told, where Kafka's answer has no words", "RecordTooLargeException")),
    produce("keyed", HEADERS, *reader("parse.key=true", "parse.headers=true", "null.marker=NULL")),
    produce("keyed", "no key here\n", *reader("parse.key=true")),
    produce("keyed", "no key here\n", *reader("parse.key=true", "ignore.error=true")),
    produce("keyed", "a=1\nb=2\n", *reader("parse.key=true", "key.separator==")),
    produce("keyed", "x\n", *reader("nonsense")),
    produce("keyed", "bad\tk\tv\n", *reader("parse.key=true", "parse.headers=true")),
    produce("wide", "a:1\nb:2\nc:3\nd:4\n", *reader("parse.key=true", "key.separator=:")),
    consume("--topic", "text", "--from-beginning", "--max-messages", "6"),
    consume("--topic", "text", "--partition", "0", "--offset", "2", "--max-messages", "2"),
    consume("--topic", "text", "--partition", "0", "--offset", "earliest", "--max-messages", "1"),
    consume("--topic", "text", "--partition", "0", "--offset", "latest", "--timeout-ms", "1500"),
    consume("--topic", "text", "--partition", "0", "--offset", "99", "--timeout-ms", "1500"),
    consume("--topic", "text", "--partition", "7", "--offset", "0", "--timeout-ms", "1500"),
    consume("--topic", "text", "--partition", "0", "--offset", "middle"),
    consume("--topic", "text", "--offset", "1"),
    consume("--topic", "text", "--include", "t.*"),
    consume("--topic", "text", "--nonsense"),
    consume("--from-beginning"),
    consume("--topic", "keyed", "--from-beginning", "--max-messages", "7", *ALL_SHOWN,
            masks=[(r"CreateTime:\d+", "CreateTime:N")]),
    consume("--topic", "keyed", "--from-beginning", "--max-messages", "4",
            *shown("print.key=true", "print.headers=true", "key.separator=|", "headers.separator=;",
                   "null.literal=-", "line.separator=/\n")),
    consume("--topic", "keyed", "--from-beginning", "--max-messages", "2", *shown("print.value=false", "print.key=true")),
    consume("--topic", "keyed", "--from-beginning", "--max-messages", "1",
            "--formatter", "org.apache.kafka.tools.consumer.NoOpMessageFormatter"),
    consume("--topic", "keyed", "--from-beginning", "--max-messages", "1", "--formatter", "no.such.Formatter"),
    consume("--topic", "keyed", "--from-beginning", "--max-messages", "1",
            "--formatter", "org.apache.kafka.tools.consumer.LoggingMessageFormatter"),
    consume("--topic", "wide", "--from-beginning", "--max-messages", "4", *shown("print.key=true", "print.partition=true"),
            unordered=True),
    consume("--include", "(text|wide)", "--from-beginning", "--max-messages", "10", unordered=True),
    consume("--topic", "text", "--group", "readers", "--from-beginning", "--max-messages", "2"),
    consume("--topic", "text", "--group", "readers", "--max-messages", "3"),
    consume("--topic", "text", "--group", "readers", "--max-messages", "1"),
    consume("--topic", "text", "--group", "readers", "--partition", "0", "--offset", "0"),
    consume("--topic", "text", "--group", "a", "--command-property", "group.id=b"),
    consume("--topic", "text", "--from-beginning", "--max-messages", "6", "--isolation-level", "read_committed"),
    consume("--topic", "text", "--from-beginning", "--isolation-level", "dirty"),
    start("tail", consume("--topic", "wide", "--from-beginning", "--group", "tail")),
    produce("wide", "e:5\nf:6\n", *reader("parse.key=true", "key.separator=:")),
    tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--describe", "--group", "tail", "--offsets",
         until=r"(?s)(wide\s+\d\s+(\d+)\s+\2\s+0.*){3}", unordered=True,
         masks=[(r"\s+\d+\s+\d+\s+0\s+.*", " N N 0")]),
    end("tail"),
], GROUPS)

OFFSET_STORY = Story("kafka-get-offsets and kafka-delete-records", [
    created("dated"), created("wide", "4"), created("empty"), created("compacted", "1", "cleanup.policy=compact"),
    dated("dated", "2020"), dated("dated", "2021"), dated("dated", "2022"),
    verifiable_producer("wide", "--max-messages", "40", "--repeating-keys", "8", unordered=True),
    offsets(),
    offsets("--exclude-internal-topics"),
    offsets("--topic", "dated"),
    *(offsets("--topic", "dated", "--time", time) for time in ("latest", "-1", "earliest", "-2", "max-timestamp", "-3",
                                                              "earliest-local", "-4", "latest-tiered", "-5")),
    offsets("--time", "earliest-pending-upload", "--topic", "dated"),
    *(offsets("--topic", "dated", "--time", time) for time in ("0", "1590969599999", "1590969600000", "1600000000000",
                                                              "1622505600000", "1640000000000", "1700000000000")),
    offsets("--topic", "empty", "--time", "max-timestamp"),
    offsets("--topic", "empty", "--time", "0"),
    offsets("--topic", "dated", "--time", "-7"),
    offsets("--topic", "dated", "--time", "yesterday"),
    offsets("--topic", "w.*"),
    offsets("--topic", "wide", "--partitions", "0,2"),
    offsets("--topic", "wide", "--partitions", "9"),
    offsets("--topic", "wide", "--partitions", "x"),
    offsets("--topic-partitions", "wide:1-3,dated"),
    offsets("--topic-partitions", "wide:-2,:3"),
    offsets("--topic-partitions", "wide:3-"),
    offsets("--topic-partitions", "wide:x"),
    offsets("--topic-partitions", "wide:1", "--topic", "wide"),
    offsets("--topic", "nowhere"),
    tool(DELETE, "--offset-json-file", "{folder}/some.json", files={
        "some.json": '{"version": 1, "partitions": [{"topic": "dated", "partition": 0, "offset": 6}]}'}),
    offsets("--topic", "dated", "--time", "earliest"),
    offsets("--topic", "dated", "--time", "0",
            differs=Differs("Kafka looks no further than the first segment, though its records are deleted", r"^dated:0:6$")),
    offsets("--topic", "dated", "--time", "max-timestamp"),
    tool(DELETE, "--offset-json-file", "{folder}/back.json", files={
        "back.json": '{"version": 1, "partitions": [{"topic": "dated", "partition": 0, "offset": 2}]}'}),
    tool(DELETE, "--offset-json-file", "{folder}/high.json", unordered=True, files={
        "high.json": '{"version": 1, "partitions": [{"topic": "dated", "partition": 0, "offset": -1},'
                     '{"topic": "empty", "partition": 0, "offset": -1}]}'}),
    tool(DELETE, "--offset-json-file", "{folder}/far.json", files={
        "far.json": '{"version": 1, "partitions": [{"topic": "dated", "partition": 0, "offset": 99}]}'}),
    # Nobody leads a partition that is not there: the tool asks until its patience ends, in words of chance.
    tool(DELETE, "--offset-json-file", "{folder}/none.json", "--command-config", "{folder}/patience.properties", files={
        "none.json": '{"version": 1, "partitions": [{"topic": "dated", "partition": 5, "offset": 1}]}',
        "patience.properties": "default.api.timeout.ms=2000\nrequest.timeout.ms=1000\n"},
         masks=[(r"TimeoutException: .*", "TimeoutException")]),
    tool(DELETE, "--offset-json-file", "{folder}/negative.json", files={
        "negative.json": '{"version": 1, "partitions": [{"topic": "dated", "partition": 0, "offset": -5}]}'}),
    tool(DELETE, "--offset-json-file", "{folder}/compacted.json", files={
        "compacted.json": '{"version": 1, "partitions": [{"topic": "compacted", "partition": 0, "offset": 0}]}'}),
    tool(DELETE, "--offset-json-file", "{folder}/twice.json", files={
        "twice.json": '{"version": 1, "partitions": [{"topic": "empty", "partition": 0, "offset": 0},'
                      '{"topic": "empty", "partition": 0, "offset": 0}]}'}),
    tool(DELETE, "--offset-json-file", "{folder}/version.json", files={"version.json": '{"version": 2, "partitions": []}'}),
    tool(DELETE, "--offset-json-file", "{folder}/broken.json", files={"broken.json": '{"partitions": ['}),
    tool(DELETE, "--offset-json-file", "{folder}/missing.json"),
    tool(DELETE),
    offsets("--topic", "dated"),
    offsets("--topic", "dated", "--time", "earliest"),
], {})

LOG_DIR_STORY = Story("kafka-log-dirs", [
    created("t", "1"), created("u", "1"),
    # One record: the time between two would count in the size.
    produce("t", "one\n"),
    tool(LOG_DIRS, "--describe", "--topic-list", "t"),
    tool(LOG_DIRS, "--describe", "--topic-list", "u"),
    tool(LOG_DIRS, "--describe", "--topic-list", "nowhere"),
    tool(LOG_DIRS, "--describe", "--broker-list", "1", "--topic-list", "u"),
    tool(LOG_DIRS, "--describe", "--broker-list", "1,7", "--topic-list", "u"),
    tool(LOG_DIRS, "--describe", "--broker-list", "7"),
    tool(LOG_DIRS, "--describe", "--broker-list", "x"),
    tool(LOG_DIRS),
])


def loaded(records, *arguments, **more):
    """kafka-producer-perf-test; how often it says where it is depends on how long it takes."""
    return tool(PRODUCER_PERF, "--topic", "perf", "--num-records", records, "--throughput", "-1", "--reporting-interval",
                "600000", *arguments, masks=FIGURES, **more)


PERF_STORY = Story("kafka-producer-perf-test, -consumer-perf-test and -e2e-latency", [
    created("perf", "3"), created("latency"),
    loaded("3000", "--record-size", "100"),
    loaded("300", "--payload-monotonic", "--command-property", "acks=1", "compression.type=lz4"),
    loaded("300", "--record-size", "100", "--warmup-records", "100"),
    loaded("300", "--payload-file", "{folder}/payload", files={"payload": "first\nsecond\n"}),
    tool(PRODUCER_PERF, "--topic", "perf", "--num-records", "300", "--throughput", "-1"),
    tool(PRODUCER_PERF, "--topic", "perf", "--num-records", "300", "--record-size", "0", "--throughput", "-1"),
    tool(PRODUCER_PERF, "--topic", "perf", "--num-records", "10", "--record-size", "10", "--throughput", "-1",
         "--command-property", "acks=7"),
    offsets("--topic", "perf", masks=[(r"\d+$", "N")]),
    tool(CONSUMER_PERF, "--topic", "perf", "--num-records", "3900", masks=FIGURES),
    tool(CONSUMER_PERF, "--topic", "perf", "--num-records", "3900", "--hide-header", "--group", "perf-group", masks=FIGURES),
    tool(CONSUMER_PERF, "--topic", "perf", "--num-records", "10", "--group", "perf-group", "--timeout", "1500", masks=FIGURES),
    tool(CONSUMER_PERF, "--topic", "perf", "--num-records", "10", "--from-latest", "--timeout", "1500", masks=FIGURES),
    tool(CONSUMER_PERF, "--include", "pe.*", "--num-records", "3900", masks=FIGURES),
    tool(CONSUMER_PERF, "--topic", "perf"),
    tool(CONSUMER_PERF, "--num-records", "1"),
    Step(LATENCY, ["{bootstrap}", "latency", "200", "all", "100"], masks=FIGURES),
    Step(LATENCY, ["{bootstrap}", "latency", "200", "1", "100"], masks=FIGURES),
    Step(LATENCY, ["{bootstrap}", "latency-made", "50", "1", "100"], masks=FIGURES),
    Step(LATENCY, ["{bootstrap}", "latency", "200", "0", "100"]),
    Step(LATENCY, ["{bootstrap}", "latency"]),
], GROUPS)

VERIFIABLE_STORY = Story("kafka-verifiable-producer and -consumer", [
    created("v", "1"), created("small", "1", "max.message.bytes=50"),
    verifiable_producer("v", "--max-messages", "5"),
    verifiable_producer("v", "--max-messages", "4", "--repeating-keys", "2", "--value-prefix", "7", "--acks", "1"),
    verifiable_producer("v", "--max-messages", "2", "--acks", "0"),
    verifiable_producer("v", "--max-messages", "2", "--acks", "2"),
    verifiable_producer("small", "--max-messages", "1",
                        differs=Differs("the sizes are told, where Kafka's answer has no words", "producer_send_error")),
    verifiable_producer("bad topic", "--max-messages", "1", "--command-config", "{folder}/producer.properties",
                        files={"producer.properties": "max.block.ms=3000\n"}),
    verifiable_consumer("v", "--group-id", "verify", "--max-messages", "11"),
    verifiable_consumer("v", "--group-id", "verify-all", "--max-messages", "11", "--verbose",
                        "--assignment-strategy", "org.apache.kafka.clients.consumer.RoundRobinAssignor"),
    verifiable_consumer("v", "--group-id", "verify-auto", "--max-messages", "3", "--enable-autocommit",
                        "--group-instance-id", "one", "--session-timeout", "7000"),
    verifiable_consumer("v", "--group-id", "verify-short", "--max-messages", "1", "--session-timeout", "1"),
    verifiable_consumer("v", "--max-messages", "1"),
    offsets("--topic", "v"),
], GROUPS)

DUMPED = "{folder}/data/d-0/00000000000000000000"
DUMP_MASKS = [(r"(CreateTime|producerId|lastTimestamp): ?\d+", r"\1: N"), (r"crc: \d+", "crc: N"),
              (r"timestamp: \d+", "timestamp: N")]


def dump(*arguments, **more):
    """kafka-dump-log."""
    return Step(DUMP, arguments, masks=DUMP_MASKS, **more)


DUMP_STORY = Story("kafka-dump-log", [
    created("d"), created("z", "1", "compression.type=gzip"),
    produce("d", "h:1\tk1\tv1\nh:2\tk2\tv2\nh:3\tk3\tv3\n", *reader("parse.key=true", "parse.headers=true"), "--sync"),
    produce("d", "NULL\tv4\nk5\tNULL\n", *reader("parse.key=true", "null.marker=NULL"), "--sync",
            "--compression-codec", "snappy"),
    produce("z", "one\ntwo\n", "--sync"),
    consume("--topic", "d", "--from-beginning", "--max-messages", "3", "--group", "dumped"),
    stop_broker(),
    dump("--files", DUMPED + ".log"),
    dump("--files", DUMPED + ".log", "--deep-iteration"),
    dump("--files", DUMPED + ".log", "--print-data-log"),
    dump("--files", DUMPED + ".log", "--print-data-log", "--skip-record-metadata"),
    dump("--files", DUMPED + ".log", "--print-data-log", "--max-bytes", "100"),
    dump("--files", "{folder}/data/z-0/00000000000000000000.log", "--print-data-log"),
    dump("--files", DUMPED + ".index"),
    dump("--files", DUMPED + ".index", "--index-sanity-check"),
    dump("--files", DUMPED + ".index", "--verify-index-only"),
    dump("--files", DUMPED + ".timeindex"),
    dump("--files", "{folder}/data/d-0/00000000000000000005.snapshot",
         differs=Differs("up to five batches of a producer are kept, so that it is known after a restart", r"lastOffset: [013] ")),
    dump("--files", DUMPED + ".log," + DUMPED + ".index"),
    # A batch's place and size, and topic ids, which come with OffsetCommit 10, are left out: what is kept of a group counts.
    Step(DUMP, ["--files", "{folder}/data/__consumer_offsets-0/00000000000000000000.log", "--offsets-decoder"],
         masks=[*DUMP_MASKS, (r"^(baseOffset: .*) baseSequence.*", r"\1"), (r"valueSize: \d+ sequence: \S+", "valueSize: N"),
                (r',"topicId":"[^"]*"', "")]),
    dump("--files", "{folder}/data/nowhere-0/00000000000000000000.log"),
    dump("--files", "{folder}/server.properties"),
    dump(),
], GROUPS)

STORIES = [CONSOLE_STORY, OFFSET_STORY, LOG_DIR_STORY, PERF_STORY, VERIFIABLE_STORY, DUMP_STORY]
