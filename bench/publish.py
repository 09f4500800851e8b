"""The cost of reporting for a worker: a call in its loop, also while Redis does not respond; the sustained rate of log
lines; and a run of the publish script. Exits with 1 if a bound is missed.
"""

import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from rich.table import Table

from bench import machine
from bench.harness import Spread, alternating, keyspace_of, note, options, ratios, read_options, report, settings_for
from bench.processes import Child, Cores, PrivateRedis, pin, serve
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.nodes.calls import Call
from progress_broker.nodes.node import connect
from progress_broker.operations.commands import create_call, publish_call
from progress_workers import Operation, flush
from progress_workers.transport.over_redis.pipeline import run_pipeline

CHUNK = 20_000
LINES_A_FLUSH = 5_000  # below the buffer's limit of 10,000, so that nothing is dropped
PAYLOAD = b'{"message":"%b"}' % (b"x" * 286)
MOST_ADVANCE_US = 1.0
MOST_TRACK_US = 0.15
MOST_TO_TQDM = 2.0
MOST_AWAY = 1.25
FEWEST_LINES_S = 20_000
LOOPS = ("bare", "track", "advance", "away", "tqdm", "tqdm_update", "hset")
SHOWN = {
    "bare": "bare loop",
    "track": "op.track",
    "advance": "op.advance",
    "away": "op.advance, Redis stopped",
    "tqdm": "tqdm",
    "tqdm_update": "tqdm.update",
    "hset": "one HSET per item",
}
RIVALS = {"track": "tqdm", "advance": "tqdm_update", "away": "advance"}
SUSTAINED = ("log, 1 operation", "log, 16 operations", "XADD, pipelines of 100", "XADD, one by one")
SCRIPT = ("publish, 1 event", "publish, 10 events", "publish, 100 events", "2 XADD, no script")


class Loop(NamedTuple):
    items: int
    wall_s: float
    cpu_s: float


class Worker:
    """The measured process. It reports to a real Redis at the same time."""

    def __init__(self, url: str) -> None:
        self._settings = settings_for(url)
        self._client: Any = connect(self._settings)

    def answer(self, question: str, *args: Any) -> Any:
        return getattr(self, question)(*args)

    # The loop

    def loop(self, name: str, seconds: float) -> Loop:
        run: Callable[[int], None] = getattr(self, f"_{name}")
        items = CHUNK if name != "hset" else 100
        with Operation.start("loop", total=1e9, settings=self._settings) as op:
            self._op = op
            run(items)
            with self._stopped() if name == "away" else nullcontext():
                done, cpu_s, began = 0, time.process_time(), time.perf_counter()
                while (passed := time.perf_counter() - began) < seconds:
                    run(items)
                    done += items
                return Loop(done, passed, time.process_time() - cpu_s)

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Suspend Redis: it receives data but does not respond."""
        redis = int(self._client.info("server")["process_id"])
        os.kill(redis, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(redis, signal.SIGCONT)

    def _bare(self, items: int) -> None:
        for _ in range(items):
            pass

    def _track(self, items: int) -> None:
        for _ in self._op.track(range(items)):
            pass

    def _advance(self, items: int) -> None:
        op = self._op
        for _ in range(items):
            op.advance()

    _away = _advance

    def _tqdm(self, items: int) -> None:
        for _ in _bar()(range(items), file=_Nowhere()):
            pass

    def _tqdm_update(self, items: int) -> None:
        with _bar()(total=items, file=_Nowhere()) as bar:
            for _ in range(items):
                bar.update()

    def _hset(self, items: int) -> None:
        for item in range(items):
            self._client.hset("naive", "current", item)

    # Lines a second

    def sustained(self, name: str, seconds: float) -> float:
        line = "x" * 200
        if name.startswith("XADD"):
            return self._added(seconds, line, 100 if "100" in name else 1)
        count = 16 if "16" in name else 1
        # Without leases, so that only lines are stored, no heartbeats.
        operations = [Operation.start("log", lease_s=None, settings=self._settings) for _ in range(count)]
        before = sum(self._events(op.id) for op in operations)
        lines, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            for op in operations:
                for _ in range(LINES_A_FLUSH):
                    op.log(line)
            lines += count * LINES_A_FLUSH
            if not flush(30):
                raise RuntimeError("the lines were not stored within 30 s")
        passed = time.perf_counter() - began
        stored = sum(self._events(op.id) for op in operations) - before
        if stored != lines:
            raise RuntimeError(f"{lines} lines were logged and {stored} events stored")
        for op in operations:
            op.succeed()
        flush(30)
        return lines / passed

    def _events(self, operation: str) -> int:
        keys = keyspace_of(self._client, self._settings).operation(operation)
        return int(self._client.hget(keys.snapshot, "n"))

    def _added(self, seconds: float, line: str, at_once: int) -> float:
        lines, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            pipeline = self._client.pipeline(transaction=False)
            for _ in range(at_once):
                pipeline.execute_command(
                    "XADD", "naive:log", "MAXLEN", "~", 1000, "*", "level", "info", "message", line
                )
            pipeline.execute()
            lines += at_once
        return lines / (time.perf_counter() - began)

    # The script

    def script(self, name: str, seconds: float) -> float:
        """Return the server's microseconds per event.

        It is the median over round trips, because the server's time includes waits for a core.
        """
        send, events = self._adding() if name.startswith("2 XADD") else self._publishing(int(name.split()[1]))
        send()
        command = "cmdstat_xadd" if name.startswith("2 XADD") else "cmdstat_evalsha"
        end = time.perf_counter() + seconds
        found: list[float] = []
        while time.perf_counter() < end or not found:
            self._client.config_resetstat()
            send()
            found.append(float(self._client.info("commandstats")[command]["usec"]) / events)
        return statistics.median(found)

    def _publishing(self, batch: int) -> tuple[Callable[[], object], int]:
        """Ten operations per round trip, with `batch` events each, from a producer that numbers its events."""
        keyspace, seqs = keyspace_of(self._client, self._settings), [0] * 10
        names = [f"script-{batch}-{number}" for number in range(10)]
        keys = [keyspace.operation(name) for name in names]
        news = [NewOperation(id=name, kind="bench", owner="alice", tags=["one", "two"]) for name in names]
        self._carry(create_call(new.id or "", key, new, self._settings) for new, key in zip(news, keys, strict=True))
        # Numbers must be new: a repeated number would be ignored as a duplicate.
        seqs = [int(self._client.incrby(f"naive:seq:{name}", 10**9)) for name in names]

        def send() -> None:
            calls = []
            for number, (name, key) in enumerate(zip(names, keys, strict=True)):
                first, seqs[number] = seqs[number] + 1, seqs[number] + batch
                entries = [NewEvent("log", PAYLOAD, "", "bench", seq) for seq in range(first, first + batch)]
                calls.append(publish_call(name, key, entries, attempt=1, worker="bench"))
            self._carry(calls)

        return send, 10 * batch

    def _adding(self) -> tuple[Callable[[], object], int]:
        def send() -> None:
            pipeline = self._client.pipeline(transaction=False)
            for number in range(100):
                fields = ("o", f"naive-{number % 10}", "n", number, "t", "log", "d", PAYLOAD)
                pipeline.execute_command("XADD", "naive:feed", "MAXLEN", "~", 10_000, "*", *fields)
                pipeline.execute_command("XADD", f"naive:{number % 10}", "MAXLEN", "~", 1_000, "*", *fields[2:])
            pipeline.execute()

        return send, 100

    def _carry(self, calls: Iterable[Call]) -> None:
        for reply in run_pipeline(self._client, list(calls)):
            if isinstance(reply, Exception):
                raise reply
            if reply[0] != b"ok":
                raise RuntimeError(f"rejected: {reply}")


class _Nowhere:
    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


def _bar() -> Any:
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    return tqdm


def worker(pipe: Connection, url: str) -> None:
    serve(pipe, Worker(url).answer)


def main() -> int:
    parser = options(__doc__, rounds=5, seconds=1)
    parser.add_argument(
        "--no-check", action="store_true", help="only print figures; do not exit with 1 if a bound is missed"
    )
    given = read_options(parser)
    cores = Cores.split()
    pin(cores.others)
    loops = [name for name in LOOPS if not name.startswith("tqdm") or machine.installed("tqdm")]
    found: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    everything = [("loop", name) for name in loops]
    everything += [("sustained", name) for name in SUSTAINED] + [("script", name) for name in SCRIPT]
    with PrivateRedis(cores.others) as redis, Child(worker, redis.url, cores=cores.measured) as child:
        for key in alternating(everything, given.rounds):
            found[key].append(child.ask(*key, given.seconds))
            note(f"{key[0]}: {key[1]}")
        table = Table(title="Publishing: median (lowest-highest)")
        for title in ("", "figure", "unit", "ratio", "to"):
            table.add_column(title, justify="right" if title in ("figure", "ratio") else "left")
        figures = {
            "loop": loop_rows(table, {name: found["loop", name] for name in loops}),
            "sustained": sustained_rows(table, {name: found["sustained", name] for name in SUSTAINED}),
            "script": script_rows(table, {name: found["script", name] for name in SCRIPT}),
        }
        missed = list(_missed(figures["loop"], figures["sustained"]))
        report("publish", redis, given, table, {"pinned": bool(cores.measured), "results": figures, "missed": missed})
    for bound in missed:
        note(f"missed: {bound}")
    return 1 if missed and not given.no_check else 0


def _missed(loops: dict[str, Any], sustained: dict[str, Any]) -> Iterator[str]:
    most = {"advance": MOST_ADVANCE_US, "track": MOST_TRACK_US}
    for name, most_us in most.items():
        if loops[name]["cpu_us_per_item"]["median"] > most_us:
            yield f"{SHOWN[name]} takes more than {most_us} us"
        if loops[name]["to"].startswith("tqdm") and loops[name]["cpu_ratio"]["median"] > MOST_TO_TQDM:
            yield f"{SHOWN[name]} takes more than {MOST_TO_TQDM} times tqdm's"
    if loops["away"]["cpu_ratio"]["median"] > MOST_AWAY:
        yield f"without Redis a loop takes more than {MOST_AWAY} times as long"
    if sustained[SUSTAINED[0]]["figure"]["median"] < FEWEST_LINES_S:
        yield f"fewer than {FEWEST_LINES_S} lines per second are stored"


def loop_rows(table: Table, found: dict[str, list[Loop]]) -> dict[str, Any]:
    cpu = over_bare({name: [1e6 * one.cpu_s / one.items for one in rounds] for name, rounds in found.items()})
    wall = over_bare({name: [1e6 * one.wall_s / one.items for one in rounds] for name, rounds in found.items()})
    told = {}
    for name in found:
        rival = RIVALS.get(name, "bare")
        rival = rival if rival in found else "hset"
        compared = ratios(cpu[name], cpu[rival])
        spread = Spread.of(cpu[name])
        told[name] = {
            "cpu_us_per_item": spread.json(4),
            "wall_us_per_item": Spread.of(wall[name]).json(4),
            "cpu_ratio": compared.json(5),
            "to": rival,
        }
        ratio = (f"{compared.median:.2g}", SHOWN[rival]) if name in RIVALS else ("", "")
        unit = f"us of CPU per item{'' if name == 'bare' else ' more'}; {Spread.of(wall[name]).median:.2f} us of time"
        table.add_row(SHOWN.get(name, name), spread.text(3), unit, *ratio)
    table.add_section()
    return told


def over_bare(found: dict[str, list[float]]) -> dict[str, list[float]]:
    bare = found["bare"]
    return {
        name: bare if name == "bare" else [one - least for one, least in zip(rounds, bare, strict=True)]
        for name, rounds in found.items()
    }


def sustained_rows(table: Table, found: dict[str, list[float]]) -> dict[str, Any]:
    rival = SUSTAINED[2]
    return _rows(table, found, rival, "lines/s stored", digits=0)


def script_rows(table: Table, found: dict[str, list[float]]) -> dict[str, Any]:
    return _rows(table, found, SCRIPT[-1], "us of the server an event", digits=1)


def _rows(table: Table, found: dict[str, list[float]], rival: str, unit: str, *, digits: int) -> dict[str, Any]:
    told = {}
    for name, rounds in found.items():
        compared = ratios(rounds, found[rival])
        told[name] = {"figure": Spread.of(rounds).json(), "ratio": compared.json(), "to": rival}
        same = name == rival
        shown = ("", "") if same else (f"{compared.median:.2f}", rival)
        table.add_row(name, Spread.of(rounds).text(digits), unit, *shown)
    table.add_section()
    return told


if __name__ == "__main__":
    sys.exit(main())
