#!/usr/bin/env python3
"""Records what real clients and Apache Kafka 4.3.1 say to each other about groups and administration.

    tests/compat/record.py FOLDER [--only PATTERN]

Every client of `clients/record/` works through groups, offsets, topics and configurations of a fresh Kafka behind a
proxy. Of each API, version and client one exchange is kept, the one with the most in it, as the two files that
tests/fixtures/wire/README.md describes.
"""

import argparse
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import broker
import install

RECORD = install.CLIENTS / "record"
# What tests/wire_frames.rs goes through; other frames are not kept.
APIS = {
    2: "list-offsets", 8: "offset-commit", 9: "offset-fetch", 10: "find-coordinator", 11: "join-group",
    12: "heartbeat", 13: "leave-group", 14: "sync-group", 15: "describe-groups", 16: "list-groups",
    19: "create-topics", 20: "delete-topics", 21: "delete-records", 23: "offset-for-leader-epoch",
    29: "describe-acls", 32: "describe-configs", 33: "alter-configs", 35: "describe-log-dirs",
    37: "create-partitions", 42: "delete-groups", 43: "elect-leaders", 44: "incremental-alter-configs",
    46: "list-partition-reassignments", 47: "offset-delete", 55: "describe-quorum", 57: "update-features",
    60: "describe-cluster", 61: "describe-producers", 68: "consumer-group-heartbeat", 69: "consumer-group-describe",
    74: "list-config-resources", 75: "describe-topic-partitions",
}
# Exchanges larger than this are not worth their bytes in a repository.
FRAME_BYTES_MAX = 4096


class Recorder:
    """A proxy that keeps the exchanges worth keeping."""

    def __init__(self, port: int, target: int):
        self.target = target
        self.kept = {}
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.target))
            waiting = {}
            for source, sink, seen in ((client, server, self.asked), (server, client, self.answered)):
                threading.Thread(target=self.pump, args=(source, sink, seen, waiting), daemon=True).start()

    @staticmethod
    def pump(source: socket.socket, sink: socket.socket, seen, waiting: dict) -> None:
        buffer = b""
        try:
            while data := source.recv(1 << 16):
                buffer += data
                while len(buffer) >= 4 and len(buffer) >= 4 + (length := struct.unpack(">i", buffer[:4])[0]):
                    # Before it is passed on: the answer must find it.
                    seen(buffer[:4 + length], waiting)
                    buffer = buffer[4 + length:]
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    @staticmethod
    def asked(frame: bytes, waiting: dict) -> None:
        key, version, correlation, length = struct.unpack(">hhih", frame[4:14])
        name = frame[14:14 + max(length, 0)].decode()
        waiting[correlation] = (key, version, name, frame)

    def answered(self, frame: bytes, waiting: dict) -> None:
        key, version, name, request = waiting.pop(struct.unpack(">i", frame[4:8])[0], (None,) * 4)
        if key not in APIS or max(len(request), len(frame)) > FRAME_BYTES_MAX:
            return
        client = re.match(r"[a-z]*", name.replace("consumer-", "")).group()
        at = f"{APIS[key]}-v{version}-{client}"
        with self.lock:
            old = self.kept.get(at)
            if old is None or len(request) + len(frame) > len(old[0]) + len(old[1]):
                self.kept[at] = (request, frame)


def clients() -> dict:
    """The command of each client, without the address."""
    def java(version: str, *arguments: str) -> list:
        return ["java", "-cp", f"{install.jars(version)}/*", *arguments]

    python = [install.python(), str(RECORD / "record.py")]
    # A member until its input ends; it reads the topic that the Java client before it has left.
    go = 'sleep 8 | "$0" member "$1" topic-java-4-3-1 "group-$2" range'
    return {
        "java-0.11.0.3": java("0.11.0.3", str(RECORD / "Groups.java")),
        "java-2.8.2": java("2.8.2", str(RECORD / "Groups.java")),
        "java-2.8.2-admin": java("2.8.2", str(RECORD / "Administration.java")),
        "java-4.3.1": java("4.3.1", str(RECORD / "Groups.java")),
        "java-4.3.1-admin": java("4.3.1", str(RECORD / "Administration.java")),
        "java-4.3.1-newest": java("4.3.1", str(RECORD / "Newest.java")),
        "librdkafka": [*python, "librdkafka"],
        "kafka-python": [*python, "kafka-python"],
        "kafkajs": ["node", str(RECORD / "record.js")],
        "franz-go": ["sh", "-c", go, str(install.GO / "client")],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="a pattern of clients' names")
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        port = broker.free_port()
        kafka = broker.ReferenceBroker(Path(folder), 1, overrides={
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}", "group.initial.rebalance.delay.ms": 0})
        kafka.start()
        recorder = Recorder(port, kafka.port)
        for name, command in clients().items():
            if not re.search(options.only, name):
                continue
            # A topic of its own for each: what one has done does not show in what the next is told.
            command = [*command, f"127.0.0.1:{port}", "topic-" + name.replace(".", "-")]
            started = time.monotonic()
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=install.environment(),
                                      stdin=subprocess.DEVNULL)
                said, code = done.stdout + done.stderr, done.returncode
            except subprocess.TimeoutExpired as error:
                said, code = str(error.stdout), "no end"
            print(f"{name}: {code}, {time.monotonic() - started:.0f} s")
            if code != 0:
                failed.append(name)
                print(said[-3000:])
        kafka.stop()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, exchange in recorder.kept.items():
        for part, frame in zip(("request", "response"), exchange):
            (options.folder / f"{name}-{part}.bin").write_bytes(frame)
    print(f"{len(recorder.kept)} exchanges in {options.folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
