"""Streams of many operations: of those named, of a query, and of a query with an interval."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from progress_broker.bundle import cursor
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.query import OperationQuery
from progress_broker.errors import Ended, Gone, NotFound, StorageUnavailable
from progress_broker.stream.delivery import Delivery, Start
from tests.fuzz.account import Account
from tests.fuzz.published import Life
from tests.fuzz.reading import Connection, Told
from tests.fuzz.running import ANY_REDIS, SEEDS, Run, running
from tests.servers import RealRedis, eventually

IDS = tuple(f"j{number}" for number in range(10))
JOBS = OperationQuery(terms=frozenset({b"kind:job"}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRedis]:
    with RealRedis(tmp_path / "redis") as server:
        yield server


class Client:
    """Follows what a query asks for."""

    def __init__(self, run: Run, name: str, query: OperationQuery, interval_s: float = 0) -> None:
        self.account = Account(name, run.published, all_is_kept=run.redis_is == "forgetful")
        self._run, self._query, self._delivery = run, query, Delivery(interval_s=interval_s)
        self._random = Random(run.random.random())
        self._cursor: str | None = None
        self._places: dict[int, LanePosition] = {}  # where it stood when it connected
        self._connection: Connection | None = None
        self._was_slow = False  # on the connection before this one
        self._listed = False  # whether this connection has told what it follows

    async def follow(self) -> None:
        """Connect and be cut off, until the writers stop."""
        while not self._run.stop.is_set():
            connection = await self._connect_once_possible(self._random)
            if connection is None:
                await asyncio.sleep(0.02)
            else:
                await connection.stay(self._random)

    async def settle(self) -> None:
        """Come back until all is told to have ended that has."""
        while (connection := await self._connect_once_possible(None)) is not None:
            over = partial(lambda it: it.over or not self._running(), connection)
            await eventually(over, f"{self.account.name} is told all ends: {self._running()}")
            connection.leave()
            if not self._running():
                break
        for operation, known in self.account.known.items():
            life = self._run.published.lives.get((operation, known.title))
            if life is not None and not life.deleted:
                assert known.n == life.last, f"{self.account.name} was told {known.n} events of {operation}: {life}"

    def _running(self) -> list[str]:
        return [operation for operation, known in self.account.known.items() if known.running]

    async def _connect_once_possible(self, random: Random | None) -> Connection | None:
        while True:
            try:
                return await self._connect(random)
            except StorageUnavailable:
                await asyncio.sleep(0.02)

    async def _connect(self, random: Random | None) -> Connection | None:
        """Return a connection; None if all that is asked for has ended, or none of it exists."""
        hub = self._random.choice(self._run.hubs)
        self._places = {} if self._cursor is None else cursor.parse(self._cursor, 3)
        try:
            bundle = await hub.bundles.open(self._query, Start(self._cursor), self._delivery, wait=random is not None)
        except Ended:
            assert self._query.ids, "that of a query has no end"
            assert all(self._was_deleted(operation) for operation in self._running()), self._running()
            self._cursor = None
            self.account.known.clear()
            return None
        except (Gone, NotFound):  # none of those named is there
            self._cursor = None
            self.account.known.clear()
            return None
        before, self._connection = self._connection, Connection(bundle, self._hear, random)
        self._was_slow = before is not None and before.was_slow
        self._listed = False
        self.account.connected(f"with {self._cursor}")
        bundle.attach(self._connection)
        return self._connection

    def _hear(self, told: Told) -> None:
        self._cursor = told.id or self._cursor
        # What was left out shows with the next event, and that may come on the next connection.
        slow = self._was_slow or (self._connection is not None and self._connection.was_slow)
        self.account.may_conflate = slow or self._delivery.interval_s > 0
        if told.name == "operations":
            self._list(told)
        elif told.name in ("reconnect", "ping"):
            self.account.note(told)
        else:
            if not self._listed:
                self.account.fail(f"{told} comes before what is followed")
            self._event(told)

    def _event(self, told: Told) -> None:
        operation = told.data["operation"]
        if told.name == "missing":
            self.account.forget(operation)
            self.account.note(told)
        elif told.name == "snapshot":
            place = self._places.get(self._run.store.keyspace.lane_of(operation))
            self.account.snapshot(told, expected=place is None or place.partial)
        else:
            self.account.event(told)

    def _list(self, told: Told) -> None:
        """Forget what is not listed: it was told to have ended, or was deleted."""
        if self._listed:
            self.account.fail("what is followed is told twice")
        self._listed = True
        self.account.note(told)
        whole = self._places and not any(place.partial for place in self._places.values())
        for operation in set(self.account.known) - set(told.data["operations"]):
            running = self.account.known[operation].running
            if running and whole and "reset" not in told.data and not self._was_deleted(operation):
                self.account.fail(f"{operation} is not listed, and its end was not told: {self._life(operation)}")
            self.account.forget(operation)

    def _life(self, operation: str) -> Life | None:
        return self._run.published.lives.get((operation, self.account.known[operation].title))

    def _was_deleted(self, operation: str) -> bool:
        life = self._life(operation)
        return (
            life is None or life.deleted or life.deleting or not life.sure or operation in self._run.published.doubted
        )


@pytest.mark.parametrize("redis_is", ANY_REDIS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_client_that_is_cut_anywhere_misses_nothing_unnoticed(
    server: RealRedis, seed: int, redis_is: str
) -> None:
    print(f"seed {seed}")
    async with running(server, seed, redis_is) as run:
        clients = [
            Client(run, "query", JOBS),
            Client(run, "named", OperationQuery(ids=IDS[:6])),
            Client(run, "paced", JOBS, interval_s=0.05),
        ]
        await run.play(IDS, clients)
        for client in clients:
            await client.settle()
            await client.account.compare(run.store)
            client.account.check()
            print(client.account.name, dict(client.account.counts))
