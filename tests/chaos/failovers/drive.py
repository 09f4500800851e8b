"""A server, two workers and watchers of each kind over a topology, while a test breaks it; and what must hold then."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any, Self

import httpx
import orjson

from progress_broker.storage.keys import Keyspace
from tests.chaos.failovers.told import Line, Told
from tests.servers import ApiReplica, wait_until
from tests.topologies.topology import LANES

RATE = 20.0
"""Lines a second of an operation of the first worker. The one over HTTP writes a quarter of that."""
STEPS = 4
"""From a worker to the server, to Redis, and back."""
OPS = "/v1/operations"
KEYS = Keyspace("pb", LANES)
HISTORY = 100_000


def named(prefix: str, lane: int) -> str:
    """Return the id of an operation in a lane."""
    return next(id for number in count() if KEYS.lane_of(id := f"{prefix}-{lane}-{number}") == lane)


class Worker:
    """A process of `worker.py`, and what it has said so far."""

    def __init__(self, address: str, rate: float, names: Sequence[str], log: Path) -> None:
        self.names, self.log = list(names), log
        self.acknowledged: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self.pauses: list[tuple[float, float]] = []
        name = "PROGRESS_URL" if address.startswith("http") else "PROGRESS_REDIS_URL"
        env = os.environ | {name: address, "PROGRESS_HISTORY_LENGTH": str(HISTORY)}
        with log.open("wb") as errors:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.failovers.worker", str(rate), *names],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    def _hear(self) -> None:
        assert self.popen.stdout is not None
        for said in self.popen.stdout:
            name, value, at = said.split()
            if name == "pause":
                self.pauses.append((float(value), float(at)))
            else:
                self.acknowledged[name].append((int(value), float(at)))

    def tell(self, **command: Sequence[str]) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(command) + "\n")
        self.popen.stdin.flush()

    def start(self, names: Sequence[str]) -> None:
        self.names += names
        self.tell(start=names)

    def finish(self) -> None:
        """Let all its operations succeed, and wait until it is at its end."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        assert self.popen.wait(60) == 0, self.log.read_text()[-3000:]
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.wait()
        self._thread.join()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


class Answering(threading.Thread):
    """Notices when the machine has no time for the server: a question that needs no Redis waits."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.pauses: list[tuple[float, float]] = []
        self._url, self._over = url, threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as http:
            while not self._over.wait(0.05):
                before = time.monotonic()
                http.get("/livez")
                self.pauses.append((time.monotonic() - before, time.monotonic()))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


class Drive:
    """All processes of a row. `lanes` of the first worker are watched by all kinds of watchers."""

    def __init__(
        self, url: str, folder: Path, stack: ExitStack, *, sdk_url: str | None = None, rate: float = RATE
    ) -> None:
        """`sdk_url` is the address of the first worker; the server's, if it is None. `rate` is that of its lines."""
        self._stack, self._folder = stack, folder
        settings: dict[str, object] = {"lanes": LANES, "history_length": HISTORY}
        self.api = stack.enter_context(ApiReplica(url, folder / "api.log", **settings))
        self.http = stack.enter_context(httpx.Client(base_url=self.api.url, timeout=30))
        self.names = [named("op", lane) for lane in range(LANES)]
        self.over_http = [named("http", lane) for lane in range(LANES)]
        self.workers = [
            stack.enter_context(Worker(sdk_url or self.api.url, rate, self.names, folder / "worker.log")),
            stack.enter_context(Worker(self.api.url, rate / 4, self.over_http, folder / "worker-http.log")),
        ]
        self.watchers = self._watch(self.api.url, url)
        self.began = time.monotonic()
        self.figures: dict[str, Any] = {}
        self.slack = 0.0
        self.answering = stack.enter_context(Answering(self.api.url))
        assert self.watchers.stdout is not None
        assert self.watchers.stdout.readline() == b"\n", self.outputs()
        wait_until(self._is_under_way, "all operations report")
        time.sleep(1)  # some lines of each

    def _watch(self, url: str, redis_url: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.chaos.failovers.watchers", url, redis_url, *self.names]
        with (self._folder / "watchers.log").open("wb") as errors:
            watchers = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert watchers.stdout is not None
        self._stack.callback(watchers.stdout.close)
        self._stack.callback(watchers.wait)
        self._stack.callback(watchers.kill)
        return watchers

    def _is_under_way(self) -> bool:
        return all(len(worker.acknowledged[name]) > 2 for worker in self.workers for name in worker.names)

    @property
    def acknowledged(self) -> dict[str, list[tuple[int, float]]]:
        return {name: said for worker in self.workers for name, said in worker.acknowledged.items()}

    def await_publishing(self, since: float, names: Collection[str] | None = None) -> None:
        """Wait until all operations, or some, publish again, and have for half a second."""
        wanted = self.in_lanes(range(LANES)) if names is None else names

        def silent() -> list[str]:
            said = self.acknowledged
            return [name for name in wanted if name not in said or said[name][-1][1] <= since + 0.5]

        try:
            wait_until(lambda: not silent(), "all operations publish")
        except AssertionError:
            raise AssertionError(f"not published again within a minute: {silent()}\n{self.outputs()}") from None

    def in_lanes(self, lanes: Collection[int]) -> list[str]:
        return [name for names in (self.names, self.over_http) for lane, name in enumerate(names) if lane in lanes]

    def gap_s(self, name: str, since: float, until: float = float("inf")) -> float:
        """Return the longest time between two answers to the worker of an operation."""
        times = [at for _, at in self.acknowledged[name] if at < until]
        return max((after - before for before, after in pairwise(times) if after >= since), default=0.0)

    def first_after(self, name: str, since: float) -> float:
        """Return when the worker of an operation was answered first after a time."""
        return next(at for _, at in self.acknowledged[name] if at > since)

    def pause_s(self, since: float) -> float:
        """Return the longest time that the machine let a worker or the server wait, which asks nothing of Redis."""
        pauses = [*self.workers[0].pauses, *self.workers[1].pauses, *self.answering.pauses]
        return max((late for late, at in pauses if at >= since), default=0.0)

    def slack_s(self, since: float) -> float:
        """Return by how much a bound may be missed: an answer takes some steps, each of which the machine may delay.

        On a machine with nothing else to do it is some tenths of a second.
        """
        before = [self.gap_s(name, self.began, since) for name in self.in_lanes(range(LANES))]
        self.figures["longest gap before"] = f"{max(before):.2f} s"
        return max(before) + STEPS * self.pause_s(since)

    def gaps(self, since: float, hit: Collection[int]) -> tuple[float, float]:
        """Note the gaps of the lanes that were hit, and of the others; return the longest of each."""
        others = set(range(LANES)).difference(hit)
        by = [[self.gap_s(name, since) for name in self.in_lanes(lanes)] for lanes in (hit, others)]
        for title, gaps in zip(("gap of lanes hit", "gap of others"), by, strict=True):
            if gaps:
                self.figures[title] = f"{min(gaps):.2f}, {median(gaps):.2f}, {max(gaps):.2f} s"
        self.figures["pause of the machine"] = f"{self.pause_s(since):.2f} s"
        return max(by[0], default=0.0), max(by[1], default=0.0)

    def finish(
        self, row: str, since: float, *, back: float | None = None, whole: bool = True, left: Collection[str] = ()
    ) -> "Outcome":
        """Let all operations succeed, and check what must hold after any fault. Print the figures.

        The fault began at `since`, and was over at `back`. Unless watchers are to have the `whole` log, they may have
        what is stored since their last reset. Those of operations that were `left` were told an end before it was lost,
        and were closed then; a stream of many was not.
        """
        for worker in self.workers:
            worker.finish()
        try:
            out, _ = self.watchers.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.watchers.terminate()
            out, _ = self.watchers.communicate(timeout=60)
        outcome = Outcome(self, out, since if back is None else back)
        outcome.check(whole, left)
        self.slack = self.slack_s(since)
        print(f"\n{row}: " + "; ".join(f"{title} {value}" for title, value in self.figures.items()))
        assert not outcome.faults, "\n".join([f"{len(outcome.faults)} faults", *outcome.faults[:12], self.outputs()])
        return outcome

    def outputs(self) -> str:
        """What the processes said, shortened."""
        logs = [self.api.log, self._folder / "watchers.log", *(worker.log for worker in self.workers)]
        return "\n".join(f"--- {log.name}\n{log.read_text('utf-8', 'replace')[-1500:]}" for log in logs)


class Outcome:
    """What is stored in the end, and what watchers were told."""

    def __init__(self, drive: Drive, told: bytes, back: float) -> None:
        self.drive, self._back = drive, back
        self.told = [Told.from_json(each) for each in orjson.loads(told)]
        names = [name for worker in drive.workers for name in worker.names]
        self.logs = {name: self._log(name) for name in names}
        self.faults: list[str] = []

    def _log(self, name: str) -> list[Line]:
        lines: list[Line] = []
        page: dict[str, Any] = {"done": False, "position": "0-0"}
        while not page["done"]:
            query = {"after": page["position"], "limit": 1000}
            page = self.drive.http.get(f"{OPS}/{name}/events", params=query).raise_for_status().json()
            if not page["events"]:
                break
            lines += [Line.of(event) for event in page["events"]]
        return lines

    def check(self, whole: bool, left: Collection[str]) -> None:
        """Note what does not hold."""
        acknowledged = 0
        for name, log in self.logs.items():
            said = self.drive.acknowledged[name]
            acknowledged += said[-1][0]
            self.faults += self._of_log(name, log, said[-1][0])
        lost = sum(1 for fault in self.faults if "acknowledged" in fault)
        for told in self.told:
            log = self.logs[told.operation]
            closed = told.operation in left and told.kind != "stream of many"
            if closed and told.ended and told.lines[-1].text == log[-1].text:
                continue
            self.faults += told.differences(log, whole=whole)
        self.drive.figures |= {"acknowledged": acknowledged, "operations with loss": lost}
        self._resets()

    def _of_log(self, name: str, log: list[Line], acknowledged: int) -> Iterator[str]:
        if [line.n for line in log] != list(range(1, len(log) + 1)):
            yield f"{name}: the log has holes: {[line.n for line in log][:50]}"
        lines = [line.text.removeprefix("log line ") for line in log if line.text.startswith("log ")]
        if len(lines) < acknowledged:
            yield f"{name}: {acknowledged} lines were acknowledged, and {len(lines)} are stored"
        if lines != [str(number) for number in range(1, len(lines) + 1)]:
            place = next(i for i, line in enumerate(lines) if line != str(i + 1))
            yield f"{name}: acknowledged, but not stored in order: {lines[max(0, place - 2) : place + 4]} at {place}"
        if not log or log[-1].text != f'end {{"error":null,"result":{{"lines":{len(lines)}}},"status":"succeeded"}}':
            yield f"{name}: given up: {log[-1:]}"

    def _resets(self) -> None:
        """Note how many resets were told, and when: counted from when the operation's worker was answered again."""
        resets = [(told, reset) for told in self.told for reset in told.resets]
        if not resets:
            return
        by_kind: dict[str, int] = defaultdict(int)
        for told, _ in resets:
            by_kind[told.kind] += 1
        late = [reset.at - self.again_at(told.operation) for told, reset in resets]
        lost = {told.operation: self._lost(told) for told, _ in resets}
        self.drive.figures |= {
            "resets": ", ".join(f"{kind} {many}" for kind, many in by_kind.items()),
            "told and lost": f"{sum(lost.values())} events of {len(lost)} operations",
            "told after": f"{median(late):.2f}, {max(late):.2f} s",
        }

    def again_at(self, name: str) -> float:
        """Return when an operation's worker was answered first after the fault was over."""
        return next((at for _, at in self.drive.acknowledged[name] if at > self._back), self._back)

    @property
    def told_after_s(self) -> float:
        """The longest time until a watcher was told of its loss."""
        resets = [(told.operation, reset.at) for told in self.told for reset in told.resets]
        return max((at - self.again_at(name) for name, at in resets), default=0.0)

    @property
    def forgotten_s(self) -> float:
        """For how long at most an operation was reported to a Redis that lost it."""
        return self.forgotten / RATE

    @property
    def forgotten(self) -> int:
        """How many events of one operation were told and lost, at most."""
        return max((self._lost(told) for told in self.told), default=0)

    def _lost(self, told: Told) -> int:
        """Return how many events it was told at most, before a reset, that are not stored."""
        stored = set(self.logs[told.operation])
        return max((len(set(reset.forgotten) - stored) for reset in told.resets), default=0)

    @property
    def resets(self) -> int:
        return sum(len(told.resets) for told in self.told)


@contextmanager
def driving(url: str, folder: Path, *, sdk_url: str | None = None, rate: float = RATE) -> Iterator[Drive]:
    """Run all processes of a row."""
    with ExitStack() as stack:
        yield Drive(url, folder, stack, sdk_url=sdk_url, rate=rate)
