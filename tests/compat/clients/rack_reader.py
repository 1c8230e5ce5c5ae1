"""A consumer in a rack, by confluent-kafka (librdkafka).

    rack_reader.py BOOTSTRAP TOPIC PARTITIONS RACK

It reads the partitions from their beginnings until standard input ends, and says line by line what it has seen, and how
many bytes it has received from each node so far:

    seen P:O P:O …      received NODE:BYTES …      closed      error WORDS
"""

import json
import select
import sys

from confluent_kafka import Consumer, TopicPartition


def say(*words) -> None:
    print(*words, flush=True)


def told_to_stop() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not sys.stdin.readline()


def received(statistics: str) -> None:
    """What came from each node; those below 0 are the addresses that it began with."""
    brokers = json.loads(statistics)["brokers"].values()
    say("received", *(f"{one['nodeid']}:{one['rxbytes']}" for one in brokers if one["nodeid"] > 0))


def read(bootstrap: str, topic: str, partitions: int, rack: str) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "client.rack": rack,
                         "group.id": "unused-by-assigned-partitions", "enable.auto.commit": False,
                         "auto.offset.reset": "error", "statistics.interval.ms": 200, "stats_cb": received})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    while not told_to_stop():
        messages = consumer.consume(100, timeout=0.2)
        good = [message for message in messages if not message.error()]
        if good:
            say("seen", *(f"{message.partition()}:{message.offset()}" for message in good))
    consumer.close()


if __name__ == "__main__":
    try:
        read(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
        say("closed")
    except Exception as error:  # whatever a client throws is an answer
        say("error", type(error).__name__, " ".join(str(error).split())[:1_000])
