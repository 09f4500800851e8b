"""The query parameters of streams. The same models parse the query and describe it in OpenAPI."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import InvalidInput
from progress_broker.model.event import CHILDREN
from progress_broker.model.operation import EVENT_TYPE, Label, MetadataFilter, OperationId
from progress_broker.model.position import parse as parse_position
from progress_broker.model.validation import validated
from progress_broker.stream.delivery import ALL, Delivery, Start
from progress_broker.stream.frames import PING, PING_EVENT
from progress_server.http.query_names import values_of

MAX_TYPES = 32

POSITION: dict[str, Any] = {
    "pattern": r"^(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})$",
    "examples": ["1732150000000-0"],
}
"""The schema of a position, for OpenAPI only. `parse_position` does the parsing."""

_POSITION_OR_NONE = POSITION | {"pattern": r"^((0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18}))?$"}
"""The schema where a client resumes: the position may be empty, if the client has received none yet."""

TYPES = f"^{EVENT_TYPE}(,{EVENT_TYPE}){{0,{MAX_TYPES - 1}}}$"


class StreamQuery(BaseModel):
    """The query of a stream of one operation: where to begin, and how to deliver events."""

    model_config = ConfigDict(frozen=True)

    last_event_id: str | None = Field(
        None,
        description="Resume after this position. For a new EventSource, which can't set the `Last-Event-ID` header.",
        json_schema_extra=_POSITION_OR_NONE,
    )
    beginning: Literal["start"] | None = Field(None, alias="from", description="`start` replays all stored events.")
    types: str | None = Field(
        None, description="Event types to send, separated by commas.", json_schema_extra={"pattern": TYPES}
    )
    interval_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        0, description="Minimum time between two `progress` events."
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(
        0, description="How long to wait for an operation that does not exist yet."
    )
    children: bool = Field(False, description="Also send the state of the operation's children whenever it changes.")
    ping: Literal["comment", "event"] = Field(
        "comment", description="The form of keep-alive pings: a comment or an event."
    )

    def start(self, last_event_id: str | None) -> Start:
        """Return where to begin. `last_event_id` has priority: a reconnecting EventSource sends its newest one."""
        positions = [position for position in (last_event_id, self.last_event_id) if position]
        for position in positions:
            parse_position(position)
        if positions:
            return Start(positions[0])
        return Start(beginning=self.beginning is not None)

    def delivery(self) -> Delivery:
        """Return how the client wants its events."""
        if self is ANYTHING:
            return ALL
        types = read_types(self.types)
        children = self.children and (types is None or CHILDREN in types)
        return Delivery(types, self.interval_ms / 1000, PING_EVENT if self.ping == "event" else PING, children)


ANYTHING = StreamQuery()
_NAMES_OF_ONE = frozenset(field.alias or name for name, field in StreamQuery.model_fields.items())


def read_query(query: bytes, *, others: bool = False) -> StreamQuery:
    """Return the parsed query; raise `InvalidInput`. With `others` it may have unknown parameters."""
    if not query:
        return ANYTHING
    return validated(StreamQuery, values_of(query, _NAMES_OF_ONE, others=others))


def query_parameters(model: type[BaseModel] = StreamQuery) -> list[dict[str, Any]]:
    """Return a query's parameters as OpenAPI describes them."""
    header = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "Resume after this position. EventSource sends it when it reconnects.",
    }
    properties = model.model_json_schema()["properties"]
    given = {name: it for name, it in properties["last_event_id"].items() if name in ("pattern", "examples")}
    queries = [
        {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
        for name, schema in properties.items()
    ]
    return [header | {"schema": {"type": "string", **given}}, *queries]


def read_types(text: str | None) -> frozenset[bytes] | None:
    """Return the event types in a comma-separated list, or None for all; raise `InvalidInput`."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) > MAX_TYPES or not all(re.fullmatch(EVENT_TYPE, name) for name in names):
        raise InvalidInput(
            f"`types` is not valid: it must be at most {MAX_TYPES} event types, separated by commas", field="types"
        )
    return frozenset(name.encode() for name in names)


class MultiQuery(BaseModel):
    """The query of a stream of many operations: which ones, where to begin, and how to deliver events."""

    model_config = ConfigDict(frozen=True)

    operation: list[OperationId] = Field([], description="The id of an operation to follow. Repeat it for several.")
    owner: Label | None = Field(None, description="Follow all operations of this owner, including ones created later.")
    kind: Label | None = Field(None, description="Follow all operations of this kind, including ones created later.")
    tag: list[Label] = Field([], description="Follow all operations with this tag. Repeat it to require several tags.")
    parent: OperationId | None = Field(None, description="Follow all children of this operation.")
    metadata: list[MetadataFilter] = Field(
        [],
        description="Follow all operations that were created with this metadata, as `key:value`. Repeat it to require"
        " several values.",
    )
    last_event_id: str | None = Field(
        None,
        description="Resume after this cursor. For a new EventSource, which can't set the `Last-Event-ID` header.",
    )
    types: str | None = Field(
        None, description="Event types to send, separated by commas.", json_schema_extra={"pattern": TYPES}
    )
    interval_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        0, description="Minimum time between two times that `progress` events are sent."
    )
    wait_s: Annotated[float, Field(ge=0)] = Field(
        0, description="How long to wait if none of the operations exists yet."
    )
    ping: Literal["comment", "event"] = Field(
        "comment", description="The form of keep-alive pings: a comment or an event."
    )

    def query(self, most: int) -> OperationQuery:
        """Return which operations to follow; raise `InvalidInput`."""
        filters = [("owner", self.owner), ("kind", self.kind), ("parent", self.parent)]
        filters += [("tag", tag) for tag in self.tag]
        filters += [("metadata", pair) for pair in self.metadata]
        terms = frozenset(f"{field}:{value}".encode() for field, value in filters if value is not None)
        ids = tuple(dict.fromkeys(self.operation))
        if bool(terms) is bool(ids):
            raise InvalidInput(
                "choose operations either by id, with `operation` (repeatable), or by `owner`, `kind`, `tag`,"
                " `parent` or `metadata`; not both",
                field="operation",
            )
        if len(ids) > most:
            raise InvalidInput(
                f"{len(ids)} operations requested, but a stream carries at most {most}"
                " (PROGRESS_MAX_OPERATIONS_PER_STREAM); open several streams",
                field="operation",
            )
        return OperationQuery(ids, terms)

    def start(self, last_event_id: str | None) -> Start:
        """Return where to begin. `last_event_id` has priority: a reconnecting EventSource sends its newest one."""
        return Start(last_event_id or self.last_event_id or None)

    def delivery(self) -> Delivery:
        """Return how the client wants its events."""
        ping = PING_EVENT if self.ping == "event" else PING
        return Delivery(read_types(self.types), self.interval_ms / 1000, ping)


_NAMES_OF_MANY = frozenset(MultiQuery.model_fields)
_LISTS = frozenset({"operation", "tag", "metadata"})


def read_multi_query(query: bytes, *, others: bool = False) -> MultiQuery:
    """Return the parsed query; raise `InvalidInput`. With `others` it may have unknown parameters."""
    return validated(MultiQuery, values_of(query, _NAMES_OF_MANY, _LISTS, others=others))
