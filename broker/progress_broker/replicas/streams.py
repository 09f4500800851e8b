"""The open streams of all replicas: who follows what, from where, and how to end one."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from heapq import nsmallest
from itertools import chain
from typing import Any, Protocol

from pydantic import BaseModel

from progress_broker.access.takeover import replace
from progress_broker.bundle.member import MemberSubscription
from progress_broker.errors import BrokerError, InvalidInput, NotFound, StorageUnavailable
from progress_broker.operations.store import Store
from progress_broker.replicas.calls import PATIENCE_S, Handler, Question, Reply, ask
from progress_broker.replicas.presence import present_replicas
from progress_broker.stream.drain import Connection, Watched
from progress_broker.stream.registry import StreamRegistry
from progress_broker.stream.stream import Stream

MOST = 500
"""The maximum number of streams in a page."""
KICKED = "kicked"
"""The reason that the client of an ended stream gets."""

CONNECTION = "[0-9a-f]{8}-[1-9][0-9]{0,18}"
"""The names of connections."""
_SECONDS = 3


class OpenStream(BaseModel):
    """An open stream: a connection that a client follows one or many operations with."""

    connection: str
    """Its name. It begins with the id of its replica."""
    replica: str
    operation: str
    """The operation that it follows; `*` if it follows several, or a query."""
    operations: int
    """How many operations it follows now."""
    principal: str
    """Whose it is; empty if no credentials are required."""
    address: str
    """The client's address, or of IPv6 its network; empty if it is not known."""
    outlet: str
    """How its events are sent: `adopted`, `asgi`, `websocket` or `poll`; `none` before the response has begun."""
    state: str
    """`starting`, `awaiting`, `catching up` (so is a replay) or `live`; of a WebSocket `open`."""
    age_s: float | None
    """How long it has been open."""
    slow_s: float | None
    """How long its client's buffer has been full; None if it has room."""


class StreamsPage(BaseModel):
    """A page of the open streams, sorted by replica, the oldest first."""

    streams: list[OpenStream]
    next_cursor: str | None
    """The name of the last stream, after which the next page begins; None at the end."""
    silent: list[str]
    """The replicas that did not answer, so that their streams are missing."""


class StreamFilter(BaseModel):
    """Which streams to list. None matches all."""

    operation: str | None = None
    principal: str | None = None
    address: str | None = None

    def matches(self, row: OpenStream) -> bool:
        """Return whether a stream matches. One that follows several operations matches none of them by name."""
        return all(wanted is None or wanted == getattr(row, name) for name, wanted in self)


class Kicked(BaseModel):
    """A stream that was ended."""

    connection: str
    operation: str
    principal: str
    address: str
    returns: bool
    """Whether its client was asked to come back: it does so with a new connection."""

    def described(self) -> str:
        """Return whose it was, and what its client was told, for the audit."""
        whose = f"of {self.principal} " if self.principal else ""
        return f"{whose}at {self.address}, following {self.operation}{'' if self.returns else ', for good'}"


class Carrier(Connection, Protocol):
    """A connection that carries several subscriptions: a WebSocket."""

    connection: str
    client: str

    @property
    def age_s(self) -> float:
        """How long it has been open."""

    @property
    def full_since(self) -> float | None:
        """Since when its send queue has been full."""

    def replaced(self) -> None:
        """Close it, and tell its client not to come back."""


class Streams(Protocol):
    """What a replica knows of its streams: a hub."""

    connections: set[Any]
    streams: StreamRegistry
    clock: Callable[[], float]
    draining: bool

    def drain(self, over_s: float) -> None:
        """Accept no more streams, and disconnect every client within a time."""

    @property
    def channels(self) -> Iterable[Watched]:
        """The watched operations."""

    @property
    def bundles(self) -> Iterable[Any]:
        """The streams that follow several operations."""

    @property
    def replays(self) -> Iterable[Any]:
        """The replays of operations."""


class LocalStreams:
    """The streams of one replica."""

    def __init__(self, hub: Streams) -> None:
        self._hub = hub

    async def listed(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer the question for streams. The body has a filter, a `limit`, and a cursor `after` or None."""
        wanted, limit, after = StreamFilter(**body["filter"]), int(body["limit"]), body["after"]
        replica = self._hub.streams.replica
        start = 0
        if after is not None:
            last, number = _parsed(after)
            if last > replica:
                return {"streams": []}
            start = number if last == replica else 0
        rows = (row for number, row in self._rows() if number > start and wanted.matches(row))
        page = nsmallest(limit + 1, rows, key=_order)
        return {"streams": [row.model_dump() for row in page]}

    async def kick(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """End a stream. The body has its `connection`, and whether it is `for_good`."""
        replica, number = _parsed(body["connection"])
        found = self._find(number) if replica == self._hub.streams.replica else None
        if found is None:
            return {"kicked": None}
        row = self._row(found)
        _end(found, for_good=body["for_good"])
        shown = row.model_dump(include={"connection", "operation", "principal", "address"})
        return {"kicked": shown | {"returns": not body["for_good"]}}

    def drain(self, over_s: float) -> Handler:
        """Return what sends all clients away, within a time."""

        async def send_away(_: Mapping[str, Any]) -> Mapping[str, Any]:
            streams = len(self._hub.streams)
            if not self._hub.draining:
                self._hub.drain(over_s)
            return {"streams": streams}

        return send_away

    def _rows(self) -> Iterator[tuple[int, OpenStream]]:
        for stream in self._alone():
            yield stream.number, self._row(stream)
        for carrier in self._hub.connections:
            yield _parsed(carrier.connection)[1], self._row(carrier)

    def _alone(self) -> Iterator[Stream]:
        """Yield the streams with a connection of their own: neither members of a bundle nor carried by a WebSocket."""
        each = (one for channel in self._hub.channels for one in channel.subscriptions)
        every: Iterable[Stream] = chain(each, self._hub.bundles, self._hub.replays)
        return (one for one in every if not (one.delivery.connection or isinstance(one, MemberSubscription)))

    def _find(self, number: int) -> "Stream | Carrier | None":
        name = f"{self._hub.streams.replica}-{number}"
        carriers = (one for one in self._hub.connections if one.connection == name)
        return next(chain(carriers, (one for one in self._alone() if one.number == number)), None)

    def _row(self, found: "Stream | Carrier") -> OpenStream:
        now = self._hub.clock()
        common = {"connection": found.connection, "replica": self._hub.streams.replica}
        if not isinstance(found, Stream):
            operations = [one.operation for one in found.subscriptions]
            return OpenStream(
                **common,
                operation=operations[0] if len(operations) == 1 else "*",
                operations=len(operations),
                principal=_name(found.holder),
                address=found.client,
                outlet="websocket",
                state="open",
                age_s=round(found.age_s, _SECONDS),
                slow_s=_since(found.full_since, now),
            )
        return OpenStream(
            **common,
            operation=found.operation,
            operations=len(found) if hasattr(found, "__len__") else 1,
            principal=_name(found.delivery.holder),
            address=found.outlet.client,
            outlet=found.outlet.kind,
            state=found.mode.value,
            age_s=_since(found.opened_at, now),
            slow_s=_since(found.full_since, now),
        )


def _end(found: "Stream | Carrier", *, for_good: bool) -> None:
    if not for_good:
        found.close(KICKED, reconnect=True)
    elif isinstance(found, Stream):
        replace(found)
    else:
        found.replaced()


async def list_streams(store: Store, wanted: StreamFilter, *, limit: int, cursor: str | None) -> StreamsPage:
    """Return a page of the open streams of all replicas. Raises `InvalidInput` for a cursor that is none."""
    if cursor is not None:
        _parsed(cursor)
    body = {"filter": wanted.model_dump(), "limit": limit, "after": cursor}
    replies = await ask(store, Question.STREAMS, body)
    rows = sorted((OpenStream(**row) for reply in replies.answers for row in answered(reply)["streams"]), key=_order)
    page = rows[:limit]
    return StreamsPage(
        streams=page,
        next_cursor=page[-1].connection if len(rows) > limit else None,
        silent=list(replies.silent),
    )


async def kick(store: Store, connection: str, *, for_good: bool) -> Kicked:
    """End a stream at whichever replica it is, and return what it was.

    Its client is asked to come back, unless it is `for_good`. Raises `NotFound` if there is no such stream, and
    `StorageUnavailable` if its replica does not answer within two seconds.
    """
    replica, _ = _parsed(connection)
    if replica not in {state.id for state in await present_replicas(store)}:
        raise NotFound(f"there is no stream {connection}: no replica {replica} is present")
    body = {"connection": connection, "for_good": for_good}
    replies = await ask(store, Question.KICK, body, replicas={replica}, patience_s=PATIENCE_S)
    for reply in replies.answers:
        if reply.replica == replica:
            kicked = answered(reply)["kicked"]
            if kicked is None:
                raise NotFound(f"there is no stream {connection}: it has ended, or never was")
            return Kicked(**kicked)
    raise StorageUnavailable(
        f"replica {replica} did not answer within {PATIENCE_S:g} s, so the stream {connection} may still be open"
    )


def answered(reply: Reply) -> Mapping[str, Any]:
    """Return what a replica answered; raise the error that it answered with."""
    if "error" in reply.body:
        raise BrokerError(f"replica {reply.replica} answered: {reply.body['detail']}")
    return reply.body


def _parsed(connection: str) -> tuple[str, int]:
    replica, _, number = connection.partition("-")
    if not re.fullmatch(CONNECTION, connection):
        raise InvalidInput(
            f"{connection[:60]!r} is not the name of a connection: `progress-broker streams` lists them",
            field="connection",
        )
    return replica, int(number)


def _order(row: OpenStream) -> tuple[str, int]:
    return _parsed(row.connection)


def _name(holder: Any) -> str:
    return str(getattr(holder, "name", ""))


def _since(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(now - moment, _SECONDS)
