"""Creates or deletes one topic, and waits until its partitions have leaders or it is gone.

The matrix uses it instead of kafka-topics because starting a JVM for each topic would cost more than the round trip.
"""

import sys
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

DEADLINE_S = 60


def settled(admin: AdminClient, topic: str, partitions: int) -> bool:
    """Whether the metadata shows `topic` with that many led partitions; 0 means gone."""
    shown = admin.list_topics(timeout=10).topics.get(topic)
    led = [p for p in shown.partitions.values() if p.leader >= 0] if shown and not shown.error else []
    return len(led) == partitions


def change(bootstrap: str, topic: str, partitions: int, settings: dict) -> None:
    """`partitions` of 0 deletes. A broker that has only just started may refuse at first; the deadline bounds that."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            if partitions:
                wanted = NewTopic(topic, partitions, 1, config=settings)
                admin.create_topics([wanted], request_timeout=10)[topic].result()
            else:
                admin.delete_topics([topic], request_timeout=10)[topic].result()
            break
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    while not settled(admin, topic, partitions):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{topic} does not show {partitions} led partitions after {DEADLINE_S} s")
        time.sleep(0.05)


def main() -> None:
    """Obeys lines of "BOOTSTRAP TOPIC PARTITIONS [KEY=VALUE …]", as command.py describes the clients' commands."""
    print("ready", flush=True)
    for line in sys.stdin:
        bootstrap, topic, partitions, *settings = line.rstrip("\n").split("\t")
        try:
            change(bootstrap, topic, int(partitions), dict(setting.split("=", 1) for setting in settings))
            print("ok", flush=True)
        except Exception as error:  # whatever it is, it is the answer
            print("error", type(error).__name__, " ".join(str(error).split()), flush=True)


if __name__ == "__main__":
    main()
