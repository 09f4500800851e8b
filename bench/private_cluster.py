"""A Redis Cluster of masters alone, as a benchmark needs it."""

import time
from contextlib import ExitStack
from typing import Self

from bench.processes import START_S, PrivateRedis, free_port
from progress_broker.routing.slots import SLOTS


class PrivateCluster:
    """Some masters, each with as many slots. They store nothing on disk."""

    def __init__(self, cores: frozenset[int], masters: int) -> None:
        self._buses = [free_port() for _ in range(masters)]
        self.nodes = [
            PrivateRedis(cores, free_port(), {"cluster-enabled": "yes", "cluster-port": str(bus)})
            for bus in self._buses
        ]
        self.url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def place_of(self, slot: int) -> int:
        """Return which of the masters has a slot."""
        return next(place for place in range(len(self.nodes)) if slot < self._first(place + 1))

    def _first(self, place: int) -> int:
        return place * SLOTS // len(self.nodes)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for place, node in enumerate(self.nodes):
                stack.enter_context(node)
                client = node.client
                client.execute_command("CLUSTER ADDSLOTSRANGE", self._first(place), self._first(place + 1) - 1)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", place + 1)
            for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
                self.nodes[0].client.execute_command("CLUSTER MEET", "127.0.0.1", node.port, bus)
            self._await_whole()
            self._stack = stack.pop_all()
        return self

    def _await_whole(self) -> None:
        end = time.monotonic() + START_S
        while not all(self._is_whole(node) for node in self.nodes):
            if time.monotonic() > end:
                raise SystemExit(f"the Cluster is not whole within {START_S:.0f} s")
            time.sleep(0.05)

    def _is_whole(self, node: PrivateRedis) -> bool:
        told = node.client.execute_command("CLUSTER INFO")
        return (told["cluster_state"], told["cluster_known_nodes"]) == ("ok", str(len(self.nodes)))

    def __exit__(self, *_: object) -> None:
        self._stack.close()
