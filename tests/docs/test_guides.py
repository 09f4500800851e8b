"""Every fenced block of the guides is run, or checked in another way: see `tests/docs/blocks.py`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.docs.blocks import PAGES, ROOT
from tests.docs.checks import check_page

LONG = {"find.md", "incidents.md", "move.md", "operators.md", "replay.md"}
"""They start dozens of programs, for two minutes in all: `make examples`."""
GUIDES = [
    page for page in PAGES if "how-to" in page.parts and ("PROGRESS_EXAMPLES" in os.environ or page.name not in LONG)
]


@pytest.mark.timeout(600)  # a page may start a dozen programs, beside many others
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_of_a_page_works(page: Path, tmp_path: Path, browser: Callable[[], Browser]) -> None:
    check_page(page, tmp_path, browser)
