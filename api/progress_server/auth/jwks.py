"""A key set that is read again and again (RFC 7517): keys come and go, and its address may be away for a while."""

import asyncio
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.runtime.single_flight import Flights
from progress_broker.settings import LOOPBACK
from progress_server.auth.key_material import Key, read_key_set

log = logging.getLogger(__name__)

COOLDOWN_S = 10.0
"""Least time between two reads, however many unknown keys tokens name, or however long the address is away."""
TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20

Keys = Mapping[str | None, Key]


class KeySet:
    """The keys that were last read. Once there are some they serve until others take their place."""

    def __init__(self, address: str, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = reader_of(address)
        self._address = address
        self._period_s, self._clock = period_s, clock
        self._keys: Keys = {}
        self._tried_at = self._read_at = float("-inf")
        self._flights = Flights()
        self._refreshing: asyncio.Task[None] | None = None

    async def key(self, name: str | None) -> Key | None:
        """Return the key of this name, or the only one if there is no name; None if there is none.

        Raises `StorageUnavailable` while none have ever been read.
        """
        now = self._clock()
        may_read = now - self._tried_at >= COOLDOWN_S
        if self._find(name) is None:
            if may_read or self._flights:
                await self._refresh()
        elif may_read and now - self._read_at >= self._period_s:
            self._refreshing = asyncio.create_task(self._refresh())  # meanwhile those there are go on to serve
        if not self._keys:
            raise StorageUnavailable("the keys that tokens are signed with can't be had: come back in a moment")
        return self._find(name)

    def _find(self, name: str | None) -> Key | None:
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(name)

    async def _refresh(self) -> None:
        await self._flights.share("keys", self._load)

    async def _load(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = read_key_set(await asyncio.to_thread(self._read))
            self._read_at = self._clock()
        except (OSError, ValueError) as error:
            log.warning("the key set at %s can't be read, and those known go on to serve: %s", self._address, error)


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follow nothing: keys come from where the operator said."""
        raise HTTPError(req.full_url, code, "it redirects: name the address it leads to", headers, fp)


def reader_of(address: str) -> Callable[[], bytes]:
    """Return what reads a key set, which raises `OSError`; raise `SetupError` for an address that won't do."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        path = Path(address).expanduser()
        try:
            read_key_set(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SetupError(f"the key set {path} of PROGRESS_JWT_JWKS can't be read: {error}") from None
        return path.read_bytes
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise SetupError("PROGRESS_JWT_JWKS is an http:// address, whose answer others can change: use https")
    opener = urllib.request.build_opener(_Straight)

    def read() -> bytes:
        with opener.open(address, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise OSError(f"it is over {MAX_BYTES} bytes")
        return body

    return read
