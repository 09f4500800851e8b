"""The settings as command options. Names, types and help texts come from `Settings`, the only place that has them."""

import asyncio
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from progress_broker.errors import SetupError
from progress_broker.settings import Settings, load_settings
from progress_cli.exit_codes import print_info
from progress_cli.user import contexts

CLIENT = ("redis_url", "prefix", "data_dir")
"""The settings that a command needs to find the operations in Redis."""

READER = ("url", "token_file", *CLIENT)
"""The settings that a command needs to find the operations, in Redis or behind a server."""

_NOT_OF_SERVERS = ("url", "token", "token_file")

SERVER = (
    "host",
    "port",
    "processes",
    *CLIENT,
    "lanes",
    "insecure",
    "auth",
    "jwt_jwks",
    "jwt_audience",
    "jwt_issuer",
    "api_keys",
    "callback_url",
    "tls_cert",
    "tls_key",
    "cors_origins",
    "allowed_hosts",
    "trusted_proxies",
    "log_level",
    "log_format",
    "history_length",
    "retention_s",
    "drain_s",
)
"""The settings that people change most; `serve` has options for all others too."""

_COMPLETION_S = 0.5
_MOST_COMPLETED = 50

_SIMPLE = (bool, int, float, str, Path)


_CONTEXT = inspect.Parameter(
    "context",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Optional[str],  # noqa: UP045 - read at run time
        typer.Option(
            "--context",
            metavar="NAME",
            help="the server with this name, of `progress-broker context`",
            rich_help_panel="Settings",
            show_default=False,
            autocompletion=contexts.complete_context,
        ),
    ],
)

GIVEN: ContextVar[Mapping[str, Any]] = ContextVar("given", default=MappingProxyType({}))
"""The options of the command that set settings. They go on winning when settings are read again."""


def with_settings(*names: str, rest: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command its `settings`, and an option for each of these names; with `rest`, for all others of servers."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = _options(names, "Settings")
        if rest:
            listed = (*names, *_NOT_OF_SERVERS)
            options += _options([name for name in Settings.model_fields if name not in listed], "Tuning")
        chosen = [option.name for option in options]
        if "url" in names:
            options.insert(0, _CONTEXT)

        @wraps(command)
        def run(**given: Any) -> None:
            overrides = {name: given.pop(name) for name in chosen}
            GIVEN.set({name: value for name, value in overrides.items() if value is not None})
            named = given.pop(_CONTEXT.name) if "url" in names else None
            settings = read_settings(overrides, named, tell=True) if "url" in names else _load(overrides)
            command(settings=settings, **given)

        own = [it for name, it in inspect.signature(command, eval_str=True).parameters.items() if name != "settings"]
        parameters = [it.replace(kind=inspect.Parameter.KEYWORD_ONLY) for it in (*own, *options)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {it.name: it.annotation for it in parameters}
        return run

    return decorate


def with_parameters(
    run: Callable[..., None], command: Callable[..., None], **several: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """Give `run`, which calls a command, the command's parameters; `several` others in place of the one of a name."""
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        parameters += several.get(name, (parameter,))
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def read_settings(overrides: dict[str, Any], context: str | None, *, tell: bool = False) -> Settings:
    """Return the settings of a command that works through a server or in Redis.

    They come from its options; without an address there, from the environment, and then from the context in use.
    """
    found = contexts.chosen(context, overrides)
    if found is None:
        return _load(overrides)
    name, settings = found
    if tell and context is None:
        print_info(f"context {name}: {settings['url']}")
    return _load(overrides | settings)


def _load(overrides: dict[str, Any]) -> Settings:
    try:
        return load_settings(**overrides)
    except SetupError:
        if "log_format" in overrides:
            _log_as_wanted(overrides["log_format"])
        raise


def _log_as_wanted(log_format: str | None) -> None:
    """Report even invalid settings in the requested log format."""
    from dotenv import dotenv_values

    if (log_format or (dotenv_values(".env") | os.environ).get("PROGRESS_LOG_FORMAT")) == "json":
        from progress_cli.logging import log_for_machines

        log_for_machines()


def _options(names: Sequence[str], panel: str) -> list[inspect.Parameter]:
    return [option for name in names if (option := _option(name, panel)) is not None]


def _option(name: str, panel: str) -> inspect.Parameter | None:
    """Return the option for a setting; None if it has none, because it is a secret other than the address."""
    field = Settings.model_fields[name]
    kind = option_kind(field.annotation)
    if kind is None or (kind is SecretStr and name != "redis_url"):
        return None
    flag = f"--{name.replace('_', '-')}"
    plain = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    default = "" if plain in (None, False, "", PydanticUndefined) else f" ({plain})"
    declared = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=f"{field.description}{default}",
        rich_help_panel=panel,
        show_default=False,
    )
    typed = str if kind in (SecretStr, tuple) else kind
    annotation: Any = Annotated[Optional[typed], declared]  # noqa: UP045 - built at run time
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def option_kind(annotation: Any) -> Any:
    """Return the single type behind an annotation such as `Annotated[int, …] | None`, if an option can have it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return option_kind(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        kinds = [option_kind(part) for part in get_args(annotation) if part is not type(None)]
        return kinds[0] if len(kinds) == 1 else None
    if origin is Literal:
        return annotation
    if origin is tuple:  # a list, separated by commas as in the environment
        return tuple
    if origin is list:
        return list
    return annotation if annotation in (*_SIMPLE, SecretStr) else None


def complete_id(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the operations whose ids begin so, for the shell, the most recently changed first.

    If something fails, or takes too long, there are none, and nobody is told: a shell is no place for errors.
    """
    with suppress(Exception):
        return asyncio.run(_ids(ctx, incomplete))
    return []


async def _ids(ctx: typer.Context, incomplete: str) -> list[str]:
    from progress_broker.queries.choice import Order
    from progress_cli import connect

    settings = read_settings({name: ctx.params.get(name) for name in READER}, ctx.params.get("context"))
    query = (("id_prefix", incomplete),) if incomplete else ()
    async with asyncio.timeout(_COMPLETION_S), connect.operators(settings) as operators:
        page = await operators.finder.page(query, order=Order.CHANGED, limit=_MOST_COMPLETED, cursor=None)
    return [operation.id for operation in page.operations]
