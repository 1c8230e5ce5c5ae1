"""The round trip: every client reads, by assigned partitions, what every client wrote, and nothing differs.

A case is one topic: a writer, a codec, a number of partitions, a number of shards. It passes when each record was
acknowledged at the place where the order of the data set puts it, and each reader got every record with its bytes,
timestamp and offset, each offset once and none missing.
"""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import client
import dataset
import install

JAVA_OLDEST = f"java-{install.JAVA_CLIENTS[0]}"
# kafkajs can only read in a group, so it writes only.
READERS = ["kafka-python", "librdkafka", "franz-go", *(f"java-{version}" for version in install.JAVA_CLIENTS)]
WRITERS = [*READERS, "kafkajs"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PARTITIONS = [1, 12]
SHARDS = [1, 2, 4]
READERS_AT_ONCE = 4
PROBLEMS_MAX = 5


class Case(NamedTuple):
    """One topic's worth of the product."""

    writer: str
    codec: str
    partitions: int
    shards: int

    def name(self) -> str:
        """What the result line and the state file say."""
        return f"round trip: {self.writer} writes {self.codec}, partitions {self.partitions}, shards {self.shards}"

    def topic(self) -> str:
        """A legal topic name that tells the case."""
        return f"{self.writer}-{self.codec}-{self.partitions}p-{self.shards}s"


def knows(name: str, codec: str) -> bool:
    """Whether a client can have a codec at all: zstd came after the oldest one."""
    return not (name == JAVA_OLDEST and codec == "zstd")


def product(codecs: List[str], shards: List[int]) -> List[Case]:
    """Every case, grouped by number of shards so that one broker serves a group."""
    return [Case(writer, codec, partitions, count)
            for count, writer, codec, partitions in itertools.product(shards, WRITERS, codecs, PARTITIONS)
            if knows(writer, codec)]


def covering(codecs: List[str], shards: List[int]) -> List[Case]:
    """Every client with every codec and every number of shards, alternating the number of partitions."""
    numbered = itertools.product(enumerate(shards), enumerate(WRITERS), enumerate(codecs))
    return [Case(writer, codec, PARTITIONS[(s + w + c) % len(PARTITIONS)], count)
            for (s, count), (w, writer), (c, codec) in numbered if knows(writer, codec)]


class RoundTrip:
    """The data set with what readers must see of it, the clients' processes and the folder where they leave notes."""

    def __init__(self, folder: Path, count: int):
        self.folder = folder
        self.data = dataset.ensure(install.CACHE, count)
        self.timestamps, self._exact, self._reduced = dataset.expected(self.data)
        self._due: Dict[tuple, List[bytes]] = {}
        self._clients = {name: client.Client(name, folder) for name in [*WRITERS, "topics"]}

    def close(self) -> None:
        """Ends the clients."""
        for one in self._clients.values():
            one.close()

    def missing(self, case: Case) -> str:
        """Why a case cannot be run here: its codec's package is not installed. Only kafkajs may lack one."""
        writer = self._clients[case.writer]
        if case.writer == "kafkajs" and not writer.start() and case.codec not in writer.codecs:
            return f"kafkajs has no {case.codec} on this machine"
        return ""

    def topic(self, bootstrap: str, name: str, partitions: int, **settings) -> str:
        """Creates a topic, or deletes it with 0 partitions; the error if there was one."""
        return self._clients["topics"].ask(bootstrap, name, partitions, *(f"{k}={v}" for k, v in settings.items()))

    def write(self, bootstrap: str, name: str, case: Case) -> str:
        """Runs the writer, and sees whether each record was acknowledged at its place; the error if there was one."""
        notes = self.folder / f"acks-{case.writer}"
        error = self._clients[case.writer].ask("write", bootstrap, name, case.partitions, case.codec, self.data, notes)
        if error:
            return error
        told = notes.read_text().splitlines()
        if len(told) != len(self.timestamps):
            return f"{len(told)} of {len(self.timestamps)} records were acknowledged"
        for i, line in enumerate(told):
            if line != f"{i % case.partitions} {i // case.partitions}":
                return (f"record {i} was acknowledged at (partition, offset) {line}; "
                        f"{i % case.partitions} {i // case.partitions} was due")
        return ""

    def read(self, bootstrap: str, name: str, reader: str, case: Case) -> List[str]:
        """Runs a reader and compares what it noted; the problems found."""
        notes = self.folder / f"read-{reader}"
        if error := self._clients[reader].ask("read", bootstrap, name, case.partitions, notes):
            return [f"reading by {reader}: {error}"]
        problems: List[str] = []
        for partition, due in enumerate(self.due(case)):
            seen = Path(f"{notes}.{partition}").read_bytes()
            if seen != due:
                problems += [f"reading by {reader}, partition {partition}: {problem}"
                             for problem in itertools.islice(differences(seen, due), PROBLEMS_MAX)]
        return problems[:PROBLEMS_MAX]

    def due(self, case: Case) -> List[bytes]:
        """What a reader's notes must be, by partition."""
        digests = self._reduced.get(case.writer, self._exact)
        key = (case.writer if case.writer in self._reduced else "", case.partitions)
        if key not in self._due:
            self._due[key] = [
                "".join(f"{i // case.partitions} {self.timestamps[i]} {digests[i]}\n"
                        for i in range(partition, len(digests), case.partitions)).encode()
                for partition in range(case.partitions)]
        return self._due[key]

    def check(self, bootstrap: str, case: Case) -> List[str]:
        """Runs one case; the problems found, none when it passes. The topic is deleted afterwards."""
        name = case.topic()
        if error := self.topic(bootstrap, name, case.partitions):
            return ["creating the topic: " + error]
        if error := self.write(bootstrap, name, case):
            return ["writing: " + error]
        self.due(case)
        readers = [reader for reader in READERS if knows(reader, case.codec)]
        with ThreadPoolExecutor(READERS_AT_ONCE) as pool:
            found = pool.map(lambda reader: self.read(bootstrap, name, reader, case), readers)
            problems = [problem for one in found for problem in one]
        if error := self.topic(bootstrap, name, 0):
            problems.append("deleting the topic: " + error)
        return problems


def differences(seen: bytes, due: bytes) -> Iterator[str]:
    """Where a reader's notes of one partition part from what was written."""
    for number, (got, want) in enumerate(itertools.zip_longest(seen.splitlines(), due.splitlines())):
        if got is None or want is None:
            yield f"{len(seen.splitlines())} records read, {len(due.splitlines())} written"
            return
        if got != want:
            named = zip(("offset", "timestamp", "digest"), got.split(), want.split())
            yield f"record {number}: " + ", ".join(
                f"{what} {a.decode()}, written as {b.decode()}" for what, a, b in named if a != b)


def timed(round_trip: RoundTrip, bootstrap: str, case: Case) -> tuple:
    """(problems, seconds) of one case."""
    start = time.monotonic()
    return round_trip.check(bootstrap, case), time.monotonic() - start
