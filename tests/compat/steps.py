"""What a story of same.py is made of: steps, each one run of a tool, and what of its lines is masked."""

import re
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

# What is never the same: each pattern is replaced by what stands beside it.
MASKS: List[Tuple[str, str]] = [
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"\b(127\.0\.0\.1|localhost):\d+", "HOST:PORT"),
    (r"(?<![\w./-])[A-Za-z0-9_-]{22}(?=[\s,)]|$)", "ID"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.:]\d+\b", "TIME"),
    (r"\b1[6-9]\d{11}\b", "TIME"),
    # Every run of a JVM counts its clients, and some take a group's name by chance.
    (r"\b(adminclient|console-consumer|perf-consumer|producer|consumer-[\w.-]+?)-\d+\b", r"\1-N"),
]
# Lists that are printed in the order of a hash map: what is before them, and their items.
SETS = [r"(\bIsr: )(\S+)", r"(Configs: )(\S+)", r"(Valid \w+ are: )(.+)", r"(topicPartitions=)([^)]*)", r"()(\[[\w-]+\](?:, ?\[[\w-]+\])+)"]
# The stack of an exception names Java's own lines and threads, and what a client warns of is a matter of time.
DROPPED = re.compile(r"\s+at |\s+\.\.\. \d+ more|SLF4J|The consumer rebalance protocol \(KIP-848\)"
                     r"|\[.*\] WARN org\.apache\.kafka\.clients|\[.*\] ERROR org\.apache\.kafka\.clients\.consumer")
# A tool's table of options says nothing of a broker.
USAGE = re.compile(r"(usage: |Option( \(\* = required\))? +Description)")
OF_USAGE = re.compile(r"\s|-|\* --|$")


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
    # Further masks, for this step: a pattern, and what stands instead or makes it of what was found.
    masks: Sequence[Tuple[str, Union[str, Callable[[re.Match], str]]]] = ()
    # Sorted before they are compared: the tool's own order is that of a hash map, or of chance.
    unordered: bool = False
    differs: Optional[Differs] = None
    # Again until the output matches, where the tool sees something come true.
    until: str = ""
    files: Dict[str, str] = field(default_factory=dict)
    # A JVM of its own, for what needs the end of one.
    alone: bool = False
    # What becomes of it: "run", "start" (it goes on beside the others, under this name), "end" of one that does, "stop" of
    # the broker, or "node-" and what is done to the node of this number.
    verb: str = "run"
    beside: str = ""

    def name(self) -> str:
        """What it is called in a report."""
        words = [word for word in self.arguments if word not in ("--bootstrap-server", "{bootstrap}")]
        verb = [] if self.verb == "run" else [f"({self.verb} {self.beside})"]
        return " ".join([*verb, self.main_class.rsplit(".", 1)[-1], *words]).replace("\n", "\\n").strip()

    def masked(self, code: int, lines: Sequence[str], folder: str) -> List[str]:
        """The exit status and the lines, with everything masked that may differ."""
        kept = []
        usage = False
        for line in lines:
            usage = bool(USAGE.match(line)) or usage and bool(OF_USAGE.match(line))
            if usage or DROPPED.match(line):
                continue
            line = line.replace(folder, "FOLDER")
            for pattern, instead in [*self.masks, *MASKS]:
                line = re.sub(pattern, instead, line)
            for pattern in SETS:
                line = re.sub(pattern, lambda found: found[1] + ",".join(sorted(re.split(", ?", found[2]))), line)
            kept.append(line.rstrip())
        return [f"exit {code}", *(sorted(kept) if self.unordered else kept)]

    def compared(self, masked: Sequence[str]) -> List[str]:
        """The masked lines that have to be the same."""
        if self.differs and self.differs.lines == ".":
            return []
        return [line for line in masked if not (self.differs and re.search(self.differs.lines, line))]

    def left_out(self, masked: Sequence[str]) -> List[str]:
        """Those that may differ."""
        return [line for line in masked if self.differs and re.search(self.differs.lines, line)]


@dataclass
class Story:
    """Steps that build on each other, on brokers of their own."""

    name: str
    steps: List[Step]
    # Properties of both brokers beside the common ones; `{folder}` becomes the broker's own folder.
    properties: Dict[str, str] = field(default_factory=dict)
    # How many nodes a cluster of either kind has.
    nodes: int = 1
    # Properties of single nodes of a cluster, by their number.
    own: Dict[int, Dict[str, str]] = field(default_factory=dict)

    def of_node(self, number: int) -> Dict[str, str]:
        """The properties of one node beside the common ones."""
        return self.properties | self.own.get(number, {})


def tool(main_class: str, *arguments: str, **more) -> Step:
    """A step of a tool that asks a broker by --bootstrap-server."""
    return Step(main_class, ["--bootstrap-server", "{bootstrap}", *arguments], **more)


def start(name: str, step: Step) -> Step:
    """A step whose tool goes on beside the others until `end`."""
    step.verb, step.beside = "start", name
    return step


def end(name: str) -> Step:
    """Interrupts what was started under a name; what it has printed is compared, in whatever order it came."""
    return Step("", [], verb="end", beside=name, unordered=True)


def stop_broker() -> Step:
    """Stops the broker, for what reads its files."""
    return Step("", [], verb="stop", beside="the broker")


def node(verb: str, number: int) -> Step:
    """Starts, stops, kills, freezes or thaws one node of a cluster."""
    return Step("", [], verb=f"node-{verb}", beside=str(number))
