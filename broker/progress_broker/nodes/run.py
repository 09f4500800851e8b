"""Runs scripts in Redis: one, or many in one round trip."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import hiredis
import redis.exceptions
from redis.asyncio import BlockingConnectionPool

from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.nodes.replicas import ROLE, Replicas, Wait

_WAITS = 8  # how many calls wait for replicas at a time


async def run(client: Any, call: Call) -> Any:
    """Run a script. Load it first if the server does not have it: a restart or a failover clears its script cache."""
    with storage_errors():
        try:
            return await client.execute_command(*call.command())
        except redis.exceptions.NoScriptError:
            await client.script_load(call.script.text)
            return await client.execute_command(*call.command())


async def run_each(client: Any, calls: Sequence[Call]) -> list[Any]:
    """Run independent scripts and return their replies, or the errors of Redis with which single ones failed.

    Scripts that the server does not have are loaded first.
    """
    with storage_errors():
        replies = await _send(client, calls)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unknown:
            for script in {calls[at].script for at in unknown}:
                await client.script_load(script.text)
            for at, reply in zip(unknown, await _send(client, [calls[at] for at in unknown]), strict=True):
                replies[at] = reply
    return replies


async def exchange(connection: Any, commands: bytes, replies: int) -> list[Any]:
    """Send encoded commands over a connection, and return their replies; one that is an error is returned as the error.

    Raises the library's `ConnectionError`, and its `TimeoutError` when nothing comes for the connection's
    `socket_timeout`, also while it connects. It is closed then, and also when the caller stops waiting.
    """
    found: list[Any] = []
    # One timeout for all of it: the library's own, one for each send and each reply, cost as much as the rest. That of
    # a send makes a task under Python 3.11.
    timeout_s, connection.socket_timeout = connection.socket_timeout, None
    try:
        async with asyncio.timeout(timeout_s) as timeout:
            await connection.send_packed_command(commands, check_health=False)
            while len(found) < replies:
                if found and timeout_s is not None:
                    timeout.reschedule(asyncio.get_running_loop().time() + timeout_s)
                try:
                    found.append(await connection.read_response())
                except redis.exceptions.ResponseError as error:
                    found.append(error)
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise redis.exceptions.TimeoutError(f"Redis did not answer within {timeout_s:g} s") from None
    finally:
        connection.socket_timeout = timeout_s
    return found


async def _send(client: Any, calls: Sequence[Call]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call.command())
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies


class Scripts:
    """Runs scripts at once, over connections of a client's pool."""

    replicas: Replicas | None = None

    def __init__(self, client: Any, replicas: Replicas | None = None) -> None:
        self._client, self.replicas = client, replicas
        self._waits = asyncio.Semaphore(_WAITS)

    async def run(self, call: Call) -> Any:
        """Run a script, and return its reply."""
        return await run(self._client, call)

    async def waits(self, call: Call) -> bool:
        """Return whether the server that a call goes to has replicas, for which `durable` waits."""
        replicas, now = self.replicas, time.monotonic()
        if replicas is None:
            return False
        if replicas.ask(now):
            with storage_errors():
                try:
                    replicas.learn(await self._client.execute_command(ROLE), now)
                except redis.exceptions.ResponseError as error:  # not permitted, or unknown
                    replicas.learn(error, now)
        return replicas.wait(1, now) is not None

    async def durable(self, call: Call, most_ms: int) -> tuple[Any, bool | None]:
        """Run a script, and wait until replicas have what it wrote, over a connection that no other call waits for.

        Also return whether they have it; None: there are none.
        """
        if not await self.waits(call):
            return await self.run(call), None
        with storage_errors():
            reply, confirmed = await self.durable_reply(call, most_ms)
            if isinstance(reply, Exception):
                raise reply
        return reply, confirmed

    async def durable_reply(self, call: Call, most_ms: int) -> tuple[Any, bool | None]:
        """Run a script as `durable` does, for a server that has replicas. Return an error of Redis as its reply."""
        replicas = self.replicas
        assert replicas is not None  # noqa: S101 - `waits` said so
        async with self._waits:  # else calls that wait might take all connections
            now = time.monotonic()
            wait = replicas.wait(most_ms, now)
            reply, confirmed = await self._waiting(call, wait)
            if isinstance(reply, redis.exceptions.NoScriptError):
                await self._client.script_load(call.script.text)
                reply, confirmed = await self._waiting(call, wait)
        return reply, None if wait is None else replicas.confirmed(confirmed, now)

    async def _waiting(self, call: Call, wait: Wait | None) -> tuple[Any, Any]:
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command(*call.command())
            if wait is not None:
                pipeline.execute_command(*wait)
            reply, *confirmed = await pipeline.execute(raise_on_error=False)
        return reply, confirmed[0] if confirmed else None

    async def run_all(self, calls: Sequence[Call]) -> list[Any]:
        """Run independent scripts and return their replies. Raise the first error of Redis itself."""
        replies = await run_each(self._client, calls)
        with storage_errors():
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


class ScriptQueue:
    """Runs what many callers ask for at the same time in one round trip, over one connection of its own.

    A client takes a connection from its pool and encodes in Python for each call, which costs more than the rest of a
    publish. While a round trip is under way, calls wait for the next one; so the busier it is, the more share one.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._connection: Any = None
        self._waiting: list[tuple[Sequence[Call], asyncio.Future[list[Any]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, call: Call) -> Any:
        """Run a script; return its reply. Raises as `run` does."""
        (reply,) = await self.run_each([call])
        if isinstance(reply, Exception):
            with storage_errors():
                raise reply
        return reply

    async def run_each(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts; return their replies, or the errors of Redis with which single ones failed."""
        with storage_errors():
            return await self.replies(calls)

    async def replies(self, calls: Sequence[Call]) -> list[Any]:
        """Run scripts as `run_each` does. Errors of the network are raised as the library's."""
        if not isinstance(self._client.connection_pool, BlockingConnectionPool):  # a double in a test
            return await run_each(self._client, calls)
        if not calls:
            return []
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((calls, replies))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await replies

    async def close(self) -> None:
        """Answer what was asked for, and close the connection."""
        if self._task is not None:
            await self._task
        if self._connection is not None:
            await self._client.connection_pool.release(self._connection)
            self._connection = None

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failed: Exception | None = None
                replies: Iterator[Any] = iter(())
                try:
                    replies = iter(await self._send([call for calls, _ in batch for call in calls]))
                except Exception as error:
                    failed = error
                for calls, future in batch:
                    own = list(islice(replies, len(calls)))
                    if future.done():  # its caller has left
                        continue
                    if failed is not None:
                        future.set_exception(failed)
                    else:
                        future.set_result(own)
        finally:
            self._task = None

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        began, metrics = time.perf_counter(), self._client.trips
        name = metrics.verbs[calls[0].script.sha] if len(calls) == 1 else "pipeline"
        try:
            replies = await self._exchange([call.command() for call in calls])
            unknown = [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
            if unknown:
                texts = {calls[at].script.text for at in unknown}
                await self._exchange([("SCRIPT", "LOAD", text) for text in texts])
                again = await self._exchange([calls[at].command() for at in unknown])
                for at, reply in zip(unknown, again, strict=True):
                    replies[at] = reply
        except BaseException:
            metrics.failed[name] += 1
            raise
        metrics.record(name, began)
        return replies

    async def _exchange(self, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[Any]:
        packed = [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]
        return await exchange(await self._connected(), b"".join(packed), len(packed))

    async def _connected(self) -> Any:
        if self._connection is None:
            self._connection = await self._client.connection_pool.get_connection()
        elif self._connection.is_connected:
            try:  # the other side may have closed it meanwhile, and then nothing was sent yet
                closed = await self._connection.can_read()
            except (redis.exceptions.RedisError, OSError):
                closed = True
            if closed:
                await self._connection.disconnect(nowait=True)
        return self._connection
