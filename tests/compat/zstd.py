"""What a client that knows no zstd gets from a topic whose `compression.type` is zstd.

Kafka answers a Fetch below version 10 with UNSUPPORTED_COMPRESSION_TYPE where the topic's own configuration names
zstd. The error code is read off the wire, version by version; then the oldest Java client has to meet it.
"""

import socket
import struct
from typing import List, Tuple

import client
import matrix

UNSUPPORTED_COMPRESSION_TYPE = 76
VERSIONS = range(4, 11)
TOPIC = "only-zstd"
OLDEST_STALL_MS = 5_000
CASE = "zstd: a topic of compression.type zstd is refused to Fetch below version 10"


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
    """The case; the problems found."""
    case = matrix.Case("librdkafka", "zstd", 1, 0)
    error = (round_trip.topic(bootstrap, TOPIC, 1, **{"compression.type": "zstd"})
             or round_trip.write(bootstrap, TOPIC, case))
    if error:
        return [error]
    problems = []
    for version in VERSIONS:
        error, records = fetch(bootstrap, TOPIC, version)
        refused = error == UNSUPPORTED_COMPRESSION_TYPE and records <= 0
        served = error == 0 and records > 0
        if not (served if version >= 10 else refused):
            problems.append(f"Fetch {version} got error {error} and {records} bytes of records")
    problems += oldest_meets_it(bootstrap, round_trip)
    for reader in matrix.READERS:
        if reader != matrix.JAVA_OLDEST:
            problems += round_trip.read(bootstrap, TOPIC, reader, case)
    if error := round_trip.topic(bootstrap, TOPIC, 0):
        problems.append("deleting the topic: " + error)
    return problems


def oldest_meets_it(bootstrap: str, round_trip: matrix.RoundTrip) -> List[str]:
    """The oldest Java client has no name for the error; it warns of the code and asks again until we stop it."""
    oldest = client.Client(matrix.JAVA_OLDEST, round_trip.folder, **{"compat.stall.ms": OLDEST_STALL_MS})
    try:
        error = oldest.ask("read", bootstrap, TOPIC, 1, round_trip.folder / "read-oldest")
    finally:
        oldest.close()
    if not error:
        return [f"{matrix.JAVA_OLDEST} read a topic of zstd"]
    told = f"error code: {UNSUPPORTED_COMPRESSION_TYPE}"
    return [] if told in oldest.log_path.read_text(errors="replace") else [f"{matrix.JAVA_OLDEST}: {error}"]
