"""The round trip: every client reads, by assigned partitions, what every client wrote, and nothing differs.

A case is one topic: a writer, a codec, a number of partitions, a number of shards. It passes when each reader
got every record of the data set with the bytes, timestamp and offset that the writer sent and was told, each
offset once and none missing.
"""

import itertools
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

import dataset
import install

CLIENTS = ["kafka-python", "librdkafka", "java"]
PARTITIONS = [1, 12]
SHARDS = [1, 2, 4]
CLIENT_S = 600
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


def product(codecs: List[str], shards: List[int]) -> List[Case]:
    """Every case, grouped by number of shards so that one broker serves a group."""
    return [Case(writer, codec, partitions, count)
            for count, writer, codec, partitions in itertools.product(shards, CLIENTS, codecs, PARTITIONS)]


def covering(codecs: List[str], shards: List[int]) -> List[Case]:
    """Every client with every codec and every number of shards, alternating the number of partitions."""
    numbered = itertools.product(enumerate(shards), enumerate(CLIENTS), enumerate(codecs))
    return [Case(writer, codec, PARTITIONS[(s + w + c) % len(PARTITIONS)], count)
            for (s, count), (w, writer), (c, codec) in numbered]


def client_command(client: str) -> List[str]:
    """The program of a client, to which the arguments are appended."""
    clients = install.HERE / "clients"
    if client == "java":
        return install.java("RoundTrip")
    return [install.python(), str(clients / f"{client.replace('-', '_')}_client.py")]


def run(command: List[str]) -> str:
    """Runs a client program; what it said when it failed, else nothing."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=CLIENT_S, env=install.environment())
    except subprocess.TimeoutExpired:
        return f"no end within {CLIENT_S} s: {' '.join(command[-8:])}"
    if done.returncode == 0:
        return ""
    return f"exit {done.returncode}: " + (done.stderr or done.stdout).strip()[-2_000:]


def topic(bootstrap: str, name: str, partitions: int) -> str:
    """Creates a topic, or deletes it with 0 partitions; the error if there was one."""
    return run([install.python(), str(install.HERE / "clients" / "topics.py"), bootstrap, name, str(partitions)])


class RoundTrip:
    """The data set with its expected digests, and the folder where clients leave their notes."""

    def __init__(self, folder: Path, count: int):
        self.folder = folder
        self.data = dataset.ensure(install.CACHE, count)
        self.timestamps, self._exact, self._plain = dataset.expected(self.data)

    def digests(self, writer: str) -> List[str]:
        """What readers must see after this writer."""
        return self._plain if writer == "kafka-python" else self._exact

    def write(self, bootstrap: str, name: str, case: Case) -> str:
        """Runs the writer; its notes lie in `acks` of the folder."""
        return run(client_command(case.writer) + [
            "write", "--bootstrap", bootstrap, "--topic", name, "--data", str(self.data), "--codec", case.codec,
            "--acks", "all", "--idempotent", "--partitions", str(case.partitions), "--out", str(self.folder / "acks")])

    def read(self, bootstrap: str, name: str, reader: str, case: Case) -> str:
        """Runs a reader; its notes lie in `read` of the folder."""
        partitions = ",".join(str(n) for n in range(case.partitions))
        return run(client_command(reader) + [
            "read", "--bootstrap", bootstrap, "--topic", name, "--partition-list", partitions,
            "--out", str(self.folder / "read")])

    def check(self, bootstrap: str, case: Case) -> List[str]:
        """Runs one case; the problems found, none when it passes. The topic is deleted afterwards."""
        name = case.topic()
        if error := topic(bootstrap, name, case.partitions):
            return ["creating the topic: " + error]
        if error := self.write(bootstrap, name, case):
            return ["writing: " + error]
        problems, places = self.places(case)
        for reader in CLIENTS if not problems else []:
            if error := self.read(bootstrap, name, reader, case):
                problems.append(f"reading by {reader}: {error}")
            else:
                problems += [f"reading by {reader}: {p}" for p in self.compare(case, places)]
        if error := topic(bootstrap, name, 0):
            problems.append("deleting the topic: " + error)
        return problems

    def places(self, case: Case) -> tuple:
        """(problems, record number by partition and offset) out of the writer's notes."""
        places: Dict[tuple, int] = {}
        ends = [0] * case.partitions
        for i, line in enumerate((self.folder / "acks").read_text().splitlines()):
            partition, offset = (int(part) for part in line.split())
            if partition != i % case.partitions:
                return [f"record {i} was acknowledged by partition {partition}"], places
            if offset != ends[partition]:
                return [f"record {i} was acknowledged at {offset}, {ends[partition]} comes next"], places
            ends[partition] += 1
            places[partition, offset] = i
        if len(places) != len(self.timestamps):
            return [f"{len(places)} of {len(self.timestamps)} records were acknowledged"], places
        return [], places

    def compare(self, case: Case, places: Dict[tuple, int]) -> List[str]:
        """A reader's notes against what was written."""
        return list(itertools.islice(self._differences(self.digests(case.writer), places), PROBLEMS_MAX))

    def _differences(self, digests: List[str], places: Dict[tuple, int]) -> Iterator[str]:
        nexts: Dict[int, int] = {}
        count = 0
        with (self.folder / "read").open() as notes:
            for count, line in enumerate(notes, 1):
                partition, offset, timestamp_ms, digest = line.split()
                place = (int(partition), int(offset))
                if place[1] != nexts.get(place[0], 0):
                    yield f"partition {partition}: offset {offset} came where {nexts.get(place[0], 0)} was due"
                nexts[place[0]] = place[1] + 1
                i = places.get(place)
                if i is None:
                    yield f"partition {partition}: nothing was acknowledged at offset {offset}"
                elif digests[i] != digest:
                    yield f"record {i} (partition {partition}, offset {offset}): other bytes"
                elif self.timestamps[i] != int(timestamp_ms):
                    yield f"record {i}: timestamp {timestamp_ms}, written as {self.timestamps[i]}"
        if count != len(places):
            yield f"{count} records read, {len(places)} written"


def timed(round_trip: RoundTrip, bootstrap: str, case: Case) -> tuple:
    """(problems, seconds) of one case."""
    start = time.monotonic()
    return round_trip.check(bootstrap, case), time.monotonic() - start
