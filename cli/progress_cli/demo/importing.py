"""Imports a large CSV file into a database, in three stages, one after another, each with its own count."""

import csv
import random
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from progress_workers import Operation

ROWS = 200_000
_BATCH = 1_000
_CITIES = ("Aachen", "Bergen", "Coimbra", "Dresden", "Espoo", "Faro", "Ghent", "Hull", "Izmir", "Jena")

Row = tuple[int, str, str, float]
T = TypeVar("T")


def import_customers(op: Operation, rows: int = ROWS) -> None:
    """Write a CSV file of customers, read it back, and insert its rows into SQLite."""
    generate, parse = op.stage("generate", weight=2, total=rows), op.stage("parse", weight=1, total=rows)
    insert = op.stage("insert", weight=2, total=rows)
    with TemporaryDirectory(prefix="progress-demo-") as folder:
        source = Path(folder) / "customers.csv"
        with generate:
            op.update(message=f"writing {rows:,} rows to {source.name}")
            for batch in generate_batches(rows):
                op.raise_if_cancelled()
                with source.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows(batch)
                generate.advance(len(batch))
        size = source.stat().st_size
        generate.log(f"{source.name} has {size:,} bytes")

        with parse, source.open(newline="", encoding="utf-8") as file:
            op.update(message=f"reading {source.name}", metrics={"file_bytes": size})
            customers: list[Row] = []
            for lines in _batches(csv.reader(file)):
                op.raise_if_cancelled()
                customers += map(_parsed, lines)
                parse.advance(len(lines))

        with insert, closing(sqlite3.connect(Path(folder) / "customers.db")) as database:
            op.update(message="inserting into SQLite")
            database.execute("CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT, balance REAL)")
            for batch in _batches(customers):
                op.raise_if_cancelled()
                with database:
                    database.executemany("INSERT INTO customer VALUES (?, ?, ?, ?)", batch)
                insert.advance(len(batch))
            cities = database.execute("SELECT city, count(*), sum(balance) FROM customer GROUP BY city").fetchall()
        for city, count, balance in cities:
            insert.log(f"{city}: {count:,} customers, {balance:,.2f} in total")
    op.succeed({"imported": len(customers), "cities": len(cities)})


def generate_batches(rows: int, seed: int = 42) -> Iterator[list[Row]]:
    """Yield the customers to write; the same seed gives the same customers."""
    chance = random.Random(seed)
    for first in range(0, rows, _BATCH):
        yield [
            (number, f"Customer {number:06}", chance.choice(_CITIES), round(chance.uniform(-500, 5_000), 2))
            for number in range(first, min(first + _BATCH, rows))
        ]


def _parsed(fields: list[str]) -> Row:
    number, name, city, balance = fields
    return int(number), name, city, float(balance)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
