"""The names of a query, and what each of them takes. There is no other list of them.

A query is pairs of names and texts wherever it comes from: options of a command, parameters of a call, the head of an
export. Here they become `Filters`, and `Filters` become pairs again.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from progress_broker.errors import InvalidInput
from progress_broker.model.metadata import INDEXED_KEY, terms
from progress_broker.model.operation import Label, OperationId, Status
from progress_broker.model.validation import invalid
from progress_broker.queries.filters import UNFINISHED, Filters, Span
from progress_broker.queries.times import read_time
from progress_broker.runtime.durations import seconds

Pairs = tuple[tuple[str, str], ...]
"""A query as names and texts."""

Text = Annotated[str, Field(min_length=1, max_length=512)]
Metadata = Annotated[str, Field(json_schema_extra={"pattern": f"^{INDEXED_KEY}[:=]"})]


class QueryField(NamedTuple):
    """A name of a query, and what it takes."""

    name: str
    type: Any
    """The type of one value, for schemas and options."""
    help: str
    """What it chooses, without a full stop at the end."""
    example: str
    repeatable: bool = False
    read: Callable[[str, int], Any] | None = None
    """Returns the value of a text at a time by Redis' clock, in milliseconds; raises `ValueError` or `InvalidInput`.
    None: a text that is valid for the type is the value."""
    separator: str | None = None
    """Separates several values in one text."""
    form: str = ""
    """How its text is written, where an example does not tell."""

    @property
    def needs_clock(self) -> bool:
        """Whether its text may be a time ago."""
        return self.read in (read_time, _idle_since)

    @property
    def description(self) -> str:
        """What it chooses, and how it is written."""
        return f"{self.help}: {self.form}." if self.form else f"{self.help}."


def _metadata(text: str, now_ms: int) -> str:
    parts = re.split("[:=]", text, maxsplit=1)
    if len(parts) < 2:
        raise ValueError("expected `key:value` or `key=value`, such as `customer:42`")
    return next(terms(parts[0], parts[1:]))


def _idle_since(text: str, now_ms: int) -> int:
    return now_ms - round(1000 * seconds(text))


_TIME = "a time ago such as `1h`, a time such as `2026-11-30T14:05:00Z`, or milliseconds since 1970"


def _time(name: str, help: str, example: str) -> QueryField:
    return QueryField(name, str, help, example, read=read_time, form=_TIME)


FIELDS: Mapping[str, QueryField] = {
    field.name: field
    for field in (
        QueryField("id", OperationId, "Any of these ids", "import-42", repeatable=True),
        QueryField("id_prefix", OperationId, "An id that begins so", "import-"),
        QueryField("q", Text, "A text in the id or the title, in capital or small letters", "customers"),
        QueryField("status", Status, "Any of these statuses", "failed,cancelled", repeatable=True, separator=","),
        QueryField("kind", Label, "Any of these kinds", "import", repeatable=True),
        QueryField("owner", Label, "Any of these owners", "alice", repeatable=True),
        QueryField("tag", Label, "All of these tags", "nightly", repeatable=True),
        QueryField(
            "metadata",
            Metadata,
            "All of these values in its metadata now",
            "customer:42",
            repeatable=True,
            read=_metadata,
            form="`key:value` or `key=value`",
        ),
        QueryField("parent", OperationId, "The children of an operation", "import-42"),
        QueryField("roots", bool, "Only operations without a parent", "true"),
        QueryField("worker", Text, "What a worker does, or did last", "worker-7"),
        QueryField("error", Text, "The type of the error, or a text in its message", "timeout"),
        _time("since", "Changed since then", "1h"),
        _time("until", "Not changed since then", "10m"),
        _time("created_since", "Created since then", "1d"),
        _time("created_until", "Created before then", "2026-11-30T14:05:00Z"),
        _time("ended_since", "Ended since then", "1h"),
        _time("ended_until", "Ended before then", "7d"),
        QueryField("idle", str, "Not ended, and without an event for so long", "10m", read=_idle_since),
    )
}
"""The fields of a query, in the order in which help and docs show them."""


def needs_clock(pairs: Iterable[tuple[str, str]]) -> bool:
    """Return whether the filters depend on the time at which they are read."""
    return any(name in FIELDS and FIELDS[name].needs_clock for name, _ in pairs)


def read_filters(pairs: Iterable[tuple[str, str]], now_ms: int) -> Filters:
    """Return what pairs of names and texts choose, at a time by Redis' clock; raise `InvalidInput` with its field."""
    found: dict[str, list[Any]] = {}
    for name, text in pairs:
        field = FIELDS.get(name)
        if field is None:
            raise InvalidInput(f"unknown filter {name[:100]!r}: the filters are {', '.join(FIELDS)}", field=name)
        if name in found and not field.repeatable:
            raise InvalidInput(f"{name} is given more than once; send it once", field=name)
        found.setdefault(name, []).extend(_values(field, text, now_ms))

    def one(name: str) -> Any:
        return next(iter(found.get(name, ())), None)

    def span(prefix: str) -> Span:
        since, until = f"{prefix}since", f"{prefix}until"
        times = Span(one(since), one(until))
        if times.since is not None and times.until is not None and times.since > times.until:
            raise InvalidInput(f"{since} is after {until}, so nothing can match", field=since)
        return times

    if one("roots") and "parent" in found:
        raise InvalidInput("roots are operations without a parent: leave out one of roots and parent", field="roots")
    filters = Filters(
        ids=tuple(found.get("id", ())),
        statuses=frozenset(found.get("status", ())),
        kinds=tuple(found.get("kind", ())),
        owners=tuple(found.get("owner", ())),
        tags=tuple(found.get("tag", ())),
        metadata=tuple(found.get("metadata", ())),
        parent=one("parent"),
        roots=one("roots") or False,
        id_prefix=one("id_prefix") or "",
        text=one("q") or "",
        worker=one("worker"),
        error=one("error"),
        changed=span(""),
        created=span("created_"),
        ended=span("ended_"),
    )
    return filters if "idle" not in found else _idle(filters, one("idle"))


def write_filters(filters: Filters) -> Iterator[tuple[str, str]]:
    """Yield the pairs that choose the same; the caller's grants are not among them."""
    several = {
        "id": filters.ids,
        "status": [status.value for status in sorted(filters.statuses)],
        "kind": filters.kinds,
        "owner": filters.owners,
        "tag": filters.tags,
        "metadata": [pair.replace("=", ":", 1) for pair in filters.metadata],
    }
    single = {
        "id_prefix": filters.id_prefix,
        "q": filters.text,
        "parent": filters.parent,
        "roots": "true" if filters.roots else None,
        "worker": filters.worker,
        "error": filters.error,
        "since": filters.changed.since,
        "until": filters.changed.until,
        "created_since": filters.created.since,
        "created_until": filters.created.until,
        "ended_since": filters.ended.since,
        "ended_until": filters.ended.until,
    }
    yield from ((name, text) for name, texts in several.items() for text in texts)
    yield from ((name, str(value)) for name, value in single.items() if value not in (None, ""))


def _values(field: QueryField, text: str, now_ms: int) -> Iterator[Any]:
    for part in text.split(field.separator) if field.separator else [text]:
        try:
            value = _adapter(field.type).validate_python(part)
            yield value if field.read is None else field.read(part, now_ms)
        except ValidationError as error:
            raise InvalidInput(f"{field.name}: {invalid(error, part).detail}", field=field.name) from None
        except InvalidInput as error:
            raise InvalidInput(f"{field.name}: {error.detail}", field=field.name) from None
        except ValueError as error:
            raise InvalidInput(f"{field.name}: {error}", field=field.name) from None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _idle(filters: Filters, since_ms: int) -> Filters:
    """Return the filters with: not ended, and not changed since then."""
    statuses = (filters.statuses or UNFINISHED) & UNFINISHED
    if not statuses:
        raise InvalidInput("idle is about operations that have not ended: leave it out, or the status", field="idle")
    until = min(since_ms, since_ms if filters.changed.until is None else filters.changed.until)
    return replace(filters, statuses=statuses, changed=filters.changed._replace(until=until))
