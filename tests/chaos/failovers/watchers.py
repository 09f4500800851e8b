"""Watchers of some operations, of each kind that there is, in a process of their own. They print an empty line
when all have begun, and in the end what they were told.

It takes the server's address, that of Redis, and the names of operations, and ends when all of these have ended, or by
SIGTERM.
"""

import asyncio
import json
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
import orjson
import websockets

from progress_broker.errors import BrokerError, NotFound
from progress_client import AsyncClient
from progress_client.over_http.event_stream import EventStreamReader, Message
from tests.chaos.failovers.told import Line, Told
from tests.conftest import read_settings

SILENCE_S = 30.0
"""A stream that is silent so long is cut off: servers send pings more often."""
PATIENCE_S = 0.3


class Watching:
    """All watchers of a process."""

    def __init__(self, url: str, redis_url: str, names: Sequence[str]) -> None:
        self.url, self.redis_url, self.names = url, redis_url, names
        self.told: list[Told] = []
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.AsyncClient(base_url=url, timeout=SILENCE_S, limits=limits)

    async def run(self) -> None:
        client = AsyncClient(settings=read_settings(redis_url=self.redis_url), patience_s=None)
        work: list[Awaitable[None]] = [self._retried(self._websocket()), self._retried(self._stream_of_many())]
        for name in self.names:
            work += [self._retried(self._sse(name)), self._retried(self._long_poll(name)), self._client(client, name)]
        await asyncio.gather(self._say_begun(), *work)
        await client.close()
        await self.http.aclose()

    async def _say_begun(self) -> None:
        while not all(told.has_begun for told in self.told):  # noqa: ASYNC110 - many set it
            await asyncio.sleep(0.05)
        print(flush=True)

    def _told(self, kind: str, name: str) -> Told:
        told = Told(kind, name)
        self.told.append(told)
        return told

    async def _retried(self, once: Callable[[], Awaitable[bool]]) -> None:
        """Connect again and again until there is nothing more to come."""
        while True:
            try:
                if await once():
                    return
            except (httpx.TransportError, OSError, websockets.WebSocketException, TimeoutError):
                pass
            await asyncio.sleep(random.uniform(0, PATIENCE_S))

    def _sse(self, name: str) -> Callable[[], Awaitable[bool]]:
        told, position = self._told("sse", name), ""

        async def once() -> bool:
            nonlocal position
            headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
            headers |= {"Last-Event-ID": position} if position else {}
            query = {"from": "start", "wait_s": "30"}
            async with self.http.stream(
                "GET", f"/v1/operations/{name}/stream", params=query, headers=headers
            ) as answer:
                if answer.status_code == 204:
                    return True
                reader = EventStreamReader()
                async for chunk in answer.aiter_raw():
                    for message in reader.feed(chunk):
                        position = message.id or position
                        if _is_event(message):
                            told.take(orjson.loads(message.data))
            return told.ended

        return once

    def _stream_of_many(self) -> Callable[[], Awaitable[bool]]:
        told, cursor = {name: self._told("stream of many", name) for name in self.names}, ""

        async def once() -> bool:
            nonlocal cursor
            headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
            headers |= {"Last-Event-ID": cursor} if cursor else {}
            query = [*(("operation", name) for name in self.names), ("wait_s", "30")]
            async with self.http.stream("GET", "/v1/stream", params=query, headers=headers) as answer:
                if answer.status_code == 204:
                    return True
                reader = EventStreamReader()
                async for chunk in answer.aiter_raw():
                    for message in reader.feed(chunk):
                        cursor = message.id or cursor
                        if _is_event(message):
                            _take_of_many(told, message.type, orjson.loads(message.data))
            return all(each.ended for each in told.values())

        return once

    def _websocket(self) -> Callable[[], Awaitable[bool]]:
        told = {name: self._told("websocket", name) for name in self.names}
        positions: dict[str, str] = {}
        over: set[str] = set()

        async def once() -> bool:
            async with websockets.connect(self.url.replace("http", "ws", 1) + "/v1/ws", max_size=None) as socket:
                for name in self.names:
                    if name not in over:
                        where = {"last_event_id": positions[name]} if name in positions else {"from": "start"}
                        await socket.send(
                            orjson.dumps({"type": "subscribe", "operation": name, "wait_s": 30} | where).decode()
                        )
                async for text in socket:
                    said = orjson.loads(text)
                    if "data" in said:
                        name = said["data"]["operation"]
                        positions[name] = said.get("id") or positions.get(name, "")
                        told[name].take(said["data"])
                    elif said["event"] == "unsubscribed" and said["reason"] == "ended":
                        over.add(said["operation"])
                        if len(over) == len(told):
                            return True
                    elif said["event"] in ("problem", "unsubscribed"):
                        return False  # a lane is away: come back
            return False

        return once

    def _long_poll(self, name: str) -> Callable[[], Awaitable[bool]]:
        told, position = self._told("long poll", name), "0-0"

        async def once() -> bool:
            nonlocal position
            query = {"after": position, "wait": "20", "limit": "1000"}
            answer = await self.http.get(f"/v1/operations/{name}/events", params=query)
            while answer.status_code == 200:
                page = answer.json()
                if page.get("reset"):
                    if page["position"] == page["snapshot"]["position"]:  # nothing older is told
                        n = page["snapshot"]["events"]
                        left = [line for line in told.lines if line.n <= n]
                    else:
                        left = [line for line in told.lines if _is_left(line, page)]
                        n = left[-1].n if left else 0
                    told.reset(n, page["reset"], left)
                for event in page["events"]:
                    told.take({"operation": name} | event)
                position = page["position"]
                if told.ended:
                    return True
                answer = await self.http.get(
                    f"/v1/operations/{name}/events", params={"after": position, "wait": "20", "limit": "1000"}
                )
            return False

        return once

    async def _client(self, client: AsyncClient, name: str) -> None:
        told = self._told("client over redis", name)
        while not told.ended:
            try:
                async with aclosing(client.watch(name, after="start")) as events:
                    async for event in events:
                        told.take(orjson.loads(event.json))
            except NotFound:  # not created yet, or lost with all its events
                told.forget()
                await asyncio.sleep(PATIENCE_S)
            except BrokerError as error:
                told.faults.append(f"gave up: {error}")
                return


def _is_left(line: Line, page: Any) -> bool:
    """Return whether an event is at or before the last one that is left, after which a page begins."""
    first = page["events"][0]["n"] if page["events"] else float("inf")
    return line.n < first and line.at_ms <= int(page["position"].partition("-")[0])


def _take_of_many(told: dict[str, Told], type: str, said: Any) -> None:
    """Take a message of a stream of many. What is `missing`, and was not before, is lost with all its events."""
    if type == "missing":
        told[said["operation"]].forget()
    elif type != "operations" and "operation" in said:
        told[said["operation"]].take(said)


def _is_event(message: Message) -> bool:
    return message.type not in ("bookmark", "ping", "reconnect")


async def main(url: str, redis_url: str, names: Sequence[str]) -> list[dict[str, Any]]:
    watching = Watching(url, redis_url, names)
    run = asyncio.create_task(watching.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    with suppress(asyncio.CancelledError):
        await run
    return [told.as_json() for told in watching.told]


if __name__ == "__main__":
    json.dump(asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:])), sys.stdout)
