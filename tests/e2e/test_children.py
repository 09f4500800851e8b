"""Parents in a browser: their bars move with those of their children, and the details list the children."""

from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import visited
from tests.e2e.harness import OPS, Api
from tests.e2e.test_dashboard import MARKUP, bar, row


def album(api: Api, *percents: float) -> tuple[str, list[str]]:
    """Create a running parent that reports no percentage, and children with this progress."""
    parent = api.create(kind="album", title="Album")
    api.publish(parent, "progress", {"message": "cropping"})
    children = [api.create(kind="photo", title=f"Photo {n}", parent=parent) for n, _ in enumerate(percents)]
    for child, percent in zip(children, percents, strict=True):
        api.publish(child, "progress", {"percent": percent, "message": f"at {percent}"})
    return parent, children


def test_the_bar_of_a_parent_moves_with_its_children(api: Api, browser: Browser) -> None:
    parent, (first, second) = album(api, 60, 20)
    with visited(browser, f"{api.url}/#operation={parent}") as page:
        mine = row(page, parent)
        expect(bar(mine)).to_have_attribute("aria-valuenow", "40")
        expect(mine).to_have_attribute("data-connection", "live")
        api.publish(second, "progress", {"percent": 40})
        expect(bar(mine)).to_have_attribute("aria-valuenow", "50")
        api.publish(parent, "progress", {"message": "still cropping"})
        expect(mine).to_contain_text("still cropping")
        expect(bar(mine)).to_have_attribute("aria-valuenow", "50")
        expect(mine).to_have_attribute("data-connection", "live")
        for child in (first, second):
            api.finish(child)
        expect(bar(mine)).to_have_attribute("aria-valuenow", "100")


def test_the_details_list_the_children_each_with_its_bar(api: Api, page: Page) -> None:
    parent, (first, second) = album(api, 60, 20)
    row(page, parent).get_by_role("link").click()
    shown = page.locator("#detail-children")
    parts = shown.locator(".part")
    expect(shown.get_by_role("heading")).to_have_text("Children: 0 of 2 done, 2 running")
    expect(parts).to_have_count(2)
    expect(parts.nth(0)).to_contain_text("at 60")
    expect(parts.nth(0).get_by_role("progressbar")).to_have_attribute("aria-valuenow", "60")
    api.finish(first)
    expect(parts.nth(0)).to_have_attribute("data-status", "succeeded")
    api.publish(second, "end", {"status": "failed"})
    expect(shown.get_by_role("heading")).to_have_text("Children: 2 of 2 done, 1 failed")
    new = api.create(title=MARKUP, parent=parent)
    expect(parts).to_have_count(3)
    expect(parts.nth(2).get_by_role("link")).to_have_text(MARKUP)
    expect(parts.nth(2)).to_contain_text("pending")
    parts.nth(0).get_by_role("link").click()
    expect(page.locator("#detail")).to_have_attribute("data-operation-id", first)
    expect(shown).to_be_hidden()
    assert api.http.delete(f"{OPS}/{new}?force=true").status_code == 204
