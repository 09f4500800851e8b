"""Replays that clients follow, as streams: they are listed, counted and ended as all streams of a replica are."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from progress_broker.errors import BrokerError, Draining
from progress_broker.model.event import REPLAY_END
from progress_broker.replay.player import Player
from progress_broker.replay.recording import Recorded
from progress_broker.replay.timeline import Timeline
from progress_broker.runtime.tasks import Tasks, end
from progress_broker.runtime.timer_wheel import TimerWheel
from progress_broker.settings import Settings
from progress_broker.stream.batching import slices
from progress_broker.stream.delivery import ALL, Delivery, Start, StreamPolicy
from progress_broker.stream.frames import Frame, control_frame
from progress_broker.stream.registry import StreamRegistry
from progress_broker.stream.stream import Mode, Stream
from progress_broker.stream.subscription import Subscription

log = logging.getLogger(__name__)

Parts = AsyncGenerator[Sequence[Recorded]]


class ReplayStream(Stream):
    """A client's replay of one operation. It is never live: all that it sends has happened before it began.

    A client that is slow makes it late. `replay-end` is the last event, unless it ends early.
    """

    def __init__(
        self, operation: str, parts: Parts, timeline: Timeline, delivery: Delivery, policy: StreamPolicy, tasks: Tasks
    ) -> None:
        super().__init__(delivery, policy)
        self.subscriptions: Sequence[Subscription] = ()
        """The subscriptions that it carries: none."""
        self._operation, self._parts, self._tasks = operation, parts, tasks
        self._player = Player(self, timeline)
        self._playing: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    @property
    def operation(self) -> str:
        """The operation's id."""
        return self._operation

    @property
    def holder(self) -> Any:
        """The owner of the stream."""
        return self.delivery.holder

    async def send(self, events: Sequence[Recorded]) -> None:
        """Write events that are due, as fast as the client takes them."""
        for frames in slices([recorded.frame for recorded in events], 0):
            await self._room.wait()
            if self.mode is not Mode.CLOSED:
                self._write(frames)

    # Implementation of `Stream`

    def resume_writing(self) -> None:
        """Continue to write: the outlet's buffer has room again."""
        if self.full_since is not None and self.mode is not Mode.CLOSED:
            self.full_since = None
            self._room.set()

    def stop_awaiting(self) -> None:
        """Do nothing: its operation exists."""

    def _begin(self, opening_frames: list[Frame]) -> None:
        self._write(opening_frames)
        self._playing = self._tasks.spawn(self._play())

    def _stop(self) -> None:
        self._room.clear()

    def _detach(self) -> None:
        if self._playing is not None and self._playing is not asyncio.current_task():
            self._tasks.spawn(end(self._playing))

    async def _play(self) -> None:
        try:
            async with aclosing(self._parts):
                await self._player.play_parts(self._parts)
        except BrokerError as error:  # it was deleted, or Redis is away: the client asks again, after its position
            self.close(error.code, reconnect=True)
        except Exception:
            log.exception("replaying operation %s failed; its client is disconnected", self._operation)
            self.abort("broken")
        else:
            late_ms = self._player.lateness.percentile_ms(99)
            said = {"operation": self._operation, "events": self._player.sent, "late_p99_ms": late_ms}
            if self.mode is not Mode.CLOSED:
                self._write((control_frame(REPLAY_END, said),))
                self.close("ended")


class ReplayStreams:
    """The open replays of a replica."""

    def __init__(
        self, tasks: Tasks, wheel: TimerWheel, streams: StreamRegistry, policy: StreamPolicy, settings: Settings
    ) -> None:
        self.draining = False
        self._tasks, self._wheel, self._streams, self._settings = tasks, wheel, streams, settings
        self._policy = replace(policy, on_close=self._forget)
        self._open: set[ReplayStream] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[ReplayStream]:
        return iter(tuple(self._open))

    def open(
        self, operation: str, parts: Parts, timeline: Timeline, start: Start, delivery: Delivery = ALL
    ) -> ReplayStream:
        """Return a replay of the events in `parts`; `attach` an outlet to it, or `close` it. Raises `Draining`."""
        if self.draining:
            raise Draining
        stream = ReplayStream(operation, parts, timeline, delivery, self._policy, self._tasks)
        self._open.add(stream)
        self._streams.made(stream)
        first_s = min(self._policy.ping_s * random.uniform(0.5, 1), self._settings.stream_max_age_s)
        self._wheel.add(stream, min(first_s, delivery.deadline - self._policy.clock()))
        self._streams.opened(stream, start)
        return stream

    def _forget(self, stream: ReplayStream, reason: str) -> None:
        self._wheel.remove(stream)
        self._open.discard(stream)
        self._streams.closed(stream, reason)
