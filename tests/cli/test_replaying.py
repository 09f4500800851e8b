"""Replays of a query, and by a server in memory."""

import json
import re
import signal
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Shell
from tests.servers import wait_until


def lines_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def recorded(shell: Shell) -> Shell:
    for id, kind in (("a", "import"), ("b", "job")):
        lines = [f'{{"type": "log", "data": {{"message": "line {n}"}}}}' for n in range(5)]
        shell.says("publish", id, "-", "--create", "--kind", kind, stdin="\n".join(lines).encode())
        shell.says("publish", id, "--type", "end", "--data", '{"status": "succeeded", "result": {"rows": 5}}')
    shell.run("export", "all.ndjson")
    return shell


def test_operations_are_chosen_by_a_query_also_in_a_file(recorded: Shell) -> None:
    tail = recorded.says("tail", "a", "--from", "start", "--json")
    for words in (["--kind", "import"], ["all.ndjson", "--kind", "import"], ["a", "b", "--kind", "import"], ["a"]):
        assert recorded.run("replay", *words, "--speed", "max").stdout == tail, words
    both = lines_of(recorded.run("replay", "--status", "succeeded", "--speed", "max").stdout)
    assert {event["operation"] for event in both} == {"a", "b"}
    assert [event["time"] for event in both] == sorted(event["time"] for event in both)
    assert "choose what to replay" in recorded.fails(2, "replay")
    assert "no operation matches" in recorded.fails(2, "replay", "--kind", "other")
    assert "status" in recorded.fails(2, "replay", "--status", "odd")


def test_a_server_in_memory_has_them_as_they_were(recorded: Shell) -> None:
    [shown] = recorded.lines("show", "a")
    tail = lines_of(recorded.says("tail", "a", "--from", "start", "--json"))
    with recorded.process("replay", str(recorded.folder / "all.ndjson"), "--speed", "max", "--serve", "0") as server:
        wait_until(lambda: "events replayed" in server.output(), "all has happened")
        [url] = re.findall(r"serving on (http://\S+)", server.output())
        with httpx.Client(base_url=url) as http:
            again = http.get("/v1/operations/a").json()
            assert {name: again[name] for name in shown if name != "expires_at"} == {
                name: value for name, value in shown.items() if name != "expires_at"
            }
            stream = http.get("/v1/operations/a/stream", params={"from": "start", "types": "log"}).text
            ids = re.findall(r"^id: (\S+)\nevent: (?:log|end)$", stream, re.MULTILINE)
            assert len(ids) == 6
            assert ids[-1] == shown["position"]
            assert [event["type"] for event in tail].count("log") == 5
            assert [it["id"] for it in http.get("/v1/operations", params={"kind": "job"}).json()["operations"]] == ["b"]
            assert http.get("/").status_code == http.get("/readyz").status_code == 200
            assert http.post("/v1/operations/a/cancel", json={}).status_code == 403
            assert http.post("/v1/operations", json={"id": "c"}).status_code == 403
        assert server.stop(signal.SIGINT) == 0
    assert "Traceback" not in server.output()


def test_a_server_in_memory_begins_in_the_middle_and_ends_before_the_end(recorded: Shell) -> None:
    exported = lines_of((recorded.folder / "all.ndjson").read_text())
    operation = next(line for line in exported if line.get("k") == "operation" and line["id"] == "a")
    lines = exported[exported.index(operation) + 1 :][: operation["n"]]
    end_ms = int(lines[-1]["p"].partition("-")[0])

    def served(*words: str) -> tuple[str, Any]:
        with recorded.process("replay", "a", "--speed", "max", "--serve", "0", *words) as server:
            wait_until(lambda: "replayed" in server.output(), "it has happened")
            [url] = re.findall(r"serving on (http://\S+)", server.output())
            found = httpx.get(f"{url}/v1/operations/a").json()
            assert server.stop(signal.SIGTERM) == 0
        return server.output(), found

    output, found = served("--after", lines[-2]["p"])
    assert "1 event replayed" in output
    assert (found["status"], found["position"], found["events"]) == ("succeeded", lines[-1]["p"], len(lines))
    output, found = served("--until", str(end_ms))
    assert f"{len(lines) - 1} events replayed" in output
    assert (found["status"], found["position"], found["result"]) == ("pending", lines[-2]["p"], None)


def test_what_a_server_in_memory_can_not_do_is_told(recorded: Shell) -> None:
    for words in (["--loop"], ["--types", "log"], ["--to", "operation:c"], ["--target", "http://localhost:1"]):
        assert "--serve shows operations whole, once" in recorded.fails(2, "replay", "a", "--serve", "0", *words)
