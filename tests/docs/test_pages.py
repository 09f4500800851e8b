"""What README and docs name exists: settings, commands, links, pages, files."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from progress_broker.settings import Settings
from progress_cli.app import app
from tests.docs.blocks import PAGES, ROOT
from tests.docs.references import FOLDER, GENERATED

TEXTS = {page: page.read_text() for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]}


def test_the_settings_and_commands_named_exist() -> None:
    told = "".join(TEXTS[page] for page in PAGES)
    named = {name.lower() for name in re.findall(r"\bPROGRESS_([A-Z_]+[A-Z])", told)}
    assert named <= set(Settings.model_fields)
    commands = set(get_command(app).commands)
    assert set(re.findall(r"\bprogress-broker ([a-z]+)", told)) <= commands


def anchors(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_links_lead_somewhere() -> None:
    for page, text in TEXTS.items():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            if not link.startswith(("http:", "https:")):
                path, _, anchor = link.partition("#")
                target = (page.parent / path).resolve() if path else page
                assert target.exists(), f"{page}: {link}"
                assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    assert "(docs/README.md)" in TEXTS[ROOT / "README.md"]
    for page in (ROOT / "docs").rglob("*.md"):
        assert page == index or f"({page.relative_to(index.parent)})" in TEXTS[index]


@pytest.mark.parametrize("name", GENERATED)
def test_a_page_written_from_the_code_says_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_text() == GENERATED[name](), "write it again: python -m tests.docs.references"


def test_the_readme_is_a_screen_or_two() -> None:
    assert len(TEXTS[ROOT / "README.md"].splitlines()) <= 80


def test_the_files_of_the_reading_order_exist_and_are_short() -> None:
    order = re.findall(r"^\d+\. `([^`]+)`", TEXTS[ROOT / "docs" / "design.md"], re.MULTILINE)
    assert len(order) == 10
    lines = [len((ROOT / path).read_text().splitlines()) for path in order]
    assert sum(lines) < 2_100, dict(zip(order, lines, strict=True))


def test_each_figure_of_the_sizing_page_is_a_result() -> None:
    sizing, results = TEXTS[ROOT / "docs" / "how-to" / "sizing.md"], (ROOT / "bench" / "results.md").read_text()
    sections = {text.partition("`")[0].split()[0]: text for text in results.split("## `python -m bench.")[1:]}
    figures = re.findall(r"\| \*\*(.+)\*\* \| `bench\.(\w+)` \|$", sizing, re.MULTILINE)
    assert len(figures) == sizing.count("`bench.")
    for figure, bench in figures:
        assert re.search(rf"(?<![\d,.]){re.escape(figure)}(?![\d.])", sections[bench]), (figure, bench)
