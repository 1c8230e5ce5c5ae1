"""A cluster of several nodes, each a broker and a controller: Tidemill's, or Apache Kafka's as the reference."""

import concurrent.futures
import subprocess
from pathlib import Path
from typing import Callable, Dict, List, Optional

import broker

# What a node, by its number, has beside the common properties.
Overrides = Callable[[int], dict]
# The disks of the controllers: the same ones on both sides, for the tools that are told of them.
DIRECTORIES = ["JEXY6aqzQY-32P5TStzaFg", "MvDxzVmcRsaTz33bUuRU6A", "07R5amHmR32VDA6jHkGbTA"]


class Member:
    """What a node of a cluster has beside a broker of its own, of either kind."""

    def __init__(self, node: int, controllers: List[int]):
        self.node = node
        self.controllers = controllers

    def membership(self, port: int) -> dict:
        """Properties of a node of both roles."""
        own = self.controllers[self.node - 1]
        return {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{own}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{one}" for one in self.controllers),
        }

    def voters(self) -> str:
        """The quorum to begin with."""
        entries = zip(range(1, len(self.controllers) + 1), self.controllers, DIRECTORIES)
        return ",".join(f"{node}@127.0.0.1:{port}:{directory}" for node, port, directory in entries)


class Node(Member, broker.Broker):
    """A node of Tidemill."""

    def __init__(self, folder: Path, node: int, controllers: List[int], shards: int, command: Optional[str],
                 overrides: Optional[dict]):
        Member.__init__(self, node, controllers)
        broker.Broker.__init__(self, folder, shards, command, overrides)

    def properties(self) -> dict:
        """Its own properties, and that it belongs to a cluster."""
        return super().properties() | self.membership(self.port)

    def start(self) -> None:
        """Formats the folder first."""
        if not self.log_dir.exists():
            tool = [self.argv()[0], "format", "-c", str(self.config), "-t", broker.CLUSTER_ID, "-I", self.voters()]
            done = subprocess.run(tool, capture_output=True, text=True)
            if done.returncode != 0:
                raise broker.BrokerError(f"tidemill format failed\n{done.stdout}{done.stderr}")
        super().start()


class ReferenceNode(Member, broker.ReferenceBroker):
    """A node of Apache Kafka."""

    def __init__(self, folder: Path, node: int, controllers: List[int], overrides: Optional[dict]):
        Member.__init__(self, node, controllers)
        self.format_flags = ["-I", self.voters()]
        broker.ReferenceBroker.__init__(self, folder, 1, None, overrides)

    def properties(self) -> dict:
        """Its own properties, and that it belongs to a cluster."""
        own = super().properties() | self.membership(self.port)
        own.pop("controller.quorum.voters")
        return own


class Cluster:
    """Nodes that start and stop together or one by one."""

    def __init__(self, folder: Path, members: Dict[int, broker.Broker]):
        self.folder = folder
        self.members = members

    @staticmethod
    def of_tidemill(folder: Path, count: int, shards: int, command: Optional[str], overrides: Overrides) -> "Cluster":
        """Tidemill's."""
        ports = [broker.free_port() for _ in range(count)]
        return Cluster(folder, {node: Node(folder / f"node-{node}", node, ports, shards, command, overrides(node))
                                for node in range(1, count + 1)})

    @staticmethod
    def of_kafka(folder: Path, count: int, overrides: Overrides) -> "Cluster":
        """Apache Kafka's."""
        ports = [broker.free_port() for _ in range(count)]
        return Cluster(folder, {node: ReferenceNode(folder / f"node-{node}", node, ports, overrides(node))
                                for node in range(1, count + 1)})

    @property
    def bootstrap(self) -> str:
        """Every broker, for clients."""
        return ",".join(one.bootstrap for one in self.members.values())

    @property
    def controllers(self) -> str:
        """Every controller."""
        return ",".join(f"127.0.0.1:{port}" for port in self.members[1].controllers)

    def start(self) -> None:
        """Starts all nodes at once: none is there before a majority is."""
        with concurrent.futures.ThreadPoolExecutor(len(self.members)) as pool:
            list(pool.map(lambda one: one.start(), self.members.values()))

    def alive(self) -> bool:
        """Whether any node runs."""
        return any(one.alive() for one in self.members.values())

    def stop(self) -> None:
        """Stops those that run, all at once."""
        running = [one for one in self.members.values() if one.alive()]
        with concurrent.futures.ThreadPoolExecutor(len(running)) as pool:
            list(pool.map(lambda one: one.stop(), running))

    def kill(self) -> None:
        """Ends everything, whatever state it is in."""
        for one in self.members.values():
            if one.alive():
                one.thaw()
            one.kill()

    def act(self, verb: str, node: int) -> None:
        """Does something to one node: start, stop, kill, freeze or thaw."""
        getattr(self.members[node], verb)()
