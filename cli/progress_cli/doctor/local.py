"""What is wrong with the settings of this machine: misspelled names, keys and files that can't be used, weak rights."""

import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dotenv import dotenv_values
from pydantic import SecretStr

from progress_broker.diagnosis.bounded import all_of, bounded
from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.errors import SetupError
from progress_broker.settings import Settings, expand_user
from progress_cli.options import option_kind
from progress_cli.unknown_settings import misspelled

_AT = "settings"
_OF_SERVERS = ("auth", "api_keys", "jwt_key", "jwt_jwks", "tls_cert", "callback_url")
"""The settings about keys and files of servers."""


async def examine_settings(settings: Settings, patience_s: float) -> list[Finding]:
    """Return what is wrong with the settings, and with the files that they name."""
    found = [*_names(settings), *_rights(settings)]
    if not settings.model_fields_set.intersection(_OF_SERVERS):
        return found
    try:
        uses = _uses(settings)
    except SetupError as error:  # the extra `server` is not installed
        return [*found, Finding(Check.KEYS, Level.UNCHECKED, _AT, f"not checked: {error.detail}")]
    last = uses.pop("PROGRESS_AUTH")
    keys = await all_of(*(bounded(Check.KEYS, name, _usable(name, use), patience_s) for name, use in uses.items()))
    if not any(finding.level is Level.FAULT for finding in keys):  # else it would say the same again
        keys += await bounded(Check.KEYS, "PROGRESS_AUTH", _usable("PROGRESS_AUTH", last), patience_s)
    return found + keys


def _names(settings: Settings) -> Iterator[Finding]:
    for line in misspelled():
        said, _, meant = line.partition(": ")
        fix = meant or "correct its name (docs/reference/settings.md has all), or remove it"
        yield Finding(Check.SETTINGS, Level.WARNING, _AT, said, fix)
    sources = ", ".join(f"PROGRESS_{name.upper()} ({_source(name)})" for name in sorted(settings.model_fields_set))
    yield Finding(Check.SETTINGS, Level.GOOD, _AT, f"set: {sources or 'nothing, so all have their defaults'}")


def _source(name: str) -> str:
    """Return where a setting comes from: the environment wins over a file `.env`, and an option over both."""
    variable = f"PROGRESS_{name.upper()}"
    for source, names in (("environment", os.environ), (".env", dotenv_values(".env"))):
        if variable in {each.upper() for each in names}:
            return source
    return "option"


def _rights(settings: Settings) -> Iterator[Finding]:
    """Return which files others may read although they are secret, or write although servers believe them."""
    key = settings.jwt_key.get_secret_value() if settings.jwt_key else ""
    jwks = settings.jwt_jwks or ""
    secret = {"PROGRESS_TLS_KEY": settings.tls_key, "PROGRESS_TOKEN_FILE": settings.token_file}
    if any(map(_is_secret, dotenv_values(".env").items())):
        secret[".env"] = Path(".env")
    believed = {
        "PROGRESS_API_KEYS": settings.api_keys,
        "PROGRESS_JWT_KEY": Path(key[1:]) if key.startswith("@") else None,
        "PROGRESS_JWT_JWKS": Path(jwks) if jwks and "://" not in jwks else None,
    }
    for name, path in (secret | believed).items():
        try:
            mode = None if path is None else expand_user(path).stat().st_mode
        except OSError:
            continue  # another check tells that it can't be read
        if mode is None:
            continue
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield _weak(name, f"others may write to {path}, which is believed", f"chmod go-w {path}")
        elif name in secret and mode & stat.S_IROTH:
            yield _weak(name, f"everybody on this machine may read {path}, which has secrets", f"chmod 600 {path}")


def _is_secret(setting: tuple[str, str | None]) -> bool:
    """Return whether a setting is secret. An address of Redis is, if it has a password."""
    name, value = setting[0].upper().removeprefix("PROGRESS_").lower(), setting[1] or ""
    field = Settings.model_fields.get(name)
    return field is not None and option_kind(field.annotation) is SecretStr and (name != "redis_url" or "@" in value)


def _weak(name: str, said: str, fix: str) -> Finding:
    return Finding(Check.RIGHTS, Level.WARNING, name, said, fix)


class _Use(NamedTuple):
    """How a server uses a setting, which raises `SetupError` if it can't be used, and what to do then."""

    use: Callable[[], object]
    fix: str


def _uses(settings: Settings) -> dict[str, _Use]:
    """Return how a server uses its keys and files, by setting. Raises `SetupError` if packages are missing."""
    from progress_server.auth.api_keys import read_keys
    from progress_server.auth.keys import read_key, read_key_set, reader_of
    from progress_server.server.server import check
    from progress_server.server.sockets import check_certificate

    async def read_jwks(address: str) -> None:
        try:
            read_key_set(await reader_of(address)())
        except (OSError, ValueError) as error:
            raise SetupError(f"can't read the key set {address} of PROGRESS_JWT_JWKS: {error}") from None

    uses = {}
    if settings.api_keys is not None:
        uses["PROGRESS_API_KEYS"] = _Use(
            partial(read_keys, settings.api_keys),
            "correct that file; `progress-broker auth key` makes the lines of a key",
        )
    if settings.jwt_key is not None:
        uses["PROGRESS_JWT_KEY"] = _Use(
            partial(read_key, settings.jwt_key.get_secret_value()),
            "set a secret of 32 bytes or more, or `@` and the path of a PEM file that the server's user may read",
        )
    if settings.jwt_jwks is not None:
        uses["PROGRESS_JWT_JWKS"] = _Use(
            partial(read_jwks, settings.jwt_jwks),
            "start what answers there, or correct the address: without the key set, no token is accepted",
        )
    if settings.tls_cert is not None:
        uses["PROGRESS_TLS_CERT"] = _Use(
            partial(check_certificate, settings),
            "set PEM files of a certificate and its key that the server's user may read",
        )
    uses["PROGRESS_AUTH"] = _Use(
        partial(check, settings), "correct the settings that the finding names: no server starts with them"
    )
    return uses


async def _usable(name: str, used: _Use) -> Iterable[Finding]:
    try:
        result = used.use()
        if isinstance(result, Awaitable):
            await result
    except SetupError as error:
        return [Finding(Check.KEYS, Level.FAULT, name, error.detail, used.fix)]
    return [Finding(Check.KEYS, Level.GOOD, name, "it can be used")]
