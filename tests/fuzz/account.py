"""What a client has been told of operations, and whether that can be: each event once, in order, or a reset."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from progress_broker.errors import Gone, NotFound
from progress_broker.history import event_log
from progress_broker.model.event import PROGRESS
from progress_broker.operations.store import Store
from tests.fuzz.published import Published
from tests.fuzz.reading import Told


@dataclass
class Known:
    """What a client knows of an operation."""

    n: int
    title: str
    running: bool = True


@dataclass
class Heard:
    """What a client was told of an operation after the `base`-th event; a reset takes back what Redis has lost."""

    base: int
    events: dict[int, tuple[str, Any]] = field(default_factory=dict)


class Account:
    """Keeps what one client was told, over all its connections."""

    def __init__(self, name: str, published: Published, *, all_is_kept: bool = False) -> None:
        self.name, self.published = name, published
        self._all_is_kept = all_is_kept
        self.known: dict[str, Known] = {}
        self.counts: Counter[str] = Counter()
        self.may_conflate = False
        """Whether progress may have been left out, as the client was slow or asked for an interval."""
        self._has_conflated = False
        self._heard: dict[tuple[str, str], Heard] = {}
        self._gone: dict[str, Known] = {}
        self._faults: list[str] = []
        self._gaps: list[tuple[str, str, range, list[str]]] = []
        self._recent: deque[str] = deque(maxlen=400)

    def connected(self, description: str) -> None:
        self._recent.append(f"connected: {description}")

    def snapshot(self, told: Told, *, expected: bool) -> None:
        """Take a snapshot; one that is not `expected` has to say why it is told."""
        operation, n, state = told.data["operation"], told.data["n"], told.data["data"]
        known, reset = self.known.get(operation), told.data.get("reset")
        self._note(told)
        told_before = known is not None and known.n > 0 and known.title == state["title"]
        if known and known.running and told_before and reset is None and not expected:
            self.fail(f"{operation} is told again without a reason")
        self._restart(operation, n, state["title"], known, reset)
        self.known[operation] = Known(n - 1 if state["done"] and n == state["events"] else n, state["title"])
        self.counts[f"reset {reset}" if reset else "snapshots"] += 1

    def event(self, told: Told) -> None:
        """Take an event of an operation."""
        operation, n = told.data["operation"], told.data["n"]
        self._note(told)
        if operation not in self.known and operation in self._gone:
            # Redis has lost its deletion. It may have been told in the middle of what a reset told again.
            title = self._gone[operation].title
            self.known[operation], self._heard[operation, title] = Known(n - 1, title), Heard(n - 1)
        known = self.known.get(operation)
        if known is None:
            self.fail(f"event {n} of {operation} comes before its snapshot")
            known = self.known[operation] = Known(n - 1, "")
        if n <= known.n:
            self.fail(f"event {n} of {operation} comes again: {known.n} was told")
        if n > known.n + 1:
            missed = range(known.n + 1, n)
            if not self.may_conflate:
                self.fail(f"events {missed} of {operation} are missing, without a reset")
            self._gaps.append((operation, known.title, missed, [*self._recent]))
        known.n, known.running = n, told.name != "end"
        self._has_conflated |= self.may_conflate
        self._heard.setdefault((operation, known.title), Heard(n - 1)).events[n] = told.name, told.data["data"]
        self.counts["events"] += 1

    def forget(self, operation: str) -> None:
        """Forget an operation that has ended or was deleted. If Redis can lose that, it may go on."""
        known = self.known.pop(operation, None)
        if known is not None and self._all_is_kept:
            self._gone[operation] = known

    def note(self, told: Told) -> None:
        """Take what is no event of an operation."""
        self._note(told)
        self.counts[f"{told.name} {told.data.get('reason', '')}".strip()] += 1

    async def compare(self, store: Store) -> None:
        """Compare what was told of each operation with its log: nothing that is stored may be untold."""
        for (operation, title), heard in self._heard.items():
            try:
                if (await store.get(operation)).title != title:
                    continue
                events = await event_log.kept(store, operation, 100_000)
            except (Gone, NotFound):
                continue
            for event in events:
                stored = event.type.decode(), orjson.loads(event.data)
                told = heard.events.get(event.n)
                left_out = told is None and self._has_conflated and event.type == PROGRESS
                if event.n > heard.base and told != stored and not left_out:
                    self.fail(f"event {event.n} of {operation} is stored as {stored!s:.40}, and told as {told!s:.40}")

    def check(self) -> None:
        """Compare what was left out with what was published, and raise if anything was wrong."""
        for operation, title, missed, recent in self._gaps:
            life = self.published.lives.get((operation, title))
            if life is not None and not life.may_miss(missed):
                self._recent = deque(recent)
                self.fail(f"events {missed} of {operation} are missing, and not all of them are progress {life}")
        assert not self._faults, "\n".join([*self._faults[:5], f"{len(self._faults)} faults"])

    def fail(self, what: str) -> None:
        """Remember a fault: raised here, it would be the outlet's, which the hub survives."""
        about = {word for word in what.split() if (word, self.published.newest.get(word)) in self.published.lives}
        shown = [
            line for line in self._recent if line.startswith("connected") or any(f"'{it}'" in line for it in about)
        ]
        lines = "\n  ".join(shown[-60:])
        self._faults.append(f"{self.name}: {what}; before that:\n  {lines}")

    def _restart(self, operation: str, n: int, title: str, known: Known | None, reset: str | None) -> None:
        """Forget what a snapshot takes back: after a loss, what came after it; otherwise all."""
        heard = self._heard.get((operation, title))
        if heard is None or known is None or known.title != title or reset != "lost":
            self._heard[operation, title] = Heard(n)
        elif n > known.n and self._all_is_kept:
            self.fail(f"events after {known.n} up to {n} of {operation} are told by a reset alone")
        else:
            heard.base = min(heard.base, n)
            heard.events = {number: event for number, event in heard.events.items() if number <= n}

    def _note(self, told: Told) -> None:
        data = {
            name: told.data[name] for name in ("operation", "n", "reset", "reason", "operations") if name in told.data
        }
        self._recent.append(f"{told.name} {data} id {told.id}")
