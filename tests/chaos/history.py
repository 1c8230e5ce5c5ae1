"""What clients saw, and whether a cluster may have done that.

A history is made of lines, each written by one client program:

    A producer partition sequence offset     acknowledged with acks=all
    F producer partition sequence            given up: it may be in the log or not
    R consumer partition offset producer sequence    read by a consumer that goes on through the faults
    L - partition offset producer sequence   read in the end, everything from the beginning

A producer is idempotent and numbers its records in each partition; they have one key. `tests/chaos/history.py` alone runs
the checker's own test.
"""

import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

SHOWN = 5
Record = Tuple[int, int]
Place = Tuple[int, int]


@dataclass
class History:
    """All lines of all clients."""

    # Where each acknowledged record is, by producer, partition and sequence.
    acknowledged: Dict[Tuple[int, int, int], int] = field(default_factory=dict)
    given_up: set = field(default_factory=set)
    # What consumers read, by partition and offset.
    read: Dict[Place, Record] = field(default_factory=dict)
    # The log in the end: records by partition, in order.
    log: Dict[int, List[Tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    problems: List[str] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)

    def add(self, lines: Iterable[str]) -> None:
        """Takes in the lines of one program."""
        for line in lines:
            kind, *rest = line.split()
            self.counts[kind] += 1
            if kind == "A":
                producer, partition, sequence, offset = map(int, rest)
                self.acknowledged[producer, partition, sequence] = offset
            elif kind == "F":
                self.given_up.add(tuple(map(int, rest)))
            elif kind == "R":
                _, partition, offset, producer, sequence = rest
                self._seen((int(partition), int(offset)), (int(producer), int(sequence)))
            elif kind == "L":
                _, partition, offset, producer, sequence = rest
                self.log[int(partition)].append((int(offset), int(producer), int(sequence)))
            else:
                self.problems.append(f"no line of a history: {line}")

    def _seen(self, place: Place, record: Record) -> None:
        before = self.read.setdefault(place, record)
        if before != record:
            self.problems.append(f"inconsistent: {at(place)} was {name(before)} to one reader and {name(record)} to another")

    def add_file(self, path: Path) -> None:
        """Takes in a file; the last line of a program that was killed may be cut off."""
        text = path.read_text()
        self.add(line for line in text[:text.rfind("\n") + 1].splitlines() if line)

    def check(self) -> List[str]:
        """What may not be, the first few of each kind."""
        found = [self.problems, self._gaps(), self._lost(), self._order(), self._unseen()]
        return [problem for kind in found for problem in shown(kind)]

    def _gaps(self) -> List[str]:
        """Offsets follow each other from 0: there are no markers, and nothing is deleted."""
        problems = []
        for partition, records in self.log.items():
            for due, (offset, *_) in enumerate(records):
                if offset != due:
                    problems.append(f"gap: partition {partition} has offset {offset} where {due} was due")
                    break
        return problems

    def _lost(self) -> List[str]:
        """Every acknowledged record is in the log, at its offset."""
        places: Dict[Tuple[int, int, int], List[int]] = defaultdict(list)
        for partition, records in self.log.items():
            for offset, producer, sequence in records:
                places[producer, partition, sequence].append(offset)
        problems = []
        for (producer, partition, sequence), told in self.acknowledged.items():
            at_all = places.get((producer, partition, sequence), [])
            # What was acknowledged after a retry may be told without its offset.
            if not at_all or told >= 0 and told not in at_all:
                problems.append(f"lost: {name((producer, sequence))} of partition {partition}, acknowledged at {told}, is at "
                                f"{at_all or 'no offset'}")
        for (producer, partition, sequence), offsets in places.items():
            if len(offsets) > 1:
                problems.append(f"duplicate: {name((producer, sequence))} of partition {partition} is at {offsets}")
            if (producer, partition, sequence) not in self.acknowledged and (producer, partition, sequence) not in self.given_up:
                problems.append(f"phantom: {name((producer, sequence))} of partition {partition} was neither acknowledged nor "
                                "given up")
        return problems

    def _order(self) -> List[str]:
        """A producer's records of a partition are in the order in which they were sent; none is missing but what was
        given up."""
        problems = []
        for partition, records in self.log.items():
            due: Dict[int, int] = defaultdict(int)
            for offset, producer, sequence in records:
                expected = due[producer]
                while (producer, partition, expected) in self.given_up and expected < sequence:
                    expected += 1
                if sequence != expected:
                    problems.append(f"order: {at((partition, offset))} is {name((producer, sequence))}, {expected} was due")
                due[producer] = max(expected, sequence) + 1
        return problems

    def _unseen(self) -> List[str]:
        """What a consumer has read is in the log, where it was read."""
        log = {(partition, offset): (producer, sequence)
               for partition, records in self.log.items() for offset, producer, sequence in records}
        return [f"unseen: {at(place)} was {name(record)} to a consumer and is {name(log[place]) if place in log else 'gone'}"
                for place, record in self.read.items() if log.get(place) != record]


def at(place: Place) -> str:
    """A partition and an offset, for people."""
    return f"partition {place[0]} at {place[1]}"


def name(record: Record) -> str:
    """A record, for people."""
    return f"record {record[1]} of producer {record[0]}"


def shown(problems: List[str]) -> List[str]:
    """The first ones, and how many more there are."""
    more = len(problems) - SHOWN
    return problems[:SHOWN] + ([f"… and {more} more"] if more > 0 else [])


SOUND = ["A 1 0 0 0", "A 1 0 1 2", "A 2 0 0 1", "F 2 0 1", "A 2 0 2 3", "A 1 1 0 -1", "R c 0 1 2 0", "R d 0 1 2 0",
         "L - 0 0 1 0", "L - 0 1 2 0", "L - 0 2 1 1", "L - 0 3 2 2", "L - 1 0 1 0"]
# What is put in the place of a line, and the kind of problem that it makes.
PLANTED = [("L - 0 3 2 2", "", "lost"), ("A 1 0 1 2", "A 1 0 1 3", "lost"), ("L - 0 3 2 2", "L - 0 3 1 1", "duplicate"),
           ("L - 0 2 1 1", "L - 0 2 1 7", "phantom"), ("L - 0 2 1 1", "L - 0 4 1 1", "gap"), ("F 2 0 1", "", "order"),
           ("R d 0 1 2 0", "R d 0 1 1 0", "inconsistent"), ("R d 0 1 2 0", "R d 0 9 1 1", "unseen")]


def kinds(lines: Iterable[str]) -> set:
    """The kinds of problems in a history."""
    history = History()
    history.add(line for line in lines if line)
    return {problem.split(":")[0] for problem in history.check()}


def test_checker() -> List[str]:
    """What the checker gets wrong about histories whose faults are known; a checker that finds nothing proves nothing."""
    wrong = [f"finds {found} in a sound history" for found in [kinds(SOUND)] if found]
    for line, instead, kind in PLANTED:
        found = kinds(instead if one == line else one for one in SOUND)
        if kind not in found:
            wrong.append(f"finds {found or 'nothing'} and not {kind!r} with {instead!r} for {line!r}")
    return wrong


if __name__ == "__main__":
    results = test_checker()
    print("\n".join(results))
    print(f"{1 + len(PLANTED) - len(results)} passed, {len(results)} failed")
    sys.exit(bool(results))
