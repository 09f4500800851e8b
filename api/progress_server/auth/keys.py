"""The keys that tokens are signed with: a secret, a PEM file, or a key set that is read again and again (RFC 7517)."""

import asyncio
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK, PyJWKSet, PyJWTError

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.runtime.single_flight import Flights
from progress_broker.settings import LOOPBACK

ALGORITHMS = frozenset({"HS256", "RS256", "ES256"})
LEAST_SECRET_BYTES = 32
LEAST_RSA_BITS = 2048


class Key(NamedTuple):
    """A key, and the one algorithm it serves: a token's own word for it counts for nothing."""

    algorithm: str
    material: Any


def read_key(given: str) -> Key:
    """Return the key that a setting gives; raise `SetupError`, which never shows it."""
    text = _file(given[1:]) if given.startswith("@") else given
    if "-----BEGIN" in text:
        return _pem(text)
    secret = text.strip().encode()
    if text.lstrip().startswith(("ssh-", "ecdsa-")):
        raise SetupError("PROGRESS_JWT_KEY is an SSH key: give a PEM public key, or a secret")
    if len(secret) < LEAST_SECRET_BYTES:
        raise SetupError(
            f"PROGRESS_JWT_KEY is a secret of {len(secret)} bytes, which can be guessed: it takes {LEAST_SECRET_BYTES},"
            " such as `openssl rand -base64 48` gives"
        )
    return Key("HS256", secret)


def read_key_set(text: str | bytes) -> dict[str | None, Key]:
    """Return the keys of a JWKS that can sign tokens, by their `kid`; raise `ValueError` if it is none."""
    try:
        found = PyJWKSet.from_json(text if isinstance(text, str) else text.decode())
    except (PyJWTError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"this is no key set: {error}") from None
    keys = {key.key_id: fit for key in found.keys if (fit := _of_set(key)) is not None}
    if not keys:
        raise ValueError("there is no RSA or P-256 key for signatures in the key set")
    return keys


def _of_set(key: PyJWK) -> Key | None:
    """Return a key of a set, or None if it does not serve us. A secret has no place in what is handed to everybody."""
    if key.public_key_use not in (None, "sig"):
        return None
    try:
        fit = _public(key.key)
    except SetupError:
        return None
    return fit if key.algorithm_name == fit.algorithm else None


def _pem(text: str) -> Key:
    if "PRIVATE KEY" in text:
        raise SetupError("PROGRESS_JWT_KEY is a private key: give the public one, which is all that checking takes")
    try:
        if "BEGIN CERTIFICATE" in text:
            return _public(load_pem_x509_certificate(text.encode()).public_key())
        return _public(load_pem_public_key(text.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SetupError(f"PROGRESS_JWT_KEY is no PEM public key: {error}") from None


def _public(key: object) -> Key:
    if isinstance(key, RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise SetupError(f"an RSA key of {key.key_size} bits is too short: it takes {LEAST_RSA_BITS}")
        return Key("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key("ES256", key)
    raise SetupError("tokens are checked with RSA keys (RS256) or those of the curve P-256 (ES256): this is neither")


def _file(path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"the file {path} of PROGRESS_JWT_KEY can't be read: {error}") from None


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
