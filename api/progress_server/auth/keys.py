"""The keys that tokens are verified with: a secret, a PEM file, or a key set that is reloaded regularly (RFC 7517).

PyJWT parses the keys. Its `PyJWKClient` is not used: it blocks the event loop, reads responses of any size, and has no
keys once its copy has expired and the address can't be reached.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK, PyJWKSet, PyJWTError

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.runtime.single_flight import SingleFlight
from progress_broker.settings import LOOPBACK, expand_user
from progress_server.http.outgoing import UNPACKED, read_body

ALGORITHMS = frozenset({"HS256", "RS256", "ES256"})
LEAST_SECRET_BYTES = 32
LEAST_RSA_BITS = 2048


class Key(NamedTuple):
    """A key, and the only algorithm that it is used with: the algorithm that a token names is ignored."""

    algorithm: str
    material: Any


def read_key(given: str) -> Key:
    """Return the key in PROGRESS_JWT_KEY; raise `SetupError` if it is not valid. The error text never shows the key."""
    text = _file(given[1:]) if given.startswith("@") else given
    if "-----BEGIN" in text:
        return _pem(text)
    secret = text.strip().encode()
    if text.lstrip().startswith(("ssh-", "ecdsa-")):
        raise SetupError("PROGRESS_JWT_KEY is an SSH key: set a PEM public key, or a secret")
    if len(secret) < LEAST_SECRET_BYTES:
        raise SetupError(
            f"PROGRESS_JWT_KEY is a secret of only {len(secret)} bytes, which can be guessed: use {LEAST_SECRET_BYTES}"
            " bytes or more; `openssl rand -base64 48` makes one"
        )
    return Key("HS256", secret)


def read_key_set(text: str | bytes) -> dict[str | None, Key]:
    """Return the keys of a JWKS that tokens can be verified with, by their `kid`; raise `ValueError` if it has none."""
    try:
        found = PyJWKSet.from_json(text if isinstance(text, str) else text.decode())
    except (PyJWTError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"the content is not a key set (JWKS): {error}") from None
    keys = {key.key_id: fit for key in found.keys if (fit := _of_set(key)) is not None}
    if not keys:
        raise ValueError("the key set has no usable key: it needs an RSA or P-256 key that is for signatures")
    return keys


def _of_set(key: PyJWK) -> Key | None:
    """Return a key of a set, or None if it is not for signatures, or is a secret, which a public set must not hold."""
    if key.public_key_use not in (None, "sig"):
        return None
    try:
        fit = _public(key.key)
    except SetupError:
        return None
    return fit if key.algorithm_name == fit.algorithm else None


def _pem(text: str) -> Key:
    if "PRIVATE KEY" in text:
        raise SetupError("PROGRESS_JWT_KEY is a private key: set the public key, which is enough to verify tokens")
    try:
        if "BEGIN CERTIFICATE" in text:
            return _public(load_pem_x509_certificate(text.encode()).public_key())
        return _public(load_pem_public_key(text.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SetupError(f"PROGRESS_JWT_KEY is not a valid PEM public key: {error}") from None


def _public(key: object) -> Key:
    if isinstance(key, RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise SetupError(f"the RSA key has only {key.key_size} bits: use a key of {LEAST_RSA_BITS} bits or more")
        return Key("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Key("ES256", key)
    raise SetupError("the type of the key is not supported: use an RSA key (RS256) or a P-256 key (ES256)")


def _file(path: str) -> str:
    try:
        return expand_user(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"can't read the file {path}, which PROGRESS_JWT_KEY names: {error}") from None


log = logging.getLogger(__name__)

COOLDOWN_S = 10.0
"""Minimum time between two reads, even if tokens name unknown keys or the address can't be reached."""
TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20

Keys = Mapping[str | None, Key]
Read = Callable[[], Awaitable[bytes]]


class KeySet:
    """The keys of a key set, reloaded regularly. If a reload fails, the keys of the last successful one stay in use."""

    def __init__(self, address: str, period_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read = reader_of(address)
        self._address = address
        self._period_s, self._clock = period_s, clock
        self._keys: Keys = {}
        self._tried_at = self._read_at = float("-inf")
        self._flights = SingleFlight()
        self._refreshing: asyncio.Task[None] | None = None

    async def key(self, name: str | None) -> Key | None:
        """Return the key with this `kid`; without a `kid` the only key. Return None if there is no such key.

        Raises `StorageUnavailable` until the key set has been read once.
        """
        now = self._clock()
        may_read = now - self._tried_at >= COOLDOWN_S
        if self._find(name) is None:
            if may_read or self._flights:
                await self._refresh()
        elif may_read and now - self._read_at >= self._period_s:
            self._refreshing = asyncio.create_task(self._refresh())  # the known keys are used meanwhile
        if not self._keys:
            raise StorageUnavailable("this server can't read the keys to verify your token now: retry in a moment")
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
            self._keys = read_key_set(await self._read())
            self._read_at = self._clock()
        except (OSError, ValueError) as error:
            log.warning(
                "can't read the key set %s, so the keys that were read before stay in use: %s", self._address, error
            )


def reader_of(address: str) -> Read:
    """Return a function that reads the key set, and raises `OSError` or `ValueError` if that fails.

    Raise `SetupError` if the address is not valid, or is a file that can't be read.
    """
    if not address.lower().startswith(("http:", "https:")):
        return _file_reader(expand_user(address))
    try:
        parts = urlsplit(address)
        if not parts.hostname:
            raise ValueError("the address has no host name")
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise ValueError("attackers on the network can change a response over http://: use https://")
        return _http_reader(address, proxied=parts.scheme == "https")
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise SetupError(f"PROGRESS_JWT_JWKS has the address {address}, which can't be used: {error}") from None


def _file_reader(path: Path) -> Read:
    try:
        read_key_set(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SetupError(f"can't read the key set {path} of PROGRESS_JWT_JWKS: {error}") from None
    return lambda: asyncio.to_thread(path.read_bytes)


def _http_reader(address: str, *, proxied: bool) -> Read:
    """Return a function that reads a key set over HTTP; if `proxied`, through the proxy that the environment names.

    Plain http is not proxied: it is allowed only on this machine, and a proxy would send it over the network.
    """
    httpx.URL(address)
    client = httpx.AsyncClient(
        verify=ssl.create_default_context(),
        trust_env=proxied,
        follow_redirects=False,  # keys come from where the operator said
        timeout=TIMEOUT_S,
        headers=UNPACKED,
        limits=httpx.Limits(max_keepalive_connections=0),  # so nothing is left to close
    )

    async def read() -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_S), client.stream("GET", address) as response:
                if response.status_code != 200:
                    raise OSError(_rejected(response))
                return await read_body(response, MAX_BYTES)
        except (TimeoutError, httpx.TimeoutException):
            raise OSError(f"the server did not answer within {TIMEOUT_S:g} s") from None
        except httpx.HTTPError as error:
            raise OSError(f"the server can't be reached: {error or type(error).__name__}") from None

    return read


def _rejected(response: httpx.Response) -> str:
    problem = f"the server answered with the status {response.status_code}"
    advice = "; redirects are not followed: set PROGRESS_JWT_JWKS to the final address"
    return problem + advice if response.is_redirect else problem
