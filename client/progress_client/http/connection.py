"""Requests to the server at PROGRESS_URL, from threads and from coroutines. Every failure is a `BrokerError`.

Both use HTTP proxies that the environment names, and trust the certificates that the system, or `SSL_CERT_FILE`, does.
"""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, NamedTuple, Self

import httpx

from progress_broker.errors import BrokerError, SetupError
from progress_broker.settings import Settings
from progress_client.address import server_url
from progress_client.http.credentials import TokenAuth
from progress_client.http.failures import failure, proxies_checked
from progress_client.http.problems import error_of
from progress_client.http.quiet import unlogged

CONNECT_S = 5.0
"""How long it may take to connect."""
ANSWER_S = 30.0
"""How long the server may take to answer, unless a request says otherwise."""

Query = Sequence[tuple[str, str]]

_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_CUT = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
_JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    """A response whose status is 2xx."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class _Requests:
    """What requests from threads and from coroutines have in common: how they are made, and what a failure means."""

    def __init__(self, settings: Settings) -> None:
        url = server_url(settings)
        if url is None:
            raise SetupError("PROGRESS_URL is not set: there is no server to ask")
        self.url = url
        self.options: dict[str, Any] = {
            "auth": TokenAuth(settings),
            "verify": _trusted(*map(os.environ.get, _TRUST)),
            "follow_redirects": False,
            # Heartbeats come every five seconds. Balancers close idle connections after a minute, or later.
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=4, keepalive_expiry=55),
            "headers": {"Accept": "application/json", "User-Agent": "progress-broker"},
        }

    def build(
        self,
        client: httpx.Client | httpx.AsyncClient,
        method: str,
        path: str,
        query: Query | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        timeout_s: float | None,
    ) -> httpx.Request:
        """Return a request. Its path begins with a slash, and is below that of the server's URL."""
        timeout = httpx.Timeout(timeout_s or ANSWER_S, connect=CONNECT_S)
        content_type = _JSON if body is not None else {}
        merged = content_type | dict(headers or {})
        params = tuple(query or ()) or None
        try:
            return client.build_request(
                method,
                self.url + path,
                params=params,
                content=body,
                headers=merged,
                timeout=timeout,
            )
        except httpx.InvalidURL as error:
            raise SetupError(f"PROGRESS_URL: {error}") from None

    def answer(self, response: httpx.Response) -> Answer:
        """Return the response; raise the error that it is, if it is none of 2xx."""
        if not response.is_success:
            raise self.rejection(response)
        return Answer(response.status_code, response.content, response.headers)

    def rejection(self, response: httpx.Response) -> BrokerError:
        """Return the error of a response that was read."""
        return error_of(self.url, response.status_code, response.headers, response.content)


class Connection:
    """Sends requests from any thread. A process that was forked needs one of its own."""

    def __init__(self, settings: Settings) -> None:
        self._requests = _Requests(settings)
        with proxies_checked():
            self._client = httpx.Client(**self._requests.options)

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._requests.url

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        repeatable: bool = False,
    ) -> Answer:
        """Return the response. `repeatable`: send it once more if the connection is cut; the server may get both.

        A body is JSON unless the headers say otherwise. Raises a `BrokerError`: that of the server, with `retry_s` if
        it said when to try again, or `ServerUnavailable` without an answer in time.
        """
        for left in (repeatable, False):
            request = self._requests.build(self._client, method, path, query, body, headers, timeout_s)
            try:
                with unlogged():
                    return self._requests.answer(self._client.send(request))
            except httpx.HTTPError as error:
                if not (left and isinstance(error, _CUT)):
                    raise failure(self.url, error) from None
        raise AssertionError("unreachable")

    @contextmanager
    def long_request(self, method: str, path: str, *, body: bytes, silence_s: float) -> "Iterator[LongResponse]":
        """Send a request whose response begins at once and ends much later. Leaving the block ends it.

        Fails as `request` does; also if nothing comes for `silence_s`.
        """
        request = self._requests.build(self._client, method, path, None, body, None, silence_s)
        response: httpx.Response | None = None
        try:
            with unlogged():
                response = self._client.send(request, stream=True)
                if not response.is_success:
                    response.read()
                    raise self._requests.rejection(response)
                yield LongResponse(response)
        except httpx.HTTPError as error:
            raise failure(self.url, error) from None
        finally:
            if response is not None:
                response.close()

    def close(self) -> None:
        """Close the connection; requests under way fail."""
        with unlogged():
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LongResponse:
    """A response that has begun. One thread reads it; any thread may abort it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def read(self) -> bytes:
        """Return the body, once it is complete."""
        return self._response.read()

    def abort(self) -> None:
        """Cut the connection, so that a `read` of another thread fails now."""
        connected: Any = self._response.extensions["network_stream"].get_extra_info("socket")
        with suppress(OSError):  # it is closed already
            # Of a TLS socket too, whose own `shutdown` would take its state away while another thread reads.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)


class AsyncConnection:
    """Sends requests in one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._requests = _Requests(settings)
        with proxies_checked():
            self._client = httpx.AsyncClient(**self._requests.options)
        self._date = ""

    @property
    def url(self) -> str:
        """The server's URL."""
        return self._requests.url

    @property
    def server_time(self) -> datetime | None:
        """The time of the server's last answer; None if it told none."""
        try:
            return parsedate_to_datetime(self._date).astimezone(UTC)
        except ValueError:
            return None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        repeatable: bool = False,
    ) -> Answer:
        """Do as `Connection.request`."""
        for left in (repeatable, False):
            request = self._requests.build(self._client, method, path, query, body, headers, timeout_s)
            try:
                with unlogged():
                    answer = self._requests.answer(await self._client.send(request))
            except httpx.HTTPError as error:
                if not (left and isinstance(error, _CUT)):
                    raise failure(self.url, error) from None
            else:
                self._date = answer.headers.get("date", "")
                return answer
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None, silence_s: float
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Open a response that goes on: its head, with an empty body, and the chunks of its body as they come.

        Fails as `request` does; also if no chunk comes for `silence_s`.
        """
        request = self._requests.build(self._client, "GET", path, query, None, headers, silence_s)
        try:
            with unlogged():
                response = await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise failure(self.url, error) from None
        try:
            if not response.is_success:
                await self._read(response)
                raise self._requests.rejection(response)
            yield Answer(response.status_code, b"", response.headers), self._chunks(response)
        finally:
            await response.aclose()

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_bytes():
                yield chunk
        except httpx.HTTPError as error:
            raise failure(self.url, error) from None

    async def _read(self, response: httpx.Response) -> None:
        try:
            await response.aread()
        except httpx.HTTPError as error:
            raise failure(self.url, error) from None

    async def aclose(self) -> None:
        """Close all connections; requests under way fail."""
        with unlogged():
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@cache
def _trusted(*_: str | None) -> ssl.SSLContext:
    """Return the certificates to trust, as the environment says. To read them takes longer than all else."""
    return ssl.create_default_context()
