"""Consumers that read from a follower in their rack (KIP-392), with the real clients, on a cluster of three.

Each broker is a rack of its own. Readers that tell the rack of node 3, which leads nothing, read one topic all at the
same time: what is there, what comes, while node 3 is killed, and when it is back. Each record must be seen once and in
order, and what the client has received from each node tells where it read: from node 3 at least as many bytes as the
records have, and little from the leaders. A reader whose rack has no replica must have read from the leaders, which
shows that the count can tell the difference.
"""

import re
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

import broker
import install
import nodes
from groups import WAIT_S, Member
from host import Host

TOPIC, PARTITIONS, FOLLOWER = "near", 2, 3
SETTINGS = {
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "500",
    "auto.leader.rebalance.enable": "false",
}
RACKS = "abc"
NEAR = ["java", "java by the consumer protocol", "librdkafka", "franz-go"]
FAR = "librdkafka in another rack"
VALUE_BYTES = 5_000
TOOL_S = 60
PHASES = ["reads what is there from the follower in its rack", "goes on when that follower is killed",
          "comes back to it"]
FAR_CASE = "racks: librdkafka: reads from the leaders where its rack has no replica"
# Sends records one after the other, each when the one before is acknowledged, or all at once.
SENDER = """
import sys
from confluent_kafka import Producer
bootstrap, topic, count, partitions, size, one_by_one = sys.argv[1:]
producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "message.timeout.ms": 60000})
failed = []
for i in range(int(count)):
    producer.produce(topic, value=b"v" * int(size), partition=i % int(partitions),
                     on_delivery=lambda error, _: failed.append(error) if error else None)
    if one_by_one == "True":
        producer.flush(60)
sys.exit(str(failed[0]) if failed else producer.flush(60))
"""


def of_node(number: int) -> dict:
    """The properties of a node."""
    return SETTINGS | {"broker.rack": RACKS[number - 1]}


def command(kind: str, *arguments: str) -> List[str]:
    """The program of a reader."""
    if kind.startswith("java"):
        protocol = "consumer" if "consumer" in kind else "classic"
        return install.java("RackReader", *arguments, protocol, heap="128m")
    if kind == "franz-go":
        return [str(install.GO / "client"), "rack", *arguments]
    return [install.python(), str(install.CLIENTS / "rack_reader.py"), *arguments]


class Reader(Member):
    """One reader's process, and what it has said."""

    program = staticmethod(command)

    def received(self) -> Dict[int, int]:
        """Bytes from each node so far. Clients forget a node that has left, and count anew when it is back."""
        total: Dict[int, int] = {}
        last: Dict[int, int] = {}
        for node, count in self.pairs("received"):
            before = last.get(node, 0)
            total[node] = total.get(node, 0) + (count - before if count >= before else count)
            last[node] = count
        return total

    def problems(self, sent: int) -> List[str]:
        """Records that it has not seen once and in order, of so many."""
        seen = self.pairs("seen")
        problems = [f"it said {line}" for line in self.lines if line.startswith("error")]
        for partition in range(PARTITIONS):
            offsets = [offset for of, offset in seen if of == partition]
            due = list(range(len(range(partition, sent, PARTITIONS))))
            if offsets != due:
                differ = (at for at, (seen_there, due_there) in enumerate(zip(offsets, due)) if seen_there != due_there)
                at = next(differ, min(len(offsets), len(due)))
                problems.append(f"partition {partition}: {len(offsets)} records seen, {len(due)} sent; from the "
                                f"{at}th on {offsets[at:at + 5]}, {due[at:at + 5]} was due")
        return problems


class Racks:
    """One run of all readers over one cluster."""

    def __init__(self, folder: Path, cluster: nodes.Cluster):
        self.cluster = cluster
        self._host = Host()
        self._sent = 0
        self._log = folder / "readers.log"
        self._readers: Dict[str, Reader] = {}
        self._problems: Dict[str, List[str]] = {kind: [] for kind in [*NEAR, FAR]}

    @staticmethod
    def names() -> List[str]:
        """Every case, in order."""
        return [f"racks: {kind}: {phase}" for phase in PHASES for kind in NEAR] + [FAR_CASE]

    def run(self) -> Iterator[Tuple[str, List[str], float]]:
        """All cases: name, problems, seconds, where one phase is that of all readers."""
        phases = [self._there, self._killed, self._back]
        for name, phase in zip(PHASES, phases):
            started = time.monotonic()
            phase()
            for kind in NEAR:
                yield f"racks: {kind}: {name}", self._take(kind), time.monotonic() - started
        started = time.monotonic()
        for kind, reader in self._readers.items():
            self._problems[FAR] += [f"{kind}: {problem}" for problem in reader.close()]
        yield FAR_CASE, self._take(FAR), time.monotonic() - started

    def close(self) -> None:
        """Ends what still runs."""
        for reader in self._readers.values():
            reader.kill()
        self._host.end()

    def _take(self, kind: str) -> List[str]:
        problems, self._problems[kind] = self._problems[kind], []
        return problems

    def _topics(self, *arguments: str) -> str:
        """kafka-topics."""
        code, lines = self._host.ask("run", str(TOOL_S), "", "org.apache.kafka.tools.TopicCommand",
                                     "--bootstrap-server", self.cluster.bootstrap, "--topic", TOPIC, *arguments)
        if code:
            raise broker.BrokerError(f"kafka-topics {' '.join(arguments)} ended with {code}: {lines[-5:]}")
        return "\n".join(lines)

    def _until(self, what: str, holds: Callable[[], object]) -> None:
        """Waits for something of the cluster."""
        deadline = time.monotonic() + WAIT_S
        while not holds():
            if time.monotonic() > deadline:
                raise broker.BrokerError(f"{what}: not within {WAIT_S} s")
            time.sleep(0.05)

    def _are_in_sync(self) -> bool:
        return len(re.findall(r"Isr: \d,\d,\d\s", self._topics("--describe"))) == PARTITIONS

    def _send(self, count: int, one_by_one: bool = False) -> subprocess.Popen:
        """Begins to send records to all partitions in turn."""
        self._sent += count
        words = [self.cluster.bootstrap, TOPIC, count, PARTITIONS, VALUE_BYTES, one_by_one]
        return subprocess.Popen([install.python(), "-c", SENDER, *map(str, words)], env=install.environment(),
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    @staticmethod
    def _end(sender: subprocess.Popen) -> None:
        _, said = sender.communicate(timeout=TOOL_S * 2)
        if sender.returncode:
            raise broker.BrokerError(f"records cannot be sent: {said[-500:]}")

    def _count(self, kind: str) -> int:
        return len(self._readers[kind].pairs("seen"))

    def _read(self) -> None:
        """Waits until each reader has seen everything; what it has not seen once and in order is its problem."""
        deadline = time.monotonic() + WAIT_S
        while any(self._count(kind) < self._sent for kind in self._readers) and time.monotonic() < deadline:
            time.sleep(0.05)
        for kind, reader in self._readers.items():
            self._problems[kind] += reader.problems(self._sent)

    def _from_where(self, kind: str, before: Dict[int, int], records: int) -> None:
        """Looks whether what has come since then came from the follower, or, for the far one, from the leaders."""
        due = records * VALUE_BYTES
        reader = self._readers[kind]

        def split() -> Tuple[int, int]:
            gained = {node: bytes - before.get(node, 0) for node, bytes in reader.received().items()}
            follower = gained.pop(FOLLOWER, 0)
            return (sum(gained.values()), follower) if kind == FAR else (follower, sum(gained.values()))

        deadline = time.monotonic() + WAIT_S
        while split()[0] < due and time.monotonic() < deadline:
            time.sleep(0.05)
        where, elsewhere = split()
        if where < due or elsewhere > due / 4:
            self._problems[kind].append(f"of records with {due} bytes, {where} came from where it is to read and "
                                        f"{elsewhere} from elsewhere: {reader.received()}, before {before}")

    def _tell_apart(self, records: int) -> None:
        """Sends records while all readers wait for more, and looks where they read them."""
        before = {kind: reader.received() for kind, reader in self._readers.items()}
        self._end(self._send(records))
        self._read()
        for kind in self._readers:
            self._from_where(kind, before[kind], records)

    def _there(self) -> None:
        """A topic with records, then its readers, then more records."""
        self._topics("--create", "--replica-assignment", "1:2:3,2:1:3")
        self._until("all replicas are in sync", self._are_in_sync)
        self._end(self._send(200))
        for kind in [*NEAR, FAR]:
            rack = "elsewhere" if kind == FAR else "c"
            self._readers[kind] = Reader(self._log, kind, self.cluster.bootstrap, TOPIC, str(PARTITIONS), rack)
        self._read()
        for kind in self._readers:
            self._from_where(kind, {}, 200)
        self._tell_apart(200)

    def _killed(self) -> None:
        """kill -9 while records come in one by one: the readers go on with the leaders."""
        begun = self._sent
        sender = self._send(400, one_by_one=True)
        self._until("some of the next records are seen", lambda: all(self._count(kind) > begun for kind in NEAR))
        self.cluster.act("kill", FOLLOWER)
        self._end(sender)
        self._read()

    def _back(self) -> None:
        """The follower starts again, and is asked again once it is in sync."""
        at_return = {kind: self._readers[kind].received().get(FOLLOWER, 0) for kind in NEAR}
        self.cluster.act("start", FOLLOWER)
        self._until("all replicas are in sync again", self._are_in_sync)

        def away() -> List[str]:
            self._end(self._send(PARTITIONS))
            due = VALUE_BYTES * PARTITIONS
            return [kind for kind in NEAR if self._readers[kind].received().get(FOLLOWER, 0) - at_return[kind] < due]

        deadline = time.monotonic() + WAIT_S
        while (missing := away()) and time.monotonic() < deadline:
            pass
        for kind in missing:
            self._problems[kind].append(f"it does not ask the follower again: {self._readers[kind].received()}")
        self._read()
        self._tell_apart(200)
