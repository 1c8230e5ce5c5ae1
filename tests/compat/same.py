#!/usr/bin/env python3
"""Apache Kafka 4.3.1's own tools against Tidemill and against Apache Kafka 4.3.1, with what they say compared.

    tests/compat/same.py                     every story, against what Kafka said when it was recorded
    tests/compat/same.py --beside            every story, with Apache Kafka beside; the recorded answers are checked, too
    tests/compat/same.py --record            the same, and Kafka's answers are recorded in tests/compat/answers
    tests/compat/same.py --only configs      stories whose name contains this
    tests/compat/same.py --shards 1          the shards of Tidemill (2 unless said)
    tests/compat/same.py --show              prints what the tools said, too

Every tool is run by its main class, in one JVM for each side (clients/ToolHost.java), so that a run costs no start of a JVM.
A story is a list of steps, each one run of a tool, in order, against a fresh broker of either kind. Exit status, standard
output and standard error must be the same once ids, times, addresses and paths are masked. Where Tidemill is meant to
differ, the step says what and why (`Differs`), and it must then differ.

Stories stand in tests/compat/stories/*.py: each module has a list STORIES. To add a tool, add a module, then --record.
"""

import argparse
import concurrent.futures
import difflib
import importlib
import os
import pkgutil
import queue
import re
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import broker
import install
import nodes
from host import Host, Said, alone
from steps import Step, Story

TOOL_S = 120
UNTIL_S = 60
ANSWERS = install.HERE / "answers"


class Side:
    """One kind of broker and the tools' runs against it."""

    def __init__(self, instance: Union[broker.Broker, nodes.Cluster], host: Host):
        self.instance = instance
        self._host = host
        self._beside: List[str] = []

    def end(self) -> None:
        """Ends the broker and what still runs, whatever state they are in."""
        for name in self._beside:
            self._host.ask("end", name)
        self._beside = []
        self.instance.kill()

    def run(self, step: Step) -> List[str]:
        """One step, again for a while where it waits for something; its masked lines."""
        deadline = time.monotonic() + UNTIL_S
        while True:
            code, lines = self._once(step)
            if not step.until or re.search(step.until, "\n".join(lines)) or time.monotonic() > deadline:
                return step.masked(code, lines, str(self.instance.folder))
            time.sleep(0.2)

    def _once(self, step: Step) -> Said:
        if step.verb == "stop":
            self.instance.stop()
            return 0, []
        if step.verb.startswith("node-"):
            self.instance.act(step.verb.removeprefix("node-"), int(step.beside))
            return 0, []
        if step.verb == "end":
            self._beside.remove(step.beside)
            return self._host.ask("end", step.beside)
        places = {"bootstrap": self.instance.bootstrap, "folder": str(self.instance.folder),
                  "controllers": getattr(self.instance, "controllers", "")}

        def placed(text: str) -> str:
            return re.sub(r"\{(bootstrap|folder|controllers)\}", lambda found: places[found.group(1)], text)

        for name, text in step.files.items():
            (self.instance.folder / name).write_text(placed(text))
        arguments = [placed(word) for word in step.arguments]
        if step.alone:
            return alone(TOOL_S, step.stdin, step.main_class, *arguments)
        if step.verb == "start":
            self._beside.append(step.beside)
            return self._host.ask("start", step.beside, step.stdin, step.main_class, *arguments)
        return self._host.ask("run", str(TOOL_S), step.stdin, step.main_class, *arguments)


class Answers:
    """What Kafka said in a story when it was recorded: `> ` and a step, then its masked lines, indented."""

    def __init__(self, story: Story):
        self._path = ANSWERS / (re.sub(r"\W+", "-", story.name) + ".txt")
        self._recorded: List[Tuple[str, List[str]]] = []
        text = self._path.read_text().splitlines() if self._path.exists() else []
        for line in text:
            if line.startswith("> "):
                self._recorded.append((line[2:], []))
            else:
                self._recorded[-1][1].append(line[2:])

    def of(self, at: int, step: Step) -> Optional[List[str]]:
        """The answer to a step; none when the story has changed since."""
        name, lines = self._recorded[at] if at < len(self._recorded) else ("", [])
        return lines if name == step.name() else None

    def record(self, story: Story, said: Sequence[Sequence[str]]) -> None:
        """Writes them anew."""
        ANSWERS.mkdir(exist_ok=True)
        lines = []
        for step, answer in zip(story.steps, said):
            lines += [f"> {step.name()}", *(f"  {line}".rstrip() for line in answer)]
        self._path.write_text("\n".join(lines) + "\n")


def compare(step: Step, ours: List[str], kafkas: List[str]) -> List[str]:
    """How they differ; nothing if they do not."""
    one, other = step.compared(kafkas), step.compared(ours)
    problems = list(difflib.unified_diff(one, other, "Apache Kafka", "Tidemill", lineterm="", n=2))
    if step.differs and step.left_out(ours) == step.left_out(kafkas):
        problems.append(f"no longer differs, so the exception may go: {step.differs.why}")
    return problems


def stories() -> List[Story]:
    """Every story of every module."""
    folder = install.HERE / "stories"
    found: List[Story] = []
    for module in sorted(pkgutil.iter_modules([str(folder)]), key=lambda module: module.name):
        found += importlib.import_module(f"stories.{module.name}").STORIES
    # Answers are kept under the story's name.
    names = [story.name for story in found]
    assert len(set(names)) == len(names), f"two stories of one name: {sorted(names)}"
    return found


@dataclass
class Results:
    """Prints and counts the steps of all stories."""

    show: bool
    passed: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, problems: Sequence[str], said: Sequence[str], seconds: float) -> None:
        """One step."""
        lines = [f"{'FAIL' if problems else 'PASS'} {name} ({seconds:.1f})", *(f"    {line}" for line in problems)]
        if self.show:
            lines += [f"    | {line}" for line in said]
        with self._lock:
            self.passed += not problems
            self.failed += bool(problems)
            print("\n".join(lines), flush=True)


class Run:
    """One run of all stories that were asked for."""

    def __init__(self, options: argparse.Namespace, folder: Path, results: Results):
        self.options = options
        self.folder = folder
        self.results = results
        self.live = options.beside or options.record
        # The tools' JVMs are kept from story to story; warm ones are ten times as fast.
        self.hosts: "queue.SimpleQueue[List[Host]]" = queue.SimpleQueue()
        for _ in range(options.jobs):
            self.hosts.put([Host() for _ in range(2 if self.live else 1)])

    def end(self) -> None:
        """Ends the JVMs."""
        while not self.hosts.empty():
            for host in self.hosts.get():
                host.end()

    def sides(self, story: Story, hosts: List[Host]) -> List[Side]:
        """The brokers of a story, not started: ours, and Kafka's if it runs beside."""
        folder = self.folder / re.sub(r"\W+", "-", story.name)
        if story.nodes > 1:
            count, shards, command = story.nodes, self.options.shards, self.options.broker_cmd
            of_ours = nodes.Cluster.of_tidemill(folder / "tidemill", count, shards, command, story.of_node)
            if not self.live:
                return [Side(of_ours, hosts[0])]
            of_kafka = nodes.Cluster.of_kafka(folder / "kafka", count, story.of_node)
            return [Side(of_ours, hosts[0]), Side(of_kafka, hosts[1])]
        ours = broker.Broker(folder / "tidemill", self.options.shards, self.options.broker_cmd, story.properties)
        if not self.live:
            return [Side(ours, hosts[0])]
        kafkas = broker.ReferenceBroker(folder / "kafka", 1, None, story.properties)
        # Eligible leader replicas (KIP-966) make Kafka give min.insync.replicas to all brokers; Tidemill has none.
        kafkas.format_flags = ["--feature", "eligible.leader.replicas.version=0"]
        return [Side(ours, hosts[0]), Side(kafkas, hosts[1])]

    def story(self, story: Story) -> None:
        """Runs a story on each side and compares."""
        hosts = self.hosts.get()
        sides = self.sides(story, hosts)
        try:
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda side: side.instance.start(), sides))
                self._steps(story, sides, pool)
            if sides[0].instance.alive():
                sides[0].instance.stop()
        except broker.BrokerError as error:
            self.results.add(story.name, str(error).splitlines(), [], 0)
        finally:
            for side in sides:
                side.end()
            self.hosts.put(hosts)

    def _steps(self, story: Story, sides: List[Side], pool: concurrent.futures.Executor) -> None:
        answers = Answers(story)
        recorded: List[List[str]] = []
        for at, step in enumerate(story.steps):
            started = time.monotonic()
            ours, *live = pool.map(lambda side: side.run(step), sides)
            stored = answers.of(at, step)
            recorded += live
            problems = []
            if live or stored is not None:
                problems += compare(step, ours, live[0] if live else stored)
            if not self.options.record and stored is None:
                problems.append("no answer of Kafka's is recorded for this step: --record does it")
            elif live and not self.options.record and stored != live[0]:
                problems += difflib.unified_diff(stored, live[0], "recorded", "Apache Kafka", lineterm="", n=2)
            self.results.add(f"{story.name}: {step.name()}", problems, ours, time.monotonic() - started)
        if self.options.record:
            answers.record(story, recorded)


def main() -> int:
    """Runs every story asked for; 0 when nothing differs that should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only stories whose name contains this")
    parser.add_argument("--beside", action="store_true", help="run Apache Kafka beside")
    parser.add_argument("--record", action="store_true", help="run Apache Kafka beside and record what it says")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2, help="stories at a time")
    parser.add_argument("--show", action="store_true", help="print what Tidemill's run said")
    parser.add_argument("--broker-cmd", help="how to start Tidemill; {config} is its properties file")
    options = parser.parse_args()
    install.CACHE.mkdir(parents=True, exist_ok=True)
    install.install_jars(install.KAFKA)
    install.install_java_client(install.KAFKA)
    chosen = [story for story in stories() if options.only in story.name]
    base = install.CACHE / "run"
    base.mkdir(exist_ok=True)
    results = Results(options.show)
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMPAT_TMP") or base) as folder:
        run = Run(options, Path(folder), results)
        try:
            with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
                list(pool.map(run.story, chosen))
        finally:
            run.end()
    print(f"{results.passed} passed, {results.failed} failed")
    return 1 if results.failed or not results.passed else 0


if __name__ == "__main__":
    sys.exit(main())
