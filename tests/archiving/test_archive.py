"""What has ended is archived once, stays when Redis has removed it, and can be shown from there."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from progress_broker.archiving.archive import ArchiveSource, folder_of
from progress_broker.archiving.archiver import Archiver
from progress_broker.archiving.backup import MANIFEST, BackupSource, back_up, check
from progress_broker.archiving.buckets import Bucket
from progress_broker.archiving.stores import Folder, ObjectStore
from progress_broker.errors import Conflict, NotFound
from progress_broker.history import event_log
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.replay.recording import Choice, load
from progress_broker.runtime.tasks import end
from progress_broker.transfer.endpoints import ImportOptions, Result, Unfinished
from progress_broker.transfer.files.reader import DamagedExport
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget
from progress_broker.transfer.state import read_state
from tests.servers import eventually
from tests.transfer.exports import ALL, export, forget_all, shown
from tests.transfer.fleet import ENDED, SUCCEEDED, UNFINISHED, make_fleet


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return Folder(tmp_path / "archive") if request.param == "folder" else Bucket("memory:///", MemoryStore())


async def some(*chunks: bytes, fails: bool = False) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if fails:
        raise ZeroDivisionError


async def test_an_object_is_there_whole_or_not_at_all(place: ObjectStore) -> None:
    assert await place.names("op/a/") == []
    assert await place.put("op/a/1.x", some(b"ab", b"c")) == 3
    with pytest.raises(ZeroDivisionError):
        await place.put("op/a/2.x", some(b"ab", fails=True))
    assert await place.names("op/a/") == ["op/a/1.x"]
    assert (await place.has("op/a/1.x"), await place.has("op/a/2.x"), await place.has("op")) == (True, False, False)
    assert b"".join([chunk async for chunk in place.get("op/a/1.x")]) == b"abc"
    with pytest.raises(NotFound):
        _ = [chunk async for chunk in place.get("op/a/2.x")]


class Counting(Folder):
    """A folder that counts how often each object is stored."""

    puts: dict[str, int]

    async def put(self, name: str, chunks: AsyncIterable[bytes]) -> int:
        self.puts[name] = self.puts.get(name, 0) + 1
        return await super().put(name, chunks)


async def test_what_has_ended_is_archived_once_and_outlives_its_expiry(store: Store, place: ObjectStore) -> None:
    await make_fleet(store)
    archiver = Archiver(store, place)
    async with archiver.alone():
        await archiver.pass_once()
    assert (archiver.archived.written, archiver.archived.known) == (len(ENDED), 0)
    before = {id: shown(await store.get(id)) for id in ENDED if id != "parent"}
    log = await event_log.kept(store, "long", 10_000)
    await store.create(NewOperation(id="later"))
    await store.publish("later", [SUCCEEDED])
    await archiver.pass_once()
    assert archiver.archived.written == len(ENDED) + 1
    await forget_all(store)
    for id, operation in before.items():
        recording = await load(ArchiveSource(place, [id]), Choice())
        assert shown(read_state(recording.operations[id])) == operation
    recording = await load(ArchiveSource(place, ["long"]), Choice())
    assert [one.event.position for one in recording.events] == [event.position for event in log]
    with pytest.raises(NotFound, match="has no operation running"):
        await load(ArchiveSource(place, ["running"]), Choice())


async def test_of_an_id_that_was_used_again_the_newest_one_is_shown(store: Store, place: ObjectStore) -> None:
    for kind in ("first", "second"):
        await store.create(NewOperation(id="a", kind=kind))
        await store.publish("a", [SUCCEEDED])
        await Archiver(store, place).pass_once()
        await forget_all(store)
        await asyncio.sleep(0.002)
    assert len(await place.names(folder_of("a"))) == 2
    recording = await load(ArchiveSource(place, ["a"]), Choice())
    assert read_state(recording.operations["a"]).kind == "second"


async def test_two_archivers_write_each_operation_once(store: Store, tmp_path: Path) -> None:
    """One at a time has the lease. One that goes on for a first one that died finds what is there."""
    await make_fleet(store)
    place = Counting(tmp_path)
    place.puts = {}
    first, second = Archiver(store, place), Archiver(store, place)
    async with first.alone():
        with pytest.raises(Conflict, match="another `archive` writes to"):
            async with second.alone():
                pass
        task = asyncio.create_task(first.pass_once())
        await eventually(lambda: len(place.puts) > 2, "it has begun")
        await end(task)
    async with second.alone():
        await second.pass_once()
        await second.pass_once()
    names = {name for id in ENDED for name in await place.names(folder_of(id))}
    assert set(place.puts) == names
    assert len(names) == len(ENDED)
    assert sorted(place.puts.values())[:-1] == [1] * (len(ENDED) - 1)  # one may have been broken off


async def test_a_backup_is_restored_as_it_was(store: Store, place: ObjectStore) -> None:
    await make_fleet(store)
    text = await export(store)
    ids: list[str] = []
    await back_up(RedisSource(store, ALL), place, lambda end: ids.append(end.id), part_bytes=20_000)
    assert sorted(ids) == sorted((*ENDED, *UNFINISHED))
    assert len(await place.names("")) > 2
    with pytest.raises(Conflict, match="has a backup already"):
        await back_up(RedisSource(store, ALL), place, lambda _: None)
    counts: list[int] = []
    await check(BackupSource(place), counts.append)
    assert len(counts) == len(ids)
    await forget_all(store)
    options = ImportOptions(unfinished=Unfinished.KEEP)
    outcomes = [outcome async for outcome in RedisTarget(store).store(BackupSource(place), options)]
    assert {outcome.result for outcome in outcomes} == {Result.STORED}
    assert sorted((await export(store)).splitlines()[1:]) == sorted(text.splitlines()[1:])


@pytest.mark.parametrize("fault", ["no manifest", "a part is missing", "a part was changed"])
async def test_a_backup_that_is_not_whole_is_told(store: Store, tmp_path: Path, fault: str) -> None:
    await make_fleet(store)
    place = Folder(tmp_path)
    await back_up(RedisSource(store, ALL), place, lambda _: None)
    part = tmp_path / "operations-00001.ndjson.zst"
    if fault == "no manifest":
        (tmp_path / MANIFEST).unlink()
    elif fault == "a part is missing":
        part.unlink()
    else:
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    with pytest.raises(DamagedExport):
        await check(BackupSource(place), lambda _: None)
