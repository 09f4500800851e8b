"""Starts the members of bundles: finds the start position of each operation's subscription."""

import asyncio
import logging
from collections import deque
from dataclasses import replace
from typing import Any, NamedTuple

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.member import BundleMember, MemberSubscription
from progress_broker.errors import Gone, NotFound, StorageFull, StorageUnavailable, Unreadable
from progress_broker.history.losses import Lost
from progress_broker.live.channel import Channel
from progress_broker.live.channels import Channels
from progress_broker.live.loader import ChannelLoader
from progress_broker.live.resume import Resumer
from progress_broker.runtime.backoff import backoff_s
from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tasks import Tasks
from progress_broker.stream.delivery import StreamPolicy
from progress_broker.stream.stream import Mode

log = logging.getLogger(__name__)

MAX_CONCURRENT = 16
"""Maximum members that are started at the same time, over all bundles: half of the connections to Redis."""


class _New(NamedTuple):
    """A member to start."""

    member: BundleMember
    after: bytes | None
    reset: str | None
    tries: int = 0


class MemberPlacer:
    """Starts members; retries until Redis answers or the member is no longer needed.

    Bundles take turns, so that a large bundle does not delay small ones.
    """

    def __init__(
        self,
        channels: Channels,
        loader: ChannelLoader,
        resumer: Resumer,
        tasks: Tasks,
        policy: StreamPolicy,
        timeout_s: float,
    ) -> None:
        self.tally = Tally(resets=policy.tally.resets)
        """Counters of the members. They are separate, because the bundle itself counts streams and slow clients."""
        self._channels, self._loader, self._resumer, self._timeout_s = channels, loader, resumer, timeout_s
        self._tasks = tasks
        self._policy = replace(policy, on_close=_on_close, max_age_s=lambda: float("inf"), tally=self.tally)
        self._waiting: dict[Bundle, deque[_New]] = {}  # the next bundle comes first
        self._placers = 0

    def place(self, bundle: Bundle, member: BundleMember, after: bytes | None, reset: str | None) -> None:
        """Start a member after a position of its lane, or with a snapshot.

        If the lane itself is starting, the snapshot has the current state. Otherwise it has the operation's state at
        its creation, which is after everything that was sent of the lane.
        """
        self._queue(bundle, _New(member, after, reset))
        if self._placers < MAX_CONCURRENT:
            self._placers += 1
            self._tasks.spawn(self._place_all())

    def forget(self, bundle: Bundle) -> None:
        """Start no more members of a bundle."""
        self._waiting.pop(bundle, None)

    def _queue(self, bundle: Bundle, new: _New) -> None:
        self._waiting.setdefault(bundle, deque()).append(new)

    async def _place_all(self) -> None:
        try:
            while self._waiting:
                bundle = next(iter(self._waiting))
                waiting = self._waiting.pop(bundle)
                new = waiting.popleft()
                if waiting:
                    self._waiting[bundle] = waiting
                await self._try(bundle, new)
        finally:
            self._placers -= 1

    async def _try(self, bundle: Bundle, new: _New) -> None:
        member = new.member
        if not bundle.has(member):
            return
        try:
            await self._place(bundle, member, new.after, new.reset)
        except Unreadable:
            member.fail("unreadable")
        except (NotFound, Gone):
            member.fail("gone")
        except (StorageUnavailable, StorageFull):
            await asyncio.sleep(backoff_s(new.tries))
            if bundle.has(member):
                self._queue(bundle, new._replace(tries=new.tries + 1))
        except Exception:
            log.exception("reading operation %s failed; bundles report it as unreadable", member.operation)
            member.fail("unreadable")

    async def _place(self, bundle: Bundle, member: BundleMember, after: bytes | None, reset: str | None) -> None:
        # It is registered before the log is read, and goes live after what was read. So no event is missed or repeated.
        channel = self._channels.get_or_create(member.operation, self._loader)
        subscription = member.follow(channel, bundle.members_delivery, self._policy)
        subscription.number = bundle.number
        subscription.expect(after or bundle.told_position(member))
        try:
            await self._loader.until_loaded(channel, self._timeout_s)
            reset = await self._begin(bundle, subscription, channel, after, reset)
        except BaseException:
            subscription.close("left")
            raise
        if reset is not None:
            self.tally.resets[reset] += 1
        if subscription.mode is not Mode.CLOSED:
            bundle.merge.placed(member)
            subscription.attach(member)

    async def _begin(
        self,
        bundle: Bundle,
        subscription: MemberSubscription,
        channel: Channel,
        after: bytes | None,
        reset: str | None,
    ) -> str | None:
        member = subscription.member
        lane = bundle.merge.lane(member.lane)
        if member.operation in lane.snapshots_due:
            lost = Lost(lane.since, certain=True) if reset == "lost" else None
            await self._resumer.resume_with_snapshot(subscription, member.operation, reset, lane.position, lost=lost)
        elif after is None:  # the current state would be ahead of the lane, so others' earlier events would be repeated
            await self._resumer.resume_at_creation(subscription, member.operation, member.first)
        elif member.reset is not None:  # it was reset during an earlier attempt to start it
            lost = Lost(bundle.told_position(member), of_lane=True) if member.reset == "lost" else None
            await self._resumer.resume_with_snapshot(subscription, member.operation, member.reset, lost=lost)
        else:
            since = bundle.merge.trimmed_since(member)
            reset = await self._resumer.resume_after(subscription, channel, after, since)
            if reset is not None:
                member.owe_reset(reset)
        return reset


def _on_close(subscription: Any, reason: str) -> None:
    subscription.member.left(reason)
