"""The command line and the files that both Python clients share.

`write` sends record i to partition i % partitions and leaves one line "partition offset" per record, in the
order of the data set. `read` leaves one line "partition offset timestamp digest" per record, in the order of
arrival.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from records import body, decode, digest, frames  # noqa: E402 - the folder above holds it

STALL_S = 60


class Writer:
    """What a writing client gets: the records with their partitions, and a place for the acknowledged offsets."""

    def __init__(self, options):
        self.options = options
        self._out = open(options.out, "w", encoding="ascii")

    def records(self) -> Iterator[tuple]:
        """(record, partition) in the order of the data set."""
        with open(self.options.data, "rb") as file:
            for i, payload in enumerate(frames(file)):
                yield decode(payload), i % self.options.partitions

    def acknowledged(self, partition: int, offset: int) -> None:
        """Notes the next record's place; called in the order of the data set."""
        self._out.write(f"{partition} {offset}\n")

    def close(self) -> None:
        """Makes the notes complete."""
        self._out.close()


class Reader:
    """What a reading client gets: a place for the records, and the word when all have come."""

    def __init__(self, options):
        self.options = options
        self._out = open(options.out, "w", encoding="ascii")
        self._left = {}
        self._progress = time.monotonic()

    def expect(self, partition: int, offset_end: int) -> None:
        """Reading this partition ends at `offset_end`."""
        if offset_end > 0:
            self._left[partition] = offset_end

    def record(self, partition: int, offset: int, timestamp_ms: int, key, value, headers) -> None:
        """Notes one record as the client gave it out."""
        line = digest(body(key, value, headers))
        self._out.write(f"{partition} {offset} {timestamp_ms} {line}\n")
        self._progress = time.monotonic()
        if offset + 1 >= self._left.get(partition, 0):
            self._left.pop(partition, None)

    def finished(self) -> bool:
        """True when every partition is read to its end; a reader that gets nothing for a minute is stuck."""
        if self._left and time.monotonic() - self._progress > STALL_S:
            raise SystemExit(f"no record for {STALL_S} s; still to be read to their ends: {self._left}")
        return not self._left

    def close(self) -> None:
        """Makes the notes complete."""
        self._out.close()


def main(write: Callable, read: Callable) -> int:
    """Runs one of the two commands; 0 when it went through."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write")
    writing.add_argument("--data", required=True)
    writing.add_argument("--partitions", type=int, required=True)
    writing.add_argument("--codec", default="none", choices=["none", "gzip", "snappy", "lz4", "zstd"])
    writing.add_argument("--acks", default="all")
    writing.add_argument("--idempotent", action="store_true")
    reading = commands.add_parser("read")
    reading.add_argument("--partition-list", required=True, type=lambda text: [int(n) for n in text.split(",")])
    for command in (writing, reading):
        command.add_argument("--bootstrap", required=True)
        command.add_argument("--topic", required=True)
        command.add_argument("--out", required=True)
    options = parser.parse_args()
    side = Writer(options) if options.command == "write" else Reader(options)
    (write if options.command == "write" else read)(side)
    side.close()
    return 0
