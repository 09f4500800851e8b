"""Who is live: the subscriptions that stand where their channel stands, by what they are sent."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from progress_broker.stream.batching import wanted
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import size
from progress_broker.stream.subscription import Audience, Subscription

log = logging.getLogger(__name__)


class Live:
    """Writes each new frame, encoded once for each audience, to all of it."""

    __slots__ = ("_audiences", "_paced")

    def __init__(self) -> None:
        self._audiences: dict[Audience, dict[Subscription, Callable[[Any], object]]] = {}
        self._paced: set[Subscription] = set()  # those with a pace of their own

    def __iter__(self) -> Iterator[Subscription]:
        return chain(*self._audiences.values(), self._paced)

    def join(self, subscription: Subscription) -> None:
        """Write to a subscription from now on."""
        if subscription.pace is not None:
            self._paced.add(subscription)
        else:
            self._audiences.setdefault(subscription.audience, {})[subscription] = subscription.outlet.write

    def part(self, subscription: Subscription) -> None:
        """Write no more to it."""
        self._paced.discard(subscription)
        members = self._audiences.get(subscription.audience)
        if members is not None:
            members.pop(subscription, None)
            if not members:
                del self._audiences[subscription.audience]

    def deliver(self, frames: Sequence[Frame]) -> None:
        """Write what comes next. Whoever has no room for more parts meanwhile."""
        for audience, members in tuple(self._audiences.items()):
            theirs = wanted(frames, audience.types)
            if theirs:
                data = audience.encoding.encode(theirs)
                audience.written.bytes += size(data) * len(members)
                _write(tuple(members.items()), data)
        if self._paced:
            _write([(subscription, subscription.offer) for subscription in self._paced], frames)


def _write(members: Iterable[tuple[Subscription, Callable[[Any], object]]], data: Any) -> None:
    for subscription, write in members:  # the innermost loop: nothing more for each client than its write
        try:
            write(data)
        except Exception:
            log.exception("a client's outlet broke; it is cut off")
            subscription.abort("broken")
