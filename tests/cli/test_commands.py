"""`ls`, `show`, `cancel` and `publish`."""

import json
import signal
import subprocess
import sys

from progress_cli.caller import caller
from progress_cli.input.lines import MAX_BATCH
from tests.cli.conftest import Shell
from tests.servers import wait_until


def make(shell: Shell, id: str, *words: str) -> None:
    shell.says("publish", id, "--create", *words)


def test_a_listing_is_filtered_limited_and_newest_first(shell: Shell) -> None:
    make(shell, "parent")
    make(shell, "c", "--owner", "bob", "--parent", "parent", "--type", "progress", "--data", '{"percent": 40}')
    make(shell, "a", "--kind", "import", "--owner", "alice", "--tag", "eu", "--tag", "nightly")
    make(shell, "b", "--kind", "export", "--owner", "alice", "--title", "All of it")
    listed = [operation["id"] for operation in shell.lines("ls")]
    assert listed[:2] == ["b", "a"]
    assert set(listed[2:]) == {"c", "parent"}  # a child changes its parent, unless that has just been changed
    for words, found in (
        (["--owner", "alice"], ["b", "a"]),
        (["--kind", "import", "--owner", "alice"], ["a"]),
        (["--tag", "nightly"], ["a"]),
        (["--parent", "parent"], ["c"]),
        (["--status", "running"], ["c"]),
        (["--limit", "1"], ["b"]),
        (["--owner", "nobody"], []),
    ):
        assert [operation["id"] for operation in shell.lines("ls", *words)] == found
    head, *rows = shell.says("ls").splitlines()
    assert head.split() == ["ID", "KIND", "STATUS", "PROGRESS", "OWNER", "CHANGED", "TITLE"]
    assert [row.split()[0] for row in rows][:2] == ["b", "a"]
    assert "40.0 %" in next(row for row in rows if row.startswith("c "))
    assert rows[0].index("export") == head.index("KIND")


def test_a_listing_goes_over_all_pages(shell: Shell) -> None:
    stdin = b"".join(b'{"type":"log","data":{"message":"%d"}}\n' % number for number in range(3))
    for number in range(3):
        make(shell, f"op-{number}")
    assert len(shell.lines("ls", "--limit", "1000")) == 3
    assert json.loads(shell.says("publish", "op-0", "-", "--json", stdin=stdin))["events"] == 4


def test_one_operation_is_shown(shell: Shell) -> None:
    data = {"percent": 50, "current": 5, "total": 10, "unit": "rows", "message": "reading", "metrics": {"files": 3}}
    data["stages"] = [{"name": "parse", "status": "running", "percent": 50}]
    make(shell, "a", "--title", "Import", "--type", "progress", "--data", json.dumps(data))
    shell.says("publish", "a", "--type", "end", "--data", '{"status": "succeeded", "result": {"rows": 10}}')
    text = shell.says("show", "a")
    for part in (
        "Import",
        "succeeded",
        "50.0 %  5/10 rows  reading",
        '{"rows":10}',
        "parse: running  50.0 %",
        "files: 3",
    ):
        assert part in text
    (operation,) = shell.lines("show", "a")
    assert operation["result"] == {"rows": 10}


def test_a_failure_is_shown_with_its_traceback_and_causes(shell: Shell) -> None:
    cause = {"type": "KeyError", "message": "'x'", "traceback": "  in b"}
    error = {"type": "ValueError", "message": "bad", "traceback": "  File a, line 1\n    b()", "cause": cause}
    make(shell, "a", "--type", "progress", "--data", "{}")
    shell.says("publish", "a", "--type", "end", "--data", json.dumps({"status": "failed", "error": error}))
    lines = [line.split(maxsplit=1) for line in shell.says("show", "a").splitlines()]
    shown = [tuple(part.strip() for part in line) for line in lines if line[0] in ("outcome", "traceback", "cause")]
    assert shown == [
        ("outcome", "ValueError: bad"),
        ("traceback", "File a, line 1"),
        ("traceback", "b()"),
        ("cause", "KeyError: 'x'"),
        ("traceback", "in b"),
    ]
    assert shell.lines("show", "a")[0]["error"] == error


def test_metadata_is_given_shown_and_searched_by(shell: Shell) -> None:
    make(
        shell,
        "a",
        "--metadata",
        "customer=42",
        "--metadata",
        "name=ann b=c",
        "--metadata",
        '{"list": [1], "flag": true}',
    )
    make(shell, "b", "--metadata", 'customer="43"')
    (operation,) = shell.lines("show", "a")
    assert operation["metadata"] == {"customer": 42, "name": "ann b=c", "list": [1], "flag": True}
    shell.says("publish", "a", "--type", "metadata", "--data", '{"flag": null, "customer": 43}')
    text = shell.says("show", "a")
    for part in ("customer: 43", "name: ann b=c", "list: [1]"):
        assert part in text
    assert "flag" not in text
    assert {it["id"] for it in shell.lines("ls", "--metadata", "customer=43")} == {"a", "b"}
    assert [it["id"] for it in shell.lines("ls", "--metadata", "customer=43", "--metadata", "name=ann b=c")] == ["a"]
    assert shell.lines("ls", "--metadata", "customer=42") == []
    for bad in ("customer", "=x", "{", "[1]"):
        assert "metadata" in shell.fails(2, "publish", "c", "--create", "--metadata", bad) or bad == "{"
    assert "metadata: expected" in shell.fails(2, "ls", "--metadata", "customer")
    assert len(shell.lines("ls")) == 2


def test_a_parent_is_shown_with_its_children(shell: Shell) -> None:
    make(shell, "album", "--type", "progress", "--data", "{}")
    for id, percent in (("a", 80), ("b", 20)):
        data = json.dumps({"percent": percent, "message": f"photo {id}"})
        make(shell, id, "--parent", "album", "--title", f"Photo {id}", "--type", "progress", "--data", data)
    shell.says("publish", "b", "--type", "end", "--data", '{"status": "failed"}')
    text = shell.says("show", "album")
    for part in ("progress  50.0 %", "children  2  50.0 %  1 done, 1 failed, 1 running"):
        assert part in text
    rows = [line for line in text.splitlines() if line.startswith("child ")]
    assert [row.split()[1:3] for row in rows] == [["a:", "running"], ["b:", "failed"]]
    assert "80.0 %  photo a" in rows[0]
    (shown,) = shell.lines("show", "album")
    assert [child["id"] for child in shown["children"]["operations"]] == ["a", "b"]
    assert any(line.startswith("album") and "50.0 %" in line for line in shell.says("ls").splitlines())
    shell.says("publish", "album", "--type", "end", "--data", '{"status": "succeeded"}')
    assert "child     a  Photo a" in shell.says("tail", "album", "--from", "start")


def test_what_publishers_write_can_not_play_with_the_terminal(shell: Shell) -> None:
    make(shell, "a", "--type", "progress", "--data", json.dumps({"message": "\x1b[31m red [bold]\r\n"}))
    assert "\\x1b[31m red [bold]\\x0d\\x0a" in shell.says("show", "a")
    assert "\x1b" not in shell.says("tail", "a", "--from", "start", "--help")


def test_an_operation_that_is_not_there(shell: Shell) -> None:
    for words in (["show"], ["cancel"], ["tail"], ["publish", "--type", "log", "--data", '{"message": "x"}']):
        command, *rest = words
        assert "there is no operation nope" in shell.fails(4, command, "nope", *rest)


def test_a_cancel_says_what_it_did(shell: Shell) -> None:
    make(shell, "a", "--type", "progress", "--data", "{}")
    assert shell.says("cancel", "a", "--reason", "too slow") == "a: cancelling\n"
    assert shell.says("cancel", "a") == f"a: already cancelling: asked to stop by {caller()}: too slow\n"
    assert "a cancel was requested" in shell.says("publish", "a", "--type", "progress", "--data", "{}")
    shell.says("publish", "a", "--type", "end", "--data", '{"status": "cancelled"}')
    assert shell.says("cancel", "a") == "a: already cancelled\n"
    assert shell.lines("cancel", "a")[0]["status"] == "cancelled"
    assert shell.says("cancel", "a", "--force") == "a: already cancelled\n"
    assert "not a valid id" in shell.fails(4, "cancel", "a/b")


def test_the_audit_has_what_was_done_to_one_operation(shell: Shell) -> None:
    make(shell, "a", "--type", "progress", "--data", "{}")
    shell.says("signal", "a", "pause")
    for _ in range(2):  # the second one changes nothing
        shell.says("cancel", "a", "--reason", "too slow")
    shell.says("cancel", "a", "--force")
    entries = [json.loads(line) for line in shell.says("audit", "--target", "a", "-o", "jsonl").splitlines()]
    assert [(entry["action"], entry["detail"]) for entry in reversed(entries)] == [
        ("signal", "pause"),
        ("cancel", "too slow"),
        ("cancel", "by force"),
    ]
    assert {(entry["who"], entry["via"], entry["result"]) for entry in entries} == {(caller(), "redis", "ok")}


def test_a_cancel_of_what_nobody_has_begun_ends_it(shell: Shell) -> None:
    make(shell, "a")
    assert shell.says("cancel", "a") == "a: not started yet, now cancelled\n"


def test_a_worker_that_ignores_a_cancel_is_told_of_and_left_behind_by_force(shell: Shell) -> None:
    shell.env["PROGRESS_FORCE_CANCEL_AFTER_S"] = "0.001"
    make(shell, "a", "--type", "progress", "--data", "{}")
    shell.says("cancel", "a", "--reason", "too slow")
    hint = "its worker does not stop, end it with --force"
    wait_until(lambda: hint in shell.says("cancel", "a"), "its time is over")
    said = dict(line.split(maxsplit=1) for line in shell.says("show", "a").splitlines())
    assert said["status"] == "cancelling"
    assert said["cancel"].startswith(f"asked to stop by {caller()}: too slow; 20")
    assert said["overdue"].startswith("its worker should have stopped at 20")
    assert shell.says("cancel", "a", "--force") == "a: ended by force: cancelled\n"
    shown = shell.says("show", "a")
    assert f"cancelled: ended by force (by {caller()})" in shown
    assert "too slow" in shown
    assert "overdue" not in shown
    assert "is already cancelled" in shell.fails(
        2, "publish", "a", "--type", "log", "--data", '{"message": "still here"}'
    )


def test_rejected_input_is_told_with_its_line_and_what_came_before_is_stored(shell: Shell) -> None:
    make(shell, "a")
    bad = b'{"type":"log","data":{"message":"one"}}\n\n{"type":"log","data":{}}\n'
    assert shell.fails(2, "publish", "a", "-", stdin=bad).startswith("line 3: message:")
    assert shell.lines("show", "a")[0]["events"] == 2
    assert "not JSON" in shell.fails(2, "publish", "a", "--type", "log", "--data", "{")
    assert "error" in shell.fails(2, "publish", "a", "--type", "error", "--data", "{}")
    shell.says("publish", "a", "--type", "end", "--data", '{"status": "failed"}')
    assert "is already failed" in shell.fails(2, "publish", "a", "--type", "log", "--data", '{"message": "late"}')
    assert "different body" in shell.fails(2, "publish", "a", "--create", "--kind", "other")


def test_what_tail_prints_can_be_published(shell: Shell) -> None:
    make(shell, "a", "--type", "progress", "--data", '{"percent": 40, "message": "half"}')
    shell.says("publish", "a", "--type", "log", "--data", '{"message": "hi", "level": "warning"}')
    shell.says("publish", "a", "--type", "invoice", "--data", '{"amount": 3}')
    make(shell, "child", "--parent", "a")
    shell.says("cancel", "a", "--reason", "enough")
    shell.says("publish", "a", "--type", "end", "--data", '{"status": "cancelled", "result": {"rows": 7}}')

    def printed(id: str, *words: str) -> str:
        return shell.run("tail", id, *words, "--json").stdout

    def copied(id: str, lines: str) -> list[tuple[str, object]]:
        shell.says("publish", id, "--create", "-", stdin=lines.encode())
        events = map(json.loads, printed(id, "--from", "start").splitlines())
        return [(event["type"], event["data"]) for event in events]

    first = copied("b", printed("a", "--from", "start"))
    assert [kind for kind, _ in first] == ["status", "status", "progress", "log", "invoice", "end"]
    assert first[2:5] == [
        ("progress", {"percent": 40, "message": "half"}),
        ("log", {"message": "hi", "level": "warning"}),
        ("invoice", {"amount": 3}),
    ]
    assert copied("c", printed("b", "--from", "start")) == first
    assert [kind for kind, _ in copied("d", printed("a"))] == ["status", "status", "progress", "end"]
    (operation,) = shell.lines("show", "d")
    assert (operation["status"], operation["result"]) == ("cancelled", {"rows": 7})
    assert operation["progress"]["percent"] == 40


def test_bad_input_creates_nothing(shell: Shell) -> None:
    good = b'{"type":"log","data":{"message":"one"}}\n'
    end = b'{"type":"end","data":{"status":"failed"}}\n'
    for bad, said in (
        (good * 2_000 + b'{"type":"log","data":{}}\n', "line 2001: message:"),
        (end + good, "line 2: nothing can follow the `end` event"),
        (b"hello\n", "line 1: "),
    ):
        assert shell.fails(2, "publish", "a", "--create", "-", stdin=bad).startswith(said)
        assert shell.lines("ls") == []
    with shell.open("publish", "a", "--create", "-", stdin=subprocess.PIPE) as publisher:
        _, told = publisher.communicate(b"hello\n")
        assert (publisher.returncode, told[:25]) == (2, b"progress-broker: line 1: ")
    assert shell.lines("ls") == []


def test_a_long_stream_is_stored_in_batches(shell: Shell) -> None:
    count = MAX_BATCH * 2 + 1
    stdin = b"".join(b'{"type":"log","data":{"message":"%d"}}\n' % number for number in range(count))
    answer = json.loads(shell.says("publish", "a", "-", "--create", "--json", stdin=stdin))
    assert answer["events"] == count + 1


def test_lines_are_published_as_they_arrive_and_ctrl_c_ends_quietly(shell: Shell) -> None:
    with shell.open("publish", "a", "-", "--create", stdin=subprocess.PIPE) as publisher:
        assert publisher.stdin
        assert publisher.stderr
        publisher.stdin.write(b'{"type":"progress","data":{"percent":1}}\n')
        publisher.stdin.flush()
        wait_until(lambda: (found := shell.lines("ls")) and found[0]["events"] == 3, "the event is stored")
        publisher.send_signal(signal.SIGINT)
        assert publisher.wait(120) == 130
        assert publisher.stderr.read() == b""


def test_a_reader_that_goes_away_ends_the_command_quietly(shell: Shell) -> None:
    stdin = b"".join(b'{"type":"log","data":{"message":"%s"}}\n' % (b"x" * 500) for _ in range(400))
    shell.says("publish", "a", "-", "--create", stdin=stdin)
    with shell.open_interpreter("tail", "a", "--from", "start") as tail:
        assert tail.stdout
        assert tail.stderr
        tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(120) == 141
        assert tail.stderr.read() == b""


def test_a_ctrl_c_while_it_loads_ends_it_quietly() -> None:
    pressing = """
import sys
class Pressed:
    def find_spec(self, name, *_):
        if name == "progress_cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
from progress_cli.__main__ import run
run()
"""
    done = subprocess.run([sys.executable, "-c", pressing], capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
