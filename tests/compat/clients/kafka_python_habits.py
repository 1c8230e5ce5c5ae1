"""The habits of kafka-python: producers and consumers. Those of its admin are in kafka_python_admin.py."""

import hashlib
import json
import logging
import threading
from typing import List, Set

import kafka_python_admin
import msgpack
from habit import Place, equal, fails, hold, serve, until
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import MessageSizeTooLargeError
from kafka.partitioner import Partitioner, murmur2
from kafka.structs import OffsetAndMetadata
from kafka_python_admin import topic_of

logging.basicConfig(level=logging.ERROR)
# As long as anything may take: a poll of kafka-python 3.0.12 that ends just when a join does loses the assignment for good.
POLL_MS = 30_000
# For those who poll beside waiting for something else, in a group that is stable.
GLANCE_MS = 100


def producer_of(place: Place, **settings) -> KafkaProducer:
    return place.opened(KafkaProducer(bootstrap_servers=place.bootstrap, **settings))


def consumer_of(place: Place, *topics, **settings) -> KafkaConsumer:
    """Starts at the beginning, commits nothing by itself, and ends when nothing comes for a while."""
    usual = {"auto_offset_reset": "earliest", "enable_auto_commit": False, "fetch_max_wait_ms": 50,
             "heartbeat_interval_ms": 100, "metadata_max_age_ms": 500}
    return place.opened(KafkaConsumer(*topics, bootstrap_servers=place.bootstrap, **{**usual, **settings}))


def fill(place: Place, topic: str, partitions: int, first: int, end: int) -> None:
    """The values first to end-1; value v goes to partition v % partitions."""
    with KafkaProducer(bootstrap_servers=place.bootstrap, acks="all") as producer:
        sent = [producer.send(topic, b"%d" % i, partition=i % partitions) for i in range(first, end)]
        producer.flush(timeout=30)
        for future in sent:
            future.get(timeout=30)


def read(consumer: KafkaConsumer, count: int) -> List:
    """Polls until that many records came; more is an error."""
    records: List = []

    def more() -> bool:
        for some in consumer.poll(timeout_ms=POLL_MS).values():
            records.extend(some)
        return len(records) >= count

    if count:
        until(f"{count} records come", more)
    equal("the number of records", len(records), count)
    return records


def everything(place: Place, topic: str, partitions: int, **settings) -> List:
    """All that a topic holds now."""
    consumer = consumer_of(place, **settings)
    all_of_it = [TopicPartition(topic, partition) for partition in range(partitions)]
    consumer.assign(all_of_it)
    consumer.seek_to_beginning(*all_of_it)
    count = sum(consumer.end_offsets(all_of_it).values()) - sum(consumer.beginning_offsets(all_of_it).values())
    return read(consumer, count)


def numbers(records) -> List[int]:
    return [int(record.value) for record in records]


def committed(place: Place, group: str, partition: TopicPartition):
    return consumer_of(place, group_id=group).committed(partition)


# Producers.


def futures(place: Place) -> None:
    topic = topic_of(place, 2)
    producer = producer_of(place)
    for i in range(20):
        at = producer.send(topic, b"value-%d" % i, key=b"key", partition=i % 2).get(timeout=30)
        equal("the place", (at.topic, at.partition, at.offset), (topic, i % 2, i // 2))
        equal("the sizes", (at.serialized_key_size, at.serialized_value_size), (3, len(b"value-%d" % i)))


def forgets(place: Place) -> None:
    topic = topic_of(place, 1)
    producer = producer_of(place)
    for i in range(500):
        producer.send(topic, b"%d" % i)
    producer.close(timeout=30)
    equal("what is there", numbers(everything(place, topic, 1)), list(range(500)))


def callbacks(place: Place) -> None:
    topic = topic_of(place, 1)
    producer = producer_of(place, max_request_size=10_000)
    heard, errors = [], []
    for i in range(100):
        producer.send(topic, b"%d" % i).add_callback(lambda at: heard.append(at.offset)).add_errback(errors.append)
    producer.flush(timeout=30)
    equal("the offsets heard", heard, list(range(100)))
    equal("the errors", errors, [])
    fails("a record above max_request_size", MessageSizeTooLargeError, lambda: producer.send(topic, b"x" * 20_000).get(timeout=30))


def refused(place: Place) -> None:
    topic = topic_of(place, 1, {"max.message.bytes": "1000"})
    producer = producer_of(place)
    errors = []
    future = producer.send(topic, b"x" * 5_000).add_errback(errors.append)
    fails("a record that is too large for the topic", MessageSizeTooLargeError, lambda: future.get(timeout=30))
    equal("what the errback heard", [type(error) for error in errors], [MessageSizeTooLargeError])
    # The idempotent producer cannot go on behind a sequence that is missing.
    equal("another one's offset", producer_of(place).send(topic, b"small").get(timeout=30).offset, 0)


def flushes(place: Place) -> None:
    topic = topic_of(place, 1)
    producer = producer_of(place, linger_ms=60_000, delivery_timeout_ms=120_000)
    sent = [producer.send(topic, b"%d" % i) for i in range(50)]
    equal("what has arrived", everything(place, topic, 1), [])
    hold("nothing is acknowledged", not any(future.is_done for future in sent))
    producer.flush(timeout=30)
    hold("all are acknowledged", all(future.succeeded() for future in sent))
    equal("what is there", numbers(everything(place, topic, 1)), list(range(50)))


def compresses(codec: str):
    def habit(place: Place) -> None:
        topic = topic_of(place, 1)
        producer = producer_of(place, compression_type=codec, linger_ms=50)
        for i in range(300):
            producer.send(topic, b"%d" % i + b" the same again" * (i % 40))
        producer.flush(timeout=30)
        rate = producer.metrics()["producer-metrics"]["compression-rate-avg"]
        hold(f"it is compressed: {rate}", rate < 0.5)
        equal("what is there", [record.value for record in everything(place, topic, 1)],
              [b"%d" % i + b" the same again" * (i % 40) for i in range(300)])
    return habit


def headers(place: Place) -> None:
    topic = topic_of(place, 1)
    sent = [("trace", b"\x00\x01"), ("empty", b""), ("trace", b"\x02"), ("Größe", "zwölf".encode())]
    producer_of(place).send(topic, b"value", headers=sent).get(timeout=30)
    equal("the headers", [tuple(one) for one in everything(place, topic, 1)[0].headers], sent)


def timestamps(place: Place) -> None:
    topic = topic_of(place, 1)
    at = producer_of(place).send(topic, b"value", timestamp_ms=1_500_000_000_123).get(timeout=30)
    equal("the acknowledged time", at.timestamp, 1_500_000_000_123)
    record = everything(place, topic, 1)[0]
    equal("the time and its type", (record.timestamp, record.timestamp_type), (1_500_000_000_123, 0))
    stamped = topic_of(place, 1, {"message.timestamp.type": "LogAppendTime"})
    at = producer_of(place).send(stamped, b"value", timestamp_ms=5).get(timeout=30)
    record = everything(place, stamped, 1)[0]
    equal("the time's type", record.timestamp_type, 1)
    equal("the acknowledged time of the broker", at.timestamp, record.timestamp)
    hold("the time is the broker's", record.timestamp > 1_700_000_000_000)


def by_key(place: Place) -> None:
    topic = topic_of(place, 5)
    producer = producer_of(place, key_serializer=str.encode, value_serializer=lambda n: b"%d" % n)
    for i in range(100):
        producer.send(topic, i, key=f"key-{i % 20}")
    producer.flush(timeout=30)
    equal("the partitions known", producer.partitions_for(topic), {0, 1, 2, 3, 4})
    by: dict = {}
    for record in everything(place, topic, 5):
        equal(f"the partition of {record.key}", record.partition, (murmur2(record.key) & 0x7FFFFFFF) % 5)
        by.setdefault(record.key, []).append(int(record.value))
    equal("the order by key", by, {b"key-%d" % k: list(range(k, 100, 20)) for k in range(20)})


def partitioner(place: Place) -> None:
    topic = topic_of(place, 3)

    class ByLength(Partitioner):
        def partition(self, topic, key, serialized_key, value, serialized_value, cluster):
            return len(serialized_key) % len(cluster.partitions_for_topic(topic))

    producer = producer_of(place, partitioner=ByLength())
    for length in range(1, 10):
        equal(f"the partition of {length} bytes", producer.send(topic, b"v", key=b"k" * length).get(timeout=30).partition, length % 3)


def acks(level):
    def habit(place: Place) -> None:
        topic = topic_of(place, 1)
        producer = producer_of(place, acks=level, enable_idempotence=level == "all", retries=5)
        sent = [producer.send(topic, b"%d" % i) for i in range(100)]
        producer.flush(timeout=30)
        offsets = [future.get(timeout=30).offset for future in sent]
        # Without an acknowledgement the client makes offsets up.
        equal("the offsets", offsets if level else list(range(100)), list(range(100)))
        consumer = consumer_of(place)
        consumer.assign([TopicPartition(topic, 0)])
        equal("what arrives", numbers(read(consumer, 100)), list(range(100)))
    return habit


def tombstones(place: Place) -> None:
    topic = topic_of(place, 1)
    producer_of(place).send(topic, key=b"gone", value=None).get(timeout=30)
    record = everything(place, topic, 1)[0]
    equal("the tombstone", (record.key, record.value), (b"gone", None))


def threads(place: Place) -> None:
    topic = topic_of(place, 1)
    producer = producer_of(place)

    def send(part: int) -> None:
        for i in range(100):
            producer.send(topic, b"%d" % (part * 100 + i))

    senders = [threading.Thread(target=send, args=(part,)) for part in range(4)]
    for one in senders:
        one.start()
    for one in senders:
        one.join()
    producer.flush(timeout=30)
    seen = numbers(everything(place, topic, 1))
    equal("what is there", sorted(seen), list(range(400)))
    for part in range(4):
        own = [value for value in seen if value // 100 == part]
        equal(f"the order of thread {part}", own, sorted(own))


def metrics(place: Place) -> None:
    topic = topic_of(place, 1)
    producer = producer_of(place)
    for i in range(10):
        producer.send(topic, b"%d" % i).get(timeout=30)
    sent = producer.metrics()
    hold("requests were measured", sent["producer-metrics"]["request-latency-avg"] > 0)
    hold("sends were measured", sent["producer-metrics"]["record-send-rate"] > 0)
    hold("the topic was measured", sent[f"producer-topic-metrics.{topic}"]["record-send-rate"] > 0)
    consumer = consumer_of(place, topic, group_id=place.name("group"))
    read(consumer, 10)
    consumer.commit()
    seen = consumer.metrics()
    hold("fetches were measured", seen["consumer-fetch-manager-metrics"]["records-consumed-rate"] > 0)
    hold("the group was measured", seen["consumer-coordinator-metrics"]["assigned-partitions"] == 1)


# Consumers.


def iterates(place: Place) -> None:
    topic = topic_of(place, 1)
    fill(place, topic, 1, 0, 50)
    seen = []
    for record in consumer_of(place, topic, group_id=place.name("group")):
        equal("the offset", record.offset, len(seen))
        seen.append(int(record.value))
        if len(seen) == 50:
            break
    equal("what is read", seen, list(range(50)))


def times_out(place: Place) -> None:
    topic = topic_of(place, 2)
    fill(place, topic, 2, 0, 20)
    # The loop ends by itself when nothing comes for three seconds, however long joining takes.
    consumer = consumer_of(place, topic, group_id=place.name("group"), consumer_timeout_ms=3_000)
    equal("what is read before the loop ends", sorted(numbers(consumer)), list(range(20)))
    fill(place, topic, 2, 20, 25)
    equal("what is read by the next loop", sorted(numbers(consumer)), list(range(20, 25)))


def pattern(place: Place) -> None:
    family = place.name("family")
    topic_of(place, 1, name=f"{family}.one")
    topic_of(place, 1, name=f"other-{family}.one")
    fill(place, f"{family}.one", 1, 0, 5)
    fill(place, f"other-{family}.one", 1, 100, 105)
    consumer = consumer_of(place, group_id=place.name("group"), metadata_max_age_ms=200)
    consumer.subscribe(pattern=f"^{family}\\.[a-z]+$")
    equal("what is read", numbers(read(consumer, 5)), list(range(5)))
    consumer.commit()
    topic_of(place, 1, name=f"{family}.two")
    fill(place, f"{family}.two", 1, 5, 9)
    equal("what is read of the new topic", numbers(read(consumer, 4)), list(range(5, 9)))
    equal("the subscription", consumer.subscription(), {f"{family}.one", f"{family}.two"})


def deserializer(place: Place, dump, load) -> None:
    topic = topic_of(place, 1)
    due = [{"id": i, "name": f"customer {i}", "tags": ["a", "ü"], "rate": i / 4, "none": None} for i in range(20)]
    producer = producer_of(place, value_serializer=dump)
    for one in due:
        producer.send(topic, one)
    producer.flush(timeout=30)
    consumer = consumer_of(place, topic, group_id=place.name("group"), value_deserializer=load)
    equal("the objects", [record.value for record in read(consumer, 20)], due)


def group_commit(place: Place) -> None:
    topic = topic_of(place, 2)
    group = place.name("group")
    fill(place, topic, 2, 0, 40)
    first = consumer_of(place, topic, group_id=group)
    read(first, 40)
    first.commit()
    first.close(autocommit=False)
    for partition in range(2):
        equal("what is committed", committed(place, group, TopicPartition(topic, partition)), 20)
    fill(place, topic, 2, 40, 50)
    second = consumer_of(place, topic, group_id=group)
    equal("what the next member reads", sorted(numbers(read(second, 10))), list(range(40, 50)))


def commits_given(place: Place) -> None:
    topic = topic_of(place, 1)
    group = place.name("group")
    partition = TopicPartition(topic, 0)
    fill(place, topic, 1, 0, 20)
    consumer = consumer_of(place, topic, group_id=group)
    read(consumer, 20)
    consumer.commit({partition: OffsetAndMetadata(7, "by hand", -1)})
    equal("what is committed", consumer_of(place, group_id=group).committed(partition, metadata=True)[:2], (7, "by hand"))
    heard = []
    consumer.commit_async({partition: OffsetAndMetadata(9, "", -1)}, callback=lambda offsets, answer: heard.append(answer))
    until("the callback", lambda: consumer.poll(timeout_ms=GLANCE_MS) is not None and heard)
    hold(f"it was no error: {heard}", not isinstance(heard[0], Exception))
    consumer.close(autocommit=False)
    equal("what the next member reads", numbers(read(consumer_of(place, topic, group_id=group), 11)), list(range(9, 20)))


def commits_automatically(place: Place) -> None:
    topic = topic_of(place, 1)
    group = place.name("group")
    partition = TopicPartition(topic, 0)
    fill(place, topic, 1, 0, 20)
    consumer = consumer_of(place, topic, group_id=group, enable_auto_commit=True, auto_commit_interval_ms=100)
    read(consumer, 20)
    watcher = consumer_of(place, group_id=group)
    until("the commit", lambda: consumer.poll(timeout_ms=GLANCE_MS) is not None and watcher.committed(partition) == 20)
    fill(place, topic, 1, 20, 30)
    read(consumer, 10)
    consumer.close()
    equal("what is committed when it closes", watcher.committed(partition), 30)


def times(place: Place) -> None:
    topic = topic_of(place, 1)
    partition = TopicPartition(topic, 0)
    producer = producer_of(place)
    for i in range(20):
        producer.send(topic, b"%d" % i, timestamp_ms=1_600_000_000_000 + i * 1_000)
    producer.flush(timeout=30)
    consumer = consumer_of(place)
    consumer.assign([partition])
    found = consumer.offsets_for_times({partition: 1_600_000_004_500})[partition]
    equal("the offset and its time", (found.offset, found.timestamp), (5, 1_600_000_005_000))
    equal("behind the last", consumer.offsets_for_times({partition: 1_700_000_000_000})[partition], None)
    consumer.seek(partition, found.offset)
    equal("what is read", numbers(read(consumer, 15)), list(range(5, 20)))


def seeks(place: Place) -> None:
    topic = topic_of(place, 1)
    partition = TopicPartition(topic, 0)
    fill(place, topic, 1, 0, 20)
    consumer = consumer_of(place)
    consumer.assign([partition])
    read(consumer, 20)
    consumer.seek_to_beginning(partition)
    equal("what is read from the beginning", numbers(read(consumer, 20)), list(range(20)))
    consumer.seek(partition, 15)
    equal("what is read from 15", numbers(read(consumer, 5)), list(range(15, 20)))
    consumer.seek_to_end(partition)
    equal("the position", consumer.position(partition), 20)
    fill(place, topic, 1, 20, 22)
    equal("what is read from the end", numbers(read(consumer, 2)), [20, 21])
    equal("the high watermark", consumer.highwater(partition), 22)


def pauses(place: Place) -> None:
    topic = topic_of(place, 2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    fill(place, topic, 2, 0, 20)
    consumer = consumer_of(place)
    consumer.assign([first, second])
    consumer.pause(first)
    equal("what is read beside the paused one", numbers(read(consumer, 10)), list(range(1, 20, 2)))
    equal("what is paused", consumer.paused(), {first})
    consumer.resume(first)
    equal("what is read then", numbers(read(consumer, 10)), list(range(0, 20, 2)))


def asks(place: Place) -> None:
    topic = topic_of(place, 3)
    fill(place, topic, 3, 0, 30)
    consumer = consumer_of(place)
    equal("the partitions", consumer.partitions_for_topic(topic), {0, 1, 2})
    hold("the topic is listed", topic in consumer.topics())
    partition = TopicPartition(topic, 1)
    equal("the beginning and the end", (consumer.beginning_offsets([partition]), consumer.end_offsets([partition])),
          ({partition: 0}, {partition: 10}))


class Member(ConsumerRebalanceListener):
    """A consumer of a group on a thread of its own, and what its listener was told."""

    def __init__(self, place: Place, topic: str, group: str, **settings):
        self.told: List = []
        self.seen: List[int] = []
        self.owns: Set[int] = set()
        self._place = place
        self._topic = topic
        self._closing = False
        self._consumer = KafkaConsumer(bootstrap_servers=place.bootstrap, group_id=group, enable_auto_commit=False,
                                       heartbeat_interval_ms=100, **{"auto_offset_reset": "earliest", **settings})
        self._consumer.subscribe([topic], listener=self)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        place.opened(self)

    def _run(self) -> None:
        while not self._closing:
            for some in self._consumer.poll(timeout_ms=POLL_MS).values():
                self.seen += numbers(some)
        self._consumer.close(autocommit=False)

    def on_partitions_revoked(self, revoked):
        self.told.append(("revoked", {one.partition for one in revoked}))
        self.owns = self.owns - {one.partition for one in revoked}

    def on_partitions_assigned(self, assigned):
        self.told.append(("assigned", {one.partition for one in assigned}))
        self.owns = self.owns | {one.partition for one in assigned}

    def close(self) -> None:
        """Leaves the group; a record ends its poll."""
        self._closing = True
        if self._thread.is_alive():
            with KafkaProducer(bootstrap_servers=self._place.bootstrap) as producer:
                for partition in self.owns:
                    producer.send(self._topic, b"-1", partition=partition)
        self._thread.join()


def settled(members: List[Member], partitions: int, least: int) -> None:
    """Waits until each partition has one owner, and each member at least `least`."""
    until("the group settles", lambda: sorted(one for member in members for one in member.owns) == list(range(partitions))
          and all(len(member.owns) >= least for member in members))


def shares(assignor):
    def habit(place: Place) -> None:
        topic = topic_of(place, 4)
        group = place.name("group")
        first = Member(place, topic, group, partition_assignment_strategy=[assignor])
        settled([first], 4, 4)
        second = Member(place, topic, group, partition_assignment_strategy=[assignor])
        settled([first, second], 4, 2)
        taken = set().union(*(of for what, of in first.told if what == "revoked"))
        hold(f"the first had to give what the second has: {first.told}", second.owns <= taken)
        fill(place, topic, 4, 0, 40)
        until("all are read", lambda: len(first.seen) + len(second.seen) >= 40)
        equal("the shares", [len(first.seen), len(second.seen)], [20, 20])
        equal("what is read", sorted(first.seen + second.seen), list(range(40)))
        second.close()
        settled([first], 4, 4)
    return habit


def latest(place: Place) -> None:
    topic = topic_of(place, 1)
    fill(place, topic, 1, 0, 5)
    member = Member(place, topic, place.name("group"), auto_offset_reset="latest")
    settled([member], 1, 1)
    # What comes before the position is known is not read.
    sent = 5

    def reads() -> bool:
        nonlocal sent
        fill(place, topic, 1, sent, sent + 1)
        sent += 1
        return bool(member.seen)

    until("records come", reads)
    until("all are read", lambda: member.seen[-1] == sent - 1)
    hold(f"they are the new ones: {member.seen}", member.seen == list(range(member.seen[0], sent)) and member.seen[0] >= 5)


def limits(place: Place) -> None:
    topic = topic_of(place, 1)
    fill(place, topic, 1, 0, 30)
    consumer = consumer_of(place, max_poll_records=7, check_crcs=True)
    consumer.assign([TopicPartition(topic, 0)])
    seen: List = []

    def more() -> bool:
        some = [record for records in consumer.poll(timeout_ms=POLL_MS).values() for record in records]
        hold("a poll gives 7 at most", len(some) <= 7)
        seen.extend(numbers(some))
        return len(seen) >= 30

    until("all are read", more)
    equal("what is read", seen, list(range(30)))


def large(place: Place) -> None:
    topic = topic_of(place, 1)
    digest = hashlib.sha1()
    producer = producer_of(place)
    for i in range(4):
        value = bytes([65 + i]) * 900_000
        digest.update(value)
        producer.send(topic, value).get(timeout=30)
    seen = hashlib.sha1()
    for record in everything(place, topic, 1, max_partition_fetch_bytes=10_000):
        seen.update(record.value)
    equal("the digest", seen.hexdigest(), digest.hexdigest())


HABITS = {
    "producer waits for futures": futures,
    "producer sends and forgets": forgets,
    "producer is called back": callbacks,
    "producer learns what the broker refuses": refused,
    "producer lingers until it is flushed": flushes,
    **{f"producer compresses by {codec}": compresses(codec) for codec in ("gzip", "snappy", "lz4", "zstd")},
    "producer sends headers": headers,
    "producer sends timestamps": timestamps,
    "producer partitions by key": by_key,
    "producer partitions by a class of its own": partitioner,
    **{f"producer sends with acks {level}": acks(level) for level in (0, 1, "all")},
    "producer sends tombstones": tombstones,
    "producer is used by threads": threads,
    "clients tell their metrics": metrics,
    "consumer is iterated over": iterates,
    "consumer ends after consumer_timeout_ms": times_out,
    "consumer subscribes by a regular expression": pattern,
    "consumer deserializes JSON": lambda place: deserializer(place, lambda one: json.dumps(one).encode(), json.loads),
    "consumer deserializes msgpack": lambda place: deserializer(place, msgpack.packb, msgpack.unpackb),
    "consumer commits in a group": group_commit,
    "consumer commits given offsets and asynchronously": commits_given,
    "consumer commits automatically": commits_automatically,
    "consumer finds offsets for times": times,
    "consumer seeks": seeks,
    "consumer pauses and resumes": pauses,
    "consumer asks for topics and partitions and offsets": asks,
    "consumers share by range": shares(RangePartitionAssignor),
    "consumers share by round robin": shares(RoundRobinPartitionAssignor),
    "consumers share stickily": shares(StickyPartitionAssignor),
    "consumer begins at the latest": latest,
    "consumer takes at most max_poll_records": limits,
    "consumer reads large records by small fetches": large,
    **kafka_python_admin.HABITS,
}

if __name__ == "__main__":
    serve("kafka-python", HABITS)
