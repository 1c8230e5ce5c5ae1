#!/usr/bin/env python3
"""The kill test: kill -9 again and again under producers; nothing acknowledged is lost.

    tests/compat/kill.py --rounds 50 --seed 1            against the release build
    tests/compat/kill.py --rounds 10 --reference kafka   against Apache Kafka 4.3.1

Two kinds of producers write at the same time, each to a topic of its own. Of the idempotent ones with acks=all every
acknowledged record must be there once, in order; of the plain ones with acks=1 none may be missing, though a retry may
have repeated one. A kill counts only when of each kind at least 10,000 records were acknowledged since the last one and
at least 5 produce requests are unanswered at that moment; a run that cannot reach these conditions fails. The moment is
drawn from the seed: there the broker is frozen (SIGSTOP), the producers read the answers it has given, and it is killed
if the conditions hold, else it goes on until the next moment.
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
import client
import install

KINDS = ["all", "1"]
PARTITIONS = 12
PRODUCERS = 4
ACKED_MIN = 10_000
UNANSWERED_MIN = 5
CONDITION_S = 120
SETTLE_S = 0.1
BATCH_RECORDS_MAX = 10


class Load:
    """The process of one kind of producers and the questions it answers."""

    def __init__(self, bootstrap: str, acks: str):
        self.acks = acks
        self.acked_before = 0
        program = install.CLIENTS / "kill_load.py"
        self._process = subprocess.Popen(
            [install.python(), str(program), bootstrap, topic_of(acks), acks, str(PARTITIONS), str(PRODUCERS),
             str(BATCH_RECORDS_MAX)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=install.environment())

    def ask(self, question: str) -> dict:
        """One question, one answer; errors of producers come as BrokerError."""
        self.put(question)
        return self.answer()

    def put(self, question: str) -> None:
        """A question whose answer is read later."""
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()

    def answer(self) -> dict:
        """The answer to the question put."""
        line = self._process.stdout.readline()
        if not line:
            raise broker.BrokerError(f"the producers with acks={self.acks} ended with {self._process.wait()}")
        answer = json.loads(line)
        if errors := answer.get("errors"):
            raise broker.BrokerError(f"producers with acks={self.acks}: " + "; ".join(errors))
        return answer

    def unanswered(self, state: dict) -> int:
        """How many produce requests surely have no answer."""
        return min(state["in_flight"], max(0, state["sent"] - state["acked"]))

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


def topic_of(acks: str) -> str:
    """The topic of one kind of producers."""
    return f"kill-acks-{acks}"


def states_of(loads: List[Load]) -> List[dict]:
    """The states of all producers, as nearly at one time as can be."""
    for load in loads:
        load.put("state")
    return [load.answer() for load in loads]


def kill_once(instance: broker.Broker, loads: List[Load], rng: random.Random) -> List[dict]:
    """Kills at a random moment under the conditions; the producers' states when the broker froze."""
    deadline = time.monotonic() + CONDITION_S
    while True:
        acked = [state["acked"] - load.acked_before for load, state in zip(loads, states_of(loads))]
        if min(acked) >= ACKED_MIN:
            break
        if time.monotonic() > deadline or not instance.alive():
            alive = "alive" if instance.alive() else "dead"
            raise broker.BrokerError(f"only {acked} records acknowledged in {CONDITION_S} s, broker {alive}\n"
                                     + instance.tail())
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1.0))
    while True:
        before = states_of(loads)
        instance.freeze()
        states = frozen(loads, before)
        unanswered = [load.unanswered(state) for load, state in zip(loads, states)]
        if min(unanswered) >= UNANSWERED_MIN:
            instance.kill()
            return states
        instance.thaw()
        if time.monotonic() > deadline:
            raise broker.BrokerError(f"only {unanswered} produces were unanswered for {CONDITION_S} s")
        time.sleep(rng.uniform(0, 0.05))


def frozen(loads: List[Load], before: List[dict]) -> List[dict]:
    """The producers' states once they have read every answer that the frozen broker had given.

    What the broker will never answer if it dies now is what had been sent before it froze and is unacknowledged still;
    as requests, that is at least its records by the most that a request holds.
    """
    time.sleep(SETTLE_S)
    states = states_of(loads)
    for state, earlier in zip(states, before):
        records = max(0, earlier["sent"] - state["acked"])
        state["in_flight"] = min(state["in_flight"], -(-records // BATCH_RECORDS_MAX))
    return states


def rounds(instance: broker.Broker, loads: List[Load], options) -> List[str]:
    """All kills and restarts, then the comparison."""
    rng = random.Random(options.seed)
    for number in range(1, options.rounds + 1):
        start = time.monotonic()
        states = kill_once(instance, loads, rng)
        told = []
        for load, state in zip(loads, states):
            told.append(f"acks={load.acks}: {state['acked'] - load.acked_before} acknowledged since the last, "
                        f"{load.unanswered(state)} produces unanswered")
            load.acked_before = state["acked"]
        print(f"  kill {number}: {'; '.join(told)}", end="", flush=True)
        instance.start()
        print(f"; up again ({time.monotonic() - start:.1f})", flush=True)
    problems = []
    for load, state in [(load, load.ask("finish")) for load in loads]:
        answer = load.ask("verify")
        print(f"  acks={load.acks}: {state['sent']} records sent, {state['acked']} acknowledged, {answer['read']} read "
              "back", flush=True)
        problems += [f"acks={load.acks}: {problem}" for problem in answer["problems"]]
    return problems


def run(folder: Path, options) -> List[str]:
    """The whole test on one folder; the problems found."""
    instance = broker.make(folder, options.shards, options)
    topics = client.Client("topics", folder)
    loads: List[Load] = []
    try:
        instance.start()
        for acks in KINDS:
            if error := topics.ask(instance.bootstrap, topic_of(acks), PARTITIONS):
                return ["creating the topic: " + error]
        loads += [Load(instance.bootstrap, acks) for acks in KINDS]
        problems = rounds(instance, loads, options)
        instance.stop()
        return problems
    except broker.BrokerError as error:
        return [str(error)]
    finally:
        for process in [topics, *loads]:
            process.close()
        instance.kill()


def main() -> int:
    """0 when nothing acknowledged was lost, doubled or moved."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
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
