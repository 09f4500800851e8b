"""Clients that connect before, during or after an operation, with any possible position, and without one."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes, urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from progress_broker.errors import InvalidInput
from progress_broker.model.position import parse
from tests import sse
from tests.e2e.harness import Api
from tests.servers import DEADLINE_S, ApiReplica

LINES = 560  # the newest 200 to 400 of them are kept


@dataclass
class Case:
    """An operation, whether it has ended, and which of its events are stored."""

    api: Api
    operation: str
    ended: bool
    first: str

    def kept(self) -> list[dict[str, Any]]:
        return self.api.history(self.operation)

    def ids(self) -> dict[int, str]:
        """Return the positions by event number, as a stream sends them."""
        body = self.api.http.get(
            f"/v1/operations/{self.operation}/stream", params={"from": "start"}, headers={"Accept": "text/event-stream"}
        )
        return {message.json["n"]: message.id for message in sse.published(body.content)}


@pytest.fixture(scope="module")
def caller(replica: ApiReplica) -> Iterator[Api]:
    with Api(replica.url) as api:
        yield api


def long_operation(api: Api) -> tuple[str, str]:
    operation = api.create()
    first = api.show(operation)["position"]
    for batch in range(0, LINES, 80):
        api.log(operation, *(str(n) for n in range(batch, batch + 80)))
    return operation, first


@pytest.fixture(scope="module")
def during(caller: Api) -> Case:
    operation, first = long_operation(caller)
    return Case(caller, operation, False, first)


@pytest.fixture(scope="module")
def after(caller: Api) -> Case:
    operation, first = long_operation(caller)
    caller.finish(operation)
    return Case(caller, operation, True, first)


@pytest.fixture(scope="module")
def whole_one(caller: Api) -> Case:
    """An ended operation whose events are all stored."""
    operation = caller.create()
    first = caller.show(operation)["position"]
    caller.log(operation, *map(str, range(20)))
    caller.finish(operation)
    return Case(caller, operation, True, first)


def by_header(position: str) -> dict[str, Any]:
    return {"headers": {"Last-Event-ID": position}}


def by_query(position: str) -> dict[str, Any]:
    return {"params": {"last_event_id": position}}


How = Callable[[str], dict[str, Any]]
ways = pytest.mark.parametrize("how", [by_header, by_query])


async def read(
    case: Case, request: dict[str, Any], *, until: int | None = None, live: bool = False
) -> tuple[int, list[sse.Message]]:
    """Return the status and the events: all of them where the stream ends, else those up to the number `until`.

    With `live` an event is published once the stream is open.
    """
    body = b""
    async with (
        asyncio.timeout(DEADLINE_S),
        httpx.AsyncClient(timeout=DEADLINE_S) as client,
        client.stream("GET", case.api.stream(case.operation), **request) as answer,
    ):
        async for chunk in answer.aiter_bytes():
            if live and not body:
                await asyncio.to_thread(case.api.log, case.operation, "live")
            body += chunk
            if until is not None and b'"n":%d,' % until in body and body.endswith(b"\n\n"):
                break
    return answer.status_code, sse.published(body)


def numbers(messages: list[sse.Message]) -> list[int]:
    return [message.json["n"] for message in messages]


async def check_reset(case: Case, request: dict[str, Any], reason: str | None) -> None:
    """A snapshot has the reason, and the following events, live ones or the end, continue from it."""
    shown = case.api.show(case.operation)
    if case.ended:
        status, messages = await read(case, request)
        assert status == 200
        assert [message.type for message in messages] == ["snapshot", "end"]
        assert numbers(messages) == [shown["events"]] * 2
        assert messages[0].id == ""
    else:
        status, messages = await read(case, request, until=shown["events"] + 1, live=True)
        assert status == 200
        assert [message.type for message in messages] == ["snapshot", "log"]
        assert numbers(messages) == [shown["events"], shown["events"] + 1]
        assert messages[0].id == shown["position"]
    assert messages[0].json.get("reset") == reason
    assert messages[0].json["data"]["position"] == shown["position"]


async def check_lost(case: Case, how: How, position: str) -> None:
    """A snapshot tells the loss, and all that is kept follows: what of it the client has, a position does not say."""
    last = case.kept()[-1]["n"]
    _, kept = await read(case, {"params": {"from": "start"}}, until=None if case.ended else last)
    numbered = {message.json["n"] for message in kept}
    oldest = next(n for n in range(last, -1, -1) if n - 1 not in numbered)  # after it, all are kept
    shared = 0 if oldest == 1 else oldest
    status, messages = await read(case, how(position), until=None if case.ended else last)
    assert (status, messages[0].type, messages[0].json["reset"]) == (200, "snapshot", "lost")
    assert numbers(messages) == [shared, *range(shared + 1, last + 1)]


# No position


async def test_without_a_position_during(during: Case) -> None:
    status, messages = await read(during, {}, until=during.api.show(during.operation)["events"])
    assert (status, [message.type for message in messages]) == (200, ["snapshot"])
    assert "reset" not in messages[0].json


async def test_without_a_position_after(after: Case) -> None:
    await check_reset(after, {}, None)


async def test_from_the_start_all_that_is_kept(after: Case, whole_one: Case) -> None:
    for case in (after, whole_one):
        status, messages = await read(case, {"params": {"from": "start"}})
        assert status == 200
        assert [message.json for message in messages] == case.kept()
    assert numbers(messages) == list(range(1, 23))


# Before


@ways
@pytest.mark.parametrize("position", ["0-0", "1-0", "1732150000000-0", f"{2**64 - 1}-{2**64 - 1}"])
async def test_before_it_exists(caller: Api, how: How, position: str) -> None:
    answer = caller.http.get("/v1/operations/not-yet/stream", **how(position))
    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


@ways
@pytest.mark.parametrize("position", ["0-0", "1732150000000-0"])
async def test_awaiting_it_with_a_position_of_an_earlier_life(caller: Api, how: How, position: str) -> None:
    operation = f"awaited-{how.__name__}-{position}"
    request = how(position)
    request["params"] = request.get("params", {}) | {"wait_s": 15}
    case = Case(caller, operation, False, "")
    reading = asyncio.create_task(read(case, request, until=1))
    await asyncio.to_thread(caller.create, id=operation)
    status, messages = await reading
    assert status == 200
    assert (messages[-1].type, messages[-1].json["n"]) in {("snapshot", 1), ("status", 1)}
    await asyncio.to_thread(caller.finish, operation)


# During and after


@ways
async def test_the_newest_position(during: Case, after: Case, how: How) -> None:
    shown = during.api.show(during.operation)
    status, messages = await read(during, how(shown["position"]), until=shown["events"] + 1, live=True)
    assert (status, numbers(messages)) == (200, [shown["events"] + 1])
    status, messages = await read(after, how(after.api.show(after.operation)["position"]))
    assert (status, messages) == (204, [])


@ways
@pytest.mark.parametrize("back", [1, 2, 15, 16, 17, 60, 99])
async def test_an_old_position(during: Case, after: Case, how: How, back: int) -> None:
    for case in (during, after):
        events = case.kept()
        position = await asyncio.to_thread(_position_of, case, events[-1 - back]["n"])
        status, messages = await read(case, how(position), until=None if case.ended else events[-1]["n"])
        assert status == 200
        assert [message.json for message in messages] == events[-back:]


def _position_of(case: Case, n: int) -> str:
    """Return the position of the n-th event, where a history of n events stops."""
    first = case.kept()[0]["n"]
    answer = case.api.http.get(f"/v1/operations/{case.operation}/events", params={"limit": n - first + 1})
    position: str = answer.json()["position"]
    return position


@ways
async def test_a_trimmed_position(during: Case, after: Case, how: How) -> None:
    for case in (during, after):
        assert case.kept()[0]["n"] > 1
        for position in ("0-0", "1-0", case.first, f"{case.first.partition('-')[0]}-77"):
            await check_reset(case, how(position), "trimmed")


@ways
async def test_a_position_that_never_was(during: Case, after: Case, whole_one: Case, how: How) -> None:
    for case in (during, after):
        middle = case.kept()[50]
        at = await asyncio.to_thread(_position_of, case, middle["n"])
        for position in (f"{at.partition('-')[0]}-9999", f"{2**63}-0", f"{2**64 - 1}-{2**64 - 1}"):
            await check_lost(case, how, position)
    for position in ("1-0", f"{whole_one.first.partition('-')[0]}-9999"):
        await check_lost(whole_one, how, position)


@ways
async def test_before_everything_is_everything_while_all_is_kept(whole_one: Case, how: How) -> None:
    status, messages = await read(whole_one, how("0-0"))
    assert (status, numbers(messages)) == (200, list(range(1, 23)))


@ways
async def test_the_position_of_another_operation_is_lost(whole_one: Case, after: Case, how: How) -> None:
    await check_lost(whole_one, how, after.api.show(after.operation)["position"])


async def test_the_header_wins_over_the_query_and_both_over_the_start(whole_one: Case) -> None:
    ids = await asyncio.to_thread(whole_one.ids)
    both = by_header(ids[20]) | {"params": {"last_event_id": ids[2], "from": "start"}}
    assert numbers((await read(whole_one, both))[1]) == [21, 22]
    query = {"params": {"last_event_id": ids[19], "from": "start"}}
    assert numbers((await read(whole_one, query))[1]) == [20, 21, 22]


@ways
async def test_of_a_deleted_operation_every_position_is_gone(caller: Api, how: How) -> None:
    operation = caller.create()
    position = caller.show(operation)["position"]
    caller.http.delete(f"/v1/operations/{operation}", params={"force": "true"}).raise_for_status()
    for at in (position, "0-0", "1-0", f"{2**63}-0"):
        answer = caller.http.get(f"/v1/operations/{operation}/stream", **how(at))
        assert (answer.status_code, answer.json()["type"]) == (410, "gone")


# Garbage

GARBAGE = [
    b"letters",
    b"-1",
    b"1",
    b"1-",
    b"-",
    b"1-1-1",
    b"-1-0",
    b"1--1",
    b"+1-0",
    b"01-0",
    b"1-00",
    b"1_0-0",
    b"0x1-0",
    b"1e3-0",
    b"1.0-0",
    b"1-0\t0",
    b"1 - 0",
    b"$",
    b"*",
    b"(1-0",
    b"(",
    b">",
    b"null",
    str(2**64).encode() + b"-0",
    b"0-" + str(2**64).encode(),
    b"9" * 10_000,
    b"9" * 5_000 + b"-" + b"9" * 5_000,
    b"x" * 10_240,
    "\u0661-\u0660".encode(),
    "\uff11-\uff10".encode(),
    "\u202e1-0".encode(),
    b"\xff\xfe",
    b"\xc3",
    b"1-0;1-1",
    b"1-0,1-1",
    b'"1-0"',
    b"%31-0%",
]
REJECTED_BY_HTTP = frozenset(range(32)) - {9} | {127}
"""What no header's value may hold (RFC 9110, 5.5); a server may reject the whole request as none."""


async def ask(api: Api, target: bytes, header: bytes | None = None) -> tuple[int, bytes]:
    """Send a request as raw bytes. Return the status and the body. The response must be complete."""
    where = urlsplit(api.url)
    lines = [b"GET " + target + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    if header is not None:
        lines.append(b"Last-Event-ID: " + header)
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        with contextlib.closing(writer):
            writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
            answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def target(operation: str, garbage: bytes) -> bytes:
    return f"/v1/operations/{operation}/stream?last_event_id={quote_from_bytes(garbage, safe='')}".encode()


async def check_garbage(case: Case, garbage: bytes) -> None:
    plain = f"/v1/operations/{case.operation}/stream".encode()
    status, body = await ask(case.api, target(case.operation, garbage))
    assert (status, b'"type":"invalid"' in body) == (422, True), (status, body)
    assert len(body) < 2_000
    sent = garbage.strip(b" \t")  # a valid header value; an empty one counts as no value
    if sent and not is_position(sent.decode("latin-1")) and b"\r" not in garbage and b"\n" not in garbage:
        status, body = await ask(case.api, plain, garbage)
        rejected = {422, 400} if REJECTED_BY_HTTP & set(garbage) else {422}
        assert status in rejected, (status, body)


def is_position(text: str) -> bool:
    try:
        parse(text)
    except InvalidInput:
        return False
    return True


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
async def test_garbage_is_rejected(during: Case, after: Case, garbage: bytes) -> None:
    for case in (during, after, Case(during.api, "nowhere", False, "")):
        await check_garbage(case, garbage)


@pytest.mark.parametrize("garbage", [b"\0", b"1-0\0", b"\0" * 100, b"1-\x7f0", b"\x1b[2J"])
async def test_controls_are_rejected(during: Case, garbage: bytes) -> None:
    await check_garbage(during, garbage)


NEARLY = st.text("0123456789-", max_size=50).map(str.encode)
ANY = st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))


@given((NEARLY | ANY).filter(lambda garbage: garbage and not is_position(garbage.decode("utf-8", "replace"))))
@limits(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_garbage_is_rejected(during: Case, garbage: bytes) -> None:
    await check_garbage(during, garbage)


@given(st.binary(min_size=1, max_size=60))
@limits(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_bytes_as_an_id_are_rejected_or_unknown(during: Case, id: bytes) -> None:
    status, body = await ask(during.api, f"/v1/operations/{quote_from_bytes(id, safe='')}/stream".encode())
    assert status in {404, 422}, (status, body)


async def test_after_all_that_the_server_serves(caller: Api, during: Case) -> None:
    assert caller.http.get("/readyz").status_code == 200
    shown = caller.show(during.operation)
    status, messages = await read(during, by_header(shown["position"]), until=shown["events"] + 1, live=True)
    assert (status, numbers(messages)) == (200, [shown["events"] + 1])
