#!/usr/bin/env python3
"""Foreign clients against a broker: the round trip's matrix and Apache Kafka's own tools.

    tests/compat/run.py --covering                  what CI runs: every client, codec and shard count, 20,000 records
    tests/compat/run.py                             the full product with 200,000 records; resumes where it stopped
    tests/compat/run.py --reference kafka           the same against Apache Kafka 4.3.1, which validates the suite

It installs what it needs into .cache/compat. Each case prints PASS or FAIL; the last line counts them.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, List

import broker
import consumers
import crowd
import crowd_history
import groups
import habits
import install
import matrix
import nodes
import racks
import tools
import zstd

COVERING_RECORDS = 20_000
FULL_RECORDS = 200_000
# For each client and codec that fill a topic for dump-log.
TOOL_RECORDS = 2_000


class Results:
    """Prints and counts cases; remembers the passed ones so that a full run resumes."""

    def __init__(self, state: Path, fingerprint: str, resume: bool):
        self._state = state
        self._fingerprint = fingerprint
        self.passed: List[str] = []
        self.failed = 0
        self.skipped = 0
        self._earlier = self._load() if resume else []
        if not resume:
            state.unlink(missing_ok=True)

    def _load(self) -> List[str]:
        try:
            saved = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return []
        return saved["passed"] if saved["fingerprint"] == self._fingerprint else []

    def done_before(self, name: str) -> bool:
        """Whether an earlier run of the same build passed this case; it then counts as passed."""
        if name in self._earlier and name not in self.passed:
            self.passed.append(name)
            print(f"PASS {name} (earlier)", flush=True)
        return name in self.passed

    def all_done_before(self, names: List[str]) -> bool:
        """Whether cases that build on each other all passed earlier; if not, none counts and all have to run."""
        return set(names) <= set(self._earlier) and all([self.done_before(name) for name in names])

    def skip(self, name: str, reason: str) -> None:
        """Prints one case that this machine cannot run; it counts neither as passed nor as failed."""
        print(f"SKIP {name}: {reason}", flush=True)
        self.skipped += 1

    def add(self, name: str, problems: List[str], seconds: float) -> None:
        """Prints one result and saves the state."""
        print(f"{'FAIL' if problems else 'PASS'} {name} ({seconds:.1f})", flush=True)
        for problem in problems:
            print("    " + problem.replace("\n", "\n    "), flush=True)
        if problems:
            self.failed += 1
            return
        self.passed.append(name)
        state = {"fingerprint": self._fingerprint, "passed": sorted(set(self.passed + self._earlier))}
        self._state.write_text(json.dumps(state, indent=1))


def with_broker(folder: Path, shards: int, options, results: Results, work: Callable, settings=None) -> None:
    """Runs `work` against a started broker, then stops it; starting and stopping well is a case of its own."""
    instance = broker.make(folder, shards, options, settings)
    start = time.monotonic()
    problems = []
    try:
        instance.start()
        work(instance)
        instance.stop()
    except broker.BrokerError as error:
        problems.append(str(error))
    finally:
        instance.kill()
    results.add(f"broker: {folder.name} starts, stays and stops on SIGTERM", problems, time.monotonic() - start)


def run_matrix(options, results: Results, folder: Path) -> None:
    """The round trip's cases, one broker per number of shards. Apache Kafka has no shards, so there it is one group."""
    shard_counts = [1] if options.reference else options.shards
    cases = (matrix.covering if options.covering else matrix.product)(options.codecs, shard_counts)
    cases = [case for case in cases if options.only in case.name()]
    round_trip = matrix.RoundTrip(folder, options.records)
    try:
        for shards in shard_counts:
            left = [case for case in cases if case.shards == shards and not results.done_before(case.name())]

            def work(instance: broker.Broker) -> None:
                for case in left:
                    if reason := round_trip.missing(case):
                        results.skip(case.name(), reason)
                        continue
                    results.add(case.name(), *matrix.timed(round_trip, instance.bootstrap, case))
                    if not instance.alive():
                        raise broker.BrokerError(f"the broker died in this case\n{instance.tail()}")

            if left:
                with_broker(folder / f"matrix-of-{shards}-shards", shards, options, results, work)
        run_zstd(options, results, folder, round_trip)
    finally:
        round_trip.close()


def run_zstd(options, results: Results, folder: Path, round_trip: matrix.RoundTrip) -> None:
    """The case of clients that know no zstd, on a broker of two shards."""
    if options.only not in zstd.CASE or results.done_before(zstd.CASE):
        return

    def work(instance: broker.Broker) -> None:
        start = time.monotonic()
        results.add(zstd.CASE, zstd.check(instance.bootstrap, round_trip), time.monotonic() - start)

    with_broker(folder / "zstd", 2, options, results, work)


def run_tools(options, results: Results, folder: Path) -> None:
    """Apache Kafka's tools against a broker of two shards, then its dump-log over the stopped broker's files."""
    suite = tools.Tools(folder, TOOL_RECORDS)
    path = folder / "tools"
    if results.all_done_before(suite.names()):
        return

    def work(instance: broker.Broker) -> None:
        for name, check in suite.live_cases(instance.bootstrap):
            start = time.monotonic()
            results.add(name, check(), time.monotonic() - start)

    with_broker(path, 2, options, results, work)
    suite.round_trip.close()
    for name, check in suite.file_cases(path / "data"):
        start = time.monotonic()
        results.add(name, check(), time.monotonic() - start)


def run_groups(options, results: Results, folder: Path) -> None:
    """Members of groups by every client, on a broker of one shard and on one of three."""
    shard_counts = [1] if options.reference else [1, 3]
    for shards in shard_counts:

        def work(instance: broker.Broker) -> None:
            suite = consumers.Consumers(folder, instance)
            try:
                for name, check in suite.cases():
                    name = f"{name} ({shards})"
                    if options.only not in name or results.done_before(name):
                        continue
                    start = time.monotonic()
                    try:
                        problems = check()
                    except broker.BrokerError as error:
                        problems = [str(error)]
                    results.add(name, problems, time.monotonic() - start)
            finally:
                suite.close()

        if options.only in "groups" or options.only.startswith("groups"):
            settings = groups.SETTINGS | consumers.SETTINGS
            with_broker(folder / f"groups-of-{shards}-shards", shards, options, results, work, settings)


def run_habits(options, results: Results, folder: Path) -> None:
    """The habits of the textbooks by every library, on a broker of one shard and on one of three."""
    for shards in [1] if options.reference else [1, 3]:

        def wanted(case: str) -> bool:
            name = f"{case} ({shards})"
            return options.only in name and not results.done_before(name)

        def work(instance: broker.Broker) -> None:
            for case, problems, seconds in habits.run(folder, instance.bootstrap, wanted):
                if not instance.alive():
                    problems.append(f"the broker died in this case\n{instance.tail()}")
                results.add(f"{case} ({shards})", problems, seconds)

        if options.only in "habits" or options.only.startswith("habits"):
            with_broker(folder / f"habits-of-{shards}-shards", shards, options, results, work, habits.SETTINGS)


def run_racks(options, results: Results, folder: Path) -> None:
    """Readers in the rack of a follower, on a cluster of three."""
    names = racks.Racks.names()
    if not any(options.only in name for name in names) or results.all_done_before(names):
        return
    place, command = folder / "racks", options.broker_cmd
    if options.reference == "kafka":
        cluster = nodes.Cluster.of_kafka(place, 3, racks.of_node)
    else:
        cluster = nodes.Cluster.of_tidemill(place, 3, 2, command, racks.of_node)
    suite = racks.Racks(place, cluster)
    started = time.monotonic()
    problems = []
    try:
        cluster.start()
        for name, found, seconds in suite.run():
            results.add(name, found, seconds)
        cluster.stop()
    except broker.BrokerError as error:
        problems.append(str(error))
    finally:
        suite.close()
        cluster.kill()
    results.add("brokers: racks: they start, stay and stop on SIGTERM", problems, time.monotonic() - started)


def run_crowd(options, results: Results, folder: Path) -> None:
    """A short crowd in one group, and the checks over what its members say on planted faults."""
    check = "crowd: every planted fault is found"
    if options.only in check and not results.done_before(check):
        start = time.monotonic()
        results.add(check, crowd_history.self_test(crowd_history.example(), 1, is_made_for_it=True), time.monotonic() - start)
    for kinds, assignor in (["java", "librdkafka"], "range"), (["librdkafka"], "cooperative-sticky"):
        name = f"crowd: members of {' and '.join(kinds)} join, leave and crash ({assignor})"
        if options.only not in name or results.done_before(name):
            continue

        def work(instance: broker.Broker) -> None:
            start = time.monotonic()
            problems, told = crowd.short(folder / f"crowd-{assignor}", instance, kinds=kinds, assignor=assignor,
                                         members=16, partitions=50, per_host=4, minutes=0.4)
            print("    " + told, flush=True)
            results.add(name, problems, time.monotonic() - start)

        with_broker(folder / f"crowd-of-{assignor}", 3, options, results, work, crowd.SETTINGS)


def fingerprint(options) -> str:
    """Tells one broker build and data set from another; passed cases of one say nothing about the other."""
    program = Path((options.broker_cmd or broker.default_command()).split()[0])
    stat = program.stat() if not options.reference and program.exists() else None
    what = [options.reference, options.records, options.broker_cmd, stat and (stat.st_size, stat.st_mtime_ns)]
    return hashlib.sha1(repr(what).encode()).hexdigest()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--covering", action="store_true", help="the covering subset, from the start")
    parser.add_argument("--fresh", action="store_true", help="forget what passed before")
    parser.add_argument("--records", type=int, help="size of the data set")
    parser.add_argument("--codecs", type=lambda text: text.split(","), default=matrix.CODECS)
    parser.add_argument("--shards", type=lambda text: [int(n) for n in text.split(",")], default=matrix.SHARDS)
    parser.add_argument("--only", default="", help="only cases whose name contains this; 'tools' runs all tools")
    parser.add_argument("--reference", choices=["kafka"], help="run against Apache Kafka itself")
    parser.add_argument("--broker-cmd", help="how to start the broker; {config} is its properties file")
    options = parser.parse_args()
    options.records = options.records or (COVERING_RECORDS if options.covering else FULL_RECORDS)
    return options


def main() -> int:
    """Runs everything asked for; 0 when nothing failed."""
    options = arguments()
    install.ensure()
    state = install.CACHE / f"state-{options.reference or 'tidemill'}-{options.records}.json"
    results = Results(state, fingerprint(options), resume=not (options.covering or options.fresh))
    base = install.ROOT / ".cache" / "compat" / "run"
    base.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMPAT_TMP") or base) as folder:
        run_matrix(options, results, Path(folder))
        run_groups(options, results, Path(folder))
        run_habits(options, results, Path(folder))
        run_racks(options, results, Path(folder))
        run_crowd(options, results, Path(folder))
        if options.only in "tools":
            run_tools(options, results, Path(folder))
    skipped = f", {results.skipped} skipped" if results.skipped else ""
    print(f"{len(results.passed)} passed, {results.failed} failed{skipped}")
    return 1 if results.failed or not results.passed else 0


if __name__ == "__main__":
    sys.exit(main())
