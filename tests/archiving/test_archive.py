"""What has ended is archived once, stays when Redis has removed it, and can be shown from there."""

import asyncio
import os
import zlib
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from progress_broker.archiving.archive import ArchiveSource, folder_of
from progress_broker.archiving.archiver import Archiver
from progress_broker.archiving.backup import MANIFEST, BackupSource, back_up, check
from progress_broker.archiving.buckets import Bucket
from progress_broker.archiving.stores import Folder, ObjectStore
from progress_broker.errors import BrokerError, Conflict, InvalidInput, NotFound, StorageUnavailable
from progress_broker.history import event_log
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.replay.recording import Choice, load
from progress_broker.replay.spool import Spool
from progress_broker.replicas.lease import Lease
from progress_broker.transfer.endpoints import ImportOptions, Result, Unfinished
from progress_broker.transfer.files.reader import DamagedExport
from progress_broker.transfer.format import ExportedOperation
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget
from progress_broker.transfer.state import read_state
from tests.servers import eventually
from tests.transfer.exports import ALL, export, forget_all, shown
from tests.transfer.fleet import ENDED, FAILED, SUCCEEDED, UNFINISHED, make_fleet


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


async def recorded(place: ObjectStore, id: str) -> tuple[ExportedOperation, list[bytes]]:
    """Return an operation of an archive, and the positions of its events that a replay has."""
    with Spool() as spool:
        recording = await load(ArchiveSource(place, [id]), Choice(), spool)
        return recording.operations[id], [one.event.position for one in recording.events]


async def test_what_has_ended_is_archived_once_and_outlives_its_expiry(store: Store, place: ObjectStore) -> None:
    await make_fleet(store)
    archiver = Archiver(store, place)
    async with archiver.lease.held():
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
        archived, _ = await recorded(place, id)
        assert shown(read_state(archived)) == operation
    _, positions = await recorded(place, "long")
    assert positions == [event.position for event in log]
    with pytest.raises(NotFound, match="has no operation running"):
        await recorded(place, "running")


async def test_of_an_id_that_was_used_again_the_newest_one_is_shown(store: Store, place: ObjectStore) -> None:
    for kind in ("first", "second"):
        await store.create(NewOperation(id="a", kind=kind))
        await store.publish("a", [SUCCEEDED])
        await Archiver(store, place).pass_once()
        await forget_all(store)
        await asyncio.sleep(0.002)
    assert len(await place.names(folder_of("a"))) == 2
    archived, _ = await recorded(place, "a")
    assert read_state(archived).kind == "second"


async def test_what_ends_during_a_pass_is_archived_by_the_next_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its index was read already, and a later end was seen then."""
    monkeypatch.setattr("progress_broker.archiving.archiver._AGAIN_MS", 0)
    monkeypatch.setattr("progress_broker.archiving.archiver._PAGE", 1)
    lanes = store.keyspace.lanes
    ids = [id for id in (f"op-{n}" for n in range(10 * lanes)) if zlib.crc32(id.encode()) % lanes == 0][:3]
    first, failing, second = ids
    for id in ids:
        await store.create(NewOperation(id=id))
    await store.publish(first, [SUCCEEDED])

    class Meanwhile(Folder):
        async def put(self, name: str, chunks: AsyncIterable[bytes]) -> int:
            if f"/{first}/" in name:
                await store.publish(failing, [FAILED])
                await asyncio.sleep(0.003)
                await store.publish(second, [SUCCEEDED])
            return await super().put(name, chunks)

    place = Meanwhile(tmp_path)
    for _ in range(2):
        await Archiver(store, place).pass_once()
    for id in ids:
        assert await place.names(folder_of(id)), id


async def test_what_cannot_be_archived_now_holds_nothing_else_back(store: Store, tmp_path: Path) -> None:
    await make_fleet(store)
    lane = zlib.crc32(b"long") % store.keyspace.lanes
    fault: BrokerError | None = StorageUnavailable("the disk is away")

    class Faulty(Folder):
        async def put(self, name: str, chunks: AsyncIterable[bytes]) -> int:
            if fault is not None and "/long/" in name:
                raise fault
            return await super().put(name, chunks)

    place = Faulty(tmp_path)
    with pytest.raises(StorageUnavailable, match="the disk is away"):
        await Archiver(store, place).pass_once()
    for id in ENDED:
        assert await place.names(folder_of(id)) or zlib.crc32(id.encode()) % store.keyspace.lanes == lane, id
    fault = InvalidInput("no good name")
    archiver = Archiver(store, place)
    await archiver.pass_once()
    assert archiver.archived.failed == 1
    for id in ENDED:
        assert bool(await place.names(folder_of(id))) == (id != "long"), id


async def test_one_at_a_time_has_the_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progress_broker.replicas.lease._TRY_AGAIN_S", 0.01)
    first, second = (Lease(store, "pb:archiver:x", "the archive x") for _ in range(2))
    told, entered = list[str](), asyncio.Event()

    async def wait() -> None:
        async with second.held(told.append):
            entered.set()

    async with first.held():
        with pytest.raises(Conflict, match=f"process {os.getpid()} of .* has the archive x now"):
            async with second.held():
                pass
        waiting = asyncio.create_task(wait())
        await eventually(lambda: told, "it waits")
        await asyncio.sleep(0.05)
        assert not entered.is_set()
    await waiting
    assert entered.is_set()
    [line] = told
    assert f"waiting for the archive x: process {os.getpid()} of" in line
    assert await store.connections.commands.get("pb:archiver:x") is None


async def test_a_lease_that_lapsed_is_taken_back_unless_another_process_has_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progress_broker.replicas.lease.RENEW_S", 0.01)
    commands, key = store.connections.commands, "pb:archiver:x"

    async def work() -> None:
        async with Lease(store, key, "the archive x").held():
            mine = await commands.get(key)
            await commands.delete(key)
            await eventually(lambda: commands.get(key), "it is taken back")
            assert await commands.get(key) == mine
            await commands.set(key, "host 7 other", px=60_000)
            await asyncio.sleep(60)

    with pytest.raises(Conflict, match="another process has taken over the archive x"):
        await work()
    assert await commands.get(key) == b"host 7 other"


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
