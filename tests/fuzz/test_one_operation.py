"""Streams of one operation."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from progress_broker.errors import Ended, Gone, NotFound, StorageUnavailable
from progress_broker.stream.delivery import Start
from tests.fuzz.account import Account
from tests.fuzz.reading import Connection, Told
from tests.fuzz.running import ANY_REDIS, SEEDS, Run, running
from tests.servers import RealRedis, eventually

IDS = ("a", "b", "c")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRedis]:
    with RealRedis(tmp_path / "redis") as server:
        yield server


class Client:
    """Follows one operation, with whatever has its id."""

    def __init__(self, run: Run, operation: str, number: int) -> None:
        self.account = Account(
            f"client {number} of {operation}", run.published, all_is_kept=run.redis_is == "forgetful"
        )
        self._run, self._operation = run, operation
        self._random = Random(run.random.random())
        self._position: str | None = None

    async def follow(self) -> None:
        """Connect and be cut off, until the writers stop."""
        while not self._run.stop.is_set():
            connection = await self._connect(self._random)
            if connection is None:
                await asyncio.sleep(0.02)
                continue
            await connection.stay(self._random)
            self.account.may_conflate = False
            if self._ended and self._random.random() < 0.5:
                self._forget()

    async def settle(self) -> None:
        """Come back until the end was told, if there is one."""
        if self._ended:  # perhaps that of an earlier one with its id
            self._forget()
        while (life := self._run.published.now(self._operation)) is not None:
            connection = await self._connect(None)
            if connection is None:
                await asyncio.sleep(0.02)
            else:
                await eventually(lambda: connection.over, f"{self._operation} ends")  # noqa: B023
            if self._ended:
                assert self.account.known[self._operation].n == life.last
                return

    @property
    def _ended(self) -> bool:
        known = self.account.known.get(self._operation)
        return known is not None and not known.running

    def _forget(self) -> None:
        self._position = None
        self.account.known.clear()

    async def _connect(self, random: Random | None) -> Connection | None:
        hub = self._random.choice(self._run.hubs)
        try:
            subscription = await hub.subscribe(
                self._operation, Start(self._position), await_creation=random is not None
            )
        except (Ended, Gone, NotFound):
            self._forget()
            return None
        except StorageUnavailable:
            return None
        connection = Connection(subscription, self._hear, random)
        self._connection = connection
        self.account.connected(f"after {self._position}")
        subscription.attach(connection)
        return connection

    def _hear(self, told: Told) -> None:
        resumed, self._position = self._position is not None, told.id or self._position
        self.account.may_conflate = self._connection.was_slow
        if told.name == "snapshot":
            self.account.snapshot(told, expected=not resumed or self._operation not in self.account.known)
        elif "n" in told.data:
            self.account.event(told)
        else:
            self.account.note(told)


@pytest.mark.parametrize("redis_is", ANY_REDIS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_client_that_is_cut_anywhere_misses_nothing_unnoticed(
    server: RealRedis, seed: int, redis_is: str
) -> None:
    print(f"seed {seed}")
    async with running(server, seed, redis_is) as run:
        clients = [Client(run, id, number) for number in range(2) for id in IDS]
        await run.play(IDS, clients)
        for client in clients:
            await client.settle()
            await client.account.compare(run.store)
            client.account.check()
            print(client.account.name, dict(client.account.counts))
