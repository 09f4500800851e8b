"""Options of commands about an operation. Those for a new one are derived from `NewOperation`, field by field."""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, Any, Optional

import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import NewOperation
from progress_broker.model.validation import read_json
from progress_cli.options import complete_id, option_kind, with_parameters

Id = Annotated[str, typer.Argument(metavar="ID", help="The operation's id.", autocompletion=complete_id)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: one object per line.")]

_ONE_OF_MANY = {
    "tags": ("tag", "a tag; may be repeated"),
    "metadata": ("metadata", "`key=value`, its value as JSON or as text; or a JSON object; may be repeated"),
}
"""Fields with many parts: the name and the help of their option, which adds one part."""


def with_new_operation(
    *fields: str, condition: str = "", **helps: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `words` by one option for each of these fields of a new operation.

    `words` is then a dictionary of the fields that were set. `helps` replace the descriptions in `NewOperation`.
    `condition` is put before each help text.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = {field: _option(field, condition, helps.get(field)) for field in fields}

        @wraps(command)
        def run(**given: Any) -> None:
            values = {field: given.pop(option.name) for field, option in options.items()}
            words = {field: value for field, value in values.items() if value not in (None, [])}
            if "metadata" in words:
                words["metadata"] = read_metadata(words["metadata"])
            command(words=words, **given)

        return with_parameters(run, command, words=options.values())

    return decorate


def read_metadata(parts: Sequence[str]) -> dict[str, Any]:
    """Return the metadata in parts such as `customer=42` or `{"customer": 42}`; raise `InvalidInput`."""
    metadata: dict[str, Any] = {}
    for part in parts:
        key, separator, value = part.partition("=")
        if part.lstrip().startswith("{"):
            found = read_json(part.encode("utf-8", "surrogateescape"))
            metadata |= found if isinstance(found, dict) else {}
        elif separator and key:
            metadata[key] = _json_or_text(value)
        else:
            raise InvalidInput(f"--metadata {part!r}: use key=value, or a JSON object", field="metadata")
    return metadata


def _json_or_text(value: str) -> Any:
    try:
        return read_json(value.encode("utf-8", "surrogateescape"))
    except InvalidInput:
        return value


def _option(field: str, condition: str, help: str | None) -> inspect.Parameter:
    described = NewOperation.model_fields[field]
    kind = list if field in _ONE_OF_MANY else option_kind(described.annotation)
    name, said = _ONE_OF_MANY.get(field, (field, help or described.description or ""))
    help_text = f"{condition}: {said}." if condition else f"{said[:1].upper()}{said[1:]}."
    flag = f"--{name.replace('_', '-')}"
    declared = typer.Option(flag, help=help_text, min=0 if kind is float else None)
    annotation: Any = Annotated[Optional[list[str] if kind is list else kind], declared]  # noqa: UP045 - built at run time
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
