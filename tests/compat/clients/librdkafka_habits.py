"""The habits of confluent-kafka, which is librdkafka."""

from typing import List

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
                                   ResourceType)
from habit import Place, equal, fails, hold, serve, until


class Closing:
    """Gives a producer or an admin the `close` that it has not."""

    def __init__(self, close):
        self.close = close


def producer_of(place: Place, **settings) -> Producer:
    producer = Producer({"bootstrap.servers": place.bootstrap, **{key.replace("_", "."): value for key, value in settings.items()}})
    place.opened(Closing(lambda: producer.flush(10)))
    return producer


def consumer_of(place: Place, group: str, **settings) -> Consumer:
    usual = {"auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 50, "heartbeat.interval.ms": 100,
             "topic.metadata.refresh.interval.ms": 300}
    more = {key if key == "on_commit" else key.replace("_", "."): value for key, value in settings.items()}
    return place.opened(Consumer({"bootstrap.servers": place.bootstrap, "group.id": group, **usual, **more}))


def admin_of(place: Place) -> AdminClient:
    return AdminClient({"bootstrap.servers": place.bootstrap})


def topic_of(place: Place, partitions: int, name: str = "", **configs) -> str:
    name = name or place.name("topic")
    admin = admin_of(place)
    wanted = NewTopic(name, partitions, 1, config={key.replace("_", "."): value for key, value in configs.items()})
    admin.create_topics([wanted])[name].result(30)

    def led() -> bool:
        seen = admin.list_topics(name, timeout=10).topics[name].partitions
        return len(seen) == partitions and all(one.leader >= 0 for one in seen.values())

    until("all partitions are led", led)
    return name


def fill(place: Place, topic: str, partitions: int, first: int, end: int) -> None:
    producer = Producer({"bootstrap.servers": place.bootstrap})
    for i in range(first, end):
        producer.produce(topic, b"%d" % i, partition=i % partitions)
    equal("what is left to send", producer.flush(30), 0)


def read(consumer: Consumer, count: int) -> List:
    records: List = []

    def more() -> bool:
        for record in consumer.consume(500, timeout=0.2):
            hold(f"it is no error: {record.error()}", not record.error())
            records.append(record)
        return len(records) >= count

    until(f"{count} records come", more)
    equal("the number of records", len(records), count)
    return records


def numbers(records) -> List[int]:
    return [int(record.value()) for record in records]


def deliveries(place: Place) -> None:
    topic = topic_of(place, 2)
    producer = producer_of(place, linger_ms=5)
    heard, errors = [], []

    def delivered(error, record) -> None:
        (errors if error else heard).append(error or (record.partition(), record.offset(), int(record.value())))

    for i in range(100):
        producer.produce(topic, b"%d" % i, key=b"key", partition=i % 2, headers=[("n", b"%d" % i)], on_delivery=delivered)
        producer.poll(0)
    equal("what is left", producer.flush(30), 0)
    equal("the errors", errors, [])
    equal("the places", sorted(heard), sorted((i % 2, i // 2, i) for i in range(100)))
    consumer = consumer_of(place, place.name("group"))
    consumer.subscribe([topic])
    for record in read(consumer, 100):
        equal("the headers", record.headers(), [("n", record.value())])


def too_large(place: Place) -> None:
    topic = topic_of(place, 1, max_message_bytes="1000")
    producer = producer_of(place)
    errors = []
    producer.produce(topic, b"x" * 5_000, on_delivery=lambda error, _: errors.append(error))
    producer.flush(30)
    equal("the error", [error.code() for error in errors], [KafkaError.MSG_SIZE_TOO_LARGE])


def compresses(codec: str):
    def habit(place: Place) -> None:
        topic = topic_of(place, 1)
        producer = producer_of(place, compression_type=codec, linger_ms=50, enable_idempotence=True)
        for i in range(300):
            producer.produce(topic, b"%d" % i, timestamp=1_600_000_000_000 + i)
        producer.flush(30)
        consumer = consumer_of(place, place.name("group"))
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        records = read(consumer, 300)
        equal("what is there", numbers(records), list(range(300)))
        equal("the times", [record.timestamp()[1] for record in records], [1_600_000_000_000 + i for i in range(300)])
    return habit


def stores(place: Place) -> None:
    """Automatic commits of what was stored by hand: the way that librdkafka recommends."""
    topic = topic_of(place, 1)
    group = place.name("group")
    fill(place, topic, 1, 0, 20)
    consumer = consumer_of(place, group, enable_auto_commit=True, enable_auto_offset_store=False, auto_commit_interval_ms=100)
    consumer.subscribe([topic])
    records = read(consumer, 20)
    consumer.store_offsets(records[11])
    watcher = consumer_of(place, group)
    until("the commit", lambda: consumer.poll(0.05) is None and watcher.committed([TopicPartition(topic, 0)], 10)[0].offset == 12)
    consumer.close()
    second = consumer_of(place, group)
    second.subscribe([topic])
    equal("what the next member reads", numbers(read(second, 8)), list(range(12, 20)))


def commits(place: Place) -> None:
    topic = topic_of(place, 1)
    group = place.name("group")
    fill(place, topic, 1, 0, 20)
    heard = []
    consumer = consumer_of(place, group, on_commit=lambda error, parts: heard.append((error, parts[0].offset)))
    consumer.subscribe([topic])
    records = read(consumer, 20)
    equal("the synchronous commit", consumer.commit(message=records[4], asynchronous=False)[0].offset, 5)
    consumer.commit(offsets=[TopicPartition(topic, 0, 9, metadata="by hand")], asynchronous=True)
    until("the callback", lambda: consumer.poll(0.05) is None and (None, 9) in heard)
    seen = consumer_of(place, group).committed([TopicPartition(topic, 0)], 10)[0]
    equal("what is committed", (seen.offset, seen.metadata), (9, "by hand"))


def seeks(place: Place) -> None:
    topic = topic_of(place, 1)
    fill(place, topic, 1, 0, 20)
    consumer = consumer_of(place, place.name("group"))
    consumer.assign([TopicPartition(topic, 0, 0)])
    read(consumer, 20)
    consumer.seek(TopicPartition(topic, 0, 15))
    equal("what is read again", numbers(read(consumer, 5)), list(range(15, 20)))
    equal("the bounds", consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10), (0, 20))
    records = read_from(consumer, topic, consumer.offsets_for_times([TopicPartition(topic, 0, 1)], timeout=10)[0].offset, 20)
    equal("what is read from a time on", numbers(records), list(range(20)))
    consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
    until("it is at the end", lambda: consumer.poll(0.1) is None and consumer.position([TopicPartition(topic, 0)])[0].offset in (20, -1001))


def read_from(consumer: Consumer, topic: str, offset: int, count: int) -> List:
    consumer.seek(TopicPartition(topic, 0, offset))
    return read(consumer, count)


def pauses(place: Place) -> None:
    topic = topic_of(place, 2)
    fill(place, topic, 2, 0, 20)
    consumer = consumer_of(place, place.name("group"))
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(2)])
    consumer.pause([TopicPartition(topic, 0)])
    equal("what is read beside the paused one", numbers(read(consumer, 10)), list(range(1, 20, 2)))
    consumer.resume([TopicPartition(topic, 0)])
    equal("what is read then", numbers(read(consumer, 10)), list(range(0, 20, 2)))


def pattern(place: Place) -> None:
    family = place.name("family")
    topic_of(place, 1, f"{family}.one")
    topic_of(place, 1, f"other-{family}.one")
    fill(place, f"{family}.one", 1, 0, 5)
    fill(place, f"other-{family}.one", 1, 100, 105)
    consumer = consumer_of(place, place.name("group"))
    consumer.subscribe([f"^{family}\\.[a-z]+$"])
    equal("what is read", numbers(read(consumer, 5)), list(range(5)))
    consumer.commit(asynchronous=False)
    topic_of(place, 1, f"{family}.two")
    fill(place, f"{family}.two", 1, 5, 9)
    equal("what is read of the new topic", numbers(read(consumer, 4)), list(range(5, 9)))


def shares(assignor: str):
    def habit(place: Place) -> None:
        topic = topic_of(place, 4)
        group = place.name("group")
        told: List = []
        members = []

        def settled() -> bool:
            for member in members:
                member.consume(100, timeout=0.05)
            owned = sorted(one.partition for member in members for one in member.assignment())
            return owned == [0, 1, 2, 3] and all(member.assignment() for member in members)

        for name in ("first", "second"):
            member = consumer_of(place, group, partition_assignment_strategy=assignor)
            member.subscribe([topic], on_assign=lambda _, parts, name=name: told.append((name, "assigned", len(parts))),
                             on_revoke=lambda _, parts, name=name: told.append((name, "revoked", len(parts))))
            members.append(member)
            until("the group settles", settled)
        equal("the shares", [len(member.assignment()) for member in members], [2, 2])
        # Those who cooperate give what they must, the others everything.
        hold(f"the first gave some: {told}", ("first", "revoked", 2 if assignor == "cooperative-sticky" else 4) in told)
        members.pop().close()
        until("the other has everything", settled)
    return habit


def administers(place: Place) -> None:
    admin = admin_of(place)
    topic = topic_of(place, 1, retention_ms="123456")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    equal("the configuration", admin.describe_configs([resource])[resource].result(30)["retention.ms"].value, "123456")
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("retention.ms", "654321", incremental_operation=AlterConfigOpType.SET)])
    admin.incremental_alter_configs([change])[change].result(30)
    until("it is altered", lambda: admin.describe_configs([resource])[resource].result(30)["retention.ms"].value == "654321")
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    until("they are there", lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 3)
    fill(place, topic, 3, 0, 30)
    partition = TopicPartition(topic, 1)
    equal("the end", admin.list_offsets({partition: OffsetSpec.latest()})[partition].result(30).offset, 10)
    below = TopicPartition(topic, 1, 4)
    equal("the new beginning", admin.delete_records([below])[below].result(30).low_watermark, 4)
    fails("creating it again", KafkaException, lambda: admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30))
    admin.delete_topics([topic])[topic].result(30)
    until("it is gone", lambda: topic not in admin.list_topics(timeout=10).topics)


def groups(place: Place) -> None:
    admin = admin_of(place)
    topic = topic_of(place, 1)
    group = place.name("group")
    fill(place, topic, 1, 0, 10)
    consumer = consumer_of(place, group, client_id="the-client")
    consumer.subscribe([topic])
    read(consumer, 10)
    consumer.commit(asynchronous=False)
    hold("it is listed", group in {one.group_id for one in admin.list_consumer_groups().result(30).valid})
    described = admin.describe_consumer_groups([group])[group].result(30)
    equal("the group", (described.state.name, [one.client_id for one in described.members]), ("STABLE", ["the-client"]))
    consumer.close()
    admin.delete_consumer_groups([group])[group].result(30)
    hold("it is not listed", group not in {one.group_id for one in admin.list_consumer_groups().result(30).valid})


HABITS = {
    "producer hears of deliveries": deliveries,
    "producer learns what the broker refuses": too_large,
    **{f"producer compresses by {codec}": compresses(codec) for codec in ("gzip", "snappy", "lz4", "zstd")},
    "consumer stores offsets and commits automatically": stores,
    "consumer commits synchronously and asynchronously": commits,
    "consumer seeks": seeks,
    "consumer pauses and resumes": pauses,
    "consumer subscribes to a pattern": pattern,
    **{f"consumers share by {assignor}": shares(assignor) for assignor in ("range", "roundrobin", "cooperative-sticky")},
    "admin works on topics and configurations and records": administers,
    "admin works on groups": groups,
}

if __name__ == "__main__":
    serve("librdkafka", HABITS)
