"""A Redis Cluster of real processes. They know each other before they start, so they are ready within seconds."""

import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
import redis.exceptions

from progress_broker.routing.slots import SLOTS
from tests.servers import START_S, Process, RealRedis, free_port, wait_until
from tests.topologies.binaries import binary
from tests.topologies.topology import LANES, client_of, do, feed_of

NODE_TIMEOUT_MS = 2000
_BATCH = 10

Order = Callable[[Iterable[bytes]], Sequence[bytes]]


class ClusterNode(RealRedis):
    """A node of a Cluster."""

    def __init__(self, folder: Path, server: str, options: tuple[str, ...]) -> None:
        self.port, self.bus, self.id = free_port(), free_port(), ""
        clustered = (
            *("--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"),
            *("--cluster-port", str(self.bus), "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            *("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync-delay", "0"),
        )
        super().__init__(folder, port=self.port, options=(*clustered, *options), binary=binary(server))
        self.folder = folder
        self.hangs = False

    @property
    def is_up(self) -> bool:
        """Whether it can answer."""
        return self.popen is not None and self.popen.poll() is None and not self.hangs


class Cluster:
    """Some masters, each with as many replicas. The keys of a lane are all in one slot."""

    def __init__(
        self,
        folder: Path,
        *,
        masters: int = 3,
        replicas: int = 0,
        server: str = "redis7",
        options: tuple[str, ...] = (),
    ) -> None:
        self.nodes = [
            ClusterNode(folder / f"node-{number}", server, options) for number in range(masters * (1 + replicas))
        ]
        for number, node in enumerate(self.nodes):
            node.id = f"{number + 1:040x}"
        for node in self.nodes:
            (node.folder / "nodes.conf").write_text(self._nodes_conf(node, masters))
        self._masters = masters
        self.is_atomic = server == "valkey9"
        """Whether slots can move all at once."""

    def _nodes_conf(self, me: ClusterNode, masters: int) -> str:
        lines = []
        for number, node in enumerate(self.nodes):
            place = number % masters
            slots = f"{place * SLOTS // masters}-{(place + 1) * SLOTS // masters - 1}"
            role = "master -" if number < masters else f"slave {self.nodes[place].id}"
            flags = f"{'myself,' if node is me else ''}{role}"
            linked = f"{flags} 0 0 {place + 1} connected{f' {slots}' if number < masters else ''}"
            lines.append(f"{node.id} 127.0.0.1:{node.port}@{node.bus} {linked}")
        return "\n".join([*lines, f"vars currentEpoch {masters} lastVoteEpoch 0", ""])

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[: self._masters])}"

    def start(self) -> Self:
        for node in self.nodes:
            Process.start(node)
        self.await_whole()
        return self

    def await_whole(self) -> None:
        """Wait until all nodes are up, have all slots among them, and their replicas follow."""
        wait_until(self._is_whole, "the cluster is whole", START_S)

    def _is_whole(self) -> bool:
        try:
            for node in self.nodes:
                with client_of(node) as client:
                    if client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                        return False
                    if client.info("replication").get("master_link_status", "up") != "up":
                        return False
        except redis.exceptions.RedisError:
            return False
        return True

    def close(self) -> None:
        for node in self.nodes:
            node.send(signal.SIGKILL)
        for node in self.nodes:
            node.stop(signal.SIGKILL)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What there is.

    def _owners(self) -> list[tuple[int, int, str]]:
        """Return ranges of slots, each with the id of the master that has them."""
        return [(first, last, node[2].decode()) for first, last, node, *_ in self._ask("CLUSTER", "SLOTS")]

    def _ask(self, *command: str) -> Any:
        """Ask the first node that answers."""
        for node in self.nodes:
            if node.is_up:
                try:
                    with client_of(node) as client:
                        client.response_callbacks.clear()  # type: ignore[attr-defined]
                        return client.execute_command(*command)
                except redis.exceptions.RedisError:
                    continue
        raise AssertionError("no node of the cluster answers")

    def of_slot(self, slot: int) -> ClusterNode:
        owners: list[str] = []

        def told() -> list[str]:  # a node may know of no owner while others elect one
            owners[:] = [id for first, last, id in self._owners() if first <= slot <= last]
            return owners

        wait_until(told, f"a node has slot {slot}")
        return self._node(owners[0])

    def _node(self, id: str) -> ClusterNode:
        return next(node for node in self.nodes if node.id == id)

    def slot_of_lane(self, lane: int, lanes: int = LANES) -> int:
        return int(self._ask("CLUSTER", "KEYSLOT", feed_of(lane, lanes)))

    def of_lane(self, lane: int, lanes: int = LANES) -> ClusterNode:
        return self.of_slot(self.slot_of_lane(lane, lanes))

    def masters(self) -> list[RealRedis]:
        owners = {id for _, _, id in self._owners()}
        return [node for node in self.nodes if node.id in owners and node.is_up]

    def replicas_of(self, master: RealRedis) -> list[ClusterNode]:
        assert isinstance(master, ClusterNode)
        # CLUSTER SLOTS leaves out those that were sent nothing yet.
        known = self._ask("CLUSTER", "REPLICAS", master.id)
        found = {line.split()[0].decode() for line in known if b"fail" not in line.split()[2]}
        return [node for node in self.nodes if node.id in found and node.is_up]

    def flush(self) -> None:
        for node in self.masters():
            do(node, "FLUSHALL")

    # Ways to break it.

    def kill(self, node: RealRedis) -> None:
        node.stop(signal.SIGKILL)

    def stop(self, node: RealRedis) -> None:
        assert isinstance(node, ClusterNode)
        node.send(signal.SIGSTOP)
        node.hangs = True

    def cont(self, node: RealRedis) -> None:
        assert isinstance(node, ClusterNode)
        node.send(signal.SIGCONT)
        node.hangs = False

    def failover(self, lane: int, *, planned: bool) -> RealRedis:
        slot = self.slot_of_lane(lane)
        old = self.of_slot(slot)
        replicas: list[ClusterNode] = []

        def known() -> list[ClusterNode]:  # one that was away may not have joined again yet
            replicas[:] = self.replicas_of(old)
            return replicas

        wait_until(known, "the master has a replica")
        if not planned:
            self.kill(old)

        again_at = 0.0

        def promoted() -> bool:
            nonlocal again_at
            if self.of_slot(slot) in replicas:
                return True
            if planned and time.monotonic() > again_at:
                # It is rejected while the replica is not linked, and given up after 5 s.
                with suppress(redis.exceptions.ResponseError):
                    do(replicas[0], "CLUSTER", "FAILOVER")
                    again_at = time.monotonic() + 6
            return False

        wait_until(promoted, "a replica is promoted")
        new = self.of_slot(slot)
        if planned:
            wait_until(lambda: old in self.replicas_of(new), "the old master is a replica")
        return new

    def join_as_master(self, node: ClusterNode) -> None:
        """Make a replica a master without slots."""
        do(node, "CLUSTER", "RESET", "HARD")
        node.id = do(node, "CLUSTER", "MYID").decode()
        others = [each for each in self.nodes if each is not node and each.is_up]
        do(node, "CLUSTER", "MEET", "127.0.0.1", others[0].port, others[0].bus)
        wait_until(
            lambda: all(node.id.encode() in do(each, "CLUSTER", "NODES") for each in others), "all nodes know it"
        )
        wait_until(lambda: b"cluster_state:ok" in do(node, "CLUSTER", "INFO"), "it accepts writes")

    def cut_replication(self, node: RealRedis) -> None:
        """Have a master's replicas fail to log in, also when they are promoted and their master follows them."""
        replicas = self.replicas_of(node)
        assert replicas, "nobody follows this master"
        for replica in replicas:
            do(replica, "CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong")
        do(node, "CLIENT", "KILL", "TYPE", "replica")

    def heal_replication(self) -> None:
        for node in self.nodes:
            if node.is_up:
                do(node, "CONFIG", "SET", "masteruser", "", "masterauth", "")

    def move_slot(
        self, lane: int, order: Order = sorted, *, to: RealRedis | None = None, atomic: bool = False
    ) -> RealRedis:
        """Move a lane's slot to another master, and return it. `atomic` needs Valkey 9."""
        moving = Migration(self, self.slot_of_lane(lane), to)
        if atomic:
            moving.at_once()
        else:
            moving.begin()
            moving.move(order(moving.keys()))
            moving.move(moving.keys())  # that were made meanwhile
            moving.settle()
        return moving.target


class Migration:
    """A slot that moves key by key, in steps of the test."""

    def __init__(self, cluster: Cluster, slot: int, to: RealRedis | None = None) -> None:
        self.cluster, self.slot, self.source = cluster, slot, cluster.of_slot(slot)
        target = to or next(node for node in cluster.masters() if node is not self.source)
        assert isinstance(target, ClusterNode)
        self.target = target

    def begin(self) -> None:
        do(self.target, "CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source.id)
        do(self.source, "CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target.id)

    def keys(self) -> list[bytes]:
        """Return the keys that are still at the source."""
        found: list[bytes] = do(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, 1_000_000)
        return [key if isinstance(key, bytes) else str(key).encode() for key in found]

    def move(self, keys: Iterable[bytes]) -> None:
        waiting = list(keys)
        while waiting:
            some, waiting = waiting[:_BATCH], waiting[_BATCH:]
            do(self.source, "MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *some)

    def settle(self) -> None:
        """Tell all masters who has the slot, the new owner first, until it is so."""
        left = self.keys()
        while left:  # clients that make keys at the source are faster than one look
            self.move(left)
            left = self.keys()
        masters = [self.target, self.source, *self.cluster.masters()]
        for node in dict.fromkeys(masters):
            do(node, "CLUSTER", "SETSLOT", self.slot, "NODE", self.target.id)
        wait_until(lambda: self.cluster.of_slot(self.slot) is self.target, "the slot has moved")

    def at_once(self) -> None:
        do(self.source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", self.slot, self.slot, "NODE", self.target.id)
        wait_until(lambda: self.cluster.of_slot(self.slot) is self.target, "the slot has moved")
