"""The options of an operation are listed once, in `NewOperation`; all other lists of its fields agree with it."""

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from typer.main import get_command

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import NewOperation
from progress_cli.app import app
from progress_workers import Operation, current, run_process, track
from progress_workers.lifecycle import start
from progress_workers.options import AttachOptions, ChildOptions, CreateOptions, ReportOptions, StartOptions
from progress_workers.queues._runs import OperationOptions
from progress_workers.testing import recording
from progress_workers.tracked import _TEMPLATES

FIELDS = set(NewOperation.model_fields)
RARE = {"weight", "history_length", "retention_s"}
"""What no command has an option for."""
PROTOCOL = Path(__file__).parents[2] / "docs" / "protocol.md"


def names(options: type) -> set[str]:
    return set(get_type_hints(options))


def parameters(function: object) -> set[str]:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    return {name for name, it in signature.parameters.items() if it.kind is inspect.Parameter.KEYWORD_ONLY}


def test_the_sdk_creates_with_what_an_operation_is_made_of() -> None:
    assert names(CreateOptions) - {"settings", "required"} | {"kind"} == FIELDS


def test_a_task_says_all_but_its_id() -> None:
    assert names(OperationOptions) | {"id"} == FIELDS


def test_starting_is_creating_and_reporting() -> None:
    assert names(StartOptions) == names(CreateOptions) | names(ReportOptions) | {"total", "unit"}
    assert names(ChildOptions) == names(StartOptions) - {"parent", "settings"}
    assert parameters(start.start) <= names(StartOptions)
    assert parameters(start.attach) == names(AttachOptions)


def test_templates_are_options_that_are_texts() -> None:
    hints = get_type_hints(StartOptions)
    assert all(hints[name] == str | None for name in _TEMPLATES)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Operation.create, CreateOptions),
        (Operation.start, names(StartOptions) - names(CreateOptions)),
        (Operation.attach, AttachOptions),
    ],
)
def test_the_docstrings_name_each_option(method: object, options: type | set[str]) -> None:
    wanted = options if isinstance(options, set) else names(options)
    assert [name for name in wanted if f"`{name}`" not in (inspect.getdoc(method) or "")] == []


def test_the_protocol_names_each_field_and_the_model_describes_it() -> None:
    creating = PROTOCOL.read_text().partition("**Creating**")[2].partition("\n\n")[0]
    assert [name for name in FIELDS if f"`{name}`" not in creating] == []
    assert [name for name, field in NewOperation.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("command", "left_out"), [("run", RARE), ("publish", {"id", "lease_s", *RARE})], ids=["run", "publish"]
)
def test_a_command_has_an_option_for_each_field_but_those_it_leaves_out(command: str, left_out: set[str]) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    told = {"tags" if option.name == "tag" else option.name for option in commands[command].load().params}
    assert FIELDS - told == left_out - {"id"}


def test_what_can_not_be_meant_says_what_is() -> None:
    with pytest.raises(InvalidInput, match="settings: expected `Settings`, or None, not"):
        Operation.start("import", settings={"redis_url": "redis://x"})  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match=r"create an operation with Operation.start\(5\)"):
        Operation(5)  # type: ignore[arg-type]
    none = current()
    with recording(), Operation.start("import") as op:
        takes: list[Any] = [op.track, op.stage("parse").track, track, none.track, none.stage("parse").track]
        for take in takes:
            with pytest.raises(TypeError, match=r"for 5 steps, track range\(5\)"):
                take(5)
        waits: list[Any] = [op.flush, op.signals]
        for wait in waits:
            with pytest.raises(InvalidInput, match="a number of seconds"):
                wait("5")
        commands: list[Any] = [5, [5], "ls", []]
        for command in commands:
            with pytest.raises(InvalidInput, match="a command must be a list of words"):
                run_process(command)
