"""Several members of groups in one process, by confluent-kafka (librdkafka), each in a thread of its own.

    crowd_member.py PROTOCOL ASSIGNOR          PROTOCOL is classic or consumer

It obeys lines of standard input and says line by line what happens, each line with the monotonic clock's microseconds
and a member's name in front (CrowdMember.java says the same):

    join NAME BOOTSTRAP TOPIC GROUP COMMIT_MS  a member joins; 0 never commits
    leave NAME                                 it closes

    joins                       it is about to subscribe
    assigned P,P…               revoked P,P…                lost P,P…
    seen P:O:KEY:SEQUENCE …     what it has processed, in this order
    committing P:O …            followed by committed P:O …, or by failed WORDS
    left                        error WORDS

A member commits now and then, and what it has processed when partitions are taken from it. What it has not said, it has
not committed: a kill leaves no record that is committed and unseen.
"""

import os
import sys
import threading
import time
from typing import Dict, List

from confluent_kafka import Consumer, KafkaException, TopicPartition

SESSION_MS = 10_000
HEARTBEAT_MS = 500
# Also the time in which members have to join again: who dies while it joins holds up the others for that long.
POLL_MS = 20_000
# Records that a member processes before it looks at the clock again.
RECORDS_MAX = 50


class Member(threading.Thread):
    """One consumer."""

    def __init__(self, protocol: str, assignor: str, name: str, bootstrap: str, topic: str, group: str, commit_ms: str):
        super().__init__(daemon=True)
        self.leaves = threading.Event()
        self._name, self._topic, self._commit_s = name, topic, int(commit_ms) / 1_000
        self._seen: List[str] = []
        self._ends: Dict[int, int] = {}
        settings = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                    "enable.auto.commit": False, "group.protocol": protocol, "client.id": name,
                    "max.poll.interval.ms": POLL_MS}
        if protocol == "classic":
            settings |= {"partition.assignment.strategy": assignor, "session.timeout.ms": SESSION_MS,
                         "heartbeat.interval.ms": HEARTBEAT_MS}
        self._consumer = Consumer(settings)

    def _say(self, *words) -> None:
        """One write for a line, so that a kill leaves whole ones."""
        line = " ".join(map(str, (time.monotonic_ns() // 1_000, self._name, *words)))
        os.write(1, (line + "\n").encode())

    def _say_seen(self) -> None:
        if self._seen:
            self._say("seen", *self._seen)
            self._seen.clear()

    def _partitions(self, of: List[TopicPartition]) -> str:
        return ",".join(str(one.partition) for one in of)

    def _assigned(self, _, parts: List[TopicPartition]) -> None:
        self._say("assigned", self._partitions(parts))

    def _revoked(self, _, parts: List[TopicPartition]) -> None:
        self._commit()
        for one in parts:
            self._ends.pop(one.partition, None)
        self._say("revoked", self._partitions(parts))

    def _lost(self, _, parts: List[TopicPartition]) -> None:
        self._say_seen()
        for one in parts:
            self._ends.pop(one.partition, None)
        self._say("lost", self._partitions(parts))

    def _commit(self) -> None:
        """Commits what is processed; what a rebalance refuses is kept while the partitions are."""
        self._say_seen()
        if not self._ends or not self._commit_s:
            return
        offsets = [TopicPartition(self._topic, partition, end) for partition, end in self._ends.items()]
        self._say("committing", *(f"{one.partition}:{one.offset}" for one in offsets))
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            return self._say("failed", error.args[0].name())
        bad = [one for one in done if one.error]
        if bad:
            return self._say("failed", bad[0].error.name(), f"and {len(done) - len(bad)} good ones")
        self._ends.clear()
        self._say("committed", *(f"{one.partition}:{one.offset}" for one in done))

    def _process(self) -> None:
        for number in range(RECORDS_MAX):
            message = self._consumer.poll(0 if number else 0.1)
            if message is None:
                return
            if message.error():
                if message.error().fatal():
                    raise KafkaException(message.error())
                return self._say("note", message.error().name())
            partition, offset = message.partition(), message.offset()
            self._seen.append(f"{partition}:{offset}:{message.key().decode()}:{message.value().decode()}")
            self._ends[partition] = offset + 1

    def run(self) -> None:
        try:
            self._say("joins")
            self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
            committed_s = time.monotonic()
            while not self.leaves.is_set():
                self._process()
                self._say_seen()
                if self._commit_s and time.monotonic() - committed_s >= self._commit_s:
                    self._commit()
                    committed_s = time.monotonic()
            self._consumer.close()
            self._say("left")
        except Exception as error:  # whatever a client throws is an answer
            self._say("error", type(error).__name__, " ".join(str(error).split())[:1_000])


def main() -> None:
    protocol, assignor = sys.argv[1:]
    members: Dict[str, Member] = {}
    for line in sys.stdin:
        word, name, *rest = line.split()
        if word == "join":
            members[name] = Member(protocol, assignor, name, *rest)
            members[name].start()
        else:
            members.pop(name).leaves.set()


if __name__ == "__main__":
    main()
