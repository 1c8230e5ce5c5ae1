"""The network of the chaos test: a namespace for each host, all on one bridge in a namespace of its own.

A way from one host to another is cut by the sender's own table of neighbours: what it sends there goes to an address of
the hardware that only the sink has. So a cut has a direction, nobody is told of it, and the sink counts what it took.
Nothing but the kernel's bridge and veth devices and iproute2 is needed. A way is slowed with a token bucket, and with
netem where the kernel has it.
"""

import json
import os
import subprocess
from typing import Dict, List, Sequence

LOST = "02:00:00:00:ff:ff"
PREFIX = "10.77.0."
RATE = "4mbit"


def command(*words: str) -> str:
    """Runs a command that must succeed; what it prints."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


class Network:
    """Hosts by name; each has an address, and programs run in it."""

    def __init__(self, hosts: Sequence[str]):
        self._mark = f"tm{os.getpid()}"
        self.addresses: Dict[str, str] = {host: f"{PREFIX}{number}" for number, host in enumerate(hosts, 1)}
        self._hardware = {host: f"02:00:00:00:00:{number:02x}" for number, host in enumerate(hosts, 1)}
        self._switch = f"{self._mark}-switch"
        self._made: List[str] = []
        self._slow: List[str] = []
        self.has_netem = False

    def namespace(self, host: str) -> str:
        """The name of a host's namespace."""
        return f"{self._mark}-{host}"

    def make(self) -> None:
        """Makes everything; needs root."""
        self._namespace(self._switch)
        switch = ["ip", "-n", self._switch, "link"]
        command(*switch, "add", "bridge0", "type", "bridge")
        command(*switch, "set", "bridge0", "up")
        command(*switch, "add", "sink0", "type", "veth", "peer", "name", "sink1")
        for end in ("sink0", "sink1"):
            command(*switch, "set", end, "up")
        command(*switch, "set", "sink0", "master", "bridge0")
        command("bridge", "-n", self._switch, "fdb", "add", LOST, "dev", "sink0", "master", "static")
        for host, address in self.addresses.items():
            self._namespace(self.namespace(host))
            inside = ["ip", "-n", self.namespace(host)]
            command(*switch, "add", host, "type", "veth", "peer", "name", "eth0", "address", self._hardware[host],
                    "netns", self.namespace(host))
            command(*switch, "set", host, "master", "bridge0", "up")
            command(*inside, "link", "set", "lo", "up")
            command(*inside, "link", "set", "eth0", "up")
            command(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        for host in self.addresses:
            for other in self.addresses:
                if other != host:
                    self.heal(host, other)
        self.has_netem = self._tries_netem()

    def _namespace(self, name: str) -> None:
        command("ip", "netns", "add", name)
        self._made.append(name)

    def _tries_netem(self) -> bool:
        probe = ["tc", "-n", self._switch, "qdisc"]
        if subprocess.run([*probe, "add", "dev", "sink1", "root", "netem", "delay", "1ms"], capture_output=True).returncode:
            return False
        command(*probe, "del", "dev", "sink1", "root")
        return True

    def end(self) -> None:
        """Takes everything away."""
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self._made = []

    def inside(self, host: str, argv: Sequence[str]) -> List[str]:
        """The command line that runs a program on a host."""
        return ["ip", "netns", "exec", self.namespace(host), *argv]

    def _neighbour(self, host: str, other: str, hardware: str) -> None:
        command("ip", "-n", self.namespace(host), "neigh", "replace", self.addresses[other], "lladdr", hardware, "dev",
                "eth0", "nud", "permanent")

    def cut(self, host: str, other: str) -> None:
        """What `host` sends to `other` is lost from now on."""
        self._neighbour(host, other, LOST)

    def heal(self, host: str, other: str) -> None:
        """It arrives again."""
        self._neighbour(host, other, self._hardware[other])

    def lost_packets(self) -> int:
        """How many packets went into cuts so far."""
        told = json.loads(command("ip", "-n", self._switch, "-s", "-j", "link", "show", "sink0"))
        return told[0]["stats64"]["tx"]["packets"]

    def slow(self, host: str) -> None:
        """Both ways of a host are slow from now on."""
        if self.has_netem:
            kind = ["netem", "delay", "40ms", "20ms", "loss", "1%", "rate", RATE]
        else:
            kind = ["tbf", "rate", RATE, "burst", "16kb", "latency", "400ms"]
        command("tc", "-n", self._switch, "qdisc", "replace", "dev", host, "root", *kind)
        command("tc", "-n", self.namespace(host), "qdisc", "replace", "dev", "eth0", "root", *kind)

    def slowed_packets(self, host: str) -> int:
        """How many packets had to wait, or passed the slow way."""
        count = 0
        for where, device in ((self._switch, host), (self.namespace(host), "eth0")):
            for one in json.loads(command("tc", "-n", where, "-s", "-j", "qdisc", "show", "dev", device)):
                if one["kind"] in ("netem", "tbf"):
                    count += one["packets"] if one["kind"] == "netem" else one["overlimits"]
        return count

    def quick(self, host: str) -> None:
        """Both ways are quick again."""
        command("tc", "-n", self._switch, "qdisc", "del", "dev", host, "root")
        command("tc", "-n", self.namespace(host), "qdisc", "del", "dev", "eth0", "root")
