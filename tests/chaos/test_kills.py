"""Workers are killed at random moments: their operations stall and end in time; what was said to be stored is there.

`make test` kills a few, `make chaos` a hundred (PROGRESS_KILLS).
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import orjson
import redis

from progress_broker.storage.keys import Keyspace
from tests.conftest import make_settings
from tests.servers import RealRedis, wait_until
from tests.workers.reaping import Reaping

LEASE_S = 1.0
LATE_S = 1.0 if "PROGRESS_KILLS" in os.environ else 60.0  # beside other tests machines are busy
AT_ONCE = 5
KEYS = Keyspace("pb", 16)


def kill_some(url: str, names: list[str]) -> dict[str, tuple[int, float]]:
    """Start workers and kill each at a random moment; return the last line each knew to be stored, and when it died."""
    environment = os.environ | {"PROGRESS_REDIS_URL": url, "PROGRESS_HISTORY_LENGTH": "1000000"}
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.diary", name, str(LEASE_S)], stdout=subprocess.PIPE, env=environment
        )
        for name in names
    }
    told = {}
    for name, worker in workers.items():
        assert worker.stdout is not None
        first = worker.stdout.readline()
        time.sleep(random.uniform(0, 0.3))
        worker.kill()
        died = time.time()  # by the clock that Redis here goes by, too
        rest, _ = worker.communicate()
        stored = [int(line) for line in (first + rest).split(b"\n")[:-1]]
        told[name] = stored[-1], died
    return told


def test_a_worker_killed_at_any_moment_loses_nothing_it_was_told_is_stored(folder: Path) -> None:
    kills, waits = int(os.environ.get("PROGRESS_KILLS", "10")), []
    with RealRedis(folder / "redis") as server:
        settings = make_settings(redis_url=server.url, worker_lost_after_s=1)
        client = redis.Redis.from_url(server.url)

        def status(name: str) -> str:
            return str(client.hget(KEYS.operation(name).snapshot, "status").decode())  # type: ignore[union-attr]

        with Reaping(settings):
            for batch in range(0, kills, AT_ONCE):
                names = [f"op-{i}" for i in range(batch, min(kills, batch + AT_ONCE))]
                told = kill_some(server.url, names)
                for name, (line, died) in told.items():
                    wait_until(lambda name=name: status(name) == "failed", f"{name} ends")  # type: ignore[misc]
                    keys = KEYS.operation(name)
                    entries = [entry for key in (keys.kept, keys.curve, keys.log) for entry in client.xrange(key)]
                    entries.sort(key=lambda entry: int(entry[1][b"n"]))
                    check(entries, line)
                    waits.append(stalled_at(entries) - died)
        client.close()
    assert max(waits) < LEASE_S + LATE_S
    print(f"kills: {kills}, stalled within {max(waits):.2f} s of a lease of {LEASE_S} s, nothing lost, nothing twice")


def stalled_at(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> float:
    """Return when the operation was found stalled, in seconds since 1970."""
    [position] = [position for position, fields in entries if fields[b"d"] == b'{"status":"stalled"}']
    return int(position.partition(b"-")[0]) / 1000


def check(entries: list[tuple[bytes, dict[bytes, bytes]]], stored: int) -> None:
    """Each event was stored once, and the lines up to at least what was known to be stored; the end comes last."""
    numbers = [int(fields[b"n"]) for _, fields in entries]
    assert sorted(set(numbers)) == numbers
    lines = [orjson.loads(fields[b"d"])["message"] for _, fields in entries if fields[b"t"] == b"log"]
    assert lines == [f"line {i}" for i in range(1, len(lines) + 1)]
    assert len(lines) >= stored
    assert entries[-1][1][b"t"] == b"end"
    assert orjson.loads(entries[-1][1][b"d"])["error"]["type"] == "worker-lost"
