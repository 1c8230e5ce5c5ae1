#!/usr/bin/env python3
"""Many groups: what each costs in memory, and how soon all are served again after a restart.

    tests/compat/many_groups.py                              10,000 groups with 5 committed partitions each
    tests/compat/many_groups.py --reference kafka            the same with Apache Kafka 4.3.1
    tests/compat/many_groups.py --compare 3                  both in turns, and a table
    tests/compat/many_groups.py --members                    each group has a member with an assignment
    tests/compat/many_groups.py --commits 50                 each has committed 50 times: a longer log to load

Requests are written and read here, byte for byte, so that the client costs next to nothing. After a restart a second
connection asks for ApiVersions again and again: its longest wait says whether loading holds up others.
"""

import argparse
import os
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import broker
import client
import install

TOPIC = "read-by-many"
IN_FLIGHT = 100
DEADLINE_S = 300
LOADING = 14
# Coordinators that are only just being made.
NOT_YET = (LOADING, 15, 16)
SESSION_MS = 1_800_000
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR, JOIN_GROUP, SYNC_GROUP, API_VERSIONS = 8, 9, 10, 11, 14, 18


def text(value: str) -> bytes:
    """A string with its length."""
    return struct.pack(">h", len(value)) + value.encode()


def blob(value: bytes) -> bytes:
    """Bytes with their length."""
    return struct.pack(">i", len(value)) + value


class Wire:
    """One connection; requests may overlap, answers come in their order."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, api: int, version: int, body: bytes) -> None:
        """Sends one request."""
        self._socket.sendall(blob(struct.pack(">hhi", api, version, 0) + text("many") + body))

    def receive(self) -> bytes:
        """The next answer's body."""
        head = self._file.read(8)
        if len(head) < 8:
            raise broker.BrokerError("the broker closed the connection")
        return self._file.read(struct.unpack(">i", head[:4])[0] - 4)

    def ask(self, api: int, version: int, body: bytes) -> bytes:
        """One request and its answer."""
        self.send(api, version, body)
        return self.receive()

    def ask_all(self, api: int, version: int, bodies: List[bytes]) -> Iterator[bytes]:
        """Many requests, some of them under way at a time; their answers in order."""
        for at, body in enumerate(bodies):
            self.send(api, version, body)
            if at >= IN_FLIGHT:
                yield self.receive()
        for _ in range(min(len(bodies), IN_FLIGHT)):
            yield self.receive()

    def close(self) -> None:
        """Closes it."""
        self._file.close()
        self._socket.close()


def commit(group: str, partitions: int, offset: int, member: str, generation: int) -> bytes:
    """OffsetCommit 2."""
    parts = b"".join(struct.pack(">iq", partition, offset + partition) + text("") for partition in range(partitions))
    return (text(group) + struct.pack(">i", generation) + text(member) + struct.pack(">qi", -1, 1) + text(TOPIC)
            + struct.pack(">i", partitions) + parts)


def fetch(group: str, partitions: int) -> bytes:
    """OffsetFetch 2."""
    return text(group) + struct.pack(">i", 1) + text(TOPIC) + struct.pack(f">i{partitions}i", partitions, *range(partitions))


def fetched(answer: bytes) -> Tuple[int, List[int]]:
    """Its error, and the offsets."""
    (error,) = struct.unpack(">h", answer[-2:])
    if error or struct.unpack(">i", answer[:4])[0] == 0:
        return error, []
    at = 4 + 2 + len(TOPIC)
    (count,) = struct.unpack_from(">i", answer, at)
    at, offsets = at + 4, []
    for _ in range(count):
        offset, length = struct.unpack_from(">qh", answer, at + 4)
        at += 14 + max(length, 0) + 2
        offsets.append(offset)
    return error, offsets


def found(answer: bytes) -> int:
    """The error of a FindCoordinator 0."""
    return struct.unpack(">h", answer[:2])[0]


def join(group: str) -> bytes:
    """JoinGroup 2, of a new member."""
    return (text(group) + struct.pack(">ii", SESSION_MS, SESSION_MS) + text("") + text("consumer") + struct.pack(">i", 1)
            + text("range") + blob(struct.pack(">hi", 0, 1) + text(TOPIC) + blob(b"")))


def joined(answer: bytes) -> Tuple[int, str]:
    """Generation and member id."""
    error, generation, length = struct.unpack_from(">hih", answer, 4)
    at = 4 + 8 + length
    (length,) = struct.unpack_from(">h", answer, at)
    at += 2 + length
    (length,) = struct.unpack_from(">h", answer, at)
    if error:
        raise broker.BrokerError(f"a member cannot join: error {error}")
    return generation, answer[at + 2:at + 2 + length].decode()


def sync(group: str, generation: int, member: str, partitions: int) -> bytes:
    """SyncGroup 1, of a leader that is alone."""
    assignment = (struct.pack(">hi", 0, 1) + text(TOPIC) + struct.pack(f">i{partitions}i", partitions, *range(partitions))
                  + blob(b""))
    return text(group) + struct.pack(">i", generation) + text(member) + struct.pack(">i", 1) + text(member) + blob(assignment)


class Probe(threading.Thread):
    """Asks a broker for ApiVersions until it is told to stop, and keeps the waits."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self.waits_ms: List[float] = []
        self._wire = Wire(port)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            self._wire.ask(API_VERSIONS, 0, b"")
            self.waits_ms.append((time.monotonic() - begun) * 1_000)
            time.sleep(0.001)

    def stop(self) -> None:
        """Ends it."""
        self._ended.set()
        self.join()
        self._wire.close()


def live_bytes(instance: broker.Broker) -> int:
    """Memory in use: of a JVM its heap after a collection, else what is resident and not of files."""
    if not isinstance(instance, broker.ReferenceBroker):
        return instance.resident_bytes()
    for command in ("GC.run", "GC.run"):
        subprocess.run(["jcmd", str(instance.pid), command], capture_output=True, check=True)
    told = subprocess.run(["jcmd", str(instance.pid), "GC.heap_info"], capture_output=True, text=True, check=True).stdout
    return sum(int(used) * 1024 for used in re.findall(r"(?:generation|heap)\s+total \d+K, used (\d+)K", told))


class Trial:
    """One broker with all the groups."""

    def __init__(self, instance: broker.Broker, folder: Path, options):
        self.broker = instance
        self.options = options
        self._folder = folder
        self.groups = [f"group-{number}" for number in range(options.groups)]

    def run(self) -> Dict[str, float]:
        """The figures."""
        topics = client.Client("topics", self._folder)
        try:
            self.broker.start()
            if error := topics.ask(self.broker.bootstrap, TOPIC, self.options.partitions):
                raise broker.BrokerError(error)
            figures = self._fill()
            self.broker.stop()
            figures |= {f"{what}, stopped": value for what, value in self._restart().items()}
            self.broker.kill()
            figures |= {f"{what}, killed": value for what, value in self._restart().items()}
            self.broker.stop()
            return figures
        except OSError as error:
            raise broker.BrokerError(f"{error}\n{self.broker.tail()}") from None
        finally:
            self.broker.kill()
            topics.close()

    def _fill(self) -> Dict[str, float]:
        wire = Wire(self.broker.port)
        while found(wire.ask(FIND_COORDINATOR, 0, text("group-0"))):
            time.sleep(0.05)
        # The first group of each coordinator, so that what a coordinator itself takes is not counted.
        self._fetch_all(wire, [-1] * self.options.partitions)
        resident, live, cpu = self.broker.resident_bytes(), live_bytes(self.broker), self.broker.cpu_s()
        members = [("", -1)] * len(self.groups)
        if self.options.members:
            answers = wire.ask_all(JOIN_GROUP, 2, [join(group) for group in self.groups])
            members = [(member, generation) for generation, member in map(joined, answers)]
            bodies = [sync(group, generation, member, self.options.partitions)
                      for group, (member, generation) in zip(self.groups, members)]
            for answer in wire.ask_all(SYNC_GROUP, 1, bodies):
                if error := struct.unpack(">h", answer[4:6])[0]:
                    raise broker.BrokerError(f"a member is not assigned anything: error {error}")
        begun = time.monotonic()
        for offset in range(1, self.options.commits + 1):
            bodies = [commit(group, self.options.partitions, offset, *member) for group, member in zip(self.groups, members)]
            for answer in wire.ask_all(OFFSET_COMMIT, 2, bodies):
                if any(struct.unpack_from(">h", answer, len(answer) - 6 * at - 2)[0] for at in range(self.options.partitions)):
                    raise broker.BrokerError("a commit is refused")
        commit_s, commit_cpu_s = time.monotonic() - begun, self.broker.cpu_s() - cpu
        wire.close()
        count = len(self.groups)
        # The log's own buffers and caches are written behind; the allocator gives back what is free.
        time.sleep(2)
        return {
            "resident bytes a group": (self.broker.resident_bytes() - resident) / count,
            "bytes in use a group": (live_bytes(self.broker) - live) / count,
            "commits a second": count * self.options.commits / commit_s,
            "CPU µs a commit": commit_cpu_s * 1e6 / count / self.options.commits,
        }

    def _fetch_all(self, wire: Wire, expected: List[int]) -> float:
        """Until every group has answered; the seconds. Whoever is being loaded is asked again."""
        begun, left = time.monotonic(), self.groups
        while left:
            answers = wire.ask_all(OFFSET_FETCH, 2, [fetch(group, self.options.partitions) for group in left])
            again = []
            for group, answer in zip(left, answers):
                error, offsets = fetched(answer)
                if error in NOT_YET:
                    again.append(group)
                elif error or offsets != expected:
                    raise broker.BrokerError(f"{group}: error {error}, offsets {offsets}, not {expected}")
            if time.monotonic() - begun > DEADLINE_S:
                raise broker.BrokerError(f"{len(again)} groups are not served within {DEADLINE_S} s")
            left = again
        return time.monotonic() - begun

    def _restart(self) -> Dict[str, float]:
        said = self.broker.log_path.stat().st_size
        begun = time.monotonic()
        self.broker.start()
        started_s = time.monotonic() - begun
        probe = Probe(self.broker.port)
        probe.start()
        wire = Wire(self.broker.port)
        expected = [self.options.commits + partition for partition in range(self.options.partitions)]
        self._fetch_all(wire, expected)
        served_s, cpu_s = time.monotonic() - begun, self.broker.cpu_s()
        again_s = self._fetch_all(wire, expected)
        probe.stop()
        wire.close()
        stalls = self.broker.log_path.read_bytes()[said:].decode(errors="replace").count("stall")
        return {"start to a connection": started_s, "start to every group served": served_s,
                "every group asked once more": again_s, "longest wait of another client (ms)": max(probe.waits_ms),
                "CPU s": cpu_s, "stalls said": stalls}


def trial(folder: Path, options, reference: bool) -> Dict[str, float]:
    """One broker of a kind."""
    settings = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": options.coordinators}
    if reference:
        instance: broker.Broker = broker.ReferenceBroker(folder, options.shards, overrides=settings)
    else:
        instance = broker.Broker(folder, options.shards, options.broker_cmd, settings)
    figures = Trial(instance, folder, options).run()
    name = "kafka" if reference else "tidemill"
    print(f"{name}: " + ", ".join(f"{what} {value:.2f}" for what, value in figures.items()), flush=True)
    return figures


def table(runs: List[Tuple[Dict[str, float], Dict[str, float]]]) -> str:
    """Medians and spreads as Markdown."""
    lines = ["| | kafka | tidemill |", "|---|---|---|"]
    for what in runs[0][0]:
        cells = []
        for side in (0, 1):
            values = sorted(run[side][what] for run in runs)
            cells.append(f"{statistics.median(values):.4g} ({values[0]:.4g}–{values[-1]:.4g})")
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    """One broker, or both in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--partitions", type=int, default=5, help="that each group commits")
    parser.add_argument("--commits", type=int, default=1, help="times that each group commits them")
    parser.add_argument("--members", action="store_true", help="each group has a member with an assignment")
    parser.add_argument("--coordinators", type=int, default=50, help="offsets.topic.num.partitions")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--compare", type=int, default=0, help="turns of both brokers")
    parser.add_argument("--reference", choices=["kafka"], help="Apache Kafka itself")
    parser.add_argument("--broker-cmd", help="how to start the broker; {config} is its properties file")
    options = parser.parse_args()
    install.ensure()
    base = install.ROOT / ".cache" / "compat" / "run"
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMPAT_TMP") or base) as name:
        folder = Path(name)
        if not options.compare:
            trial(folder / "broker", options, options.reference == "kafka")
            return 0
        runs = [(trial(folder / f"kafka-{turn}", options, True), trial(folder / f"tidemill-{turn}", options, False))
                for turn in range(options.compare)]
        print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
