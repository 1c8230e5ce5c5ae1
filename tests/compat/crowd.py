#!/usr/bin/env python3
"""A crowd in one group: members of two libraries join, leave and crash while a keyed stream comes in.

    tests/compat/crowd.py --minutes 3 --seed 1                       64 members on 200 partitions
    tests/compat/crowd.py --minutes 3 --seed 1 --reference kafka     the same with Apache Kafka 4.3.1
    tests/compat/crowd.py --measure 5                                from the last join to the first record, both brokers
    tests/compat/crowd.py --minutes 1 --kinds java --assignor cooperative-sticky

Several members live in one process; a crash is a SIGKILL of a process with all that are in it. Each of them says what
it was assigned, what it processed and what it committed; crowd_history.py tells what must hold of that. After a good run
each of its checks is tried on the run's own history with a fault planted in it.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Dict, List, Optional, Tuple

import broker
import client
import crowd_history
import install
from crowd_history import Event, History

KINDS = ["java", "librdkafka"]
# From the last change until everybody has what the group gives: a session of 10 s, and rebalances.
SETTLE_S = 90
ANSWER_S = 60
DRAIN_S = 90
COMMIT_MS = 400
TOPIC = "crowd"
SETTINGS = {"group.initial.rebalance.delay.ms": 500}


class Host:
    """A process with members in it."""

    def __init__(self, crowd: "Crowd", kind: str, options):
        self.kind = kind
        self.members: List[str] = []
        # Also those that were told to leave: a kill may come before they have left.
        self.everyone: List[str] = []
        self._heard_us = 0
        if kind == "java":
            argv = install.java("CrowdMember", options.protocol, options.assignor, heap="384m",
                                **{"org.slf4j.simpleLogger.defaultLogLevel": "error"})
        else:
            argv = [install.python(), str(install.CLIENTS / "crowd_member.py"), options.protocol, options.assignor]
        with (crowd.folder / f"{kind}.log").open("ab") as err:
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err,
                                             env=install.environment())
        self._reader = threading.Thread(target=self._read, args=(crowd,), daemon=True)
        self._reader.start()

    def _read(self, crowd: "Crowd") -> None:
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                event = crowd_history.parse(line.decode())
                self._heard_us = max(self._heard_us, event.at_us)
                crowd.hear(event)

    def _put(self, *words) -> None:
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self._process.stdin.flush()

    def join(self, name: str, *words) -> None:
        """Has a member join."""
        self.members.append(name)
        self.everyone.append(name)
        self._put("join", name, *words)

    def leave(self, name: str) -> None:
        """Has a member leave."""
        self.members.remove(name)
        self._put("leave", name)

    def kill(self) -> int:
        """kill -9; when, by the members' clock: at the call, or behind the last word that it did not silence at once."""
        at_us = time.monotonic_ns() // 1_000
        self._process.kill()
        self._process.wait()
        self._reader.join()
        return max(at_us, self._heard_us + 1)


class Stream:
    """The process that sends the stream and asks the broker (clients/crowd_stream.py)."""

    def __init__(self, bootstrap: str, partitions: int, keys: int, group: str, history: History):
        program = str(install.CLIENTS / "crowd_stream.py")
        self._process = subprocess.Popen(
            [install.python(), program, bootstrap, TOPIC, str(partitions), str(keys), group], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=install.environment())
        self._history = history
        self._answers: List[Tuple[str, str]] = []
        self._heard = threading.Condition()
        self.errors: List[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._process.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "sent":
                for one in rest.split():
                    partition, offset, key, sequence = map(int, one.split(":"))
                    self._history.sent[(partition, offset)] = (key, sequence)
            elif word == "error":
                self.errors.append(rest)
            else:
                with self._heard:
                    self._answers.append((word, rest))
                    self._heard.notify()

    def rate(self, records: int) -> None:
        """Records a second from now on."""
        self._process.stdin.write(f"rate {records}\n")
        self._process.stdin.flush()

    def ask(self, question: str) -> Tuple[str, str]:
        """One question, one answer: its word and the rest."""
        with self._heard:
            self._answers.clear()
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            if not self._heard.wait_for(lambda: self._answers, ANSWER_S):
                return "unknown", f"no answer within {ANSWER_S} s"
            return self._answers.pop(0)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()


class Crowd:
    """The members, and what they have said. Member names are unique over a run."""

    def __init__(self, folder: Path, options):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.options = options
        self.hosts: List[Host] = []
        self.history = History(options.partitions)
        self._number = 0
        self._lock = threading.Lock()
        # What members of now own, and who of them has joined and has not left.
        self.owned: Dict[str, set] = {}
        self.joined_us: Dict[str, int] = {}
        self.seen_us: Dict[str, int] = {}
        self.gone: set = set()

    def hear(self, event: Event) -> None:
        """A member has said something."""
        with self._lock:
            self.history.events.append(event)
            if event.what == "joins":
                self.joined_us[event.member] = event.at_us
            elif event.what == "assigned":
                self.owned.setdefault(event.member, set()).update(event.items)
            elif event.what in ("revoked", "lost"):
                self.owned.setdefault(event.member, set()).difference_update(event.items)
            elif event.what == "seen":
                self.seen_us.setdefault(event.member, event.at_us)
            elif event.what in ("left", "error"):
                self.gone.add(event.member)

    def alive(self) -> List[str]:
        """Members that were told to join and not told to leave."""
        return [name for host in self.hosts for name in host.members]

    def view(self) -> Dict[str, List[int]]:
        """What members own by their own account."""
        with self._lock:
            return {name: sorted(self.owned.get(name, ())) for name in self.alive()}

    def fill(self) -> None:
        """Starts hosts until there is room for everybody."""
        kinds = self.options.kinds
        while len(self.hosts) * self.options.per_host < self.options.members:
            there = [host.kind for host in self.hosts]
            self.hosts.append(Host(self, min(kinds, key=there.count), self.options))

    def join(self, count: int, bootstrap: str, group: str, commit_ms: int) -> List[str]:
        """Has members join where there is room; their names."""
        self.fill()
        names = []
        for _ in range(count):
            host = min(self.hosts, key=lambda host: len(host.members))
            self._number += 1
            names.append(f"{host.kind}-{self._number}")
            host.join(names[-1], bootstrap, TOPIC, group, commit_ms)
        return names

    def leave(self, names: List[str]) -> None:
        """Has members leave."""
        for host in self.hosts:
            for name in [name for name in host.members if name in names]:
                self.hear(Event(time.monotonic_ns() // 1_000, name, "is-told-to-leave", []))
                host.leave(name)

    def crash(self, host: Host) -> int:
        """Kills a process; how many members died."""
        at_us = host.kill()
        self.hosts.remove(host)
        for name in (name for name in host.everyone if name not in self.gone):
            self.hear(Event(at_us, name, "killed", []))
        return len(host.members)

    def close(self) -> None:
        """Ends everything."""
        for host in self.hosts:
            host.kill()
        self.hosts.clear()


class Storm:
    """One run of joining, leaving and crashing against one broker."""

    def __init__(self, folder: Path, instance: broker.Broker, options):
        self.broker = instance
        self.options = options
        self.group = f"crowd-{options.protocol}-{options.assignor}"
        self.crowd = Crowd(folder, options)
        self.draw = random.Random(options.seed)
        self.stream: Optional[Stream] = None
        self.counts = dict.fromkeys(("joined", "left", "crashed", "broker kills"), 0)
        self.settle_s: List[float] = []
        self._folder = folder

    def run(self) -> List[str]:
        """The problems."""
        topics = client.Client("topics", self._folder)
        try:
            if error := topics.ask(self.broker.bootstrap, TOPIC, self.options.partitions):
                return [error]
            self.stream = Stream(self.broker.bootstrap, self.options.partitions, self.options.keys, self.group,
                                 self.crowd.history)
            return self._run()
        finally:
            topics.close()
            self.crowd.close()
            if self.stream:
                self.stream.close()

    def _run(self) -> List[str]:
        options = self.options
        self._join(options.members)
        self.stream.rate(options.rate)
        problems = self._settle()
        began, kills = time.monotonic(), options.broker_kills
        while not problems and (passed := time.monotonic() - began) < options.minutes * 60:
            if kills and passed > options.minutes * 60 * (options.broker_kills - kills + 1) / (options.broker_kills + 1):
                kills -= 1
                problems = self._kill_broker()
            else:
                self._act()
            if self.draw.random() < 0.4:
                problems = problems or self._settle()
            else:
                time.sleep(self.draw.uniform(0.2, 4))
        if not problems:
            self._join(options.members - len(self.crowd.alive()))
            problems = self._settle() or self._drain()
        # After a failure the stream still goes on; what was processed by now is looked at all the same.
        self.stream.rate(0)
        history = self.crowd.history.copy()
        found, walk = crowd_history.check(history)
        problems += found
        self.counts["records"] = len(walk.processed)
        self.counts["processed again"] = walk.repeated
        self.counts["handed twice"] = walk.handed_twice
        if problems:
            return problems + crowd_history.last_words(history, problems)
        return crowd_history.self_test(history, options.seed)

    def _join(self, count: int) -> None:
        self.crowd.join(count, self.broker.bootstrap, self.group, COMMIT_MS)
        self.counts["joined"] += count

    def _act(self) -> None:
        """One change."""
        alive, members = self.crowd.alive(), self.options.members
        choice = self.draw.random()
        if len(alive) < members and (choice < 0.45 or len(alive) < members // 2):
            self._join(min(self.draw.randint(1, 6), members - len(alive)))
        elif choice < 0.75:
            leaving = self.draw.sample(alive, self.draw.randint(1, 4))
            self.crowd.leave(leaving)
            self.counts["left"] += len(leaving)
        else:
            died = self.crowd.crash(self.draw.choice(self.crowd.hosts))
            self.counts["crashed"] += died
            if self.draw.random() < 0.5:
                self._join(died)

    def _kill_broker(self) -> List[str]:
        """kill -9 and a start. Half of the kills meet a group at rest: then nobody is told that it is out."""
        problems = self._settle() if (at_rest := self.draw.random() < 0.5) else []
        word = "at-rest" if at_rest else "in-between"
        self.crowd.hear(Event(time.monotonic_ns() // 1_000, "broker", "dies", [word]))
        self.broker.kill()
        self.broker.start()
        self.crowd.hear(Event(time.monotonic_ns() // 1_000, "broker", "is-back", []))
        self.counts["broker kills"] += 1
        return problems

    def _settle(self) -> List[str]:
        """Waits until members and broker agree on who has what; the problem if they do not in time."""
        began = time.monotonic()
        wanted = list(range(self.options.partitions))
        told: object = None
        while time.monotonic() - began < SETTLE_S:
            own = self.crowd.view()
            if sorted(one for parts in own.values() for one in parts) == wanted:
                word, answer = self.stream.ask("describe")
                told = (word, answer)
                if word == "described" and self._agree(own, json.loads(answer)):
                    self.settle_s.append(time.monotonic() - began)
                    return []
            time.sleep(0.1)
        has = [one for parts in own.values() for one in parts]
        silent = [name for name in own if name not in self.crowd.owned]
        return [f"the group of {len(own)} has not settled within {SETTLE_S} s: {len(has)} partitions are owned, "
                f"{len(set(has))} distinct; never assigned anything: {silent[:8]}; last errors: {self._errors()}; "
                f"the broker says {str(told)[:1_500]}"]

    def _errors(self) -> List[str]:
        return [f"{event.member}: {' '.join(event.items)}" for event in self.crowd.history.events
                if event.what in ("error", "failed")][-5:]

    def _agree(self, own: Dict[str, List[int]], told: dict) -> bool:
        """Whether the broker tells the same as the members, who say the same as before it was asked. A group is stable
        before its members have seen to what they were given, so that both may be whole, and not the same yet."""
        is_settled = told["state"] == "STABLE" and told["count"] == len(own) and own == told["members"] == self.crowd.view()
        if is_settled:
            self.crowd.history.settled.append((time.monotonic_ns() // 1_000, own, told["members"]))
        return is_settled

    def _drain(self) -> List[str]:
        """Ends the stream, waits until everything is committed, has everybody leave and asks what is committed."""
        word, answer = self.stream.ask("flush")
        history = self.crowd.history
        if word != "flushed" or self.stream.errors or int(answer) != len(history.sent):
            return [f"the stream: {word} {answer}, {len(history.sent)} acknowledged, {self.stream.errors[:3]}"]
        ends = history.ends()
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            word, answer = self.stream.ask("committed")
            if word == "committed":
                history.committed = {int(partition): offset for partition, offset in json.loads(answer).items()}
                if history.committed == ends:
                    break
            time.sleep(0.2)
        everyone = self.crowd.alive()
        self.crowd.leave(everyone)
        while not self.crowd.gone.issuperset(everyone):
            if time.monotonic() > deadline + SETTLE_S:
                return [f"members do not leave: {sorted(set(everyone) - self.crowd.gone)[:5]}"]
            time.sleep(0.05)
        return []

    def told(self) -> str:
        """The run in a line."""
        counts = ", ".join(f"{count} {what}" for what, count in self.counts.items())
        settle = sorted(self.settle_s) or [0.0]
        first = sorted((self.crowd.seen_us[name] - at) / 1e6 for name, at in self.crowd.joined_us.items()
                       if name in self.crowd.seen_us) or [0.0]
        return (f"{counts}; settled {len(self.settle_s)} times, in {statistics.median(settle):.1f} s at the median and "
                f"{settle[-1]:.1f} s at most; from a join to the member's first record {statistics.median(first):.1f} s "
                f"at the median")


class Measure:
    """From the last join to the first record: both brokers, in turns, with the same processes as members."""

    def __init__(self, folder: Path, brokers: Dict[str, broker.Broker], options):
        self.brokers = brokers
        self.options = options
        self.crowd = Crowd(folder, options)
        self._folder = folder
        self._turn = 0

    def run(self) -> Dict[str, List[Dict[str, float]]]:
        """The figures of each turn, by broker."""
        topics = client.Client("topics", self._folder)
        figures: Dict[str, List[Dict[str, float]]] = {name: [] for name in self.brokers}
        try:
            for instance in self.brokers.values():
                if error := topics.ask(instance.bootstrap, TOPIC, self.options.partitions):
                    raise broker.BrokerError(error)
                self._fill(instance)
            self.crowd.fill()
            for turn in range(self.options.warmup_turns + self.options.measure):
                for name, instance in self.brokers.items():
                    one = self._measure(instance)
                    is_warm = turn >= self.options.warmup_turns
                    print(f"{'turn' if is_warm else 'warm-up'} {turn + 1}, {name}: "
                          + ", ".join(f"{what} {value:.2f}" for what, value in one.items()), flush=True)
                    if is_warm:
                        figures[name].append(one)
        finally:
            topics.close()
            self.crowd.close()
        return figures

    def _fill(self, instance: broker.Broker) -> None:
        history = History(self.options.partitions)
        stream = Stream(instance.bootstrap, self.options.partitions, self.options.partitions, "nobody", history)
        stream.rate(self.options.partitions * 20)
        while len(history.sent) < self.options.partitions * 20:
            time.sleep(0.05)
        stream.close()

    def _measure(self, instance: broker.Broker) -> Dict[str, float]:
        """Everybody joins a new group; then one more joins. Nobody commits, so whoever gets a partition has records."""
        self._turn += 1
        group = f"measured-{self._turn}"
        last = self.options.members - 1
        cpu = instance.cpu_s()
        crowd = self.crowd.join(last, instance.bootstrap, group, 0)
        self._wait("everybody has a record", lambda: all(name in self.crowd.seen_us for name in crowd))
        joined = max(self.crowd.joined_us[name] for name in crowd)
        seen = [self.crowd.seen_us[name] for name in crowd]
        everybody_s = (max(seen) - joined) / 1e6
        newest = max(crowd, key=self.crowd.joined_us.get)
        newest_s = (self.crowd.seen_us[newest] - joined) / 1e6
        self._settled()
        cpu_s = instance.cpu_s() - cpu
        # Sessions and heartbeats are under way; the next one meets a group at rest.
        time.sleep(1)
        one_more = self.crowd.join(1, instance.bootstrap, group, 0)[0]
        self._wait("the last one has a record", lambda: one_more in self.crowd.seen_us)
        one_more_s = (self.crowd.seen_us[one_more] - self.crowd.joined_us[one_more]) / 1e6
        self._settled()
        everyone = self.crowd.alive()
        self.crowd.leave(everyone)
        self._wait("everybody leaves", lambda: self.crowd.gone.issuperset(everyone))
        return {"newest": newest_s, "everybody": everybody_s, "one more": one_more_s, "cpu": cpu_s}

    def _settled(self) -> None:
        wanted = list(range(self.options.partitions))
        self._wait("partitions are shared",
                   lambda: sorted(one for parts in self.crowd.view().values() for one in parts) == wanted)

    @staticmethod
    def _wait(what: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SETTLE_S
        while not look():
            if time.monotonic() > deadline:
                raise broker.BrokerError(f"{what}: not within {SETTLE_S} s")
            time.sleep(0.02)


ROWS = {"newest": "all join a new group: from the last join to the first record of the member that joined last",
        "everybody": "until everybody has a record",
        "one more": "one more joins a group at rest: from its join to its first record",
        "cpu": "CPU of the broker while all join"}


def table(figures: Dict[str, List[Dict[str, float]]]) -> str:
    """The medians as Markdown; ratios are those of turns."""
    names = list(figures)
    lines = [f"| | {' | '.join(names)} | {names[0]} ÷ {names[-1]} (min–max) |", "|---" * (len(names) + 2) + "|"]
    for what, row in ROWS.items():
        values = {name: sorted(turn[what] for turn in turns) for name, turns in figures.items()}
        cells = [f"{statistics.median(of):.2f} s ({of[0]:.2f}–{of[-1]:.2f})" for of in values.values()]
        pairs = sorted(a[what] / max(b[what], 1e-3) for a, b in zip(figures[names[0]], figures[names[-1]]))
        cells.append(f"**{statistics.median(pairs):.2f}** ({pairs[0]:.2f}–{pairs[-1]:.2f})")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def options_of(**given) -> SimpleNamespace:
    """Options for a run out of another program."""
    return SimpleNamespace(**(vars(arguments([])) | given))


def short(folder: Path, instance: broker.Broker, **given) -> Tuple[List[str], str]:
    """A short storm; the problems, and the run in a line."""
    storm = Storm(folder, instance, options_of(**given))
    return storm.run(), storm.told()


def arguments(argv: Optional[List[str]] = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--partitions", type=int, default=200)
    parser.add_argument("--per-host", type=int, default=8, help="members in one process")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS, help="libraries: java,librdkafka")
    parser.add_argument("--assignor", default="range", choices=["range", "roundrobin", "cooperative-sticky"],
                        help="cooperative-sticky only with one library: the two do not read each other's")
    parser.add_argument("--protocol", default="classic", choices=["classic", "consumer"])
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=1_000, help="records a second")
    parser.add_argument("--broker-kills", type=int, default=1, help="kill -9 of the broker in between")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--measure", type=int, default=0, help="turns of the measurement instead of a storm")
    parser.add_argument("--warmup-turns", type=int, default=1)
    parser.add_argument("--reference", choices=["kafka"], help="run against Apache Kafka itself")
    parser.add_argument("--broker-cmd", help="how to start the broker; {config} is its properties file")
    parser.add_argument("--self-test", action="store_true", help="only the checks, on an example with planted faults")
    return parser.parse_args(argv)


def measure(folder: Path, options) -> int:
    """Both brokers side by side."""
    brokers = {"kafka": broker.ReferenceBroker(folder / "kafka", options.shards),
               "tidemill": broker.Broker(folder / "tidemill", options.shards, options.broker_cmd)}
    try:
        for instance in brokers.values():
            instance.start()
        print(table(Measure(folder, brokers, options).run()))
        return 0
    finally:
        for instance in brokers.values():
            instance.kill()


def main() -> int:
    """A storm or the measurement; 0 when nothing failed."""
    options = arguments()
    problems = crowd_history.self_test(crowd_history.example(), options.seed, is_made_for_it=True)
    if options.self_test:
        print("\n".join(problems) or "passed: every planted fault is found")
        return 1 if problems else 0
    install.ensure()
    base = install.ROOT / ".cache" / "compat" / "run"
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMPAT_TMP") or base) as name:
        folder = Path(name)
        if options.measure:
            return measure(folder, options)
        instance = broker.make(folder / "broker", options.shards, options, SETTINGS)
        storm = Storm(folder, instance, options)
        try:
            instance.start()
            problems += storm.run()
            instance.stop()
        except broker.BrokerError as error:
            problems.append(str(error))
        finally:
            instance.kill()
        print(storm.told())
    print("\n".join(problems) or f"passed: seed {options.seed}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
