"""What the habits of the Python clients share: names of their own, conditions with a deadline, and the loop that obeys.

It says "ready" and the names of the habits, then runs the one that a line of tab-separated words NAME BOOTSTRAP tells, and
answers "ok", or "error" and what went wrong (see ../client.py).
"""

import os
import sys
import time
import traceback
from typing import Callable, Dict, List

DEADLINE_S = 30


class Unmet(Exception):
    """Something is not as it must be."""


class Place:
    """What one habit gets. Clients that it opens are closed behind it, the last one first."""

    def __init__(self, bootstrap: str, prefix: str):
        self.bootstrap = bootstrap
        self._prefix = prefix
        self._number = 0
        self._opened: List = []

    def name(self, word: str) -> str:
        """A name that nobody else has."""
        self._number += 1
        return f"{self._prefix}-{word}-{self._number}"

    def opened(self, one):
        """Has it closed behind the habit."""
        self._opened.append(one)
        return one

    def close(self) -> None:
        """Closes everything."""
        while self._opened:
            self._opened.pop().close()


def until(what: str, holds: Callable[[], object], seconds: float = DEADLINE_S):
    """Waits until something is true, and gives it; looking may poll."""
    deadline = time.monotonic() + seconds
    while not (result := holds()):
        if time.monotonic() > deadline:
            raise Unmet(f"{what}: not within {seconds} s")
        time.sleep(0.01)
    return result


def equal(what: str, seen, due) -> None:
    """Both must be the same."""
    if seen != due:
        raise Unmet(f"{what} is {seen!r}; {due!r} was due")


def hold(what: str, holds) -> None:
    """It must be true."""
    if not holds:
        raise Unmet(f"it must be that {what}")


def fails(what: str, kind, work: Callable):
    """It must fail in one way; the error."""
    try:
        result = work()
    except kind as error:
        return error
    raise Unmet(f"{what} gave {result!r}; {kind} was due")


def serve(library: str, habits: Dict[str, Callable[[Place], None]]) -> None:
    """Obeys until standard input ends."""
    print("ready", ",".join(habits), flush=True)
    for number, line in enumerate(sys.stdin):
        habit, bootstrap = line.rstrip("\n").split("\t")
        # A process that starts again after a failure must not meet the topics of the one before.
        place = Place(bootstrap, f"{library}-{os.getpid()}-{number}")
        try:
            habits[habit](place)
            place.close()
            print("ok", flush=True)
        except Exception as error:  # whatever a client throws is an answer
            where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__)[-4:]))
            print("error", type(error).__name__, " ".join(str(error).split())[:1_500], "at", where, flush=True)
