"""A broker process for the tests: Tidemill, or Apache Kafka 4.3.1 as the reference that validates the suite."""

import os
import random
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import List, Optional

import install

READY_S = 180
STOP_S = 60
EPHEMERAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
CLUSTER_ID = "VGlkZW1pbGwtY29tcGF0LQ"


class BrokerError(Exception):
    """The broker did not start, died, or did not stop as it should."""


def free_port() -> int:
    """A port that nobody listens on now, below the range that outgoing connections take theirs from.

    A client that keeps connecting while the broker is down could otherwise be given the broker's own port as its
    source, and connect to itself.
    """
    while True:
        port = random.randrange(10_000, min(32_000, int(EPHEMERAL_PORTS.read_text().split()[0])))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def default_command() -> str:
    """The release build, where cargo leaves it."""
    target = os.environ.get("CARGO_TARGET_DIR") or str(install.ROOT / "target")
    return f"{target}/release/tidemill start {{config}}"


class Broker:
    """One broker on a folder of its own; it can be killed and started again on the same port and files."""

    expected_exit = 0

    def __init__(self, folder: Path, shards: int, command: Optional[str] = None, overrides: Optional[dict] = None):
        self.folder = folder
        self.shards = shards
        self.port = free_port()
        self.log_dir = folder / "data"
        self.log_path = folder / "broker.out"
        self.config = folder / "server.properties"
        self._command = command or default_command()
        self._process: Optional[subprocess.Popen] = None
        folder.mkdir(parents=True, exist_ok=True)
        properties = self.properties() | (overrides or {})
        lines = "".join(f"{key}={value}\n" for key, value in properties.items())
        # A property may lie in the broker's own folder.
        self.config.write_text(lines.replace("{folder}", str(folder)))

    @property
    def bootstrap(self) -> str:
        """Host and port for clients."""
        return f"127.0.0.1:{self.port}"

    def properties(self) -> dict:
        """No time retention: the data set's timestamps lie years back and must not make its records expire."""
        return {
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": self.log_dir,
            "log.retention.ms": -1,
            "shard.count": self.shards,
        }

    def argv(self) -> List[str]:
        """The command line that starts the broker in the foreground."""
        return [part.format(config=self.config) for part in shlex.split(self._command)]

    def start(self) -> None:
        """Starts the broker and waits until it accepts a connection."""
        with self.log_path.open("ab") as out:
            try:
                self._process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                                 cwd=install.ROOT, env=install.environment())
            except OSError as error:
                raise BrokerError(f"the broker cannot be run: {error}") from None
        deadline = time.monotonic() + READY_S
        while True:
            if self._process.poll() is not None:
                raise BrokerError(f"the broker ended with {self._process.returncode} at its start\n{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.kill()
                    raise BrokerError(f"the broker does not listen after {READY_S} s\n{self.tail()}") from None
                time.sleep(0.05)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def cpu_s(self) -> float:
        """CPU seconds that the process has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Its resident memory that is not of files."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) * 1024

    def freeze(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9; returns when the process is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._until_refused()

    def _until_refused(self) -> None:
        """Waits until nobody listens any more: the kernel takes a dead process's io_uring apart before it closes what is
        in it, and a client would connect to nobody."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                return
            time.sleep(0.005)

    def stop(self) -> None:
        """SIGTERM, and a clean end within the deadline."""
        if not self.alive():
            raise BrokerError(f"the broker died\n{self.tail()}")
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BrokerError(f"the broker did not stop within {STOP_S} s of SIGTERM\n{self.tail()}") from None
        self._until_refused()
        if code != self.expected_exit:
            raise BrokerError(f"the broker ended with {code} after SIGTERM\n{self.tail()}")

    def tail(self) -> str:
        """The last lines that the broker wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join("    | " + line for line in lines[-20:])


class ReferenceBroker(Broker):
    """Apache Kafka itself, one node in both roles. A JVM that obeys SIGTERM ends with 143."""

    expected_exit = 143
    # What kafka-storage is told beside the file.
    format_flags: List[str] = []

    def properties(self) -> dict:
        """What a single KRaft node needs beside the common part."""
        controller_port = free_port()
        common = super().properties()
        common.pop("shard.count")
        return common | {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
        }

    def argv(self) -> List[str]:
        """The broker's main class, from the same jars as the tools."""
        return install.java("kafka.Kafka", str(self.config), heap="1g", brief=True)

    def start(self) -> None:
        """Formats the folder first, as Kafka wants it."""
        if not self.log_dir.exists():
            tool = install.java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(self.config),
                                *self.format_flags, brief=True)
            done = subprocess.run(tool, capture_output=True, text=True, env=install.environment())
            if done.returncode != 0:
                raise BrokerError(f"kafka-storage format failed\n{done.stdout}{done.stderr}")
        super().start()


def make(folder: Path, shards: int, options, settings: Optional[dict] = None) -> Broker:
    """The broker that the command line asks for."""
    if options.reference == "kafka":
        return ReferenceBroker(folder, shards, overrides=settings)
    return Broker(folder, shards, options.broker_cmd, settings)
