#!/usr/bin/env python3
"""Kafka's tools of 4.3.1 and Tidemill's own, one after the other against the same broker: same lines, same exit status.

    tests/compat/side_by_side.py --reference kafka      against Apache Kafka 4.3.1, which has every API
    tests/compat/side_by_side.py                        against Tidemill
    tests/compat/side_by_side.py --only consumer-groups

A case is a command line that both take. Ids, times and rates are masked; lines whose order Kafka's tools take from hash
maps are sorted; logger lines and stack traces of the JVM are dropped. Each case prints PASS or FAIL with what differs.
"""

import argparse
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

import broker
import install
from host import Host, environment

TOOL_S = 120
MAIN_CLASSES = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "cluster": "org.apache.kafka.tools.ClusterTool",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
}
# What the JVM says beside a tool's own lines.
NOISE = re.compile(r"^\s+at |^Caused by|^java\.|^org\.apache\.kafka|^\[.*\] (ERROR|WARN)|^SLF4J|^The consumer rebalance protocol"
                   r"|^\s*$|^WARN: No action will be performed")
MEMBER = re.compile(r"[\w.-]+-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# Tidemill puts its name before an error, and Kafka the exception's class.
PREFIXES = re.compile(r"^tidemill: |org\.apache\.kafka\.common\.errors\.\w+: ")


class Case(NamedTuple):
    """One command line; `setup` runs before each of the two, so that both meet the same state."""
    arguments: str
    setup: Tuple[str, ...] = ()
    stdin: str = ""
    mask: Callable[[str], str] = lambda line: line
    ordered: bool = False
    output: bool = True


def without_numbers(line: str) -> str:
    """A line of figures with every number as N."""
    return re.sub(r"\d+(\.\d+)?", "N", line)


def parsed_json(line: str) -> str:
    """JSON with sorted keys and partitions, sizes apart."""
    if not line.startswith("{"):
        return line
    document = json.loads(line)
    for one in document["brokers"]:
        for directory in one["logDirs"]:
            directory["partitions"].sort(key=lambda partition: partition["partition"])
    return json.dumps(document, sort_keys=True)


CASES = [
    Case("topics --create --topic made --partitions 3 --config retention.ms=86400000", ("topics --delete --topic made --if-exists",)),
    Case("topics --create --topic sbs"),
    Case("topics --create --topic sbs --if-not-exists"),
    Case("topics --create --topic bad --config no.such.config=1"),
    Case("topics --create --topic bad/name"),
    Case("topics --list"),
    Case("topics --list --topic sb.*"),
    Case("topics --list --exclude-internal"),
    Case("topics --describe --topic sbs"),
    Case("topics --describe"),
    Case("topics --describe --topics-with-overrides"),
    Case("topics --describe --under-replicated-partitions"),
    Case("topics --describe --at-min-isr-partitions --topic sbs"),
    Case("topics --describe --topic nowhere"),
    Case("topics --describe --topic nowhere --if-exists"),
    Case("topics --alter --topic sbs --partitions 2"),
    Case("topics --alter --topic nowhere --partitions 2"),
    Case("topics --delete --topic nowhere"),
    Case("topics --delete --topic made", ("topics --create --topic made --if-not-exists",)),
    Case("get-offsets --topic sbs"),
    Case("get-offsets --topic sbs --time earliest"),
    Case("get-offsets --topic sbs --time max-timestamp"),
    Case("get-offsets --topic sbs --time 1"),
    Case("get-offsets --topic sbs --time 99999999999999"),
    Case("get-offsets --topic-partitions s.*:0-2"),
    Case("get-offsets --topic sbs --partitions 1"),
    Case("get-offsets --topic nowhere"),
    Case("get-offsets --topic sbs --time yesterday"),
    Case("console-producer --topic produced --reader-property parse.key=true --reader-property key.separator=:",
         ("topics --create --topic produced --if-not-exists",), "a:1\nb:2\n"),
    Case("console-producer --topic produced --reader-property parse.key=true", stdin="no key\n", output=False),
    Case("console-consumer --topic sbs --partition 0 --offset earliest --timeout-ms 5000 --max-messages 1"),
    Case("console-consumer --topic sbs --partition 1 --offset 1 --max-messages 1 --formatter-property print.key=true "
         "--formatter-property print.offset=true --formatter-property print.partition=true --formatter-property print.headers=true"),
    Case("console-consumer --topic sbs --partition 0 --offset middle", output=False),
    Case("cluster cluster-id"),
    Case("cluster list-endpoints"),
    Case("cluster unregister --id 99", output=False),
    Case("configs --describe --topic sbs"),
    Case("configs --describe --topic sbs --all"),
    Case("configs --describe --topic nowhere"),
    Case("configs --describe --entity-type topics"),
    Case("configs --describe --entity-type brokers --entity-default"),
    Case("configs --alter --topic sbs --add-config max.message.bytes=100000,cleanup.policy=[delete]"),
    Case("configs --alter --topic sbs --delete-config max.message.bytes,cleanup.policy"),
    Case("configs --alter --topic sbs --add-config retention.ms=x", output=False),
    Case("configs --alter --topic sbs", output=False),
    Case("delete-records --offset-json-file {folder}/delete.json"),
    Case("log-dirs --describe --topic-list sbs", mask=parsed_json),
    Case("log-dirs --describe --broker-list 77"),
    Case("console-consumer --topic sbs --group sbs-{who} --from-beginning --timeout-ms 8000 --max-messages 20"),
    Case("consumer-groups --list"),
    Case("consumer-groups --list --state"),
    Case("consumer-groups --list --type"),
    Case("consumer-groups --list --state stable"),
    Case("consumer-groups --list --state wrong", output=False),
    Case("consumer-groups --describe --group sbs-kafka"),
    Case("consumer-groups --describe --group sbs-kafka --verbose"),
    Case("consumer-groups --describe --group sbs-kafka --state"),
    Case("consumer-groups --describe --group sbs-kafka --state --verbose"),
    Case("consumer-groups --describe --group sbs-kafka --members --verbose"),
    Case("consumer-groups --describe --group nowhere", output=False),
    Case("consumer-groups --group sbs-kafka --reset-offsets --to-earliest --topic sbs"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --to-latest --all-topics --execute"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --to-offset 1 --topic sbs:0,1 --execute"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --shift-by 1 --topic sbs:0"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --to-datetime 2020-01-01T00:00:00.000 --topic sbs --export"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --by-duration P3650D --topic sbs"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --to-current --topic sbs"),
    Case("consumer-groups --group sbs-kafka --reset-offsets --from-file {folder}/plan.csv --dry-run"),
    Case("consumer-groups --group sbs-kafka --delete-offsets --topic sbs:2"),
    Case("consumer-groups --group nowhere --delete", output=False),
    Case("consumer-groups", output=False),
    Case("consumer-groups --delete --group sbs-{who}"),
    Case("producer-perf-test --topic perf --num-records 5000 --record-size 100 --throughput -1", mask=without_numbers),
    Case("producer-perf-test --topic perf --num-records 500 --record-size 100 --throughput 500 --warmup-records 100",
         mask=without_numbers),
    Case("consumer-perf-test --topic perf --num-records 5000 --group perf-{who}", mask=without_numbers),
    Case("consumer-perf-test --topic perf --num-records 5000 --group perf2-{who} --hide-header --from-latest --timeout 3000",
         mask=without_numbers),
]


class Sides:
    """Runs a command line with either tool; Kafka's run in one JVM."""

    def __init__(self, bootstrap: str, binary: str, folder: Path):
        self.host = Host()
        self.bootstrap = bootstrap
        self.binary = binary
        self.folder = folder

    def run(self, who: str, arguments: str, stdin: str = "") -> Tuple[int, List[str]]:
        """Exit status and the lines that tool said."""
        words = [word.replace("{who}", who).replace("{folder}", str(self.folder)) for word in arguments.split()]
        at = 2 if words[0] == "cluster" else 1
        words[at:at] = ["--bootstrap-server", self.bootstrap]
        if who == "kafka":
            return self.host.ask("run", str(TOOL_S), stdin, MAIN_CLASSES[words[0]], *words[1:])
        done = subprocess.run([self.binary, *words], input=stdin, capture_output=True, text=True, timeout=TOOL_S,
                              env=environment())
        return done.returncode, (done.stdout + done.stderr).splitlines()

    def fill(self) -> None:
        """A topic with known records, and the files that commands name."""
        for topic in ("sbs", "perf"):
            self.run("ours", f"topics --delete --topic {topic} --if-exists")
        self.run("ours", "topics --create --topic sbs --partitions 3 --config segment.bytes=16777216")
        lines = "".join(f"h:{n}\tkey{n}\tvalue {n}\n" for n in range(20))
        self.run("ours", "console-producer --topic sbs --reader-property parse.key=true --reader-property parse.headers=true",
                 lines)
        self.run("ours", "topics --create --topic perf")
        partitions = [{"topic": "sbs", "partition": 0, "offset": 1}, {"topic": "sbs", "partition": 1, "offset": 0}]
        (self.folder / "delete.json").write_text(json.dumps({"partitions": partitions, "version": 1}))
        (self.folder / "plan.csv").write_text("sbs,0,2\nsbs,1,1\n")


def cleaned(case: Case, who: str, lines: List[str]) -> List[str]:
    """What of a tool's lines is compared."""
    kept = [line for line in lines if not NOISE.search(line)]
    kept = [PREFIXES.sub("", MEMBER.sub("MEMBER", case.mask(line))).rstrip() for line in kept]
    if "{who}" in case.arguments:
        kept = [line.replace(f"-{who}", "-WHO") for line in kept]
    # Widths of columns depend on what was masked.
    kept = [re.sub(r" {2,}", "  ", line) for line in kept]
    kept = [",".join(sorted(line.split(","))) if "\tConfigs: " in line else line for line in kept]
    return kept if case.ordered else sorted(kept)


def compare(case: Case, sides: Sides) -> Tuple[List[str], str]:
    """What differs, if anything, and how much there was to compare."""
    results = []
    for who in ("kafka", "ours"):
        for line in case.setup:
            sides.run("ours", line)
        code, lines = sides.run(who, case.arguments, case.stdin)
        results.append((code, cleaned(case, who, lines)))
    (kafka_code, kafka), (our_code, ours) = results
    problems = [] if kafka_code == our_code else [f"exit status {kafka_code} of Kafka's, {our_code} of ours: {ours[:3]}"]
    if case.output and kafka != ours:
        problems += list(difflib.unified_diff(kafka, ours, "kafka", "ours", lineterm="", n=0))[:24]
    return problems, f"exit {kafka_code}, {len(kafka) if case.output else 'no'} lines compared"


def main() -> int:
    """Runs the cases; the exit status says whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", choices=["kafka"])
    parser.add_argument("--broker-cmd", help="the command that starts the broker, with {config}")
    parser.add_argument("--bootstrap", help="a broker that runs already")
    parser.add_argument("--binary", help="our tools", default=broker.default_command().split()[0])
    parser.add_argument("--only", default="", help="cases that contain this text")
    options = parser.parse_args()
    install.CACHE.mkdir(parents=True, exist_ok=True)
    install.install_jars(install.KAFKA)
    install.install_java_client(install.KAFKA)
    failed = ran = 0
    with tempfile.TemporaryDirectory() as folder:
        node: Optional[broker.Broker] = None
        sides: Optional[Sides] = None
        if not options.bootstrap:
            node = broker.make(Path(folder) / "broker", 2, options)
            node.start()
        try:
            sides = Sides(options.bootstrap or node.bootstrap, os.path.abspath(options.binary), Path(folder))
            sides.fill()
            for case in CASES:
                if options.only not in case.arguments:
                    continue
                problems, compared = compare(case, sides)
                print(f"{'FAIL' if problems else 'PASS'} {case.arguments} ({compared})", flush=True)
                ran += 1
                for problem in problems:
                    print("    " + problem, flush=True)
                failed += bool(problems)
        finally:
            if sides is not None:
                sides.host.end()
            if node is not None:
                node.kill()
    print(f"{ran - failed} passed, {failed} failed")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
