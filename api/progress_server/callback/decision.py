"""The decisions of a back end. They are parsed strictly, and an answer that can't be parsed allows nothing."""

import time
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from progress_broker.model.grants import Grants
from progress_broker.model.operation import BUILT_IN_TYPES, EVENT_TYPE, RESERVED_TYPES, Label
from progress_broker.model.validation import fits_nesting_limit
from progress_broker.stream.frames import Frame
from progress_server.auth.claims import MAX_GRANTS, GrantClaim, scope_grant
from progress_server.auth.principal import Principal

MAX_EVENTS = 20
_OPERATIONS_OWN = RESERVED_TYPES | BUILT_IN_TYPES


class FirstEvent(BaseModel):
    """An event that the back end adds at the beginning of a stream."""

    model_config = ConfigDict(strict=True, frozen=True)

    type: Annotated[str, Field(pattern=f"^{EVENT_TYPE}$")]
    data: Any = None

    @field_validator("type")
    @classmethod
    def _is_custom(cls, value: str) -> str:
        if value in _OPERATIONS_OWN:
            raise ValueError("this event type is reserved: choose another name")
        return value

    @field_validator("data")
    @classmethod
    def _can_be_said_again(cls, value: Any) -> Any:
        if not fits_nesting_limit(value):
            raise ValueError("the data is nested too deeply")
        return value

    def frame(self) -> Frame:
        """Return the event as a frame. It has no id, so the client keeps its position."""
        head = b"event: %b\ndata: " % self.type.encode()
        envelope = {"type": self.type, "time": time.time_ns() // 1_000_000, "data": self.data}
        return Frame(0, b"", self.type.encode(), head + orjson.dumps(envelope) + b"\n\n", len(head))


class Decision(BaseModel):
    """A back end's decision about a caller: whether it is allowed, as which principal, with which grants."""

    model_config = ConfigDict(strict=True, frozen=True)

    allow: bool
    principal: Label | None = None
    scope: str | None = None
    grants: Annotated[list[GrantClaim], Field(max_length=MAX_GRANTS)] = Field(default_factory=list)
    expires_in_s: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    identifier: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    events: Annotated[list[FirstEvent], Field(max_length=MAX_EVENTS)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_whom_it_allows(self) -> "Decision":
        if self.allow and self.principal is None:
            raise ValueError("`principal`, the name of the caller, is missing")
        return self

    def principal_of(self) -> Principal:
        """Return the principal. `scope` is for its own operations, and `grants` for others, as in a token."""
        name = self.principal or ""
        grants = Grants((*scope_grant(name, self.scope), *(claim.grant() for claim in self.grants)))
        return Principal(name, grants, None if self.expires_in_s is None else time.time() + self.expires_in_s)


def read_decision(body: bytes) -> Decision:
    """Return the decision in a body; raise `ValueError` if it is not valid. The error quotes nothing of the body."""
    try:
        return Decision.model_validate(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise ValueError("the body is not JSON") from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise ValueError(f"{where}: {fault['msg']}" if where else fault["msg"]) from None
