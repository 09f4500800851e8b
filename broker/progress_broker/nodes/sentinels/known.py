"""What a process knows of a Sentinel set: where the master is, and which of its connections lead to it. No I/O."""

import time
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol

import redis.exceptions

from progress_broker.nodes.generations import LEFT, ConnectionGeneration
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.sentinels import TRIES_S, Named, Read, Words, find_master, listen
from progress_broker.routing.server_kind import NotMaster

KEPT_S = 0.2
"""How long an answer is used. A pool that reconnects asks once."""
LEFT_S = 15.0
"""How long a sentinel may still name a master that was left. It learns of a failover within some seconds; a demoted
master says that it is one for ten."""
RETRY_S = 2.0
"""How long to wait before a sentinel that could not be listened to is tried again. Then it is also asked."""


class Answer(NamedTuple):
    """A server to connect to, and how many masters had been left when the sentinels named it."""

    endpoint: Endpoint
    turn: int


class Try(NamedTuple):
    """Wait, then connect to an announced server. The answer to this step is None, or the error if that failed."""

    answer: Answer
    after_s: float


Step = Sequence[Words] | Read | Try
"""Commands to send in one write, or a reply to read, or a server to try."""


class Cuttable(Protocol):
    """A connection whose wait for a reply can be ended by others."""

    def cut(self) -> None:
        """End a wait for a reply, if there is one: it fails at once."""


class KnownMaster:
    """The master as this process knows it. When it changes, the generation of all connections ends."""

    def __init__(
        self, address: RedisAddress, generation: ConnectionGeneration, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.address, self.generation = address, generation
        self.order = list(address.seeds)
        """The sentinels, beginning with the one to ask first."""
        self.current: Endpoint | None = None
        """The server that said that it is the master."""
        self._clock = clock
        self._kept: tuple[Endpoint, float] | None = None
        self._left: dict[Endpoint, float] = {}
        self._turn = 0
        self._connections: weakref.WeakValueDictionary[int, Cuttable] = weakref.WeakValueDictionary()

    def kept(self) -> Answer | None:
        """Return the last answer of a sentinel, if it is still to be used."""
        kept = self._kept
        return Answer(kept[0], self._turn) if kept is not None and self._clock() < kept[1] else None

    def inquiry(self) -> Generator[Endpoint, Any, Answer]:
        """Ask sentinels as `find_master` does. While none of them answers, the master stays who it was.

        It also stays while all of them still name one that was left.
        """
        now = self._clock()
        left = [endpoint for endpoint, until in list(self._left.items()) if now < until]
        try:
            endpoint, sentinel = yield from find_master(self.address, tuple(self.order), left)
        except redis.exceptions.ConnectionError:
            if self.current is None:
                raise
            return Answer(self.current, self._turn)
        if endpoint in left and self.current is not None:
            return Answer(self.current, self._turn)
        self.believe(sentinel, endpoint)
        return Answer(endpoint, self._turn)

    def believe(self, sentinel: Endpoint, endpoint: Endpoint) -> None:
        """Lead new connections to a server, and ask first the sentinel that named it."""
        self._kept = (endpoint, self._clock() + KEPT_S)
        self.order = [sentinel, *(each for each in self.order if each != sentinel)]

    def following(self, sentinel: Endpoint) -> Generator[Step, Any, None]:
        """Hear from a sentinel as `listen` does, and turn to each new master that it names.

        If the server that is tried says that it is the master, all connections to the old one are left.
        """
        listening = listen(self.address)
        step = next(listening)
        while True:
            if isinstance(step, Named):
                yield from self._turn_to(step, sentinel)
                step = next(listening)
            else:
                step = listening.send((yield step))

    def _turn_to(self, named: Named, sentinel: Endpoint) -> Generator[Try, Any, None]:
        answer = self.to_try(named)
        if answer is None:
            return
        for after_s in TRIES_S:
            error = yield Try(answer, after_s)
            if error is None:
                self.believe(sentinel, answer.endpoint)
            if not isinstance(error, NotMaster):  # if it failed, whoever needs a connection asks
                return

    def to_try(self, named: Named) -> Answer | None:
        """Return what to connect to: what a sentinel named, unless that is the current master, or one that was left."""
        until = self._left.get(named.endpoint)
        late = not named.announced and until is not None and self._clock() < until
        if self.current is None or late or named.endpoint == self.current:
            return None
        return Answer(named.endpoint, self._turn)

    def failed(self, endpoint: Endpoint) -> None:
        """Note that no connection to a server could be made: so another sentinel is asked next."""
        if endpoint == self.current:
            self._left.clear()  # whoever sentinels name is better
        kept = self._kept
        if kept is not None and kept[0] == endpoint:
            self._kept = None
            self.order = [*self.order[1:], self.order[0]]

    def late(self, endpoint: Endpoint | None) -> NotMaster:
        """Return the error for a server that sentinels name, and that is no master."""
        where = f"the server at {endpoint}" if endpoint is not None else "the server"
        return NotMaster(
            f"{where} is a replica, and the sentinels at {self.address.shown} still name it the master:"
            " wait, this is retried"
        )

    def confirm(self, answer: Answer, connection: Cuttable) -> int:
        """Note that a server said that it is the master. Return the generation of the connection to it.

        Raises `ConnectionError` if another one has become the master while the connection was made.
        """
        if answer.turn != self._turn:
            raise redis.exceptions.ConnectionError(LEFT)
        self._connections[id(connection)] = connection
        if answer.endpoint != self.current:
            self._take(answer.endpoint, connection)
        return self.generation.number

    def _take(self, endpoint: Endpoint, by: Cuttable) -> None:
        old, self.current = self.current, endpoint
        if old is None:
            return
        self._turn += 1
        self._left[old] = self._clock() + LEFT_S
        self._left.pop(endpoint, None)
        self.generation.end()
        for reference in self._connections.valuerefs():
            connection = reference()
            if connection is not None and connection is not by:
                connection.cut()
