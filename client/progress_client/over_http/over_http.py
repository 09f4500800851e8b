"""Reads and changes operations by requests to a server."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import count
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel

from progress_broker.errors import RETRYABLE, Conflict, ServerUnavailable, rejection
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation, NewSignal, Operation, PublishResult
from progress_broker.model.position import START, parse
from progress_broker.queries.fields import write_filters
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_client.backend import FROM_START, Bookmark, ComeBack, Start, warn_if_partial
from progress_client.events import Event, Reset, read_event
from progress_client.http.connection import Answer, AsyncConnection
from progress_client.http.problems import read_answer
from progress_client.over_http.event_stream import EventStreamReader, Message

SILENCE_S = 60.0
"""How long a stream may be silent until it counts as cut off. Servers send a ping every 15 s."""
COME_BACK_S = 1.0
"""When to come back to a server that did not say when."""
PUBLISHED_BYTES = 1024 * 1024
"""About how much one request publishes at most. Servers reject bodies of more than 4 MiB."""

OPERATIONS = "/v1/operations"
_STREAM = {"Accept": "text/event-stream, application/problem+json"}  # so that a rejection has its status


M = TypeVar("M", bound=BaseModel)


class OverHttp:
    """Sends requests to a server."""

    def __init__(self, settings: Settings) -> None:
        self._connection = AsyncConnection(settings)
        self._producer, self._seq = f"client-{secrets.token_hex(8)}", count(1)

    async def get(self, operation: str, *, list_children: bool = False) -> Operation:
        """Return an operation, on request with its first children."""
        query = [("include", "children")] if list_children else None
        return await self._operation("GET", _path(operation), query=query)

    async def find(self, filters: Filters, limit: int, cursor: str | None) -> tuple[list[Operation], str | None]:
        """Return a page of operations and the cursor of the next one."""
        query = [*write_filters(filters), ("limit", str(limit)), *([("cursor", cursor)] if cursor else [])]
        page = self._read(_Page, await self._ask("GET", OPERATIONS, query=query))
        warn_if_partial(page.lanes_away)
        return page.operations, page.next_cursor

    async def create(self, new: NewOperation) -> Operation:
        """Create an operation. If its creator gives it an id, the request may be sent twice."""
        body = new.model_dump_json(exclude_unset=True).encode()
        return await self._operation("POST", OPERATIONS, body=body, repeatable=new.id is not None)

    async def publish(self, operation: str, entries: Sequence[NewEvent]) -> PublishResult:
        """Append events. A large list is sent in parts."""
        for part in _parts([self._numbered(entry) for entry in entries]):
            answer = await self._ask("POST", _path(operation, "/events"), body=part)
        return self._read(PublishResult, answer)

    async def cancel(self, operation: str, *, reason: str | None, by: str | None, force: bool) -> Operation:
        """Ask an operation's worker to stop. A server that knows its caller ignores `by`."""
        body = orjson.dumps({"reason": reason, "by": by, "force": force})
        return await self._operation("POST", _path(operation, "/cancel"), body=body)

    async def signal(self, operation: str, signal: NewSignal, *, by: str | None) -> None:
        """Send a signal. The server says who sent it, if it knows its caller."""
        body = signal.model_dump_json().encode()
        await self._ask("POST", _path(operation, "/signals"), body=body, repeatable=False)

    async def now(self) -> datetime:
        """Return the time of the server's last answer."""
        return self._connection.server_time or datetime.now(UTC)

    async def follow(
        self, operation: str, start: Start, types: frozenset[str] | None
    ) -> AsyncGenerator[Event | Bookmark]:
        """Yield what follows the start."""
        begins, after = True, START
        async with aclosing(self._stream(operation, start.position, types)) as events:
            async for event in events:
                unknown = begins and not start.seen and isinstance(event, Reset)
                begins = False
                if unknown and isinstance(event, Reset) and _follows(event, start.position or START):
                    # It may be any time, and not the position of an event. All events after it follow, so none is lost.
                    after = start.position or START
                elif after == START or isinstance(event, Reset) or parse(event.position) > parse(after):
                    after = START
                    yield event

    async def _stream(
        self, operation: str, position: str | None, types: frozenset[str] | None
    ) -> AsyncGenerator[Event | Bookmark]:
        """Yield the events of one stream."""
        query = [] if types is None else [("types", ",".join(sorted(types)))]
        headers = dict(_STREAM)
        if position == FROM_START:
            query.append(("from", "start"))
        elif position is not None:
            headers["Last-Event-ID"] = position
        opened = self._connection.stream(_path(operation, "/stream"), query=query, headers=headers, silence_s=SILENCE_S)
        retry_ms: int | None = None
        async with opened as (head, chunks):
            if head.status == 204:  # the position is that of its end
                return
            if not head.headers.get("content-type", "").startswith("text/event-stream"):
                raise ServerUnavailable(
                    f"{self._connection.url} answered with something else than a stream: is PROGRESS_URL right, with"
                    " its path?"
                )
            async with aclosing(_messages(chunks)) as messages:
                async for message in messages:
                    retry_ms = message.retry_ms
                    if message.type == "bookmark":
                        yield Bookmark(message.id)
                    elif message.type == "reconnect":
                        raise _sent_away(message)
                    elif message.type == "replaced":
                        raise Conflict("a newer connection has taken the place of this one")
                    elif message.type != "ping":
                        yield read_event(message.data, message.id)
                        if message.type == "end":
                            return
        raise ComeBack("the stream ended", COME_BACK_S if retry_ms is None else retry_ms / 1000)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.aclose()

    async def _operation(self, method: str, path: str, **request: Any) -> Operation:
        return self._read(Operation, await self._ask(method, path, **request))

    def _read(self, model: type[M], answer: Answer) -> M:
        # pydantic's own reader of JSON takes fewer levels than servers
        return read_answer(self._connection.url, answer.body, model.model_validate)

    async def _ask(self, method: str, path: str, *, repeatable: bool = True, **request: Any) -> Answer:
        return await self._connection.request(method, path, repeatable=repeatable, **request)

    def _numbered(self, entry: NewEvent) -> bytes:
        """Return an event as it is sent: with a number, so that it is stored once if it is sent twice."""
        event: dict[str, Any] = {"type": entry.type, "data": orjson.Fragment(entry.data)}
        named = entry.seq is not None
        event |= {"producer": entry.producer if named else self._producer}
        return orjson.dumps(event | {"seq": entry.seq if named else next(self._seq)})


class _Page(BaseModel):
    operations: list[Operation]
    next_cursor: str | None
    lanes_away: list[int] = []


def _follows(reset: Reset, position: str) -> bool:
    """Whether all that is stored after a position follows a reset, and there is something."""
    return reset.n < reset.state.events and parse(position) < parse(reset.state.position)


def _path(operation: str, call: str = "") -> str:
    return f"{OPERATIONS}/{operation}{call}"


def _parts(events: Sequence[bytes]) -> Iterator[bytes]:
    """Yield lists of events, each small enough for one request; one empty list if there are none: a heartbeat."""
    part: list[bytes] = []
    size = 0
    for event in events:
        if part and size + len(event) > PUBLISHED_BYTES:
            yield b"[" + b",".join(part) + b"]"
            part, size = [], 0
        part.append(event)
        size += len(event)
    yield b"[" + b",".join(part) + b"]"


async def _messages(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Message]:
    reader = EventStreamReader()
    async for chunk in chunks:
        try:
            for message in reader.feed(chunk):
                yield message
        except ValueError as error:
            raise ServerUnavailable(f"the server's stream can't be read: {error}") from None


def _sent_away(message: Message) -> Exception:
    """Return what it means to be sent away: a pause, or the error for which the server can't go on now."""
    try:
        said: Mapping[str, Any] = orjson.loads(message.data)
    except orjson.JSONDecodeError:
        said = {}
    reason = str(said.get("reason"))
    after_s = COME_BACK_S if message.retry_ms is None else message.retry_ms / 1000
    if reason in RETRYABLE - {"draining"}:
        error = rejection(reason, f"the server sent this client away: {reason}")
        error.retry_s = after_s
        return error
    return ComeBack(reason, after_s)
