"""What commands show on a terminal, narrow and wide."""

import json

import pytest

from tests.cli.conftest import Shell

ID = "nightly-import-of-customers-0001"


@pytest.fixture
def listed(shell: Shell) -> Shell:
    told = {"current": 99_970, "total": 100_000, "percent": 99.97, "unit": "rows", "eta_ms": 2_000}
    title = "All customers of the whole of Europe, as every night"
    shell.says("publish", ID, "--create", "--title", title, "--type", "progress", "--data", json.dumps(told))
    shell.says("publish", "b", "--create", "--type", "progress", "--data", json.dumps(told | {"percent": 35}))
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


def test_a_narrow_bar_shows_the_whole_status(listed: Shell) -> None:
    *_, last = (line for line in listed.on_terminal(60, "tail", "b").split("\r") if line.strip())
    assert "cancelled  35.0 %  99,970/100,000 rows" in last.splitlines()[0]


def test_a_custom_event_has_its_type_in_every_view(listed: Shell) -> None:
    listed.says("publish", "c", "--create", "--type", "invoice", "--data", '{"amount": 3}')
    listed.says("publish", "c", "--type", "end", "--data", '{"status": "succeeded"}')
    words = ("tail", "c", "--from", "start")
    assert 'invoice  {"amount":3}' in listed.on_terminal(80, *words)
    assert 'invoice   {"amount":3}' in listed.says(*words)
