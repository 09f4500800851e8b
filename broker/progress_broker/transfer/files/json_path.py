"""Paths into JSON, as far as removing things needs them: `$.a.b`, `$..password`, `$.rows[*].name`."""

import re
from collections.abc import Sequence
from typing import Any

from progress_broker.errors import InvalidInput

_STEP = re.compile(r"\.\.(?P<below>[\w-]+)|\.(?P<member>[\w-]+)|\[\*\](?P<all>)|\['(?P<quoted>[^']*)'\]")


class JsonPath:
    """A path, which can remove what it leads to."""

    def __init__(self, text: str) -> None:
        """Raises `InvalidInput` if the text is no path of this kind."""
        self._steps = tuple(_steps(text))

    def remove(self, value: Any) -> bool:
        """Remove what the path leads to in a value; return whether anything was there."""
        return _remove(value, self._steps)


def _steps(text: str) -> list[tuple[str, str]]:
    if not text.startswith("$") or len(text) < 2:
        raise _wrong(text)
    steps, at = [], 1
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise _wrong(text)
        kind = "below" if step["below"] is not None else "all" if step["all"] is not None else "member"
        steps.append((kind, step["below"] or step["member"] or step["quoted"] or ""))
        at = step.end()
    return steps


def _wrong(text: str) -> InvalidInput:
    return InvalidInput(f"{text[:100]!r} is no path: use such as $.error.message, $..password or $.rows[*].name")


def _remove(value: Any, steps: Sequence[tuple[str, str]]) -> bool:
    (kind, name), rest = steps[0], steps[1:]
    if kind == "all":
        return _remove_elements(value, rest)
    removed = False
    if isinstance(value, dict) and name in value:
        if rest:
            removed = _remove(value[name], rest)
        else:
            del value[name]
            removed = True
    if kind == "below":
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for each in list(inner):
            removed = _remove(each, steps) or removed
    return removed


def _remove_elements(value: Any, rest: Sequence[tuple[str, str]]) -> bool:
    if not isinstance(value, list):
        return False
    if rest:
        return [_remove(each, rest) for each in value].count(True) > 0
    removed = bool(value)
    value.clear()
    return removed
