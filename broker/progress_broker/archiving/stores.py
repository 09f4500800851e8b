"""Where archives and backups are kept: a folder, or a bucket of an object store."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from progress_broker.errors import InvalidInput, NotFound, StorageFull, StorageUnavailable

_CHUNK = 256 * 1024


class ObjectStore(Protocol):
    """Keeps objects under names such as `op/0a/import-42/1-2.ndjson.zst`. An object is there whole, or not at all.

    Each method raises `StorageUnavailable` or `StorageFull` if it fails.
    """

    address: str

    async def put(self, name: str, chunks: AsyncIterable[bytes]) -> int:
        """Store an object, in place of one that is there; return its size."""

    def get(self, name: str) -> AsyncGenerator[bytes]:
        """Yield the chunks of an object; raise `NotFound`."""

    async def has(self, name: str) -> bool:
        """Return whether there is such an object."""

    async def names(self, folder: str) -> list[str]:
        """Return the names of the objects in a folder, which ends with a slash, or is empty; in their order."""


def open_store(address: str) -> ObjectStore:
    """Return the store at an address: a folder, or a URL such as `s3://bucket/path`; raise `InvalidInput`."""
    scheme = urlsplit(address).scheme
    if len(scheme) > 1 and scheme != "file":
        from progress_broker.archiving.buckets import Bucket  # it needs the extra `operators`

        return Bucket(address)
    return Folder(Path(address.removeprefix("file://")))


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._path = path

    async def put(self, name: str, chunks: AsyncIterable[bytes]) -> int:
        """Store an object."""
        size = 0
        with _storage_errors(self.address), self._appearing(name) as file:
            async for chunk in chunks:
                size += await asyncio.to_thread(file.write, chunk)
        return size

    async def get(self, name: str) -> AsyncGenerator[bytes]:
        """Yield the chunks of an object."""
        with _storage_errors(self.address), self._open(name) as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk

    async def has(self, name: str) -> bool:
        """Return whether there is such an object."""
        return await asyncio.to_thread(self._at(name).is_file)

    async def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return await asyncio.to_thread(lambda: sorted(self._names(folder)))

    def _names(self, folder: str) -> Iterator[str]:
        path = self._at(folder) if folder else self._path
        with _storage_errors(self.address):
            for each in path.iterdir() if path.is_dir() else ():
                if each.is_file() and not each.name.endswith(".part"):
                    yield folder + each.name

    @contextmanager
    def _appearing(self, name: str) -> Iterator[BinaryIO]:
        """Open a file that gets its name at the end of the block, unless the block fails."""
        path = self._at(name)
        new = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            for folder in (path.parent, *(each.parent for each in new)):  # or a crash of the machine may lose the name
                _sync(folder)
        finally:
            part.unlink(missing_ok=True)

    def _open(self, name: str) -> BinaryIO:
        try:
            return self._at(name).open("rb")
        except FileNotFoundError:
            raise NotFound(f"{self.address} has no {name}") from None

    def _at(self, name: str) -> Path:
        if ".." in name.split("/"):
            raise InvalidInput(f"{name!r} is no name of an object")
        return self._path / name


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (28, 122)  # no space, no quota
        kind = StorageFull if full else StorageUnavailable
        raise kind(f"{address}: {error.strerror or error}") from None


async def read_object(store: ObjectStore, name: str) -> bytes:
    """Return an object."""
    async with aclosing(store.get(name)) as chunks:
        return b"".join([chunk async for chunk in chunks])
