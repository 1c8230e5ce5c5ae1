"""Consumer groups with the real clients: members come, go, crash and are restarted one by one, while records come in.

Every member says what it was assigned, what it has seen and what it has committed. In the end every record was seen,
and nobody saw a record again that was committed before the last one who owned its partition was assigned it.
"""

import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Set, Tuple

import broker
import client
import install
import tools

PARTITIONS = 6
# How long anything may take; more on a machine that is busy with other things.
WAIT_S = int(os.environ.get("COMPAT_WAIT_S", "60"))
CLIENTS = ["java", "librdkafka", "kafka-python", "kafkajs", "franz-go"]
# Those whose members may be static.
STATIC = ["java", "librdkafka", "franz-go"]
SETTINGS = {"group.initial.rebalance.delay.ms": 500, "offsets.topic.num.partitions": 7}
CHANGES = ("assigned", "revoked")
GROUP_TOOL = "consumer.group.ConsumerGroupCommand"


def command(kind: str, *arguments: str) -> List[str]:
    """The program of a member."""
    if kind == "java":
        return install.java("GroupMember", *arguments, heap="128m")
    if kind == "kafkajs":
        return ["node", str(install.CLIENTS / "kafkajs" / "member.js"), *arguments]
    if kind == "franz-go":
        return [str(install.GO / "client"), "member", *arguments]
    return [install.python(), str(install.CLIENTS / "group_member.py"), kind, *arguments]


class Member:
    """One member's process, and what it has said."""

    program = staticmethod(command)

    def __init__(self, log: Path, kind: str, *arguments: str):
        self.kind = kind
        self.lines: List[str] = []
        with log.open("ab") as err:
            self._process = subprocess.Popen(self.program(kind, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                             stderr=err, text=True, env=install.environment())
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def said(self, word: str, since: int = 0) -> List[str]:
        """What followed a word, line by line; `since` leaves out as many lines."""
        return [line[len(word):].strip() for line in self.lines[since:] if line.split(" ")[0] == word]

    def pairs(self, word: str, since: int = 0) -> List[Tuple[int, int]]:
        """Partition and offset of each mention behind a word."""
        return [tuple(map(int, pair.split(":"))) for line in self.said(word, since) for pair in line.split()]

    def owned(self) -> List[int]:
        """What it has, where it is told of changes alone."""
        own: Set[int] = set()
        for line in list(self.lines):
            word, _, rest = line.partition(" ")
            changed = {int(partition) for partition in rest.split(",") if partition} if word in CHANGES else set()
            own = own | changed if word == "assigned" else own - changed
        return sorted(own)

    def kill(self) -> None:
        """kill -9: it does not leave."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def close(self) -> List[str]:
        """Has it leave; the problems."""
        self._process.stdin.close()
        try:
            self._process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return [f"{self.kind} did not close: {self.lines[-5:]}"]
        self._reader.join()
        return [] if "closed" in self.lines else [f"{self.kind} did not close well: {self.lines[-5:]}"]


class Groups:
    """The cases over one broker."""

    def __init__(self, folder: Path, instance: broker.Broker):
        self.folder = folder
        self.broker = instance
        self._topics = client.Client("topics", folder)
        self._number = 0
        self._members: List[Member] = []

    def cases(self) -> List[Tuple[str, Callable[[], List[str]]]]:
        """Every case, in order."""
        each = [(f"groups: {kind}: a member goes on where the last one committed", lambda kind=kind: self.resume(kind))
                for kind in CLIENTS]
        rolling = [(f"groups: {kind}: three members are restarted one by one", lambda kind=kind: self.rolling(kind))
                   for kind in CLIENTS]
        static = [(f"groups: {kind}: a static member comes back without a rebalance", lambda kind=kind: self.static(kind))
                  for kind in STATIC]
        return [*each, *rolling, *static,
                ("groups: java, librdkafka, kafka-python and franz-go share one group", self.mixed),
                ("groups: members of every client go on after kill -9 of the broker", self.killed_broker),
                ("groups: kafka-consumer-groups lists, describes, resets and deletes", self.tool),
                ("groups: kafka-console-consumer reads in a group", self.console)]

    def close(self) -> None:
        """Ends the helper process, and the members that a case left behind when it broke off."""
        for member in self._members:
            member.kill()
        self._topics.close()

    def _topic(self) -> Tuple[str, str]:
        """A new topic, and the name of a group for it."""
        self._number += 1
        name = f"grouped-{self._number}"
        if error := self._topics.ask(self.broker.bootstrap, name, PARTITIONS):
            raise broker.BrokerError(error)
        return name, f"group-{self._number}"

    def _member(self, kind: str, topic: str, group: str, assignor: str = "range", *instance: str) -> Member:
        member = Member(self.folder / "members.log", kind, self.broker.bootstrap, topic, group, assignor, *instance)
        self._members.append(member)
        return member

    def _send(self, topic: str, count: int) -> None:
        """Sends records to all partitions in turn."""
        code = ("import sys\nfrom confluent_kafka import Producer\n"
                "p = Producer({'bootstrap.servers': sys.argv[1], 'enable.idempotence': True})\n"
                "for i in range(int(sys.argv[3])):\n"
                "    p.produce(sys.argv[2], value=b'%d' % i, partition=i % int(sys.argv[4]))\n"
                "sys.exit(p.flush(60))\n")
        done = subprocess.run([install.python(), "-c", code, self.broker.bootstrap, topic, str(count), str(PARTITIONS)],
                              env=install.environment(), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise broker.BrokerError(f"records cannot be sent: {done.stderr[-500:]}")

    @staticmethod
    def _until(what: str, look: Callable[[], bool], members: List[Member]) -> List[str]:
        deadline = time.monotonic() + WAIT_S
        while not look():
            if time.monotonic() > deadline:
                return [f"{what}: not within {WAIT_S} s"] + [f"{m.kind}: {m.lines[-8:]}" for m in members]
            time.sleep(0.05)
        return []

    def _all_committed(self, members: List[Member], count: int) -> Callable[[], bool]:
        def look() -> bool:
            ends: Dict[int, int] = {}
            for member in members:
                for partition, end in member.pairs("committed"):
                    ends[partition] = max(end, ends.get(partition, 0))
            return sum(ends.values()) >= count
        return look

    @staticmethod
    def _missing(members: List[Member], count: int) -> List[str]:
        seen = {pair for member in members for pair in member.pairs("seen")}
        expected = {(i % PARTITIONS, i // PARTITIONS) for i in range(count)}
        if seen == expected:
            return []
        return [f"{len(expected - seen)} records were never seen, {len(seen - expected)} never sent: "
                f"{sorted(expected - seen)[:5]}"]

    def resume(self, kind: str, assignor: str = "range") -> List[str]:
        """One member after the other: the second sees exactly what the first did not commit."""
        topic, group = self._topic()
        self._send(topic, 300)
        first = self._member(kind, topic, group, assignor)
        problems = self._until("the first member commits", self._all_committed([first], 300), [first]) + first.close()
        self._send(topic, 300)
        second = self._member(kind, topic, group, assignor)
        problems += self._until("the second member commits", self._all_committed([first, second], 600), [first, second])
        problems += second.close()
        again = set(first.pairs("seen")) & set(second.pairs("seen"))
        if again:
            problems.append(f"{len(again)} committed records were seen again: {sorted(again)[:5]}")
        return problems + self._missing([first, second], 600)

    def rolling(self, kind: str, assignor: str = "cooperative-sticky") -> List[str]:
        """Three members; each is closed and replaced in turn while records come in; one of them crashes."""
        topic, group = self._topic()
        alive = [self._member(kind, topic, group, assignor) for _ in range(3)]
        everyone = list(alive)
        problems = self._until("three members share", lambda: all(m.said("assigned") for m in alive), alive)
        sent = 0
        for at in range(3):
            self._send(topic, 120)
            sent += 120
            if at == 1:
                alive[at].kill()
            else:
                problems += alive[at].close()
            alive[at] = self._member(kind, topic, group, assignor)
            everyone.append(alive[at])
            problems += self._until("the new member is assigned", lambda: bool(alive[at].said("assigned")), alive)
        problems += self._until("everything is committed", self._all_committed(everyone, sent), everyone)
        for member in alive:
            problems += member.close()
        return problems + self._missing_of_many(everyone, sent)

    def _missing_of_many(self, members: List[Member], sent: int) -> List[str]:
        """As `_missing`, for records that were sent in several goes of 120."""
        seen = {pair for member in members for pair in member.pairs("seen")}
        expected = {(partition, offset) for partition in range(PARTITIONS) for offset in range(sent // PARTITIONS)}
        return [] if seen == expected else [f"{len(expected - seen)} records were never seen: {sorted(expected - seen)[:5]}"]

    def static(self, kind: str) -> List[str]:
        """A static member that is killed and comes back within its session keeps its partitions; nobody else notices."""
        topic, group = self._topic()
        stays, goes = (self._member(kind, topic, group, "range", name) for name in ("stays", "goes"))
        half = {"0,1,2", "3,4,5"}
        both = lambda: {m.said("assigned")[-1] for m in (stays, goes) if m.said("assigned")} == half  # noqa: E731
        problems = self._until("two members share", both, [stays, goes])
        if problems:
            return problems
        before, was = list(stays.said("assigned")), goes.said("assigned")[-1]
        goes.kill()
        back = self._member(kind, topic, group, "range", "goes")
        problems += self._until("it is back", lambda: back.said("assigned") == [was], [stays, back])
        self._send(topic, 60)
        problems += self._until("both read", self._all_committed([stays, back], 60), [stays, back])
        if stays.said("assigned") != before:
            problems.append(f"the other member was rebalanced: {stays.lines}")
        return problems + stays.close() + back.close()

    def mixed(self) -> List[str]:
        """Members of different libraries in one group, by an assignor that they all know."""
        topic, group = self._topic()
        members = [self._member(kind, topic, group) for kind in ("java", "librdkafka", "kafka-python", "franz-go")]

        def shared() -> bool:
            owned = [one for m in members if m.said("assigned") for one in m.said("assigned")[-1].split(",") if one]
            return sorted(owned) == [str(partition) for partition in range(PARTITIONS)]

        problems = self._until("four members share", shared, members)
        self._send(topic, 240)
        problems += self._until("everything is committed", self._all_committed(members, 240), members)
        for member in members:
            problems += member.close()
        return problems + self._missing(members, 240)

    def killed_broker(self, kinds: Sequence[str] = CLIENTS, assignor: str = "cooperative-sticky") -> List[str]:
        """kill -9 and a new start under two members of each client: they go on where they were. Nobody loses a commit,
        misses a record, or sees one again that was committed."""
        problems: List[str] = []
        of_kind: Dict[str, Tuple[str, str, List[Member]]] = {}
        for kind in kinds:
            topic, group = self._topic()
            self._send(topic, 120)
            members = [self._member(kind, topic, group, assignor) for _ in range(2)]
            of_kind[kind] = (topic, group, members)
        for kind, (_, _, members) in of_kind.items():
            problems += self._until(f"{kind}: the first records", self._all_committed(members, 120), members)
        before = {kind: self._committed(group) for kind, (_, group, _) in of_kind.items()}
        said = {member: len(member.lines) for _, _, members in of_kind.values() for member in members}
        self.broker.kill()
        self.broker.start()
        for kind, (topic, group, members) in of_kind.items():
            after = self._committed(group)
            if after != before[kind]:
                problems.append(f"{kind}: committed offsets were {before[kind]}, and are {after}")
            self._send(topic, 120)
        for kind, (_, _, members) in of_kind.items():
            problems += self._until(f"{kind}: the next records", self._all_committed(members, 240), members)
            again = [pair for member in members for pair in member.pairs("seen", said[member])
                     if pair[1] < before[kind].get(pair[0], 0)]
            if again:
                problems.append(f"{kind}: {len(again)} committed records were seen again: {again[:5]}")
            for member in members:
                problems += [f"{kind}: {problem}" for problem in member.close()]
            problems += [f"{kind}: {problem}" for problem in self._missing_of_many(members, 240)]
        return problems

    def _committed(self, group: str) -> Dict[int, int]:
        # Behind a start the coordinator loads for a moment, which this client does not wait for.
        code = ("import sys, time\nfrom kafka import KafkaAdminClient\n"
                "from kafka.errors import CoordinatorLoadInProgressError\n"
                "a = KafkaAdminClient(bootstrap_servers=sys.argv[1])\n"
                "until = time.monotonic() + 30\n"
                "while True:\n"
                "    try:\n"
                "        offsets = a.list_group_offsets([sys.argv[2]])[sys.argv[2]]\n"
                "        break\n"
                "    except CoordinatorLoadInProgressError:\n"
                "        if time.monotonic() > until: raise\n"
                "[print(p.partition, o.offset) for p, o in offsets.items()]\n")
        done = subprocess.run([install.python(), "-c", code, self.broker.bootstrap, group], env=install.environment(),
                              capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise broker.BrokerError(f"offsets cannot be listed: {done.stderr[-500:]}")
        return dict(tuple(map(int, line.split())) for line in done.stdout.splitlines())

    def _tool(self, *arguments: str) -> Tuple[List[str], str]:
        code, out, err = tools.tool(GROUP_TOOL, "--bootstrap-server", self.broker.bootstrap, *arguments)
        return tools.clean("kafka-consumer-groups " + " ".join(arguments), code, out, err), out

    def tool(self) -> List[str]:
        """kafka-consumer-groups in all its modes, on a group with a member and after it has left."""
        topic, group = self._topic()
        self._send(topic, 60)
        member = self._member("librdkafka", topic, group)
        problems = self._until("the member commits", self._all_committed([member], 60), [member])
        expected = {
            ("--list",): rf"(?m)^{group}$",
            ("--describe", "--group", group): rf"{group}\s+{topic}\s+0\s+10\s+10\s+0\s+rdkafka-\S+\s+/127.0.0.1\s+rdkafka",
            ("--describe", "--group", group, "--state"): r"range\s+Stable\s+1",
            ("--describe", "--group", group, "--members", "--verbose"): rf"rdkafka\s+6\s+.*{topic}:",
            ("--list", "--state", "stable"): rf"{group}\s+Stable",
        }
        problems += self._expect(expected)
        problems += member.close()
        reset = ("--group", group, "--topic", topic, "--reset-offsets")
        problems += self._expect({
            (*reset, "--to-offset", "3", "--dry-run"): rf"{group}\s+{topic}\s+0\s+3",
            (*reset, "--to-earliest", "--execute"): rf"{group}\s+{topic}\s+5\s+0",
            ("--describe", "--group", group): rf"{group}\s+{topic}\s+0\s+0\s+10\s+10",
            (*reset, "--shift-by", "4", "--execute"): rf"{group}\s+{topic}\s+2\s+4",
            ("--group", group, "--topic", f"{topic}:1", "--delete-offsets"): r"1\s+Successful",
            ("--group", group, "--delete"): "was successful",
        })
        if re.search(rf"(?m)^{group}$", self._tool("--list")[1]):
            problems.append("the deleted group is listed")
        return problems

    def _expect(self, expected: Dict[Tuple[str, ...], str]) -> List[str]:
        problems: List[str] = []
        for arguments, pattern in expected.items():
            found, out = self._tool(*arguments)
            problems += found
            if not re.search(pattern, out):
                problems.append(f"kafka-consumer-groups {' '.join(arguments)} told:\n{out[-800:]}")
        return problems

    def console(self, *arguments: str) -> List[str]:
        """kafka-console-consumer with a group: the second run goes on behind the first."""
        topic, group = self._topic()
        self._send(topic, 60)
        problems, read = [], []
        for _ in range(2):
            code, out, err = tools.tool("consumer.ConsoleConsumer", "--bootstrap-server", self.broker.bootstrap, "--topic",
                                        topic, "--group", group, "--from-beginning", "--max-messages", "30", *arguments)
            problems += [] if code == 0 else [f"kafka-console-consumer ended with {code}: {err[-500:]}"]
            read += out.split()
        if sorted(read, key=int) != [str(i) for i in range(60)]:
            problems.append(f"two runs read {len(read)} records, {len(set(read))} of them distinct")
        return problems
