"""Test doubles for the live path: an outlet with a limited buffer, and a clock that the test moves."""

from collections.abc import Callable, Sequence

import orjson

from progress_broker.model.event import Event
from progress_broker.stream.delivery import Delivery, StreamPolicy
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.subscription import Subscription

ALL = Delivery()


def event(n: int, type: str = "progress", operation: str = "a", data: bytes = b"{}") -> Event:
    return Event(operation.encode(), b"%d-0" % (1_000 + n), n, type.encode(), data)


def frame(n: int, type: str = "progress") -> Frame:
    return make_frame(event(n, type))


class Outlet:
    """Accepts frames. Its buffer has room for `room` frames until it is drained."""

    kind = "test"
    client = ""
    encoding = UNENCODED

    def __init__(self, subscription: Subscription, room: int = 1_000_000) -> None:
        self.subscription, self.room, self.held = subscription, room, 0
        self.frames: list[Frame] = []
        self.closed = self.aborted = False

    def write(self, frames: Sequence[Frame]) -> None:
        assert not self.closed, "written to after its end"
        self.frames += frames
        self.held += len(frames)
        if self.held >= self.room:
            self.subscription.pause_writing()

    def drain(self) -> None:
        self.held = 0
        self.subscription.resume_writing()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    @property
    def numbers(self) -> list[int]:
        """The numbers of the delivered events; a snapshot is shown as -n."""
        return [-frame.n if frame.type == b"snapshot" else frame.n for frame in self.frames if frame.n]

    @property
    def types(self) -> list[str]:
        return [frame.type.decode() for frame in self.frames if frame.type]

    def reasons(self) -> list[str]:
        return [orjson.loads(f.wire.partition(b"data: ")[2])["reason"] for f in self.frames if f.type == b"reconnect"]


class Timers:
    """A clock with timers; the test moves it."""

    class Timer:
        def __init__(self, at: float, run: Callable[[], None]) -> None:
            self.at, self.run, self.cancelled = at, run, False

        def cancel(self) -> None:
            self.cancelled = True

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timers.Timer] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, delay: float, run: Callable[[], None]) -> "Timers.Timer":
        timer = Timers.Timer(self.now + delay, run)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.at <= self.now]
        self.timers = [timer for timer in self.timers if timer.at > self.now]
        for timer in due:
            if not timer.cancelled:
                timer.run()

    def policy(self, closed: list[str] | None = None, **changes: float) -> StreamPolicy:
        reasons: list[str] = [] if closed is None else closed
        times = {"ping_s": 15.0, "stuck_timeout_s": 60.0} | changes
        return StreamPolicy(
            **times,
            max_age_s=lambda: 3600,
            retry_ms=lambda: 2000,
            clock=self.clock,
            call_later=self.call_later,
            on_close=lambda _, reason: reasons.append(reason),
        )
