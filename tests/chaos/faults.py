"""The faults of the chaos test. Each begins, holds for a while, ends, and says how often it hit something.

One node at a time is disturbed (or all are killed at once, which loses nothing that the page cache keeps), and the next
fault waits until all replicas are in sync again: so whatever was acknowledged has to stay.
"""

import random
import signal
import time
from typing import Callable, Dict, List

from brokers import Node
from network import Network


class Stage:
    """What faults act on."""

    def __init__(self, nodes: List[Node], network: Network, clients: List[str], rng: random.Random,
                 topic: Callable[[], List[dict]], await_in_sync: Callable[[], None]):
        self.nodes = nodes
        self.network = network
        self.clients = clients
        self.rng = rng
        # Leader, replicas and ISR of each partition; empty while nobody answers.
        self.topic = topic
        self.await_in_sync = await_in_sync

    def pick(self) -> Node:
        """The node that is disturbed."""
        return self.rng.choice(self.nodes)

    def hold(self, least_s: float, most_s: float) -> None:
        """Lets the fault work."""
        until = time.monotonic() + self.rng.uniform(least_s, most_s)
        while time.monotonic() < until:
            time.sleep(0.05)

    def led_by(self, node: Node) -> int:
        """How many partitions a node leads."""
        return sum(one["leader"] == node.number for one in self.topic())

    def hosts(self) -> List[str]:
        """Every host but none of the sink."""
        return [node.host for node in self.nodes] + self.clients


def kill(stage: Stage) -> int:
    """kill -9 of a node, at once or after a while started again. Hits: partitions that it led."""
    node = stage.pick()
    led = stage.led_by(node)
    node.kill()
    stage.hold(0, 5)
    node.restart()
    return led


def kill_all(stage: Stage) -> int:
    """kill -9 of every node at once. Hits: partitions that had a leader."""
    led = sum(one["leader"] > 0 for one in stage.topic())
    for node in stage.nodes:
        node.kill()
    before = [node.lines("ready on") for node in stage.nodes]
    for node in stage.nodes:
        node.start()
    for node, count in zip(stage.nodes, before):
        node.await_ready(count + 1)
    return led


def pause(stage: Stage) -> int:
    """SIGSTOP, and SIGCONT before or after others have taken over. Hits: partitions that it led."""
    node = stage.pick()
    led = stage.led_by(node)
    node.signal(signal.SIGSTOP)
    stage.hold(0.5, 8)
    node.signal(signal.SIGCONT)
    return led


def _cut(stage: Stage, ways: List[tuple], least_s: float = 1, most_s: float = 8) -> int:
    before = stage.network.lost_packets()
    for host, other in ways:
        stage.network.cut(host, other)
    stage.hold(least_s, most_s)
    for host, other in ways:
        stage.network.heal(host, other)
    return stage.network.lost_packets() - before


def cut_off(stage: Stage) -> int:
    """A node neither hears nor is heard, by nodes and clients. Hits: packets that were lost."""
    own = stage.pick().host
    others = [host for host in stage.hosts() if host != own]
    return _cut(stage, [way for other in others for way in ((own, other), (other, own))])


def cut_from_nodes(stage: Stage) -> int:
    """A node is cut off from the other nodes, and clients still reach it. Hits: packets that were lost."""
    own = stage.pick().host
    others = [node.host for node in stage.nodes if node.host != own]
    return _cut(stage, [way for other in others for way in ((own, other), (other, own))])


def mute(stage: Stage) -> int:
    """A node hears everyone, and nobody hears it. Hits: packets that were lost."""
    own = stage.pick().host
    return _cut(stage, [(own, other) for other in stage.hosts() if other != own])


def deaf(stage: Stage) -> int:
    """A node is heard by everyone, and hears nobody. Hits: packets that were lost."""
    own = stage.pick().host
    return _cut(stage, [(other, own) for other in stage.hosts() if other != own])


def cut_pair(stage: Stage) -> int:
    """Two nodes do not hear each other, or one of them not the other; the third one hears both. Hits: packets that were
    lost."""
    one, other = stage.rng.sample([node.host for node in stage.nodes], 2)
    ways = [(one, other), (other, one)] if stage.rng.random() < 0.5 else [(one, other)]
    return _cut(stage, ways)


def slow(stage: Stage) -> int:
    """A node's link is slow. Hits: packets that waited."""
    node = stage.pick()
    stage.network.slow(node.host)
    stage.hold(3, 8)
    hits = stage.network.slowed_packets(node.host)
    stage.network.quick(node.host)
    return hits


def disk_full(stage: Stage) -> int:
    """A node's disk is full for a while. Hits: looks at which nothing was free while the load went on."""
    node = stage.pick()
    node.fill_disk()
    hits = 0
    until = time.monotonic() + stage.rng.uniform(3, 8)
    while time.monotonic() < until:
        hits += node.free_bytes() == 0
        time.sleep(0.05)
    node.free_disk()
    return hits


def _is_out(stage: Stage, node: Node) -> bool:
    told = stage.topic()
    return bool(told) and all(node.number not in one["isr"] for one in told)


def disk_lost(stage: Stage) -> int:
    """A node is killed and comes back with an empty disk, at once or later. Hits: bytes of logs that were lost."""
    node = stage.pick()
    node.kill()
    if stage.rng.random() < 0.5:
        # Everyone has taken note that it is gone, or nobody has.
        until = time.monotonic() + 30
        while not _is_out(stage, node) and time.monotonic() < until:
            time.sleep(0.1)
    lost = node.lose_disk()
    node.restart()
    return lost


def rolling_restart(stage: Stage) -> int:
    """Every node stops cleanly and comes back, one after the other. Hits: nodes that led something before."""
    hits = 0
    for node in stage.nodes:
        hits += stage.led_by(node) > 0
        node.stop()
        node.restart()
        stage.await_in_sync()
    return hits


FAULTS: Dict[str, Callable[[Stage], int]] = {
    "kill -9": kill,
    "kill -9 of all": kill_all,
    "SIGSTOP": pause,
    "cut off": cut_off,
    "cut from nodes": cut_from_nodes,
    "mute": mute,
    "deaf": deaf,
    "cut between two": cut_pair,
    "slow link": slow,
    "disk full": disk_full,
    "disk lost": disk_lost,
    "rolling restart": rolling_restart,
}
