"""What commands print: a table for people, or a format for machines (`-o`)."""

import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar

import orjson
import typer

from progress_broker.extras import require
from progress_cli.output import format, tables

T = TypeVar("T")


class Format(StrEnum):
    """How things are printed."""

    TABLE = "table"
    WIDE = "wide"
    """A table with all columns."""
    JSON = "json"
    """One array."""
    JSONL = "jsonl"
    """One object a line."""
    YAML = "yaml"
    CSV = "csv"
    """All columns, with values as they are."""
    NAME = "name"
    """One name a line, for other commands."""


Output = Annotated[Format, typer.Option("--output", "-o", help="What to print.")]


class Column(NamedTuple, Generic[T]):
    """A column of a table and of CSV."""

    title: str
    value: Callable[[T], Any]
    shown: Callable[[Any], str] = format.plain
    """Returns the value for people. What publishers wrote has to be escaped, as `format.plain` does."""
    wide: bool = False
    """Whether only wide tables and CSV have it."""


@dataclass(frozen=True)  # no slots: Python 3.11 can't call `Shape[X](…)` then
class Shape(Generic[T]):
    """How a kind of things is printed."""

    columns: Sequence[Column[T]]
    name: Callable[[T], str]
    to_json: Callable[[T], Any]


class Printer(Generic[T]):
    """Prints things one after another. Use it as a context manager: a table is printed at the end of the block.

    If the block fails, no table is printed, and a JSON array stays open, so that nobody takes a part for the whole.
    """

    def __init__(self, shape: Shape[T], format: Format, write: Callable[[str], None] = typer.echo) -> None:
        self.format = format
        self._shape, self._write = shape, write
        self._kept: list[T] = []
        self._count = 0
        if format is Format.YAML:
            require("cli", "-o yaml")

    def __enter__(self) -> Self:
        if self.format is Format.CSV:
            self._write(_csv_line([column.title.lower() for column in self._shape.columns]))
        return self

    def add(self, thing: T) -> None:
        """Print one of the things, or keep it for the end if the format needs all of them."""
        match self.format:
            case Format.JSONL:
                self._write(_json(self._shape.to_json(thing)))
            case Format.JSON:
                self._write(f"{',' if self._count else '['}{_json(self._shape.to_json(thing))}")
            case Format.CSV:
                self._write(_csv_line([_csv_value(column.value(thing)) for column in self._shape.columns]))
            case Format.NAME:
                self._write(format.plain(self._shape.name(thing)))
            case _:
                self._kept.append(thing)
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        match self.format:
            case Format.JSON:
                self._write("]" if self._count else "[]")
            case Format.YAML:
                self._write(_yaml([self._shape.to_json(thing) for thing in self._kept]))
            case Format.TABLE | Format.WIDE:
                self._print_table()

    def _print_table(self) -> None:
        columns = [it for it in self._shape.columns if self.format is Format.WIDE or not it.wide]
        rows = [[column.shown(column.value(thing)) for column in columns] for thing in self._kept]
        titles = [column.title for column in columns]
        if self._write is typer.echo and sys.stdout.isatty():
            tables.print_rows(titles, rows)
            return
        for line in tables.aligned([titles, *rows]):
            self._write(line)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _yaml(value: Any) -> str:
    import yaml  # takes longer to import than most of the rest

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, list | tuple):
        return ",".join(map(_csv_value, value))
    return format.plain(value)
