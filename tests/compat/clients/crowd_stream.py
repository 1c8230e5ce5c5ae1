"""The keyed stream that a crowd reads, and what the broker says of the group.

    crowd_stream.py BOOTSTRAP TOPIC PARTITIONS KEYS GROUP

Key K goes to partition K % PARTITIONS; its records are numbered from 0. It obeys lines of standard input and says lines:

    rate N          sends N records a second from now on; 0 rests
    flush           flushed COUNT, when all that was sent is acknowledged
    describe        described {"state": …, "members": {CLIENT_ID: [P, …]}}
    committed       committed {P: O, …}

    sent P:O:KEY:SEQUENCE …     acknowledged records
    error WORDS                 a record was refused, which no record may be
"""

import json
import os
import sys
import threading
import time
from typing import List

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

TICK_S = 0.02


def say(*words) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Stream(threading.Thread):
    """The producer; it alone counts."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, keys: int):
        super().__init__(daemon=True)
        self.rate = 0
        self.rests = threading.Event()
        self._topic, self._partitions, self._next = topic, partitions, [0] * keys
        self._sent: List[str] = []
        self._count = 0
        self._producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 5,
                                   "message.timeout.ms": 300_000,
                                   "log_level": 2})

    def _done(self, text: str):
        def done(error, message) -> None:
            if error:
                say("error", error.name(), text)
            else:
                self._sent.append(f"{message.partition()}:{message.offset()}:{text}")
        return done

    def _send(self, key: int) -> None:
        text = f"{key}:{self._next[key]}"
        self._producer.produce(self._topic, key=str(key), value=str(self._next[key]), partition=key % self._partitions,
                               on_delivery=self._done(text))
        self._next[key] += 1
        self._count += 1

    def _tell(self) -> None:
        if self._sent:
            sent, self._sent = self._sent, []
            say("sent", *sent)

    def run(self) -> None:
        at, due, last_s = 0, 0.0, time.monotonic()
        while True:
            now_s = time.monotonic()
            due += min(now_s - last_s, 0.2) * self.rate
            last_s = now_s
            while due >= 1:
                # A step that has no divisor in common with the number of keys: every key in turn, partitions mixed.
                at = (at + 7919) % len(self._next)
                self._send(at)
                due -= 1
            if not self.rate and not self.rests.is_set():
                self._producer.flush()
                self._tell()
                say("flushed", self._count)
                self.rests.set()
            self._producer.poll(TICK_S)
            self._tell()


def described(admin: AdminClient, group: str) -> dict:
    """The group's state, and its members' partitions by client id."""
    group = admin.describe_consumer_groups([group], request_timeout=10)[group].result()
    members = {member.client_id: sorted(one.partition for one in member.assignment.topic_partitions)
               for member in group.members}
    return {"state": group.state.name, "members": members, "count": len(group.members)}


def committed(admin: AdminClient, group: str, topic: str, partitions: int) -> dict:
    """What is committed for each partition."""
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, at) for at in range(partitions)])
    answer = admin.list_consumer_group_offsets([wanted], request_timeout=10)[group].result()
    return {one.partition: one.offset for one in answer.topic_partitions}


def main() -> None:
    bootstrap, topic, partitions, keys, group = sys.argv[1:]
    stream = Stream(bootstrap, topic, int(partitions), int(keys))
    stream.rests.set()
    stream.start()
    for line in sys.stdin:
        word, *rest = line.split()
        # One that has seen the broker die answers nothing but timeouts for a long time.
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        try:
            if word == "rate":
                stream.rate = int(rest[0])
            elif word == "flush":
                stream.rate = 0
                stream.rests.clear()
            elif word == "describe":
                say("described", json.dumps(described(admin, group)))
            elif word == "committed":
                say("committed", json.dumps(committed(admin, group, topic, int(partitions))))
        except KafkaException as error:  # the broker may be down; who asks asks again
            say("unknown", error.args[0].name())


if __name__ == "__main__":
    main()
