"""Operations as lists show them: the parts of which a row is made."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from progress_broker.model.operation import Operation, Status

MESSAGE_CHARS = 200

_NUMBERS = ("percent", "current", "total", "rate", "eta_ms")


class BriefOperation(BaseModel):
    """An operation in a list with `fields=brief`."""

    id: str
    kind: str
    title: str | None
    owner: str | None
    parent: str | None
    status: Status
    done: bool
    worker: str | None
    percent: float | None = Field(description="Reported, or `current` of `total`, or that of its children.")
    current: float | None
    total: float | None
    unit: str | None
    rate: float | None = Field(description="Units in a second.")
    eta_ms: float | None
    message: str | None = Field(description=f"At most {MESSAGE_CHARS} characters.")
    error: str | None = Field(description="The type of the error.")
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None


def brief(operation: Operation) -> BriefOperation:
    """Return the parts of an operation that a list shows. A value of a wrong type is left out."""
    progress = operation.progress or {}
    numbers = {name: _number(progress.get(name)) for name in _NUMBERS}
    if numbers["percent"] is None:
        numbers["percent"] = _percent(numbers["current"], numbers["total"], operation)
    message, error = _text(progress.get("message")), (operation.error or {}).get("type")
    own = {name: getattr(operation, name) for name in BriefOperation.model_fields if name in Operation.model_fields}
    return BriefOperation.model_validate(
        own
        | numbers
        | {
            "unit": _text(progress.get("unit")),
            "message": message and message[:MESSAGE_CHARS],
            "error": _text(error),
        }
    )


def _percent(current: float | None, total: float | None, operation: Operation) -> float | None:
    if current is not None and total is not None and total > 0:
        return min(100.0, 100 * current / total)
    return None if operation.children is None else operation.children.percent


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
