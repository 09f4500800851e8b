"""Sends publishes: as many in one request as its size allows, and one that is larger in parts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import orjson

from progress_broker.errors import (
    BrokerError,
    Gap,
    RejectedEvents,
    ServerUnavailable,
    StorageFull,
    StorageUnavailable,
    TooLarge,
)
from progress_broker.model.publish import Publish, Published
from progress_broker.workers import wire
from progress_workers.transport.over_http.errors import of_one
from progress_workers.transport.over_http.limits import ServerLimits

MOST_BYTES: Final = 512 * 1024
"""The largest body that is tried: proxies often reject more than 1 MiB, the server more than 4 MiB."""
_GROWTH_BYTES: Final = 1024
"""How much larger the next body may be after one that was not too large."""
_SMALL_BYTES: Final = 16 * 1024
"""A body that no limit should reject. Who does rejects any, for a while."""
_TRIES: Final = 3
"""How often a publish is sent again with smaller events."""

Post = Callable[[bytes, int], list[Published | BrokerError]]
"""Sends a body to the server and returns the answers to this number of publishes; raises `TooLarge`."""


class Publishes:
    """Sends publishes over a connection. It learns which sizes the server, or a proxy before it, allows."""

    def __init__(self, post: Post, limits: ServerLimits) -> None:
        self._post, self._limits = post, limits
        self._most_bytes = MOST_BYTES
        self._stored: dict[str, int] = {}
        """Of publishes that are sent in parts: the number of the last event that is stored, by producer."""

    def send(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Return an answer for each. Of events that are too large for the server, only the details are lost."""
        fitted = [self._limits.fitted(publish) for publish in publishes]
        answers = self._send(fitted)
        for at, answer in enumerate(answers):
            if isinstance(answer, BrokerError) and answer.events is not None:
                answers[at] = self._without_rejected(fitted[at], answer)
        return answers

    def _without_rejected(self, publish: Publish, answer: BrokerError) -> Published | BrokerError:
        for _ in range(_TRIES):
            smaller = self._limits.without_rejected(publish, answer)
            if smaller is None:
                break
            publish = smaller
            try:
                (again,) = self._send([publish])
            except (StorageUnavailable, StorageFull) as error:
                return error  # and not raised: the others were answered
            if not isinstance(again, BrokerError):
                return again
            answer = again
        answer.events = None  # nothing of it can be made smaller
        return answer

    def _send(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        bodies = [orjson.dumps(wire.write_publish(publish)) for publish in publishes]
        answers: list[Published | BrokerError] = []
        at = 0
        while at < len(bodies):
            group = publishes[at : self._fitting(bodies, at)]
            try:
                answers += self._request(group, bodies[at : at + len(group)])
            except TooLarge:
                self._most_bytes = max(1, min(self._most_bytes, _size(bodies, at, len(group))) // 2)
                continue
            except (StorageUnavailable, StorageFull) as error:
                if not answers:
                    raise
                # What was answered must not be sent again: else a server that limits requests would never get it all.
                return [*answers, *[error] * (len(publishes) - len(answers))]
            at += len(group)
        return answers

    def _fitting(self, bodies: Sequence[bytes], first: int) -> int:
        """Return the end of the publishes from `first` that fit into one request: at least one."""
        size, at = len(bodies[first]), first + 1
        while at < len(bodies) and at - first < wire.MAX_PUBLISHES and size + len(bodies[at]) < self._most_bytes:
            size, at = size + len(bodies[at]) + 1, at + 1
        return at

    def _request(self, group: Sequence[Publish], bodies: Sequence[bytes]) -> Sequence[Published | BrokerError]:
        if len(bodies[0]) > self._most_bytes and len(group[0].entries) > 1:
            return [self._in_parts(group[0], len(bodies[0]))]
        try:
            answers = self._post(b"[" + b",".join(bodies) + b"]", len(group))
        except TooLarge as error:
            if len(group) > 1 or len(group[0].entries) > 1:
                raise
            error.events = _single(group[0], len(bodies[0]), error)
            return [error]
        self._most_bytes = min(MOST_BYTES, self._most_bytes + _GROWTH_BYTES)
        for answer in answers:
            self._limits.learn(answer)
        return [
            of_one(answer, publish.operation) if isinstance(answer, BrokerError) else answer
            for publish, answer in zip(group, answers, strict=True)
        ]

    def _in_parts(self, publish: Publish, size: int) -> Published | BrokerError:
        """Send a publish in several, one after the other: each may be repeated, and none may overtake another."""
        number, producer, answer = 1 + size // self._most_bytes, publish.entries[0].producer, None
        for part in _parts(publish, number, self._stored.get(producer, 0)):
            (answer,) = self.send([part])
            if isinstance(answer, BrokerError):
                if isinstance(answer, Gap):  # parts that were stored may be lost, too
                    self._stored.pop(producer, None)
                return answer
            if producer:
                self._stored[producer] = part.entries[-1].seq or 0
        self._stored.pop(producer, None)
        assert answer is not None  # noqa: S101 - a last part was not answered before
        return answer


def _single(publish: Publish, size: int, error: TooLarge) -> RejectedEvents:
    """Return by how much to shorten the only event of a publish; raise `ServerUnavailable` if that would not help."""
    if size <= _SMALL_BYTES:
        raise ServerUnavailable(
            f"{error.detail} to a request of {size} bytes with a single event: raise the limit of the proxy before the"
            " server, or PROGRESS_MAX_BODY_BYTES"
        ) from None
    most = max(1, len(publish.entries[0].data) // 4)
    return RejectedEvents((0,), most, most)


def _size(bodies: Sequence[bytes], first: int, number: int) -> int:
    return sum(map(len, bodies[first : first + number]))


def _parts(publish: Publish, number: int, stored: int) -> Iterator[Publish]:
    """Yield the parts of a publish that are not stored yet."""
    most = max(1, len(publish.entries) // (number + 1))
    rest = [entry for entry in publish.entries if (entry.seq or 1) > stored]
    for at in range(0, len(rest), most):
        part = publish._replace(entries=rest[at : at + most])
        if at or stored:  # what the first one has begun, or found, the others do not begin or expect again
            before = rest[at - 1].seq if at else stored
            follows = (part.entries[0].producer, before or 0) if publish.after else None
            part = part._replace(begins=False, expect="", after=follows)
        yield part
