"""Connections that ask sentinels for the master each time they connect."""

import asyncio
from typing import Any

import redis
import redis.asyncio as aioredis
import redis.connection
import redis.exceptions

from progress_broker.nodes.generations import LEFT
from progress_broker.nodes.sentinels.known import Answer
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.sentinels import ASK_S
from progress_broker.routing.server_kind import NotMaster


class _ToMaster:
    """The common part of asyncio and synchronous connections. Mixed into a connection of a generation."""

    def __init__(self, *, master: Any, **options: Any) -> None:
        super().__init__(**options)
        self._master = master
        self._answer: Answer | None = None
        self._aim: Answer | None = None
        self._made_in: int | None = None

    def aim(self, answer: Answer) -> None:
        """Connect to this server, whatever sentinels say when they are asked."""
        self._aim = answer

    def _lead_to(self, answer: Answer) -> None:
        self._answer = answer
        self.host, self.port = answer.endpoint.host, answer.endpoint.port

    def _failed(self) -> None:
        if self._answer is not None:
            self._master.known.failed(self._answer.endpoint)

    def _confirm(self) -> None:
        if self._answer is not None:
            self._made_in = self._master.known.confirm(self._answer, self)

    def _late(self) -> NotMaster:
        error: NotMaster = self._master.known.late(self._answer.endpoint if self._answer else None)
        return error


class _ToMasterAsync(_ToMaster):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._reading: asyncio.Timeout | None = None

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect to the server that the sentinels name, unless it is connected."""
        if self.is_connected:  # type: ignore[attr-defined]
            return
        self._lead_to(self._aim or await self._master.find())
        try:
            await super().connect_check_health(*args, **options)  # type: ignore[misc]
        except (redis.exceptions.RedisError, OSError):
            self._failed()
            raise

    async def on_connect(self) -> None:
        """Do the handshake. A server that is no master is not used, whatever sentinels say."""
        try:
            await super().on_connect()  # type: ignore[misc]
        except NotMaster:
            raise self._late() from None
        self._confirm()

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply, unless the master changes meanwhile."""
        try:
            async with asyncio.timeout(None) as self._reading:
                return await super().read_response(*args, **options)  # type: ignore[misc]
        except TimeoutError:
            raise redis.exceptions.ConnectionError(LEFT) from None
        finally:
            self._reading = None

    def cut(self) -> None:
        """End a wait for a reply."""
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(0)


class _ToMasterSync(_ToMaster):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._reading = False

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        """Connect to the server that the sentinels name, unless it is connected."""
        if self.is_connected:  # type: ignore[attr-defined]
            return
        self._lead_to(self._aim or self._master.find())
        try:
            super().connect_check_health(*args, **options)  # type: ignore[misc]
        except (redis.exceptions.RedisError, OSError):
            self._failed()
            raise

    def on_connect(self) -> None:
        """Do the handshake. A server that is no master is not used, whatever sentinels say."""
        try:
            super().on_connect()  # type: ignore[misc]
        except NotMaster:
            raise self._late() from None
        self._confirm()

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Read a reply, unless the master changes meanwhile."""
        self._reading = True
        try:
            return super().read_response(*args, **options)  # type: ignore[misc]
        finally:
            self._reading = False

    def cut(self) -> None:
        """End a wait for a reply, in another thread: the library lets it fail with a `ConnectionError`."""
        if self._reading:
            self.disconnect()  # type: ignore[attr-defined]


def sentinel_connection(address: RedisAddress, sentinel: Endpoint, *, asynchronous: bool) -> Any:
    """Return a connection to a sentinel, which is still to be connected."""
    parse: Any = aioredis.connection.parse_url if asynchronous else redis.connection.parse_url
    options = {
        "protocol": 2,
        "decode_responses": False,
        "socket_timeout": ASK_S,
        "socket_connect_timeout": ASK_S,
        "health_check_interval": 0,
        "driver_info": None,  # no name and no version either: a user of sentinels may lack the permission to tell them
        **parse(address.url_of_sentinel(sentinel)),
    }
    plain: type[Any] = aioredis.Connection if asynchronous else redis.Connection
    return options.pop("connection_class", plain)(**options)


def to_master(options: dict[str, Any], master: Any, *, asynchronous: bool) -> dict[str, Any]:
    """Return the options of a pool, changed so that its connections lead to the master of a Sentinel set."""
    shell: type[Any] = _ToMasterAsync if asynchronous else _ToMasterSync
    base = options["connection_class"]
    return options | {"connection_class": type(f"Led{base.__name__}", (shell, base), {}), "master": master}
