"""A stream: everything that is sent to one client over one outlet. It closes exactly once, for whatever reason."""

import logging
from collections.abc import Sequence
from enum import Enum
from math import inf

from progress_broker.stream.delivery import Delivery, StreamPolicy, connection_name
from progress_broker.stream.frames import Frame, opening_frame, reconnect_frame
from progress_broker.stream.outlet import NO_OUTLET, Outlet, size

log = logging.getLogger(__name__)


class Mode(Enum):
    """What a stream does with a new frame."""

    STARTING = "starting"  # its position is being looked up
    AWAITING = "awaiting"  # the operation does not exist yet
    CATCHING_UP = "catching up"
    LIVE = "live"
    CLOSED = "closed"


class Stream:
    """The common part of a subscription and a bundle: an outlet, pings, a maximum age, and one end."""

    __slots__ = (
        "_max_age_s",
        "_policy",
        "bucket",
        "delivery",
        "full_since",
        "mode",
        "number",
        "opened_at",
        "outlet",
    )

    def __init__(self, delivery: Delivery, policy: StreamPolicy) -> None:
        self.delivery = delivery
        self.mode = Mode.CATCHING_UP
        self.outlet: Outlet = NO_OUTLET
        self.bucket = 0
        self.number = 0
        """The number of its connection at this replica."""
        self.opened_at: float | None = None
        """When the stream got its start position or its outlet, by the hub's clock; None before that."""
        self.full_since: float | None = None
        """Since when the outlet's buffer has been full, by the hub's clock; None if it has room."""
        self._policy = policy
        self._max_age_s = inf

    @property
    def connection(self) -> str:
        """The name of its connection, for log lines and for the client. Idle streams do not keep it in memory."""
        return self.delivery.connection or connection_name(self._policy.replica, self.number)

    @property
    def operation(self) -> str:
        """The id of its operation; `*` if it follows several."""
        raise NotImplementedError

    @property
    def percent(self) -> float | None:
        """The last percentage of its operation that is in memory, for log lines; None if it follows several."""
        return None

    @property
    def _expires_at(self) -> float:
        # Not stored: a float of its own would take 32 bytes of an idle stream. Both of these are shared.
        opened_at, deadline = self.opened_at, self.delivery.deadline
        return deadline if opened_at is None else min(opened_at + self._max_age_s, deadline)

    # What the outlet calls

    def attach(self, outlet: Outlet) -> None:
        """Start to write to an outlet."""
        if self.mode is Mode.CLOSED:  # a shutdown closed it before the response started
            outlet.close()
            return
        self.outlet = outlet
        self._max_age_s = self._policy.max_age_s()
        if self.opened_at is None:
            self.opened_at = self._policy.clock()
        self._begin([opening_frame(self._policy.retry_ms()), *self.delivery.first])

    def pause_writing(self) -> None:
        """Stop writing: the outlet's buffer is full."""
        if self.mode is not Mode.CLOSED:
            if self.full_since is None:
                self.full_since = self._policy.clock()
                self._policy.tally.slowed[self.outlet.kind] += 1
            self._stop()

    def close(self, reason: str = "client", *, reconnect: bool = False) -> None:
        """Close the stream; a second call does nothing. With `reconnect` the client gets the reason and resumes."""
        if self._leave(reason):
            outlet, self.outlet = self.outlet, NO_OUTLET
            try:
                if reconnect:
                    outlet.write(outlet.encoding.encode((reconnect_frame(reason, self._policy.retry_ms()),)))
                outlet.close()
            except Exception:
                log.exception("closing a stream failed; its client is disconnected")
                outlet.abort()

    def abort(self, reason: str) -> None:
        """Close the stream without a last message, because the client does not receive anything."""
        if self._leave(reason):
            outlet, self.outlet = self.outlet, NO_OUTLET
            outlet.abort()

    # What the wheel calls

    def tick(self, now: float) -> float | None:
        """Send a ping, or close the stream if it is too old or its client is stuck.

        Return the seconds until the next tick, or None.
        """
        try:
            self._tick(now)
        except Exception:  # without ticks it would stay open for ever
            log.exception("writing to a client failed; it is disconnected")
            self.abort("broken")
        return None if self.mode is Mode.CLOSED else min(self._policy.ping_s, self._expires_at - now)

    def _tick(self, now: float) -> None:
        if now >= self._expires_at:
            self.close("expired" if now >= self.delivery.deadline else "max-age", reconnect=True)
        elif self.full_since is None:
            self._write((self.delivery.ping,))
        elif now - self.full_since >= self._policy.stuck_timeout_s:
            self.abort("stuck")

    # What subclasses implement

    def resume_writing(self) -> None:
        """Continue to write: the outlet's buffer has room again."""
        raise NotImplementedError

    def stop_awaiting(self) -> None:
        """Stop waiting for operations that do not exist yet."""
        raise NotImplementedError

    def _begin(self, opening_frames: list[Frame]) -> None:
        """Send the opening frames, then the events."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Send nothing until the buffer has room again."""
        raise NotImplementedError

    def _detach(self) -> None:
        """Release everything except the outlet: the stream has closed."""
        raise NotImplementedError

    # Internal

    def _write(self, frames: Sequence[Frame]) -> None:
        if frames:
            data = self.outlet.encoding.encode(frames)
            self._policy.tally.written[self.outlet.kind].bytes += size(data)
            self.outlet.write(data)

    def _leave(self, reason: str) -> bool:
        """Release everything except the outlet, once."""
        if self.mode is Mode.CLOSED:
            return False
        self.mode = Mode.CLOSED
        self._detach()
        self._policy.on_close(self, reason)
        return True
