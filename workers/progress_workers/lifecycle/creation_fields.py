"""Converts the options of a new operation to values that can be stored."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import (
    MAX_HISTORY,
    MAX_LABEL_CHARS,
    MAX_RETENTION_S,
    MAX_TAGS,
    MAX_TITLE_CHARS,
    MAX_WEIGHT,
)
from progress_workers.core.metadata import plain_metadata
from progress_workers.values import attempt, brief, fitted, label, number, text


class CreationFields(NamedTuple):
    """The options that can be stored, and warnings about those that were ignored or changed, by name."""

    given: dict[str, Any]
    warnings: list[tuple[str, str]]


def readable_fields(kind: object, tags: object, given: dict[str, Any]) -> CreationFields:
    """Convert a kind, tags and other options to texts that people can read. Ids stay as they are.

    Raises `InvalidInput` if `tags` is a single string.
    """
    fields, warnings = dict(given), list[tuple[str, str]]()
    fields["kind"] = label(kind) or "operation"
    fields["tags"] = _tags(tags, warnings)
    if fields.get("title") is not None:
        fields["title"] = text(fields["title"], MAX_TITLE_CHARS)
    if fields.get("owner") is not None:
        fields["owner"] = _owner(fields["owner"])
    if "metadata" in fields:
        given_metadata = fields["metadata"]
        fields["metadata"], said = plain_metadata({} if given_metadata is None else given_metadata)
        warnings += [("metadata", said)] if said else []
    if "weight" in fields:
        fields["weight"] = _positive("weight", fields["weight"], MAX_WEIGHT, warnings) or 1
    if fields.get("history_length") is not None:
        found = _positive("history_length", fields["history_length"], MAX_HISTORY, warnings)
        fields["history_length"] = None if found is None else max(1, round(found))
    if fields.get("retention_s") is not None:
        fields["retention_s"] = _positive("retention_s", fields["retention_s"], MAX_RETENTION_S, warnings)
    return CreationFields(fields, warnings)


def _owner(given: object) -> str | None:
    """Return an owner. If it is too long, it ends in a hash, so that two such owners stay different."""
    whole = label(given, 1 << 16)
    return fitted(whole, whole, MAX_LABEL_CHARS) or None


def _tags(given: object, warnings: list[tuple[str, str]]) -> list[str]:
    if isinstance(given, str | bytes):
        raise InvalidInput('tags must be a list, even for a single tag: ["tag"]', field="tags")
    if given is None:
        return []
    found: list[object] = []
    fault = attempt(_take, given, found, otherwise=lambda error: error)
    if fault is not None:
        warnings.append(
            ("tags", f"the tags {brief(given)} are not a list that can be read completely; {len(found)} tags were read")
        )
    if len(found) > MAX_TAGS:
        warnings.append(("tags", f"there are more than {MAX_TAGS} tags; only the first {MAX_TAGS} are kept"))
    return [tag for tag in map(label, found[:MAX_TAGS]) if tag]


def _take(given: Iterable[object], found: list[object]) -> None:
    for tag in islice(iter(given), MAX_TAGS + 1):
        found.append(tag)  # noqa: PERF402 - one by one, to keep the tags before one that fails


def _positive(name: str, given: object, most: float, warnings: list[tuple[str, str]]) -> float | None:
    found = number(given)
    if found is None or found <= 0:
        warnings.append(
            (name, f"the value {brief(given)} of {name} was ignored; expected a finite number greater than 0")
        )
        return None
    return min(found, most)
