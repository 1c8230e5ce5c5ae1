"""The load of the kill test: producers that go on through every kill of the broker, idempotent with acks=all or plain
with acks=1.

It talks to the driver over its standard streams. Each line on standard input is a command; each gets one line
of JSON back:

    state   counts so far: sent, acked, in flight (requests that librdkafka has sent and that have no answer)
    finish  stop sending, wait for every acknowledgement
    verify  read the whole topic back and compare

Several producers write to every partition, so that the broker must keep their sequences apart.
"""

import json
import sys
import threading
import time
from typing import Dict, List

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

VALUE = "{producer}:{sequence}:" + "x" * 100
OUTSTANDING_MAX = 400
FINISH_S = 120
# Without a record for so long, reading back is stuck.
STALL_S = 60
# A producer sends so many records as fast as it can, then rests until so long after it began.
BURST = 300
BURST_S = 0.05


class Load:
    """One producer with a thread of its own; message n of a partition has sequence n."""

    def __init__(self, number: int, bootstrap: str, topic: str, acks: str, partitions: int, batch_records_max: int):
        self.number = number
        self.topic = topic
        self.sent = [0] * partitions
        self.acked: List[Dict[int, int]] = [{} for _ in range(partitions)]
        self.sent_count = 0
        self.acked_count = 0
        self.in_flight = 0
        self.in_flight_at = 0.0
        self.errors: List[str] = []
        self._stop = threading.Event()
        self._producer = Producer({
            "bootstrap.servers": bootstrap,
            "enable.idempotence": acks == "all",
            "acks": acks,
            "linger.ms": 0,
            "batch.num.messages": batch_records_max,
            "message.timeout.ms": 300_000,
            "request.timeout.ms": 10_000,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 200,
            "statistics.interval.ms": 10,
            "stats_cb": self._statistics,
            "error_cb": self._error,
            "log_level": 0,
        })
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _statistics(self, text: str) -> None:
        brokers = json.loads(text)["brokers"].values()
        self.in_flight = sum(broker["waitresp_cnt"] for broker in brokers)
        self.in_flight_at = time.monotonic()

    def _error(self, error) -> None:
        if error.fatal():
            self.errors.append(str(error))

    def _delivered(self, partition: int, sequence: int):
        def delivered(error, message):
            if error:
                self.errors.append(f"producer {self.number}, partition {partition}, sequence {sequence}: {error}")
            else:
                self.acked[partition][sequence] = message.offset()
            self.acked_count += 1
        return delivered

    def _run(self) -> None:
        try:
            self._send()
        except KafkaException as error:
            self.errors.append(f"producer {self.number}: {error}")

    def _send(self) -> None:
        partition = 0
        burst_at = time.monotonic()
        while not self._stop.is_set() and not self.errors:
            if self.sent_count - self.acked_count >= OUTSTANDING_MAX:
                self._producer.poll(0.005)
                continue
            sequence = self.sent[partition]
            self._producer.produce(self.topic, VALUE.format(producer=self.number, sequence=sequence),
                                   partition=partition, on_delivery=self._delivered(partition, sequence))
            self.sent[partition] += 1
            self.sent_count += 1
            partition = (partition + 1) % len(self.sent)
            self._producer.poll(0)
            if self.sent_count % BURST == 0:
                self._producer.poll(max(0.0, burst_at + BURST_S - time.monotonic()))
                burst_at = time.monotonic()

    def finish(self) -> None:
        """Stops sending and waits until everything sent has its answer."""
        self._stop.set()
        self.thread.join()
        if self.errors:
            return
        try:
            left = self._producer.flush(FINISH_S)
        except (KafkaException, SystemError) as error:  # the binding turns a fatal error during a flush into either
            self.errors.append(f"producer {self.number}: {error}")
            return
        if left:
            self.errors.append(f"producer {self.number}: {left} records had no answer after {FINISH_S} s")

    def state(self) -> dict:
        """Counts for the driver; requests in flight count only when librdkafka told them a moment ago."""
        fresh = time.monotonic() - self.in_flight_at < 0.1
        return {"sent": self.sent_count, "acked": self.acked_count, "in_flight": self.in_flight if fresh else 0,
                "errors": self.errors[:3]}


def read_back(bootstrap: str, topic: str, partitions: int):
    """Every (partition, offset, producer, sequence) of the topic, in the order of the log."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
                         "auto.offset.reset": "error"})
    left = {}
    for partition in range(partitions):
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        if end:
            left[partition] = end
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    progress = time.monotonic()
    while left:
        if time.monotonic() > progress + STALL_S:
            raise SystemExit(f"reading back: no record for {STALL_S} s; left: {left}")
        for message in consumer.consume(5_000, 0.5):
            if message.error():
                raise SystemExit(str(message.error()))
            progress = time.monotonic()
            producer, sequence, _ = message.value().split(b":", 2)
            yield message.partition(), message.offset(), int(producer), int(sequence)
            if message.offset() + 1 >= left.get(message.partition(), 0):
                left.pop(message.partition(), None)
    consumer.close()


def verify(loads: List[Load], bootstrap: str, topic: str) -> dict:
    """Of idempotent producers: every record is in the log once, at its offset, in order, and nothing else is there."""
    problems: List[str] = []
    due: Dict[tuple, int] = {}
    count = 0
    for partition, offset, producer, sequence in read_back(bootstrap, topic, len(loads[0].sent)):
        count += 1
        key = (producer, partition)
        if sequence != due.get(key, 0):
            problems.append(f"partition {partition}, offset {offset}: producer {producer}'s sequence {sequence} came "
                            f"where {due.get(key, 0)} was due")
        due[key] = sequence + 1
        told = loads[producer].acked[partition].get(sequence)
        # A request answered only after a retry may be told without an offset; its place then shows in the order.
        if told is not None and told >= 0 and told != offset:
            problems.append(f"partition {partition}: producer {producer}'s sequence {sequence} is at {offset}, "
                            f"acknowledged at {told}")
    for load in loads:
        for partition, sent in enumerate(load.sent):
            if due.get((load.number, partition), 0) != sent or len(load.acked[partition]) != sent:
                read = due.get((load.number, partition), 0)
                problems.append(f"producer {load.number}, partition {partition}: {sent} sent, "
                                f"{len(load.acked[partition])} acknowledged, {read} read")
    return {"read": count, "problems": problems[:5]}


def verify_none_missing(loads: List[Load], bootstrap: str, topic: str) -> dict:
    """Of plain producers: every acknowledged record is in the log, at the offset that it was acknowledged with.

    A retry may have repeated it elsewhere and, with several requests in flight, moved it behind later ones.
    """
    problems: List[str] = []
    places: Dict[tuple, list] = {}
    count = 0
    for partition, offset, producer, sequence in read_back(bootstrap, topic, len(loads[0].sent)):
        count += 1
        places.setdefault((producer, partition, sequence), []).append(offset)
    for load in loads:
        for partition, acked in enumerate(load.acked):
            for sequence, told in acked.items():
                at = places.get((load.number, partition, sequence), [])
                if not at or told >= 0 and told not in at:
                    problems.append(f"partition {partition}: producer {load.number}'s sequence {sequence}, "
                                    f"acknowledged at {told}, is at {at or 'no offset'}")
    return {"read": count, "problems": problems[:5]}


def main(bootstrap: str, topic: str, acks: str, partitions: int, producers: int, batch_records_max: int) -> None:
    """Answers the driver until its stream ends."""
    loads = [Load(number, bootstrap, topic, acks, partitions, batch_records_max) for number in range(producers)]
    check = verify if acks == "all" else verify_none_missing
    for line in sys.stdin:
        if line.strip() == "verify":
            answer = check(loads, bootstrap, topic)
        else:
            if line.strip() == "finish":
                for load in loads:
                    load.finish()
            states = [load.state() for load in loads]
            answer = {key: sum((state[key] for state in states), [] if key == "errors" else 0) for key in states[0]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], *(int(argument) for argument in sys.argv[4:7]))
