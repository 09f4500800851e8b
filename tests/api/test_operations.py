import asyncio
import json
from datetime import datetime
from typing import ClassVar

import httpx
import pytest

from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.cases import case
from tests.conftest import make_settings
from tests.servers import eventually

OPS = "/v1/operations"
WHOLE = """
id kind title owner tags metadata parent weight children status done attempt worker cancel_requested cancel progress
result error created_at started_at updated_at finished_at elapsed_ms expires_at position events
"""


@pytest.fixture
def settings() -> Settings:
    return make_settings(max_body_bytes=200_000)


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = answer.json()
    assert (body["type"], body["status"]) == (code, status)
    assert body["title"]
    assert body["detail"]
    return body


async def create(http: httpx.AsyncClient, **body: object) -> dict[str, object]:
    answer = await http.post(OPS, json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, object] = answer.json()
    return made


async def test_metadata_is_given_changed_and_searched_by(http: httpx.AsyncClient) -> None:
    await create(http, id="a", metadata={"customer": 42, "phase": "queued", "list": [{"x": None}]})
    await create(http, id="b", metadata={"customer": "42"})
    problem(await http.post(OPS, json={"id": "c", "metadata": []}), 422, "invalid")
    problem(await http.post(OPS, json={"id": "c", "metadata": {"x": "y" * 20_000}}), 413, "too-large")
    problem(await http.post(OPS, json={"id": "a", "metadata": {"customer": 43}}), 409, "operation-exists")
    assert (await publish(http, "a", "metadata", {"phase": "loading", "customer": None})).status_code == 200
    problem(await publish(http, "a", "metadata", [1]), 422, "invalid")
    problem(await publish(http, "a", "metadata", {"x": "y" * 20_000}), 413, "too-large")
    shown = (await http.get(f"{OPS}/a")).json()
    assert shown["metadata"] == {"phase": "loading", "list": [{"x": None}]}

    async def found(*metadata: str) -> list[str]:
        answer = await http.get(OPS, params={"metadata": metadata})
        return [operation["id"] for operation in answer.json()["operations"]]

    assert await found("customer:42") == ["b"]
    assert await found("phase:loading") == ["a"]
    assert await found("phase:loading", "customer:42") == []
    for bad in ("customer", ":42", "customer:", "a b:c"):
        assert problem(await http.get(OPS, params={"metadata": bad}), 422, "invalid")["field"].startswith("metadata")


async def publish(
    http: httpx.AsyncClient, operation: str, type: str, data: object = None, **more: object
) -> httpx.Response:
    return await http.post(f"{OPS}/{operation}/events", json={"type": type, "data": data} | more)


async def finish(http: httpx.AsyncClient, operation: str, status: str = "succeeded") -> None:
    answer = await publish(http, operation, "end", {"status": status})
    assert answer.status_code == 200, answer.text


class TestCreate:
    async def test_tells_where_it_is(self, http: httpx.AsyncClient, base_url: str) -> None:
        answer = await http.post(OPS, json={"id": "import-42", "kind": "import", "owner": "alice", "tags": ["eu"]})
        assert answer.status_code == 201
        assert answer.headers["location"] == answer.headers["operation-location"] == f"{base_url}{OPS}/import-42"
        assert (await http.get(answer.headers["location"])).json() == answer.json()

    async def test_shows_the_whole_operation(self, http: httpx.AsyncClient) -> None:
        shown = await create(http)
        assert sorted(shown) == sorted(WHOLE.split())
        assert shown["elapsed_ms"] is None

    async def test_the_time_that_has_passed_is_from_its_start_to_its_end(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        await publish(http, "a", "progress", {"current": 1})
        now = (await http.get(f"{OPS}/a")).json()
        await finish(http, "a")
        ended = [(await http.get(f"{OPS}/a")).json() for _ in range(2)]
        started, finished = (datetime.fromisoformat(ended[0][f"{name}_at"]) for name in ("started", "finished"))
        assert 0 <= now["elapsed_ms"] < 60_000
        assert {it["elapsed_ms"] for it in ended} == {round((finished - started).total_seconds() * 1000)}

    async def test_needs_no_body(self, http: httpx.AsyncClient) -> None:
        assert (await http.post(OPS)).status_code == 201

    async def test_is_idempotent_and_rejects_another_body(self, http: httpx.AsyncClient) -> None:
        first = await create(http, id="a", kind="k")
        assert await create(http, id="a", kind="k") == first
        problem(await http.post(OPS, json={"id": "a", "kind": "other"}), 409, "operation-exists")

    BAD: ClassVar[list[tuple[bytes, str | None]]] = [
        (b"{", None),
        (b"[]", None),
        (b'{"id": "a b"}', "id"),
        (b'{"id": ""}', "id"),
        (b'{"id": "' + b"a" * 129 + b'"}', "id"),
        (b'{"kind": ""}', "kind"),
        (b'{"kind": "a\\nb"}', "kind"),
        (b'{"owner": 3}', "owner"),
        (b'{"tags": "x"}', "tags"),
        (b'{"tags": ["' + b'","'.join(b"%d" % i for i in range(17)) + b'"]}', "tags"),
        (b'{"lease_s": -1}', "lease_s"),
        (b'{"colour": 1}', "colour"),
        (b'{"title": NaN}', None),
        (b"\xff", None),
    ]

    async def test_bad_input_names_the_field(self, http: httpx.AsyncClient) -> None:
        for body, field in self.BAD:
            with case(body):
                bad = problem(await http.post(OPS, content=body), 422, "invalid")
                assert bad.get("field") == field

    async def test_a_body_over_the_limit_is_rejected(self, http: httpx.AsyncClient) -> None:
        problem(await http.post(OPS, content=b'{"title": "' + b"x" * 300_000 + b'"}'), 413, "too-large")


class TestGet:
    async def test_etag_and_304(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        first = await http.get(f"{OPS}/a")
        tag = first.headers["etag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = await http.get(f"{OPS}/a", headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        await publish(http, "a", "progress", {"current": 1})
        changed = await http.get(f"{OPS}/a", headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != tag

    async def test_says_when_to_look_again_until_it_is_done(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        assert int((await http.get(f"{OPS}/a")).headers["retry-after"]) > 0
        await finish(http, "a")
        assert "retry-after" not in (await http.get(f"{OPS}/a")).headers

    async def test_unknown_is_404_and_a_bad_id_422(self, http: httpx.AsyncClient) -> None:
        problem(await http.get(f"{OPS}/nope"), 404, "not-found")
        problem(await http.get(f"{OPS}/%20x"), 422, "invalid")
        problem(await http.get(f"{OPS}/{'a' * 129}"), 422, "invalid")
        problem(await http.get("/v1/nothing"), 404, "not-found")
        problem(await http.put(f"{OPS}/a"), 405, "method-not-allowed")


class TestList:
    async def test_filters_and_pages(self, http: httpx.AsyncClient) -> None:
        for i in range(7):
            await create(http, id=f"op{i}", owner="alice" if i % 2 else "bob", kind="k")
        found: list[str] = []
        cursor: str | None = None
        while True:
            query = {"limit": "2", "kind": "k"} | ({"cursor": cursor} if cursor else {})
            page = (await http.get(OPS, params=query)).json()
            found += [operation["id"] for operation in page["operations"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(found) == [f"op{i}" for i in range(7)]
        only = (await http.get(OPS, params={"owner": "alice", "status": "pending"})).json()["operations"]
        assert {operation["id"] for operation in only} == {"op1", "op3", "op5"}
        assert (await http.get(OPS, params={"tag": "none"})).json() == {"operations": [], "next_cursor": None}

    @pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "status=done", "cursor=%00", "parent=%20"])
    async def test_bad_queries_are_rejected(self, http: httpx.AsyncClient, query: str) -> None:
        problem(await http.get(f"{OPS}?{query}"), 422, "invalid")


class TestDelete:
    async def test_a_deleted_one_is_gone(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        problem(await http.delete(f"{OPS}/a"), 409, "operation-running")
        await finish(http, "a")
        answer = await http.delete(f"{OPS}/a")
        assert (answer.status_code, answer.content) == (204, b"")
        for rejected in (
            http.get(f"{OPS}/a"),
            http.delete(f"{OPS}/a"),
            http.get(f"{OPS}/a/events"),
            http.get(f"{OPS}/a/stream"),
            http.post(f"{OPS}/a/cancel"),
            publish(http, "a", "log", {"message": "m"}),
            http.post(OPS, json={"id": "a"}),
        ):
            problem(await rejected, 410, "gone")

    async def test_force(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        assert (await http.delete(f"{OPS}/a?force=true")).status_code == 204


class TestCancel:
    async def test_a_running_one_is_asked_and_its_publisher_learns_it(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        assert (await publish(http, "a", "progress", {"current": 1})).json()["cancel_requested"] is False
        for _ in range(2):
            answer = await http.post(f"{OPS}/a/cancel", json={"reason": "enough"})
            assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
        assert (await publish(http, "a", "progress", {"current": 2})).json()["cancel_requested"] is True

    async def test_an_ended_one_is_unchanged(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        await finish(http, "a")
        answer = await http.post(f"{OPS}/a/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")

    async def test_one_nobody_began_ends_at_once(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        answer = await http.post(f"{OPS}/a/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")

    async def test_bad_input(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        problem(await http.post(f"{OPS}/a/cancel", json={"why": 1}), 422, "invalid")
        problem(await http.post(f"{OPS}/nope/cancel"), 404, "not-found")
        assert (await http.get(f"{OPS}/a")).json()["status"] == "pending"


class TestPublish:
    async def test_one_a_list_and_lines(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        one = (await publish(http, "a", "custom.thing", {"x": [1]})).json()
        assert set(one) == {"position", "events", "cancel_requested", "cancel"}
        many = await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": str(i)}} for i in range(5)])
        assert many.json()["events"] == 7
        lines = b"".join(json.dumps({"type": "log", "data": {"message": str(i)}}).encode() + b"\n" for i in range(2500))
        taken = await http.post(f"{OPS}/a/events", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert (taken.json()["events"], taken.json()["accepted"]) == (2507, 2500)

    async def test_lines_are_stored_as_they_arrive(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        seen = asyncio.Event()

        async def lines() -> object:
            yield b'{"type":"log","data":{"message":"1"}}\n{"type":"log","data":{"mess'
            await seen.wait()
            yield b'age":"2"}}'

        posting = asyncio.create_task(
            http.post(f"{OPS}/a/events", content=lines(), headers={"Content-Type": "application/x-ndjson"})
        )
        first = (await http.get(f"{OPS}/a")).json()["position"]
        waited = (await http.get(f"{OPS}/a/events", params={"after": "0-0", "wait": "10"})).json()
        while len(waited["events"]) < 2:
            waited = (await http.get(f"{OPS}/a/events", params={"after": "0-0"})).json()
        assert first
        seen.set()
        assert (await posting).json()["accepted"] == 2

    async def test_a_bad_line_says_which_and_what_was_stored(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        body = b'{"type":"log","data":{"message":"1"}}\n\n{"type":"nope!"}\n{"type":"log","data":{"message":"3"}}\n'
        answer = await http.post(f"{OPS}/a/events", content=body, headers={"Content-Type": "application/x-ndjson"})
        bad = problem(answer, 422, "invalid")
        assert bad["accepted"] == 1
        assert str(bad["detail"]).startswith("line 3:")
        assert (await http.get(f"{OPS}/a")).json()["events"] == 2

    async def test_a_list_is_all_or_none(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        answer = await http.post(f"{OPS}/a/events", json=[{"type": "log", "data": {"message": "m"}}, {"type": "error"}])
        problem(answer, 422, "invalid")
        assert (await http.get(f"{OPS}/a")).json()["events"] == 1

    async def test_an_empty_list_is_a_beat(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        before = (await http.get(f"{OPS}/a")).json()
        answer = await http.post(f"{OPS}/a/events", json=[])
        assert (answer.status_code, answer.json()["events"]) == (200, 1)
        assert (await http.get(f"{OPS}/a")).json() == before

    async def test_a_repeat_gets_the_first_answer(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        answers = [
            (await publish(http, "a", "log", {"message": "m"}, producer="p1", seq=seq)).json() for seq in (1, 2, 1, 2)
        ]
        assert answers[:2] == answers[2:]
        assert answers[1]["events"] == 3

    @pytest.mark.parametrize("body", [b"", b"3", b'{"type":"error"}', b"{}", b'{"type":"log","data":{}}', b"\x00"])
    async def test_bad_input_stores_nothing(self, http: httpx.AsyncClient, body: bytes) -> None:
        await create(http, id="a")
        problem(await http.post(f"{OPS}/a/events", content=body), 422, "invalid")
        assert (await http.get(f"{OPS}/a")).json()["events"] == 1

    async def test_too_large_stores_nothing(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        problem(await publish(http, "a", "x", "y" * 70_000), 413, "too-large")
        problem(await publish(http, "a", "progress", {"message": "y" * 17_000}), 413, "too-large")
        problem(await http.post(f"{OPS}/a/events", content=b"x" * 300_000), 413, "too-large")
        lines = {"Content-Type": "application/x-ndjson"}
        problem(await http.post(f"{OPS}/a/events", content=b"x" * 300_000, headers=lines), 413, "too-large")
        assert (await http.get(f"{OPS}/a")).json()["events"] == 1

    async def test_after_the_end_and_to_nothing(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        await finish(http, "a", "failed")
        problem(await publish(http, "a", "log", {"message": "late"}), 409, "operation-ended")
        problem(await publish(http, "nope", "log", {"message": "m"}), 404, "not-found")

    async def test_an_end_tells_result_and_error(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        await publish(
            http, "a", "end", {"status": "failed", "error": {"type": "ValueError", "message": "no", "line": 3}}
        )
        now = (await http.get(f"{OPS}/a")).json()
        assert (now["status"], now["done"], now["result"]) == ("failed", True, None)
        assert now["error"] == {"type": "ValueError", "message": "no", "line": 3}


class TestHistory:
    async def test_pages_to_the_end(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        for i in range(5):
            await publish(http, "a", "log", {"message": str(i)})
        await finish(http, "a")
        seen: list[int] = []
        query: dict[str, str] = {"limit": "3"}
        while True:
            page = (await http.get(f"{OPS}/a/events", params=query)).json()
            seen += [event["n"] for event in page["events"]]
            query["after"] = page["position"]
            if page["done"]:
                break
        assert seen == [1, 2, 3, 4, 5, 6, 7]
        rest = (await http.get(f"{OPS}/a/events", params=query | {"wait": "5"})).json()
        assert (rest["events"], rest["done"]) == ([], True)

    async def test_a_long_poll_answers_as_soon_as_there_is_something(self, http: httpx.AsyncClient) -> None:
        made = await create(http, id="a")
        query = {"after": str(made["position"]), "wait": "10"}
        polls = [asyncio.create_task(http.get(f"{OPS}/a/events", params=query)) for _ in range(5)]
        await publish(http, "a", "log", {"message": "m"})
        for answer in await asyncio.gather(*polls):
            assert [event["n"] for event in answer.json()["events"]] == [2]

    async def test_a_long_poll_ends_empty_when_nothing_happens(self, http: httpx.AsyncClient) -> None:
        made = await create(http, id="a")
        answer = await http.get(f"{OPS}/a/events", params={"after": str(made["position"]), "wait": "0.1"})
        assert answer.json() == {
            "operation": "a",
            "events": [],
            "position": made["position"],
            "done": False,
            "reset": None,
            "snapshot": None,
        }

    async def test_an_unknown_position_is_told_with_where_to_go_on(self, http: httpx.AsyncClient) -> None:
        made = await create(http, id="a")
        for wait in ("0", "5"):
            answer = (await http.get(f"{OPS}/a/events", params={"after": "5-5", "wait": wait})).json()
            assert (answer["reset"], answer["events"], answer["position"]) == ("lost", [], "0-0")
            assert answer["snapshot"] == made

    @pytest.mark.parametrize("query", ["after=x", "after=%00", "limit=0", "wait=-1", "wait=nan", "limit=1001"])
    async def test_bad_queries_are_rejected(self, http: httpx.AsyncClient, query: str) -> None:
        await create(http, id="a")
        problem(await http.get(f"{OPS}/a/events?{query}"), 422, "invalid")
        problem(await http.get(f"{OPS}/nope/events"), 404, "not-found")


async def is_ready(http: httpx.AsyncClient) -> bool:
    answer = await http.get("/readyz")
    return answer.status_code == 200 and answer.json() == {"status": "ready"}


async def test_health_and_pages(http: httpx.AsyncClient) -> None:
    assert (await http.get("/livez")).status_code == 200
    await eventually(lambda: is_ready(http), "its first probe comes back")
    page = await http.get("/")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    script = await http.get("/web/dashboard/dashboard.js")
    assert script.headers["cache-control"] == "no-cache"
    assert (await http.get("/openapi.json")).status_code == 200


class TestCancelAndSignals:
    async def test_a_cancel_says_who_and_why_and_ends_by_force(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        await publish(http, "a", "status", {"status": "running"})
        asked = await http.post(f"{OPS}/a/cancel", json={"reason": "enough", "by": "bob"})
        assert asked.status_code == 202
        shown = asked.json()["cancel"]
        assert (shown["reason"], shown["by"]) == ("enough", "bob")
        assert shown["overdue_at"] > shown["requested_at"]
        told = (await http.post(f"{OPS}/a/events", json=[])).json()
        assert (told["cancel_requested"], told["cancel"]) == (True, {"reason": "enough", "by": "bob"})
        forced = await http.post(f"{OPS}/a/cancel", json={"force": True})
        assert (forced.status_code, forced.json()["status"]) == (202, "cancelled")
        problem(await http.post(f"{OPS}/a/events", json=[]), 409, "operation-ended")

    async def test_a_signal_is_handed_on(self, http: httpx.AsyncClient, store: Store) -> None:
        await create(http, id="a")
        assert (await http.post(f"{OPS}/a/signals", json={"type": "pause", "data": {"until": 3}})).status_code == 202
        key = store.keyspace.operation("a").signals
        ((_, fields),) = await store.connections.commands.xrange(key)
        assert dict(zip(fields[::2], fields[1::2], strict=True)) == {b"t": b"pause", b"d": b'{"until":3}'}

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"type":"cancel"}', b'{"type":"No"}', b'{"type":"pause","x":1}'])
    async def test_a_signal_that_is_none_is_rejected(self, http: httpx.AsyncClient, body: bytes) -> None:
        await create(http, id="a")
        problem(await http.post(f"{OPS}/a/signals", content=body), 422, "invalid")

    async def test_what_has_ended_or_is_not_there_takes_no_signal(self, http: httpx.AsyncClient) -> None:
        problem(await http.post(f"{OPS}/nope/signals", json={"type": "pause"}), 404, "not-found")
        await create(http, id="a")
        await finish(http, "a")
        problem(await http.post(f"{OPS}/a/signals", json={"type": "pause"}), 409, "operation-ended")
