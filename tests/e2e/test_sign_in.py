"""Signing in: the page of a server with authentication, and the JavaScript client with its own token."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jwt
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from progress_workers import Operation
from tests.e2e.browser import opened, visited
from tests.e2e.conftest import StartReplica
from tests.servers import ApiReplica, RealRedis, wait_until

SECRET = "a secret that is long enough for HS256, and for tests"


def token(sub: str, **claims: object) -> str:
    return jwt.encode({"sub": sub, "scope": "read cancel", "exp": time.time() + 60} | claims, SECRET, "HS256")


@pytest.fixture
def guarded(start_replica: StartReplica, e2e_redis: RealRedis) -> ApiReplica:
    return start_replica(e2e_redis.url, auth="jwt", jwt_key=SECRET)


@pytest.fixture
def page(guarded: ApiReplica, browser: Browser) -> Iterator[Page]:
    with visited(browser, guarded.url, network_may_fail=True) as page:
        yield page


@pytest.fixture
def work(e2e_redis: RealRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operation]:
    monkeypatch.setenv("PROGRESS_REDIS_URL", e2e_redis.url)
    with Operation.start("import", title="Alice's import", owner="alice", total=10) as op:
        yield op


def row_in(page: Page, work: Operation) -> Locator:
    return page.locator(f"#operations li.row[data-operation-id='{work.id}']")


def sign_in(page: Page, proof: str) -> None:
    page.get_by_label("Token").fill(proof)
    page.get_by_role("button", name="Sign in").click()


def test_a_token_lets_one_in_and_what_one_owns_moves(page: Page, work: Operation) -> None:
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#operations > li")).to_have_count(0)
    sign_in(page, "nonsense")
    expect(page.locator("#sign-in-problem")).to_contain_text("does not accept this token")
    sign_in(page, token("alice"))
    row = row_in(page, work)
    expect(row).to_be_visible()
    expect(page.locator("#principal")).to_have_text("alice")
    work.advance(4)
    expect(row.locator(".row-bar [role=progressbar]")).to_have_attribute("aria-valuenow", "40")
    assert page.evaluate("document.cookie") == "", "scripts can't read it"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#operations > li")).to_have_count(0)


def test_another_sees_none_of_it(page: Page, work: Operation) -> None:
    sign_in(page, token("bob"))
    expect(page.locator("#principal")).to_have_text("bob")
    expect(page.locator("#empty-title")).to_be_visible()
    expect(page.get_by_text("Alice's import")).to_have_count(0)


def test_who_signs_in_again_in_another_window_need_not_load_this_one_again(
    page: Page, guarded: ApiReplica, browser: Browser, work: Operation
) -> None:
    """As oneself, in one browser, and as somebody else in another one, while both wait for the same."""
    with visited(browser, guarded.url, network_may_fail=True) as bobs:
        for window in (page, bobs):
            sign_in(window, token("alice", exp=time.time() + 5))
        for window in (page, bobs):
            expect(row_in(window, work)).to_have_attribute("data-connection", "live")
        for window in (page, bobs):
            expect(window.get_by_role("heading", name="Sign in")).to_be_visible()
        with again(bobs, "bob") as other:
            for window in (bobs, other):
                expect(window.locator("#empty-title")).to_be_visible()
                expect(window.locator("#operations > li")).to_have_count(0)
        with again(page, "alice") as other:
            page.route("**/v1/operations?*", lambda route: route.abort())  # the stream alone tells
            for window in (page, other):
                expect(row_in(window, work)).to_have_attribute("data-connection", "live")
            work.advance(6)
            for window in (page, other):
                shown = row_in(window, work).locator(".row-bar [role=progressbar]")
                expect(shown).to_have_attribute("aria-valuenow", "60")


@contextmanager
def again(page: Page, who: str) -> Iterator[Page]:
    """Sign in in another window of a browser, and see that this is so in the first, too."""
    with opened(page.context, page.url, network_may_fail=True) as other:
        sign_in(other, token(who))
        expect(other.locator("#principal")).to_have_text(who)
        expect(page.get_by_role("heading", name="Sign in")).to_be_hidden()
        expect(page.locator("#principal")).to_have_text(who)
        yield other


def test_who_signs_in_as_somebody_else_is_so_in_all_windows(page: Page, work: Operation) -> None:
    sign_in(page, token("alice"))
    with opened(page.context, page.url, network_may_fail=True) as other:
        for window in (page, other):
            expect(row_in(window, work)).to_have_attribute("data-connection", "live")
        other.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        sign_in(other, token("bob"))
        expect(other.locator("#principal")).to_have_text("bob")
        expect(page.locator("#principal")).to_have_text("bob")
        expect(page.locator("#operations > li")).to_have_count(0)


def test_the_client_opens_streams_with_tickets(page: Page, work: Operation) -> None:
    page.evaluate(
        """async ([id, proof]) => {
          const { Operations } = await import('/web/client/operations.js');
          const { Watch } = await import('/web/client/watch.js');
          const operations = new Operations({ token: () => proof });
          globalThis.watch = new Watch(id, { operations });
          globalThis.watch.open();
        }""",
        [work.id, token("alice")],
    )
    work.advance(7)
    percent = "globalThis.watch.state.operation?.progress?.percent"
    wait_until(lambda: page.evaluate(percent) == 70, "the bar moves")
    assert page.evaluate("globalThis.watch.connection.state") == "live"
