"""A stream: one client's way out, whatever leaves by it. It ends once, however that comes about."""

from collections.abc import Sequence
from enum import Enum

from progress_broker.stream.delivery import Delivery, Terms
from progress_broker.stream.frames import Frame, opening_frame, reconnect_frame
from progress_broker.stream.outlet import NO_OUTLET, Outlet, size


class Mode(Enum):
    """What a stream does with a new frame."""

    AWAITING = "awaiting"  # the operation does not exist yet
    CATCHING_UP = "catching up"
    LIVE = "live"
    CLOSED = "closed"


class Stream:
    """What a subscription and a bundle of them have in common: an outlet, pings, an age, and one end."""

    __slots__ = (
        "_expires_at",
        "_terms",
        "bucket",
        "connection",
        "delivery",
        "full_since",
        "mode",
        "opened_at",
        "outlet",
    )

    def __init__(self, delivery: Delivery, terms: Terms) -> None:
        self.delivery = delivery
        self.mode = Mode.CATCHING_UP
        self.outlet: Outlet = NO_OUTLET
        self.bucket = 0
        self.connection = ""
        """What log lines and its client call it."""
        self.opened_at: float | None = None
        """When it was placed, by its hub's clock; None before that."""
        self.full_since: float | None = None
        """Since when its outlet has had no room, by its hub's clock."""
        self._terms = terms
        self._expires_at = delivery.deadline

    @property
    def operation(self) -> str:
        """Whose events it tells; `*` for those of many."""
        raise NotImplementedError

    # What the outlet calls

    def attach(self, outlet: Outlet) -> None:
        """Open the way out."""
        if self.mode is Mode.CLOSED:  # the hub closed while the response was on its way
            outlet.close()
            return
        self.outlet = outlet
        self._expires_at = min(self._terms.clock() + self._terms.max_age_s(), self.delivery.deadline)
        self._begin([opening_frame(self._terms.retry_ms()), *self.delivery.first])

    def filled(self) -> None:
        """Stop: the outlet has no room for more."""
        if self.mode is not Mode.CLOSED:
            if self.full_since is None:
                self.full_since = self._terms.clock()
                self._terms.tally.slowed[self.outlet.kind] += 1
            self._stop()

    def close(self, reason: str = "client", *, reconnect: bool = False) -> None:
        """End it, once. With `reconnect` the client is told why, and comes back with its position."""
        if self._leave(reason):
            outlet, self.outlet = self.outlet, NO_OUTLET
            if reconnect:
                outlet.write(outlet.encoding.encode((reconnect_frame(reason, self._terms.retry_ms()),)))
            outlet.close()

    def abort(self, reason: str) -> None:
        """End it without a word to a client that takes nothing."""
        if self._leave(reason):
            outlet, self.outlet = self.outlet, NO_OUTLET
            outlet.abort()

    # What the wheel calls

    def tick(self, now: float) -> float | None:
        """Ping; end it when it is too old, or when its client takes nothing. Return when to tick next."""
        if now >= self._expires_at:
            self.close("expired" if now >= self.delivery.deadline else "max-age", reconnect=True)
        elif self.full_since is None:
            self._write((self.delivery.ping,))
        elif now - self.full_since >= self._terms.stuck_timeout_s:
            self.abort("stuck")
        return None if self.mode is Mode.CLOSED else min(self._terms.ping_s, self._expires_at - now)

    # What is each one's own

    def drained(self) -> None:
        """Go on: the outlet has room again."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Stop awaiting what does not exist yet, and has not appeared."""
        raise NotImplementedError

    def _begin(self, opening: list[Frame]) -> None:
        """Send what opens a stream, and then what there is."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Send nothing until there is room again."""
        raise NotImplementedError

    def _let_go(self) -> None:
        """Leave everything but the outlet: it has ended."""
        raise NotImplementedError

    # Within

    def _write(self, frames: Sequence[Frame]) -> None:
        if frames:
            data = self.outlet.encoding.encode(frames)
            self._terms.tally.written[self.outlet.kind].bytes += size(data)
            self.outlet.write(data)

    def _leave(self, reason: str) -> bool:
        """Leave everything but the outlet, once."""
        if self.mode is Mode.CLOSED:
            return False
        self.mode = Mode.CLOSED
        self._let_go()
        self._terms.on_close(self, reason)
        return True
