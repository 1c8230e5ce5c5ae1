"""The brokers of the chaos test: three nodes of both roles, each on a host of its own, with a small disk of its own.

The disk of the logs is a tmpfs: it can be made full by shrinking it to what is on it, and lost by wiping it while the
node is down. The metadata has another directory, so that a node that lost its logs is still the voter that it was.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional

from network import Network, command

CLUSTER_ID = "VGlkZW1pbGwtY2hhb3MhIQ"
DIRECTORIES = ["JEXY6aqzQY-32P5TStzaFg", "MvDxzVmcRsaTz33bUuRU6A", "07R5amHmR32VDA6jHkGbTA"]
DISK = "512m"
READY_S = 60
STOP_S = 60


class ChaosError(Exception):
    """The cluster did what it must not do."""


def dies_with_parent() -> None:
    """In a child: the kernel kills it when the test ends, however it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Node:
    """One node."""

    def __init__(self, number: int, folder: Path, network: Network, shards: int, program: str):
        self.number = number
        self.host = f"b{number}"
        self.folder = folder / f"node-{number}"
        self.disk = self.folder / "logs"
        self.output = self.folder / "broker.out"
        self._config = self.folder / "server.properties"
        self._network = network
        self._program = program
        self._process: Optional[subprocess.Popen] = None
        self._is_mounted = False
        self._shards = shards

    @property
    def address(self) -> str:
        """For clients."""
        return f"{self._network.addresses[self.host]}:9092"

    def make(self, nodes: int) -> None:
        """Makes its disk and its configuration, and formats it."""
        self.disk.mkdir(parents=True)
        command("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(self.disk))
        self._is_mounted = True
        controllers = [f"{self._network.addresses[f'b{number}']}:9093" for number in range(1, nodes + 1)]
        own = self._network.addresses[self.host]
        properties = {
            "process.roles": "broker,controller",
            "node.id": self.number,
            "listeners": f"PLAINTEXT://{own}:9092,CONTROLLER://{own}:9093",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": ",".join(controllers),
            "log.dirs": self.disk / "data",
            "metadata.log.dir": self.folder / "metadata",
            "shard.count": self._shards,
            "shard.cpus": (self.number - 1) % (os.cpu_count() or 1) if self._shards == 1 else "all",
            "broker.session.timeout.ms": 3_000,
            "broker.heartbeat.interval.ms": 300,
            "replica.lag.time.max.ms": 5_000,
            "offsets.topic.replication.factor": min(3, nodes),
            "offsets.topic.num.partitions": 4,
            "log.segment.bytes": 4 << 20,
            "log.retention.ms": -1,
            "group.initial.rebalance.delay.ms": 0,
        }
        self._config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        voters = ",".join(f"{number}@{endpoint}:{directory}"
                          for number, endpoint, directory in zip(range(1, nodes + 1), controllers, DIRECTORIES))
        self._format("-I", voters)

    def _format(self, *flags: str) -> None:
        command(self._program, "format", "-c", str(self._config), "-t", CLUSTER_ID, *flags)

    def start(self) -> None:
        """Starts the process, and does not wait for it."""
        argv = self._network.inside(self.host, [self._program, "start", str(self._config)])
        with self.output.open("ab") as out:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                             preexec_fn=dies_with_parent)

    def lines(self, text: str) -> int:
        """How often it has said something."""
        return self.output.read_text(errors="replace").count(text) if self.output.exists() else 0

    def await_ready(self, times: int) -> None:
        """Waits until it has said so many times that it is ready."""
        deadline = time.monotonic() + READY_S
        while self.lines("ready on") < times:
            if self._process.poll() is not None:
                raise ChaosError(f"node {self.number} ended with {self._process.returncode} at its start\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ChaosError(f"node {self.number} is not ready after {READY_S} s\n{self.tail()}")
            time.sleep(0.02)

    def restart(self) -> None:
        """Starts it again and waits until it is ready."""
        before = self.lines("ready on")
        self.start()
        self.await_ready(before + 1)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def check(self) -> None:
        """Fails when the process has ended by itself."""
        if not self.alive():
            code = self._process.returncode if self._process else None
            raise ChaosError(f"node {self.number} ended by itself with {code}\n{self.tail()}")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        self.check()
        self.signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChaosError(f"node {self.number} did not stop within {STOP_S} s of SIGTERM\n{self.tail()}") from None
        if code != 0:
            raise ChaosError(f"node {self.number} ended with {code} after SIGTERM\n{self.tail()}")

    def fill_disk(self) -> None:
        """Makes the disk as small as what is on it, or so nearly that the load fills it."""
        for slack in range(0, 4 << 20, 64 << 10):
            told = os.statvfs(self.disk)
            size = (told.f_blocks - told.f_bfree) * told.f_frsize + slack
            made = subprocess.run(["mount", "-o", f"remount,size={size}", str(self.disk)], capture_output=True)
            # What is written between the two lines is more than fits.
            if made.returncode == 0:
                return
        raise RuntimeError(f"the disk of node {self.number} cannot be made smaller: {made.stderr.decode()}")

    def free_bytes(self) -> int:
        """What is free on it."""
        told = os.statvfs(self.disk)
        return told.f_bavail * told.f_frsize

    def free_disk(self) -> None:
        """Gives it its size again."""
        command("mount", "-o", f"remount,size={DISK}", str(self.disk))

    def lose_disk(self) -> int:
        """Wipes it while the node is down, and formats the new one; how many bytes of logs were lost."""
        lost = sum(file.stat().st_size for file in self.disk.rglob("*.log"))
        shutil.rmtree(self.disk / "data")
        self._format("-N", "--ignore-formatted")
        return lost

    def logs(self, topic: str) -> Dict[int, bytes]:
        """What its replicas of a topic hold: whole batches, by partition."""
        found = {}
        for folder in sorted((self.disk / "data").glob(f"{topic}-*")):
            if folder.name[len(topic) + 1:].isdigit():
                parts = [batches(file.read_bytes()) for file in sorted(folder.glob("*.log"))]
                found[int(folder.name[len(topic) + 1:])] = b"".join(parts)
        return found

    def end(self) -> None:
        """Ends the process and takes its disk away."""
        self.kill()
        if self._is_mounted:
            subprocess.run(["umount", "-l", str(self.disk)], capture_output=True)
            self._is_mounted = False

    def tail(self) -> str:
        """The last lines that it wrote."""
        lines = self.output.read_text(errors="replace").splitlines() if self.output.exists() else []
        return "\n".join("    | " + line for line in lines[-20:])


def batches(file: bytes) -> bytes:
    """What of a file are batches; blocks may be reserved behind them."""
    end = 0
    while end + 12 <= len(file):
        length = int.from_bytes(file[end + 8:end + 12], "big")
        if length == 0 or end + 12 + length > len(file):
            break
        end += 12 + length
    return file[:end]


def replicas_differ(nodes: List[Node], topic: str) -> List[str]:
    """How the files of stopped nodes differ: all replicas hold the same batches."""
    logs = {node.number: node.logs(topic) for node in nodes}
    problems = []
    for partition in sorted({partition for of in logs.values() for partition in of}):
        sizes = {number: len(of.get(partition, b"")) for number, of in logs.items()}
        if len({of.get(partition) for of in logs.values()}) > 1:
            problems.append(f"diverged: the replicas of partition {partition} differ, bytes by node: {sizes}")
    return problems or ([] if any(logs.values()) else ["diverged: no replica is found on any disk"])
