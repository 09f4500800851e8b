"""What the page makes of events is what the server shows, whatever happened, wherever it began to look."""

import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from progress_broker.errors import BrokerError
from progress_broker.history import event_log
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, Status
from progress_broker.operations.commands import publish_call, read_answer
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.stream.frames import make_frame, snapshot_frame
from tests import sse
from tests.conftest import make_settings
from tests.e2e.harness import node
from tests.e2e.harness import run as run_program

LIVES, TURNS = 60, 12


class Life:
    """An operation, the turns its life may take, and how the server showed it after each."""

    def __init__(self, store: Store, id: str) -> None:
        self.store, self.id = store, id
        self.shown: list[dict[str, Any]] = []
        self.turns: list[Callable[[random.Random], Awaitable[object]]] = [
            self.report,
            self.report_much,
            self.beat,
            self.fall_silent,
            self.fall_silent,
            self.begin_again,
            self.ask_to_stop,
            self.end_by_force,
            self.end,
        ]

    async def begin(self) -> None:
        await self.store.create(NewOperation(id=self.id, kind="import", tags=["eu"], lease_s=60))
        await self.look()

    async def turn(self, chance: random.Random) -> None:
        with suppress(BrokerError):  # whatever is rejected changes nothing
            await chance.choice(self.turns)(chance)
        await self.look()

    async def look(self) -> None:
        [message] = sse.read(snapshot_frame(await self.store.get(self.id), None).wire)
        self.shown.append({"data": message.data, "id": message.id})

    async def told(self) -> dict[str, Any]:
        """Return all there is to compare: the events, as they are streamed, and what was shown."""
        messages = [sse.read(make_frame(event).wire)[0] for event in await event_log.kept(self.store, self.id, 1000)]
        events = [{"type": message.type, "data": message.data, "id": message.id} for message in messages]
        return {"events": events, "shown": self.shown}

    async def report(self, chance: random.Random) -> None:
        metadata = {chance.choice("abc"): chance.choice([None, 1, {"x": None}])}
        events = [("log", {"message": "hi"}), ("progress", {"current": 3}), ("metadata", metadata), ("custom", None)]
        type, data = chance.choice(events)
        await self.store.publish(self.id, [encode(type, data, self.store.settings)])

    async def report_much(self, chance: random.Random) -> None:
        events = [("log", {"message": "hi"}), ("progress", {"current": chance.randrange(9)}), ("custom", [1])]
        await self.store.publish(self.id, [encode(type, data, self.store.settings) for type, data in events])

    async def beat(self, _: random.Random) -> None:
        await self.store.publish(self.id, [])

    async def fall_silent(self, _: random.Random) -> None:
        leases = self.store.keyspace.operation(self.id).lane.leases
        await self.store.connections.commands.zadd(leases, {self.id: 0}, xx=True)
        await Reaper(self.store).reap()

    async def begin_again(self, chance: random.Random) -> None:
        now = await self.store.get(self.id)
        if now.status is not Status.CANCELLING:
            attempt, worker = now.attempt + 1, f"host:{chance.randrange(9)}"
            said = json.dumps({"status": "running", "attempt": attempt, "worker": worker}).encode()
            keys = self.store.keyspace.operation(self.id)
            entries = [NewEvent("status", said, "running")]
            call = publish_call(self.id, keys, entries, attempt=attempt, begins=True, worker=worker, expect=now.status)
            read_answer(await self.store.connections.scripts.run(call))

    async def ask_to_stop(self, chance: random.Random) -> None:
        by, reason = chance.choice([None, "ann@desk-3"]), chance.choice([None, "enough"])
        await self.store.cancel(self.id, reason=reason, by=by)

    async def end_by_force(self, chance: random.Random) -> None:
        if chance.random() < 0.3:
            await self.store.cancel(self.id, by="bob@desk-4", force=True)

    async def end(self, chance: random.Random) -> None:
        if chance.random() < 0.3:
            outcome = {"status": chance.choice(["succeeded", "failed", "cancelled"]), "result": 7}
            await self.store.publish(self.id, [encode("end", outcome, self.store.settings)])


async def test_all_there_is_to_show_can_be_folded_from_the_events(redis_url: str, tmp_path: Path) -> None:
    chance = random.Random(43)
    async with await Store.open(make_settings(redis_url=redis_url, force_cancel_after_s=12.345)) as store:
        lives = [Life(store, f"life-{number}") for number in range(LIVES)]
        for life in lives:
            await life.begin()
            for _ in range(TURNS):
                await life.turn(chance)
        told = [await life.told() for life in lives]
    seen = {(now["status"], now["attempt"] > 1) for life in told for now in _snapshots(life)}
    assert {(status, again) for status in Status for again in (False, True)} - seen <= {(Status.PENDING, True)}
    file = tmp_path / "lives.json"
    file.write_text(json.dumps(told))
    done = run_program([node(), "tests/contract/folding.mjs", str(file)], 60)
    assert (done.returncode, done.stdout) == (0, f"{LIVES} lives\n"), done.stderr[-4000:]


def _snapshots(life: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(shown["data"])["data"] for shown in life["shown"]]
