"""What a stream's query may ask for, of one operation or of many: stated once, for the description and the reading."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.bundle.query import Query
from progress_broker.errors import Invalid
from progress_broker.model.event import CHILDREN
from progress_broker.model.operation import EVENT_TYPE, Label, OperationId
from progress_broker.model.position import parse as parse_position
from progress_broker.model.validation import invalid
from progress_broker.stream.delivery import ALL, Delivery, Start
from progress_broker.stream.frames import PING, PING_EVENT
from progress_server.http.query_names import values_of

MAX_TYPES = 32

POSITION: dict[str, Any] = {
    "pattern": r"^(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})$",
    "examples": ["1732150000000-0"],
}
"""What a position looks like, for the description: `parse_position` is what reads it."""

_POSITION_OR_NONE = POSITION | {"pattern": r"^((0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18}))?$"}
"""Of a client that resumes: an empty one is what it says when it has none yet."""

TYPES = f"^{EVENT_TYPE}(,{EVENT_TYPE}){{0,{MAX_TYPES - 1}}}$"


class StreamQuery(BaseModel):
    """Where a client wants to begin, and how it wants its events."""

    model_config = ConfigDict(frozen=True)

    last_event_id: str | None = Field(
        None, description="what a new EventSource says instead of the header", json_schema_extra=_POSITION_OR_NONE
    )
    beginning: Literal["start"] | None = Field(None, alias="from", description="replay all that is kept")
    types: str | None = Field(
        None, description="the types wanted, separated by commas", json_schema_extra={"pattern": TYPES}
    )
    interval_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        0, description="least time between two `progress` events"
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(0, description="how long to await an operation not yet created")
    children: bool = Field(False, description="tell where the operation's children stand, as that changes")
    ping: Literal["comment", "event"] = Field("comment", description="how to say that the stream is alive")

    def start(self, last_event_id: str | None) -> Start:
        """Return where to begin. The header wins: it is what an EventSource that reconnects has come to."""
        given = [position for position in (last_event_id, self.last_event_id) if position]
        for position in given:
            parse_position(position)
        if given:
            return Start(given[0])
        return Start(beginning=self.beginning is not None)

    def delivery(self) -> Delivery:
        """Return how to deliver."""
        if self is ANYTHING:
            return ALL
        types = read_types(self.types)
        children = self.children and (types is None or CHILDREN in types)
        return Delivery(types, self.interval_ms / 1000, PING_EVENT if self.ping == "event" else PING, children)


ANYTHING = StreamQuery()
_NAMES_OF_ONE = frozenset(field.alias or name for name, field in StreamQuery.model_fields.items())


def read_query(query: bytes, *, others: bool = False) -> StreamQuery:
    """Return what a query asks for; raise `Invalid`. With `others` it may hold names that are not ours."""
    if not query:
        return ANYTHING
    try:
        return StreamQuery.model_validate(values_of(query, _NAMES_OF_ONE, others=others))
    except ValidationError as error:
        raise invalid(error) from None


def described(model: type[BaseModel] = StreamQuery) -> list[dict[str, Any]]:
    """Return a query's parameters as OpenAPI describes them."""
    header = {"name": "Last-Event-ID", "in": "header", "description": "what EventSource sends when it reconnects"}
    properties = model.model_json_schema()["properties"]
    given = {name: it for name, it in properties["last_event_id"].items() if name in ("pattern", "examples")}
    queries = [
        {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
        for name, schema in properties.items()
    ]
    return [header | {"schema": {"type": "string", **given}}, *queries]


def read_types(text: str | None) -> frozenset[bytes] | None:
    """Return the event names in a list separated by commas; raise `Invalid`."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) > MAX_TYPES or not all(re.fullmatch(EVENT_TYPE, name) for name in names):
        raise Invalid(f"types are up to {MAX_TYPES} event names, separated by commas", field="types")
    return frozenset(name.encode() for name in names)


class MultiQuery(BaseModel):
    """Which operations a client wants, where it wants to begin, and how it wants their events."""

    model_config = ConfigDict(frozen=True)

    operation: list[OperationId] = Field([], description="ids of the operations to follow, one each time")
    owner: Label | None = Field(None, description="follow all operations of this owner, also those yet to come")
    kind: Label | None = Field(None, description="those of this kind")
    tag: list[Label] = Field([], description="those that have this tag; given again, also that one")
    parent: OperationId | None = Field(None, description="those that are children of this one")
    last_event_id: str | None = Field(None, description="what a new EventSource says instead of the header")
    types: str | None = Field(
        None, description="the types wanted, separated by commas", json_schema_extra={"pattern": TYPES}
    )
    interval_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        0, description="least time between two times that `progress` events are sent"
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(0, description="how long to wait if none of them exists yet")
    ping: Literal["comment", "event"] = Field("comment", description="how to say that the stream is alive")

    def query(self, most: int) -> Query:
        """Return which operations to follow; raise `Invalid`."""
        filters = [("owner", self.owner), ("kind", self.kind), ("parent", self.parent)]
        filters += [("tag", tag) for tag in self.tag]
        terms = frozenset(f"{field}:{value}".encode() for field, value in filters if value is not None)
        ids = tuple(dict.fromkeys(self.operation))
        if bool(terms) is bool(ids):
            raise Invalid(
                "name the operations to follow, each by `operation`, or ask for them by `owner`, `kind`, `tag` or"
                " `parent`; not both",
                field="operation",
            )
        if len(ids) > most:
            raise Invalid(
                f"{len(ids)} operations are named, and a stream carries {most}: open several streams", field="operation"
            )
        return Query(ids, terms)

    def start(self, last_event_id: str | None) -> Start:
        """Return where to begin. The header wins: it is what an EventSource that reconnects has come to."""
        return Start(last_event_id or self.last_event_id or None)

    def delivery(self) -> Delivery:
        """Return how to deliver."""
        ping = PING_EVENT if self.ping == "event" else PING
        return Delivery(read_types(self.types), self.interval_ms / 1000, ping)


_NAMES_OF_MANY = frozenset(MultiQuery.model_fields)
_LISTS = frozenset({"operation", "tag"})


def read_multi_query(query: bytes, *, others: bool = False) -> MultiQuery:
    """Return what a query asks for; raise `Invalid`. With `others` it may hold names that are not ours."""
    try:
        return MultiQuery.model_validate(values_of(query, _NAMES_OF_MANY, _LISTS, others=others))
    except ValidationError as error:
        raise invalid(error) from None
