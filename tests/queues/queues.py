"""Each queue as users run it: its worker command, and its own API to enqueue and to revoke."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import redis

from progress_workers.values import brief
from tests.queues.processes import in_session
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]


class Loop:
    """An event loop in a thread, for clients that need a permanent loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def begin(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Queue:
    """A queue and its worker, with the tests' Redis."""

    name: ClassVar[str]
    command: ClassVar[list[str]]
    slots: ClassVar = 1
    """How many tasks its worker runs at the same time."""
    carrier: ClassVar = "redis"
    """What carries its reports, and those of who enqueues: `redis` or `http`. No queue knows of it, so each has one."""

    def __init__(self, url: str, server: str, log: Path) -> None:
        self.url, self._log = url, log
        self.address = server if self.carrier == "http" else url
        """Where reports go."""
        self._worker: subprocess.Popen[bytes] | None = None
        self.idle = f"idle-{self.name}"
        self.redis: Any = redis.Redis.from_url(url)
        self.app: Any = importlib.import_module(f"tests.queues.{self.name}_app")

    def nowhere(self) -> str:
        """Return another address of this kind where nobody answers."""
        return f"{self.carrier}://127.0.0.1:{free_port()}"

    def report_to(self, address: str, patch: pytest.MonkeyPatch) -> None:
        """Let this process, and the workers that it starts, report to an address."""
        for name in ("PROGRESS_REDIS_URL", "PROGRESS_URL"):
            patch.delenv(name, raising=False)
        patch.setenv("PROGRESS_URL" if self.carrier == "http" else "PROGRESS_REDIS_URL", address)

    def start(self) -> None:
        """Start the worker, unless it runs. It reports to where this process does."""
        if self._worker is not None and self._worker.poll() is None:
            return
        bin = str(Path(sys.executable).parent / self.command[0])
        with self._log.open("ab") as out:
            self._worker = subprocess.Popen(
                [bin, *self.command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                start_new_session=True,
                env=os.environ | {"QUEUE_REDIS_URL": self.url, "PYTHONPATH": str(ROOT)},
            )

    def tell(self, number: int) -> None:
        """Send the worker a signal that ends it, until it has: `asyncio.wait_for`, under arq, may lose a cancel."""
        worker = self._worker
        assert worker is not None

        def told() -> bool:
            worker.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                worker.wait(2)
            return worker.poll() is not None

        wait_until(told, "the worker ends")

    def stop(self) -> None:
        """Kill the worker, and all processes that it started: one that is left would still take messages."""
        if self._worker is None:
            return
        session = self._worker.pid

        def gone() -> bool:
            doomed = in_session(session)
            for process in doomed:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            return not doomed

        wait_until(gone, "the worker's processes are gone")
        self._worker.wait(30)
        self._worker = None
        self.redis.ping()  # after this, Redis knows that they disconnected

    def close(self) -> None:
        self.stop()
        self.redis.close()

    def output(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def enqueue(self, task: str, *args: Any, idle: bool = False, **words: Any) -> str:
        """Enqueue a task, to be ignored by workers if `idle`; return its operation's id."""
        raise NotImplementedError

    def outcome(self, task: str) -> Any:
        """Return what the queue itself says of how a task went; None while it says nothing."""
        return "nothing is said"

    @contextmanager
    def revoking(self, task: str) -> Iterator[None]:
        """Revoke a task that waits, in a block in which a worker gets to it."""
        self.revoke(task)
        yield

    def revoke(self, task: str) -> None:
        raise NotImplementedError

    def forget_the_dead(self) -> None:
        """Make it so late that the queue gives up a worker that was killed."""


class Celery(Queue):
    name = "celery"
    carrier = "http"
    slots = 2  # its pool needs seconds to replace a killed process
    command: ClassVar = [
        "celery",
        "-A",
        "tests.queues.celery_app",
        "worker",
        "-c",
        "2",
        "-l",
        "INFO",
        "--without-mingle",
    ]

    def enqueue(self, task: str, *args: Any, idle: bool = False, **words: Any) -> str:
        headers = {"headers": {"progress": words}} if words else {}
        options = {"queue": self.idle} if idle else {}
        result = self.app.app.tasks[f"tests.queues.celery_app.{task}"].apply_async(args, **headers, **options)
        return str(result.id)

    def outcome(self, task: str) -> Any:
        result = self.app.app.AsyncResult(task)
        return (result.state, repr(result.result)) if result.ready() else None

    def revoke(self, task: str) -> None:
        """Wait for the worker's word: it may be free for the task before it has heard."""
        assert self.app.app.control.revoke(task, reply=True, limit=1, timeout=30)

    def terminate(self, task: str) -> None:
        self.app.app.control.revoke(task, terminate=True)


class RQ(Queue):
    name = "rq"
    carrier = "http"
    command: ClassVar = ["rq", "worker", "--job-class", "tests.queues.rq_app.Job", "tests", "--url"]

    def __init__(self, url: str, server: str, log: Path) -> None:
        super().__init__(url, server, log)
        self.command = [*type(self).command, url]

    def enqueue(self, task: str, *args: Any, idle: bool = False, **words: Any) -> str:
        from rq import Retry

        from progress_workers.queues.rq import Queue as Reported

        queue = Reported(self.idle, connection=self.app.connection) if idle else self.app.queue
        again = {"retry": Retry(max=1)} if task in ("flaky", "hopeless", "dies", "waits", "deaf") else {}
        given = {"count": {"kind": "count", "tags": ["eu"]}}.get(task, {}) | words
        meta = {"progress": False if "unreported" in task else given}
        return str(queue.enqueue(f"tests.queues.rq_app.{task}", *args, meta=meta, **again).id)

    def outcome(self, task: str) -> Any:
        import rq

        job = rq.job.Job.fetch(task, self.app.connection)
        if not job.is_finished and not job.is_failed:
            return None
        try:
            return job.get_status().value, brief(job.return_value())
        except Exception as error:  # it can't be unpickled
            return job.get_status().value, type(error)

    def revoke(self, task: str) -> None:
        from progress_workers.queues.rq import Job

        Job.fetch(task, self.app.connection).cancel()

    def terminate(self, task: str) -> None:
        from rq.command import send_stop_job_command

        send_stop_job_command(self.app.connection, task)


class Dramatiq(Queue):
    name = "dramatiq"
    command: ClassVar = ["dramatiq", "tests.queues.dramatiq_app", "--processes", "1", "--threads", "1"]

    def enqueue(self, task: str, *args: Any, idle: bool = False, **words: Any) -> str:
        message = getattr(self.app, task).message_with_options(args=args, **({"progress": words} if words else {}))
        if idle:
            self.app.broker.declare_queue(self.idle)
            message = message.copy(queue_name=self.idle)
        return str(self.app.broker.enqueue(message).message_id)

    def forget_the_dead(self) -> None:
        key = "dramatiq:__heartbeats__"
        for worker in self.redis.zrange(key, 0, -1):
            self.redis.zadd(key, {worker: 1})


class Arq(Queue):
    name = "arq"
    command: ClassVar = ["arq", "tests.queues.arq_app.WorkerSettings"]
    slots = 2  # arq 0.25 can't abort a job while all slots are in use

    def __init__(self, url: str, server: str, log: Path) -> None:
        super().__init__(url, server, log)
        self.client = Loop()
        self._pool: Any = None

    async def _connect(self) -> Any:
        from progress_workers.queues.arq import create_pool

        if self._pool is None:
            self._pool = await create_pool(self.app.WorkerSettings.redis_settings)
        return self._pool

    def enqueue(self, task: str, *args: Any, idle: bool = False, **words: Any) -> str:
        async def enqueue() -> Any:
            progress = False if "unreported" in task else {"kind": "count", "tags": ["eu"]} if task == "count" else {}
            options = {"_queue_name": self.idle} if idle else {}
            options |= {"_job_id": words.pop("job_id")} if "job_id" in words else {}
            pool = await self._connect()
            return await pool.enqueue_job(
                task, *args, _progress=progress if progress is False else progress | words, **options
            )

        return str(self.client.run(enqueue()).job_id)

    def outcome(self, task: str) -> Any:
        import arq

        async def look() -> Any:
            try:
                found = await arq.jobs.Job(task, await self._connect()).result_info()
            except arq.jobs.DeserializationError:
                return "no result"
            return found and (found.success, repr(found.result))

        return self.client.run(look())

    async def _abort(self, task: str) -> Any:
        from progress_workers.queues.arq import Job

        return await Job(task, await self._connect()).abort(timeout=60, poll_delay=0.02)

    def terminate(self, task: str) -> None:
        assert self.client.run(self._abort(task))

    @contextmanager
    def revoking(self, task: str) -> Iterator[None]:
        aborting = self.client.begin(self._abort(task))
        wait_until(lambda: self.redis.zscore("arq:abort", task), "the worker is asked to")
        yield
        assert aborting.result(20)

    def forget_the_dead(self) -> None:
        for key in self.redis.keys("arq:in-progress:*"):
            self.redis.delete(key)

    def close(self) -> None:
        if self._pool is not None:
            self.client.run(self._pool.aclose())
        self.client.close()
        super().close()


class Taskiq(Queue):
    name = "taskiq"
    command: ClassVar = [
        "taskiq",
        "worker",
        "tests.queues.taskiq_app:broker",
        "--workers",
        "1",
        "--max-async-tasks",
        "1",
    ]

    def __init__(self, url: str, server: str, log: Path) -> None:
        super().__init__(url, server, log)
        self.client = Loop()
        self.client.run(self.app.broker.startup())

    def enqueue(self, task: str, *args: Any, idle: bool = False, **words: Any) -> str:
        async def enqueue() -> Any:
            labels = {f"progress_{name}": value for name, value in words.items()}
            labels |= {"queue_name": self.idle} if idle else {}
            return await getattr(self.app, task).kicker().with_labels(**labels).kiq(*args)

        return str(self.client.run(enqueue()).task_id)

    def forget_the_dead(self) -> None:
        for entry in self.redis.xpending_range("taskiq", "taskiq", "-", "+", 10):
            given = [entry["message_id"]]
            self.redis.xclaim("taskiq", "taskiq", entry["consumer"], 0, given, idle=61_000, justid=True)
        self.enqueue("count", 1)  # the worker looks for lost messages after it received another one

    def close(self) -> None:
        self.client.run(self.app.broker.shutdown())
        self.client.close()
        super().close()


QUEUES: dict[str, Callable[[str, str, Path], Any]] = {each.name: each for each in (Celery, RQ, Dramatiq, Arq, Taskiq)}
