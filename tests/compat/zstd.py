"""What a client that knows no zstd gets: from a topic whose `compression.type` is zstd, and of batches that a producer sent.

A Fetch below version 10 gets UNSUPPORTED_COMPRESSION_TYPE where the topic's own configuration names zstd, as from Kafka
2.1 to 3.9; a Fetch 5 to 9 also where a batch is of zstd. The error code is read off the wire, version by version;
then the oldest Java client has to meet it.
"""

import socket
import struct
from typing import List, Tuple

import client
import matrix

UNSUPPORTED_COMPRESSION_TYPE = 76
VERSIONS = range(4, 11)
OLDEST_STALL_MS = 5_000
CASE = "zstd: topics and batches of zstd are refused to fetches that cannot know it"


def fetch_request(topic: str, version: int) -> bytes:
    """A Fetch of partition 0 from offset 0, in one of the versions before flexible ones."""
    name = struct.pack(">h", len(topic)) + topic.encode()
    frame = struct.pack(">hhih", 1, version, 7, 6) + b"compat"
    frame += struct.pack(">iiiib", -1, 500, 1, 1 << 20, 0)
    if version >= 7:
        frame += struct.pack(">ii", 0, -1)
    frame += struct.pack(">i", 1) + name + struct.pack(">ii", 1, 0)
    if version >= 9:
        frame += struct.pack(">i", -1)
    frame += struct.pack(">q", 0)
    if version >= 5:
        frame += struct.pack(">q", -1)
    frame += struct.pack(">i", 1 << 20)
    if version >= 7:
        frame += struct.pack(">i", 0)
    return struct.pack(">i", len(frame)) + frame


def fetch(bootstrap: str, topic: str, version: int) -> Tuple[int, int]:
    """(error code of the partition, length of its records)."""
    host, port = bootstrap.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(fetch_request(topic, version))
        stream = connection.makefile("rb")
        (length,) = struct.unpack(">i", stream.read(4))
        answer = stream.read(length)
    at = 8 + (6 if version >= 7 else 0) + 4 + 2 + len(topic) + 4
    _, error = struct.unpack_from(">ih", answer, at)
    at += 6 + 8 + 8 + (8 if version >= 5 else 0)
    (aborted,) = struct.unpack_from(">i", answer, at)
    (records,) = struct.unpack_from(">i", answer, at + 4 + 16 * max(aborted, 0))
    return error, records


def check(bootstrap: str, round_trip: matrix.RoundTrip) -> List[str]:
    """The case; the problems found. `only-zstd` says zstd itself; to `sent-as-zstd` a producer sent it."""
    case = matrix.Case("librdkafka", "zstd", 1, 0)
    problems = []
    for topic, settings, refused in [("only-zstd", {"compression.type": "zstd"}, range(4, 10)),
                                     ("sent-as-zstd", {}, range(5, 10))]:
        error = round_trip.topic(bootstrap, topic, 1, **settings) or round_trip.write(bootstrap, topic, case)
        if error:
            return problems + [error]
        for version in VERSIONS:
            error, records = fetch(bootstrap, topic, version)
            as_expected = (error == UNSUPPORTED_COMPRESSION_TYPE and records <= 0 if version in refused
                           else error == 0 and records > 0)
            if not as_expected:
                problems.append(f"{topic}: Fetch {version} got error {error} and {records} bytes of records")
        problems += oldest_meets_it(bootstrap, topic, round_trip)
        for reader in matrix.READERS:
            if reader != matrix.JAVA_OLDEST:
                problems += round_trip.read(bootstrap, topic, reader, case)
        if error := round_trip.topic(bootstrap, topic, 0):
            problems.append("deleting the topic: " + error)
    return problems


def oldest_meets_it(bootstrap: str, topic: str, round_trip: matrix.RoundTrip) -> List[str]:
    """The oldest Java client has no name for the error; it warns of the code and asks again until we stop it."""
    oldest = client.Client(matrix.JAVA_OLDEST, round_trip.folder, **{"compat.stall.ms": OLDEST_STALL_MS})
    try:
        error = oldest.ask("read", bootstrap, topic, 1, round_trip.folder / "read-oldest")
    finally:
        oldest.close()
    if not error:
        return [f"{matrix.JAVA_OLDEST} read {topic}"]
    told = f"error code: {UNSUPPORTED_COMPRESSION_TYPE}"
    return [] if told in oldest.log_path.read_text(errors="replace") else [f"{matrix.JAVA_OLDEST}: {error}"]
