"""Carries a batch of commands to the nodes that have their keys, whatever moves meanwhile.

No I/O happens here, so that asyncio and threads carry batches by the same rules, and tests by all kinds of faults. A
command is sent again only if its reply says that it did not run: never after a lost connection or a timeout.
"""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError, TryAgainError

from progress_broker.routing.address import Endpoint
from progress_broker.routing.command_keys import Words, key_of
from progress_broker.routing.health import NodeAway
from progress_broker.routing.slots import SlotMap, slot_of

REDIRECTIONS: Final = 5
"""How often one command follows a redirection."""

PAUSES_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
"""How long a command waits, each time that its slot is just moving, before its error is its reply."""

LOADS: Final = 2

_MOVING = ("non local key", "during rehashing of the slot")
"""How servers say in a script that a key of it is at another node: an error without a code."""


class Request(NamedTuple):
    """A command."""

    words: Words
    script: str | None = None
    """The text of the script that it runs, if it runs one."""
    node: Endpoint | None = None
    """Where it goes if it names no key; None for any node."""


class Part(NamedTuple):
    """What goes to one node in one write. All parts of a step may be sent at the same time."""

    node: Endpoint
    places: Sequence[int]
    """The numbers of the commands in the batch, in the order in which they are sent."""
    asking: frozenset[int]
    """Those before which ASKING is sent."""
    load: Sequence[str]
    """The texts of scripts to load before all of them."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Learn:
    """Ask who has which slot, and return when it is known; send the error back if nobody answers."""


Step = Sequence[Part] | Pause | Learn
Carrying = Generator[Step, Any, list[Any]]
"""After parts, send it the reply or the error to each command, by number. It returns those to the batch."""


def carry(slots: SlotMap, away: Callable[[Endpoint], str | None], batch: Sequence[Request]) -> Carrying:
    """Carry a batch. `away` says why a node can't be reached now: nothing is sent to it then.

    Scripts with the same first key go one after the other, and none follows one that failed: a publisher's second batch
    must not be stored before its first one.
    """
    carried = _Batch(slots, away, batch)
    while carried.waiting:
        carried.pause_s = 0.0
        if carried.has_unknown():
            carried.learned = True
            carried.learn_error = yield Learn()
        parts = carried.parts()
        if parts:
            replies: Mapping[int, Any] = yield parts
            for part in parts:
                for at in part.places:
                    carried.take(at, part.node, replies[at])
        if carried.pause_s and carried.waiting:
            yield Pause(carried.pause_s)
    return carried.replies


def did_not_run(error: object) -> bool:
    """Return whether an error says that the command did not run here, and will when it is sent again or elsewhere."""
    return isinstance(error, AskError) or is_moving(error)


def is_moving(error: object) -> bool:
    """Return whether an error says that a slot just moves: the command did not run, and will when it has moved."""
    if isinstance(error, MovedError):
        return False
    if isinstance(error, (AskError, TryAgainError)):
        return True
    return isinstance(error, ResponseError) and any(text in str(error) for text in _MOVING)


class _Batch:
    """The state of a batch under way."""

    def __init__(self, slots: SlotMap, away: Callable[[Endpoint], str | None], batch: Sequence[Request]) -> None:
        self._slots, self._away, self._batch = slots, away, batch
        self.replies: list[Any] = [None] * len(batch)
        self.waiting = dict.fromkeys(range(len(batch)))
        """The numbers of the commands without a reply, in order."""
        self.learned = False
        self.learn_error: Exception | None = None
        self.pause_s = 0.0
        self._keys = [key_of(request.words) for request in batch]
        self._slot = [None if key is None else slot_of(key) for key in self._keys]
        self._ask: dict[int, Endpoint] = {}  # where single commands go next, and only once
        self._load: set[int] = set()  # the commands whose scripts are loaded with them
        self._redirected: Counter[int] = Counter()
        self._paused: Counter[int] = Counter()
        self._loaded: Counter[int] = Counter()

    def has_unknown(self) -> bool:
        """Return whether nobody is known to serve one of the keys, and nobody was asked yet."""
        return not self.learned and None in [self._target(at) for at in self.waiting]

    def parts(self) -> list[Part]:
        """Return what can be sent now. Commands of nodes that are away get their error instead."""
        places: dict[Endpoint, list[int]] = {}
        asking: set[int] = set()
        texts: dict[Endpoint, dict[str, None]] = {}
        busy: set[str | bytes | None] = set()
        for at in list(self.waiting):
            if at not in self.waiting:  # an earlier one failed meanwhile
                continue
            script = self._batch[at].script
            if script is not None:
                if self._keys[at] in busy:
                    continue
                busy.add(self._keys[at])
            node = self._target(at)
            reason = None if node is None else self._away(node)
            if node is None:
                self._reply(at, self.learn_error or NodeAway(self._unserved(at)))
                continue
            if reason is not None:
                self._reply(at, NodeAway(reason))
                continue
            places.setdefault(node, []).append(at)
            if self._ask.pop(at, None) is not None:
                asking.add(at)
            if at in self._load and script is not None:
                self._load.remove(at)
                texts.setdefault(node, {})[script] = None
        return [
            Part(node, some, frozenset(asking.intersection(some)), tuple(texts.get(node, ())))
            for node, some in places.items()
        ]

    def take(self, at: int, node: Endpoint, reply: Any) -> None:
        """Take the reply of a node to a command."""
        if not isinstance(reply, ResponseError):
            self._reply(at, reply)
        elif isinstance(reply, AskError):
            self._redirect(at, node, reply)
        elif isinstance(reply, NoScriptError) and self._batch[at].script is not None:
            self._loaded[at] += 1
            self._load.add(at)
            if self._loaded[at] > LOADS:
                self._reply(at, reply)
        elif is_moving(reply):
            self._wait(at, reply)
        else:
            self._reply(at, reply)

    def _redirect(self, at: int, node: Endpoint, reply: AskError) -> None:
        moved = isinstance(reply, MovedError)
        if not moved and self._batch[at].script is not None:
            self._wait(at, reply)
            return
        named = self._slots.reached(reply.host, reply.port, node)
        if moved:
            self._slots.patch(reply.slot_id, named, node)
        else:
            self._ask[at] = named
        self._redirected[at] += 1
        if self._redirected[at] > REDIRECTIONS:
            self._reply(at, reply)
        elif self._redirected[at] > 1:  # two nodes may name each other until both know
            self.pause_s = max(self.pause_s, PAUSES_S[self._redirected[at] - 2])

    def _wait(self, at: int, reply: ResponseError) -> None:
        if self._paused[at] == len(PAUSES_S):
            self._reply(at, reply)
        else:
            self.pause_s = max(self.pause_s, PAUSES_S[self._paused[at]])
            self._paused[at] += 1

    def _target(self, at: int) -> Endpoint | None:
        if at in self._ask:
            return self._ask[at]
        slot = self._slot[at]
        return self._batch[at].node or self._any_node() if slot is None else self._slots.owner(slot)

    def _any_node(self) -> Endpoint | None:
        up = (node for node in self._slots.masters if self._away(node) is None)
        return next(up, next(iter(self._slots.masters), None))

    def _unserved(self, at: int) -> str:
        return "no node is known" if self._slot[at] is None else f"no node serves slot {self._slot[at]} now"

    def _reply(self, at: int, reply: Any) -> None:
        """Have a command's reply. Later scripts of the same key are not sent after one that failed."""
        del self.waiting[at]
        self.replies[at] = reply
        if isinstance(reply, Exception) and self._batch[at].script is not None:
            for later in list(self.waiting):
                if later > at and self._batch[later].script is not None and self._keys[later] == self._keys[at]:
                    del self.waiting[later]
                    self.replies[later] = reply
