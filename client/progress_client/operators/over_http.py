"""What operators ask, by requests to a server."""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime

import orjson

from progress_broker.errors import ServerUnavailable
from progress_broker.queries.fields import write_filters
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import ImportOptions, OperationSource, Outcome, Result
from progress_broker.transfer.files.chunk_source import ChunkCopy, ChunkSource
from progress_broker.transfer.files.exporting import lines_of
from progress_broker.transfer.files.reader import DamagedExport
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import ExportHead
from progress_client.http.connection import AsyncConnection
from progress_client.operators.admin_over_http import AdminOverHttp
from progress_client.operators.finding_over_http import FinderOverHttp
from progress_client.operators.many_over_http import ManyOverHttp

SILENCE_S = 60.0
"""How long an export may be silent. Servers send a line every 15 s."""
ANSWER_S = 600.0
"""How long the import of one request may take."""
_BYTES, _OPERATIONS = 4 * 1024 * 1024, 500
"""About how much one request imports."""
_LINES = {"Content-Type": "application/x-ndjson"}


class OverHttp:
    """Asks a server. `by` is who does, for a server that does not know its callers."""

    def __init__(self, settings: Settings, by: str) -> None:
        self._connection, self._by = AsyncConnection(settings), by

    async def now(self) -> datetime:
        """Return the time of the server's last answer. Without one yet, the server is asked."""
        if self._connection.server_time is None:
            await self._connection.request("GET", "/livez", repeatable=True)
        return self._connection.server_time or datetime.now(UTC)

    @property
    def finder(self) -> FinderOverHttp:
        """What finds operations."""
        return FinderOverHttp(self._connection)

    @property
    def many(self) -> ManyOverHttp:
        """What acts on many operations."""
        return ManyOverHttp(self._connection, self._by)

    @property
    def admin(self) -> AdminOverHttp:
        """What shows and changes what replicas do."""
        return AdminOverHttp(self._connection)

    def source(self, filters: Filters) -> "HttpSource":
        """Return the operations that match."""
        return HttpSource(self._connection, filters)

    def target(self) -> "HttpTarget":
        """Return where operations are stored."""
        return HttpTarget(self._connection)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.aclose()


class HttpSource:
    """The operations of a server that match filters and that the caller may read."""

    def __init__(self, connection: AsyncConnection, filters: Filters) -> None:
        self._connection, self._filters = connection, filters
        self._source = ChunkSource(self._chunks())

    async def head(self) -> ExportHead:
        """Return the head of the server's export."""
        return await self._source.head()

    async def operations(self) -> AsyncGenerator[ChunkCopy]:
        """Yield the operations."""
        try:
            async for copy in self._source.operations():
                yield copy
        except DamagedExport as error:
            raise ServerUnavailable(f"{self._connection.url} broke off its export: {error.detail}") from None

    async def _chunks(self) -> AsyncIterator[bytes]:
        opened = self._connection.stream("/v1/export", query=[*write_filters(self._filters)], silence_s=SILENCE_S)
        async with opened as (_, chunks):
            async for chunk in chunks:
                yield chunk


class HttpTarget:
    """Stores operations at a server, some with each request."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def store(self, source: OperationSource, options: ImportOptions) -> AsyncGenerator[Outcome]:
        """Store operations; yield what came of each."""
        head = await source.head()
        writer, lines, size, operations = ExportWriter(), list[bytes](), 0, 0
        async for copy in source.operations():
            if not lines:
                lines.append(writer.head(head))
            async for some in lines_of(copy, writer):
                lines.append(some)
                size += len(some)
            operations += 1
            if size >= _BYTES or operations >= _OPERATIONS:
                for outcome in await self._send([*lines, writer.file_end()], options):
                    yield outcome
                writer, lines, size, operations = ExportWriter(), [], 0, 0
        if lines:
            for outcome in await self._send([*lines, writer.file_end()], options):
                yield outcome

    async def _send(self, lines: list[bytes], options: ImportOptions) -> list[Outcome]:
        query = [
            ("positions", options.positions.value),
            ("on_conflict", options.on_conflict.value),
            ("suffix", options.suffix),
            ("unfinished", options.unfinished.value),
            ("dry_run", str(options.dry_run).lower()),
        ]
        answer = await self._connection.request(
            "POST", "/v1/import", query=query, body=b"".join(lines), headers=_LINES, timeout_s=ANSWER_S, repeatable=True
        )
        try:
            read = [orjson.loads(line) for line in answer.body.splitlines()]
            return [Outcome(str(line["id"]), Result(line["result"]), str(line["why"])) for line in read]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            url = self._connection.url
            raise ServerUnavailable(
                f"{url} answered with something else: is PROGRESS_URL right, with its path?"
            ) from None
