"""What a URL answers to somebody without credentials: is it a server of ours, and what else does it tell?"""

import ssl
from collections.abc import Iterable, Mapping
from secrets import token_hex
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import orjson

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_client.http.failures import failure
from progress_client.http.quiet import unlogged

_PROBLEM = "application/problem+json"


class Answer(NamedTuple):
    """A response, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the value in the body; None if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class Anonymous:
    """Sends requests without credentials. Use it as an async context manager."""

    def __init__(self, url: str, trusted: ssl.SSLContext, patience_s: float) -> None:
        self.url = url
        headers = {"User-Agent": "progress-broker"}
        self._client = httpx.AsyncClient(timeout=patience_s, headers=headers, verify=trusted)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with unlogged():
            await self._client.aclose()

    async def get(self, path: str) -> Answer:
        """Return the response. Raises `ServerUnavailable` if there is none."""
        try:
            with unlogged():
                response = await self._client.get(self.url + path)
        except httpx.HTTPError as error:
            raise failure(self.url, error) from None
        return Answer(response.status_code, response.headers, response.content)


async def examine_server(anonymous: Anonymous) -> Iterable[Finding]:
    """Return whether a server of ours answers, and whether it is ready."""
    url, answer = anonymous.url, await anonymous.get("/readyz")
    told = answer.json()
    status = told.get("status") if isinstance(told, dict) else None
    if answer.status == httpx.codes.OK and status == "ready":
        if "detail" in told:
            return [Finding(Check.SERVER, Level.WARNING, url, f"the server is ready, but {told['detail']}", _LOOK)]
        return [Finding(Check.SERVER, Level.GOOD, url, "the server is ready")]
    if isinstance(told, dict) and answer.headers.get("content-type", "").startswith(_PROBLEM):
        said = f"the server is not ready: {told.get('detail')}"
        return [Finding(Check.SERVER, Level.FAULT, url, said, _LOOK)]
    said = f"/readyz answers {answer.status} as no progress server does, with {answer.body[:60]!r}"
    fix = (
        "start the servers behind it, and correct the path of the URL; have health checks look at the status that a"
        " server itself answers"
    )
    return [Finding(Check.SERVER, Level.FAULT, url, said, fix)]


_LOOK = "look at the log of the server, and at its Redis: run doctor with its PROGRESS_REDIS_URL, too"


async def examine_errors(anonymous: Anonymous) -> Iterable[Finding]:
    """Return whether errors reach clients as they are: ask for a path that no server has."""
    url, answer = anonymous.url, await anonymous.get(f"/v1/doctor-{token_hex(8)}")
    if answer.headers.get("content-type", "").startswith(_PROBLEM) and answer.status >= httpx.codes.BAD_REQUEST:
        return [Finding(Check.ERRORS, Level.GOOD, url, "errors of the server reach its clients")]
    if answer.status < httpx.codes.BAD_REQUEST:
        said = (
            f"something before the server answers {answer.status} where it has nothing: clients take that for success"
        )
        fix = (
            "remove what answers in the server's place (nginx: `error_page … =200`, `return 200`, `try_files`), but for"
            " streams while no server is there (docs/how-to/proxies.md)"
        )
        return [Finding(Check.ERRORS, Level.FAULT, url, said, fix)]
    return [
        Finding(
            Check.ERRORS,
            Level.WARNING,
            url,
            f"something before the server replaces its errors by others ({answer.status}): clients do not learn what"
            " is wrong",
            "have it pass on what the server answers (nginx: no `proxy_intercept_errors`)",
        )
    ]


async def examine_metrics(anonymous: Anonymous, *, local: bool) -> Iterable[Finding]:
    """Return whether strangers can read the metrics. `local`: only this machine reaches the URL."""
    url, answer = anonymous.url, await anonymous.get("/metrics")
    if answer.status != httpx.codes.OK or b"# HELP" not in answer.body:
        return [Finding(Check.METRICS, Level.GOOD, url, "/metrics is closed to callers without credentials")]
    if local:
        return [Finding(Check.METRICS, Level.GOOD, url, "/metrics is open, to this machine")]
    return [
        Finding(
            Check.METRICS,
            Level.WARNING,
            url,
            "/metrics is open to everybody who reaches this URL: it tells how busy you are",
            "close it in the proxy (nginx: `location = /metrics { return 404; }`), or set PROGRESS_AUTH",
        )
    ]
