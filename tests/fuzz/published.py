"""What was really published, by writers that each have operations of their own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random

from progress_broker.errors import BrokerError, Gone, NotFound, StorageUnavailable
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store

SIZES = (5, 900, 1500)  # of messages, in bytes
PAUSES_S = (0, 0, 0.002, 0.01)


@dataclass
class Life:
    """An operation from its creation to its end or deletion. Then its id is used again: the title tells which it is."""

    types: dict[int, str] = field(default_factory=dict)
    """The types of events by number. What is not in it, such as a status, is no progress."""
    positions: dict[int, str] = field(default_factory=dict)
    """The position of the last event of each publish, by number."""
    last: int = 1
    ended: bool = False
    deleted: bool = False
    deleting: bool = False
    """Whether a call that deletes it was sent: readers may see that before its answer comes."""
    sure: bool = True
    """Whether each answer came: if one did not, it is not known what was stored."""

    def may_miss(self, numbers: Sequence[int]) -> bool:
        """Whether these events may be superseded by later ones: only progress may."""
        return not self.sure or all(self.types.get(n) == "progress" for n in numbers)


class Published:
    """The lives of all operations, by their ids and titles."""

    def __init__(self) -> None:
        self.lives: dict[tuple[str, str], Life] = {}
        self.newest: dict[str, str] = {}
        self._titles: dict[str, int] = {}
        self.doubted: set[str] = set()
        """Ids of which Redis may have forgotten something."""
        self.kills = 0
        self.length_of_lives = 1
        """How many times longer operations live than they do usually."""
        self.numbers = count(1)
        """A number for each event, so that one which is lost can be told from the one in its place."""

    def begin(self, id: str, title: str) -> Life:
        self.newest[id] = title
        return self.lives.setdefault((id, title), Life())

    def new_title(self, id: str) -> str:
        """Return a title that no operation of this id had, not even one that Redis has forgotten."""
        self._titles[id] = self._titles.get(id, 0) + 1
        return str(self._titles[id])

    def now(self, id: str) -> Life | None:
        """Return the life that goes on or was the last; None if its operation was deleted."""
        life = self.lives.get((id, self.newest.get(id, "")))
        return None if life is None or life.deleted else life


class Writer:
    """Creates, publishes, ends and deletes some operations at random."""

    def __init__(self, store: Store, published: Published, ids: Sequence[str], random: Random) -> None:
        self._store, self._published, self._ids, self._random = store, published, ids, random

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._step(self._random.choice(self._ids))
            await asyncio.sleep(self._random.choice(PAUSES_S))

    async def finish(self) -> None:
        """End all that has not ended."""
        for id in self._ids:
            await self._look(id)
            while (life := self._published.now(id)) is not None and not life.ended:
                await self._attempt(id, self._end)

    async def _step(self, id: str) -> None:
        if id in self._published.doubted:
            await self._look(id)
        life, chance = self._published.now(id), self._random.random() * self._published.length_of_lives
        if life is None:
            await self._attempt(id, self._create)
        elif life.ended:
            await self._attempt(id, self._delete)
        elif chance < 0.03:
            await self._attempt(id, self._end)
        elif chance < 0.04:
            await self._attempt(id, self._delete)
        else:
            await self._attempt(id, self._publish)

    async def _attempt(self, id: str, call: Callable[[str], Awaitable[None]]) -> None:
        try:
            await call(id)
        except Gone:  # it is not forgotten yet that one of this id was deleted
            pass
        except BrokerError as error:
            if not isinstance(error, StorageUnavailable) and not self._published.kills:
                raise
            await self._look(id)

    async def _create(self, id: str) -> None:
        title = self._published.new_title(id)
        kind = "job" if self._random.random() < 0.9 else "other"
        await self._store.create(NewOperation(id=id, kind=kind, title=title))
        self._published.begin(id, title)

    async def _publish(self, id: str) -> None:
        life = self._life(id)
        types = [self._random.choice(["log", "progress"]) for _ in range(self._random.choice([1, 1, 1, 3, 8]))]
        message = "m" * self._random.choice(SIZES)
        data = [{"number": next(self._published.numbers), "message": message} for _ in types]
        entries = [encode(type, it, self._store.settings) for type, it in zip(types, data, strict=True)]
        answer = await self._store.publish(id, entries)
        life.last = answer.events
        life.positions[answer.events] = answer.position
        life.types |= {answer.events - after: type for after, type in enumerate(reversed(types))}

    async def _end(self, id: str) -> None:
        life = self._life(id)
        answer = await self._store.publish(id, [encode("end", {"status": "succeeded"}, self._store.settings)])
        life.last, life.ended = answer.events, True

    async def _delete(self, id: str) -> None:
        life = self._life(id)
        life.deleting = True
        await self._store.delete(id, force=True)
        life.deleted = True

    def _life(self, id: str) -> Life:
        life = self._published.now(id)
        assert life is not None
        return life

    async def _look(self, id: str) -> None:
        """Find out what is stored: a call was not answered, or Redis has forgotten something."""
        while True:
            kills = self._published.kills
            try:
                shown = await self._store.get(id)
            except StorageUnavailable:
                await asyncio.sleep(0.01)
                continue
            except (NotFound, Gone):
                shown = None
            if kills == self._published.kills:
                break
        forgotten = id in self._published.doubted
        self._published.doubted.discard(id)
        before = self._published.now(id)
        life = None if shown is None else self._published.begin(id, shown.title or "")
        if before is not None and before is not life:  # deleted, or its creation was forgotten
            before.deleted = True
        if life is not None and shown is not None:
            life.sure = life.sure and not forgotten and life.last == shown.events
            life.last, life.ended, life.deleted, life.deleting = shown.events, shown.done, False, False
