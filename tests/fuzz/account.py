"""What a client has been told of operations, and whether that can be: each event once, in order, or a reset."""

from collections import Counter, deque
from dataclasses import dataclass

from tests.fuzz.published import Published
from tests.fuzz.reading import Told


@dataclass
class Known:
    """What a client knows of an operation."""

    n: int
    title: str
    running: bool = True


class Account:
    """Keeps what one client was told, over all its connections."""

    def __init__(self, name: str, published: Published) -> None:
        self.name, self.published = name, published
        self.known: dict[str, Known] = {}
        self.counts: Counter[str] = Counter()
        self.may_conflate = False
        """Whether progress may have been left out, as the client was slow or asked for an interval."""
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
        if known and known.running and known.title == state["title"] and reset is None and not expected:
            self.fail(f"{operation} is told again without a reason")
        self.known[operation] = Known(n - 1 if state["done"] else n, state["title"])
        self.counts[f"reset {reset}" if reset else "snapshots"] += 1

    def event(self, told: Told) -> None:
        """Take an event of an operation."""
        operation, n = told.data["operation"], told.data["n"]
        self._note(told)
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
        self.counts["events"] += 1

    def note(self, told: Told) -> None:
        """Take what is no event of an operation."""
        self._note(told)
        self.counts[f"{told.name} {told.data.get('reason', '')}".strip()] += 1

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

    def _note(self, told: Told) -> None:
        data = {
            name: told.data[name] for name in ("operation", "n", "reset", "reason", "operations") if name in told.data
        }
        self._recent.append(f"{told.name} {data} id {told.id}")
