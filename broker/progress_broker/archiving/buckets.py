"""Buckets of object stores: S3 and what speaks it, Google Cloud Storage, Azure Blob Storage."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import contextmanager
from typing import Any

from progress_broker.errors import InvalidInput, NotFound, StorageUnavailable
from progress_broker.extras import require


class Bucket:
    """A bucket, or a path in one. Credentials come from the environment, as for the store's own tools."""

    def __init__(self, address: str, store: Any = None) -> None:
        require("operators", "an object store")
        import obstore
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        self.address, self._obstore, self._error = address, obstore, BaseError
        try:
            self._store = store or from_url(address)
        except (BaseError, ValueError) as error:
            raise InvalidInput(f"{address}: {error}") from None

    async def put(self, name: str, chunks: AsyncIterable[bytes]) -> int:
        """Store an object. It is uploaded in parts, and appears when all are there."""
        size = 0
        with self._errors(name):
            async with self._obstore.open_writer_async(self._store, name) as writer:
                async for chunk in chunks:
                    size += len(chunk)
                    await writer.write(chunk)
        return size

    async def get(self, name: str) -> AsyncGenerator[bytes]:
        """Yield the chunks of an object."""
        with self._errors(name):
            found = await self._obstore.get_async(self._store, name)
            async for chunk in found.stream():
                yield bytes(chunk)

    async def has(self, name: str) -> bool:
        """Return whether there is such an object."""
        try:
            with self._errors(name):
                await self._obstore.head_async(self._store, name)
        except NotFound:
            return False
        return True

    async def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        found: list[str] = []
        with self._errors(folder):
            async for some in self._obstore.list(self._store, prefix=folder or None):
                found += [each["path"] for each in some if "/" not in each["path"].removeprefix(folder)]
        return sorted(found)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"{self.address} has no {name}") from None
        except (self._error, OSError) as error:
            raise StorageUnavailable(f"{self.address}: {str(error).partition(chr(10))[0][:300]}") from None
