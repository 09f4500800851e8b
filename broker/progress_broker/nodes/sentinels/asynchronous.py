"""Asks sentinels for their master, and listens to them, with asyncio."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import redis.exceptions

from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.sentinels.connections import sentinel_connection, to_master
from progress_broker.nodes.sentinels.known import RETRY_S, Answer, KnownMaster, Step, Try
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.sentinels import ASK_S, Read, question
from progress_broker.routing.server_errors import FAILURES
from progress_broker.runtime.steps import run_steps_async


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
        return await run_steps_async(self.known.inquiry(), self._ask, FAILURES)

    async def _ask(self, sentinel: Endpoint) -> Any:
        connection = sentinel_connection(self.known.address, sentinel, asynchronous=True)
        try:
            async with asyncio.timeout(ASK_S):
                await connection.connect()
                await connection.send_command(*question(self.known.address.service))
                return await connection.read_response()
        finally:
            await connection.disconnect(nowait=True)

    async def _listen(self, sentinel: Endpoint) -> None:
        while True:
            with suppress(*FAILURES):
                connection = sentinel_connection(self.known.address, sentinel, asynchronous=True)
                try:
                    await connection.connect()
                    await run_steps_async(self.known.following(sentinel), partial(self._do, connection))
                finally:
                    await connection.disconnect(nowait=True)
            await asyncio.sleep(RETRY_S)

    async def _do(self, connection: Any, step: Step) -> Any:
        match step:
            case Read(patience_s):
                return await _read(connection, patience_s)
            case Try():
                return await self._try(step)
            case commands:
                return await connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    async def _try(self, server: Try) -> Exception | None:
        if self.make_connection is None:
            return redis.exceptions.ConnectionError("there are no connections yet")
        await asyncio.sleep(server.after_s)
        connection = self.make_connection()
        connection.aim(server.answer)
        try:
            await connection.connect()
        except FAILURES as error:
            return error
        finally:
            await connection.disconnect(nowait=True)
        return None


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
