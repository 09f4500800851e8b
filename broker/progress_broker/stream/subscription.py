"""A subscription: one client's place in one operation's log. One idea serves resume, hand-over and slow clients.

It is a position and a mode. *Catching up*, it pulls frames from its channel, page by page, as fast as its outlet takes
them; *live*, it stands where its channel stands, which writes each new frame to its outlet. It holds no frames: when
the outlet is full it falls back and later catches up from where it stood, so memory is bounded and nothing is lost. No
I/O happens here, and no clock is read that was not handed in.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from progress_broker.model.event import END, SNAPSHOT
from progress_broker.runtime.tally import Written
from progress_broker.stream.batching import Types, conflate, slices, wanted
from progress_broker.stream.delivery import Delivery, Terms
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import NO_OUTLET, Encoding
from progress_broker.stream.stream import Mode, Stream
from progress_broker.stream.throttle import Pace

log = logging.getLogger(__name__)

CONFLATE_OVER = 32
"""A slow client this many frames behind is sent the newest of each run of `progress` instead of all."""


class Source(Protocol):
    """Where a subscription gets frames from: its channel."""

    @property
    def operation(self) -> str:
        """Whose events they are."""

    @property
    def n(self) -> int:
        """The number of the last event handed on; all that are live have it."""

    @property
    def position(self) -> bytes:
        """The position of that event."""

    @property
    def loaded(self) -> bool:
        """Whether the recent frames are known; when they come to be, `Subscription.pump` is called."""

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, none if there are none yet, or None if they are no longer at hand."""

    def read_page(self, subscription: "Subscription") -> None:
        """Read older frames after the subscription's position, and call `take_page`."""

    def read_snapshot(self, subscription: "Subscription", reset: str | None) -> None:
        """Read the operation, and call `take_snapshot`."""

    def wake(self, subscription: "Subscription") -> None:
        """Call `Subscription.pump` when there is another frame."""

    def join(self, subscription: "Subscription") -> None:
        """Write each new frame to the subscription's outlet from now on."""

    def part(self, subscription: "Subscription") -> None:
        """Write no more to it."""

    def leave(self, subscription: "Subscription") -> None:
        """Forget the subscription."""


class Aside(Protocol):
    """What it may be told beside its log: state, of which the newest is enough.

    Its frames have no position: they are sent to who has caught up.
    """

    def news(self, *, last: bool = False) -> Sequence[Frame]:
        """Return what is to be sent now, if anything is; the `last` time is before the `end`."""

    def leave(self) -> None:
        """Forget the subscription."""


class Audience(NamedTuple):
    """Subscriptions that are sent the same bytes."""

    encoding: Encoding
    types: Types
    written: Written


class Subscription(Stream):
    """One client's place in one operation's log.

    Its maker places it with `begin` and gives it its way out with `attach`, which calls `filled`, `drained`, `close`.
    """

    __slots__ = (
        "_first",
        "_has_room",
        "_overtaken",
        "_reading",
        "_slow",
        "_source",
        "aside",
        "n",
        "pace",
        "position",
    )

    def __init__(self, source: Source, delivery: Delivery, terms: Terms) -> None:
        super().__init__(delivery, terms)
        self.n = 0
        """The last event it was sent, unless it is live: then its source's."""
        self.position = b"0-0"
        self.pace: Pace | None = None
        self.aside: Aside | None = None
        self._source = source
        self._first: Sequence[Frame] = ()
        self._has_room = False
        self._reading = False  # a page or a snapshot has been asked for
        self._overtaken: str | None = None  # why what is being read is of no use
        self._slow = False  # it has filled its outlet since it was last live

    @property
    def audience(self) -> Audience:
        """Who is sent the same while they are live."""
        return Audience(self.outlet.encoding, self.delivery.types, self._terms.tally.written[self.outlet.kind])

    @property
    def operation(self) -> str:
        """Whose events it is sent."""
        return self._source.operation

    # Placing it

    def begin(self, n: int, position: bytes, first: Sequence[Frame] = ()) -> None:
        """Stand after the n-th event, and send `first` before all else."""
        if self._first:  # a reset came before it was placed, and so did its snapshot
            return
        self.n, self.position, self._first = n, position, first

    def wait(self) -> None:
        """Stand before an operation that does not exist yet; its snapshot comes when it does."""
        if self.mode is not Mode.CLOSED:  # as it may be, if the hub drained meanwhile
            self.mode = Mode.AWAITING

    # What the channel calls

    def offer(self, frames: Sequence[Frame]) -> None:
        """Take new frames at its own pace, while it is live."""
        if self.pace is not None:
            self.pace.take(wanted(frames, self.delivery.types))

    def ended(self) -> None:
        """Close: the end has been written to it, while it was live."""
        self.close("ended")

    def appeared(self) -> None:
        """Begin, if it awaits the operation."""
        if self.mode is Mode.AWAITING:
            self.mode = Mode.CATCHING_UP
            self.reset(None)

    def fall_back(self) -> None:
        """Be live no more, and stand where the source stands now."""
        if self.mode is Mode.LIVE:
            self._source.part(self)
            self.n, self.position = self._source.n, self._source.position
            self.mode = Mode.CATCHING_UP

    def reset(self, reason: str | None) -> None:
        """Ask for a snapshot to go on from: history can't be replayed for this reason, or None when it just begins."""
        if self.mode is Mode.CLOSED:
            return
        if self._reading:  # what is being read may be from before this
            self._overtaken = reason
            return
        if reason is not None:
            self._terms.tally.resets[reason] += 1
            # Lost history is told of once, by the channel: it meets all who watch at one moment.
            level = logging.DEBUG if reason == "lost" else logging.INFO
            said = {"connection": self.connection, "operation": self.operation, "reason": reason}
            log.log(level, "stream %s of operation %s is reset: %s", *said.values(), extra=said)
        self.fall_back()
        self.mode = Mode.CATCHING_UP
        self._reading = True
        self._source.read_snapshot(self, reason)

    def take_page(self, frames: Sequence[Frame], reset: str | None = None) -> None:
        """Take the page that was asked for, or why there is none."""
        if self._arrived():
            return
        if reset is None and frames and frames[-1].n > self.n:
            self._take(frames)
            self.pump()
        else:  # a page that leads nowhere is a log that does not hold what it should
            self.reset(reset or "lost")

    def take_snapshot(self, frame: Frame, *, done: bool) -> None:
        """Take the snapshot that was asked for. That of an ended operation is followed by its `end`."""
        if self._arrived():
            return
        if self.pace is not None:
            self.pace.drop()
        self.n, self.position = frame.n - done, frame.position
        if self.outlet is NO_OUTLET:
            self._first = (frame,)  # to be sent when there is a way out
        else:
            self._write((frame,))
        self.pump()

    def nudge(self, *, last: bool = False) -> None:
        """Send what there is beside the log, if it has caught up; for the `last` time, where the end comes next."""
        if self.aside is not None and self.mode is Mode.LIVE:
            try:
                self._write(self.aside.news(last=last))
            except Exception:
                log.exception("a client's outlet broke; it is cut off")
                self.abort("broken")

    def pump(self) -> None:
        """Catch up as far as the outlet has room; go live when there is nothing left."""
        while self.mode is Mode.CATCHING_UP and self._has_room and not self._reading and self._source.loaded:
            frames = self._source.after(self.n)
            if frames is None:
                self._reading = True
                self._source.read_page(self)
            elif frames:
                self._take(frames)
            elif self.n > self._source.n:  # a page or a snapshot told more than the feed has yet
                self._source.wake(self)
                return
            else:
                self.mode = Mode.LIVE
                self._terms.tally.caught_up += self._slow
                self._slow = False
                self._source.join(self)
                self.nudge()

    # What the outlet calls

    def drained(self) -> None:
        """Go on: the outlet has room again."""
        if not self._has_room and self.mode is not Mode.CLOSED:
            self._has_room, self.full_since = True, None
            self.pump()

    def give_up(self) -> None:
        """Stop awaiting an operation that has not appeared."""
        if self.mode is Mode.AWAITING:
            self.close("not-found", reconnect=True)

    # What it does in its own way (`Stream`)

    def _begin(self, opening: list[Frame]) -> None:
        self._has_room = True
        if self.delivery.interval_s:
            self.pace = Pace(self.delivery.interval_s, self._terms.clock, self._terms.call_later, self._write)
        first, self._first = self._first, ()
        if first and first[0].type == SNAPSHOT:
            opening += first
            first = ()
        self._write(opening)
        self._take(first)
        self.pump()

    def _stop(self) -> None:
        self._has_room, self._slow = False, True
        self.fall_back()

    def _let_go(self) -> None:
        self._source.leave(self)
        if self.aside is not None:
            self.aside.leave()
        if self.pace is not None:
            self.pace.drop()

    # Within

    def _arrived(self) -> bool:
        """Note that a read has come back; return whether it is of no use any more."""
        self._reading = False
        reason, self._overtaken = self._overtaken, None
        if reason is not None:
            self.reset(reason)
        return reason is not None or self.mode is Mode.CLOSED

    def _take(self, frames: Sequence[Frame]) -> None:
        if self._slow and len(frames) > CONFLATE_OVER:
            every, frames = len(frames), conflate(frames)
            self._terms.tally.conflated += every - len(frames)
        for some in slices(frames, self.n):
            if not self._has_room or self.mode is Mode.CLOSED:
                return
            last = some[-1]
            self.n, self.position = last.n, last.position
            if last.type == END and self.aside is not None:
                some = [*some[:-1], *self.aside.news(last=True), last]
            if self.pace is None:
                self._write(wanted(some, self.delivery.types))
            else:
                self.offer(some)
            if last.type == END:
                self.close("ended")
