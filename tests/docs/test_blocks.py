"""Every fenced block of README and the other docs is run, or checked in another way: see `tests/docs/blocks.py`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.docs.blocks import PAGES, ROOT, blocks_of
from tests.docs.checks import check_page

OTHERS = [page for page in PAGES if "how-to" not in page.parts]


@pytest.mark.timeout(600)  # a page may start a dozen programs, beside many others
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_of_a_page_works(page: Path, tmp_path: Path, browser: Callable[[], Browser]) -> None:
    check_page(page, tmp_path, browser)


def test_a_fence_has_a_language_and_a_comment_a_block() -> None:
    with pytest.raises(ValueError, match="unknown comment"):
        blocks_of("<!-- skipped -->\n```sh\ntrue\n```\n")
    with pytest.raises(ValueError, match="no block follows"):
        blocks_of("<!-- output -->\n")
    [hidden, shown] = blocks_of("<!-- hidden sh\ntrue\n-->\n\n<!-- exit code: 1 -->\n```sh\nfalse\n```\n")
    assert (hidden.language, hidden.text, hidden.line) == ("sh", "true\n", 1)
    assert (shown.text, shown.notes, shown.line) == ("false\n", {"exit code": "1"}, 6)
