"""A link to an in-memory Redis that records its operations."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any

import orjson

from progress_broker.errors import BrokerError
from progress_broker.extras import require
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewSignal, Operation
from progress_broker.model.publish import Publish, Published
from progress_broker.nodes.calls import Call
from progress_broker.nodes.node import unparsed
from progress_broker.operations.commands import check_rejection, signal_call
from progress_broker.operations.snapshot import FIELDS, read_snapshot
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import META
from progress_workers.core.inbox import Signal
from progress_workers.core.reporter import Reporter
from progress_workers.testing.recorded import RecordedOperation
from progress_workers.transport.link import FLUSH_S, Link
from progress_workers.transport.over_redis.carrier import RedisCarrier
from progress_workers.transport.over_redis.connection import Connection

try:
    import fakeredis
    import fakeredis.aioredis
    import lupa  # noqa: F401 - fakeredis needs it for scripts, but would report that only at the first script
except ModuleNotFoundError:
    require("testing", "progress_workers.testing")
    raise

When = Callable[[RecordedOperation], bool]


class _Plan:
    def __init__(self, name: str, when: When | None, act: Callable[[RecordedOperation], None]) -> None:
        self.name, self.when, self.act = name, when, act
        self.missed: Exception | None = None

    def is_due(self, operation: RecordedOperation) -> bool:
        try:
            return self.when is None or self.when(operation)
        except (LookupError, TypeError) as error:  # `when` reads something that does not exist yet
            self.missed = error
            return False


class _Memory(Connection):
    """An in-memory Redis, which tells `record` which operations were changed. One thread at a time may use it."""

    def __init__(self, settings: Settings, record: Callable[[str], None]) -> None:
        super().__init__(settings)
        self.record = record
        self.server = fakeredis.FakeServer()
        self.using = RLock()
        self._redis: Any = unparsed(fakeredis.FakeRedis(server=self.server, protocol=2))

    def client(self) -> Any:
        """Return a client of the in-memory Redis."""
        return self._redis

    def keyspace(self) -> Keyspace:
        """Return the keys of the in-memory Redis."""
        with self.using:
            return super().keyspace()

    def run(self, call: Call) -> Any:
        """Run one script and record what it stored."""
        with self.using:
            reply = super().run(call)
            if call.script is not META and reply[0] == b"ok":
                self.record(str(call.args[0]))
        return reply


class _RecordingCarrier(RedisCarrier):
    def __init__(self, memory: _Memory) -> None:
        super().__init__(memory)
        self._memory = memory

    def publish(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Store publishes and record what was stored."""
        with self._memory.using:
            answers = super().publish(publishes)
            for publish, answer in zip(publishes, answers, strict=True):
                if not isinstance(answer, BrokerError):
                    self._memory.record(publish.operation)
        return answers


class RecordingLink(Link):
    """A link to an in-memory Redis. It sends reports immediately, in the thread that makes them."""

    def __init__(self, settings: Settings, *, every: bool) -> None:
        self._memory = _Memory(settings, self._record)
        super().__init__(settings, _RecordingCarrier(self._memory))
        self.operations: dict[str, RecordedOperation] = {}
        self._settings = settings
        self._plans: list[_Plan] = []
        self._every = every
        self._followed: dict[str, list[Reporter]] = {}
        self._changed_reporters: deque[Reporter] = deque()
        self._sending = Lock()

    def open(self, reporter: Reporter, *, required: bool) -> None:
        """Open a reporter's operation at once."""
        super().open(reporter, required=True)

    def follow(self, reporter: Reporter) -> None:
        """Send the reports of a reporter from now on."""
        if self._every:
            reporter.outbox.interval_s = 0.0
        if not reporter.done:
            self._followed.setdefault(reporter.operation, []).append(reporter)
        self._carry_out()

    def wake(self, reporter: Reporter) -> None:
        """Send what a reporter has to send. If another thread is already sending, that thread sends this too."""
        self._changed_reporters.append(reporter)
        # Non-blocking: this thread may hold the reporter's lock, which the sending thread needs.
        if self._sending.acquire(blocking=False):
            self._send_all()

    def flush(self, reporters: list[Reporter] | None = None, timeout_s: float = FLUSH_S) -> bool:
        """Send everything that these reporters (or all) have to send."""
        if reporters is None:  # iterate over a copy: other threads start operations
            reporters = [reporter for group in list(self._followed.values()) for reporter in group]
        marks = [(reporter, reporter.mark()) for reporter in reporters]
        if self._sending.acquire(timeout=timeout_s):
            self._send_all()  # while this thread held the lock, another one may have skipped sending
        return all(reporter.reached(mark) and not reporter.dropped for reporter, mark in marks)

    def patience_s(self) -> float:
        """Return how long to wait for storage. It never takes this long: everything is sent immediately."""
        return FLUSH_S

    def when_stored(self, reporter: Reporter, callback: Callable[[], None]) -> Callable[[], None]:
        """Send everything that a reporter has to send, then call back."""
        self.flush([reporter])
        callback()
        return lambda: None

    def snapshot(self, operation: str) -> Operation:
        """Return an operation's snapshot, as people see it."""
        with self._memory.using:
            return read_snapshot(operation, self._memory.client().hmget(self._memory.keys(operation).snapshot, FIELDS))

    def log_after(self, operation: str, position: bytes) -> list[Any]:
        """Return the entries of an operation's log after a position."""
        with self._memory.using:
            log = self._memory.keys(operation).log
            entries: list[Any] = self._memory.client().xrange(log, min=b"(" + position)
        return entries

    def main(self) -> RecordedOperation | None:
        """Return the operation that started first, or None; the others may be its children."""
        first = next(iter(list(self._followed)), None)  # a copy: other threads start operations
        return None if first is None else self.operations[first]

    def plan(self, name: str, when: When | None, act: Callable[[RecordedOperation], None]) -> None:
        """Call `act` with the main operation as soon as it has started and `when` is true for it.

        `name` is what the action is called in errors.
        """
        self._plans.append(_Plan(name, when, act))
        self._carry_out()

    def check_plans(self) -> None:
        """Raise `AssertionError` if an action was planned whose `when` was never true."""
        for plan in self._plans:
            if plan.when is not None:
                why = f"; `when` last raised {plan.missed!r}" if plan.missed is not None else ""
                raise AssertionError(
                    f"the planned {plan.name} did not happen, because its `when` never became true{why}"
                )

    def cancel(self, operation: str, reason: str | None, by: str | None) -> None:
        """Cancel an operation, as a server does, and notify its worker and the workers of its children."""
        self._ask(lambda store: store.cancel(operation, reason=reason, by=by))
        for id in list(self.operations):
            self._record(id)
            self._look(id)

    def fence(self, operation: str) -> None:
        """Start another attempt at an operation, so that the code under test gets `Fenced`."""
        attempt = self.snapshot(operation).attempt + 1
        said = NewEvent("status", orjson.dumps({"status": "running", "attempt": attempt}), "running")
        self.publish(Publish(operation, [said], attempt, begins=True, worker="another"))
        self._look(operation)

    def signal(self, operation: str, signal: NewSignal, by: str | None) -> None:
        """Send a signal to an operation's worker."""
        memory = self._memory
        check_rejection(memory.run(signal_call(operation, memory.keys(operation), signal, by, self._settings)))
        for reporter in self._followed.get(operation, ()):
            reporter.inbox.put(Signal(signal.type, signal.data, by))

    def _send_all(self) -> None:
        """Send everything, then let others send. A thread that finds another one sending leaves its reports to it."""
        mine = True
        while mine:
            try:
                while self._changed_reporters:
                    self._send(self._changed_reporters.popleft())
            finally:
                self._sending.release()
            mine = bool(self._changed_reporters) and self._sending.acquire(blocking=False)

    def _send(self, reporter: Reporter) -> None:
        while not reporter.done and (batch := reporter.batch(time.monotonic())) is not None:
            with _losing(reporter):
                reporter.acknowledged(self.publish(batch))
            self._carry_out()

    def _look(self, operation: str) -> None:
        """Deliver to the workers of an operation what the reply to a heartbeat would contain, such as a cancel."""
        for reporter in self._followed.get(operation, ()):
            if not (reporter.done or reporter.ended):
                with _losing(reporter):
                    reporter.apply_answer(self.publish(reporter.heartbeat(time.monotonic())))

    def _record(self, operation: str) -> None:
        with self._memory.using:
            self.operations.setdefault(operation, RecordedOperation(operation, self)).read()

    def _carry_out(self) -> None:
        """Run the planned actions that are due for the main operation."""
        main = self.main()
        for plan in list(self._plans) if main is not None and main.outcome is None else ():
            if main is not None and plan.is_due(main) and plan in self._plans:
                self._plans.remove(plan)
                plan.act(main)

    def _ask(self, question: Callable[[Store], Coroutine[Any, Any, Any]]) -> None:
        async def ask() -> None:
            clients = [fakeredis.aioredis.FakeRedis(server=self._memory.server, protocol=2) for _ in range(2)]
            async with Store(Connections.of(*clients), self._memory.keyspace(), self._settings) as store:
                await question(store)

        # In a separate thread, because this thread may already run an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, ask()).result()


@contextmanager
def _losing(reporter: Reporter) -> Iterator[None]:
    """Mark the reporter's operation as lost if Redis rejects a call."""
    try:
        yield
    except BrokerError as rejection:
        reporter.lose(rejection)
