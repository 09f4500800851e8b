"""Children that this process created a moment ago. If Redis loses that their parent has them, it is told again."""

import time
from collections import deque

from progress_broker.errors import BrokerError
from progress_workers.core.opening import Opening
from progress_workers.core.outgoing.sent import KEPT_S
from progress_workers.transport.answers import AWAY
from progress_workers.transport.carrier import Carrier

MAX_CHILDREN = 1000
"""How many are known. If more are created, the oldest are forgotten."""


class NewChildren:
    """The children of any parents. Any thread adds them; the one that sends tells their parents again."""

    def __init__(self) -> None:
        self._created: deque[tuple[float, Opening]] = deque(maxlen=MAX_CHILDREN)
        self._untold: dict[str, Opening] = {}

    @property
    def waits(self) -> bool:
        """Whether a parent has to be told again."""
        return bool(self._untold)

    def add(self, opening: Opening | None) -> None:
        """Note that an operation is created, or will soon be."""
        if opening is not None and opening.new is not None and opening.new.parent is not None:
            self._created.append((time.monotonic(), opening))

    def parent_lost_events(self, parent: str) -> None:
        """Note that Redis lost what it had stored of an operation, perhaps also that it has children."""
        since = time.monotonic() - KEPT_S
        for at, opening in list(self._created):
            if at >= since and opening.new is not None and opening.new.parent == parent:
                self._untold[opening.operation] = opening

    def tell_parents(self, carrier: Carrier) -> None:
        """Tell the parents again. Raises what a carrier raises if the broker does not answer; then the rest waits."""
        for operation, opening in list(self._untold.items()):
            try:
                if opening.new is not None:
                    carrier.create(operation, opening.new, opening.traceparent, notify=True)
            except AWAY:
                raise
            except BrokerError:
                pass  # it has another body by now, or is deleted
            del self._untold[operation]
