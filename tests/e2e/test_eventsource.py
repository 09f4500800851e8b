"""The npm package `eventsource`, alone and with our client, while replicas are killed and restarted."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import StartReplica
from tests.e2e.harness import ROOT, Api, ForeignWorker, node, node_with_packages, run
from tests.servers import ApiReplica, Process, RealRedis, wait_until

E2E = ROOT / "tests" / "e2e"


class Script(Process):
    """A node script that prints one JSON object per line."""

    def __init__(self, log: Path, name: str, *arguments: str) -> None:
        super().__init__([node_with_packages(), str(E2E / name), *arguments], log)

    def lines(self) -> list[dict[str, Any]]:
        whole, _, _ = self.output().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def finished(self) -> list[dict[str, Any]]:
        """Wait until it exits by itself; return what it printed."""
        assert self.popen is not None
        assert self.popen.wait(60) == 0, self.output()
        return self.lines()


def envelopes(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["envelope"] for line in lines if "event" in line and line["event"] != "reconnect"]


@pytest.fixture
def frail(start_replica: StartReplica, e2e_redis: RealRedis) -> ApiReplica:
    """A replica that the test kills."""
    return start_replica(e2e_redis.url)


@pytest.fixture
def frail_api(frail: ApiReplica) -> Iterator[Api]:
    with Api(frail.url) as caller:
        yield caller


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_it_survives_the_replica_and_sees_every_event_once(
    frail: ApiReplica, frail_api: Api, foreign: ForeignWorker, tmp_path: Path, death: signal.Signals
) -> None:
    api, operation = frail_api, frail_api.create()
    with Script(tmp_path / "out", "follow_stream.mjs", f"{api.stream(operation)}?from=start") as client:
        wait_until(lambda: len(envelopes(client.lines())) == 1, "it is connected")
        api.log(operation, *(f"before {n}" for n in range(20)))
        wait_until(lambda: len(envelopes(client.lines())) == 21, "it hears live events")
        assert frail.stop(death) == (0 if death is signal.SIGTERM else -death), frail.output()
        for n in range(20):
            foreign.publish(operation, "log", b'{"message":"while it was away %d"}' % n)
        wait_until(lambda: {"lost": True} in client.lines(), "it has noticed")
        frail.start().await_ready()
        wait_until(lambda: len(envelopes(client.lines())) == 41, "it resumed by itself")
        api.log(operation, *(f"after {n}" for n in range(20)))
        api.finish(operation, "done")
        lines = client.finished()
        assert envelopes(lines) == api.history(operation)
    assert [envelope["n"] for envelope in envelopes(lines)] == list(range(1, 63))
    assert lines[-1] == {"closed": 204}
    reasons = {line["envelope"]["reason"] for line in lines if line.get("event") == "reconnect"}
    assert reasons == ({"draining"} if death is signal.SIGTERM else set())


@pytest.mark.parametrize(("path", "status"), [("nowhere/stream", 404), ("nowhere/stream?from=end", 422)])
def test_lasting_rejections_stop_it(api: Api, path: str, status: int) -> None:
    done = run([node_with_packages(), str(E2E / "follow_stream.mjs"), f"{api.url}/v1/operations/{path}"])
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"closed": status}]


@pytest.mark.parametrize("start", ["snapshot", "start"])
def test_what_the_page_makes_of_the_events_is_what_the_server_shows(
    frail: ApiReplica, frail_api: Api, foreign: ForeignWorker, tmp_path: Path, start: str
) -> None:
    """However often a stream was interrupted and resumed, the final state equals that of `GET`."""
    api = frail_api
    operation = api.create(kind="import", title="Import", owner="alice", tags=["eu"])
    with Script(tmp_path / "out", "follow_operation.mjs", f"{api.url}/", operation, start) as client:
        wait_until(lambda: client.lines() and client.lines()[-1]["state"]["n"] == 1, "it is connected")
        api.publish(operation, "progress", {"current": 1, "total": 4, "percent": 25, "message": "reading"})
        api.log(operation, "one", "two")
        wait_until(lambda: client.lines()[-1]["state"]["n"] == 5, "it is live")
        frail.stop(signal.SIGKILL)
        foreign.publish(operation, "log", b'{"message":"three","level":"warning","stage":"parse"}')
        foreign.publish(operation, "progress", b'{"current":2,"total":4,"percent":50}')
        wait_until(lambda: client.lines()[-1]["connection"] == "reconnecting", "it says so")
        frail.start().await_ready()
        wait_until(lambda: client.lines()[-1]["state"]["n"] == 7, "it is back")
        api.http.post(f"/v1/operations/{operation}/cancel", json={"reason": "enough"}).raise_for_status()
        api.publish(operation, "end", {"status": "cancelled", "error": {"type": "cancelled", "message": "enough"}})
        last = client.finished()[-1]
        shown = api.show(operation)
    assert (last["connection"], last["state"]["n"], last["state"]["ended"]) == ("ended", shown["events"], True)
    assert [line["message"] for line in last["state"]["log"]] == ["one", "two", "three"]
    folded = last["state"]["operation"]
    told = set(shown) - {"expires_at"}  # not part of any event
    if start == "start":
        told -= {"kind", "title", "owner", "tags"}  # only in a snapshot or in the list
    assert {name: folded[name] for name in told} == {name: shown[name] for name in told}


def test_the_pages_own_tests() -> None:
    done = run([node(), "--test", *map(str, sorted((ROOT / "web" / "tests").glob("*.test.mjs")))], 60)
    assert done.returncode == 0, done.stdout[-4000:]
