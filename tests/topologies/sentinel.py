"""A Sentinel set of real processes. They know each other before they start, so they can fail over at once."""

import signal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.servers import START_S, Process, RealRedis, free_port, wait_until
from tests.topologies.binaries import binary
from tests.topologies.topology import do

SERVICE = "main"
DOWN_AFTER_MS = 1000
FAILOVER_TIMEOUT_MS = 10_000
SENTINELS = 3
QUORUM = 2


class Server(RealRedis):
    """A master, or a replica of one."""

    def __init__(self, folder: Path, server: str, options: tuple[str, ...]) -> None:
        self.port = free_port()
        own = ("--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0", *options)
        super().__init__(folder, port=self.port, options=own, binary=binary(server))

    @property
    def is_up(self) -> bool:
        return self.popen is not None and self.popen.poll() is None


class SentinelProcess(Process):
    """One of the sentinels."""

    def __init__(self, folder: Path, server: str, number: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.id = folder, free_port(), f"{number + 11:040x}"
        self.url = f"redis://127.0.0.1:{self.port}"
        super().__init__([binary(server), str(folder / "sentinel.conf"), "--sentinel"], folder / "sentinel.log")


class SentinelSet:
    """A master, its replicas, and sentinels that watch them. `sentinel_options` are lines of their configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 2,
        server: str = "redis7",
        options: tuple[str, ...] = (),
        sentinel_options: tuple[str, ...] = (),
    ) -> None:
        first = Server(folder / "server-0", server, options)
        following = (*options, "--replicaof", f"127.0.0.1 {first.port}")
        others = [Server(folder / f"server-{number + 1}", server, following) for number in range(replicas)]
        self.servers = [first, *others]
        self.sentinels = [SentinelProcess(folder / f"sentinel-{number}", server, number) for number in range(SENTINELS)]
        for sentinel in self.sentinels:
            (sentinel.folder / "sentinel.conf").write_text(self._conf(sentinel, sentinel_options))

    def _conf(self, me: SentinelProcess, options: tuple[str, ...]) -> str:
        master, *replicas = self.servers
        lines = [
            *(f"port {me.port}", "bind 127.0.0.1", f"dir {me.folder}", f"sentinel myid {me.id}"),
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} {FAILOVER_TIMEOUT_MS}",
            *(f"sentinel config-epoch {SERVICE} 0", f"sentinel leader-epoch {SERVICE} 0"),
            *(f"sentinel known-replica {SERVICE} 127.0.0.1 {each.port}" for each in replicas),
            *(
                f"sentinel known-sentinel {SERVICE} 127.0.0.1 {other.port} {other.id}"
                for other in self.sentinels
                if other is not me
            ),
            *options,
            "sentinel current-epoch 0",
        ]
        return "\n".join([*lines, ""])

    @property
    def url(self) -> str:
        return f"redis+sentinel://{self.hosts}/{SERVICE}"

    @property
    def hosts(self) -> str:
        """The sentinels, as addresses name them."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def start(self) -> Self:
        for process in (*self.servers, *self.sentinels):
            Process.start(process)
        self.await_whole()
        return self

    def await_whole(self) -> None:
        """Wait until all sentinels have the same master, and all other servers follow it."""
        wait_until(self._is_whole, "the sentinels know all", START_S)

    def _is_whole(self) -> bool:
        try:
            replies = [self._ask(sentinel, "SENTINEL", "MASTER", SERVICE) for sentinel in self.sentinels]
            known = [dict(zip(reply[::2], reply[1::2], strict=True)) for reply in replies]
            return self._are_linked() and all(
                (each["flags"], int(each["num-slaves"]), int(each["num-other-sentinels"]))
                == ("master", len(self.servers) - 1, SENTINELS - 1)
                for each in known
            )
        except redis.exceptions.RedisError:
            return False

    def _are_linked(self) -> bool:
        return int(do(self.master, "INFO", "replication")["connected_slaves"]) == len(self.servers) - 1

    def close(self) -> None:
        for process in (*self.servers, *self.sentinels):
            process.send(signal.SIGKILL)
        for process in (*self.servers, *self.sentinels):
            process.stop(signal.SIGKILL)

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

    def _ask(self, sentinel: SentinelProcess, *command: str) -> Any:
        with redis.Redis.from_url(sentinel.url, protocol=2, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*command)

    def told_by(self, sentinel: SentinelProcess) -> Server:
        """Return the server that a sentinel names."""
        _, port = self._ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    @property
    def master(self) -> Server:
        """The server that the first sentinel names that answers."""
        for sentinel in self.sentinels:
            try:
                return self.told_by(sentinel)
            except redis.exceptions.RedisError:
                continue
        raise AssertionError("no sentinel answers")

    def masters(self) -> list[RealRedis]:
        return [self.master] if self.master.is_up else []

    def of_lane(self, lane: int) -> RealRedis:
        return self.master

    def flush(self) -> None:
        do(self.master, "FLUSHALL")

    # Ways to break it.

    def kill(self, node: Process) -> None:
        node.stop(signal.SIGKILL)

    def stop(self, node: Process) -> None:
        node.send(signal.SIGSTOP)

    def cont(self, node: Process) -> None:
        node.send(signal.SIGCONT)

    def failover(self, lane: int = 0, *, planned: bool) -> RealRedis:
        """Promote a replica, and return it. Unless it is planned, the master is killed."""
        old = self.master
        if planned:
            wait_until(self._accepts_failover, "the sentinel fails over")
        else:
            self.kill(old)
        wait_until(lambda: all(self.told_by(each) is not old for each in self.sentinels), "all know the new master")
        new = self.master
        wait_until(lambda: do(new, "ROLE")[0] == b"master", "it is promoted")
        return new

    def _accepts_failover(self) -> bool:
        try:
            self._ask(self.sentinels[0], "SENTINEL", "FAILOVER", SERVICE)
        except redis.exceptions.ResponseError as error:  # INPROG, or NOGOODSLAVE
            if not str(error).startswith(("INPROG", "NOGOODSLAVE")):
                raise
            return False
        return True

    def await_replicas(self, least: int | None = None) -> None:
        """Wait until the other servers, or so many of them, follow the master and have what it has now.

        Sentinels turn an old master into a replica after some ten seconds.
        """
        others = [server for server in self.servers if server.is_up and server is not self.master]
        written = do(self.master, "INFO", "replication")["master_repl_offset"]

        def follows(server: Server) -> bool:
            reply = do(server, "INFO", "replication")
            return bool(reply.get("master_link_status") == "up" and reply["slave_repl_offset"] >= written)

        enough = len(others) if least is None else least
        wait_until(lambda: sum(map(follows, others)) >= enough, "the replicas follow")

    def cut_replication(self, node: RealRedis) -> None:
        """Have the replicas hear no more of a master, while clients and sentinels still do."""
        for server in self.servers:
            if server is not node and server.is_up:
                do(server, "CONFIG", "SET", "masteruser", "nobody", "masterauth", "wrong")
        do(node, "CLIENT", "KILL", "TYPE", "replica")

    def heal_replication(self) -> None:
        for server in self.servers:
            if server.is_up:
                do(server, "CONFIG", "SET", "masteruser", "", "masterauth", "")
