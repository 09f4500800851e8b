"""Requests to the user's back end over HTTP: each is signed, and their number and duration are limited."""

import asyncio
import logging
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Self

import httpx

from progress_broker.errors import AuthorizerUnavailable, SetupError, Unauthenticated
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.callback.decision import Decision, read_decision
from progress_server.callback.fair_queue import LONGEST_S, FairQueue, Wait
from progress_server.callback.signature import Signer, new_message_id
from progress_server.http.outgoing import UNPACKED, read_body

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 256 * 1024
KEEP_ALIVE_S = 4
"""How long idle connections stay open: less than on most servers, so that this client closes them first."""

SENDERS = 8
"""Notices of ended connections sent at a time. They use separate connections, so they do not delay other requests."""

DENIED = (401, 403)
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"} | UNPACKED
_CUT = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class AuthorizerError(Exception):
    """The back end gave no valid answer. `outcome` is the metric's label under which this is counted."""

    def __init__(self, outcome: str, detail: str, retry_s: float | None = None) -> None:
        super().__init__(detail)
        self.outcome, self.retry_s = outcome, retry_s


class AuthorizerClient:
    """Sends requests to the back end. Use it as an async context manager."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        if settings.callback_url is None or settings.callback_secret is None:
            raise SetupError("PROGRESS_AUTH=callback needs PROGRESS_CALLBACK_URL and PROGRESS_CALLBACK_SECRET")
        self._url = settings.callback_url
        self._signer = Signer(settings.callback_secret.get_secret_value())
        self._timeout_s = settings.callback_timeout_s
        self._tally = tally
        # A client for each slot: a pool for all would look at each of its connections for every request.
        tls = ssl.create_default_context()
        self._clients = [_client(self._timeout_s, tls) for _ in range(settings.callback_concurrency + SENDERS)]
        self._queue = FairQueue(self._clients[SENDERS:], self._timeout_s / 2, shared=True)
        self._notice_queue = FairQueue(self._clients[:SENDERS], self._timeout_s)
        self._error: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            await client.aclose()

    async def ask(self, action: str, body: bytes, address: str, wait: Wait) -> Decision:
        """Return the answer if it allows the caller. Raise `Unauthenticated` if it does not, `AuthorizerUnavailable`
        without an answer.

        `address` is the caller's, which the queue needs. `wait` waits for the request's turn in the queue.
        """
        try:
            answer = await self._request(body, address, wait)
        except AuthorizerError as error:
            self._tally.callbacks[action, error.outcome] += 1
            self._log_change(str(error))
            raise AuthorizerUnavailable(
                "the back end that checks your credentials gave no valid answer: retry in a moment",
                retry_s=error.retry_s,
            ) from None
        except AuthorizerUnavailable:
            self._tally.callbacks[action, "busy"] += 1
            raise
        self._log_change(None)
        if not answer.allow:
            self._tally.callbacks[action, "denied"] += 1
            raise Unauthenticated("the back end rejected the caller")
        self._tally.callbacks[action, "allowed"] += 1
        return answer

    async def notify(self, message_id: str, body: bytes) -> int:
        """Send a notice; return the status of the response. Raises `AuthorizerError` if there is none."""
        try:
            async with self._notice_queue.slot() as client, asyncio.timeout(self._timeout_s):
                return (await self._post(client, message_id, body))[0]
        except (TimeoutError, httpx.HTTPError) as error:
            raise self._away(error) from None

    async def _request(self, body: bytes, address: str, wait: Wait) -> Decision:
        try:
            async with self._queue.slot(address, wait) as client, asyncio.timeout(self._timeout_s):
                status, content = await self._post_again(client, body)
        except (TimeoutError, httpx.HTTPError) as error:
            raise self._away(error) from None
        if status in DENIED:
            return Decision(allow=False)
        try:
            return read_decision(content)
        except ValueError as error:
            raise AuthorizerError("malformed", f"the back end returned an invalid answer: {error}") from None

    async def _post_again(self, client: httpx.AsyncClient, body: bytes) -> tuple[int, bytes]:
        """Send a request. If the connection was cut, send it once more: idle connections may be closed."""
        message_id = new_message_id()
        try:
            status, content, retry_after = await self._post(client, message_id, body)
        except _CUT:
            status, content, retry_after = await self._post(client, message_id, body)
        if status != 200 and status not in DENIED:
            retry_s = min(float(retry_after), LONGEST_S) if retry_after.isdecimal() else None
            raise AuthorizerError(
                "malformed", f"the back end answered with the status {status}, which is no decision", retry_s
            )
        return status, content

    async def _post(self, client: httpx.AsyncClient, message_id: str, body: bytes) -> tuple[int, bytes, str]:
        headers = self._signer.headers(message_id, body)
        async with client.stream("POST", self._url, content=body, headers=headers) as answer:
            try:
                content = await read_body(answer, MAX_ANSWER_BYTES)
            except ValueError as error:
                raise AuthorizerError("malformed", str(error)) from None
        return answer.status_code, content, answer.headers.get("retry-after", "")

    def _away(self, error: Exception) -> AuthorizerError:
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return AuthorizerError("timeout", f"the back end did not answer within {self._timeout_s:g} s")
        return AuthorizerError("unreachable", f"the back end can't be reached: {error or type(error).__name__}")

    def _log_change(self, error: str | None) -> None:
        """Log an error when it begins, changes or ends, and not once for each rejected caller."""
        if error != self._error:
            self._error = error
            if error is None:
                log.info("the back end of PROGRESS_CALLBACK_URL gives valid answers again")
            else:
                log.warning(
                    "the back end of PROGRESS_CALLBACK_URL gives no valid answers, so all its callers are rejected: %s",
                    error,
                )


def _client(timeout_s: float, tls: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        trust_env=False,  # a proxy that the environment names must not see callers' credentials
        verify=tls,
        follow_redirects=False,
        timeout=timeout_s,
        # A cookie that one answer sets must not come with the next question.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        limits=httpx.Limits(max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S),
        headers=_HEADERS,
    )
