"""The keys that tokens are signed with, as an operator hands them over: a secret, a PEM file, or a key set."""

from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK, PyJWKSet, PyJWTError

from progress_broker.errors import SetupError

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
