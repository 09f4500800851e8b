"""The page in forced colours, on a narrow screen, and with right-to-left text or terminal escapes."""

import base64
from collections import Counter
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.browser import visited
from tests.e2e.conftest import StartReplica
from tests.e2e.harness import Api
from tests.e2e.test_dashboard import bar, row
from tests.servers import RealRedis

PIXELS = """async ([data, from, to]) => {
  const image = new Image();
  image.src = `data:image/png;base64,${data}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height).getContext('2d');
  canvas.drawImage(image, 0, 0);
  const y = Math.floor(image.height / 2);
  const [left, right] = [Math.floor(image.width * from), Math.floor(image.width * to)];
  return Array.from({ length: right - left }, (_, i) => [...canvas.getImageData(left + i, y, 1, 1).data].join());
}"""


@pytest.fixture(scope="module")
def canvas(browser: Browser) -> Iterator[Page]:
    """A page that inspects screenshots of other pages."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


def colours(canvas: Page, of: Locator, start: float, end: float) -> set[str]:
    """Return the pixels along the middle of an element, between two fractions of its width."""
    picture = base64.b64encode(of.screenshot(animations="disabled")).decode()
    return {colour for colour, count in Counter(canvas.evaluate(PIXELS, [picture, start, end])).items() if count > 2}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_bars_and_what_is_chosen_are_seen_in_forced_colours(
    api: Api, browser: Browser, canvas: Page, scheme: str
) -> None:
    ids = {status: api.create(title=f"Is {status}", lease_s=1) for status in ("running", "stalled", "failed")}
    for status, id in ids.items():
        api.publish(id, "progress", {"percent": 50})
        if status == "failed":
            api.publish(id, "end", {"status": "failed"})
    with visited(browser, api.url, forced_colors="active", color_scheme=scheme) as page:
        expect(row(page, ids["stalled"])).to_have_attribute("data-status", "stalled")
        for id in ids.values():
            done = colours(canvas, bar(row(page, id)), 0.05, 0.45)
            left = colours(canvas, bar(row(page, id)), 0.55, 0.95)
            assert len(left) == 1
            assert done - left, "how far it is can be seen"
        labels = page.locator("#filter label span")
        chosen, other = (colours(canvas, labels.nth(n), 0, 0.15) for n in (0, 1))
        assert chosen != other


def test_one_can_sign_in_on_a_narrow_screen(
    start_replica: StartReplica, e2e_redis: RealRedis, browser: Browser
) -> None:
    secret = "a secret that is long enough for HS256, and for tests"
    replica = start_replica(e2e_redis.url, auth="jwt", jwt_key=secret).await_ready()
    for address in ("", "#operation=something"):
        size = {"width": 320, "height": 568}
        with visited(browser, f"{replica.url}/{address}", network_may_fail=True, viewport=size) as page:
            button = page.get_by_role("button", name="Sign in")
            expect(page.get_by_label("Token")).to_be_in_viewport()
            expect(button).to_be_in_viewport()
            assert page.evaluate("document.documentElement.scrollWidth") <= 320


LEFTS = "row => [...row.querySelectorAll('.row-head > :not([hidden])')].map((e) => e.getBoundingClientRect().left)"
HEBREW = "ייבוא לקוחות (3 קבצים)"


def test_text_of_any_direction_turns_nothing_around_it(api: Api, page: Page) -> None:
    hebrew = api.create(title=HEBREW, kind="direction")
    spoof = api.create(title="report\u202egpj.exe", kind="direction")
    latin = api.create(title="Import customers", kind="direction")
    for id in (hebrew, spoof, latin):
        api.publish(id, "progress", {"message": "\u202eturned", "percent": 5})
    title = "link => getComputedStyle(link).direction"
    link = row(page, hebrew).get_by_role("link")
    expect(link).to_have_text(HEBREW)
    assert link.evaluate(title) == "rtl"
    assert row(page, latin).get_by_role("link").evaluate(title) == "ltr"
    expect(row(page, spoof).get_by_role("link")).to_have_text("reportgpj.exe")
    for id in (hebrew, spoof, latin):
        assert "\u202e" not in (row(page, id).text_content() or "")
        places = row(page, id).evaluate(LEFTS)
        assert places == sorted(places), "a title does not reorder what stands beside it"


def test_what_steers_terminals_is_not_shown(api: Api, page: Page) -> None:
    operation = api.create(title="\x1b[1mBold\x1b[0m", kind="terminal")
    api.publish(operation, "progress", {"message": "\x1b[32mgreen\x1b[0m", "percent": 5})
    api.log(operation, "\x1b[31merror:\x1b[0m one\r\ntwo")
    mine = row(page, operation)
    expect(mine.get_by_role("link")).to_have_text("Bold")
    expect(mine.locator(".message")).to_have_text("green")
    mine.get_by_role("link").click()
    expect(page.locator("#log .text")).to_have_text("error: one\ntwo", use_inner_text=True)


def test_what_has_ended_or_stands_still_is_not_on_its_way(api: Api, page: Page) -> None:
    progress = {"current": 79, "total": 100, "rate": 3, "eta_ms": 7000}
    stalled, done = api.create(title="Stalled", lease_s=0.3), api.create(title="Done")
    for id in (stalled, done):
        api.publish(id, "progress", progress)
    api.finish(done)
    expect(row(page, stalled)).to_have_attribute("data-status", "stalled")
    expect(row(page, done)).to_have_attribute("data-status", "succeeded")
    expect(row(page, done).locator(".percent")).to_have_text("100 %")
    expect(bar(row(page, done))).to_have_attribute("aria-valuenow", "100")
    for id in (stalled, done):
        expect(row(page, id)).not_to_contain_text("left")
        expect(row(page, id)).not_to_contain_text("/s")
    expect(row(page, done)).not_to_contain_text("79 %")
