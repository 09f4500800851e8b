"""What can be asked of a stream of many operations in its query."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.bundle.query import Query
from progress_broker.errors import Invalid
from progress_broker.model.operation import Label, OperationId
from progress_broker.model.validation import invalid
from progress_broker.stream.delivery import Delivery, Start
from progress_broker.stream.frames import PING, PING_EVENT
from progress_server.http.query_names import values_of
from progress_server.sse.stream_query import TYPES, read_types


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


_NAMES = frozenset(MultiQuery.model_fields)
_LISTS = frozenset({"operation", "tag"})


def read_multi_query(query: bytes, *, others: bool = False) -> MultiQuery:
    """Return what a query asks for; raise `Invalid`. With `others` it may hold names that are not ours."""
    try:
        return MultiQuery.model_validate(values_of(query, _NAMES, _LISTS, others=others))
    except ValidationError as error:
        raise invalid(error) from None
