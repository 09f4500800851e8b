"""What a watcher was told of an operation, and whether that is its log."""

import time
from itertools import zip_longest
from typing import Any, NamedTuple

import orjson


class Line(NamedTuple):
    """An event, as the log and all watchers have it."""

    n: int
    at_ms: int
    text: str

    @classmethod
    def of(cls, envelope: Any) -> "Line":
        data = envelope["data"]
        text = (
            data["message"] if envelope["type"] == "log" else orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()
        )
        return cls(envelope["n"], envelope["time"], f"{envelope['type']} {text}")


class Reset(NamedTuple):
    at: float
    n: int
    reason: str
    forgotten: list[Line]
    """The events that were told before, and are told again if they are not lost."""


class Told:
    """The events that one watcher was told of one operation."""

    def __init__(self, kind: str, operation: str) -> None:
        self.kind, self.operation = kind, operation
        self.lines: list[Line] = []
        self.resets: list[Reset] = []
        self.faults: list[str] = []
        self.begins_after = 0
        self.has_begun = self.ended = False

    def take(self, envelope: Any) -> None:
        """Take an event, as `data` of a stream has it."""
        match envelope["type"]:
            case "bookmark" | "children":
                return
            case "snapshot":
                self._snapshot(envelope)
            case type:
                self.has_begun = True
                self.lines.append(Line.of(envelope))
                self.ended = type == "end"

    def _snapshot(self, envelope: Any) -> None:
        n, reason = envelope["n"], envelope.get("reset")
        if reason is not None:
            self.reset(n, reason, [line for line in self.lines if line.n <= n])
            self.begins_after = min(self.begins_after, n) if self.has_begun else n
        elif not self.lines:
            self.begins_after = n - envelope["data"]["done"]
        elif not envelope["data"]["done"]:
            self.faults.append(f"a snapshot of {n} that nobody asked for")
        self.has_begun = True

    def reset(self, n: int, reason: str, left: list[Line]) -> None:
        """Forget all but what is left."""
        self.resets.append(Reset(time.monotonic(), n, reason, self.lines[len(left) :]))
        self.lines, self.ended = left, False

    def forget(self) -> None:
        """Take that the operation is not there: if it was, it is lost with all its events."""
        if self.lines:
            self.reset(0, "lost", [])
            self.begins_after = 0

    def as_json(self) -> dict[str, Any]:
        return vars(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Told":
        told = cls(said["kind"], said["operation"])
        vars(told).update(said)
        told.lines = [Line(*line) for line in said["lines"]]
        told.resets = [Reset(*reset, [Line(*line) for line in lines]) for *reset, lines in said["resets"]]
        return told

    def differences(self, log: list[Line], *, whole: bool = True) -> list[str]:
        """Say where it was told something else than the log has, of which nothing may be missing.

        Unless it is to be `whole`, only what came after the last reset counts.
        """
        after = self.begins_after if whole or not self.resets else max(self.begins_after, self.resets[-1].n)
        found, expected = [*self.faults], log[after:]
        lines = self.lines if whole else [line for line in self.lines if line.n > after]
        if lines != expected:
            pairs = enumerate(zip_longest(lines, expected))
            place = next(i for i, (told, stored) in pairs if told != stored)
            around = slice(max(0, place - 1), place + 2)
            found.append(
                f"{len(lines)} events of {len(expected)}; at {place}: {lines[around]}, in the log"
                f" {expected[around]}; resets {self.resets}"
            )
        if not self.ended:
            found.append("its end was not told")
        return [f"{self.kind} of {self.operation}: {each}" for each in found]
