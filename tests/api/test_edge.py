"""Checks of every request and headers of every response: the Host check, CORS, and security headers."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import httpx
import pytest

from progress_broker.errors import SetupError
from progress_broker.settings import Settings, load_settings
from progress_server.middleware.trusted_hosts import names_answered
from tests.api.raw import STREAM, Client, request
from tests.api.test_operations import OPS, create, finish
from tests.cases import case
from tests.conftest import make_settings

FRIEND, STRANGER = "https://app.example.com", "https://evil.example"
EVENTS = {"Accept": "text/event-stream"}

both_outlets = pytest.mark.parametrize("outlet", ["adopted", "asgi"])


@pytest.fixture
async def client(base_url: str, http: httpx.AsyncClient) -> AsyncIterator[Client]:
    """A raw client of a server that has an operation "a"."""
    await create(http, id="a")
    client = await Client.connect(base_url)
    yield client
    client.writer.transport.abort()


def varies_by_origin(answer: httpx.Response) -> bool:
    return "Origin" in answer.headers.get("vary", "")


class TestCors:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(cors_origins=(FRIEND,))

    @pytest.mark.parametrize("path", ["/livez", OPS, f"{OPS}/nowhere", f"{OPS}/nowhere/stream", "/v1/nothing"])
    async def test_only_who_is_listed_may_read(self, http: httpx.AsyncClient, path: str) -> None:
        answer = await http.get(path, headers={"Origin": FRIEND})
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert answer.headers["access-control-allow-credentials"] == "true"
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert {"Location", "Operation-Location", "ETag", "Retry-After", "RateLimit", "RateLimit-Policy"} <= exposed
        assert varies_by_origin(answer)
        for origin in (
            STRANGER,
            "null",
            FRIEND.upper(),
            f"{FRIEND}.evil.example",
            f"{FRIEND}:8443",
            "http:" + FRIEND[6:],
        ):
            answer = await http.get(path, headers={"Origin": origin})
            assert "access-control-allow-origin" not in answer.headers, origin
            assert varies_by_origin(answer)
        assert varies_by_origin(await http.get(path))

    async def test_an_answer_that_broke_can_be_read_too(self, app: Any, http: httpx.AsyncClient) -> None:
        @app.get("/broken")
        async def broken() -> None:
            raise RuntimeError("broken")

        answer = await http.get("/broken", headers={"Origin": FRIEND})
        assert answer.status_code == 500
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert answer.headers["x-content-type-options"] == "nosniff"

    async def test_a_preflight_is_answered_once_for_hours(self, http: httpx.AsyncClient) -> None:
        asked = {
            "Access-Control-Request-Method": "DELETE",
            "Access-Control-Request-Headers": "authorization,content-type,last-event-id,if-none-match,traceparent",
        }
        answer = await http.options(f"{OPS}/a", headers=asked | {"Origin": FRIEND})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == FRIEND
        assert answer.headers["access-control-max-age"] == "7200"
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert varies_by_origin(answer)
        answer = await http.options(f"{OPS}/a", headers=asked | {"Origin": STRANGER})
        assert answer.status_code == 400
        assert "access-control-allow-origin" not in answer.headers
        assert varies_by_origin(answer)

    ADDED = (
        "cache-control,last-event-id",  # event-source-polyfill, eventsource
        "accept,authorization,last-event-id,pragma,x-requested-with",  # eventsource-polyfill, axios, jQuery
        "baggage,sentry-trace,traceparent,tracestate",  # OpenTelemetry, Sentry
        "b3,x-b3-traceid,x-datadog-trace-id,newrelic,elastic-apm-traceparent",
        "idempotency-key,if-none-match,x-csrf-token,x-request-id,x-xsrf-token",
    )

    async def test_a_preflight_allows_what_clients_add(self, http: httpx.AsyncClient) -> None:
        for names, method in product(self.ADDED, ("GET", "POST", "DELETE")):
            with case(names, method):
                asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": names}
                answer = await http.options(f"{OPS}/a", headers=asked | {"Origin": FRIEND})
                assert answer.status_code == 200, answer.text
                allowed = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
                assert allowed >= set(names.split(","))
                assert (await http.options(f"{OPS}/a", headers=asked | {"Origin": STRANGER})).status_code == 400

    @both_outlets
    async def test_a_stream_can_be_read(self, client: Client) -> None:
        client.send(request(STREAM, f"Origin: {FRIEND}", "Accept-Encoding: gzip"))
        status, headers = await client.head()
        assert status == 200
        assert headers["access-control-allow-origin"] == FRIEND
        assert headers["vary"] == "Accept-Encoding, Origin"

    @both_outlets
    async def test_a_stream_of_a_stranger_can_not(self, client: Client) -> None:
        client.send(request(STREAM, f"Origin: {STRANGER}"))
        status, headers = await client.head()
        assert status == 200
        assert "access-control-allow-origin" not in headers

    async def test_the_end_of_a_stream_can_be_read(self, http: httpx.AsyncClient) -> None:
        await create(http, id="b")
        await finish(http, "b")
        position = (await http.get(f"{OPS}/b")).json()["position"]
        answer = await http.get(f"{OPS}/b/stream", headers={"Origin": FRIEND, "Last-Event-ID": position})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == FRIEND


@pytest.mark.usefixtures("admission_clock")
class TestRejectedStreams:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(cors_origins=(FRIEND,), handshakes_per_s=1)

    @pytest.mark.parametrize("path", [f"{OPS}/a/stream", "/v1/stream?operation=a"])
    async def test_one_told_as_a_stream_is_transformed_by_nobody(self, http: httpx.AsyncClient, path: str) -> None:
        for _ in range(2):
            answer = await http.get(path, headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store, no-transform"

    async def test_a_passing_rejection_can_be_read(self, http: httpx.AsyncClient) -> None:
        rejected = []
        for accept in ("*/*", "*/*", "text/event-stream"):
            answer = await http.get(f"{OPS}/a/stream", headers={"Origin": FRIEND, "Accept": accept})
            rejected.append((answer.status_code, answer.headers["access-control-allow-origin"]))
        assert rejected == [(404, FRIEND), (503, FRIEND), (200, FRIEND)]


class TestAnyOrigin:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(cors_origins="*")

    async def test_may_read_without_credentials(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        answer = await http.get(f"{OPS}/a", headers={"Origin": STRANGER, "Cookie": "a=b"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", OPS),
            ("POST", f"{OPS}/a/cancel"),
            ("POST", f"{OPS}/a/events"),
            ("POST", f"{OPS}/a/signals"),
            ("DELETE", f"{OPS}/a?force=true"),
        ],
    )
    @pytest.mark.parametrize("said", [{"Origin": STRANGER}, {"Sec-Fetch-Site": "cross-site", "Origin": STRANGER}])
    async def test_may_change_nothing(
        self, http: httpx.AsyncClient, method: str, path: str, said: dict[str, str]
    ) -> None:
        await create(http, id="a")
        before = (await http.get(f"{OPS}/a")).json()
        answer = await http.request(method, path, headers=said | {"Authorization": "Bearer x"})
        assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
        asked = {"Access-Control-Request-Method": method, "Origin": STRANGER}
        answer = await http.options(path, headers=asked)
        assert answer.status_code == 400
        assert method not in answer.headers["access-control-allow-methods"]
        assert (await http.get(f"{OPS}/a")).json() == before

    async def test_may_send_any_header_to_read(self, http: httpx.AsyncClient) -> None:
        asked = {
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,cache-control",
        }
        answer = await http.options(f"{OPS}/a/stream", headers=asked | {"Origin": STRANGER})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == "authorization,cache-control"


class TestWithoutOrigins:
    async def test_nobody_is_let_in(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/livez", headers={"Origin": FRIEND})
        assert "access-control-allow-origin" not in answer.headers
        asked = {"Access-Control-Request-Method": "DELETE", "Origin": FRIEND}
        answer = await http.options(f"{OPS}/a", headers=asked)
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers


class TestOriginsSet:
    def test_are_separated_by_commas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROGRESS_CORS_ORIGINS", f" {FRIEND} ,http://localhost:3000,http://[::1]:80,")
        assert load_settings().cors_origins == (FRIEND, "http://localhost:3000", "http://[::1]:80")

    @pytest.mark.parametrize(
        "bad",
        ["app.example.com", "https://app.example.com/", "null", "https://*.example.com", "*,https://a", "HTTPS://A"],
    )
    def test_are_rejected_where_no_browser_would_say_them(self, bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROGRESS_CORS_ORIGINS", bad)
        with pytest.raises(SetupError, match="PROGRESS_CORS_ORIGINS"):
            load_settings()


class TestForeignPages:
    """A request that a page can send without a preflight: a form's POST, whose body we would parse as JSON."""

    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(cors_origins=(FRIEND,))

    @pytest.mark.parametrize(
        "said",
        [
            {"Origin": STRANGER},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": STRANGER, "Sec-Fetch-Site": "cross-site"},
        ],
    )
    async def test_change_nothing(self, http: httpx.AsyncClient, said: dict[str, str]) -> None:
        answer = await http.post(OPS, content=b'{"id": "a"}', headers=said | {"Content-Type": "text/plain"})
        assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
        assert "PROGRESS_CORS_ORIGINS" in answer.json()["detail"]
        assert (await http.get(f"{OPS}/a")).status_code == 404

    @pytest.mark.parametrize(
        "said",
        [
            {},
            {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy.example"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "OURS"},
        ],
    )
    async def test_ours_and_friends_may(self, http: httpx.AsyncClient, base_url: str, said: dict[str, str]) -> None:
        said = {name: value.replace("OURS", base_url) for name, value in said.items()}
        assert (await http.post(OPS, content=b'{"id": "a"}', headers=said)).status_code == 201


async def status_for(http: httpx.AsyncClient, host: str, path: str = "/livez") -> int:
    return (await http.get(path, headers={"Host": host})).status_code


ADDRESSES = ["127.0.0.1", "127.0.0.1:8000", "[::1]", "[::1]:8000", "10.0.0.7:8000"]


class TestHost:
    """On loopback without authentication, as by default."""

    @pytest.mark.parametrize("host", ["localhost", "LocalHost:8000", "localhost.", *ADDRESSES])
    async def test_ours_is_answered(self, http: httpx.AsyncClient, host: str) -> None:
        assert await status_for(http, host) == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "[evil]", ":1", ""],
    )
    async def test_a_strangers_is_not(self, http: httpx.AsyncClient, host: str) -> None:
        answer = await http.get(OPS, headers={"Host": host})
        assert answer.status_code == 421
        assert answer.json()["type"] == "misdirected"
        assert "PROGRESS_ALLOWED_HOSTS" in answer.json()["detail"]
        assert answer.headers["cache-control"] == "no-store"

    async def test_not_a_page_either_nor_a_stream_nor_a_websocket(
        self, client: Client, http: httpx.AsyncClient
    ) -> None:
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/web/client/watch.js", STREAM):
            assert await status_for(http, "evil.example", path) == 421
        upgrade = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        client.send(request("/v1/operations/a/ws", *upgrade, key).replace(b"localhost", b"evil.example"))
        status, _ = await client.head()
        assert status == 421

    async def test_one_of_two_that_is_not_ours_is_one_too_many(self, client: Client) -> None:
        client.send(request("/livez", "Host: evil.example"))
        status, _ = await client.head()
        assert status == 421

    async def test_none_is_no_browser(self, client: Client) -> None:
        client.send(b"GET /livez HTTP/1.0\r\n\r\n")
        status, _ = await client.head()
        assert status == 200


class TestHostsAllowed:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(allowed_hosts="Progress.example.com, *.internal", host="0.0.0.0", insecure=True)

    @pytest.mark.parametrize("host", ["progress.example.com", "a.internal:80", "b.a.internal", *ADDRESSES])
    async def test_are_answered(self, http: httpx.AsyncClient, host: str) -> None:
        assert await status_for(http, host) == 200

    @pytest.mark.parametrize("host", ["localhost", "internal", "example.com", "a.progress.example.com", "evilinternal"])
    async def test_others_are_not(self, http: httpx.AsyncClient, host: str) -> None:
        assert await status_for(http, host) == 421


def test_elsewhere_every_name_is_answered_unless_some_are_named() -> None:
    assert names_answered(make_settings()) == {"localhost"}
    assert names_answered(make_settings(allowed_hosts="a.example")) == {"localhost", "a.example"}
    assert names_answered(make_settings(allowed_hosts="*")) is None
    assert names_answered(make_settings(host="0.0.0.0", insecure=True)) is None


class TestHeaders:
    async def test_no_answer_is_taken_for_more_than_it_is(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        for path in ("/livez", "/readyz", "/metrics", OPS, f"{OPS}/a", f"{OPS}/a/events", f"{OPS}/nowhere", "/nothing"):
            answer = await http.get(path)
            assert answer.headers["x-content-type-options"] == "nosniff", path
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'", path
            assert answer.headers["cross-origin-resource-policy"] == "same-origin", path
            kept = "private, no-cache" if path in (OPS, f"{OPS}/a") else "no-store"
            assert answer.headers["cache-control"] == kept, path
            assert "strict-transport-security" not in answer.headers, path

    @both_outlets
    async def test_nor_is_a_stream(self, client: Client) -> None:
        client.send(request())
        headers = await client.opened()
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"

    @pytest.mark.parametrize("path", ["/", "/docs", "/web/dashboard/dashboard.js", "/web/client/watch.js"])
    async def test_a_page_runs_what_is_ours_and_nothing_else(self, http: httpx.AsyncClient, path: str) -> None:
        answer = await http.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "camera=()" in answer.headers["permissions-policy"]


@both_outlets
class TestAProxyThatCompresses:
    """Compressing middleware would hold events back until its buffer is full, unless `no-transform` disables it."""

    async def test_is_told_to_leave_a_stream_alone(self, http: httpx.AsyncClient, base_url: str) -> None:
        await create(http, id="a")
        calls = (("GET", "1.1"), ("GET", "1.0"), ("HEAD", "1.1"))
        for path, encoding, (method, version) in product(
            (STREAM, "/v1/stream?operation=a"), ("identity", "gzip"), calls
        ):
            with case(path, encoding, method, version):
                client = await Client.connect(base_url)
                client.send(request(path, f"Accept-Encoding: {encoding}", method=method, version=version))
                status, headers = await client.head()
                client.writer.transport.abort()
                assert (status, headers["content-type"]) == (200, "text/event-stream")
                assert headers["cache-control"] == "no-store, no-transform"


class TestHttpsOnly:
    @pytest.fixture
    def settings(self, tmp_path: Any) -> Settings:
        return make_settings(host="0.0.0.0", insecure=True, tls_cert=tmp_path / "c", tls_key=tmp_path / "k")

    async def test_is_told_where_tls_is_ours(self, http: httpx.AsyncClient) -> None:
        answer = await http.get("/livez")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
