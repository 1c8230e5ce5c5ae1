"""A client program as one long-lived process that obeys commands (clients/command.py tells them)."""

import select
import subprocess
from pathlib import Path
from typing import List

import install

ANSWER_S = 900


def command(name: str, **properties) -> List[str]:
    """The program of a client."""
    if name.startswith("habits-java-"):
        return install.java("Habits", version=name.removeprefix("habits-java-"), heap="256m", **properties)
    if name == "habits-kafkajs":
        return ["node", str(install.CLIENTS / "kafkajs" / "habits.js")]
    if name == "habits-franz-go":
        return [str(install.GO / "client"), "habits"]
    if name.startswith("habits-"):
        return [install.python(), str(install.CLIENTS / f"{name.removeprefix('habits-').replace('-', '_')}_habits.py")]
    if name.startswith("java-"):
        return install.java("RoundTrip", version=name.removeprefix("java-"), **properties)
    if name == "kafkajs":
        return ["node", str(install.CLIENTS / "kafkajs" / "client.js")]
    if name == "franz-go":
        return [str(install.GO / "client")]
    if name == "topics":
        return [install.python(), str(install.CLIENTS / "topics.py")]
    return [install.python(), str(install.CLIENTS / f"{name.replace('-', '_')}_client.py")]


class Client:
    """The process, started at its first command and again after a failure, so that no case suffers from another."""

    def __init__(self, name: str, folder: Path, answer_s: int = ANSWER_S, **properties):
        self.name = name
        self._answer_s = answer_s
        self.log_path = folder / f"{name}.log"
        self._properties = properties
        self._process = None
        self.codecs: List[str] = []

    def start(self) -> str:
        """Starts the process and learns its codecs; the error if it does not come up."""
        if self._process:
            return ""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(command(self.name, **self._properties), stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE, stderr=log, bufsize=0, env=install.environment())
        answer = self._answer()
        if not answer.startswith("ready"):
            self.close()
            return f"{self.name} did not start: {answer}\n{self.tail()}"
        self.codecs = answer.removeprefix("ready").strip().split(",")
        return ""

    def _answer(self) -> str:
        """The next line, or what happened instead."""
        ready, _, _ = select.select([self._process.stdout], [], [], self._answer_s)
        if not ready:
            return f"no answer within {self._answer_s} s"
        line = self._process.stdout.readline().decode(errors="replace").rstrip("\n")
        return line or f"the process ended with {self._process.wait()}"

    def ask(self, *words) -> str:
        """Runs one command; the error if there was one."""
        if error := self.start():
            return error
        try:
            self._process.stdin.write(("\t".join(str(word) for word in words) + "\n").encode())
            answer = self._answer()
        except OSError as error:
            answer = str(error)
        if answer == "ok":
            return ""
        self.close()
        return f"{answer}\n{self.tail()}".rstrip()

    def tail(self) -> str:
        """The last lines that it wrote to standard error."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join("    | " + line[:500] for line in lines[-10:])

    def close(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None
