"""A master and its replica behind one address, whose replication a test cuts before it fails over."""

import signal
from pathlib import Path
from typing import Any, Self

import redis

from tests.servers import RealRedis, free_port, wait_until
from tests.workers.proxy import Proxy


def port_of(server: RealRedis) -> int:
    return int(server.url.rpartition(":")[2])


def do(server: RealRedis, *command: Any) -> Any:
    with redis.Redis.from_url(server.url) as client:
        return client.execute_command(*command)


class Pair:
    """Two Redis servers. `url` leads to the master, whichever that is; `direct_url` to the one that becomes it."""

    def __init__(self, folder: Path) -> None:
        options = ("--repl-diskless-sync-delay", "0")
        self.master = RealRedis(folder / "master", port=free_port(), options=options)
        self.link = Proxy(port_of(self.master))
        follows = ("--replicaof", "127.0.0.1", self.link.url.rpartition(":")[2])
        self.replica = RealRedis(folder / "replica", port=free_port(), options=follows)
        self.proxy = Proxy(port_of(self.master))
        self.url, self.direct_url = self.proxy.url, self.replica.url

    def __enter__(self) -> Self:
        for each in (self.master, self.link, self.replica, self.proxy):
            each.__enter__()
        wait_until(self.replicated, "the replica has all")
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.proxy, self.replica, self.link, self.master):
            each.__exit__(None, None, None)

    def replicated(self) -> bool:
        """Return whether the replica has all that the master has."""
        both = [do(server, "INFO", "replication") for server in (self.master, self.replica)]
        return both[0]["connected_slaves"] == 1 and both[0]["master_repl_offset"] == both[1].get("slave_repl_offset")

    def cut(self) -> None:
        """From now on nothing reaches the replica, which the master does not notice for a while."""
        wait_until(self.replicated, "the replica has all")
        self.link.dropping = True

    def fail_over(self) -> None:
        """Kill the master and promote the replica."""
        self.master.stop(signal.SIGKILL)
        self.promote()

    def promote(self) -> None:
        """Make the replica the master."""
        do(self.replica, "REPLICAOF", "NO", "ONE")
        self.proxy.target = port_of(self.replica)
