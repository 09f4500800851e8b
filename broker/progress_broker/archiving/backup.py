"""Backups: the exports of all operations, in files of bounded size, and a manifest that says that they are whole."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from hashlib import sha256
from typing import Any, Final

import orjson

from progress_broker.archiving.archive import SUFFIX, compressed
from progress_broker.archiving.stores import ObjectStore, read_object
from progress_broker.errors import Conflict, InvalidInput, NotFound
from progress_broker.transfer.endpoints import OperationCopy, OperationSource
from progress_broker.transfer.files.chunk_source import ChunkSource
from progress_broker.transfer.files.compression import decompressed
from progress_broker.transfer.files.exporting import lines_of
from progress_broker.transfer.files.reader import DamagedExport
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import ExportHead, OperationEnd

MANIFEST: Final = "manifest.json"
CALLERS: Final = "callers.json"
FORMAT, VERSION = "progress-backup", 1
PART_BYTES = 1024 * 1024 * 1024
"""About how large the lines of a file are, before they are compressed."""


async def back_up(
    source: OperationSource,
    store: ObjectStore,
    ended: Callable[[OperationEnd], None],
    *,
    callers: bytes | None = None,
    part_bytes: int = PART_BYTES,
) -> None:
    """Write a backup, with what is to be kept about `callers`; raise `Conflict` if the store has one already."""
    if await store.has(MANIFEST):
        raise Conflict(f"{store.address} has a backup already: use another folder for each backup")
    head, parts = await source.head(), list[dict[str, Any]]()
    async with aclosing(source.operations()) as copies:
        more = True
        while more:
            name = f"operations-{len(parts) + 1:05d}{SUFFIX}"
            part = _Part(head, copies, ended, part_bytes)
            digest = sha256()
            size = await store.put(name, _hashed(compressed(name, part.lines()), digest))
            parts.append({"name": name, "bytes": size, "operations": part.operations, "sha256": digest.hexdigest()})
            more = part.more
    manifest = {"format": FORMAT, "version": VERSION, "made_at": head.exported_at, "release": head.release}
    manifest |= {"schema": head.schema, "prefix": head.prefix, "parts": parts}
    if callers is not None:
        await store.put(CALLERS, _once(callers))
        manifest["callers"] = {"name": CALLERS, "sha256": sha256(callers).hexdigest()}
    await store.put(MANIFEST, _once(orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n"))


class _Part:
    """One file of a backup."""

    def __init__(
        self,
        head: ExportHead,
        copies: AsyncGenerator[OperationCopy],
        ended: Callable[[OperationEnd], None],
        most_bytes: int,
    ) -> None:
        self._head, self._copies, self._ended, self._most = head, copies, ended, most_bytes
        self.operations, self.more = 0, False

    async def lines(self) -> AsyncGenerator[bytes]:
        writer, size = ExportWriter(), 0
        yield writer.head(self._head)
        async for copy in self._copies:
            async for lines in lines_of(copy, writer, self._count):
                size += len(lines)
                yield lines
            if size >= self._most:
                self.more = True
                break
        yield writer.file_end()

    def _count(self, end: OperationEnd) -> None:
        self.operations += 1
        self._ended(end)


class BackupSource:
    """The operations of a backup."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._manifest: dict[str, Any] | None = None

    async def head(self) -> ExportHead:
        """Return where the backup is from."""
        manifest = await self._read_manifest()
        return ExportHead(manifest["made_at"], manifest["release"], manifest["schema"], manifest["prefix"], {})

    async def operations(self) -> AsyncGenerator[OperationCopy]:
        """Yield the operations. Raises `DamagedExport` if a file is not what the manifest says."""
        for part in (await self._read_manifest())["parts"]:
            digest = sha256()
            source = ChunkSource(decompressed(_hashed(self._chunks(part["name"]), digest)))
            async with aclosing(source.operations()) as copies:
                async for copy in copies:
                    yield copy
            if digest.hexdigest() != part["sha256"]:
                raise self._changed(part["name"])

    async def callers(self) -> bytes:
        """Return what the backup has about callers; raise `InvalidInput` if it has nothing, `DamagedExport`."""
        known = (await self._read_manifest()).get("callers")
        if known is None:
            raise InvalidInput(f"the backup in {self._store.address} has no secrets: it was made without --secrets")
        data = b"".join([chunk async for chunk in self._chunks(known["name"])])
        if sha256(data).hexdigest() != known["sha256"]:
            raise self._changed(known["name"])
        return data

    def _changed(self, name: str) -> DamagedExport:
        return DamagedExport(f"{name} of {self._store.address} was changed: its digest does not match")

    async def _chunks(self, name: str) -> AsyncGenerator[bytes]:
        try:
            async for chunk in self._store.get(name):
                yield chunk
        except NotFound:
            raise DamagedExport(f"{self._store.address} lacks {name}, which its manifest names") from None

    async def _read_manifest(self) -> dict[str, Any]:
        if self._manifest is None:
            try:
                manifest = orjson.loads(await read_object(self._store, MANIFEST))
            except NotFound:
                raise DamagedExport(f"{self._store.address} has no whole backup: it has no {MANIFEST}") from None
            except orjson.JSONDecodeError:
                manifest = {}
            if not isinstance(manifest, dict) or (manifest.get("format"), manifest.get("version")) != (FORMAT, VERSION):
                raise DamagedExport(f"the {MANIFEST} of {self._store.address} is not one of a backup of this release")
            self._manifest = manifest
        return self._manifest


async def check(source: OperationSource, ended: Callable[[int], None]) -> None:
    """Read all operations to their ends; raise `DamagedExport` if something is wrong. `ended` counts events."""
    async with aclosing(source.operations()) as copies:
        async for copy in copies:
            count = 0
            async for part in copy.events():
                count += len(part)
            ended(count)


async def _hashed(chunks: AsyncIterator[bytes], digest: Any) -> AsyncGenerator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    yield data
