#!/usr/bin/env python3
"""The kill test: kill -9 again and again under idempotent producers; nothing acknowledged is lost, doubled or moved.

    tests/compat/kill.py --rounds 10 --seed 1            against the release build
    tests/compat/kill.py --rounds 10 --reference kafka   against Apache Kafka 4.3.1

A kill counts only when at least 10,000 records were acknowledged since the last one and at least 5 produce requests are
unanswered at that moment; a run that cannot reach these conditions fails. The moment is drawn from the seed.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import List

import broker
import install
import matrix

TOPIC = "kill"
PARTITIONS = 12
PRODUCERS = 6
ACKED_MIN = 10_000
UNANSWERED_MIN = 5
CONDITION_S = 120
SETTLE_S = 0.1
BATCH_RECORDS_MAX = 10


class Load:
    """The producers' process and the questions it answers."""

    def __init__(self, bootstrap: str):
        program = install.HERE / "clients" / "kill_load.py"
        self._process = subprocess.Popen(
            [install.python(), str(program), bootstrap, TOPIC, str(PARTITIONS), str(PRODUCERS),
             str(BATCH_RECORDS_MAX)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=install.environment())

    def ask(self, question: str) -> dict:
        """One question, one answer."""
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise broker.BrokerError(f"the producers' process ended with {self._process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def kill_once(instance: broker.Broker, load: Load, rng: random.Random, acked_before: int) -> tuple:
    """Kills at a random moment under the conditions: (problems, state at the kill)."""
    deadline = time.monotonic() + CONDITION_S
    while True:
        state = load.ask("state")
        if state["errors"]:
            return state["errors"], state
        if state["acked"] - acked_before >= ACKED_MIN:
            break
        if time.monotonic() > deadline or not instance.alive():
            return [f"only {state['acked'] - acked_before} records acknowledged in {CONDITION_S} s, "
                    f"broker {'alive' if instance.alive() else 'dead'}\n{instance.tail()}"], state
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1.0))
    while True:
        state = load.ask("state")
        unanswered = min(state["in_flight"], state["sent"] - state["acked"])
        if unanswered >= UNANSWERED_MIN:
            instance.kill()
            return after_kill(load, state), state
        if time.monotonic() > deadline:
            return [f"only {unanswered} produces were unanswered for {CONDITION_S} s"], state
        time.sleep(rng.uniform(0, 0.01))


def after_kill(load: Load, before: dict) -> List[str]:
    """Proves the condition from the other side: answers that the broker had given before it died count as answers.

    They lie in the sockets and are read now. What was sent before the kill and is still unacknowledged must be more
    than four requests could hold.
    """
    time.sleep(SETTLE_S)
    unacknowledged = before["sent"] - load.ask("state")["acked"]
    if unacknowledged > (UNANSWERED_MIN - 1) * BATCH_RECORDS_MAX:
        return []
    return [f"only {unacknowledged} records were unacknowledged when the broker was dead"]


def rounds(instance: broker.Broker, load: Load, options) -> List[str]:
    """All kills and restarts, then the comparison."""
    rng = random.Random(options.seed)
    acked = 0
    for number in range(1, options.rounds + 1):
        start = time.monotonic()
        problems, state = kill_once(instance, load, rng, acked)
        if problems:
            return problems
        print(f"  kill {number}: {state['acked'] - acked} records acknowledged since the last, {state['in_flight']} "
              f"produces unanswered", end="", flush=True)
        acked = state["acked"]
        instance.start()
        print(f", up again ({time.monotonic() - start:.1f})", flush=True)
    state = load.ask("finish")
    if state["errors"]:
        return state["errors"]
    answer = load.ask("verify")
    print(f"  {state['sent']} records sent, {state['acked']} acknowledged, {answer['read']} read back", flush=True)
    return answer["problems"]


def run(folder: Path, options) -> List[str]:
    """The whole test on one folder; the problems found."""
    instance = broker.make(folder, options.shards, options)
    load = None
    try:
        instance.start()
        if error := matrix.topic(instance.bootstrap, TOPIC, PARTITIONS):
            return ["creating the topic: " + error]
        load = Load(instance.bootstrap)
        problems = rounds(instance, load, options)
        instance.stop()
        return problems
    except broker.BrokerError as error:
        return [str(error)]
    finally:
        if load:
            load.close()
        instance.kill()


def main() -> int:
    """0 when every acknowledged record was there once, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--reference", choices=["kafka"])
    parser.add_argument("--broker-cmd")
    options = parser.parse_args()
    install.ensure()
    base = install.CACHE / "run"
    base.mkdir(exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMPAT_TMP") or base) as folder:
        problems = run(Path(folder), options)
    name = f"kill -9 {options.rounds} times, seed {options.seed}, {options.shards} shards"
    print(f"{'FAIL' if problems else 'PASS'} {name} ({time.monotonic() - start:.1f})")
    for problem in problems:
        print("    " + problem)
    print(f"{0 if problems else 1} passed, {1 if problems else 0} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
