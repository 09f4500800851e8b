"""What `-o` prints: the same things, for people, for programs and for other commands."""

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Printer, Shape

AT = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
Thing = dict[str, Any]
SHAPE = Shape[Thing](
    columns=(
        Column("ID", lambda it: it["id"]),
        Column("DONE", lambda it: it["done"], format.percentage),
        Column("CREATED", lambda it: it["at"], lambda at: format.ago(at, AT), wide=True),
        Column("TAGS", lambda it: it["tags"], ", ".join, wide=True),
    ),
    name=lambda it: it["id"],
    to_json=lambda it: it | {"at": it["at"].isoformat()},
)
THINGS: list[Thing] = [
    {"id": "a", "done": 12.345, "at": AT, "tags": ["eu", "x"]},
    {"id": 'b",\x1b[31m', "done": 100.0, "at": AT, "tags": []},
]


def printed(format: Format, things: Iterable[Thing] = THINGS) -> str:
    lines: list[str] = []
    with Printer(SHAPE, format, lines.append) as printer:
        for thing in things:
            printer.add(thing)
    return "".join(f"{line}\n" for line in lines)


def test_json_jsonl_and_yaml_have_all_there_is() -> None:
    whole = [SHAPE.to_json(thing) for thing in THINGS]
    assert json.loads(printed(Format.JSON)) == whole
    assert [json.loads(line) for line in printed(Format.JSONL).splitlines()] == whole
    assert yaml.safe_load(printed(Format.YAML)) == whole
    for one in (Format.JSON, Format.YAML):
        assert yaml.safe_load(printed(one, [])) == []


def test_csv_has_all_columns_with_their_values() -> None:
    rows = list(csv.DictReader(io.StringIO(printed(Format.CSV))))
    assert rows == [
        {"id": "a", "done": "12.345", "created": "2026-11-30T14:05:00.000+00:00", "tags": "eu,x"},
        {"id": 'b",\\x1b[31m', "done": "100.0", "created": "2026-11-30T14:05:00.000+00:00", "tags": ""},
    ]


def test_a_table_has_values_for_people_and_a_wide_one_has_all_columns() -> None:
    assert printed(Format.TABLE).splitlines() == [
        "ID           DONE",
        "a            12.3 %",
        'b",\\x1b[31m  100.0 %',
    ]
    assert printed(Format.WIDE).splitlines()[0].split() == ["ID", "DONE", "CREATED", "TAGS"]
    assert "0 s ago" in printed(Format.WIDE)


def test_names_are_one_a_line_and_can_not_move_the_cursor() -> None:
    assert printed(Format.NAME) == 'a\nb",\\x1b[31m\n'


@pytest.mark.parametrize("format", [Format.JSON, Format.TABLE, Format.YAML])
def test_a_part_does_not_look_like_the_whole(format: Format) -> None:
    lines: list[str] = []

    def fail() -> None:
        with Printer(SHAPE, format, lines.append) as printer:
            printer.add(THINGS[0])
            raise RuntimeError("the connection was lost")

    with pytest.raises(RuntimeError):
        fail()
    assert "".join(lines)[-1:] in ("", "}")
