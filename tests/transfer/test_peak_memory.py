"""How much is moved does not matter for the memory that it takes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from tests.conftest import make_settings
from tests.topologies.kinds import ALL_BACKENDS

EVENTS = 1_000
FEW, MANY = 30, 300
MOST_MIB = 8
COMMAND = """
import atexit, re, sys
from pathlib import Path
told = Path(sys.argv.pop(1))
atexit.register(lambda: told.write_text(re.search(r"VmHWM:.*", Path("/proc/self/status").read_text())[0]))
from progress_cli.__main__ import run
run()
"""
"""The command line, which tells its peak in the end. Not `ru_maxrss`: that counts what the process was forked from."""

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the peak"),
    pytest.mark.skipif(ALL_BACKENDS not in os.environ, reason="it moves 300,000 events: make topologies"),
]


async def fill(store: Store, count: int) -> None:
    """Make operations with 1,000 events each: one by the scripts, and copies of it."""
    first, redis = "op-0", store.connections.commands
    await store.create(NewOperation(id=first, history_length=10 * EVENTS))
    for at in range(0, EVENTS, 250):
        progress = [NewEvent("progress", b'{"current":%d,"message":"row %d"}' % (n, n)) for n in range(at, at + 250)]
        await store.publish(first, progress[: EVENTS - at - 3])  # pending, running and the end are events, too
    await store.publish(first, [NewEvent("end", b'{"status":"succeeded"}', "succeeded")])
    source = store.keyspace.operation(first)
    for number in range(1, count):
        keys = store.keyspace.operation(f"op-{number}")
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.copy(source.snapshot, keys.snapshot)
            pipeline.copy(source.log, keys.log)
            for index in (keys.lane.index, keys.lane.creation_order, keys.lane.index_of("status", "succeeded")):
                pipeline.zadd(index, {f"op-{number}": number})
            await pipeline.execute()


def peak_mib(folder: Path, redis_url: str, *words: str) -> float:
    """Run a command in a process of its own; return the most memory that it had."""
    told = folder / "peak"
    command = [sys.executable, "-P", "-c", COMMAND, str(told), *words, "--redis-url", redis_url]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) kB", told.read_text())
    assert found is not None
    return int(found[1]) / 1024


async def test_ten_times_as_many_operations_take_no_more_memory(redis_url: str, tmp_path: Path) -> None:
    exported, imported = list[float](), list[float]()
    for count in (FEW, MANY):
        file = tmp_path / f"{count}.ndjson"
        async with await Store.open(make_settings(redis_url=redis_url)) as store:
            await fill(store, count)
            exported.append(peak_mib(tmp_path, redis_url, "export", str(file)))
            assert file.read_bytes().count(b'"k":"event"') == EVENTS * count
            await store.connections.commands.flushall()
        imported.append(peak_mib(tmp_path, redis_url, "import", str(file)))
        async with await Store.open(make_settings(redis_url=redis_url)) as store:
            assert await store.connections.commands.xlen(store.keyspace.operation(f"op-{count - 1}").log) == EVENTS
            await store.connections.commands.flushall()
    assert exported[1] - exported[0] < MOST_MIB, exported
    assert imported[1] - imported[0] < MOST_MIB, imported
