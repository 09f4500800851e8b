"""What commands show on a terminal, narrow and wide."""

import json
import re

import pytest

from tests.cli.conftest import Shell

ID = "nightly-import-of-customers-0001"


@pytest.fixture
def listed(shell: Shell) -> Shell:
    told = {"current": 99_970, "total": 100_000, "unit": "rows", "eta_ms": 2_000}
    title = "All customers of the whole of Europe, as every night"
    for id, percent in ((ID, 99.97), ("b", 35)):
        data = json.dumps(told | {"percent": percent})
        shell.says("publish", id, "--create", "--title", title, "--type", "progress", "--data", data)
    shell.says("publish", "b", "--type", "end", "--data", '{"status": "cancelled"}')
    return shell


@pytest.mark.parametrize(
    ("columns", "titles"),
    [(60, ["ID", "STATUS", "PROGRESS"]), (120, ["ID", "KIND", "STATUS", "PROGRESS", "CHANGED", "TITLE"])],
)
def test_a_listing_leaves_columns_out_before_it_cuts_an_id_or_a_status(
    listed: Shell, columns: int, titles: list[str]
) -> None:
    head, _, *rows = listed.on_terminal(columns, "ls").splitlines()
    assert head.split() == titles
    cells = [row[: head.index("PROGRESS")].split() for row in rows]
    assert "".join(first[0] for first in cells if first and first[0] != "b") == ID
    assert sorted(word for row in cells for word in row if word in ("running", "cancelled")) == ["cancelled", "running"]
    assert max(map(len, rows)) <= columns
    assert "99,970/100,000 rows" in "".join(rows)


def test_a_narrow_bar_cuts_the_title_and_not_the_status(listed: Shell) -> None:
    drawn = listed.on_terminal(60, "tail", "b")
    last = [line for line in re.split(r"[\r\n]", drawn) if line.startswith("All")][-1]
    assert "cancelled  35.0 %  99,970/100,000" in last
    assert " left" not in drawn


def test_a_custom_event_has_its_type_in_every_view(listed: Shell) -> None:
    listed.says("publish", "c", "--create", "--type", "invoice", "--data", '{"amount": 3}')
    listed.says("publish", "c", "--type", "end", "--data", '{"status": "succeeded"}')
    words = ("tail", "c", "--from", "start")
    assert 'invoice  {"amount":3}' in listed.on_terminal(80, *words)
    assert 'invoice   {"amount":3}' in listed.says(*words)
