"""Access tokens: JSON Web Tokens (RFC 7519, RFC 8725), signed by an issuer that the server's operator trusts."""

from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable

import jwt
import orjson
from starlette.requests import HTTPConnection

from progress_broker.errors import SetupError, Unauthenticated
from progress_broker.settings import Settings
from progress_server.auth.claims import Claims
from progress_server.auth.credentials import bearer_or_cookie
from progress_server.auth.keys import ALGORITHMS, Key, KeySet, read_key
from progress_server.auth.principal import Principal

FindKey = Callable[[str | None], Awaitable[Key | None]]

TICKET_TYPE = "progress-ticket+jwt"
"""The `typ` of our tickets (`api/progress_server/auth/tickets.py`), which are not accepted as access tokens."""

DECODE_ERRORS = (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError)
"""The exceptions that decoding an untrusted token can raise."""

_REASON = 200
"""Maximum characters of a reason in the log."""


class JwtBearer:
    """Accepts tokens with a valid signature that are not expired and whose audience and issuer match the settings."""

    def __init__(self, settings: Settings, find_key: FindKey, algorithms: frozenset[str] = ALGORITHMS) -> None:
        self._find_key, self._algorithms = find_key, algorithms
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._leeway_s, self._cookie = settings.jwt_leeway_s, settings.jwt_cookie
        self._trusted_origins = settings.cors_origins
        self._claims = Claims(settings.jwt_subject_claim, settings.jwt_scope_claim, settings.jwt_grants_claim)

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal of a connection's token; raise `Unauthenticated` without a valid token."""
        token = bearer_or_cookie(connection, self._cookie, self._trusted_origins)
        if token is None:
            raise Unauthenticated("the request has no token")
        return await self.verify(token)

    async def verify(self, token: str) -> Principal:
        """Return the principal of a token; raise `Unauthenticated` if the token is not valid."""
        try:
            key_id, token_type = _header(token)
            if token_type == TICKET_TYPE:
                raise Unauthenticated("the token is a ticket, which is accepted only as `?ticket=` in the URL")
            key = await self._find_key(key_id)
            if key is None or key.algorithm not in self._algorithms:
                raise Unauthenticated("the server has no key for the token's `kid`")
            claims = jwt.decode(
                token,
                key.material,
                [key.algorithm],
                {"require": ["exp"], "verify_aud": True},
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
            )
            return self._claims.principal(claims, self._leeway_s)
        except DECODE_ERRORS as error:
            raise not_valid("token", error) from None


def not_valid(what: str, error: Exception) -> Unauthenticated:
    """Return the error for a token that can't be verified. Its text is short: it may quote the token's header."""
    return Unauthenticated(f"the {what} is not valid: {str(error)[:_REASON]!r}")


def _header(token: str) -> tuple[str | None, object]:
    """Return the `kid` and `typ` of a token that is not verified yet; PyJWT would decode the whole token."""
    header = orjson.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))
    if not isinstance(header, dict):
        raise ValueError("the token's header is not a JSON object")
    key_id = header.get("kid")
    return key_id if isinstance(key_id, str) else None, header.get("typ")


def jwt_bearer(settings: Settings) -> JwtBearer | None:
    """Return the authenticator, or None if the settings have no key; raise `SetupError` if the settings contradict."""
    allowed = _algorithms(settings)
    if settings.jwt_key is not None and settings.jwt_jwks is not None:
        raise SetupError("PROGRESS_JWT_KEY and PROGRESS_JWT_JWKS are both set: set only one of them")
    if settings.jwt_jwks is not None:
        if settings.jwt_audience is None and settings.jwt_issuer is None:
            raise SetupError(
                "PROGRESS_JWT_JWKS needs PROGRESS_JWT_AUDIENCE, as its issuer may sign tokens for other servers too:"
                " set PROGRESS_JWT_AUDIENCE to the `aud` of the tokens for this server"
            )
        return JwtBearer(settings, KeySet(settings.jwt_jwks, settings.jwt_jwks_s).key, allowed)
    if settings.jwt_key is None:
        return None
    key = read_key(settings.jwt_key.get_secret_value())
    if key.algorithm not in allowed:
        raise SetupError(
            f"PROGRESS_JWT_KEY is a key for {key.algorithm}, which PROGRESS_JWT_ALGORITHMS does not list: add"
            f" {key.algorithm} to it"
        )

    async def find_key(_: str | None) -> Key:
        return key

    return JwtBearer(settings, find_key, allowed)


def _algorithms(settings: Settings) -> frozenset[str]:
    if settings.jwt_algorithms is None:
        return ALGORITHMS
    named = frozenset(name.strip() for name in settings.jwt_algorithms.split(","))
    if not named <= ALGORITHMS:
        raise SetupError(f"PROGRESS_JWT_ALGORITHMS accepts {', '.join(sorted(ALGORITHMS))}, separated by commas")
    return named
