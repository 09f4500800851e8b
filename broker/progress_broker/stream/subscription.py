"""A subscription: one client's position in one operation's log. Resume, start of live delivery and slow clients all use
the same mechanism.

A subscription has a position and a mode. While *catching up*, it reads frames from its channel, page by page, as fast
as its outlet accepts them. While *live*, it has the channel's position, and the channel writes each new frame to the
outlet. It buffers no frames. When the outlet's buffer is full, it stops being live, and later catches up from its
position. So memory is bounded and nothing is lost. No I/O happens here, and the clock is passed in.
"""

import logging
from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from progress_broker.model.event import END, SNAPSHOT
from progress_broker.model.position import START, order
from progress_broker.runtime.tally import BytesWritten
from progress_broker.stream.batching import Types, conflate, slices, told
from progress_broker.stream.delivery import Delivery, StreamPolicy
from progress_broker.stream.frame_source import FrameSource, SideChannel
from progress_broker.stream.frames import Frame, bookmark_frame
from progress_broker.stream.outlet import NO_OUTLET, Encoding
from progress_broker.stream.replay import Reading
from progress_broker.stream.stream import Mode, Stream
from progress_broker.stream.throttle import Throttle

log = logging.getLogger(__name__)

CONFLATE_OVER = 32
"""If a slow client is more frames behind than this, it gets only the newest of consecutive `progress` events."""


class Audience(NamedTuple):
    """The key of a group of subscriptions that get the same bytes."""

    encoding: Encoding
    types: Types
    written: BytesWritten


class Subscription(Stream):
    """One client's position in one operation's log.

    Its creator sets the position with `begin` and the outlet with `attach`. The outlet then calls `pause_writing`,
    `resume_writing` and `close`.
    """

    __slots__ = (
        "_first",
        "_has_room",
        "_reading",
        "_replays",
        "_slow",
        "_source",
        "_superseded",
        "n",
        "position",
        "side",
        "throttle",
    )

    of_lane = False
    """Whether its client has one position for all operations of a lane."""

    def __init__(self, source: "FrameSource[Subscription]", delivery: Delivery, policy: StreamPolicy) -> None:
        super().__init__(delivery, policy)
        self.mode = Mode.STARTING
        self.n = 0
        """The number of the last event that was sent. While it is live, its source's `n` counts instead."""
        self.position = b"0-0"
        self.throttle: Throttle | None = None
        self.side: SideChannel | None = None
        self._source = source
        self._first: Sequence[Frame] = ()
        self._has_room = False
        self._reading = False  # a page or a snapshot was requested
        self._superseded: str | None = None  # why the result of the read in progress is useless
        self._replays = False  # it resumes, and its client has not been told yet that it has all
        self._slow = False  # its buffer was full since it was last live

    @property
    def audience(self) -> Audience:
        """The group of live subscriptions that get the same bytes."""
        return Audience(self.outlet.encoding, self.delivery.types, self._policy.tally.written[self.outlet.kind])

    @property
    def operation(self) -> str:
        """The operation's id."""
        return self._source.operation

    @property
    def percent(self) -> float | None:
        """The last percentage of its operation that is in memory, for log lines."""
        return self._source.percent

    @property
    def has_first_frames(self) -> bool:
        """Whether it was begun with frames that have not been sent yet."""
        return bool(self._first)

    @property
    def told_position(self) -> bytes:
        """The position up to which its client has been told all events."""
        return self.position

    @property
    def restarted_at(self) -> bytes | None:
        """The position from which its client is told all again after a loss, if it has been told nothing since."""
        return None

    # Start

    def expect(self, position: bytes) -> None:
        """Set the position that its client has, until `begin`: history may be lost before that."""
        self.position = position

    def begin(self, n: int, position: bytes, first: Sequence[Frame] = ()) -> None:
        """Start after the n-th event, and send `first` before all other frames."""
        if self._first or self._reading:  # a reset has set its position, or will set it, with a snapshot
            return
        if self.mode is Mode.STARTING:
            self.mode = Mode.CATCHING_UP
        self.n, self.position, self._first = n, position, first
        self._replays = self.delivery.says_live and not (first and first[0].type == SNAPSHOT)

    def is_beyond(self, position: bytes) -> bool:
        """Whether it is known to follow what is after a position. A live one is where its source is."""
        return order(self.position) > order(position)

    def wait(self) -> None:
        """Wait for an operation that does not exist yet. When it exists, its snapshot is sent."""
        if self.mode is not Mode.CLOSED:  # a shutdown may have closed it meanwhile
            self.mode = Mode.AWAITING

    # What the channel calls

    def offer(self, frames: Sequence[Frame]) -> None:
        """Accept new frames while it is live and has a minimum interval."""
        if self.throttle is not None:
            self.throttle.take(self._told(frames, live=self.mode is Mode.LIVE))

    def ended(self) -> None:
        """Close a live subscription to which the `end` was written."""
        self.close("ended")

    def appeared(self) -> None:
        """Start sending, if the subscription waited for the operation, which now exists.

        A client that has a position has events of an operation with this id, which were lost.
        """
        if self.mode is Mode.AWAITING:
            self.mode = Mode.CATCHING_UP
            self.reset("lost" if self.is_beyond(START.encode()) else None)

    def fall_back(self) -> None:
        """Stop being live, and keep the source's position as its own."""
        if self.mode is Mode.LIVE:
            self._source.part(self)
            self.n, self.position = self._source.n, self._source.position
            self.mode = Mode.CATCHING_UP

    def reset(self, reason: str | None) -> None:
        """Request a snapshot to continue from, because history can't be replayed.

        `reason` is `trimmed` or `lost`, or None at the start of a stream.
        """
        if self.mode is Mode.CLOSED:
            return
        if self._reading:  # the result of the read in progress may be older than the reset
            self._superseded = reason
            return
        if reason is not None:
            self._policy.tally.resets[reason] += 1
            # The channel logs lost history once, because all its subscriptions lose it at the same moment.
            level = logging.DEBUG if reason == "lost" else logging.INFO
            fields = {"connection": self.connection, "operation": self.operation, "reason": reason}
            log.log(
                level,
                "stream %s of operation %s continues with a snapshot, because its history can't be replayed: %s",
                *fields.values(),
                extra=fields,
            )
        self.fall_back()
        self.mode = Mode.CATCHING_UP
        self._reading = True
        self._source.read_snapshot(self, reason)

    def take_page(self, frames: Sequence[Frame], reset: str | None = None) -> None:
        """Receive the requested page, or the reason why it can't be read."""
        if self._arrived():
            return
        if reset is None and frames and frames[-1].n > self.n:
            self._take(frames)
            self.pump()
        else:  # a page without newer events means that the log has lost some
            self.reset(reset or "lost")

    def take_snapshot(self, frame: Frame, *, done: bool) -> None:
        """Receive the requested snapshot. With `done`, the operation's `end` follows, which has the same number."""
        if self._arrived():
            return
        if self.throttle is not None:
            self.throttle.drop()
        self.n, self.position = frame.n - done, frame.position
        self._replays = False
        if self.outlet is NO_OUTLET:
            self._first = (frame,)  # sent when there is an outlet
        else:
            self._write((frame,))
        self.pump()

    def flush_side(self, *, last: bool = False) -> None:
        """Send the frames that are not in the log, if it has caught up. `last` means that the `end` follows."""
        if self.side is not None and self.mode is Mode.LIVE:
            try:
                self._write(self.side.pending(last=last))
            except Exception:
                log.exception("writing to a client failed; it is disconnected")
                self.abort("broken")

    def pump(self) -> None:
        """Send what is missing while the outlet has room; go live when nothing is missing."""
        while self.mode is Mode.CATCHING_UP and self._has_room and not self._reading and self._source.loaded:
            frames = self._source.after(self.n)
            if frames is None:
                self._reading = True
                self._source.read_page(self)
            elif frames:
                self._take(frames)
            elif self.n > self._source.n:  # a page or a snapshot was newer than the feed
                self._source.wake(self)
                return
            else:
                self.mode = Mode.LIVE
                self._policy.tally.caught_up += self._slow
                self._slow = False
                self._source.join(self)
                if self._replays:
                    self._replays = False
                    write = self._write if self.throttle is None else self.throttle.take  # after what it holds
                    write((self._live_bookmark(),))
                self.flush_side()

    # What the outlet calls

    def resume_writing(self) -> None:
        """Continue to write: the outlet's buffer has room again."""
        if not self._has_room and self.mode is not Mode.CLOSED:
            self._has_room, self.full_since = True, None
            self.pump()

    def stop_awaiting(self) -> None:
        """Stop waiting for an operation that still does not exist."""
        if self.mode is Mode.AWAITING:
            self.close("not-found", reconnect=True)

    # Implementation of `Stream`

    def _begin(self, opening_frames: list[Frame]) -> None:
        self._has_room = True
        if self.delivery.interval_s:
            self.throttle = Throttle(self.delivery.interval_s, self._policy.clock, self._policy.call_later, self._write)
        first, self._first = self._first, ()
        if first and first[0].type == SNAPSHOT:
            opening_frames += first
            first = ()
        elif self._replays and not first and self._source.loaded:
            if self._source.n == self.n:
                opening_frames.append(self._live_bookmark())
                self._replays = False
            else:
                first = self._source.after(self.n) or ()
        if self.throttle is None:
            self._take(first, opening_frames)
        else:
            self._write(opening_frames)
            self._take(first)
        self.pump()

    def _stop(self) -> None:
        self._has_room, self._slow = False, True
        self.fall_back()

    def _detach(self) -> None:
        self._source.leave(self)
        if self.side is not None:
            self.side.leave()
        if self.throttle is not None:
            self.throttle.drop()

    # Internal

    def _told(self, frames: Sequence[Frame], *, live: bool) -> Sequence[Frame]:
        return told(self.operation, frames, self.delivery.types, self._source.bookmark_every, live=live)

    def _live_bookmark(self) -> Frame:
        return bookmark_frame(self.operation, self.n, self.position, live=True)

    def _arrived(self) -> bool:
        """Record that a read has finished; return whether its result is useless by now."""
        self._reading = False
        reason, self._superseded = self._superseded, None
        if reason is not None:
            self.reset(reason)
        return reason is not None or self.mode is Mode.CLOSED

    def _take(self, frames: Sequence[Frame], opening_frames: Sequence[Frame] = ()) -> None:
        """Send the frames after the n-th, while there is room.

        The bookmark after the last frame is in the same write as the last slice: when all clients reconnect at once,
        each write is a large part of what a client costs.
        """
        self._write(opening_frames)
        if self._slow and len(frames) > CONFLATE_OVER:
            every, frames = len(frames), conflate(frames)
            self._policy.tally.conflated += every - len(frames)
        elif self.throttle is None and self.side is None:
            self._replay(self._fitting(frames))
            return
        # Frames that were left out are missing from here on, so these slices are shared with nobody.
        self._send(self._fitting(frames))

    def _fitting(self, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Return the first frames, as many as may be sent now. The others are read again later."""
        return frames

    def _send(self, frames: Sequence[Frame]) -> None:
        for part in slices(frames, self.n):
            if not self._has_room or self.mode is Mode.CLOSED:
                return
            last = part[-1]
            self.n, self.position = last.n, last.position
            if last.type == END and self.side is not None:
                part = [*part[:-1], *self.side.pending(last=True), last]
            if self.throttle is None:
                sent = self._told(part, live=False)
                if self._replays and self.n == self._source.n and last.type != END:
                    sent = [*sent, self._live_bookmark()]
                    self._replays = False
                self._write(sent)
            else:
                self.offer(part)
            if last.type == END:
                self.close("ended")

    def _replay(self, frames: Sequence[Frame]) -> None:
        """Send the frames after the n-th as other clients get them, too."""
        start = bisect_right(frames, self.n, key=attrgetter("n")) if frames and frames[0].n <= self.n else 0
        if start == len(frames):
            return
        outlet, source = self.outlet, self._source
        written = self._policy.tally.written[outlet.kind]
        says_live = self._replays and frames[-1].n == source.n and frames[-1].type != END
        reading = Reading(source.operation, self.delivery.types, source.bookmark_every, outlet.encoding, says_live)
        while start < len(frames) and self._has_room and self.mode is not Mode.CLOSED:
            slice = self._policy.replays.slice(frames, start, reading)
            start += slice.frames
            self.n, self.position = slice.last.n, slice.last.position
            if says_live and start == len(frames):
                self._replays = False
            if slice.data is not None:
                written.bytes += slice.data_bytes
                outlet.write(slice.data)
            if slice.last.type == END:
                self.close("ended")
                return
