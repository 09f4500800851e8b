"""Connections that end when their server is no longer the master.

After a failover, a proxy or a service may direct its address to another server, but existing connections stay open. The
demoted master still answers them: READONLY to writes, and old data to reads. So the clients of one Redis share a
`ConnectionGeneration`. The first connection that detects the demotion ends the generation, and each connection
reconnects before it sends again.

A new connection first asks the server for its kind (`broker/progress_broker/routing/server_kind.py`). While it is used,
it asks again whether that is the master: a replica that is configured to accept writes rejects none, and reports its
demotion only to calls that are blocked at that moment.
"""

import time
from collections.abc import Callable
from math import inf
from typing import Any

import redis
import redis.asyncio as aioredis
import redis.connection
import redis.exceptions

from progress_broker.routing.address import Kind, RedisAddress
from progress_broker.routing.server_errors import text_of
from progress_broker.routing.server_kind import Inquiry, inquire, is_replica
from progress_broker.runtime.steps import run_steps, run_steps_async

MIN_INTERVAL_S = 0.5
"""The minimum time between the ends of two generations: a master that rejects writes for a longer time must not get
endless new connections."""

ASK_EVERY_S = 1.0
"""How often a connection that is used asks for its server's role, in the same write as what it sends: this costs no
round trip. It is less than a blocking read lasts, so that each of these asks."""

LEFT = "the connected server is no longer the master"

_DEMOTED = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.AuthenticationError,
)
_ANOTHER = (
    *_DEMOTED,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,  # and MovedError
    redis.exceptions.BusyLoadingError,
)
"""Also what says that an address leads to another server than before. In a Cluster this is no news."""
_DEMOTED_CODES = ("READONLY", "MASTERDOWN", "UNBLOCKED", "NOAUTH")


class ConnectionGeneration:
    """The connections that were made while one server was known as the master.

    `heard` is called with each error that a connection reads, and `remade` when a lost connection is made again.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        kind: Kind = "single",
        heard: Callable[[Exception], None] | None = None,
    ) -> None:
        self.number = 0
        self.kind = kind
        self._ends = _DEMOTED if kind == "cluster" else _ANOTHER
        self._heard = heard
        self.remade: Callable[[], object] = lambda: None
        self.clock = clock
        self._not_before = float("-inf")

    def check_reply(self, error: redis.exceptions.RedisError, number: int | None) -> None:
        """End this generation if an error of one of its connections says that the server is not the master."""
        if self._heard is not None:
            self._heard(error)
        if isinstance(error, self._ends) or text_of(error).startswith(_DEMOTED_CODES):
            self.invalidate(number)

    def invalidate(self, number: int | None) -> None:
        """End a generation, unless it has already ended, or the one before it ended less than `MIN_INTERVAL_S` ago."""
        if number == self.number and self.clock() >= self._not_before:
            self.end()

    def end(self) -> None:
        """End this generation now: another server is the master."""
        self.number += 1
        self._not_before = self.clock() + MIN_INTERVAL_S


class _FailoverAware:
    """The common part of asyncio and synchronous connections.

    A `strict` connection fails when its generation has ended. Other connections reconnect and continue, because they do
    not depend on earlier replies.
    """

    def __init__(self, *, generation: ConnectionGeneration, shown: str, strict: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._generation, self._shown, self._strict = generation, shown, strict
        self._made_in: int | None = None
        """The generation it belongs to; None while it connects."""
        self._question: tuple[str, ...] = ()
        self._ask_at = 0.0
        self._asked = False  # and the answer was not read yet

    def _inquiry(self) -> Inquiry:
        return inquire(self._shown, self._generation.kind)

    def _begun(self, number: int, question: tuple[str, ...]) -> None:
        if self._question:
            self._generation.remade()
        self._made_in, self._question = number, question
        # A node of a Cluster names the master to each call of a key that it does not serve itself.
        self._ask_at = inf if self._generation.kind == "cluster" else self._generation.clock() + ASK_EVERY_S

    @property
    def outdated(self) -> bool:
        """Whether its server may no longer be the master."""
        return self._made_in is not None and self._made_in != self._generation.number

    def _reconnect(self) -> None:
        self._made_in = None
        if self._strict:
            raise redis.exceptions.ConnectionError(LEFT)

    def _with_question(self, command: Any) -> Any:
        """Return an encoded command, after a question for the server's role if one is due."""
        connection: Any = self
        now = self._generation.clock()
        if self._made_in is None or now < self._ask_at or not connection.is_connected:
            return command
        self._ask_at, self._asked = now + ASK_EVERY_S, True
        return [*connection.pack_command(*self._question), *([command] if isinstance(command, bytes) else command)]

    def _answered(self, reply: Any) -> bool:
        """Take the answer. Return whether the server is still the master; otherwise the generation has ended."""
        if not is_replica(reply):
            return True
        self._generation.invalidate(self._made_in)
        return False


class _FailoverAwareAsync(_FailoverAware):
    async def on_connect(self) -> None:
        """Do the library's handshake, then check the server's kind."""
        self._made_in, self._asked, number = None, False, self._generation.number
        try:
            await super().on_connect()  # type: ignore[misc]
        except redis.exceptions.ResponseError:  # for example from a Cluster, which has no databases
            await self._inquire()
            raise
        self._begun(number, await self._inquire())

    async def _inquire(self) -> tuple[str, ...]:
        return await run_steps_async(self._inquiry(), self._ask, redis.exceptions.ResponseError)

    async def _ask(self, command: tuple[str, ...]) -> Any:
        connection: Any = self
        await connection.send_command(*command, check_health=False)
        return await connection.read_response()

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a command. Reconnect first if the server may no longer be the master."""
        if self.outdated:
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            self._reconnect()
        await super().send_packed_command(self._with_question(command), check_health)  # type: ignore[misc]

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply, and check whether it, or the answer before it, says that the server is not the master."""
        try:
            if self._asked:
                await self._read_answer()
            return await super().read_response(*args, **options)  # type: ignore[misc]
        except redis.exceptions.RedisError as error:
            self._generation.check_reply(error, self._made_in)
            raise

    async def _read_answer(self) -> None:
        self._asked = False
        try:
            reply = await super().read_response()  # type: ignore[misc]
        except redis.exceptions.ResponseError as error:
            reply = error
        if not self._answered(reply):
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]  # the command's reply is still to come
            raise redis.exceptions.ConnectionError(LEFT)


class _FailoverAwareSync(_FailoverAware):
    def on_connect(self) -> None:
        """Do the library's handshake, then check the server's kind."""
        self._made_in, self._asked, number = None, False, self._generation.number
        try:
            super().on_connect()  # type: ignore[misc]
        except redis.exceptions.ResponseError:
            self._inquire()
            raise
        self._begun(number, self._inquire())

    def _inquire(self) -> tuple[str, ...]:
        return run_steps(self._inquiry(), self._ask, redis.exceptions.ResponseError)

    def _ask(self, command: tuple[str, ...]) -> Any:
        connection: Any = self
        connection.send_command(*command, check_health=False)
        return connection.read_response()

    def _reply(self) -> Any:
        try:
            return self.read_response()
        except redis.exceptions.ResponseError as error:
            return error

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Send a command. Reconnect first if the server may no longer be the master."""
        if self.outdated:
            self.disconnect()  # type: ignore[attr-defined]
            self._reconnect()
        super().send_packed_command(self._with_question(command), check_health)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply, and check whether it, or the answer before it, says that the server is not the master."""
        try:
            if self._asked:
                self._asked = False
                if not self._answered(self._reply()):
                    self.disconnect()  # type: ignore[attr-defined]  # the command's reply is still to come
                    raise redis.exceptions.ConnectionError(LEFT)
            return super().read_response(*args, **options)  # type: ignore[misc]
        except redis.exceptions.RedisError as error:
            self._generation.check_reply(error, self._made_in)
            raise


async def _begin_async(connection: Any) -> None:
    await connection.on_connect()


def _begin_sync(connection: Any) -> None:
    connection.on_connect()


def _failover_aware(shell: type[Any], base: type[Any]) -> type[Any]:
    return type(f"Kept{base.__name__}", (shell, base), {})


_CLASSES = {
    base: _failover_aware(shell, base)
    for shell, bases in (
        (_FailoverAwareAsync, (aioredis.Connection, aioredis.SSLConnection, aioredis.UnixDomainSocketConnection)),
        (_FailoverAwareSync, (redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection)),
    )
    for base in bases
}


def pool_options(
    address: RedisAddress, base: type[Any], generation: ConnectionGeneration, *, strict: bool = False
) -> dict[str, Any]:
    """Return the options of a pool whose connections end when their server is demoted.

    `base` is the library's class for plain TCP.
    """
    asynchronous = base is aioredis.Connection
    parse: Any = aioredis.connection.parse_url if asynchronous else redis.connection.parse_url
    options = dict(parse(address.url_of(address.seeds[0])))
    options["connection_class"] = _CLASSES[options.get("connection_class", base)]
    options["redis_connect_func"] = _begin_async if asynchronous else _begin_sync
    return options | {"generation": generation, "shown": address.shown, "strict": strict}
