"""A master and its replica behind one address, as a managed service or a virtual IP has them."""

from contextlib import ExitStack
from pathlib import Path

from tests.servers import RealRedis, free_port, wait_until
from tests.topologies.topology import do
from tests.workers.proxy import Proxy


class Pair:
    """`old` is the master, to which the address leads, and `new` its replica, until they `swap`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        ports = [free_port(), free_port()]
        following = ("--replicaof", "127.0.0.1", str(ports[0]), "--repl-diskless-sync-delay", "0")
        self.old = stack.enter_context(RealRedis(folder / "old", port=ports[0]))
        self.new = stack.enter_context(RealRedis(folder / "new", port=ports[1], options=following))
        self._port_of = {self.old: ports[0], self.new: ports[1]}
        self.proxy = stack.enter_context(Proxy(ports[0]))
        self.await_replica()

    def await_replica(self) -> None:
        """Wait until the replica follows the master."""
        wait_until(lambda: do(self.new, "INFO", "replication").get("master_link_status") == "up", "the replica follows")

    def cut_replication(self) -> None:
        """Have the replica hear no more of the master."""
        do(self.new, "REPLICAOF", "127.0.0.1", free_port())

    def demote(self) -> None:
        """Promote the replica, and have the old master follow it. Its clients' connections stay open."""
        do(self.new, "REPLICAOF", "NO", "ONE")
        do(self.old, "REPLICAOF", "127.0.0.1", self._port_of[self.new])

    def flip(self) -> None:
        """Have the address lead to the new master."""
        self.proxy.target = self._port_of[self.new]

    def swap(self) -> None:
        """Have the new master be the old one of the next flip."""
        self.old, self.new = self.new, self.old
