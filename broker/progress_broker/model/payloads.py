"""The data of events of the built-in types. It is validated when it is published; replicas pass the bytes on."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Number = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, strict=True, allow_inf_nan=False)]


Level = Literal["debug", "info", "warning", "error", "critical"]
"""How important a log line is."""


class OpenModel(BaseModel):
    """A model whose unknown fields pass through untouched."""

    model_config = ConfigDict(extra="allow", defer_build=True)


class Stage(OpenModel):
    """A part of the work. Stages are listed in the order in which they are done."""

    name: str
    status: Literal["pending", "running", "succeeded", "failed", "skipped"] = "pending"
    current: Number | None = None
    total: Number | None = None
    in_flight: Annotated[int, Field(ge=0)] | None = None
    percent: Percent | None = None
    weight: Annotated[float, Field(gt=0)] = 1
    started_at: datetime | None = None
    duration_ms: Number | None = None


class PoolWorker(OpenModel):
    """One worker of a pool."""

    id: int | str
    status: str | None = None
    item: str | None = None
    percent: Percent | None = None


class Pool(OpenModel):
    """The workers that share an operation's work."""

    active: Annotated[int, Field(ge=0)] | None = None
    max: Annotated[int, Field(ge=0)] | None = None
    queue_depth: Annotated[int, Field(ge=0)] | None = None
    workers: list[PoolWorker] | None = None


class Progress(OpenModel):
    """An operation's progress. Each event has the whole state: the newest one replaces the one before."""

    current: Number | None = None
    total: Number | None = None
    unit: str | None = None
    percent: Percent | None = None
    message: str | None = None
    rate: Number | None = None
    eta_ms: Number | None = None
    stages: list[Stage] | None = None
    workers: Pool | None = None
    metrics: dict[str, Any] | None = None


class MetadataChanges(RootModel[dict[str, Any]]):
    """Changes of an operation's metadata: each key replaces the one before, and null removes it."""

    model_config = ConfigDict(defer_build=True)


class Log(OpenModel):
    """A line of an operation's log."""

    level: Level = "info"
    message: str
    stage: str | None = None


class Running(BaseModel):
    """The only status that a publisher may set with a `status` event; the server sets the others."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    status: Literal["running"]


class Failure(OpenModel):
    """Why an operation did not succeed."""

    type: str
    message: str = ""


class Outcome(BaseModel):
    """How an operation ended."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    status: Literal["succeeded", "failed", "cancelled"]
    result: Any = None
    error: Failure | None = None
