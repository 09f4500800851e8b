"""JSON Web Tokens (RFC 7519, RFC 8725): the caller's own proof, signed by whoever the operator trusts."""

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


class JwtBearer:
    """Takes tokens whose signature, time, audience and issuer are right."""

    def __init__(self, settings: Settings, find_key: FindKey, algorithms: frozenset[str] = ALGORITHMS) -> None:
        self._find_key, self._algorithms = find_key, algorithms
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._leeway_s, self._cookie = settings.jwt_leeway_s, settings.jwt_cookie
        self._friends = settings.cors_origins
        self._claims = Claims(settings.jwt_subject_claim, settings.jwt_scope_claim, settings.jwt_grants_claim)

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return whom the token names; raise `Unauthenticated`."""
        token = bearer_or_cookie(connection, self._cookie, self._friends)
        if token is None:
            raise Unauthenticated("there is no token")
        return await self.verify(token)

    async def verify(self, token: str) -> Principal:
        """Return whom a token names; raise `Unauthenticated`."""
        try:
            key = await self._find_key(_key_name(token))
            if key is None or key.algorithm not in self._algorithms:
                raise Unauthenticated("none of the keys is the one the token names")
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
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
            raise Unauthenticated(f"the token is not right: {error}") from None


def _key_name(token: str) -> str | None:
    """Return the name of the key that a token says it is signed with; PyJWT would read all of it twice."""
    header = orjson.loads(urlsafe_b64decode(token.partition(".")[0] + "=="))
    name = header.get("kid") if isinstance(header, dict) else None
    return name if isinstance(name, str) else None


def jwt_bearer(settings: Settings) -> JwtBearer | None:
    """Return the authenticator that the settings describe, or None if they give no key; raise `SetupError`."""
    allowed = _algorithms(settings)
    if settings.jwt_key is not None and settings.jwt_jwks is not None:
        raise SetupError("PROGRESS_JWT_KEY and PROGRESS_JWT_JWKS are both set: a token is checked with one of them")
    if settings.jwt_jwks is not None:
        if settings.jwt_audience is None and settings.jwt_issuer is None:
            raise SetupError(
                "whose keys are in PROGRESS_JWT_JWKS signs for others too:"
                " set PROGRESS_JWT_AUDIENCE to what tokens for this server say in `aud`"
            )
        return JwtBearer(settings, KeySet(settings.jwt_jwks, settings.jwt_jwks_s).key, allowed)
    if settings.jwt_key is None:
        return None
    key = read_key(settings.jwt_key.get_secret_value())
    if key.algorithm not in allowed:
        raise SetupError(f"PROGRESS_JWT_KEY is for {key.algorithm}, which PROGRESS_JWT_ALGORITHMS does not list")

    async def find_key(_: str | None) -> Key:
        return key

    return JwtBearer(settings, find_key, allowed)


def _algorithms(settings: Settings) -> frozenset[str]:
    if settings.jwt_algorithms is None:
        return ALGORITHMS
    named = frozenset(name.strip() for name in settings.jwt_algorithms.split(","))
    if not named <= ALGORITHMS:
        raise SetupError(f"PROGRESS_JWT_ALGORITHMS takes {', '.join(sorted(ALGORITHMS))}, separated by commas")
    return named
