"""Publications: events as publishers send them over HTTP, or type them, and the entries they become."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.errors import Invalid
from progress_broker.model import operation
from progress_broker.model.entry import Entry, encode
from progress_broker.model.validation import invalid
from progress_broker.settings import Settings

MAX_SEQ = (1 << 53) - 1  # what Lua and JavaScript count exactly


class Publication(BaseModel):
    """An event as a publisher sends it over HTTP."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(pattern=f"^{operation.EVENT_TYPE}$")]
    data: Any = None
    producer: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = None
    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = None


def read_publication(value: object, settings: Settings) -> Entry:
    """Return the entry for an event given as plain values; raise `Invalid` or `TooLarge`."""
    try:
        event = Publication.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None
    if (event.producer is None) != (event.seq is None):
        raise Invalid("producer and seq come together: they tell a repeat from a new event", field="seq")
    return encode(event.type, event.data, settings, producer=event.producer or "", seq=event.seq)
