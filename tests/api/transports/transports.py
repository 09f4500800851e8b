"""The three transports behind one interface, with the same events."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import urlencode

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests import sse
from tests.api.raw import DEADLINE_S, Client, request

POLL_S = 5.0


@dataclass(frozen=True)
class Told:
    """An event with its envelope; or, last of all, `over` (nothing will follow), `away` or `rejected` with a reason."""

    event: str
    id: str = ""
    data: Any = None
    reason: str = ""

    @property
    def n(self) -> int:
        n: int = self.data["n"]
        return n


OVER = Told("over")
LAST = ("over", "away", "rejected")


class Transport(Protocol):
    """A transport."""

    streams: bool
    """Whether it is pushed to: then it has a pace, and an age."""

    def __init__(self, url: str) -> None: ...

    def listen(self, operation: str, after: str | None = None, **query: object) -> AsyncGenerator[Told]:
        """Yield events up to one of `LAST`. It reads only when the next event is requested."""


class Sse:
    """Server-sent events over a raw socket."""

    streams = True

    def __init__(self, url: str) -> None:
        self.url = url

    async def listen(self, operation: str, after: str | None = None, **query: object) -> AsyncGenerator[Told]:
        client = await Client.connect(self.url, receive_buffer=4096)
        try:
            lines = ["Connection: close"] + ([] if after is None else [f"Last-Event-ID: {after}"])
            client.send(request(f"/v1/operations/{operation}/stream?{urlencode(query)}", *lines))
            status, headers = await client.head()
            if status == 204:
                yield OVER
                return
            if status != 200:
                body = await client.reader.readexactly(int(headers["content-length"]))
                yield Told("rejected", reason=orjson.loads(body)["type"])
                return
            ended = False
            while chunk := await client.chunk():
                for message in sse.read(chunk):
                    if message.type == "reconnect":
                        assert message.id == ""
                        yield Told("away", reason=message.json["reason"])
                        return
                    ended = message.type == "end"
                    if message.type == "bookmark":
                        assert message.id
                        continue
                    yield Told(message.type, message.id, message.json)
            assert ended, "the body ended without an end"
            yield OVER
        finally:
            client.writer.transport.abort()


# The library stops reading, even a close, while its queue is full. Leaving with a full queue would wait
# for that until the time-out, which is 10 s.
_OPTIONS: dict[str, Any] = {"max_queue": 4, "close_timeout": 0.1, "proxy": None}


class WebSocket:
    """A WebSocket that follows one operation."""

    streams = True

    def __init__(self, url: str) -> None:
        self.url = url.replace("http", "ws", 1)

    async def listen(self, operation: str, after: str | None = None, **query: object) -> AsyncGenerator[Told]:
        asked = query | ({} if after is None else {"last_event_id": after})
        url = f"{self.url}/v1/operations/{operation}/ws?{urlencode(asked)}"
        async with connect(url, **_OPTIONS) as socket:
            async for told in _told(socket):
                yield told


class SharedWebSocket:
    """A WebSocket that follows several operations, including this one."""

    streams = True

    def __init__(self, url: str) -> None:
        self.url = url.replace("http", "ws", 1)

    async def listen(self, operation: str, after: str | None = None, **query: object) -> AsyncGenerator[Told]:
        asked = {"type": "subscribe", "operation": operation} | query
        if after is not None:
            asked["last_event_id"] = after
        if "types" in asked:
            asked["types"] = str(asked["types"]).split(",")
        async with connect(f"{self.url}/v1/ws", **_OPTIONS) as socket:
            with suppress(ConnectionClosed):  # it may already have been asked to reconnect
                await socket.send(orjson.dumps(asked).decode())
            async for told in _told(socket, shared=True):
                yield told


_REASONS = {4004: "not-found", 4010: "gone", 4022: "invalid"}


async def _told(socket: Any, *, shared: bool = False) -> AsyncGenerator[Told]:
    problem = away = over = None
    while True:
        try:
            async with asyncio.timeout(DEADLINE_S):
                message = orjson.loads(await socket.recv())
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
            if away is not None:
                assert code == (1012 if away == "draining" else 1013)
                yield Told("away", reason=away)
            elif code == 1000:
                assert over == "ended"
                yield OVER
            else:
                assert _REASONS[code or 0] == (problem or over)
                yield Told("rejected", reason=_REASONS[code or 0])
            return
        if message["event"] == "bookmark":
            assert message["id"]
        elif "data" in message:
            yield Told(message["event"], message.get("id", ""), message["data"])
        elif message["event"] == "reconnect":
            away = message["reason"]
            assert message["retry_ms"] > 0
        elif message["event"] == "problem":
            problem = message["type"]
        elif message["event"] == "unsubscribed":
            over = message["reason"]
        if shared and (problem or over):  # it stays open for other operations
            yield OVER if over == "ended" else Told("rejected", reason=problem or over or "")
            return


class LongPoll:
    """Polling: first the operation, then its events as JSON, one per request, because a page has only one position."""

    streams = False

    def __init__(self, url: str) -> None:
        self.url = url

    async def listen(self, operation: str, after: str | None = None, **query: object) -> AsyncGenerator[Told]:
        until = time.monotonic() + float(str(query.pop("wait_s", 0)))
        path = f"/v1/operations/{operation}"
        position: str | None = after
        async with httpx.AsyncClient(base_url=self.url, timeout=POLL_S + DEADLINE_S) as http:
            if after is None and query.pop("from", None) is None:
                answer = await http.get(path)
                while answer.status_code == 404 and time.monotonic() < until:
                    await asyncio.sleep(0.01)
                    answer = await http.get(path)
                if answer.status_code != 200:
                    yield Told("rejected", reason=answer.json()["type"])
                    return
                shown = answer.json()
                position = shown["position"]
                yield _snapshot(shown, None)
            while True:
                at = {} if position is None else {"after": position}
                asked: dict[str, Any] = {"limit": 1, "wait": POLL_S} | at | query
                answer = await http.get(f"{path}/events", params=asked)
                page = answer.json()
                if answer.status_code != 200:
                    passing = answer.status_code == 503 and "retry-after" in answer.headers
                    yield Told("away" if passing else "rejected", reason=page["type"])
                    return
                for event in page["events"]:
                    yield Told(event["type"], page["position"], event)
                if page["reset"]:
                    yield replace(_snapshot(page["snapshot"], page["reset"]), id=page["position"])
                if page["done"]:
                    yield OVER
                    return
                position = page["position"]


def _snapshot(operation: dict[str, Any], reset: str | None) -> Told:
    data = {"operation": operation["id"], "n": operation["events"], "type": "snapshot", "data": operation}
    return Told(
        "snapshot", "" if operation["done"] else operation["position"], data | ({"reset": reset} if reset else {})
    )


TRANSPORTS: dict[str, type[Transport]] = {
    "sse": Sse,
    "websocket": WebSocket,
    "shared websocket": SharedWebSocket,
    "long poll": LongPoll,
}


async def whole(transport: Transport, operation: str = "a", after: str | None = None, **query: object) -> list[Told]:
    """Return all events until the end."""
    async with aclosing(transport.listen(operation, after, **query)) as listening:
        return [told async for told in listening]
