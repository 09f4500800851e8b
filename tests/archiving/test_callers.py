"""What replicas share about callers goes into a backup if that is wanted, and comes back."""

import time
from pathlib import Path

import orjson
import pytest

from progress_broker.access.deny_list import list_revoked, revoke_claim
from progress_broker.access.shared_secret import SharedSecret
from progress_broker.archiving.backup import CALLERS, BackupSource, back_up
from progress_broker.archiving.callers import read_callers, restore_callers
from progress_broker.archiving.stores import Folder
from progress_broker.errors import InvalidInput
from progress_broker.limits.principals import NewLimits, list_limits, set_limits
from progress_broker.operations.store import Store
from progress_broker.storage.keys import denied_key, limits_key, secrets_key
from progress_broker.transfer.files.reader import DamagedExport
from progress_broker.transfer.redis.source import RedisSource
from tests.transfer.exports import ALL


async def forget(store: Store) -> None:
    prefix = store.keyspace.prefix
    for key in (secrets_key(prefix), denied_key(prefix), limits_key(prefix)):
        await store.connections.commands.delete(key)


async def test_secret_revocations_and_limits_come_back(store: Store, tmp_path: Path) -> None:
    secret, place = await SharedSecret(store).get(), Folder(tmp_path)
    ann = await revoke_claim(store, "sub", "ann", 3_600)
    await revoke_claim(store, "jti", "t-1", 60)
    limits = await set_limits(store, "noisy", NewLimits(requests_per_s=20.0, streams=5), by="ops")
    await back_up(RedisSource(store, ALL), place, lambda _: None, callers=await read_callers(store))
    await forget(store)
    stored = await restore_callers(store, await BackupSource(place).callers())
    assert str(stored) == "secrets 1, revocations 2, limits 1"
    assert await SharedSecret(store).get() == secret
    revoked, _ = await list_revoked(store, 0, 10)
    assert [(each.claim, each.value) for each in revoked] == [("sub", "ann"), ("jti", "t-1")]
    assert abs(revoked[0].until - ann.until) < 2
    [again] = await list_limits(store)
    assert again.model_copy(update={"at": limits.at}) == limits


async def test_what_has_expired_is_left_out(store: Store) -> None:
    await revoke_claim(store, "sub", "ann", 60)
    told = orjson.loads(await read_callers(store))
    assert told["ticket_secret"] is None
    told["revoked"][0]["until"] = time.time() - 1
    await forget(store)
    assert str(await restore_callers(store, orjson.dumps(told))) == "secrets 0, revocations 0, limits 0"
    assert await list_revoked(store, 0, 10) == ([], None)


async def test_what_is_damaged_or_missing_is_told_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    secret = await SharedSecret(store).get()
    without, place = Folder(tmp_path / "without"), Folder(tmp_path / "with")
    await back_up(RedisSource(store, ALL), without, lambda _: None)
    with pytest.raises(InvalidInput, match="was made without --secrets"):
        await BackupSource(without).callers()
    await back_up(RedisSource(store, ALL), place, lambda _: None, callers=await read_callers(store))
    (tmp_path / "with" / CALLERS).write_text("{}")
    with pytest.raises(DamagedExport, match="its digest does not match"):
        await BackupSource(place).callers()
    with pytest.raises(DamagedExport, match="is not valid"):
        await restore_callers(store, b'{"version": 2}')
    assert await SharedSecret(store).get() == secret
