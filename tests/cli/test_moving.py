"""Moving operations by commands."""

import asyncio
import gzip
import json
import random
import signal
import subprocess
from typing import Any

import pytest
import redis
import zstandard

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from tests.cli.conftest import Shell
from tests.conftest import make_settings
from tests.servers import wait_until


def lines_of(text: bytes | str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_export_writes_a_file_or_prints_it(shell: Shell) -> None:
    for id in ("a", "b"):
        shell.says(
            "publish", id, "--create", "--kind", "import" if id == "a" else "job", "--type", "progress", "--data", "{}"
        )
    shell.says("publish", "a", "--type", "end", "--data", '{"status": "succeeded"}')
    printed = lines_of(shell.says("export"))
    assert [line.get("k") for line in printed[:: len(printed) - 1]] == [None, "eof"]
    assert printed[-1]["operations"] == 2
    one = lines_of(shell.says("export", "a", "-"))
    assert [line["id"] for line in one if line.get("k") == "operation"] == ["a"]
    for name, open_with in (("x.ndjson", open), ("x.ndjson.gz", gzip.open), ("x.ndjson.zst", zstandard.open)):
        done = shell.run("export", "--kind", "import", name)
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"progress-broker: 1 operation with 4 events exported to {name}\n"
        with open_with(shell.folder / name, "rb") as file:
            assert lines_of(file.read())[1:] == one[1:]
    assert sorted(path.name for path in shell.folder.glob("x.*")) == ["x.ndjson", "x.ndjson.gz", "x.ndjson.zst"]
    done = shell.run("export", "a", "nobody", "./some")
    assert done.returncode == 4
    assert "there is no operation nobody; the export has the others" in done.stderr
    assert lines_of((shell.folder / "some").read_bytes())[-1]["operations"] == 1
    assert "can't be written" in shell.fails(2, "export", "./nowhere/x")


def test_import_stores_what_export_wrote_and_tells_what_came_of_it(shell: Shell) -> None:
    for id in ("a", "b", "open"):
        shell.says("publish", id, "--create", "--kind", "import", "--type", "progress", "--data", "{}")
        if id != "open":
            shell.says("publish", id, "--type", "end", "--data", '{"status": "succeeded"}')
    shell.run("export", "all.ndjson.zst")
    shell.run("export", "a", "b", "ended.ndjson")
    before = shell.lines("show", "a")
    flush(shell)
    done = shell.run("import", "all.ndjson.zst", "--dry-run")
    assert done.returncode == 2
    assert "3 operations: " in done.stderr
    assert "2 stored" in done.stderr
    assert shell.lines("ls") == []
    done = shell.run("import", "all.ndjson.zst")
    assert (done.returncode, done.stdout.split()[:5]) == (2, ["ID", "RESULT", "WHY", "open", "refused"])
    done = shell.run("import", "ended.ndjson", "-o", "jsonl")
    assert done.returncode == 0
    assert sorted((line["id"], line["result"]) for line in lines_of(done.stdout)) == [
        ("a", "skipped"),
        ("b", "skipped"),
    ]
    [after] = shell.lines("show", "a")
    assert after | {"expires_at": 0} == before[0] | {"expires_at": 0}
    text = (shell.folder / "ended.ndjson").read_bytes()
    done = shell.run("import", "-", "--on-conflict", "suffix=-2", stdin=text)
    assert (done.returncode, done.stdout) == (0, "ID  RESULT  WHY\n")
    assert done.stderr == "progress-broker: 2 operations: 2 stored\n"
    assert {line["id"] for line in shell.lines("ls")} == {"a", "b", "a-2", "b-2"}
    audited = lines_of(shell.says("audit", "--action", "import", "-o", "jsonl"))
    assert [line["detail"] for line in audited][:1] == ["2 stored"]


def test_import_of_a_file_that_is_cut_short_changes_nothing_unless_partial(shell: Shell) -> None:
    for id in ("a", "b"):
        shell.says("publish", id, "--create", "--type", "end", "--data", '{"status": "succeeded"}')
    shell.run("export", "all.ndjson")
    text = (shell.folder / "all.ndjson").read_bytes()
    cut = text[: text.rindex(b'{"k":"end"')]
    (shell.folder / "cut.ndjson").write_bytes(cut)
    flush(shell)
    assert "was cut short" in shell.fails(2, "import", "cut.ndjson")
    assert shell.lines("ls") == []
    done = shell.run("import", "cut.ndjson", "--partial")
    assert done.returncode == 2
    assert "was cut short" in done.stderr
    assert len(shell.lines("ls")) == 1
    done = shell.run("import", "-", stdin=cut)
    assert done.returncode == 2
    assert "1 operation: 1 skipped before the error" in done.stderr
    assert "is no export" in shell.fails(2, "import", "-", stdin=b"hello\n")
    assert "can't be read" in shell.fails(2, "import", "nowhere")
    assert "expected fail, skip" in shell.fails(2, "import", "all.ndjson", "--on-conflict", "suffix=")


def flush(shell: Shell) -> None:
    with redis.Redis.from_url(shell.env["PROGRESS_REDIS_URL"]) as client:
        client.flushall()


def test_an_import_that_is_killed_leaves_operations_whole_or_absent(shell: Shell) -> None:
    """And what it leaves otherwise goes by itself; the same import may be repeated."""
    lines = [f'{{"type": "log", "data": {{"message": "{"x" * 200} {n}"}}}}' for n in range(900)]
    for id in ("a", "b", "c"):
        shell.says("publish", id, "-", "--create", stdin="\n".join(lines).encode())
        shell.says("publish", id, "--type", "end", "--data", '{"status": "succeeded"}')
    text = shell.run("export").stdout.encode()
    whole = {line["id"]: line["sha256"] for line in lines_of(text) if line.get("k") == "end"}
    chosen = random.Random(8)
    for _ in range(6):
        flush(shell)
        with shell.open("import", "-", stdin=subprocess.PIPE) as command:
            pipe = command.stdin
            assert pipe is not None
            pipe.write(text[: chosen.randrange(len(text))])
            pipe.flush()
            with redis.Redis.from_url(shell.env["PROGRESS_REDIS_URL"]) as client:
                wait_until(lambda client=client: client.keys("*:import:*") or client.keys("*:op:*"), "it has begun")
            command.kill()
        found = lines_of(shell.says("export"))
        assert {line["id"]: line["sha256"] for line in found if line.get("k") == "end"}.items() <= whole.items()
        with redis.Redis.from_url(shell.env["PROGRESS_REDIS_URL"]) as client:
            assert all(client.pttl(key) > 0 for key in client.keys("*:import:*"))
            client.delete(*client.keys("*:import:*"), "nothing")  # ten minutes later
    shell.run("import", "-", stdin=text)
    assert {line["id"]: line["sha256"] for line in lines_of(shell.says("export")) if line.get("k") == "end"} == whole


class TestReplay:
    @pytest.fixture
    def recorded(self, shell: Shell) -> Shell:
        lines = [f'{{"type": "log", "data": {{"message": "line {n}"}}}}' for n in range(5)]
        shell.says("publish", "a", "-", "--create", "--kind", "import", stdin="\n".join(lines).encode())
        shell.says("publish", "a", "--type", "end", "--data", '{"status": "succeeded", "result": {"rows": 5}}')
        shell.run("export", "a", "a.ndjson")
        return shell

    def test_it_prints_what_tail_prints(self, recorded: Shell) -> None:
        tail = recorded.says("tail", "a", "--from", "start", "--json")
        for what in ("a", "a.ndjson"):
            done = recorded.run("replay", what, "--speed", "max")
            assert (done.returncode, done.stdout) == (0, tail)
            assert done.stderr == "progress-broker: 7 events replayed\n"
        position = lines_of((recorded.folder / "a.ndjson").read_bytes())[4]["p"]
        done = recorded.run("replay", "a", "--after", position, "--speed", "1000")
        assert done.stdout.splitlines() == tail.splitlines()[3:]
        assert "4 events replayed, 99 % of them within" in done.stderr
        assert (
            recorded.run("replay", "a", "--types", "progress", "--speed", "max").stdout == tail.splitlines()[-1] + "\n"
        )
        assert recorded.run("replay", "a", "--until", "2020-01-01T00:00:00Z").stdout == ""
        stepped = recorded.run("replay", "a", "--step", stdin=b"\n" * 20)
        assert stepped.stdout == tail

    def test_it_publishes_them_to_a_new_operation(self, recorded: Shell) -> None:
        for _ in range(2):  # what was published is not published twice
            done = recorded.run("replay", "a.ndjson", "--speed", "max", "--to", "operation:b")
            assert done.returncode == 0, done.stderr
        [copy] = recorded.lines("show", "b")
        assert (copy["status"], copy["kind"], copy["result"]) == ("succeeded", "import", {"rows": 5})
        assert copy["tags"] == ["replay_of:a"]
        events = lines_of(recorded.says("tail", "b", "--from", "start", "--json"))
        before = lines_of(recorded.says("tail", "a", "--from", "start", "--json"))
        assert [(event["type"], event["data"]) for event in events if event["type"] == "log"] == [
            (event["type"], event["data"]) for event in before if event["type"] == "log"
        ]

    def test_what_is_wrong_is_told(self, recorded: Shell) -> None:
        assert "there is no operation nobody" in recorded.fails(4, "replay", "a", "nobody")
        assert "no operation matches" in recorded.fails(2, "replay", "nobody")
        assert "expected a number above 0" in recorded.fails(2, "replay", "a", "--speed", "0")
        assert "expected - or operation:ID" in recorded.fails(2, "replay", "a", "--to", "b")
        assert "is no time" in recorded.fails(2, "replay", "a", "--since", "soon")


def test_archive_backup_and_restore(shell: Shell) -> None:
    for id in ("a", "b"):
        shell.says("publish", id, "--create", "--kind", "import", "--type", "end", "--data", '{"status": "succeeded"}')
    shell.says("publish", "open", "--create", "--type", "progress", "--data", "{}")
    done = shell.run("archive", "--to", "archived", "--once")
    assert done.stderr == "progress-broker: 2 operations archived, 0 were there before\n"
    assert "3 operations with 7 events in saved" in shell.run("backup", "saved").stderr
    [shown], tail = shell.lines("show", "a"), shell.says("tail", "a", "--from", "start", "--json")
    flush(shell)
    assert shell.lines("show", "a", "--from", "archived")[0] | {"expires_at": 0} == shown | {"expires_at": 0}
    assert "; if it was archived, `--from ARCHIVE` shows it" in shell.fails(4, "show", "a")
    assert "has no operation open" in shell.fails(4, "show", "open", "--from", "archived")
    assert shell.run("replay", "a", "--from", "archived", "--speed", "max").stdout == tail
    assert "3 operations with 7 events in saved: the backup is whole" in shell.run("restore", "saved", "--check").stderr
    assert shell.lines("ls") == []
    done = shell.run("restore", "saved")
    assert (done.returncode, done.stderr) == (0, "progress-broker: 3 operations: 3 stored\n")
    assert "has no whole backup" in shell.fails(2, "restore", "archived")


async def make_ended(redis_url: str, count: int) -> None:
    async with await Store.open(make_settings(redis_url=redis_url)) as store:
        for n in range(count):
            await store.create(NewOperation(id=f"op-{n}"))
            await store.publish(f"op-{n}", [NewEvent("end", b'{"status":"succeeded"}', "succeeded")])


def test_an_archiver_goes_on_for_one_that_was_killed_and_writes_nothing_twice(shell: Shell, redis_url: str) -> None:
    count, place = 400, shell.folder / "archive"
    asyncio.run(make_ended(redis_url, count))

    def archived() -> dict[str, tuple[int, int]]:
        found = {path.parent.name: path.stat() for path in place.glob("op/*/*/*.zst")}
        return {id: (stat.st_ino, stat.st_mtime_ns) for id, stat in found.items()}

    words = ("archive", "--to", str(place), "--every", "0.1s")
    with shell.process(*words) as writer:
        wait_until(lambda: len(archived()) > 4, "some are archived")
        writer.send(signal.SIGSTOP)  # it keeps the lease, and writes no more
        with shell.process(*words) as other:
            said = f"waiting for the archive {place}: process {writer.pid} of"
            wait_until(lambda: said in other.output(), "the other one waits")
            writer.stop(signal.SIGKILL)
            before = archived()
            assert 4 < len(before) < count
            with redis.Redis.from_url(redis_url) as client:
                [lease] = client.keys("*:archiver:*")
                assert 0 < client.pttl(lease) <= 30_000
                client.delete(lease)  # as after 30 s
            wait_until(lambda: len(archived()) == count, "the other one goes on")
            assert before.items() <= archived().items()
            assert other.stop() == 0
            assert f"{count - len(before)} operations archived" in other.output()
    flush(shell)
    for id in (*list(before)[-3:], "op-0", f"op-{count - 1}"):
        assert shell.lines("show", id, "--from", str(place))[0]["status"] == "succeeded"
