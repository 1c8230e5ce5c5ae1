"""Apache Kafka 4.3.1's own command-line tools, run as the main classes behind its shell scripts.

`live_cases` need a running broker; `file_cases` let dump-log read the stopped broker's files.
"""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, List, Tuple

import install
import matrix
from records import decode, frames

PARTITIONS = 3
TEXT_LINES = 5_000
PERF_RECORDS = 20_000
TOOL_S = 180
# Mismatches and exceptions go to standard error, where any word is a complaint; these go to standard output.
COMPLAINTS = re.compile(r"^Found \d+ invalid bytes at the end of |^baseOffset: .* isvalid: false")

# Neither Kafka's internal topics nor folders renamed for deletion, whose indexes were never trimmed.
PARTITION_FOLDER = re.compile(r"[^_].*-\d+")

# kafka-get-offsets' names of ListOffsets' special timestamps, as it also takes them by number.
SPECIAL_TIMES = {"latest": -1, "earliest": -2, "max-timestamp": -3, "earliest-local": -4, "latest-tiered": -5,
                 "earliest-pending-upload": -6}
# What a topic is created with and must be described with.
SETTINGS = {"retention.ms": "86400000", "compression.type": "producer", "segment.bytes": "16777216"}
# Ranges of a few APIs that no client can do without; the tool must show each with a version that it could use.
APIS = ["Produce(0)", "Fetch(1)", "ListOffsets(2)", "Metadata(3)", "FindCoordinator(10)", "ApiVersions(18)",
        "CreateTopics(19)", "DeleteTopics(20)", "InitProducerId(22)", "OffsetForLeaderEpoch(23)", "DescribeConfigs(32)",
        "CreatePartitions(37)", "DescribeCluster(60)", "DescribeTopicPartitions(75)"]

Problems = List[str]
Case = Tuple[str, Callable[[], Problems]]


def tool(main_class: str, *arguments: str, stdin: str = "") -> Tuple[int, str, str]:
    """Runs a tool: exit status, standard output, standard error."""
    command = install.java("org.apache.kafka.tools." + main_class, *arguments)
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, encoding="utf-8", errors="replace",
                              timeout=TOOL_S, env=install.environment() | {"LC_ALL": "C.UTF-8"})
    except subprocess.TimeoutExpired:
        return 124, "", f"no end within {TOOL_S} s"
    return done.returncode, done.stdout, done.stderr


def clean(name: str, code: int, out: str, err: str) -> Problems:
    """A tool's failure as a problem: a bad exit status, or an error or warning among what it says."""
    told = [line for line in (out + err).splitlines() if re.search(r"\b(ERROR|WARN|Error|Exception)\b", line)]
    if code == 0 and not told:
        return []
    return [f"{name} ended with {code}: " + "\n".join(told[:5] or [(err or out)[-1_000:]])]


def real_complaints(stderr: str) -> List[str]:
    """What dump-log complains of, but for one thing that it says of every segment that does not begin at offset 0.

    DumpLogSegments of 4.3.1 starts counting at -1, so the first record of such a file, Kafka's own files included,
    is to it "-1 is followed by BASE". That line is dropped where BASE is the file's own name; every other one stays.
    """
    kept: List[str] = []
    base = None
    for line in stderr.splitlines():
        named = re.match(r"Non-consecutive offsets in .*/(\d{20})\.log$", line)
        if named:
            base = int(named.group(1))
        elif not (base and line.strip() == f"-1 is followed by {base}"):
            kept.append(line)
    return kept


class Tools:
    """The cases over one broker; the topics they fill stay for dump-log."""

    def __init__(self, folder: Path, count: int):
        self.folder = folder
        self.round_trip = matrix.RoundTrip(folder, count)
        self.lines = self._text_lines()
        self._bootstrap = ""
        self._ends: Dict[int, int] = {}
        self._filled = 0

    def names(self) -> List[str]:
        """Every case's name, in order."""
        return [name for name, _ in [*self.live_cases(""), *self.file_cases(self.folder)]]

    def live_cases(self, bootstrap: str) -> List[Case]:
        """Cases against a running broker; each builds on those before it."""
        self._bootstrap = bootstrap
        return [
            ("tools: kafka-topics creates, lists and deletes", self.topics),
            ("tools: kafka-topics describes what it created", self.describe),
            ("tools: kafka-topics alters the number of partitions", self.alter),
            ("tools: kafka-broker-api-versions lists the APIs", self.api_versions),
            ("tools: kafka-console-producer sends keys, headers and text", self.console_producer),
            ("tools: kafka-get-offsets agrees", self.get_offsets),
            ("tools: kafka-get-offsets knows every special time", self.special_times),
            ("tools: kafka-console-consumer reads each partition from 0", lambda: self.console_consumer(False)),
            ("tools: kafka-console-consumer reads from the middle", lambda: self.console_consumer(True)),
            ("tools: kafka-producer-perf-test runs", self.perf_test),
            ("tools: every client and codec fills a topic for dump-log", self.fill),
        ]

    def file_cases(self, data: Path) -> List[Case]:
        """Cases over the files of the stopped broker."""
        return [(f"tools: kafka-dump-log reads {suffix}", lambda suffix=suffix: self.dump(data, suffix))
                for suffix in (".log", ".index", ".timeindex", ".snapshot")]

    def _text_lines(self) -> List[str]:
        """The data set's text values as "headers<tab>key<tab>value", each key once."""
        lines = []
        with self.round_trip.data.open("rb") as file:
            for i, payload in enumerate(frames(file)):
                value = decode(payload).value or b""
                try:
                    text = value.decode()
                except UnicodeDecodeError:
                    continue
                if text.isprintable() and len(text) < 4_096:
                    lines.append(f"line:{i},kind:text\tkey-{i}\t{text}")
                if len(lines) == TEXT_LINES:
                    break
        return lines

    def topics(self) -> Problems:
        """Creates two topics, sees both, deletes one, sees the other."""
        server = ("--bootstrap-server", self._bootstrap)
        problems = []
        for name in ("tool-text", "tool-gone"):
            problems += clean("create", *tool("TopicCommand", *server, "--create", "--topic", name,
                                              "--partitions", str(PARTITIONS), "--replication-factor", "1"))
        code, _, _ = tool("TopicCommand", *server, "--create", "--topic", "tool-text", "--partitions", "1")
        if code == 0:
            problems.append("a topic that exists was created again")
        code, out, err = tool("TopicCommand", *server, "--list")
        problems += clean("list", code, out, err)
        if not {"tool-text", "tool-gone"} <= set(out.split()):
            problems.append(f"the list lacks a topic: {out.split()}")
        problems += clean("delete", *tool("TopicCommand", *server, "--delete", "--topic", "tool-gone"))
        code, out, err = tool("TopicCommand", *server, "--list")
        if "tool-gone" in out.split() or "tool-text" not in out.split():
            problems.append(f"after the deletion the list is {out.split()}")
        return problems

    def described(self, topic: str) -> Tuple[Problems, str]:
        """(problems, what kafka-topics --describe says of a topic)."""
        code, out, err = tool("TopicCommand", "--bootstrap-server", self._bootstrap, "--describe", "--topic", topic)
        return clean("describe", code, out, err), out

    def expect_partitions(self, topic: str, count: int) -> Tuple[Problems, str]:
        """Describes a topic, which must have so many partitions, each led by its only replica."""
        problems, out = self.described(topic)
        if f"\tPartitionCount: {count}\tReplicationFactor: 1\t" not in out:
            problems.append(f"{count} partitions are not described: {out[:500]}")
        row = rf"^\tTopic: {topic}\tPartition: (\d+)\tLeader: (\d+)\tReplicas: (\d+)\tIsr: (\d+)\t"
        rows = re.findall(row, out, re.M)
        if [row[0] for row in rows] != [str(n) for n in range(count)] or any(len(set(row[1:])) != 1 for row in rows):
            problems.append(f"not {count} partitions with leader, replica and in-sync replica: {out[:1_000]}")
        return problems, out

    def describe(self) -> Problems:
        """Creates a topic with settings and sees them; of a topic that is not there it says so."""
        settings = [word for key, value in SETTINGS.items() for word in ("--config", f"{key}={value}")]
        problems = clean("create", *tool(
            "TopicCommand", "--bootstrap-server", self._bootstrap, "--create", "--topic", "tool-described",
            "--partitions", "4", "--replication-factor", "1", *settings))
        more, out = self.expect_partitions("tool-described", 4)
        configs = re.search(r"\tConfigs: (\S*)", out)
        shown = dict(pair.split("=", 1) for pair in configs.group(1).split(",") if pair) if configs else {}
        for key, value in SETTINGS.items():
            if shown.get(key) != value:
                problems.append(f"{key}={value} was set, the description says {shown}")
        _, out = self.described("tool-nowhere")
        if "does not exist as expected" not in out:
            problems.append(f"of a topic that is not there: {out[:500]}")
        return problems + more

    def alter(self) -> Problems:
        """More partitions than there are: they come, empty and led. Fewer: refused."""
        server = ("--bootstrap-server", self._bootstrap)
        problems = clean("create", *tool("TopicCommand", *server, "--create", "--topic", "tool-grown",
                                         "--partitions", "1", "--replication-factor", "1"))
        problems += clean("alter", *tool("TopicCommand", *server, "--alter", "--topic", "tool-grown",
                                         "--partitions", "5"))
        problems += self.expect_partitions("tool-grown", 5)[0]
        offsets, more = self.offsets("tool-grown", "latest")
        problems += more
        if offsets != {n: 0 for n in range(5)}:
            problems.append(f"the new partitions' ends are {offsets}")
        code, out, _ = tool("TopicCommand", *server, "--alter", "--topic", "tool-grown", "--partitions", "2")
        if code == 0 or "5 partition(s)" not in out:
            problems.append(f"fewer partitions: exit {code}, {out[:500]}")
        problems += self.expect_partitions("tool-grown", 5)[0]
        problems += clean("delete", *tool("TopicCommand", *server, "--delete", "--topic", "tool-grown"))
        return problems

    def api_versions(self) -> Problems:
        """The node is listed with the APIs that clients use, none of them beyond use."""
        code, out, err = tool("BrokerApiVersionsCommand", "--bootstrap-server", self._bootstrap)
        problems = clean("kafka-broker-api-versions", code, out, err)
        if not re.search(rf"^{self._bootstrap} \(id: \d+ rack: null isFenced: false\) -> \($", out, re.M):
            problems.append(f"the node is not listed: {out[:200]}")
        usable = set(re.findall(r"^\t(\w+\(\d+\)): \d+(?: to \d+)? \[usable: \d+\],?$", out, re.M))
        if missing := [api for api in APIS if api not in usable]:
            problems.append(f"not usable: {missing}; {len(usable)} others are")
        return problems

    def console_producer(self) -> Problems:
        """Pipes the text lines in."""
        return clean("kafka-console-producer", *tool(
            "ConsoleProducer", "--bootstrap-server", self._bootstrap, "--topic", "tool-text",
            "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true",
            "--compression-codec", "lz4", stdin="".join(line + "\n" for line in self.lines)))

    def offsets(self, topic: str, time: str) -> Tuple[Dict[int, int], Problems]:
        """What kafka-get-offsets tells of a topic's partitions, and its problems."""
        code, out, err = tool("GetOffsetShell", "--bootstrap-server", self._bootstrap, "--topic", topic, "--time", time)
        told = {int(p): int(offset) for p, offset in re.findall(rf"^{topic}:(\d+):(\d+)$", out, re.M)}
        return told, clean(f"kafka-get-offsets --time {time}", code, out, err)

    def get_offsets(self) -> Problems:
        """The partitions' ends, which add up to the lines sent; and their starts."""
        self._ends, problems = self.offsets("tool-text", "latest")
        if len(self._ends) != PARTITIONS or sum(self._ends.values()) != len(self.lines):
            problems.append(f"{len(self.lines)} lines were sent, the offsets are {self._ends}")
        code, out, err = tool("GetOffsetShell", "--bootstrap-server", self._bootstrap,
                              "--topic-partitions", "tool-text:1-2")
        problems += clean("kafka-get-offsets --topic-partitions", code, out, err)
        if out.split() != [f"tool-text:1:{self._ends.get(1)}"]:
            problems.append(f"of one partition: {out.split()}")
        return problems

    def special_times(self) -> Problems:
        """Each special value by name and by number, and times before the first and after the last record."""
        starts = {n: 0 for n in self._ends}
        due = {"latest": self._ends, "earliest": starts, "earliest-local": starts, "latest-tiered": {},
               "earliest-pending-upload": {},
               "0": starts, "4000000000000": {}}
        problems = []
        for name in [*SPECIAL_TIMES, "0", "4000000000000"]:
            told, more = self.offsets("tool-text", name)
            problems += more
            if name == "max-timestamp":
                # Lines are sent in order, many within a millisecond: the largest time stands near the end.
                good = told.keys() == self._ends.keys() and all(0 <= told[n] < self._ends[n] for n in told)
            else:
                good = told == due[name]
            if not good:
                problems.append(f"--time {name} tells {told}; the partitions end at {self._ends}")
            if name in SPECIAL_TIMES and self.offsets("tool-text", str(SPECIAL_TIMES[name]))[0] != told:
                problems.append(f"--time {SPECIAL_TIMES[name]} tells otherwise than {name}")
        return problems

    def console_consumer(self, from_middle: bool) -> Problems:
        """Reads partition by partition; the lines of a partition come in the order they were sent."""
        if not self._ends:
            return ["kafka-get-offsets told no ends to read to"]
        problems = []
        seen: Counter = Counter()
        position = {line: i for i, line in enumerate(self.lines)}
        for partition, end in sorted(self._ends.items()):
            start = end // 2 if from_middle else 0
            code, out, err = tool(
                "consumer.ConsoleConsumer", "--bootstrap-server", self._bootstrap, "--topic", "tool-text",
                "--partition", str(partition), "--offset", str(start),
                "--max-messages", str(end - start), "--timeout-ms", "30000",
                "--formatter-property", "print.key=true", "--formatter-property", "print.headers=true",
                "--formatter-property", "print.offset=true")
            if code != 0:
                problems.append(f"partition {partition}: exit {code}: {err[-1_000:]}")
            rows = [row.split("\t", 1) for row in out.splitlines()]
            if [row[0] for row in rows] != [f"Offset:{n}" for n in range(start, end)]:
                problems.append(f"partition {partition}: the offsets are not {start} to {end - 1}, one after the other")
            lines = [row[1] for row in rows if len(row) == 2]
            if [position.get(line, -1) for line in lines] != sorted(position.get(line, -1) for line in lines):
                problems.append(f"partition {partition}: not the order in which the lines were sent")
            seen.update(lines)
        strange = [line for line, times in seen.items() if line not in position or times > 1]
        if strange:
            problems.append(f"{len(strange)} lines that were not sent so, or came twice, as {strange[0][:200]!r}")
        due = sum(end - (end // 2 if from_middle else 0) for end in self._ends.values())
        if len(seen) != due:
            problems.append(f"{len(seen)} different lines of {due}")
        return problems

    def perf_test(self) -> Problems:
        """A short run; its closing line counts every record."""
        code, out, err = tool("ProducerPerformance", "--bootstrap-server", self._bootstrap, "--topic", "tool-text",
                              "--num-records", str(PERF_RECORDS), "--record-size", "200", "--throughput", "-1")
        problems = clean("kafka-producer-perf-test", code, out, err)
        if f"{PERF_RECORDS} records sent" not in out:
            problems.append(f"no word of {PERF_RECORDS} records: {out[-500:]}")
        return problems

    def fill(self) -> Problems:
        """One topic for each client and codec, left in place, with every shape of the data set."""
        problems = []
        for case in matrix.covering(matrix.CODECS, [2]):
            if self.round_trip.missing(case):
                continue
            name = "dump-" + case.topic()
            error = (self.round_trip.topic(self._bootstrap, name, case.partitions)
                     or self.round_trip.write(self._bootstrap, name, case))
            if error:
                problems.append(f"{name}: {error}")
            else:
                self._filled += 1
        return problems

    def records_written(self) -> int:
        """How many records the topics hold that dump-log reads."""
        return len(self.lines) + PERF_RECORDS + self._filled * len(self.round_trip.timestamps)

    def dump(self, data: Path, suffix: str) -> Problems:
        """Runs dump-log over all files of one kind and looks for any complaint."""
        files = sorted(str(path) for path in data.glob(f"*/*{suffix}") if PARTITION_FOLDER.fullmatch(path.parent.name))
        if not files:
            return [f"the broker left no {suffix} file"]
        command = install.java("org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log",
                               "--files", ",".join(files))
        out_path = self.folder / "dump"
        with out_path.open("wb") as out:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True,
                                  errors="replace", timeout=TOOL_S, env=install.environment())
        problems = real_complaints(done.stderr)[:5] + ([f"exit {done.returncode}"] if done.returncode else [])
        with out_path.open(encoding="utf-8", errors="replace", newline="\n") as out:
            problems += [line.strip()[:300] for line in out if COMPLAINTS.search(line)][:5]
        if suffix == ".log" and not problems:
            problems = self._counted(out_path)
        return problems

    def _counted(self, out_path: Path) -> Problems:
        """dump-log must have printed as many records as the topics were given."""
        with out_path.open("rb") as out:
            shown = sum(line.startswith(b"| offset:") for line in out)
        due = self.records_written()
        return [] if shown == due else [f"{shown} records shown, {due} written"]
