"""What a command imports before it does anything, and how it writes help and errors without a terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from progress_cli.app import AUTH, COMMANDS, CONTEXT, LIMITS
from progress_cli.lazy import LazyCommand
from tests.cli.conftest import Shell

SCRIPT = str(Path(sys.executable).with_name("progress-broker"))
SLOW = {"pydantic", "pydantic_settings", "redis", "orjson", "fastapi", "progress_workers"}


def imported(*words: str, **env: str) -> tuple[str, set[str]]:
    """Run the command line; return its output, and the packages that it imports."""
    command = [sys.executable, "-X", "importtime", SCRIPT, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=120, check=False)
    names = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)
    return done.stdout, {name.partition(".")[0] for name in names}


def test_the_version_needs_no_library() -> None:
    printed, loaded = imported("--version")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", printed)
    assert not loaded & (SLOW | {"typer", "rich"})


def test_the_help_and_the_completion_of_commands_load_none_of_them() -> None:
    printed, loaded = imported("--help")
    assert "most recently changed first" in printed
    assert not loaded & (SLOW | {"rich"})
    words = {"_PROGRESS_BROKER_COMPLETE": "complete_bash", "COMP_WORDS": "progress-broker sh", "COMP_CWORD": "1"}
    printed, loaded = imported(**words)
    assert printed.split() == ["show"]
    assert not loaded & (SLOW | {"rich"})


@pytest.mark.parametrize("command", [*COMMANDS, *AUTH, *LIMITS, *CONTEXT], ids=lambda command: command.name)
def test_a_summary_is_the_first_paragraph_of_the_help(command: LazyCommand) -> None:
    first = command.load().help.partition("\n\n")[0]
    assert command.help == " ".join(first.split())


def test_a_usage_error_is_plain_text_unless_there_is_a_terminal(shell: Shell) -> None:
    wrong = ("ls", "--limit", "odd")
    assert shell.run(*wrong).stderr.splitlines()[-1].startswith("Error: Invalid value for '--limit': ")
    assert "╭─ Error" in shell.on_terminal(80, *wrong)


def test_an_argument_is_written_as_people_know_it(shell: Shell) -> None:
    assert "publish [OPTIONS] ID [-]\n" in shell.says("publish", "--help")
    assert "publish [OPTIONS] ID [-] " in shell.on_terminal(80, "publish", "--help")
    assert "Missing argument 'ID'" in shell.run("show").stderr
