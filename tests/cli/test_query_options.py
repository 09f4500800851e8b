"""The options of commands that choose operations: the fields of a query, and nothing else."""

from datetime import datetime

import pytest
import typer
from typer.testing import CliRunner

from progress_broker.errors import InvalidInput
from progress_broker.queries.fields import FIELDS, Pairs
from progress_cli.query_options import with_filters

asked: list[Pairs] = []
app = typer.Typer()


@app.command()
@with_filters(ids=True)
def find(query: Pairs, limit: int = 5) -> None:
    asked.append(query)


def query_of(*words: str) -> Pairs:
    asked.clear()
    done = CliRunner().invoke(app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return asked[0]


def test_each_field_is_an_option_and_ids_are_arguments() -> None:
    for field in FIELDS.values():
        flag = f"--{field.name.replace('_', '-')}"
        words = [field.example] if field.name == "id" else [flag] if field.type is bool else [flag, field.example]
        assert query_of(*words) == ((field.name, field.example),)


def test_options_can_be_given_again_where_a_field_has_several_values() -> None:
    assert query_of("--kind", "import", "--kind", "export", "--limit", "9") == (("kind", "import"), ("kind", "export"))
    assert query_of("a", "b") == (("id", "a"), ("id", "b"))
    assert query_of() == ()


def test_a_time_of_today_is_by_the_local_clock() -> None:
    [(name, text)] = query_of("--created-since", "0:05")
    at = datetime.fromisoformat(text)
    assert name == "created_since"
    assert (at.hour, at.minute, at.date()) == (0, 5, datetime.now().astimezone().date())
    assert at.utcoffset() == at.astimezone().utcoffset()


@pytest.mark.parametrize("words", [["--status", "lost"], ["--since", "25:00"], ["--roots", "--parent", "a"]])
def test_what_is_wrong_is_told_before_the_command_begins(words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        query_of(*words)
    assert not asked
