"""The page at /docs, in Chromium under its own policy: it needs nothing but this server."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import launched, visited
from tests.e2e.harness import Api


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, api: Api) -> Iterator[Page]:
    with visited(browser, f"{api.url}/docs#stream") as page:
        yield page


def test_it_lists_every_call_and_every_schema(api: Api, page: Page) -> None:
    document = api.http.get("/openapi.json").json()
    expect(page.get_by_role("heading", name=document["info"]["title"])).to_be_visible()
    calls = [call for path in document["paths"].values() for call in path.values()]
    schemas = document["components"]["schemas"]
    expect(page.locator("details")).to_have_count(len(calls) + len(schemas))
    stream = page.locator("#stream")
    expect(stream.get_by_text("interval_ms")).to_be_visible()
    expect(stream.get_by_role("cell", name="text/event-stream")).to_be_visible()


def test_it_asks_nobody_else(browser: Browser, api: Api) -> None:
    asked: list[str] = []
    with visited(browser, f"{api.url}/livez") as page:
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{api.url}/docs", wait_until="networkidle")
    assert len(asked) > 3
    assert all(url.startswith(api.url) for url in asked), asked
