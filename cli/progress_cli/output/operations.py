"""How operations are printed as tables with all columns, CSV and names."""

from datetime import datetime
from typing import Any

from progress_broker.model.operation import Operation
from progress_broker.queries.brief import brief
from progress_cli.output import format
from progress_cli.output.formats import Column, Shape


def _time(value: Any) -> str:
    return value.astimezone().isoformat(" ", "seconds") if isinstance(value, datetime) else ""


def _text(value: Any) -> str:
    return "" if value is None else format.plain(value)


def _percent(value: Any) -> str:
    return "" if value is None else format.percentage(value)


OPERATIONS: Shape[Operation] = Shape(
    columns=[
        Column("ID", lambda it: it.id),
        Column("KIND", lambda it: it.kind),
        Column("STATUS", lambda it: it.status.value),
        Column("PERCENT", lambda it: brief(it).percent, _percent),
        Column("OWNER", lambda it: it.owner, _text),
        Column("WORKER", lambda it: it.worker, _text),
        Column("PARENT", lambda it: it.parent, _text),
        Column("CREATED", lambda it: it.created_at, _time),
        Column("STARTED", lambda it: it.started_at, _time),
        Column("CHANGED", lambda it: it.updated_at, _time),
        Column("ENDED", lambda it: it.finished_at, _time),
        Column("ERROR", lambda it: brief(it).error, _text),
        Column("TITLE", lambda it: it.title, _text),
    ],
    name=lambda it: it.id,
    to_json=lambda it: it.model_dump(mode="json"),
)
