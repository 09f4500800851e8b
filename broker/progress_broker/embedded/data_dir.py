"""The data directory of an embedded Redis: what is in it, and who may use it.

In it lie the server's data, its log, the password (kept, so that an address stays good over restarts), the socket, and,
while a server runs, `address`. Two locks keep a directory to one server: `owner.lock` is held by the process that
started it, `server.lock` by the server itself, which inherits it and so holds it for as long as it lives.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from progress_broker.errors import SetupError
from progress_broker.settings import Settings

ADDRESS = "address"
SOCKET = "redis.sock"

_LONGEST_SOCKET = 100
"""Bytes of a socket's path that every system takes (Linux: 107, macOS: 103)."""


def find_address(settings: Settings) -> str | None:
    """Return the address the embedded Redis of the data directory left there, whether or not it still runs."""
    try:
        return (settings.data_dir / ADDRESS).read_text("utf-8").strip() or None
    except OSError:
        return None


def prepare(home: Path) -> Path:
    """Make a data directory that suits, and return it; raise `SetupError`."""
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


def try_lock(path: Path) -> int | None:
    """Return the open file whose lock is held from now on, None if somebody else holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def password(path: Path) -> str:
    """Return the password that a file holds, which is made if there is none."""
    with suppress(FileNotFoundError):
        if known := path.read_text("utf-8").strip():
            return known
    new = secrets.token_urlsafe(32)
    write(path, new)
    return new


def write(path: Path, text: str) -> None:
    """Write a file that only its owner may read, and that is there whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    new.replace(path)


def socket_path(home: Path, resources: ExitStack) -> Path:
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
