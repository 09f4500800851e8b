"""How events come through a URL. Each check follows an operation of its own, which it deletes afterwards."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

import orjson

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.errors import BrokerError
from progress_client.http.connection import AsyncConnection
from progress_client.http.problems import read_answer

ARRIVAL_S = 1.0
"""What takes longer to arrive is held back."""
KIND = "doctor"
RETENTION_S = 60
"""How long the operation of a check is kept if it can't be deleted."""
FORGED = "203.0.113.9"
"""An address that nobody has (RFC 5737)."""
_MARK = "sent by progress-broker doctor"
"""A message. It is short, as most events are: what buffers passes on what is long."""

_FIXES = {
    Check.STREAM: (
        "have what is before the server pass events on at once: nginx obeys `X-Accel-Buffering: no` unless"
        " `proxy_ignore_headers` says otherwise, or set `proxy_buffering off`; HAProxy `option http-no-delay`"
        " (docs/how-to/proxies.md)"
    ),
    Check.COMPRESSION: (
        "have what is before the server not compress `text/event-stream`, or obey `Cache-Control: no-transform`: the"
        " server compresses by itself (nginx: not in `gzip_types`; HAProxy: no `compression`; Caddy: no `encode`)"
    ),
}


async def examine_stream(connection: AsyncConnection, patience_s: float, arrival_s: float) -> Iterable[Finding]:
    """Return whether an event arrives at once, and how long it takes."""
    return [await _arrival(Check.STREAM, connection, "identity", patience_s, arrival_s)]


async def examine_compression(connection: AsyncConnection, patience_s: float, arrival_s: float) -> Iterable[Finding]:
    """Return whether an event arrives at once where the client accepts gzip, as browsers do."""
    return [await _arrival(Check.COMPRESSION, connection, "gzip", patience_s, arrival_s)]


async def examine_forwarded(
    connection: AsyncConnection, patience_s: float, arrival_s: float, *, local: bool
) -> Iterable[Finding]:
    """Return whether a client can pretend to have another address. `local`: only this machine reaches the URL."""
    url, headers = connection.url, {"X-Forwarded-For": FORGED}
    async with _operation(connection, patience_s) as id, _Reader(connection, id, headers, patience_s) as reader:
        await reader.wait_for(b"event:", arrival_s)
        answer = await connection.request("GET", "/v1/admin/streams", query=[("operation", id)], timeout_s=patience_s)
    addresses = read_answer(url, answer.body, lambda page: [stream["address"] for stream in page["streams"]])
    if FORGED not in addresses:
        if not addresses:
            return [Finding(Check.FORWARDED, Level.UNCHECKED, url, "not checked: the servers do not know the stream")]
        return [Finding(Check.FORWARDED, Level.GOOD, url, "clients can't pretend to have another address")]
    if local:
        said = "not checked: servers believe proxies on their own machine; look through the URL that clients use"
        return [Finding(Check.FORWARDED, Level.UNCHECKED, url, said)]
    return [
        Finding(
            Check.FORWARDED,
            Level.FAULT,
            url,
            f"a client that sends `X-Forwarded-For: {FORGED}` is taken for that address: limits by address and logs can"
            " be deceived",
            "list only the proxy's own address in PROGRESS_TRUSTED_PROXIES, and have the proxy replace the header"
            " (nginx: `proxy_set_header X-Forwarded-For $remote_addr`)",
        )
    ]


async def _arrival(
    check: Check, connection: AsyncConnection, encoding: str, patience_s: float, arrival_s: float
) -> Finding:
    url, headers = connection.url, {"Accept-Encoding": encoding}
    async with _operation(connection, patience_s) as id, _Reader(connection, id, headers, patience_s) as reader:
        await reader.wait_for(b"event:", arrival_s)  # for then only the event's own way is measured
        began = time.perf_counter()
        await _publish(connection, id, "log", {"message": _MARK}, patience_s)
        if await reader.wait_for(_MARK.encode(), arrival_s):
            took_s = time.perf_counter() - began
            said = f"an event arrives after {1000 * took_s:.0f} ms{reader.packed}"
            return Finding(check, Level.GOOD, url, said, figures={"arrival_s": round(took_s, 4)})
        await _publish(connection, id, "end", {"status": "succeeded"}, patience_s)
        at_the_end = await reader.wait_for(_MARK.encode(), patience_s)
    when = "events arrive only when the stream ends" if at_the_end else f"no event arrives within {patience_s:g} s"
    return Finding(check, Level.FAULT, url, f"{when}{reader.packed}", _FIXES[check])


@asynccontextmanager
async def _operation(connection: AsyncConnection, patience_s: float) -> AsyncIterator[str]:
    """Create an operation that is deleted at the end of the block, or ended if that is not permitted."""
    id = f"{KIND}-{token_hex(8)}"
    new = {"id": id, "kind": KIND, "title": "progress-broker doctor", "retention_s": RETENTION_S}
    await connection.request("POST", "/v1/operations", body=orjson.dumps(new), timeout_s=patience_s)
    try:
        yield id
    finally:
        try:
            path, force = f"/v1/operations/{id}", [("force", "true")]
            await connection.request("DELETE", path, query=force, timeout_s=patience_s)
        except BrokerError:
            with suppress(BrokerError):
                await _publish(connection, id, "end", {"status": "cancelled"}, patience_s)


async def _publish(connection: AsyncConnection, id: str, type: str, data: dict[str, str], patience_s: float) -> None:
    body = orjson.dumps({"type": type, "data": data})
    await connection.request("POST", f"/v1/operations/{id}/events", body=body, timeout_s=patience_s)


class _Reader:
    """Reads the stream of an operation from its start. Use it as an async context manager."""

    def __init__(self, connection: AsyncConnection, id: str, headers: dict[str, str], patience_s: float) -> None:
        self._connection, self._path, self._headers = connection, f"/v1/operations/{id}/stream", headers
        self._silence_s = 2 * patience_s
        self._read, self._came = b"", asyncio.Event()
        self._encoding = ""

    @property
    def packed(self) -> str:
        """The encoding of the stream, for people."""
        return f" ({self._encoding})" if self._encoding else ""

    async def __aenter__(self) -> "_Reader":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def wait_for(self, text: bytes, patience_s: float) -> bool:
        """Return whether a text comes in time. Raises what the stream is rejected with."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while text not in self._read and not self._task.done():
                    self._came.clear()
                    await self._came.wait()
        if self._task.done():
            self._task.result()
        return text in self._read

    async def _run(self) -> None:
        try:
            stream = self._connection.stream(
                self._path, query=[("from", "start")], headers=self._headers, silence_s=self._silence_s
            )
            async with stream as (head, chunks):
                self._encoding = head.headers.get("content-encoding", "")
                async for chunk in chunks:
                    self._read += chunk
                    self._came.set()
        finally:
            self._came.set()
