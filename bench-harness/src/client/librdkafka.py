"""Writes or reads records with librdkafka, and says as one line of JSON how long that took.

    librdkafka.py write BOOTSTRAP TOPIC RECORDS BYTES
    librdkafka.py read BOOTSTRAP TOPIC RECORDS
"""

import json
import os
import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer

VALUES = 64
# One acknowledgement in this many is timed: each call into Python costs more than the record.
SAMPLE = 16
READ_S = 120


def fail(error):
    """Ends the run at the first error that the client reports as lasting."""
    if error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        sys.exit(f"librdkafka: {error}")


def write(bootstrap, topic, records, size):
    """Produces with default settings and waits for every acknowledgement."""
    producer = Producer({"bootstrap.servers": bootstrap, "error_cb": fail})
    producer.list_topics(topic, timeout=30)
    values = [os.urandom(size) for _ in range(VALUES)]
    delivered, latencies_ms = 0, []

    def told(error, message):
        nonlocal delivered
        if error:
            sys.exit(f"librdkafka: {error}")
        delivered += 1
        if delivered % SAMPLE == 0:
            latencies_ms.append(message.latency() * 1e3)

    start = time.monotonic()
    for number in range(records):
        while True:
            try:
                producer.produce(topic, values[number % VALUES], on_delivery=told)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 1_000 == 0:
            producer.poll(0)
    producer.flush(READ_S)
    seconds = time.monotonic() - start
    if delivered != records:
        sys.exit(f"librdkafka: {delivered} of {records} records were acknowledged")
    latencies_ms.sort()
    ranks = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    last = len(latencies_ms) - 1
    return seconds, {name: latencies_ms[round(last * rank)] * 1e3 for name, rank in ranks.items()}, records * size


def read(bootstrap, topic, records):
    """Consumes as a member of a group; the clock runs from the first records on, as in Kafka's own tool."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"read-{topic}", "auto.offset.reset": "earliest",
                         "check.crcs": True, "error_cb": fail})
    consumer.subscribe([topic])
    seen, size, start, end = 0, 0, None, time.monotonic() + READ_S
    while seen < records:
        if time.monotonic() > end:
            sys.exit(f"librdkafka: {seen} of {records} records came within {READ_S} s")
        messages = consumer.consume(10_000, 0.1)
        if messages and start is None:
            start = time.monotonic()
        for message in messages:
            if message.error():
                sys.exit(f"librdkafka: {message.error()}")
            size += len(message.value())
        seen += len(messages)
    seconds = time.monotonic() - start
    consumer.close()
    if seen != records:
        sys.exit(f"librdkafka: {seen} records came where {records} are")
    return seconds, None, size


def main():
    """One run."""
    work, bootstrap, topic, records = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if work == "write":
        seconds, latency_us, size = write(bootstrap, topic, records, int(sys.argv[5]))
    else:
        seconds, latency_us, size = read(bootstrap, topic, records)
    print(json.dumps({"records": records, "bytes": size, "seconds": seconds, "latency_us": latency_us}))


if __name__ == "__main__":
    main()
