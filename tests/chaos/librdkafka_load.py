"""Load of the chaos test with librdkafka: idempotent producers and consumers of one group, which go on through every fault.

    librdkafka_load.py BOOTSTRAP TOPIC PARTITIONS FIRST PRODUCERS RATE HISTORY DEBUG

Producers have the numbers FIRST and following; RATE is their records a second together. What they see goes to the file
HISTORY (history.py tells its lines). Producers say what DEBUG names to standard error, as librdkafka's debug. A line on standard input is a command, answered with a line of JSON:

    state    counts so far: acknowledged by partition, given up, read, errors
    finish   stop sending, wait for every acknowledgement, end the consumers
    dump     read the whole topic to the history
"""

import json
import sys
import threading
import time
from typing import List

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

PADDING = "x" * 60
OUTSTANDING_MAX = 1_000
FINISH_S = 180
# Without a record for so long, reading back is stuck.
STALL_S = 60
GROUP = "chaos-librdkafka"
CONSUMERS = 2


class Load:
    """All producers and consumers of this program."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, first: int, producers: int, rate: int, history: str,
                 debug: str):
        self.bootstrap = bootstrap
        self._talk = {"debug": debug, "log_level": 7} if debug else {"log_level": 0}
        self.topic = topic
        self.partitions = partitions
        self.acknowledged = [0] * partitions
        self.given_up = 0
        self.read = 0
        self.errors: List[str] = []
        self._file = open(history, "w", encoding="ascii")  # pylint: disable=consider-using-with
        self._lock = threading.Lock()
        self._sending = threading.Event()
        self._reading = threading.Event()
        self._producers = [threading.Thread(target=self._produce, args=(first + number, rate / producers), daemon=True)
                           for number in range(producers)]
        self._consumers = [threading.Thread(target=self._consume, args=(f"librdkafka-{number}",), daemon=True)
                           for number in range(CONSUMERS)]
        for thread in self._producers + self._consumers:
            thread.start()

    def _write(self, *words) -> None:
        with self._lock:
            self._file.write(" ".join(map(str, words)) + "\n")

    def _delivered(self, producer: int, partition: int, sequence: int):
        def delivered(error, message):
            if error:
                self._write("F", producer, partition, sequence)
                self.given_up += 1
                self.errors.append(f"producer {producer}, partition {partition}, sequence {sequence}: {error}")
            else:
                self._write("A", producer, partition, sequence, message.offset() if message.offset() is not None else -1)
                self.acknowledged[partition] += 1
        return delivered

    def _produce(self, number: int, rate: float) -> None:
        producer = Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 3,
            "message.timeout.ms": 300_000, "request.timeout.ms": 5_000, "socket.connection.setup.timeout.ms": 3_000,
            "topic.metadata.refresh.interval.ms": 3_000, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 500,
            "error_cb": self._error, **self._talk,
        })
        sent = [0] * self.partitions
        began = time.monotonic()
        try:
            while not self._sending.is_set():
                partition = sum(sent) % self.partitions
                ahead = sum(sent) / rate - (time.monotonic() - began)
                if len(producer) >= OUTSTANDING_MAX or ahead > 0:
                    producer.poll(min(max(ahead, 0.002), 0.05))
                    if ahead < -1:
                        # What could not be sent while nobody answered is not made up for.
                        began = time.monotonic() - sum(sent) / rate
                    continue
                value = f"{number} {sent[partition]} {PADDING}"
                producer.produce(self.topic, value, key=f"{number}-{partition}", partition=partition,
                                 on_delivery=self._delivered(number, partition, sent[partition]))
                sent[partition] += 1
                producer.poll(0)
            if left := producer.flush(FINISH_S):
                self.errors.append(f"producer {number}: {left} records had no answer after {FINISH_S} s")
        except (KafkaException, SystemError) as error:
            self.errors.append(f"producer {number}: {error}")

    def _error(self, error) -> None:
        if error.fatal():
            self.errors.append(f"fatal: {error}")

    def _consume(self, name: str) -> None:
        consumer = Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000, "auto.commit.interval.ms": 500, "socket.connection.setup.timeout.ms": 3_000,
            "reconnect.backoff.max.ms": 500, "log_level": 0, "error_cb": self._error,
        })
        consumer.subscribe([self.topic])
        while not self._reading.is_set():
            for message in consumer.consume(500, 0.2):
                # Errors pass: nobody answers, the partition has no leader, the group has no coordinator.
                if not message.error():
                    self._write("R", name, *told(message))
                    self.read += 1
        consumer.close()

    def state(self) -> dict:
        """Counts for the driver."""
        return {"acknowledged": self.acknowledged, "given_up": self.given_up, "read": self.read, "errors": self.errors[:3]}

    def finish(self) -> dict:
        """Ends producers, then consumers."""
        self._sending.set()
        for thread in self._producers:
            thread.join()
        self._reading.set()
        for thread in self._consumers:
            thread.join(30)
        self._file.flush()
        return self.state()

    def dump(self) -> dict:
        """Reads everything, from the beginning."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False,
                             "auto.offset.reset": "error", "isolation.level": "read_uncommitted"})
        left = {}
        for partition in range(self.partitions):
            _, end = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=30)
            if end:
                left[partition] = end
        consumer.assign([TopicPartition(self.topic, partition, 0) for partition in left])
        progress, count = time.monotonic(), 0
        while left and time.monotonic() < progress + STALL_S:
            for message in consumer.consume(5_000, 0.5):
                if message.error():
                    return {"errors": [str(message.error())]}
                progress = time.monotonic()
                count += 1
                self._write("L", "-", *told(message))
                if message.offset() + 1 >= left.get(message.partition(), 0):
                    left.pop(message.partition(), None)
        consumer.close()
        self._file.flush()
        return {"read": count, "errors": [f"reading back: no record for {STALL_S} s; left: {left}"] if left else []}


def told(message) -> tuple:
    """Partition, offset, producer and sequence of a record."""
    producer, sequence, padding = message.value().decode().split(" ")
    if padding != PADDING or message.key().decode() != f"{producer}-{message.partition()}":
        raise SystemExit(f"a record that nobody sent: {message.key()} {message.value()}")
    return message.partition(), message.offset(), producer, sequence


def main(bootstrap: str, topic: str, partitions: int, first: int, producers: int, rate: int, history: str,
         debug: str) -> None:
    """Answers the driver until its stream ends."""
    load = Load(bootstrap, topic, partitions, first, producers, rate, history, debug)
    for line in sys.stdin:
        answer = {"state": load.state, "finish": load.finish, "dump": load.dump}[line.strip()]()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(int(argument) for argument in sys.argv[3:7]), *sys.argv[7:9])
