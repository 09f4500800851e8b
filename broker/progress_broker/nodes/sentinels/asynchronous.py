"""Asks sentinels for their master, and listens to them, with asyncio."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis.exceptions

from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.sentinels.connections import sentinel_connection, to_master
from progress_broker.nodes.sentinels.known import RETRY_S, Answer, KnownMaster
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.sentinels import ASK_S, TRIES_S, Named, Read, listen, question
from progress_broker.routing.server_kind import NotMaster


class AsyncMaster:
    """The master of a Sentinel set. It listens to every sentinel from the first connection on, until it is closed."""

    def __init__(self, address: RedisAddress, generation: ConnectionGeneration) -> None:
        self.known = KnownMaster(address, generation)
        self.make_connection: Callable[[], Any] | None = None
        """Makes a connection to the master, by which an announced one is tried."""
        self._asking: asyncio.Task[Answer] | None = None
        self._listening: list[asyncio.Task[None]] = []
        self._closed = False

    def led(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a pool, changed so that its connections lead to the master."""
        return to_master(options, self, asynchronous=True)

    async def find(self) -> Answer:
        """Return where the master is. All who ask at the same time share one inquiry.

        Raises `WrongKind` if the address can never be used, and `ConnectionError` if no sentinel answers.
        """
        if not self._listening and not self._closed:  # a caller that is late must leave no task behind
            self._listening = [asyncio.create_task(self._listen(seed)) for seed in self.known.address.seeds]
        kept = self.known.kept()
        if kept is not None:
            return kept
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._inquire())
            self._asking.add_done_callback(_retrieve)
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Listen no more."""
        self._closed = True
        tasks, self._listening = self._listening, []
        if self._asking is not None:
            tasks.append(self._asking)  # type: ignore[arg-type]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _inquire(self) -> Answer:
        inquiry = self.known.inquiry()
        reply: Any = None
        while True:
            try:
                sentinel = inquiry.send(reply)
            except StopIteration as over:
                answer: Answer = over.value
                return answer
            try:
                async with asyncio.timeout(ASK_S):
                    reply = await self._ask(sentinel)
            except (redis.exceptions.RedisError, OSError) as error:
                reply = error

    async def _ask(self, sentinel: Endpoint) -> Any:
        connection = sentinel_connection(self.known.address, sentinel, asynchronous=True)
        try:
            await connection.connect()
            await connection.send_command(*question(self.known.address.service))
            return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    async def _listen(self, sentinel: Endpoint) -> None:
        while True:
            with suppress(redis.exceptions.RedisError, OSError):
                connection = sentinel_connection(self.known.address, sentinel, asynchronous=True)
                try:
                    await connection.connect()
                    await self._hear(connection, sentinel)
                finally:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(RETRY_S)

    async def _hear(self, connection: Any, sentinel: Endpoint) -> None:
        listening = listen(self.known.address)
        step = next(listening)
        while True:
            reply = None
            match step:
                case Read(patience_s):
                    reply = await _read(connection, patience_s)
                case Named() as named:
                    await self._turn_to(named, sentinel)
                case commands:
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            step = listening.send(reply)

    async def _turn_to(self, named: Named, sentinel: Endpoint) -> None:
        """Connect to a new master. If it is one, all connections to the old one are left."""
        answer = self.known.to_try(named)
        if answer is None or self.make_connection is None:
            return
        for pause_s in TRIES_S:
            await asyncio.sleep(pause_s)
            connection = self.make_connection()
            connection.aim(answer)
            try:
                await connection.connect()
            except NotMaster:
                continue
            except (redis.exceptions.RedisError, OSError):  # whoever needs a connection asks
                return
            finally:
                await connection.disconnect(nowait=True)
            self.known.believe(sentinel, answer.endpoint)
            return


async def _read(connection: Any, patience_s: float) -> Any:
    try:
        return await connection.read_response(timeout=patience_s, disconnect_on_error=False)
    except redis.exceptions.TimeoutError:
        return None
    except redis.exceptions.ResponseError as error:
        return error


def _retrieve(asking: "asyncio.Task[Answer]") -> None:
    if not asking.cancelled():
        asking.exception()  # also where nobody waits for it any more
