"""The server as a part of an app: its paths, its lifespan, its edge, and the operations of the app's handlers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Request
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from progress_broker.errors import InvalidInput, NotFound, SetupError, StorageUnavailable
from progress_broker.model.operation import NewOperation
from progress_broker.settings import Settings
from progress_server import Principal, Progress, granted
from progress_server.auth.api_keys import hash_key
from progress_server.mounted.operations import OperationFields
from tests.api.proofs import KEY, bearing, secured
from tests.conftest import make_settings
from tests.servers import free_port

ALICE = {"X-User": "alice"}


async def user(x_user: Annotated[str | None, Header()] = None) -> str | None:
    return x_user


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return make_settings(redis_url=redis_url)


def mounted(progress: Progress, at: str = "/progress", **options: Any) -> FastAPI:
    app = FastAPI(lifespan=progress.lifespan, **options)
    app.mount(at, progress.app)
    return app


def test_its_links_pages_and_description_are_under_its_path(settings: Settings) -> None:
    progress = Progress(lambda connection: Principal("alice", [granted(["admin"])]), settings=settings)
    with TestClient(mounted(progress, "/tools/progress"), root_path="/proxied") as http:
        base = "/proxied/tools/progress"
        made = http.post(f"{base}/v1/operations", json={"id": "a"})
        assert made.headers["location"] == f"http://testserver{base}/v1/operations/a"
        assert http.get(made.headers["location"]).json()["id"] == "a"
        slash = http.get(f"{base}/v1/operations/?limit=1", follow_redirects=False)
        assert slash.headers["location"] == f"{base}/v1/operations?limit=1"
        assert http.get(f"{base}/openapi.json").json()["servers"] == [{"url": base}]
        for page in ("/", "/docs"):
            shown = http.get(f"{base}{page}")
            assert "Content-Security-Policy" in shown.headers
            assert 'src="web/' in shown.text, "its files are found relative to it"
        assert http.get(f"{base}/web/client/watch.js").status_code == 200
        assert http.get(f"{base}/web/sign-in.json").json() == {"by": "back-end", "url": None}
        labels = [line for line in http.get(f"{base}/metrics").text.splitlines() if "requests_total{" in line]
        assert any('route="/v1/operations"' in line for line in labels)
        assert not any("tools" in line for line in labels)


def test_behind_a_proxy_that_removes_a_prefix_its_links_have_it(settings: Settings) -> None:
    app = mounted(Progress(lambda connection: Principal("alice", [granted(["admin"])]), settings=settings))

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope | {"root_path": "/app"} if scope["type"] == "http" else scope, receive, send)

    with TestClient(proxied) as http:
        made = http.post("/progress/v1/operations", json={"id": "a"})
        assert made.headers["location"] == "http://testserver/app/progress/v1/operations/a"
        assert http.get("/progress/v1/operations/a").json()["id"] == "a"
        assert http.get("/app/progress/v1/operations/a").json()["id"] == "a", "or one that leaves it"


def test_paths_that_only_begin_like_its_own_are_the_apps(settings: Settings) -> None:
    app = mounted(Progress(user, settings=settings))
    app.add_api_route("/progress-report/livez", lambda: "the app's")
    with TestClient(app) as http:
        assert http.get("/progress-report/livez").json() == "the app's"
        assert http.get("/progress/livez").json() == {"status": "alive"}


def test_it_starts_anew_each_time_the_app_does(settings: Settings) -> None:
    progress = Progress(user, settings=settings)
    app = mounted(progress)
    for _ in range(2):
        with TestClient(app) as http:
            assert http.get("/progress/v1/operations", headers=ALICE).status_code == 200
        without = TestClient(app).get("/progress/v1/operations", headers=ALICE)
        assert without.status_code == 503
        assert "lifespan=progress.lifespan" in without.json()["detail"]


def test_by_itself_it_runs_its_own_lifespan(settings: Settings) -> None:
    for _ in range(2):
        with TestClient(Progress(user, settings=settings).app) as http:
            assert http.get("/v1/operations", headers=ALICE).status_code == 200


async def test_a_lifespan_of_the_app_includes_it(settings: Settings) -> None:
    progress, seen = Progress(user, settings=settings), []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with progress.lifespan(app):
            seen.append(await progress.operations.create(id="a"))
            yield {"db": "a pool"}

    app = FastAPI(lifespan=lifespan)
    async with app.router.lifespan_context(app):
        with pytest.raises(SetupError, match="runs already"):
            async with progress.lifespan(app):
                pass
        assert (await progress.operations.get("a")).id == seen[0].id
    with pytest.raises(StorageUnavailable, match="lifespan"):
        await progress.operations.get("a")


def test_several_in_one_app_know_nothing_of_each_other(settings: Settings) -> None:
    one = Progress(user, settings=settings)
    other = Progress(lambda connection: "carol", settings=settings.model_copy(update={"prefix": "other"}))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with one.lifespan(app), other.lifespan(app):
            await one.operations.create(id="a", owner="alice")
            await other.operations.create(id="b", owner="carol")
            yield

    app = Starlette(routes=[Mount("/one", one.app), Mount("/other", other.app)], lifespan=lifespan)
    with TestClient(app) as http:
        ids = [
            [it["id"] for it in http.get(f"/{at}/v1/operations", headers=ALICE).json()["operations"]]
            for at in ("one", "other")
        ]
        assert ids == [["a"], ["b"]]


async def test_what_the_app_keeps_in_its_state_is_left_alone(settings: Settings) -> None:
    theirs = {"principal": "theirs", "slot": "theirs", "class": "theirs", "rejected": "theirs"}
    seen: list[str] = []

    async def authenticate(request: Request) -> str:
        seen.append(request.state.principal)
        return "alice"

    app = mounted(Progress(authenticate, settings=settings))
    states: list[dict[str, str]] = []

    async def outside(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"] = dict(theirs)
            states.append(scope["state"])
        await app(scope, receive, send)

    with TestClient(outside) as http:
        assert http.get("/progress/v1/operations").status_code == 200
        assert http.get("/progress/v1/operations/a/stream").status_code == 404
    assert states == [theirs, theirs]
    assert seen == ["theirs", "theirs"]


def test_the_edge_is_the_apps_unless_asked_for(settings: Settings) -> None:
    settings = settings.model_copy(update={"allowed_hosts": ("us.example",), "cors_origins": ("http://page.example",)})
    foreign = ALICE | {"Origin": "http://page.example", "Host": "other.example"}
    with TestClient(mounted(Progress(user, settings=settings))) as http:
        answer = http.get("/progress/v1/operations", headers=foreign)
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)
        crossing = foreign | {"Origin": "http://elsewhere.example"}
        assert http.post("/progress/v1/operations/a/cancel", headers=crossing).status_code == 404
    with TestClient(mounted(Progress(user, settings=settings, hosts=True, csrf=True, cors=True))) as http:
        assert http.get("/progress/v1/operations", headers=foreign).status_code == 421
        foreign["Host"] = crossing["Host"] = "us.example"
        assert "access-control-allow-origin" in http.get("/progress/v1/operations", headers=foreign).headers
        assert http.post("/progress/v1/operations/a/cancel", headers=crossing).status_code == 403


def test_without_authentication_it_is_not_made_unless_that_is_meant(settings: Settings) -> None:
    with pytest.raises(SetupError, match="everybody could"):
        Progress(settings=settings)
    insecure = settings.model_copy(update={"insecure": True})
    with TestClient(mounted(Progress(settings=insecure))) as http:
        assert http.post("/progress/v1/operations").status_code == 201


def test_without_the_address_of_a_redis_the_app_does_not_start() -> None:
    with (
        pytest.raises(SetupError, match="PROGRESS_REDIS_URL"),
        TestClient(mounted(Progress(user, settings=make_settings()))),
    ):
        pass


def test_while_redis_is_away_the_app_starts_and_says_so() -> None:
    settings = make_settings(redis_url=f"redis://127.0.0.1:{free_port()}", redis_timeout_s=0.5)
    app = mounted(Progress(user, settings=settings))
    app.add_api_route("/", lambda: "the app")
    with TestClient(app) as http:
        assert http.get("/").json() == "the app"
        answer = http.get("/progress/v1/operations", headers=ALICE)
        assert (answer.status_code, "not connected to Redis" in answer.json()["detail"]) == (503, True)


async def test_around_an_app_it_starts_with_the_first_request_where_there_is_no_lifespan(settings: Settings) -> None:
    progress = Progress(user, settings=settings)
    both = progress.around(PlainTextResponse("theirs"), at="/tools")
    with TestClient(both) as http:  # with a lifespan, which the other app is not told of
        assert http.get("/tools/v1/operations", headers=ALICE).status_code == 200
        assert http.get("/other").text == "theirs"
        assert http.get("/tools", follow_redirects=False).headers["location"] == "/tools/"
    lazy = progress.around(PlainTextResponse("theirs"), at="/tools")

    async def get(path: str) -> list[Any]:
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"x-user", b"alice")],
            "http_version": "1.1",
        }

        async def send(message: Any) -> None:
            sent.append(message)

        await lazy(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
        return sent

    answers = await asyncio.gather(*[get("/tools/v1/operations") for _ in range(5)], get("/other"))
    assert [it[0]["status"] for it in answers] == [200] * 6
    await lazy._resources.aclose()  # type: ignore[attr-defined]


class TestOperations:
    @pytest.fixture
    async def progress(self, settings: Settings) -> AsyncIterator[Progress]:
        made = Progress(user, settings=settings)
        async with made.lifespan():
            yield made

    async def test_are_created_read_listed_published_to_and_cancelled(self, progress: Progress) -> None:
        ops = progress.operations
        fields: OperationFields = {"kind": "import", "owner": "alice", "tags": ["x", "y"], "metadata": {"customer": 42}}
        made = await ops.create(id="a", lease_s=None, **fields)
        assert (await ops.create(id="a", lease_s=None, **fields)).id == made.id
        await ops.create(kind="export")
        assert (await ops.publish("a", "log", {"message": "hello"})).events == 2
        found, cursor = await ops.list(
            owner="alice", kind="import", tag=["x", "y"], status="pending", metadata={"customer": 42}
        )
        assert ([it.id for it in found], cursor) == (["a"], None)
        assert len((await ops.list(limit=1)).operations) == 1
        assert (await ops.cancel("a", "not needed", by="bob")).error["by"] == "bob"  # type: ignore[index]
        with pytest.raises(NotFound):
            await ops.get("b")
        with pytest.raises(InvalidInput, match="running"):
            await ops.list(status="runing")
        with pytest.raises(InvalidInput, match="customer"):
            await ops.list(metadata={"customer": ""})
        with pytest.raises(InvalidInput, match="kind"):
            await ops.create(kind="")

    async def test_have_tickets_for_those_who_may_read_them(self, progress: Progress) -> None:
        await progress.operations.create(id="a", owner="alice", kind="import")
        assert (await progress.operations.ticket("a", "alice")).ticket
        assert (await progress.operations.ticket("a", Principal("bob", [granted(["read"], kinds=["import"])]))).ticket
        with pytest.raises(NotFound):
            await progress.operations.ticket("a", "bob")

    def test_take_every_field_of_an_operation(self) -> None:
        assert OperationFields.__annotations__.keys() == NewOperation.model_fields.keys()


def test_a_reload_takes_new_keys_or_nothing(redis_url: str, tmp_path: Path) -> None:
    progress = Progress(settings=secured(tmp_path, redis_url=redis_url))
    keys = tmp_path / "keys.toml"
    with TestClient(mounted(progress)) as http:

        def status_of(key: str) -> int:
            event = {"type": "log", "data": {"message": "m"}}
            return http.post("/progress/v1/operations/a/events", json=event, headers=bearing(key)).status_code

        assert (status_of(KEY), status_of("pbk_new")) == (404, 401)  # there is no such operation
        keys.write_text(keys.read_text().replace(hash_key(KEY), hash_key("pbk_new")))
        assert progress.reload().restart == []
        assert (status_of(KEY), status_of("pbk_new")) == (401, 404)
        keys.write_text("[[keys")
        with pytest.raises(SetupError, match="keys"):
            progress.reload()
        assert status_of("pbk_new") == 404
