"""The commands and the notes that all clients share; this is the Python clients' part of it.

A client is one process for many topics. It says "ready" and the codecs that it has, then obeys one line of
tab-separated words after the other and answers each with one line, "ok" or "error" and what went wrong:

    write BOOTSTRAP TOPIC PARTITIONS CODEC DATA NOTES   sends record i to partition i % PARTITIONS, idempotently; NOTES
                                                        gets a line "partition offset" per record, in DATA's order
    read BOOTSTRAP TOPIC PARTITIONS NOTES               reads each partition from 0 to the end it has; NOTES.PARTITION
                                                        gets a line "offset timestamp digest" per record, as they come
"""

import sys
import time
from pathlib import Path
from typing import Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from records import body, decode, digest, frames  # noqa: E402 - the folder above holds it

STALL_S = 60


class ClientError(Exception):
    """The client did not do what it was told."""


class Writer:
    """What a writing client gets: the records with their partitions, and a place for the acknowledged offsets."""

    def __init__(self, bootstrap: str, topic: str, partitions: str, codec: str, data: str, notes: str):
        self.bootstrap = bootstrap
        self.topic = topic
        self.partitions = int(partitions)
        self.codec = codec
        self._data = data
        self._out = open(notes, "w", encoding="ascii")

    def records(self) -> Iterator[tuple]:
        """(record, partition) in the order of the data set."""
        with open(self._data, "rb") as file:
            for i, payload in enumerate(frames(file)):
                yield decode(payload), i % self.partitions

    def acknowledged(self, partition: int, offset: int) -> None:
        """Notes the next record's place; called in the order of the data set."""
        self._out.write(f"{partition} {offset}\n")

    def close(self) -> None:
        """Makes the notes complete."""
        self._out.close()


class Reader:
    """What a reading client gets: a place for the records, and the word when all have come."""

    def __init__(self, bootstrap: str, topic: str, partitions: str, notes: str):
        self.bootstrap = bootstrap
        self.topic = topic
        self.partitions = range(int(partitions))
        self._outs = [open(f"{notes}.{partition}", "w", encoding="ascii") for partition in self.partitions]
        self._left = {}
        self._progress = time.monotonic()

    def expect(self, partition: int, offset_end: int) -> None:
        """Reading this partition ends at `offset_end`."""
        if offset_end > 0:
            self._left[partition] = offset_end

    def record(self, partition: int, offset: int, timestamp_ms: int, key, value, headers) -> None:
        """Notes one record as the client gave it out."""
        self._outs[partition].write(f"{offset} {timestamp_ms} {digest(body(key, value, headers))}\n")
        self._progress = time.monotonic()
        if offset + 1 >= self._left.get(partition, 0):
            self._left.pop(partition, None)

    def finished(self) -> bool:
        """True when every partition is read to its end; a reader that gets nothing for a minute is stuck."""
        if self._left and time.monotonic() - self._progress > STALL_S:
            raise ClientError(f"no record for {STALL_S} s; still to be read to their ends: {self._left}")
        return not self._left

    def close(self) -> None:
        """Makes the notes complete."""
        for out in self._outs:
            out.close()


def obey(words: list, write: Callable, read: Callable) -> None:
    """Runs one command."""
    command, *arguments = words
    side = {"write": Writer, "read": Reader}[command](*arguments)
    try:
        (write if command == "write" else read)(side)
    finally:
        side.close()


def main(write: Callable, read: Callable) -> None:
    """Obeys until standard input ends."""
    print("ready none,gzip,snappy,lz4,zstd", flush=True)
    for line in sys.stdin:
        try:
            obey(line.rstrip("\n").split("\t"), write, read)
            print("ok", flush=True)
        except Exception as error:  # whatever a client throws is an answer
            print("error", type(error).__name__, " ".join(str(error).split())[:2_000], flush=True)
