"""Before a script writes, each key that it uses was declared or touched.

A Cluster that moves a slot rejects a key which is not there, and must do so while nothing is written. Where the slot is
moved to, it rejects only commands of which another key is there: so each key is touched together with a declared one.
"""

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from progress_broker.access import deny_list
from progress_broker.history import event_log
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.nodes.calls import Call
from progress_broker.nodes.run import run
from progress_broker.operations import index_search, retention
from progress_broker.operations.commands import publish_call
from progress_broker.operations.store import Store
from progress_broker.queries.counts import count
from progress_broker.queries.filters import Filters, Span
from progress_broker.queries.page import find_page
from progress_broker.queries.walk import walk
from progress_broker.replicas.lease import Lease
from progress_broker.storage.schema import ensure_schema
from progress_broker.storage.scripts import HOLD, SPEND, VERBS
from progress_broker.transfer.endpoints import OnConflict
from tests.conftest import make_settings
from tests.servers import RealRedis
from tests.transfer.copies import copy_once
from tests.transfer.exports import export, import_into

RUNNING = NewEvent("status", b'{"status":"running"}', "running")
STALLED = NewEvent("status", b'{"status":"stalled"}', "stalled")


class Run(NamedTuple):
    """A script that ran: what it declared, and its commands."""

    verb: str
    declared: set[str]
    commands: list[list[str]]


class Monitor:
    """What a Redis does, as MONITOR tells it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._socket.settimeout(30)
        self._lines = self._socket.makefile("rb")
        self._socket.sendall(b"MONITOR\r\n")
        assert self._lines.readline() == b"+OK\r\n"

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def runs(self) -> Iterator[Run]:
        """Yield the scripts that ran until somebody said ECHO."""
        ran: Run | None = None
        for line in self._lines:
            words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r'"((?:[^"\\]|\\.)*)"', line.decode())]
            if b" lua] " in line:
                assert ran is not None
                ran.commands.append(words)
                continue
            if ran is not None:
                yield ran
            name, *args = words
            ran = Run(VERBS[args[0]], set(args[2 : 2 + int(args[1])]), []) if name == "EVALSHA" else None
            if name == "ECHO":
                return


async def use_everything(store: Store) -> None:
    redis, log = store.connections.commands, encode("log", {"message": "x"}, store.settings)
    new = NewOperation(id="a", kind="job", owner="ann", tags=["t", "u"], lease_s=60)
    await store.create(new)
    await store.create(new)
    keys = store.keyspace.operation("a")
    await store.create(NewOperation(id="b", kind="part", parent="a", lease_s=60))
    await store.get("a", list_children=True)
    await store.publish("a", [])
    await store.publish("a", [RUNNING, encode("progress", {"percent": 1}, store.settings)])
    for metadata in ({"customer": 1}, {"customer": 2}):
        await store.publish("a", [encode("metadata", metadata, store.settings)])
    await redis.hset(keys.snapshot, "listed_ms", "1")
    await store.publish("a", [log])
    await redis.hset(keys.snapshot, "listed_ms", "1")
    await store.publish("a", [])
    await store.publish("a", [STALLED], as_observer=True)
    await store.publish("a", [], lease_ms=70_000)
    for seq in (1, 2):
        for _ in range(2):
            await store.publish("a", [NewEvent("log", b"{}", "", "p", seq)])
    await store.publish("a", [NewEvent("log", b"{}", "", "p", 1)])
    await store.publish("a", [NewEvent("log", b"{}", "", f"p{n}", 1) for n in range(257)])
    await redis.xadd(keys.log, {"n": "9", "t": "log", "d": "{}"}, id="99999999999999-0")
    await store.publish("a", [log])
    await store.signal("a", NewSignal(type="pause"), by="ann")
    await store.cancel("a")
    await run(redis, publish_call("a", keys, [], attempt=2, begins=True, worker="w"))
    await redis.zadd(keys.lane.leases, {"nobody": 1, "a": 9e15})
    assert await store.upkeep.expired_leases() == []
    await index_search.by_terms(store, frozenset({b"kind:job"}), {0: b"1-0", 1: b"1-0"}, range(2), 10)
    await store.publish("a", [encode("end", {"status": "succeeded"}, store.settings)])
    await index_search.by_terms(store, frozenset({b"kind:job", b"tag:t"}), {0: b"1-0", 1: b"1-0"}, range(2), 10)
    await store.create(NewOperation(id="c", kind="job", tags=["t"]))
    for filters in (Filters(tags=("t",), kinds=("job",)), Filters(roots=True, text="x", created=Span(1), error="x")):
        await find_page(store, filters)
        await count(store, filters)
        [part async for part in walk(store, filters)]
    await store.create(NewOperation(id="long", history_length=10, retention_s=60))
    for _ in range(3):
        await store.publish("long", [log, encode("progress", {"percent": 1}, store.settings)] * 70)
    assert len(await event_log.kept(store, "long", 1_000)) > 110
    await retention.change(store, retention.Retention(60, 600))
    for keep in (retention.PINNED, retention.Keep(60), None):
        await retention.keep(store, "a", keep)
    for id in ("a", "b", "c", "long"):
        keys = store.keyspace.operation(id)
        for member in await redis.zrange(keys.lane.expiry, 0, -1):
            await redis.zadd(keys.lane.expiry, {member: 1})
    await redis.hset(store.keyspace.operation("a").snapshot, "expires", "1")
    for id in ("b", "long"):
        await redis.hset(store.keyspace.operation(id).snapshot, "expires", "1")
    assert await store.upkeep.sweep() == 4
    await redis.zrem(store.keyspace.operation("c").lane.creation_order, "c")
    await redis.zadd(store.keyspace.lane(0).creation_order, {"gone": 1, "gone2": 1, "gone3": 1})
    assert await store.upkeep.repair() == 4
    await move_away_and_back(store, "moved")
    await copy_and_follow(store)
    await store.delete("c", force=True)
    await store.probe(0, "~probe-1", b"1")
    caller = store.keyspace.caller("ann")
    await run(redis, Call(SPEND, (caller.requests,), ("1000", "1000000")))
    await run(redis, Call(HOLD, (caller.streams,), ("r", "1", "5000", "1", "LIMIT", "2")))
    async with Lease(store, f"{store.keyspace.prefix}:archiver:x", "x").held():
        pass
    await deny_list.revoke_claim(store, "sub", "bob", 60)
    await deny_list.restore_claim(store, "sub", "bob")


async def move_away_and_back(store: Store, id: str) -> None:
    """Import an operation with older events in place of itself."""
    await store.create(NewOperation(id=id, kind="job", history_length=10))
    progress = encode("progress", {"percent": 1}, store.settings)
    await store.publish(id, [encode("log", {"message": "x"}, store.settings), progress] * 100)
    await store.publish(id, [encode("end", {"status": "succeeded"}, store.settings)])
    text = await export(store, Filters(ids=(id,)))
    await store.connections.commands.hset(store.keyspace.operation(id).snapshot, "position", "1-1")
    [outcome] = await import_into(store, text, on_conflict=OnConflict.REPLACE)
    assert outcome.result == "replaced"


async def copy_and_follow(store: Store) -> None:
    """Copy all operations to another prefix of the same Redis, change some, and copy that."""
    settings = store.settings.model_copy(update={"prefix": "copy"})
    copy = Store(store.connections, await ensure_schema(store.connections, settings), settings)
    await store.create(NewOperation(id="followed", kind="job", history_length=10, lease_s=60))
    await copy_once(store, copy)
    log, progress = encode("log", {"message": "x"}, store.settings), encode("progress", {"percent": 1}, store.settings)
    await store.publish("followed", [encode("metadata", {"customer": 1}, store.settings), *[log, progress] * 90])
    await store.signal("followed", NewSignal(type="pause"))
    await store.delete("moved")
    await copy_once(store, copy)
    assert (await copy.get("followed")).events > 180


async def test_each_key_was_declared_or_looked_at_before_the_first_write(
    redis_server: RealRedis, redis_url: str
) -> None:
    settings = make_settings(redis_url=redis_url, lanes=2)
    with closing(Monitor(redis_server.socket)) as monitor:
        async with await Store.open(settings) as store:
            await use_everything(store)
            redis = store.connections.commands
            await redis.echo("done")
            runs = list(monitor.runs())
            assert {ran.verb for ran in runs} == set(VERBS.values())
            commands = {name: await read_command(redis, name) for name in {c[0] for ran in runs for c in ran.commands}}
            derived: set[str] = set()
            for ran in runs:
                known, written = set(ran.declared), False
                for command in ran.commands:
                    keys = await keys_of(redis, command)
                    written = written or "write" in commands[command[0]]
                    assert not written or keys <= known, (ran.verb, command, ran.commands)
                    if keys & ran.declared:  # one alone is not seen to be elsewhere
                        known |= keys
                    derived |= {ran.verb} if written and keys - ran.declared else set()
            written_elsewhere = {"create", "publish", "delete", "sweep", "repair", "retain", "keep", "probe", "adopt"}
            written_elsewhere |= {"mirror", "mirror_feed"}
            assert derived == written_elsewhere


async def read_command(redis: Any, name: str) -> set[str]:
    """Return the flags of a command."""
    [about] = (await redis.execute_command("COMMAND", "INFO", name)).values()
    return {flag if isinstance(flag, str) else flag.decode() for flag in about["flags"]}


async def keys_of(redis: Any, command: list[str]) -> set[str]:
    try:
        keys = await redis.execute_command("COMMAND GETKEYS", *command)
    except ResponseError:  # it has none
        return set()
    return {key if isinstance(key, str) else key.decode() for key in keys}
