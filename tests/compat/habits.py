"""The habits of Kafka's textbooks, with the real libraries: each is a case that looks at what a user would look at.

What the habits are stands with the clients (clients/habits/*.java, clients/kafka_python_habits.py and so on): a client says
their names and runs the one that it is told, each with topics and groups of its own. One process runs all habits of a
library, as starting one for each would cost more than the habits; it starts anew after a failure.
"""

import queue
import threading
import time
from pathlib import Path
from typing import Iterator, List, Tuple

import client

# Library by library, with the name of the program in client.py.
LIBRARIES = {
    "java 4.3.1": "habits-java-4.3.1",
    "java 0.11.0.3": "habits-java-0.11.0.3",
    "kafka-python": "habits-kafka-python",
    "librdkafka": "habits-librdkafka",
    "franz-go": "habits-franz-go",
    "kafkajs": "habits-kafkajs",
}
# A habit waits 30 s for one thing at most, and for a few of them.
ANSWER_S = 150
LIBRARIES_AT_ONCE = 2
# Members of groups need not wait for each other, and the offsets' topic is made quickly.
SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 7}


class Library:
    """The process of one library and the names of its habits."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self._client = client.Client(LIBRARIES[name], folder, answer_s=ANSWER_S)

    def names(self) -> List[str]:
        """The habits, in order; the process is started for them."""
        if error := self._client.start():
            raise RuntimeError(error)
        return self._client.codecs

    def run(self, habit: str, bootstrap: str) -> List[str]:
        """Runs one; the problems."""
        error = self._client.ask(habit, bootstrap)
        return [error] if error else []

    def close(self) -> None:
        """Ends the process."""
        self._client.close()


def run(folder: Path, bootstrap: str, wanted) -> Iterator[Tuple[str, List[str], float]]:
    """Runs the habits whose name `wanted` takes, two libraries at a time; (name, problems, seconds) as they end."""
    results: queue.Queue = queue.Queue()
    waiting = queue.SimpleQueue()
    for name in LIBRARIES:
        waiting.put(name)

    def one_library(name: str) -> None:
        library = Library(name, folder)
        try:
            for habit in library.names():
                case = f"habits: {name}: {habit}"
                if wanted(case):
                    start = time.monotonic()
                    results.put((case, library.run(habit, bootstrap), time.monotonic() - start))
        except RuntimeError as error:
            results.put((f"habits: {name}: starts", [str(error)], 0.0))
        finally:
            library.close()

    def work() -> None:
        while not waiting.empty():
            try:
                one_library(waiting.get_nowait())
            except queue.Empty:
                break
        results.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(LIBRARIES_AT_ONCE)]
    for thread in threads:
        thread.start()
    ended = 0
    while ended < len(threads):
        result = results.get()
        if result is None:
            ended += 1
        else:
            yield result
