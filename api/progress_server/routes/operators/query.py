"""The query parameters that choose operations, made of the fields of a query, as the options of commands are."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any

from fastapi import Query
from pydantic import TypeAdapter, WithJsonSchema
from starlette.responses import Response

from progress_broker.operations.store import Store
from progress_broker.queries.fields import FIELDS, Pairs, QueryField, needs_clock, read_filters
from progress_broker.queries.filters import Filters

Route = Callable[..., Awaitable[Response]]


def with_filters(route: Route) -> Route:
    """Replace a route's parameter `query` by a query parameter for each field of a query; `query` is what was sent."""
    added = {field.name: _parameter(field) for field in FIELDS.values()}

    @wraps(route)
    async def called(**given: Any) -> Response:
        sent = {name: given.pop(name) for name in added}
        return await route(query=tuple(pair for name, value in sent.items() for pair in _pairs(name, value)), **given)

    own = inspect.signature(route, eval_str=True).parameters
    parameters = [each for name, it in own.items() for each in (added.values() if name == "query" else [it])]
    parameters = [it.replace(kind=inspect.Parameter.KEYWORD_ONLY) for it in parameters]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {it.name: it.annotation for it in parameters}
    return called


async def filters_of(store: Store, query: Pairs) -> Filters:
    """Return the filters of a query, whose times ago are by Redis' clock; raise `InvalidInput` with its field."""
    now_ms = round(1000 * (await store.now()).timestamp()) if needs_clock(query) else 0
    return read_filters(query, now_ms)


def _parameter(field: QueryField) -> inspect.Parameter:
    # Only described here: `read_filters` says what is wrong.
    text: Any = Annotated[str, WithJsonSchema(_schema(field))]
    about: dict[str, Any] = {"description": field.description, "examples": [field.example]}
    name, kind = field.name, inspect.Parameter.KEYWORD_ONLY
    if field.repeatable:
        several: Any = Annotated[list[text], Query(default_factory=list, **about)]
        return inspect.Parameter(name, kind, annotation=several)
    return inspect.Parameter(name, kind, default=None, annotation=Annotated[text | None, Query(**about)])


def _schema(field: QueryField) -> dict[str, Any]:
    schema = TypeAdapter(field.type).json_schema()
    if field.separator is None or "enum" not in schema:
        return {name: value for name, value in schema.items() if name not in ("title", "description")}
    values = "|".join(schema["enum"])
    return {"type": "string", "pattern": f"^({values})({field.separator}({values}))*$"}


def _pairs(name: str, value: list[str] | str | None) -> list[tuple[str, str]]:
    texts = value if isinstance(value, list) else [] if value is None else [value]
    return [(name, text) for text in texts]
