"""The live subscriptions of a channel, grouped by what is sent to them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from progress_broker.stream.batching import told
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import size
from progress_broker.stream.subscription import Audience, Subscription

log = logging.getLogger(__name__)


class Fanout:
    """Writes each new frame to all live subscriptions. Each group gets the same bytes, so a group encodes only once."""

    __slots__ = ("_audiences", "_operation", "_paced")

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._audiences: dict[Audience, dict[Subscription, Callable[[Any], object]]] = {}
        self._paced: set[Subscription] = set()  # subscriptions with a minimum interval of their own

    def __iter__(self) -> Iterator[Subscription]:
        return chain(*self._audiences.values(), self._paced)

    def join(self, subscription: Subscription) -> None:
        """Start to write to a subscription."""
        if subscription.throttle is not None:
            self._paced.add(subscription)
        else:
            self._audiences.setdefault(subscription.audience, {})[subscription] = subscription.outlet.write

    def part(self, subscription: Subscription) -> None:
        """Stop writing to it."""
        self._paced.discard(subscription)
        members = self._audiences.get(subscription.audience)
        if members is not None:
            members.pop(subscription, None)
            if not members:
                del self._audiences[subscription.audience]

    def deliver(self, frames: Sequence[Frame], bookmark_every: int) -> None:
        """Write the next frames. A subscription whose buffer is full leaves during the write."""
        for audience, members in tuple(self._audiences.items()):
            theirs = told(self._operation, frames, audience.types, bookmark_every, live=True)
            if theirs:
                data = audience.encoding.encode(theirs)
                audience.written.bytes += size(data) * len(members)
                _write(tuple(members.items()), data)
        if self._paced:
            _write([(subscription, subscription.offer) for subscription in self._paced], frames)


def _write(members: Iterable[tuple[Subscription, Callable[[Any], object]]], data: Any) -> None:
    for subscription, write in members:  # the innermost loop: one write per client and nothing else
        try:
            write(data)
        except Exception:
            log.exception("writing to a client failed; it is disconnected")
            subscription.abort("broken")
