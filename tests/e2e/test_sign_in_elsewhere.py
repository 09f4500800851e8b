"""The page of a server that asks the user's back end about callers, by its login cookie or by a token."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from standardwebhooks import Webhook

from progress_workers import Operation
from tests.callback.backend import SECRET
from tests.e2e.browser import visited
from tests.e2e.conftest import StartReplica
from tests.servers import DEADLINE_S, ApiReplica, RealRedis


class TheirApp(BaseHTTPRequestHandler):
    """A user's application: a sign-in page that sets a cookie, and the back end that the broker calls."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        self.send_response(302)
        self.send_header("Set-Cookie", "sid=carol-s; Path=/; HttpOnly; SameSite=Lax")
        self.send_header("Location", asked["next"][0])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        question = Webhook(SECRET).verify(body, dict(self.headers))
        headers = question.get("headers", {})
        known = "sid=carol-s" in headers.get("cookie", "") or headers.get("authorization") == "Bearer carol-t"
        answer: dict[str, Any] = {"allow": False}
        if known:
            answer = {"allow": True, "principal": "carol", "scope": "read cancel"}
        told = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def theirs() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), TheirApp) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(theirs: str) -> dict[str, object]:
    return {"auth": "callback", "callback_url": f"{theirs}/hook", "callback_secret": SECRET, "callback_cache_s": 1}


@pytest.fixture
def work(e2e_redis: RealRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Operation]:
    monkeypatch.setenv("PROGRESS_REDIS_URL", e2e_redis.url)
    with Operation.start("import", title="Carol's import", owner="carol", total=10) as op:
        yield op


def row_of(page: Page, work: Operation) -> Locator:
    return page.locator(f"#operations li.row[data-operation-id='{work.id}']")


def moves(page: Page, work: Operation) -> None:
    """Carol is signed in, and sees live updates of her operations."""
    row = row_of(page, work)
    expect(row).to_be_visible()
    expect(page.locator("#principal")).to_have_text("carol")
    expect(page.locator("#sign-in")).to_be_hidden()
    work.advance(4)
    expect(row.locator(".row-bar [role=progressbar]")).to_have_attribute("aria-valuenow", "40")


class TestWithAPlaceToSignIn:
    @pytest.fixture
    def page(
        self, start_replica: StartReplica, e2e_redis: RealRedis, browser: Browser, theirs: str, settings: Any
    ) -> Iterator[Page]:
        where = f"{theirs}/login?next={{page}}"
        replica = start_replica(e2e_redis.url, sign_in_url=where, **settings)
        with visited(browser, replica.url, network_may_fail=True) as page:
            yield page

    def test_a_stranger_is_led_there_and_comes_back_as_somebody(self, page: Page, work: Operation) -> None:
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.locator("#sign-in-by-back-end")).to_contain_text("You are not signed in there")
        expect(page.get_by_label("Token")).to_be_hidden()
        expect(page.locator("#operations > li")).to_have_count(0)
        page.get_by_role("link", name="Sign in").click()
        moves(page, work)
        expect(page.get_by_role("button", name="Sign out")).to_be_hidden()

    def test_who_signs_in_in_another_tab_need_not_load_this_one_again(self, page: Page, work: Operation) -> None:
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()
        other = page.context.new_page()
        other.goto(page.get_by_role("link", name="Sign in").get_attribute("href") or "")
        other.close()
        moves(page, work)

    def test_who_can_t_be_told_where_at_first_is_told_later(self, page: Page) -> None:
        page.route("**/web/sign-in.json", lambda route: route.abort(), times=1)
        page.reload()
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()


class TestWithout:
    @pytest.fixture
    def replica(self, start_replica: StartReplica, e2e_redis: RealRedis, settings: Any) -> ApiReplica:
        return start_replica(e2e_redis.url, **settings)

    @pytest.fixture
    def page(self, replica: ApiReplica, browser: Browser) -> Iterator[Page]:
        with visited(browser, replica.url, network_may_fail=True) as page:
            yield page

    def test_a_token_that_the_back_end_knows_lets_one_in(self, page: Page, work: Operation) -> None:
        expect(page.locator("#sign-in-by-back-end")).to_be_visible()
        expect(page.get_by_role("link", name="Sign in")).to_be_hidden()
        for proof in ("nonsense", "carol-t"):
            page.get_by_label("Token").fill(proof)
            page.get_by_role("button", name="Sign in").click()
            if proof == "nonsense":
                expect(page.locator("#sign-in-problem")).to_contain_text("does not accept this token")
        moves(page, work)
        assert page.evaluate("document.cookie") == "", "scripts can't read it"
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(page.locator("#operations > li")).to_have_count(0)

    def test_a_cookie_of_theirs_is_all_it_takes(self, page: Page, work: Operation) -> None:
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.context.add_cookies([{"name": "sid", "value": "carol-s", "url": page.url}])
        page.reload()
        moves(page, work)
        row_of(page, work).get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Cancel it").click()
        expect(row_of(page, work)).to_contain_text("cancelling")

    def test_what_the_page_asks_first_tells_nothing_else(self, replica: ApiReplica) -> None:
        answer = httpx.get(f"{replica.url}/web/sign-in.json", timeout=DEADLINE_S)
        assert answer.json() == {"by": "back-end", "url": None}
        assert httpx.get(f"{replica.url}/v1/operations", timeout=DEADLINE_S).status_code == 401
