"""A replay over HTTP is one of the open streams: it is listed and counted, and each way to end a stream ends it."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.access.deny_list import revoke_claim
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.model.position import milliseconds
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.api.proofs import ALICE, admin, secured, token
from tests.api.raw import Client, request
from tests.servers import eventually

STREAMS = "/v1/admin/streams"
REPLAY = "/v1/operations/{}/replay"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, revocation_check_s=0.05)


async def make_slow(store: Store) -> None:
    """Make an operation whose last event was an hour after the others."""
    made, _ = await store.create(NewOperation(id="slow", owner="alice"))
    keys, redis = store.keyspace.operation("slow"), store.connections.commands
    later = f"{milliseconds(made.position.encode()) + 3_600_000}-0"
    await redis.xadd(keys.log, {"n": "2", "t": "log", "d": '{"message":"later"}'}, id=later)
    await redis.hset(keys.snapshot, mapping={"n": "2", "position": later})


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
@pytest.mark.parametrize("how", ["kicked", "replaced", "revoked", "draining"])
async def test_it_is_listed_and_ended_as_others_are(
    http: httpx.AsyncClient, base_url: str, app: Any, store: Store, outlet: str, how: str
) -> None:
    await make_slow(store)
    alice, hub = token("alice", ALICE), app.state.context.hub
    client = await Client.connect(base_url)
    client.send(request(REPLAY.format("slow"), f"Authorization: Bearer {alice}"))
    status, headers = await client.head()
    name = headers["progress-connection"]
    assert status == 200
    await client.chunk_with(b"event: status")
    rows: list[dict[str, Any]] = []

    async def is_listed() -> bool:
        answer = await http.get(STREAMS, params={"operation": "slow"}, headers=admin())
        rows[:] = answer.json()["streams"]
        return bool(rows)

    await eventually(is_listed, "it is listed")
    [row] = rows
    assert row["connection"] == name
    assert (row["principal"], row["outlet"], row["state"], row["operations"]) == ("alice", outlet, "catching up", 1)
    assert len(hub) == 1
    match how:
        case "revoked":
            await revoke_claim(store, "sub", "alice", 60)
        case "draining":
            hub.drain()
        case _:
            ended = await http.delete(f"{STREAMS}/{name}", params={"for_good": how == "replaced"}, headers=admin())
            assert ended.status_code == 200, ended.text
    text = await client.body()
    said = b"event: replaced\n" if how == "replaced" else b'event: reconnect\ndata: {"reason":"%b"}\n' % how.encode()
    assert said in text
    assert b"later" not in text
    assert b"replay-end" not in text
    client.close()
    await eventually(lambda: not len(hub) and not len(hub.replays), "it is forgotten")
    if how == "draining":
        refused = await http.get(REPLAY.format("slow"), headers=admin())
        assert (refused.status_code, refused.json()["type"]) == (503, "draining")


async def test_a_client_that_reads_nothing_makes_it_wait(
    http: httpx.AsyncClient, base_url: str, app: Any, store: Store
) -> None:
    line = NewEvent("log", b'{"message":"%b"}' % (b"x" * 16_000))
    await store.create(NewOperation(id="long", owner="alice"))
    for _ in range(8):
        await store.publish("long", [line] * 100)
    client = await Client.connect(base_url, receive_buffer=4_096)
    client.send(request(f"{REPLAY.format('long')}?speed=max", f"Authorization: Bearer {token('alice', ALICE)}"))
    assert (await client.head())[0] == 200
    replays = app.state.context.hub.replays
    await eventually(lambda: [it for it in replays if it.full_since is not None], "its buffer is full")
    text = await client.body()
    assert text.count(b"event: log\n") == 800
    assert b"event: replay-end\n" in text
    client.close()
