"""Carries a batch of commands to the nodes that have their keys, whatever moves meanwhile.

No I/O happens here, so that asyncio and threads carry batches by the same rules, and tests by all kinds of faults. A
command is sent again only if its reply says that it did not run: never after a lost connection or a timeout.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
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
    """A command, and the text of the script that it runs, if it runs one."""

    words: Words
    script: str | None = None


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


def is_moving(error: object) -> bool:
    """Return whether an error says that a slot just moves: the command did not run, and will when it has moved."""
    if isinstance(error, AskError) and not isinstance(error, MovedError):
        return True
    if isinstance(error, TryAgainError):
        return True
    return isinstance(error, ResponseError) and any(text in str(error) for text in _MOVING)


@dataclass(slots=True)
class _Batch:
    slots: SlotMap
    away: Callable[[Endpoint], str | None]
    batch: Sequence[Request]
    replies: list[Any] = field(init=False)
    keys: list[str | bytes | None] = field(init=False)
    waiting: dict[int, None] = field(init=False)
    """The numbers of the commands without a reply, in order."""
    learned: bool = False
    learn_error: Exception | None = None
    pause_s: float = 0.0
    ask: dict[int, Endpoint] = field(default_factory=dict)
    """Where single commands go next, and only once."""
    load: set[int] = field(default_factory=set)
    """The commands whose scripts are loaded with them."""
    redirected: dict[int, int] = field(default_factory=dict)
    paused: dict[int, int] = field(default_factory=dict)
    loaded: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.replies = [None] * len(self.batch)
        self.keys = [key_of(request.words) for request in self.batch]
        self.waiting = dict.fromkeys(range(len(self.batch)))

    def has_unknown(self) -> bool:
        """Return whether nobody is known to serve one of the keys, and nobody was asked yet."""
        return not self.learned and any(self._target(at) is None for at in self.waiting)

    def parts(self) -> list[Part]:
        """Return what can be sent now. Commands of nodes that are away get their error instead."""
        places: dict[Endpoint, list[int]] = {}
        asking: dict[Endpoint, set[int]] = {}
        texts: dict[Endpoint, dict[str, None]] = {}
        busy: set[str | bytes | None] = set()
        for at in list(self.waiting):
            request = self.batch[at]
            if at not in self.waiting:  # an earlier one failed meanwhile
                continue
            if request.script is not None:
                if self.keys[at] in busy:
                    continue
                busy.add(self.keys[at])
            node = self._target(at)
            reason = self._unserved(at) if node is None else self.away(node)
            if node is None or reason is not None:
                self._reply(at, self.learn_error if node is None and self.learn_error else NodeAway(str(reason)))
                continue
            places.setdefault(node, []).append(at)
            if self.ask.pop(at, None) is not None:
                asking.setdefault(node, set()).add(at)
            if at in self.load and request.script is not None:
                self.load.remove(at)
                texts.setdefault(node, {})[request.script] = None
        return [
            Part(node, some, frozenset(asking.get(node, ())), tuple(texts.get(node, ())))
            for node, some in places.items()
        ]

    def take(self, at: int, node: Endpoint, reply: Any) -> None:
        """Take the reply of a node to a command."""
        if not isinstance(reply, ResponseError):
            self._reply(at, reply)
        elif isinstance(reply, MovedError):
            times = self.redirected[at] = self.redirected.get(at, 0) + 1
            self.slots.patch(reply.slot_id, self.slots.reached(reply.host, reply.port, node))
            if times > REDIRECTIONS:
                self._reply(at, reply)
            elif times > 1:  # two nodes may name each other until both know
                self.pause_s = max(self.pause_s, PAUSES_S[times - 2])
        elif isinstance(reply, NoScriptError) and self.batch[at].script is not None:
            times = self.loaded[at] = self.loaded.get(at, 0) + 1
            if times > LOADS:
                self._reply(at, reply)
            self.load.add(at)
        elif isinstance(reply, AskError) and self.batch[at].script is None:
            times = self.redirected[at] = self.redirected.get(at, 0) + 1
            if times > REDIRECTIONS:
                self._reply(at, reply)
            self.ask[at] = self.slots.reached(reply.host, reply.port, node)
        elif is_moving(reply):
            times = self.paused[at] = self.paused.get(at, 0) + 1
            if times > len(PAUSES_S):
                self._reply(at, reply)
            else:
                self.pause_s = max(self.pause_s, PAUSES_S[times - 1])
        else:
            self._reply(at, reply)

    def _target(self, at: int) -> Endpoint | None:
        if at in self.ask:
            return self.ask[at]
        key = self.keys[at]
        return self._any_node() if key is None else self.slots.owner(slot_of(key))

    def _any_node(self) -> Endpoint | None:
        up = (node for node in self.slots.masters if self.away(node) is None)
        return next(up, next(iter(self.slots.masters), None))

    def _unserved(self, at: int) -> str:
        key = self.keys[at]
        return "no node is known" if key is None else f"no node serves slot {slot_of(key)} now"

    def _reply(self, at: int, reply: Any) -> None:
        """Have a command's reply. Later scripts of the same key are not sent after one that failed."""
        del self.waiting[at]
        self.replies[at] = reply
        if isinstance(reply, Exception) and self.batch[at].script is not None:
            for later in list(self.waiting):
                if later > at and self.batch[later].script is not None and self.keys[later] == self.keys[at]:
                    del self.waiting[later]
                    self.replies[later] = reply
