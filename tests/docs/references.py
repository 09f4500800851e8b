"""Reference pages made of the code: settings, commands, metrics, SDK, streams.

`python -m tests.docs.references` writes them, and the files for Kubernetes that are copies of others.
"""

import asyncio
import dataclasses
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from textwrap import indent
from typing import Any, Literal, get_args, get_origin

import orjson
from prometheus_client.metrics_core import Metric
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command

import progress_client
import progress_workers
from progress_broker.queries.fields import FIELDS, QueryField
from progress_broker.settings import Settings
from progress_cli.app import app
from progress_cli.exit_codes import EXIT_CODES
from progress_server.description.asyncapi import asyncapi
from progress_workers import Operation
from tests.deploy.copies import COPIES
from tests.docs.blocks import ROOT
from tests.replica_metrics import replica_metrics

FOLDER = ROOT / "docs" / "reference"
WRITTEN = "(This page is written from the code, by `python -m tests.docs.references`.)"
MODULES = [
    "bars",
    "bars.tqdm",
    "bars.rich",
    "files",
    "queues",
    "queues.celery",
    "queues.rq",
    "queues.dramatiq",
    "queues.arq",
    "queues.taskiq",
    "testing",
    "values",
]


def settings_page() -> str:
    schemas = Settings.model_json_schema()["properties"]
    rows = "".join(_setting(name, field, schemas[name]) for name, field in Settings.model_fields.items())
    return f"""\
# Settings

Each setting is an environment variable, also from a file `.env`. Those of servers are options of
`progress-broker serve`, too: `PROGRESS_DRAIN_S` is `--drain-s`. Secrets are environment variables only.
Durations are in seconds and sizes in bytes, as the names say. {WRITTEN}

| setting | default | values | meaning |
|---|---|---|---|
{rows}"""


def _setting(name: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    default = field.get_default()
    if field.default is PydanticUndefined:
        shown = "`~/.local/share/progress-broker`" if name == "data_dir" else ""
    elif isinstance(default, tuple):
        shown = f"`{','.join(default)}`" if default else ""
    else:
        shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return f"| `PROGRESS_{name.upper()}` | {shown} | {_values(schema)} | {_cell(field.description or '')} |\n"


def _values(schema: dict[str, Any]) -> str:
    kind = next(it for it in schema.get("anyOf", [schema]) if it.get("type") != "null")
    words = {"exclusiveMinimum": "above", "minimum": "from", "maximum": "to"}
    bounds = " ".join(f"{word} {kind[name]:,}" for name, word in words.items() if name in kind)
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    kinds = {"array": "a list, with commas", "boolean": "`true`, `false`"}
    return bounds or ("a secret" if kind.get("format") == "password" else kinds.get(kind["type"], ""))


def cli_page() -> str:
    group: Any = get_command(app)
    commands = "".join(_command(name, command) for name, command in _commands(group))
    return f"""\
# Command line

`progress-broker COMMAND --help` shows the same in a terminal. Commands that look at operations talk to Redis directly,
and find it by `PROGRESS_REDIS_URL`, or else on this machine. {WRITTEN}

{EXIT_CODES}
{commands}"""


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} ")
        else:
            yield before + name, command.load()


def _command(name: str, command: Any) -> str:
    own = [it for it in command.params if it.name not in Settings.model_fields]
    settings = [it for it in command.params if it.name in Settings.model_fields]
    usage = " ".join(it.metavar or it.name.upper() for it in own if "Argument" in type(it).__name__)
    page = f"\n## `progress-broker {name}`\n\n"
    page += f"`progress-broker {name} [OPTIONS]{f' {usage}' if usage else ''}`\n\n{command.help.strip()}\n"
    if own:
        page += "\n| argument or option | meaning |\n|---|---|\n" + "".join(_option(it) for it in own)
    if len(settings) == len(Settings.model_fields) - 6:
        page += "\nEvery [setting](settings.md) of a server but the secrets is an option.\n"
    elif settings:
        page += f"\nSettings that are options: {', '.join(f'`{it.opts[0]}`' for it in settings)}.\n"
    return page


def _option(it: Any) -> str:
    shown = f"`{it.opts[0] if it.opts[0].startswith('-') else it.metavar or it.name.upper()}`"
    choices = get_args(it.type_descriptor.annotation)
    if get_origin(it.type_descriptor.annotation) is Literal:
        shown += f" {', '.join(f'`{choice}`' for choice in choices)}"
    default = "" if it.default in (None, False, "") or callable(it.default) else f" Default: `{it.default}`."
    return f"| {shown} | {_cell(it.help or '')}{default}{' Required.' if it.required else ''} |\n"


def queries_page() -> str:
    """Return the page of the fields of a query."""
    rows = "".join(
        f"| `{field.name}` | {_flag(field)} | {_cell(field.description)} {_again(field)}| `{field.example}` |\n"
        for field in FIELDS.values()
    )
    return f"""\
# Queries

A query chooses operations. Lists, counts, exports and commands on many operations take the same one: as parameters of a
call, or as options of a command. All that is given has to match. {WRITTEN}

| parameter | option | chooses | example |
|---|---|---|---|
{rows}
Times ago are by the clock of Redis. A command also takes a local time of today, such as `14:05`. A text is searched
for as it is, in capital or small letters; there are no patterns.
"""


def _flag(field: QueryField) -> str:
    return "arguments" if field.name == "id" else f"`--{field.name.replace('_', '-')}`"


def _again(field: QueryField) -> str:
    return "May be given again. " if field.repeatable else ""


def metrics_page() -> str:
    """Return the page as it is, with the table of what a replica tells."""
    page = (FOLDER / "metrics.md").read_text()
    ours = [it for it in asyncio.run(replica_metrics()) if it.name.startswith("progress_broker_")]
    rows = "".join(_metric(it) for it in ours)
    return re.sub(r"(^\| `progress_broker_.*\n)+", lambda _: rows, page, flags=re.MULTILINE)


def _metric(it: Metric) -> str:
    labels = sorted({label for sample in it.samples for label in sample.labels} - {"le"})
    name = f"{it.name}_total" if it.type == "counter" else it.name
    return f"| `{name}` | {it.type} | {', '.join(f'`{label}`' for label in labels)} | {it.documentation} |\n"


def python_page() -> str:
    names = [name for name in progress_workers.__all__ if name != "Operation"]
    values = {name: getattr(progress_workers, name) for name in names}
    errors = {name: it for name, it in values.items() if inspect.isclass(it) and issubclass(it, Exception)}
    others = "".join(_documented(name, it) for name, it in values.items() if name not in errors)
    problems = "".join(f"| `{name}` | {_cell(_doc(it).partition(chr(10) * 2)[0])} |\n" for name, it in errors.items())
    operation = "".join([_documented("Operation", Operation), *_methods(Operation)])
    modules = "".join(_module(name) for name in MODULES)
    return f"""\
# Python SDK

`from progress_workers import …`. `python -m pydoc progress_workers` is the guide in a terminal;
[Report from a worker](../how-to/report.md) is one with examples. {WRITTEN}
{operation}{others}
## Errors

All are subclasses of `BrokerError`, except `ProcessFailed`, which is a `subprocess.CalledProcessError`.

| error | meaning |
|---|---|
{problems}
## Modules

`python -m pydoc progress_workers.queues.celery`, and so on, shows each.

| module | what it is for |
|---|---|
{modules}"""


def python_client_page() -> str:
    values = {name: getattr(progress_client, name) for name in progress_client.__all__}
    functions = "".join(_documented(name, it) for name, it in values.items() if inspect.isfunction(it))
    events = "".join(_event(name, values[name]) for name in (it.__name__ for it in get_args(progress_client.Event)))
    clients = "".join(
        [
            *(_documented(name, values[name]) for name in ("Client", "AsyncClient")),
            *_methods(progress_client.AsyncClient),
        ]
    )
    errors = [(name, it) for name, it in values.items() if inspect.isclass(it) and issubclass(it, Exception)]
    problems = "".join(f"| `{name}` | {_cell(_doc(it).partition(chr(10) * 2)[0])} |\n" for name, it in errors)
    return f"""\
# Python client

`from progress_client import …`. `python -m pydoc progress_client` is the guide in a terminal;
[Read progress from Python](../how-to/read.md) is one with examples. {WRITTEN}

The functions use a client that the environment configures. The methods of `Client` are those of `AsyncClient`, without
`await`. An `Operation` has the fields of [the wire contract](../protocol.md#operation), and `current`, `total` and
`percent` of its progress.
{functions}{clients}
## Events

Every event has `operation`, `n`, `position`, `at`, `type`, `data` and `json`, the whole event as the API sends it.

| event | fields | meaning |
|---|---|---|
{events}
## Errors

| error | meaning |
|---|---|
{problems}"""


def _event(name: str, it: type) -> str:
    common = {field.name for field in dataclasses.fields(progress_client.Custom)}
    own = [field.name for field in dataclasses.fields(it) if field.name not in common]
    return f"| `{name}` | {', '.join(f'`{field}`' for field in own)} | {_cell(_doc(it))} |\n"


def _documented(name: str, it: Any) -> str:
    return f"\n## `{name}{_signature(it)}`\n\n{_doc(it)}\n"


def _methods(it: type) -> Iterator[str]:
    order = {name: rank for rank, base in enumerate(reversed(it.__mro__)) for name in vars(base)}
    members = [(name, member) for name, member in inspect.getmembers(it) if not name.startswith("_") and _doc(member)]
    for name, member in sorted(members, key=lambda pair: -order[pair[0]]):
        signature = "" if isinstance(member, property) else _signature(member)
        yield f"\n### `{it.__name__}.{name}{signature}`\n\n{_doc(member)}\n"


def _signature(it: Any) -> str:
    if inspect.isclass(it):
        return ""
    found = inspect.signature(it)
    shown = [
        parameter.replace(annotation=parameter.empty)
        for parameter in found.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(found.replace(parameters=shown, return_annotation=found.empty))


def _module(name: str) -> str:
    doc = _doc(importlib.import_module(f"progress_workers.{name}"))
    return f"| `progress_workers.{name}` | {_cell(doc.partition(chr(10) * 2)[0])} |\n"


def _doc(it: Any) -> str:
    """Return a docstring, its examples as indented code."""
    paragraphs = (inspect.getdoc(it) or "").split("\n\n")
    return "\n\n".join(indent(text, "    ") if text.startswith(">>>") else text for text in paragraphs)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


GENERATED: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "cli.md": cli_page,
    "queries.md": queries_page,
    "python.md": python_page,
    "python-client.md": python_client_page,
    "metrics.md": metrics_page,
    "asyncapi.json": lambda: orjson.dumps(asyncapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode(),
}

if __name__ == "__main__":
    for file, make in GENERATED.items():
        (FOLDER / file).write_text(make())
    for path, copy in COPIES.items():
        path.write_text(copy())
