"""A member of a group, by kafka-python or confluent-kafka (librdkafka).

    group_member.py kafka-python|librdkafka BOOTSTRAP TOPIC GROUP ASSIGNOR [INSTANCE]

It reads and commits until standard input ends, then leaves, and says line by line what happens to it:

    assigned P,P…       revoked P,P…        seen P:O P:O …      committed P:O …      closed      error WORDS

ASSIGNOR is a name that librdkafka knows: range, roundrobin or cooperative-sticky (kafka-python: sticky instead), or
consumer for the consumer protocol (KIP-848), consumer-range for its range assignor. A TOPIC that begins with ^ is a
pattern. What is assigned and revoked by the consumer protocol and cooperative-sticky is what changes.
"""

import select
import sys


def say(*words) -> None:
    print(*words, flush=True)


def told_to_stop() -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], 0)
    return bool(ready) and not sys.stdin.readline()


def partitions(of) -> str:
    return ",".join(str(one.partition) for one in sorted(of, key=lambda one: one.partition))


def librdkafka(bootstrap: str, topic: str, group: str, assignor: str, instance: str = "") -> None:
    from confluent_kafka import Consumer

    settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000}
    if assignor.startswith("consumer"):
        settings["group.protocol"] = "consumer"
        if "-" in assignor:
            settings["group.remote.assignor"] = assignor.split("-")[1]
    else:
        settings |= {"partition.assignment.strategy": assignor, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    consumer = Consumer(settings | ({"group.instance.id": instance} if instance else {}))
    consumer.subscribe([topic], on_assign=lambda _, parts: say("assigned", partitions(parts)),
                       on_revoke=lambda _, parts: say("revoked", partitions(parts)))
    uncommitted = False
    while not told_to_stop():
        messages = consumer.consume(20, timeout=0.2)
        good = [message for message in messages if not message.error()]
        if good:
            say("seen", *(f"{message.partition()}:{message.offset()}" for message in good))
        if good or uncommitted:
            try:
                done = consumer.commit(asynchronous=False)
                uncommitted = False
                say("committed", *(f"{one.partition}:{one.offset}" for one in done if not one.error))
            except Exception as error:  # a rebalance came in between: what it keeps is committed after it
                uncommitted = True
                say("uncommitted", error)
    consumer.close()


def kafka_python(bootstrap: str, topic: str, group: str, assignor: str, instance: str = "") -> None:
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

    class Listener(ConsumerRebalanceListener):
        def on_partitions_assigned(self, assigned):
            say("assigned", partitions(assigned))

        def on_partitions_revoked(self, revoked):
            say("revoked", partitions(revoked))

    assignors = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor,
                 "cooperative-sticky": StickyPartitionAssignor}
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                             enable_auto_commit=False, session_timeout_ms=6000, heartbeat_interval_ms=500,
                             partition_assignment_strategy=[assignors[assignor]],
                             **({"group_instance_id": instance} if instance else {}))
    consumer.subscribe([topic], listener=Listener())
    while not told_to_stop():
        records = [record for some in consumer.poll(200, max_records=20).values() for record in some]
        if records:
            say("seen", *(f"{record.partition}:{record.offset}" for record in records))
            try:
                consumer.commit()
                ends = {record.partition: record.offset + 1 for record in records}
                say("committed", *(f"{partition}:{end}" for partition, end in ends.items()))
            except Exception as error:  # a rebalance came in between: what was read is read again
                say("uncommitted", error)
    consumer.close()


if __name__ == "__main__":
    library, *arguments = sys.argv[1:]
    try:
        {"librdkafka": librdkafka, "kafka-python": kafka_python}[library](*arguments)
        say("closed")
    except Exception as error:  # whatever a client throws is an answer
        say("error", type(error).__name__, " ".join(str(error).split())[:1_000])
