"""`auth token` and `auth key`: credentials for callers and workers."""

import secrets
import time
from typing import Annotated, Any

import orjson
import typer
from pydantic import TypeAdapter, ValidationError

from progress_broker.errors import SetupError
from progress_broker.model.operation import Label
from progress_broker.model.validation import invalid, read_json
from progress_broker.runtime.durations import seconds
from progress_broker.settings import Settings
from progress_cli.exit_codes import print_info
from progress_cli.options import with_settings

_NAME: TypeAdapter[str] = TypeAdapter(Label)

Grants = Annotated[
    str | None, typer.Option(metavar="JSON", help='Wider grants: [{"actions": ["read"], "kinds": ["import"]}].')
]


@with_settings("jwt_audience", "jwt_issuer")
def token(
    settings: Settings,
    sub: Annotated[str, typer.Option(metavar="NAME", help="The principal that the token is for.")],
    scope: Annotated[
        str, typer.Option(help="Actions allowed on operations that it owns: read publish cancel create admin.")
    ] = "read publish cancel create",
    grants: Grants = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long the token is valid: 45s, 30m, 1h, 7d.")] = "1h",
) -> None:
    """Make a token for trying things out, signed with the secret in PROGRESS_JWT_KEY.

    Where tokens are signed with a private key (RS256, ES256), make them where that key is.
    """
    import jwt

    from progress_server.auth.keys import read_key

    if settings.jwt_key is None:
        raise SetupError("PROGRESS_JWT_KEY is not set: set it to the same secret as on the server")
    key = read_key(settings.jwt_key.get_secret_value())
    if key.algorithm != "HS256":
        raise SetupError("PROGRESS_JWT_KEY is a public key, which cannot sign: make tokens where the private key is")
    now = int(time.time())
    claims: dict[str, Any] = {
        settings.jwt_subject_claim: _name(sub),
        settings.jwt_scope_claim: scope,
        "iat": now,
        "exp": now + max(1, round(seconds(expires))),
        "jti": secrets.token_hex(8),
    }
    more = {
        settings.jwt_grants_claim: _grants(grants) or None,
        "aud": settings.jwt_audience,
        "iss": settings.jwt_issuer,
    }
    claims |= {name: value for name, value in more.items() if value is not None}
    typer.echo(jwt.encode(claims, key.material, key.algorithm))


def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.")],
    grants: Grants = '[{"actions": ["read", "publish", "create"]}]',
) -> None:
    """Make an API key for a worker. Prints the key and the lines to add to the TOML file of PROGRESS_API_KEYS."""
    from progress_server.auth.api_keys import hash_key, new_key

    name, grant_list, made = _name(name), _grants(grants), new_key()
    entry = {"name": name, "sha256": hash_key(made), "grants": grant_list}
    print_info("this key is shown only now; add the lines below it to the file of PROGRESS_API_KEYS")
    typer.echo(made)
    typer.echo()
    typer.echo("[[keys]]")
    for field, value in entry.items():
        typer.echo(f"{field} = {_toml(value)}")


def _name(text: str) -> str:
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        raise invalid(error, text) from None


def _grants(text: str | None) -> list[dict[str, Any]]:
    from progress_server.auth.claims import GRANTS

    value = read_json(text.encode()) if text else []
    try:
        claims = GRANTS.validate_python(value)
    except ValidationError as error:
        raise invalid(error, value) from None
    return [claim.model_dump(mode="json", exclude_none=True) for claim in claims]


def _toml(value: Any) -> str:
    """Return a value as TOML has it; strings and lists are written as in JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {_toml(it)}" for name, it in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return orjson.dumps(value).decode()
