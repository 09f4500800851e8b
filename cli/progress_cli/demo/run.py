"""Runs the demo: a Redis and a server in this process, and a worker process for each job."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import typer

from progress_broker.embedded.embedded import Embedded
from progress_broker.embedded.server_process import ending_with_us
from progress_broker.errors import SetupError
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.demo.jobs import JOBS
from progress_cli.exit_codes import print_info
from progress_cli.server.run import address, serve_on
from progress_cli.shutdown import until_stopped
from progress_server.app import create_app
from progress_server.server.server import check
from progress_server.server.sockets import listen
from progress_server.server.start import AnyServer, run_loop, server_of

KEPT_S = 1800
"""How long a finished operation of the demo is shown, in seconds."""
STOP_S = 5
QUICK_S = 5
MAX_QUICK = 3
"""If a worker dies this many times in a row, each time within `QUICK_S`, the demo ends."""
LOOK_S = 0.1


def run(settings: Settings, rounds: int | None) -> None:
    """Run the demo until it is stopped, or until this many rounds are done."""
    check(settings)
    with until_stopped(), ExitStack() as resources:
        listener = resources.enter_context(listen(settings))
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="progress-broker-demo-")))
        private = {"data_dir": folder / "redis", "retention_s": KEPT_S, "log_level": "warning", "redis_url": None}
        settings = settings.model_copy(update=private)
        embedded = resources.enter_context(Embedded.start(settings))
        print_info(f"Redis: {embedded.description}")
        run_loop(_show(connect.at(settings, embedded.url), listener, folder, rounds))


async def _show(settings: Settings, listener: socket.socket, folder: Path, rounds: int | None) -> None:
    async with await Store.open(settings) as store:
        serving = asyncio.Event()
        server = server_of(create_app(settings, store), settings, serving.set)
        others = [
            asyncio.create_task(_work(serving, settings, folder, rounds, server)),
            asyncio.create_task(_greet(serving, store, address(listener, settings))),
        ]
        try:
            await serve_on(server, listener)
        finally:
            await end(*others)
            results = await asyncio.gather(*others, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


async def _greet(serving: asyncio.Event, store: Store, page: str) -> None:
    """Print the addresses to open, once there is something to see."""
    await serving.wait()
    typer.echo(f"\n  The page:    {page}")
    while not (found := (await find_page(store, Filters(), limit=1)).operations):  # noqa: ASYNC110 - the workers can't notify this process
        await asyncio.sleep(LOOK_S)
    typer.echo(f"  The stream:  curl -N '{page}/v1/operations/{found[0].id}/stream?from=start'")
    typer.echo("  Ctrl-C ends the demo.\n")


async def _work(
    serving: asyncio.Event, settings: Settings, folder: Path, rounds: int | None, server: AnyServer
) -> None:
    """Run the jobs, and stop the server when they are done."""
    await serving.wait()
    environment = _environment(settings, folder)
    try:
        await asyncio.gather(*(_employ(job, environment, rounds) for job in JOBS))
    finally:
        server.should_exit = True


def _environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return the environment of the workers: the same Redis and code as here, and the directory for their files."""
    work = folder / "work"
    work.mkdir()
    address = settings.redis_url.get_secret_value() if settings.redis_url else ""
    server_settings = {
        "PROGRESS_REDIS_URL": address,
        "PROGRESS_URL": "",
        "PROGRESS_PREFIX": settings.prefix,
        "PROGRESS_RETENTION_S": str(KEPT_S),
    }
    return os.environ | server_settings | {"TMPDIR": str(work), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


async def _employ(job: str, environment: dict[str, str], rounds: int | None) -> None:
    """Keep a worker running for a job: start a new one if it dies, and return when it has done its rounds."""
    # -P: a directory `workers` in the current directory must not shadow ours.
    command = [sys.executable, "-P", "-m", "progress_cli.demo", job, *(["--rounds", str(rounds)] if rounds else [])]
    quick = 0
    while True:
        began = time.monotonic()
        code = await _run_worker(command, environment)
        if code == 0 and rounds:
            return
        quick = quick + 1 if time.monotonic() - began < QUICK_S else 0
        if quick == MAX_QUICK:
            raise SetupError(
                f"the worker of job {job} ended {MAX_QUICK} times right after its start, last with exit code {code}"
            )
        print_info(f"the worker of job {job} ended with exit code {code}; starting another one")


async def _run_worker(command: Iterable[str], environment: dict[str, str]) -> int:
    worker = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        preexec_fn=ending_with_us(),
    )
    try:
        return await worker.wait()
    finally:
        await _end(worker)


async def _end(worker: asyncio.subprocess.Process) -> None:
    if worker.returncode is None:
        with suppress(ProcessLookupError):
            worker.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(worker.wait(), STOP_S)
        except TimeoutError:
            worker.kill()
            await worker.wait()
