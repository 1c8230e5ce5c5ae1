"""What members of a crowd said, and the checks over it.

A **run** is one member's ownership of one partition, from "assigned" until it is revoked, lost, or the member is gone.
What must hold (`check`):

- a member processes only partitions of its own, record after record without a hole, and what it reads is what was sent;
- a run begins exactly at the committed offset: the last one that was acknowledged before the partition was assigned, or
  a later one whose commit was under way then. So nothing is skipped after a commit, and nothing that was committed is
  processed again;
- nobody commits what it has not processed, and the committed offset of a partition never goes back: a member that is
  out commits nothing any more;
- no partition has two owners at a time, and once the group has settled every partition has one;
- for each key no record is processed before the one in front of it;
- a member that lives and polls is never told that it is out, save by a broker that died while the group rebalanced;
- in the end every record was processed and every end is committed.

`planted` breaks a good history in each of these ways; a check that does not notice is no check.
"""

import copy
import random
import re
from collections import defaultdict
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

# How many problems of one kind are told, of how many members the last words, and how many words.
TOLD_MAX = 5
MEMBERS_MAX = 4
WORDS_MAX = 12
# A session, and the time in which clients come back to a broker.
EXCUSED_US = 20_000_000


class Event(NamedTuple):
    """One line of a member: `what` is the word, `items` its pairs, partitions or records."""

    at_us: int
    member: str
    what: str
    items: list


class Run:
    """One member's ownership of one partition."""

    def __init__(self, member: str, partition: int, assigned_us: int):
        self.member = member
        self.partition = partition
        self.assigned_us = assigned_us
        self.ended_us: Optional[int] = None
        self.ended_by = ""
        self.first: Optional[Tuple[int, int]] = None
        self.next: Optional[int] = None

    def __str__(self) -> str:
        return f"{self.member} with partition {self.partition}"


def parse(line: str) -> Event:
    """A line of a member's process."""
    at_us, member, what, *words = line.split()
    items: list = words
    if what in ("assigned", "revoked", "lost"):
        items = [int(one) for one in words[0].split(",")] if words else []
    elif what in ("seen", "committing", "committed"):
        items = [tuple(map(int, word.split(":"))) for word in words]
    return Event(int(at_us), member, what, items)


class History:
    """Everything that was said in a run of the crowd."""

    def __init__(self, partitions: int):
        self.partitions = partitions
        self.events: List[Event] = []
        # What was acknowledged to the producer: key and sequence, by partition and offset.
        self.sent: Dict[Tuple[int, int], Tuple[int, int]] = {}
        # Whom every partition belonged to when the group had settled: the members' own view, and the broker's.
        self.settled: List[Tuple[int, Dict[str, List[int]], Dict[str, List[int]]]] = []
        # The committed offsets in the end.
        self.committed: Dict[int, int] = {}

    def copy(self) -> "History":
        """A history that can be changed; events are replaced, never changed."""
        other = copy.copy(self)
        other.events, other.sent, other.committed = list(self.events), dict(self.sent), dict(self.committed)
        other.settled = copy.deepcopy(self.settled)
        return other

    def may_lose(self, at_us: int) -> bool:
        """Whether members may be told then that they are out, though they live. A generation is written down with its
        assignment. A broker that dies while a group rebalances comes back with the one before, which the members have
        given up: they have to begin anew, with Kafka as well."""
        return any(event.what == "dies" and event.items != ["at-rest"] and 0 <= at_us - event.at_us <= EXCUSED_US
                   for event in self.events)

    def ends(self) -> Dict[int, int]:
        """The end of each partition, by what was acknowledged."""
        ends = {partition: 0 for partition in range(self.partitions)}
        for partition, offset in self.sent:
            ends[partition] = max(ends[partition], offset + 1)
        return ends


class Check:
    """One walk over a history."""

    def __init__(self, history: History):
        self.history = history
        self.problems: Dict[str, List[str]] = defaultdict(list)
        self.runs: Dict[int, List[Run]] = defaultdict(list)
        self._open: Dict[Tuple[str, int], Run] = {}
        # Per partition: when, offset, and whether it was acknowledged by then.
        self._attempts: Dict[int, List[Tuple[int, int]]] = defaultdict(list)
        self._acks: Dict[int, List[Tuple[int, int]]] = defaultdict(list)
        self._next_of_key: Dict[int, int] = defaultdict(int)
        self.processed: Set[Tuple[int, int]] = set()
        self.repeated = 0
        # librdkafka pauses its partitions for a rebalance at the position that the application has taken, and notes that
        # position only after it has handed out a record: what is handed out in between is fetched once more.
        self.handed_twice = 0

    def _tell(self, kind: str, text: str) -> None:
        self.problems[kind].append(text)

    def walk(self) -> None:
        """Every event in the order of time."""
        acts: Dict[str, Callable[[Event], None]] = {
            "assigned": self._assigned, "revoked": self._ended, "lost": self._ended, "seen": self._seen,
            "killed": self._gone, "left": self._gone, "committing": self._committing, "committed": self._committed,
            "error": lambda event: self._tell("error", f"{event.member}: {' '.join(event.items)}"),
        }
        for event in sorted(self.history.events, key=lambda event: event.at_us):
            if act := acts.get(event.what):
                act(event)

    def _assigned(self, event: Event) -> None:
        for partition in event.items:
            run = Run(event.member, partition, event.at_us)
            if (event.member, partition) in self._open:
                self._tell("owner", f"{run} is assigned what it has")
            self._open[(event.member, partition)] = run
            self.runs[partition].append(run)

    def _end(self, key: Tuple[str, int], event: Event) -> None:
        run = self._open.pop(key, None)
        if run:
            run.ended_us, run.ended_by = event.at_us, event.what
        elif event.what == "revoked":
            self._tell("owner", f"{key[0]} gives back partition {key[1]}, which it does not have")

    def _ended(self, event: Event) -> None:
        if event.what == "lost" and event.items and not self.history.may_lose(event.at_us):
            self._tell("lost", f"{event.member} was told that it is out, though it lives")
        for partition in event.items:
            self._end((event.member, partition), event)

    def _gone(self, event: Event) -> None:
        for key in [key for key in self._open if key[0] == event.member]:
            self._end(key, event)

    def _seen(self, event: Event) -> None:
        for partition, offset, key, sequence in event.items:
            run = self._open.get((event.member, partition))
            if not run:
                self._tell("owner", f"{event.member} processes offset {offset} of partition {partition}, which it does not have")
                continue
            if self.history.sent.get((partition, offset)) != (key, sequence):
                self._tell("foreign", f"{run}: offset {offset} shows key {key}, sequence {sequence}, and was not sent so")
            if run.first is None:
                run.first = (event.at_us, offset)
            elif offset + 1 == run.next and event.member.startswith("librdkafka"):
                self.handed_twice += 1
            elif offset != run.next:
                self._tell("hole", f"{run}: offset {offset} comes where {run.next} should")
            run.next = offset + 1
            self.repeated += (partition, offset) in self.processed
            self.processed.add((partition, offset))
            if sequence > self._next_of_key[key]:
                self._tell("order", f"{run}: key {key} is at {sequence}, and {self._next_of_key[key]} was not processed")
            self._next_of_key[key] = max(self._next_of_key[key], sequence + 1)

    def _committing(self, event: Event) -> None:
        for partition, offset in event.items:
            self._attempts[partition].append((event.at_us, offset))
            run = self._open.get((event.member, partition))
            if not run or run.next is None or offset > run.next:
                self._tell("commit", f"{event.member} commits {offset} of partition {partition} without having processed it")

    def _committed(self, event: Event) -> None:
        for partition, offset in event.items:
            before = self._acks[partition][-1][1] if self._acks[partition] else 0
            if offset < before:
                self._tell("commit", f"{event.member} may commit {offset} of partition {partition}, where {before} was committed")
            self._acks[partition].append((event.at_us, offset))

    def starts(self) -> None:
        """Where runs begin."""
        for partition, runs in self.runs.items():
            for run in runs:
                if run.first is None:
                    continue
                first_us, offset = run.first
                last = max((acked for at_us, acked in self._acks[partition] if at_us < run.assigned_us), default=0)
                under_way = {tried for at_us, tried in self._attempts[partition] if at_us < first_us and tried > last}
                if offset != last and offset not in under_way:
                    word = "again from" if offset < last else "only from"
                    self._tell("start", f"{run} processes {word} {offset}, and {last} was committed")

    def owners(self) -> None:
        """No two owners at a time."""
        for partition, runs in self.runs.items():
            runs = sorted(runs, key=lambda run: run.assigned_us)
            for run, later in zip(runs, runs[1:]):
                if run.ended_by != "lost" and (run.ended_us is None or run.ended_us > later.assigned_us):
                    self._tell("owner", f"{later.member} is assigned partition {partition} while {run.member} has it")

    def settled(self) -> None:
        """Every partition has one owner once the group has settled, whomever one asks."""
        wanted = list(range(self.history.partitions))
        for number, views in enumerate((own, told) for _, own, told in self.history.settled):
            for who, view in zip(("the members", "the broker"), views):
                if sorted(partition for parts in view.values() for partition in parts) != wanted:
                    self._tell("settled", f"settled the {number}th time, {who} do not have every partition once")
            if views[0] != views[1]:
                self._tell("settled", f"settled the {number}th time, the broker tells another assignment than members have")

    def ending(self) -> None:
        """Everything was processed, and that is committed."""
        if missing := set(self.history.sent) - self.processed:
            self._tell("missing", f"{len(missing)} records were never processed: {sorted(missing)[:5]}")
        for partition, end in self.history.ends().items():
            if (told := self.history.committed.get(partition)) != end:
                self._tell("missing", f"partition {partition} ends at {end}, and {told} is committed")


def check(history: History) -> Tuple[List[str], Check]:
    """What is wrong with a history, in words, and the walk over it."""
    walk = Check(history)
    walk.walk()
    walk.starts()
    walk.owners()
    walk.settled()
    walk.ending()
    told = []
    for kind, texts in walk.problems.items():
        more = f" (and {len(texts) - TOLD_MAX} more)" if len(texts) > TOLD_MAX else ""
        told.append(f"{kind}: " + "; ".join(texts[:TOLD_MAX]) + more)
    return told, walk


def last_words(history: History, problems: List[str]) -> List[str]:
    """What the members that are named in problems said and met last."""
    began_us = min((event.at_us for event in history.events), default=0)
    named = dict.fromkeys(name for problem in problems for name in re.findall(r"\b[a-z]+-\d+\b", problem))
    told = []
    for name in list(named)[:MEMBERS_MAX]:
        events = [event for event in history.events if event.member in (name, "broker")]
        events = sorted(events, key=lambda event: event.at_us)[-WORDS_MAX:]
        told.append("; ".join(f"{(event.at_us - began_us) / 1e6:.3f} {event.member} {event.what} {str(event.items)[:60]}"
                              for event in events))
    return told


def _positions(history: History, what: str) -> List[int]:
    return [at for at, event in enumerate(history.events) if event.what == what and event.items]


def _with_items(history: History, at: int, items: list) -> None:
    history.events[at] = history.events[at]._replace(items=items)


def _begun(history: History) -> List[Tuple[Run, int]]:
    """Runs that begin behind a commit and process two records at once, with the place of their first event."""
    walk = check(history)[1]
    found = []
    places = {(event.at_us, event.member): at for at, event in enumerate(history.events) if event.what == "seen"}
    for runs in walk.runs.values():
        for run in runs:
            if run.first and run.first[1] > 1 and run.next > run.first[1] + 1:
                found.append((run, places[(run.first[0], run.member)]))
    return found


class NoPlace(Exception):
    """A history in which a fault cannot be planted: a short run may have none in which a member began behind a commit."""


def planted(history: History, seed: int) -> Iterator[Tuple[str, str, Callable[[], History]]]:
    """One fault of each kind: what it is, the kinds of problems of which one must be told, and how to come by the
    history that has it (or by NoPlace)."""
    draw = random.Random(seed)
    long = [at for at in _positions(history, "seen")
            if any(a[0] == b[0] for a, b in zip(history.events[at].items, history.events[at].items[1:]))]

    def pick(places: list):
        if not places:
            raise NoPlace
        return draw.choice(places)

    def change(alter: Callable[[History], None]) -> History:
        other = history.copy()
        alter(other)
        return other

    def pair(other: History) -> Tuple[int, int]:
        """An event and a place in it where two records of a partition follow each other."""
        at = pick(long)
        items = other.events[at].items
        return at, pick([i for i in range(len(items) - 1) if items[i][0] == items[i + 1][0]])

    def swap(other: History) -> None:
        at, i = pair(other)
        items = list(other.events[at].items)
        items[i], items[i + 1] = items[i + 1], items[i]
        _with_items(other, at, items)

    def skip(other: History) -> None:
        """The second of the two, so that the run has begun before it."""
        at, i = pair(other)
        _with_items(other, at, other.events[at].items[:i + 1] + other.events[at].items[i + 2:])

    def alter(other: History) -> None:
        at, i = pair(other)
        items = list(other.events[at].items)
        items[i] = (*items[i][:3], items[i][3] + 1)
        _with_items(other, at, items)

    begun = _begun(history)

    def again(other: History) -> None:
        run, at = pick(begun)
        record = (run.partition, run.first[1] - 1)
        _with_items(other, at, [(*record, *other.sent[record]), *other.events[at].items])

    def commit_ahead(other: History) -> None:
        at = pick(_positions(other, "committing"))
        (partition, offset), *rest = other.events[at].items
        _with_items(other, at, [(partition, offset + 1), *rest])

    def commit_late(other: History) -> None:
        at = pick([at for at in _positions(other, "committed") if other.events[at].items[0][1] > 0])
        event = other.events[at]
        partition, offset = event.items[0]
        other.events.append(event._replace(at_us=event.at_us + 1, member="somebody", items=[(partition, offset - 1)]))

    def stay(other: History) -> None:
        """Somebody gives up its partitions only after they are assigned to others."""
        at = pick([at for at in _positions(other, "revoked") if history.events[at].at_us < history.settled[-1][0]])
        event = other.events[at]
        partition = event.items[0]
        later = [one.at_us for one in other.events
                 if one.what == "assigned" and partition in one.items and one.at_us > event.at_us]
        if not later:
            raise NoPlace
        other.events.append(event._replace(at_us=min(later) + 1, items=[partition]))
        _with_items(other, at, event.items[1:])

    def unassigned(other: History) -> None:
        _, own, told = pick(other.settled)
        for view in (own, told):
            next(parts for parts in view.values() if 0 in parts).remove(0)

    def twice(other: History) -> None:
        _, own, told = pick(other.settled)
        for view in (own, told):
            next(parts for parts in view.values() if 0 not in parts).append(0)

    def unseen(other: History) -> None:
        """The last records of a partition, which leave no hole."""
        partition = draw.randrange(other.partitions)
        last = (partition, other.ends()[partition] - 1)
        for at in _positions(other, "seen"):
            _with_items(other, at, [one for one in other.events[at].items if one[:2] != last])

    def uncommitted(other: History) -> None:
        other.committed[draw.randrange(other.partitions)] -= 1

    def lost(other: History) -> None:
        at = pick([at for at in _positions(other, "revoked") if not other.may_lose(other.events[at].at_us)])
        other.events[at] = other.events[at]._replace(what="lost")

    yield "two records change places", "hole", lambda: change(swap)
    yield "a key's records change places", "order", lambda: change(swap_keys(history))
    yield "a record is skipped", "hole commit missing", lambda: change(skip)
    yield "a record shows another sequence", "foreign", lambda: change(alter)
    yield "a committed record is processed again", "start", lambda: change(again)
    yield "the first record behind a commit is skipped", "start", lambda: change(skip_first(pick(begun)[0]))
    yield "more is committed than was processed", "commit", lambda: change(commit_ahead)
    yield "somebody who is out commits", "commit", lambda: change(commit_late)
    yield "a partition has two owners", "owner", lambda: change(stay)
    yield "a partition has no owner", "settled", lambda: change(unassigned)
    yield "a partition is assigned twice", "settled", lambda: change(twice)
    yield "a record is never processed", "missing", lambda: change(unseen)
    yield "an end is not committed", "missing", lambda: change(uncommitted)
    yield "a member is thrown out", "lost", lambda: change(lost)


def skip_first(run: Run) -> Callable[[History], None]:
    """Takes the first record of a run out of it, so that it begins one behind the committed offset. What is committed
    there later is what makes a begin right, so the member's commits go too."""
    def act(other: History) -> None:
        record = (run.partition, run.first[1])
        for at, event in enumerate(other.events):
            if event.member != run.member or event.at_us < run.assigned_us:
                continue
            if event.what == "seen":
                _with_items(other, at, [one for one in event.items if one[:2] != record])
            elif event.what == "committing":
                _with_items(other, at, [one for one in event.items if one != (record[0], record[1] + 1)])
    return act


def swap_keys(history: History) -> Callable[[History], None]:
    """Exchanges the sequences of two records of a key, in what was sent as well, so that only the order is wrong."""
    def act(other: History) -> None:
        of_key: Dict[int, List[Tuple[int, int]]] = defaultdict(list)
        for place, (key, _) in sorted(history.sent.items()):
            of_key[key].append(place)
        key, places = next(((key, places) for key, places in of_key.items() if len(places) > 1), (None, None))
        if not places:
            raise NoPlace
        first, second = places[:2]
        exchanged = {first: (key, 1), second: (key, 0)}
        other.sent.update(exchanged)
        for at in _positions(other, "seen"):
            items = [(*one[:2], *exchanged.get(one[:2], one[2:])) for one in other.events[at].items]
            _with_items(other, at, items)
    return act


def self_test(history: History, seed: int, is_made_for_it: bool = False) -> List[str]:
    """Plants each fault in a good history; those that the checks do not notice. Where a commit was under way a fault
    may look right, so each is planted at three places at most. A real run need not have a place for each; one that was
    made for it must."""
    missed: Set[str] = set()
    for attempt in range(3):
        for what, kinds, broken in planted(history, seed + attempt):
            if attempt and what not in missed:
                continue
            try:
                told = check(broken())[0]
            except NoPlace:
                (missed.add if is_made_for_it else missed.discard)(what)
                continue
            is_found = any(problem.split(":")[0] in kinds.split() for problem in told)
            (missed.discard if is_found else missed.add)(what)
        if not missed:
            break
    return [f"a planted fault is not found: {what}" for what in sorted(missed)]


def example() -> History:
    """A small good history out of nothing: members take each other's place, and one is killed in between."""
    history = History(4)
    clock = iter(range(1_000, 1_000_000, 10))
    log = {p: [(p + 4 * (at % 2), at // 2) for at in range(60)] for p in range(4)}
    history.sent = {(p, at): record for p, records in log.items() for at, record in enumerate(records)}
    committed = dict.fromkeys(range(4), 0)

    def say(member: str, what: str, items: list) -> None:
        history.events.append(Event(next(clock), member, what, items))

    def own(member: str, parts: List[int], records: int, dies: bool) -> None:
        ends = {p: min(committed[p] + records, len(log[p])) for p in parts}
        say(member, "seen", [(p, at, *log[p][at]) for p in parts for at in range(committed[p], ends[p])])
        if dies:
            return say(member, "killed", [])
        say(member, "committing", list(ends.items()))
        say(member, "committed", list(ends.items()))
        committed.update(ends)
        say(member, "revoked", parts)
        say(member, "left", [])

    for members in (["a", "b"], ["killed", "d"], ["e", "f"], ["g", "h"], ["i", "j"]):
        owned = {members[0]: [0, 1], members[1]: [2, 3]}
        for member, parts in owned.items():
            say(member, "assigned", parts)
        history.settled.append((next(clock), copy.deepcopy(owned), copy.deepcopy(owned)))
        for member, parts in owned.items():
            own(member, parts, 60 if members[0] == "i" else 10, member == "killed")
    history.committed = committed
    return history
