"""The data directory of an embedded Redis: its files, and the locks that protect it.

It has the server's data, its log, its password (kept, so that an address stays valid after a restart), the socket, and,
while a server runs, `address`. Two locks make sure that only one server uses a directory. The process that started the
server holds `owner.lock`. The server itself holds `server.lock`: it inherits the lock, and holds it until it ends.
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
OWNER_LOCK = "owner.lock"
SOCKET = "redis.sock"

_LONGEST_SOCKET = 100
"""The maximum bytes of a socket's path that every system accepts (Linux: 107, macOS: 103)."""


def find_address(settings: Settings) -> str | None:
    """Return the address that the embedded Redis wrote to the data directory. The server may no longer run."""
    try:
        return (settings.data_dir / ADDRESS).read_text("utf-8").strip() or None
    except OSError:
        return None


def is_owned(home: Path) -> bool:
    """Return whether a process keeps a server in the data directory. The server may still load its data."""
    try:
        lock = try_lock(home / OWNER_LOCK) if (home / OWNER_LOCK).exists() else -1
    except OSError:
        return False
    if lock is not None and lock >= 0:
        os.close(lock)
    return lock is None


def prepare(home: Path) -> Path:
    """Create the data directory if needed, check it, and return it; raise `SetupError`."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if home.stat().st_mode & stat.S_IWOTH:
            raise SetupError(
                f"every user may write to the data directory {home}: set PROGRESS_DATA_DIR to a private directory"
            )
        (home / OWNER_LOCK).touch(mode=0o600)
    except OSError as error:
        raise SetupError(
            f"the data directory {home} can't be used ({error.strerror or error}):"
            " set PROGRESS_DATA_DIR to a different directory"
        ) from None
    return home


def try_lock(path: Path) -> int | None:
    """Take a lock; return its open file, or None if another process holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def password(path: Path) -> str:
    """Return the password in a file. If there is none, generate one."""
    with suppress(FileNotFoundError):
        if known := path.read_text("utf-8").strip():
            return known
    new = secrets.token_urlsafe(32)
    write(path, new)
    return new


def write(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    new.replace(path)


def socket_path(home: Path, resources: ExitStack) -> Path:
    """Return the socket's path: in the data directory, or if that path is too long, in a folder with a short path."""
    if _fits(home / SOCKET):
        return home / SOCKET
    # The same folder each time, so that the address stays valid.
    name = f"progress-broker-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    folders = [Path(parent) / name for parent in (tempfile.gettempdir(), "/tmp")]  # noqa: S108 - see `private`
    folder = next((folder for folder in folders if _fits(folder / SOCKET)), folders[-1])
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    there = folder.lstat()
    private = stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid() and not there.st_mode & 0o077
    if not private:
        raise SetupError(
            f"{folder} belongs to another user, or others may read it:"
            f" set a PROGRESS_DATA_DIR with a shorter path than {home}"
        )
    resources.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder / SOCKET


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= _LONGEST_SOCKET
