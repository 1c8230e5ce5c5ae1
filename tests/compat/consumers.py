"""Groups by the consumer protocol (KIP-848) with the real clients, alone and beside members of the classic protocol.

Members are told of what changes alone, so what one has is what it was assigned and has not given up since.
"""

from typing import Callable, List, Tuple

import broker
import groups
import tools
from groups import PARTITIONS, Member

# Those that follow the protocol.
CLIENTS = ["java", "librdkafka"]
# Members that crash are out after 6 s, and all report twice a second.
SETTINGS = {"group.consumer.session.timeout.ms": 6000, "group.consumer.min.session.timeout.ms": 6000,
            "group.consumer.heartbeat.interval.ms": 500, "group.consumer.min.heartbeat.interval.ms": 500}


class Consumers(groups.Groups):
    """The cases of both protocols over one broker."""

    def cases(self) -> List[Tuple[str, Callable[[], List[str]]]]:
        """Every case, in order."""
        own = []
        for kind in CLIENTS:
            own += [
                (f"groups: consumer protocol: {kind}: a member goes on where the last one committed",
                 lambda kind=kind: self.resume(kind, "consumer")),
                (f"groups: consumer protocol: {kind}: three members are restarted one by one",
                 lambda kind=kind: self.rolling(kind, "consumer")),
                (f"groups: consumer protocol: {kind}: a static member comes back to what it had",
                 lambda kind=kind: self.static_consumers(kind)),
                (f"groups: consumer protocol: {kind}: a pattern finds a topic that is made later",
                 lambda kind=kind: self.pattern(kind)),
            ]
        return super().cases() + own + [
            ("groups: consumer protocol: java and librdkafka share one group by range", self.shared),
            ("groups: consumer protocol: a group changes to it and back, member by member", self.migrated),
            ("groups: consumer protocol: members go on after kill -9 of the broker",
             lambda: self.killed_broker(("java", "librdkafka"), "consumer")),
            ("groups: consumer protocol: kafka-consumer-groups lists, describes, resets and deletes", self.consumer_tool),
            ("groups: consumer protocol: kafka-console-consumer reads in a group",
             lambda: self.console("--command-property", "group.protocol=consumer"))]

    @staticmethod
    def _are_shared(members: List[Member]) -> bool:
        owned = sorted(partition for member in members for partition in member.owned())
        return owned == list(range(PARTITIONS)) and all(member.owned() for member in members)

    def static_consumers(self, kind: str) -> List[str]:
        """A static member that is closed and comes back within its session finds its partitions; nobody else notices."""
        topic, group = self._topic()
        stays, goes = (self._member(kind, topic, group, "consumer", name) for name in ("stays", "goes"))
        problems = self._until("two members share", lambda: self._are_shared([stays, goes]), [stays, goes])
        if problems:
            return problems
        before, was = list(stays.lines), goes.owned()
        problems += goes.close()
        back = self._member(kind, topic, group, "consumer", "goes")
        problems += self._until("it is back", lambda: back.owned() == was, [stays, back])
        if stays.lines != before:
            problems.append(f"the other member was rebalanced: {stays.lines}")
        self._send(topic, 60)
        problems += self._until("both read", self._all_committed([stays, back], 60), [stays, back])
        return problems + stays.close() + back.close()

    def pattern(self, kind: str) -> List[str]:
        """Two members by a pattern that the broker matches; a topic that matches is made while they read."""
        topic, group = self._topic()
        members = [self._member(kind, f"^{topic}(-more)?$", group, "consumer") for _ in range(2)]
        self._send(topic, 60)
        problems = self._until("the first topic is read", self._seen(members, 60), members)
        if error := self._topics.ask(self.broker.bootstrap, f"{topic}-more", PARTITIONS):
            raise broker.BrokerError(error)
        self._send(f"{topic}-more", 60)
        problems += self._until("the second topic is read", self._seen(members, 120), members)
        for member in members:
            problems += member.close()
        return problems

    @staticmethod
    def _seen(members: List[Member], count: int) -> Callable[[], bool]:
        return lambda: sum(len(member.pairs("seen")) for member in members) >= count

    def shared(self) -> List[str]:
        """Members of both libraries, and the assignor that one of them names."""
        topic, group = self._topic()
        members = [self._member(kind, topic, group, "consumer-range") for kind in ("java", "librdkafka", "java")]
        by_range = [(0, 1), (2, 3), (4, 5)]
        problems = self._until("three members share by range",
                               lambda: sorted(tuple(member.owned()) for member in members) == by_range, members)
        self._send(topic, 240)
        problems += self._until("everything is committed", self._all_committed(members, 240), members)
        for member in members:
            problems += member.close()
        return problems + self._missing(members, 240)

    def migrated(self) -> List[str]:
        """Members of the classic protocol give way to members of the consumer protocol one by one, and come back."""
        topic, group = self._topic()
        everyone: List[Member] = []
        sent = 0

        def add(kind: str, assignor: str) -> Member:
            everyone.append(self._member(kind, topic, group, assignor))
            return everyone[-1]

        def read(problems: List[str], alive: List[Member]) -> List[str]:
            nonlocal sent
            problems += self._until("all share", lambda: self._are_shared(alive), everyone)
            self._send(topic, 120)
            sent += 120
            return problems + self._until("everything is committed", self._all_committed(everyone, sent), everyone)

        old = [add("java", "cooperative-sticky"), add("librdkafka", "cooperative-sticky")]
        problems = read([], old)
        for (word, assignor) in (("consumer", "consumer"), ("classic", "cooperative-sticky")):
            new = [add("librdkafka", assignor)]
            problems = read(problems, old + new)
            # The new protocol has come with its first member, and goes with its last.
            problems += self._type_of(group, "consumer")
            for gone, kind in zip(list(old), ("java", None)):
                problems += gone.close()
                old.remove(gone)
                if kind:
                    new.append(add(kind, assignor))
                problems = read(problems, old + new)
            problems += self._type_of(group, word)
            old = new
        for member in old:
            problems += member.close()
        return problems + self._missing_of_many(everyone, sent)

    def _type_of(self, group: str, kind: str) -> List[str]:
        return self._expect({("--list", "--type", kind): rf"(?m)^{group}\s"})

    def consumer_tool(self) -> List[str]:
        """kafka-consumer-groups on a group with a member and after it has left."""
        topic, group = self._topic()
        self._send(topic, 60)
        member = self._member("java", topic, group, "consumer")
        problems = self._until("the member commits", self._all_committed([member], 60), [member])
        problems += self._expect({
            ("--list",): rf"(?m)^{group}$",
            ("--list", "--type"): rf"(?m)^{group}\s+Consumer",
            ("--list", "--state", "stable"): rf"{group}\s+Stable",
            ("--describe", "--group", group): rf"{group}\s+{topic}\s+0\s+10\s+10\s+0\s+\S+\s+/127.0.0.1\s+consumer-",
            ("--describe", "--group", group, "--verbose"): rf"{group}\s+{topic}\s+0\s+-\s+10\s+10\s+0\s+\S+",
            ("--describe", "--group", group, "--state"): r"uniform\s+Stable\s+1",
            ("--describe", "--group", group, "--state", "--verbose"): r"uniform\s+Stable\s+\d+\s+\d+\s+1",
            ("--describe", "--group", group, "--members"): r"/127.0.0.1\s+consumer-\S+\s+6",
            ("--describe", "--group", group, "--members", "--verbose"): rf"\s6\s+\d+\s+{topic}:0,1,2,3,4,5\s+\d+\s+{topic}:",
        })
        code, out, _ = tools.tool(groups.GROUP_TOOL, "--bootstrap-server", self.broker.bootstrap, "--group", group,
                                  "--topic", topic, "--reset-offsets", "--to-earliest", "--execute")
        if "current state is Stable" not in out:
            problems.append(f"offsets of a group with members were reset: {code} {out[-500:]}")
        problems += member.close()
        reset = ("--group", group, "--topic", topic, "--reset-offsets")
        return problems + self._expect({
            (*reset, "--to-earliest", "--execute"): rf"{group}\s+{topic}\s+5\s+0",
            ("--describe", "--group", group): rf"{group}\s+{topic}\s+0\s+0\s+10\s+10",
            ("--group", group, "--topic", f"{topic}:1", "--delete-offsets"): r"1\s+Successful",
            ("--group", group, "--delete"): "was successful",
        })
