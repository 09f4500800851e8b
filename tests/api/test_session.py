"""Sessions: a token in a cookie of the browser."""

from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest

from progress_broker.settings import Settings
from tests.api.proofs import ALICE, COOKIE, KEY, bearing, secured, token

SESSION = "/v1/session"
OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, trusted_proxies="127.0.0.1")


def cookie_of(answer: httpx.Response) -> dict[str, str]:
    [morsel] = SimpleCookie(answer.headers["set-cookie"]).values()
    assert morsel.key == COOKIE
    return {name: str(value) for name, value in morsel.items() if value} | {"value": morsel.value}


async def test_a_token_becomes_a_cookie_that_opens_what_it_opens(http: httpx.AsyncClient) -> None:
    proof = token("alice", ALICE)
    answer = await http.post(SESSION, headers=bearing(proof) | OUR_PAGE)
    assert answer.status_code == 201
    assert answer.json()["principal"] == "alice"
    set_ = cookie_of(answer)
    assert set_["value"] == proof
    assert 55 <= int(set_["max-age"]) <= 60
    assert (set_["httponly"], set_["samesite"], set_["path"]) == ("True", "strict", "/")
    assert "secure" not in set_, "it came over http"
    http.cookies.clear()
    cookie = {"Cookie": f"{COOKIE}={proof}"}
    assert (await http.get(SESSION, headers=cookie)).json()["principal"] == "alice"
    assert (await http.post("/v1/operations", json={}, headers=cookie | OUR_PAGE)).status_code == 201


async def test_over_https_it_is_kept_to_https(http: httpx.AsyncClient) -> None:
    answer = await http.post(SESSION, headers=bearing(token("alice")) | {"X-Forwarded-Proto": "https"})
    assert "secure" in cookie_of(answer)


async def test_it_is_forgotten(http: httpx.AsyncClient) -> None:
    answer = await http.delete(SESSION, headers=bearing(token("alice")))
    assert answer.status_code == 204
    set_ = cookie_of(answer)
    assert (set_["value"], set_.get("max-age")) == ("", "0")


@pytest.mark.parametrize("proof", [KEY, ""])
async def test_what_is_no_users_token_is_not_kept(http: httpx.AsyncClient, proof: str) -> None:
    answer = await http.post(SESSION, headers=bearing(proof) if proof else {})
    assert answer.status_code == (403 if proof else 401)
    assert "set-cookie" not in answer.headers


async def test_a_token_that_no_browser_would_keep_is_rejected(http: httpx.AsyncClient) -> None:
    answer = await http.post(SESSION, headers=bearing(token("alice", padding="x" * 3_000)))
    assert answer.status_code == 413
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("exp", [1_795_000_000_000, 1e300, 10**30])
async def test_a_token_may_last_longer_than_dates_go(http: httpx.AsyncClient, exp: float) -> None:
    proof = bearing(token("alice", exp=exp))
    assert (await http.get(SESSION, headers=proof)).json()["expires_at"].startswith("9999-")
    assert (await http.post(SESSION, headers=proof)).status_code == 201


class TestWithoutCookies:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return secured(tmp_path, jwt_cookie="")

    async def test_there_is_no_session(self, http: httpx.AsyncClient) -> None:
        proof = bearing(token("alice"))
        assert (await http.post(SESSION, headers=proof)).status_code == 403
        assert "set-cookie" not in (await http.delete(SESSION, headers=proof)).headers


async def test_anybody_may_know_how_to_sign_in(http: httpx.AsyncClient) -> None:
    answer = await http.get("/web/sign-in.json")
    assert answer.json() == {"by": "token", "url": None}


class TestWithoutAuthentication:
    @pytest.fixture
    def settings(self) -> Settings:
        from tests.conftest import make_settings

        return make_settings()

    async def test_everybody_is_nobody_in_particular(self, http: httpx.AsyncClient) -> None:
        assert (await http.get(SESSION)).json() == {"principal": "", "expires_at": None, "kept": False}
        assert (await http.post(SESSION)).status_code == 403
