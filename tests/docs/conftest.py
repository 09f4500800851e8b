"""A browser for the pages that need one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import launched


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[[], Browser]]:
    """Return a function that returns a browser, which is started once a page needs it."""
    with ExitStack() as stack:
        started: list[Browser] = []

        def get() -> Browser:
            if not started:
                started.append(stack.enter_context(launched()))
            return started[0]

        yield get
