#!/usr/bin/env python3
"""The chaos test: three real brokers on a network of their own, real clients, faults, and a checker of what clients saw.

    tests/chaos/run.py                          a minute and a half, every fault at least once (needs root)
    tests/chaos/run.py --minutes 30 --seed 7    longer; the seed draws faults, nodes and times
    tests/chaos/run.py --only "cut" --minutes 5 only faults whose name contains this
    tests/chaos/history.py                      the checker's own test

Under load of librdkafka and the Java client (idempotent producers with acks=all, groups of consumers) nodes are killed,
stopped, cut off from each other in whole or one way, slowed down; their disks are full, or lost; they are restarted in
turn, and partitions are moved meanwhile. A record that was acknowledged, or read by a consumer, and is not there in the
end is a failure, and so is one that is there twice, out of its producer's order or never sent; replicas that differ on
disk; a producer or a partition that comes to a standstill after the fault is over; a broker that ends by itself. So is a
fault that hit nothing: each counts its hits.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "compat"))

import broker  # noqa: E402
import install  # noqa: E402
from brokers import ChaosError, Node, dies_with_parent, replicas_differ  # noqa: E402
from faults import FAULTS, Stage  # noqa: E402
from history import History, test_checker  # noqa: E402
from network import Network  # noqa: E402

HERE = Path(__file__).resolve().parent
CLASSES = install.CACHE / "classes-chaos"
TOPIC = "chaos"
NODES = 3
PARTITIONS = 6
LIBRDKAFKA_PRODUCERS = 2
JAVA_PRODUCER = 9
# Records a second of each client program, and what all of them may write in a run.
RATE_MAX = 1_500
RECORDS_MAX = 1_500_000
RECOVERY_S = 90
ANSWER_S = 240
# A fault that hit nothing is tried again so often.
ATTEMPTS = 3
MOVES = "reassignment"
# What producers say when the folder of a failed run is kept.
JAVA_TALK = {"log.org.apache.kafka.clients.producer": "debug", "showDateTime": "true", "dateTimeFormat": "HH:mm:ss.SSS"}


class Client:
    """A client program on a host of the network, and the questions it answers."""

    def __init__(self, network: Network, host: str, argv: List[str], folder: Path):
        self.host = host
        self._log = (folder / f"{host}.log").open("ab")
        self._process = subprocess.Popen(network.inside(host, argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         stderr=self._log, env=install.environment(), preexec_fn=dies_with_parent)

    def ask(self, question: str) -> dict:
        """One question, one answer."""
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ChaosError(f"the client on {self.host} ended with {self._process.wait()}")
        return json.loads(line)

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._log.close()


class Run:
    """One run."""

    def __init__(self, folder: Path, options: argparse.Namespace):
        self.folder = folder
        self.options = options
        self.rng = random.Random(options.seed)
        self.network = Network([f"b{number}" for number in range(1, NODES + 1)] + ["c1", "c2"])
        program = options.program or broker.default_command().split()[0]
        self.nodes = [Node(number, folder, self.network, options.shards, str(Path(program).resolve()))
                      for number in range(1, NODES + 1)]
        self.clients: List[Client] = []
        self.admin: Optional[Client] = None
        self.hits: Counter = Counter()
        self.fired: Counter = Counter()
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """A line with the time."""
        print(f"  {time.monotonic() - self.began:6.1f} {text}", flush=True)

    def start(self) -> None:
        """Network, brokers, topic, load."""
        self.network.make()
        for node in self.nodes:
            node.make(NODES)
            node.start()
        for node in self.nodes:
            node.await_ready(1)
        bootstrap = ",".join(node.address for node in self.nodes)
        rate = max(50, min(RATE_MAX, int(RECORDS_MAX / 2 / (60 * self.options.minutes))))
        talk = {f"org.slf4j.simpleLogger.{key}": value for key, value in JAVA_TALK.items()} if self.options.keep else {}
        java = install.java("ChaosLoad", bootstrap, TOPIC, str(PARTITIONS), str(JAVA_PRODUCER), str(rate),
                            str(self.folder / "java.history"), heap="256m", **talk)
        at = java.index("-cp") + 1
        java[at] = f"{CLASSES}:{java[at]}"
        self.admin = Client(self.network, "c1", java, self.folder)
        self.clients.append(self.admin)
        self._until("the topic is made", lambda: "failed" not in self._told("create 3"))
        self.await_in_sync()
        self.admin.ask("load")
        self.clients.append(Client(self.network, "c2", [
            install.python(), str(HERE / "librdkafka_load.py"), bootstrap, TOPIC, str(PARTITIONS), "1",
            str(LIBRDKAFKA_PRODUCERS), str(rate), str(self.folder / "librdkafka.history"),
            "eos,msg" if self.options.keep else ""], self.folder))
        self.await_progress()
        self.say(f"all is there: {rate} records a second of each of two clients, "
                 f"{'netem' if self.network.has_netem else 'token buckets'} for slow links")

    def _told(self, question: str) -> dict:
        """An answer of the admin; a topic that is there already is no failure."""
        answer = self.admin.ask(question)
        return {} if "TopicExists" in answer.get("failed", "") else answer

    def _until(self, what: str, holds, tell=lambda: "") -> None:
        deadline = time.monotonic() + RECOVERY_S
        while not holds():
            for node in self.nodes:
                node.check()
            if time.monotonic() > deadline:
                told = "\n".join(f"  node {node.number}:\n{node.tail()}" for node in self.nodes)
                raise ChaosError(f"stuck: not within {RECOVERY_S} s: {what}{tell()}; {self.topic()}\n{told}")
            time.sleep(0.1)

    def topic(self) -> List[dict]:
        """Leader, replicas and ISR of each partition; nothing while nobody answers."""
        return self.admin.ask("topic").get("partitions", [])

    def await_in_sync(self) -> None:
        """Waits until every partition has its leader, and every replica is in sync."""
        def holds() -> bool:
            told = self.topic()
            return bool(told) and all(one["leader"] > 0 and len(one["isr"]) == NODES for one in told)
        self._until("every replica is in sync", holds)

    def states(self) -> List[dict]:
        """The counts of every client, which has no error."""
        states = [client.ask("state") for client in self.clients]
        for state in states:
            if state["errors"]:
                raise ChaosError("clients: " + "; ".join(state["errors"]))
        return states

    def await_progress(self) -> None:
        """Waits until every client has something acknowledged in every partition, and reads, since now."""
        before = self.states()

        def holds() -> bool:
            pairs = list(zip(before, self.states()))
            wrote = all(new > old for one, other in pairs
                        for old, new in zip(one["acknowledged"], other["acknowledged"]))
            return wrote and all(other["read"] > one["read"] for one, other in pairs)

        def tell() -> str:
            return "".join(f"; {client.host} {one} then {other}"
                           for client, one, other in zip(self.clients, before, self.states()))
        self._until("every partition takes records of every client, and they are read", holds, tell)

    def faults(self) -> None:
        """Every fault once in a random order, and again until the time is over."""
        names = [name for name in FAULTS if self.options.only in name]
        until = time.monotonic() + 60 * self.options.minutes
        stage = Stage(self.nodes, self.network, [client.host for client in self.clients], self.rng, self.topic,
                      self.await_in_sync)
        deck: List[str] = []
        while time.monotonic() < until or any(not self.hits[name] and self.fired[name] < ATTEMPTS for name in names):
            if not deck:
                # Those that have not hit yet come first.
                deck = sorted(self.rng.sample(names, len(names)), key=lambda name: self.hits[name] == 0)
            name = deck.pop()
            moved = self._begin_move() if self.rng.random() < 0.6 else None
            began = time.monotonic()
            hits = FAULTS[name](stage)
            held = time.monotonic() - began
            self.fired[name] += 1
            self.hits[name] += hits
            self._end_move(moved)
            self.await_in_sync()
            self.await_progress()
            also = f", partition {moved} moved" if moved is not None else ""
            self.say(f"{name}: {hits} hits in {held:.1f} s{also}; whole again {time.monotonic() - began - held:.1f} s later")
            if self.rng.random() < 0.3:
                self.admin.ask("elect")

    def _begin_move(self) -> Optional[int]:
        """Takes a partition to two of its replicas, in another order: the third one has to be made anew later."""
        partition = self.rng.randrange(PARTITIONS)
        replicas = self.rng.sample(range(1, NODES + 1), NODES)
        self.fired[MOVES] += 1
        if "failed" in self.admin.ask(f"reassign {partition} {','.join(map(str, replicas[:2]))}"):
            return None
        self._until("a partition has moved", lambda: self.admin.ask("reassigning").get("count") == 0)
        if "failed" in self.admin.ask(f"reassign {partition} {','.join(map(str, replicas))}"):
            self._until("a partition moves back", lambda: "failed" not in
                        self.admin.ask(f"reassign {partition} {','.join(map(str, replicas))}"))
        return partition

    def _end_move(self, moved: Optional[int]) -> None:
        if moved is not None:
            self._until("a partition has moved back", lambda: self.admin.ask("reassigning").get("count") == 0)
            self.hits[MOVES] += 1

    def finish(self) -> List[str]:
        """Ends the load, reads everything back, stops the nodes; what is wrong."""
        for client in self.clients:
            state = client.ask("finish")
            if state["errors"]:
                raise ChaosError("clients: " + "; ".join(state["errors"]))
        self.await_in_sync()
        told = self.clients[-1].ask("dump")
        if told["errors"]:
            raise ChaosError("reading back: " + "; ".join(told["errors"]))
        for client in self.clients:
            client.end()
        for node in self.nodes:
            node.check()
            node.stop()
        history = History()
        for name in ("java", "librdkafka"):
            history.add_file(self.folder / f"{name}.history")
        problems = history.check() + replicas_differ(self.nodes, TOPIC)
        counts = history.counts
        self.say(f"{counts['A']} acknowledged, {counts['F']} given up, {counts['R']} read meanwhile, {counts['L']} in the end")
        wanted = [name for name in [*FAULTS, MOVES] if self.options.only in name]
        problems += [f"no hit: {name}, tried {self.fired[name]} times" for name in wanted if not self.hits[name]]
        return problems

    def keep_disks(self) -> None:
        """Copies what nodes have on their disks, which are gone after the end."""
        for node in self.nodes:
            node.kill()
            subprocess.run(["cp", "-a", str(node.disk), f"{node.disk}-kept"], check=False)

    def end(self) -> None:
        """Takes everything away."""
        for client in self.clients:
            client.end()
        for node in self.nodes:
            node.end()
        self.network.end()


def install_load() -> None:
    """The clients' libraries, and our class."""
    install.CACHE.mkdir(parents=True, exist_ok=True)
    install.install_jars(install.KAFKA)
    install.install_python()
    source = HERE / "ChaosLoad.java"
    stamp = CLASSES / "stamp"
    if not stamp.exists() or stamp.read_bytes() != source.read_bytes():
        CLASSES.mkdir(parents=True, exist_ok=True)
        subprocess.run(["javac", "-d", str(CLASSES), "-cp", f"{install.jars(install.KAFKA)}/*", str(source)], check=True)
        stamp.write_bytes(source.read_bytes())


def main() -> int:
    """0 when nothing was lost and every fault hit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=1, help="shards of each node")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    parser.add_argument("--program", help="the executable, instead of the release build")
    parser.add_argument("--keep", action="store_true", help="leave the folder of a failed run, and let producers say more")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("the chaos test makes network namespaces and disks of its own, for which it has to be root")
        return 1
    if wrong := test_checker():
        print("\n".join(wrong))
        return 1
    install_load()
    base = install.CACHE / "run"
    base.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=base))
    run = Run(folder, options)
    problems: List[str] = []
    try:
        run.start()
        run.faults()
        problems = run.finish()
    except (ChaosError, RuntimeError) as error:
        problems = [str(error)]
    finally:
        if problems and options.keep:
            run.keep_disks()
        run.end()
        if not (problems and options.keep):
            subprocess.run(["rm", "-rf", str(folder)])
    hits: Dict[str, int] = dict(run.hits)
    print("  hits: " + ", ".join(f"{name} {count}" for name, count in hits.items()))
    name = f"chaos, seed {options.seed}, {options.minutes} minutes, {options.shards} shards a node"
    print(f"{'FAIL' if problems else 'PASS'} {name} ({time.monotonic() - run.began:.1f})")
    for problem in problems:
        print("    " + problem)
    print(f"{0 if problems else 1} passed, {1 if problems else 0} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
