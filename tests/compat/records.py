"""The canonical form of a record, shared by the generator, the Python clients and the comparison.

A data file is a sequence of records, each an i32 length and that many bytes: an i64 timestamp, then the body:
key, value, and the headers with their count. Lengths are big-endian i32; -1 says null. The digest of a record
is taken over its body, so a client that confuses null with empty, or reorders headers, is caught.
The clients in other languages read and write the same form.
"""

import hashlib
import struct
from typing import BinaryIO, Iterator, NamedTuple, Optional

I32 = struct.Struct(">i")
I64 = struct.Struct(">q")


class Record(NamedTuple):
    """One record as a producer sees it; header values may be null, header names may repeat."""

    timestamp_ms: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: tuple


def _nullable(data: Optional[bytes]) -> bytes:
    return I32.pack(-1) if data is None else I32.pack(len(data)) + data


def body(key: Optional[bytes], value: Optional[bytes], headers) -> bytes:
    """The bytes that the digest covers."""
    parts = [_nullable(key), _nullable(value), I32.pack(len(headers))]
    for name, header_value in headers:
        parts.append(_nullable(name.encode()))
        parts.append(_nullable(header_value))
    return b"".join(parts)


def digest(body_bytes: bytes) -> str:
    """40 hex digits; SHA-1 because every runtime has it and only accidents have to be caught."""
    return hashlib.sha1(body_bytes).hexdigest()


def encode(record: Record) -> bytes:
    """A record as it stands in the data file, its length included."""
    payload = I64.pack(record.timestamp_ms) + body(record.key, record.value, record.headers)
    return I32.pack(len(payload)) + payload


def frames(file: BinaryIO) -> Iterator[bytes]:
    """The payloads of a data file: timestamp and body, undecoded."""
    while prefix := file.read(4):
        (length,) = I32.unpack(prefix)
        payload = file.read(length)
        if len(payload) != length:
            raise ValueError("the data file ends inside a record")
        yield payload


def decode(payload: bytes) -> Record:
    """The record in one payload of `frames`."""
    (timestamp_ms,) = I64.unpack_from(payload)
    at = 8

    def take() -> Optional[bytes]:
        nonlocal at
        (length,) = I32.unpack_from(payload, at)
        at += 4
        if length < 0:
            return None
        at += length
        return payload[at - length:at]

    key, value = take(), take()
    (count,) = I32.unpack_from(payload, at)
    at += 4
    headers = tuple(((take() or b"").decode(), take()) for _ in range(count))
    return Record(timestamp_ms, key, value, headers)


def without_nulls(record: Record) -> Record:
    """The record as kafka-python can send it: it refuses null header values, and a null value beside a null key."""
    value = b"" if record.key is None and record.value is None else record.value
    return record._replace(value=value, headers=tuple((name, data or b"") for name, data in record.headers))


def grouped(record: Record) -> Record:
    """The record as kafkajs can send it: headers by name, where each name first stands, and none of them null."""
    names = dict.fromkeys(name for name, _ in record.headers)
    headers = tuple((name, data or b"") for name in names for other, data in record.headers if other == name)
    return record._replace(headers=headers)
