#!/usr/bin/env python3
"""Apache Kafka 4.3.1's own tools against Tidemill and against Apache Kafka 4.3.1, with what they say compared.

    tests/compat/same.py                     every story
    tests/compat/same.py --only configs      stories whose name contains this
    tests/compat/same.py --shards 1          the shards of Tidemill (2 unless said)
    tests/compat/same.py --show              prints what the tools said, too

Every tool is run by its main class, in one JVM for each side (clients/ToolHost.java), so that a run costs no start of a JVM.
A story is a list of steps, each one run of a tool, in order, against a fresh broker of either kind. Exit status, standard
output and standard error must be the same once ids, times, addresses and paths are masked. Where Tidemill is meant to
differ, the step says what and why (`Differs`), and it must then differ.

Stories stand in tests/compat/stories/*.py: each module has a list STORIES. To add a tool, add a module.
"""

import argparse
import base64
import concurrent.futures
import difflib
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import broker
import install

TOOL_S = 180

# What is never the same: each pattern is replaced by what stands beside it.
MASKS: List[Tuple[str, str]] = [
    (r"\b(127\.0\.0\.1|localhost):\d+", "HOST:PORT"),
    (r"\b[A-Za-z0-9_-]{22}\b(?=[\s,)]|$)", "ID"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]\d+\b", "TIME"),
    (r"\b1[6-9]\d{11}\b", "TIME"),
    (r"/[^\s,]*\.properties\b", "FILE"),
    (r"\.cache/\S+", "FILE"),
]


@dataclass
class Differs:
    """Why a step's output may not be Kafka's, and the lines that differ: those that match are left out on both sides.

    The pattern "." leaves everything out, the exit status too."""

    why: str
    lines: str


@dataclass
class Step:
    """One run of a tool. `{bootstrap}` in an argument becomes the broker's address, `{folder}` a folder for files."""

    main_class: str
    arguments: Sequence[str]
    stdin: str = ""
    # Further masks, for this step.
    masks: Sequence[Tuple[str, str]] = ()
    # Sorted before they are compared: the tool's own order is that of a hash map.
    unordered: bool = False
    differs: Optional[Differs] = None
    # Again until standard output matches, where the tool sees something come true.
    until: str = ""
    files: Dict[str, str] = field(default_factory=dict)

    def name(self) -> str:
        """What it is called in a report."""
        words = [word for word in self.arguments if word not in ("--bootstrap-server", "{bootstrap}")]
        return " ".join([self.main_class.rsplit(".", 1)[-1], *words])


@dataclass
class Story:
    """Steps that build on each other, on brokers of their own."""

    name: str
    steps: List[Step]
    # Properties of both brokers beside the common ones.
    properties: Dict[str, str] = field(default_factory=dict)


def tool(main_class: str, *arguments: str, **more) -> Step:
    """A step of a tool that asks a broker by --bootstrap-server."""
    return Step(main_class, ["--bootstrap-server", "{bootstrap}", *arguments], **more)


@dataclass
class Said:
    """What one run of a tool has said."""

    code: int
    lines: List[str]

    def masked(self, step: Step) -> List[str]:
        """Its lines with everything masked that may differ, the exit status first."""
        kept = []
        for line in self.lines:
            for pattern, instead in [*step.masks, *MASKS]:
                line = re.sub(pattern, instead, line)
            # kafka-topics prints a topic's settings in the order of a hash map.
            line = re.sub(r"(?<=Configs: )\S+", lambda found: ",".join(sorted(found.group().split(","))), line)
            if not (step.differs and re.search(step.differs.lines, line)):
                kept.append(line.rstrip())
        code = [] if step.differs and step.differs.lines == "." else [f"exit {self.code}"]
        return [*code, *(sorted(kept) if step.unordered else kept)]

    def left_out(self, step: Step) -> List[str]:
        """The lines that may differ."""
        return [line for line in self.lines if step.differs and re.search(step.differs.lines, line)]


class Side:
    """One kind of broker and the tools' runs against it, in a JVM of their own."""

    def __init__(self, instance: broker.Broker):
        self.instance = instance
        self._host: Optional[subprocess.Popen] = None

    def start(self) -> None:
        """Starts the broker and the JVM of the tools."""
        self.instance.start()
        self._host = subprocess.Popen(install.java("ToolHost"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      stderr=subprocess.DEVNULL, env=install.environment() | {"LC_ALL": "C.UTF-8"})

    def end(self) -> None:
        """Ends both, whatever state they are in."""
        self.instance.kill()
        if self._host is not None:
            self._host.kill()
            self._host.wait()

    def run(self, step: Step) -> Said:
        """One step, again for a while where it waits for something."""
        deadline = time.monotonic() + 60
        while True:
            said = self._once(step)
            if not step.until or re.search(step.until, "\n".join(said.lines)) or time.monotonic() > deadline:
                return said
            time.sleep(0.5)

    def _once(self, step: Step) -> Said:
        for name, text in step.files.items():
            (self.instance.folder / name).write_text(text)
        places = {"bootstrap": self.instance.bootstrap, "folder": str(self.instance.folder)}
        arguments = [re.sub(r"\{(bootstrap|folder)\}", lambda found: places[found.group(1)], word)
                     for word in step.arguments]
        words = [str(TOOL_S), step.stdin, step.main_class, *arguments]
        self._host.stdin.write(" ".join(base64.b64encode(word.encode()).decode() for word in words) + "\n")
        self._host.stdin.flush()
        code, _, said = self._host.stdout.readline().partition(" ")
        if not code:
            raise broker.BrokerError("the tools' JVM has ended")
        lines = base64.b64decode(said).decode(errors="replace").splitlines()
        # The stack of an exception names Java's own lines and threads.
        return Said(int(code), [line for line in lines if not re.match(r"\s+at |\s+\.\.\. \d+ more|SLF4J", line)])


def compare(step: Step, ours: Said, kafkas: Said) -> List[str]:
    """How they differ; nothing if they do not."""
    one, other = kafkas.masked(step), ours.masked(step)
    problems = list(difflib.unified_diff(one, other, "Apache Kafka", "Tidemill", lineterm="", n=2))
    if step.differs and ours.left_out(step) == kafkas.left_out(step):
        problems.append(f"no longer differs, so the exception may go: {step.differs.why}")
    return problems


def stories() -> List[Story]:
    """Every story of every module."""
    folder = Path(__file__).resolve().parent / "stories"
    found: List[Story] = []
    for module in sorted(pkgutil.iter_modules([str(folder)]), key=lambda module: module.name):
        found += importlib.import_module(f"stories.{module.name}").STORIES
    return found


def run(story: Story, folder: Path, options, pool: concurrent.futures.Executor) -> int:
    """Runs a story on both sides; how many of its steps differ."""
    ours = broker.Broker(folder / "tidemill", options.shards, options.broker_cmd, story.properties)
    kafkas = broker.ReferenceBroker(folder / "kafka", 1, None, story.properties)
    # Eligible leader replicas (KIP-966) make Kafka give min.insync.replicas to all brokers; Tidemill has none.
    kafkas.format_flags = ["--feature", "eligible.leader.replicas.version=0"]
    sides = [Side(ours), Side(kafkas)]
    failed = 0
    try:
        list(pool.map(lambda side: side.start(), sides))
        for step in story.steps:
            started = time.monotonic()
            said = list(pool.map(lambda side: side.run(step), sides))
            problems = compare(step, *said)
            seconds = time.monotonic() - started
            print(f"{'FAIL' if problems else 'same'} {story.name}: {step.name()} ({seconds:.1f})", flush=True)
            if options.show:
                print("\n".join("    | " + line for line in said[1].lines), flush=True)
            print("".join(f"    {line}\n" for line in problems), end="", flush=True)
            failed += bool(problems)
        ours.stop()
    except broker.BrokerError as error:
        print(f"FAIL {story.name}: {error}", flush=True)
        failed += 1
    finally:
        for side in sides:
            side.end()
    return failed


def main() -> int:
    """Runs every story asked for; 0 when nothing differs that should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only stories whose name contains this")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print what Kafka's run said")
    parser.add_argument("--broker-cmd", help="how to start Tidemill; {config} is its properties file")
    options = parser.parse_args()
    install.CACHE.mkdir(parents=True, exist_ok=True)
    install.install_jars(install.KAFKA)
    install.install_java_client(install.KAFKA)
    chosen = [story for story in stories() if options.only in story.name]
    base = install.CACHE / "run"
    base.mkdir(exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMPAT_TMP") or base) as folder, \
            concurrent.futures.ThreadPoolExecutor(2) as pool:
        for story in chosen:
            failed += run(story, Path(folder) / re.sub(r"\W+", "-", story.name), options, pool)
    steps = sum(len(story.steps) for story in chosen)
    print(f"{steps} steps of {len(chosen)} stories, {failed} differ")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
