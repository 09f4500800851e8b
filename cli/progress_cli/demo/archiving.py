"""Hashes and compresses every file of a directory tree with a few threads, and reports what each thread does."""

import gzip
import hashlib
import queue
import sysconfig
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from progress_workers import Operation

THREADS = 2
_LEAST_LOGGED = 150_000


class Counter:
    """A file-like object that counts compressed bytes and discards them."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> int:
        """Count bytes."""
        self.bytes += len(data)
        return len(data)


class WorkerSlots:
    """The busy and idle threads, as the `workers` part of the progress shows them."""

    def __init__(self, op: Operation, files: int) -> None:
        self._op, self._left = op, files
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._items: dict[int, str | None] = dict.fromkeys(range(1, THREADS + 1))
        self._lock = threading.Lock()
        for desk in self._items:
            self._free.put(desk)

    def take(self, item: str) -> int:
        """Reserve a thread's slot for an item."""
        desk = self._free.get()
        self._put(desk, item)
        return desk

    def leave(self, desk: int) -> None:
        """Free a thread's slot."""
        self._put(desk, None)
        self._free.put(desk)

    def _put(self, desk: int, item: str | None) -> None:
        with self._lock:
            self._items[desk] = item
            self._left -= item is not None
            shown = [
                {"id": number, "status": "processing" if at else "idle", "item": at}
                for number, at in self._items.items()
            ]
            active = sum(at is not None for at in self._items.values())
            pool: dict[str, Any] = {"active": active, "max": THREADS, "queue_depth": self._left, "workers": shown}
            self._op.update(workers=pool)


def archive_library(op: Operation, tree: Path | None = None) -> None:
    """Hash and compress the Python files of a tree, by default the standard library's; the output is discarded."""
    root = tree or Path(sysconfig.get_path("stdlib"))
    files = list(find_files(root))
    sizes = {file: file.stat().st_size for file in files}
    op.update(total=sum(sizes.values()), message=f"{len(files):,} files below {root.name}")
    desks = WorkerSlots(op, len(files))
    digest, packed = hashlib.sha256(), 0
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = {pool.submit(_archive, op, desks, file, root): file for file in files}
        try:
            for done in as_completed(jobs):
                op.raise_if_cancelled()
                file = jobs[done]
                hashed, size = done.result()
                digest.update(hashed)
                packed += size
                op.advance(sizes[file])
                op.update(metrics={"files_total": len(files), "compressed_bytes": packed})
                if sizes[file] >= _LEAST_LOGGED:
                    op.log(f"{file.relative_to(root)}: {sizes[file]:,} to {size:,} bytes")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    op.succeed({"files": len(files), "bytes": sum(sizes.values()), "compressed_bytes": packed})


def find_files(root: Path) -> Iterator[Path]:
    """Yield the Python files of a tree in order, without tests and installed packages."""
    for file in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests"}.intersection(file.relative_to(root).parts):
            yield file


def _archive(op: Operation, desks: WorkerSlots, file: Path, root: Path) -> tuple[bytes, int]:
    desk = desks.take(str(file.relative_to(root)))
    try:
        op.raise_if_cancelled()
        counter, digest = Counter(), hashlib.sha256()
        with file.open("rb") as source, gzip.GzipFile(fileobj=counter, mode="wb", compresslevel=9) as packed:  # type: ignore[call-overload]
            while chunk := source.read(65_536):
                digest.update(chunk)
                packed.write(chunk)
        return digest.digest(), counter.bytes
    finally:
        desks.leave(desk)
