"""JVMs that run Kafka's tools: one for many runs (clients/ToolHost.java), or one for a single run."""

import base64
import subprocess
from typing import List, Tuple

import broker
import install

# Exit status, and the lines of standard output and standard error together.
Said = Tuple[int, List[str]]


class Host:
    """A JVM that runs tools, one after the other or beside each other."""

    def __init__(self) -> None:
        command = install.java("ToolHost", brief=True)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         stderr=subprocess.DEVNULL, env=environment())

    def ask(self, *words: str) -> Said:
        """One command, and its answer."""
        self._process.stdin.write(" ".join(base64.b64encode(word.encode()).decode() for word in words) + "\n")
        self._process.stdin.flush()
        code, _, said = self._process.stdout.readline().partition(" ")
        if not code:
            raise broker.BrokerError("the tools' JVM has ended")
        return int(code), base64.b64decode(said).decode(errors="replace").splitlines()

    def end(self) -> None:
        """Ends it with everything in it."""
        self._process.kill()
        self._process.wait()


def environment() -> dict:
    """The environment of tools: dates are read in UTC."""
    return install.environment() | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def alone(limit_s: int, stdin: str, main_class: str, *arguments: str) -> Said:
    """A run in a JVM of its own."""
    command = install.java(main_class, *arguments, heap="128m", brief=True)
    try:
        done = subprocess.run(command, input=stdin, text=True, errors="replace", stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=limit_s, env=environment())
    except subprocess.TimeoutExpired:
        return 124, [f"no end within {limit_s} s"]
    return done.returncode, done.stdout.splitlines()
