"""Makes the real data set: lines and files that every machine has, as records of every shape a client can send.

The same machine always gives the same file. What differs between machines is the text; the shapes (keys, null
keys, headers, null and empty values, timestamps out of order, values of up to 900 kB) depend only on the
record's number.
"""

import argparse
import os
import random
import sysconfig
from pathlib import Path
from typing import Iterator, List

from records import Record, body, decode, digest, encode, frames, grouped, without_nulls

FULL_RECORDS = 200_000
BYTES_MAX = 100_000_000
LARGE_VALUE_BYTES_MAX = 900_000
LARGE_VALUES = 36
TIMESTAMP_BASE_MS = 1_700_000_000_000
SOURCES = ["/usr/share/dict", "/usr/share/common-licenses", "/var/log/dpkg.log", sysconfig.get_path("stdlib"),
           "/usr/lib/python3", "/usr/share/perl", "/usr/share/doc", "/usr/include"]
TEXT_BYTES_MAX = 24_000_000
FORMAT = 3


def source_files() -> Iterator[Path]:
    """Readable plain files below the sources, in a fixed order."""
    for source in SOURCES:
        if os.path.isfile(source):
            yield Path(source)
        for folder, folders, names in os.walk(source):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "site-packages"))
            for name in sorted(names):
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink() and not name.endswith((".pyc", ".so")):
                    yield path


def real_bytes() -> bytes:
    """Text of this machine, at most TEXT_BYTES_MAX; a small file's part of it is bounded so that many kinds are in."""
    parts: List[bytes] = []
    total = 0
    for path in source_files():
        try:
            data = path.read_bytes()[:400_000]
        except OSError:
            continue
        parts.append(data)
        total += len(data)
        if total >= TEXT_BYTES_MAX:
            break
    text = b"".join(parts)
    if not text:
        raise SystemExit("no readable file below " + ", ".join(SOURCES))
    return text


def headers_of(i: int, line: bytes) -> tuple:
    """Headers for one record in five: names that repeat, names beyond ASCII, empty and null values."""
    if i % 5:
        return ()
    headers = [("source", line[:16]), ("n", str(i).encode())]
    if i % 3 == 0:
        headers.append(("null", None))
    if i % 4 == 0:
        headers += [("empty", b""), ("n", b"again"), ("größe-量", bytes(range(i % 256)))]
    return tuple(headers)


def timestamp_of(i: int, rng: random.Random) -> int:
    """Mostly rising by about a second, with jitter; a few lie years back, as imported history does."""
    if i % 9_973 == 17:
        return 1 + i
    if i % 4_001 == 5:
        return TIMESTAMP_BASE_MS - 31_536_000_000 + i
    return TIMESTAMP_BASE_MS + i * 997 - rng.randrange(5_000)


def value_of(i: int, line: bytes, text: bytes, large: set, rng: random.Random):
    """The line itself mostly; null, empty, a few kilobytes, raw bytes and the few large ones at set places."""
    if i in large:
        size = LARGE_VALUE_BYTES_MAX if i == min(large) else rng.randrange(100_001, LARGE_VALUE_BYTES_MAX)
        start = rng.randrange(max(1, len(text) - size))
        return (text[start:start + size] * (size // max(1, len(text)) + 2))[:size]
    if i % 101 == 0:
        return None
    if i % 103 == 0:
        return b""
    if i % 53 == 0:
        start = rng.randrange(max(1, len(text) - 8_192))
        return text[start:start + rng.randrange(8_192)]
    if i % 211 == 0:
        return rng.randbytes(rng.randrange(2_048))
    return line


def records(count: int) -> Iterator[Record]:
    """`count` records; the large ones are spread over the whole, in the number that keeps a short set short."""
    text = real_bytes()
    lines = [line[:4_096] for line in text.split(b"\n")]
    rng = random.Random(count)
    large_count = max(2, min(LARGE_VALUES, LARGE_VALUES * count // 100_000))
    large = {(2 * n + 1) * count // (2 * large_count) for n in range(large_count)}
    for i in range(count):
        line = lines[i % len(lines)]
        key = None if i % 3 == 0 else b"" if i % 97 == 0 else b"%x-" % i + line[:24]
        value = value_of(i, line, text, large, rng)
        yield Record(timestamp_of(i, rng), key, value, headers_of(i, line))


def ensure(folder: Path, count: int) -> Path:
    """The data file of `count` records, made when it is not there yet."""
    path = folder / f"records-{FORMAT}-{count}.bin"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    total = 0
    with partial.open("wb") as file:
        for record in records(count):
            frame = encode(record)
            total += len(frame)
            file.write(frame)
    if total > BYTES_MAX:
        raise SystemExit(f"the data set has {total} bytes, more than {BYTES_MAX}")
    partial.rename(path)
    return path


FORMS = {"kafka-python": without_nulls, "kafkajs": grouped}


def expected(path: Path) -> tuple:
    """(timestamps, digests as written, {writer: digests of what this one can send}), by record number."""
    timestamps, exact = [], []
    reduced = {writer: [] for writer in FORMS}
    with path.open("rb") as file:
        for payload in frames(file):
            record = decode(payload)
            timestamps.append(record.timestamp_ms)
            exact.append(digest(payload[8:]))
            for writer, form in FORMS.items():
                sent = form(record)
                reduced[writer].append(exact[-1] if sent == record else digest(body(*sent[1:])))
    return timestamps, exact, reduced


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=FULL_RECORDS)
    parser.add_argument("--folder", type=Path, default=Path("."))
    arguments = parser.parse_args()
    print(ensure(arguments.folder, arguments.records))
