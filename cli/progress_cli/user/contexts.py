"""Contexts: names of servers, each with its URL and the file of a token, in the user's configuration folder.

They never have a token itself. `$XDG_CONFIG_HOME/progress-broker/contexts.toml`:

    use = "production"

    [contexts.production]
    url = "https://progress.example.com"
    token_file = "/home/ann/.progress-token"
"""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from progress_broker.errors import InvalidInput, NotFound, SetupError

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Context:
    """Where a server is, and the file with the token for it."""

    url: str
    token_file: str | None = None


@dataclass(slots=True)
class Contexts:
    """All contexts of a user, by name, and the one in use."""

    by_name: dict[str, Context] = field(default_factory=dict)
    in_use: str | None = None

    def get(self, name: str) -> Context:
        """Return a context; raise `NotFound`."""
        if name not in self.by_name:
            raise NotFound(f"there is no context {name[:64]!r}: `progress-broker context ls` lists them")
        return self.by_name[name]


def path() -> Path:
    """Return the file that has the contexts, if there are any."""
    return Path(typer.get_app_dir("progress-broker")) / "contexts.toml"


def load() -> Contexts:
    """Return the contexts of this user; raise `SetupError` if their file can't be read."""
    file = path()
    try:
        found = tomllib.loads(file.read_text("utf-8"))
        by_name = {name: Context(str(it["url"]), it.get("token_file")) for name, it in found["contexts"].items()}
        return Contexts(by_name, found.get("use"))
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise SetupError(f"the contexts in {file} can't be read: {error}: mend or delete this file") from None


def save(contexts: Contexts) -> None:
    """Write the contexts of this user; raise `SetupError` if that fails. Others see the old file or the new one."""
    lines = [f"use = {json.dumps(contexts.in_use)}"] if contexts.in_use is not None else []
    lines.append("[contexts]")
    for name, context in sorted(contexts.by_name.items()):
        lines += [f"[contexts.{name}]", f"url = {json.dumps(context.url)}"]
        lines += [f"token_file = {json.dumps(context.token_file)}"] if context.token_file is not None else []
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_name(f"{file.name}.{os.getpid()}")
        new.write_text("\n".join([*lines, ""]), "utf-8")
        new.replace(file)
    except OSError as error:
        raise SetupError(f"the contexts can't be written to {file}: {error.strerror}") from None


def chosen(name: str | None, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the context of a command, and the settings that it stands for; None if the command needs none.

    `given` are the options of the command. `name` is that of `--context`; without it, it is the context in use, unless
    options or the environment say where the operations are.
    """
    places = {option for option in ("url", "redis_url", "data_dir") if given.get(option) is not None}
    if name is None:
        if places or not path().exists():
            return None
        from progress_broker.settings import load_settings

        settings = load_settings()
        name = load().in_use
        if name is None or settings.url is not None or settings.redis_url is not None:
            return None
    elif places:
        raise InvalidInput("--context says where the server is: leave out --url, --redis-url and --data-dir")
    context = load().get(name)
    return name, {"url": context.url, "token_file": given.get("token_file") or context.token_file}


def complete_context(incomplete: str) -> list[str]:
    """Return the contexts whose names begin so, for the shell: none if they can't be read."""
    with suppress(SetupError):
        return [name for name in sorted(load().by_name) if name.startswith(incomplete)]
    return []
