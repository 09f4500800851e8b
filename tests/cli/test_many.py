"""Commands on many operations: a look, a question, and what came of it; the same in Redis and through a server."""

import json

import pytest

from tests.cli.conftest import Shell


def make(shell: Shell, *ids: str, kind: str = "many", ended: bool = False) -> None:
    for id in ids:
        shell.says("publish", id, "--create", "--kind", kind, "--type", "progress", "--data", '{"percent": 1}')
        if ended:
            error = {"type": "timeout", "message": f"no answer for {id}"}
            shell.says("publish", id, "--type", "end", "--data", json.dumps({"status": "failed", "error": error}))


def ids(shell: Shell, *words: str) -> set[str]:
    return set(shell.says("ls", "--kind", "many", *words, "-o", "name").split())


def many_at_once(shell: Shell) -> None:
    make(shell, "m1", "m2", "m3", "m4")
    make(shell, "f1", "f2", ended=True)
    assert ids(shell) == {"m1", "m2", "m3", "m4", "f1", "f2"}
    looked = shell.run("cancel", "--kind", "many", "--dry-run")
    assert "4 operations would be cancelled" in looked.stderr
    assert {"m1", "m2", "m3", "m4"} <= set(looked.stderr.split())
    assert ids(shell, "--status", "cancelling,cancelled") == set()
    assert "confirm with --yes" in shell.fails(2, "cancel", "--kind", "many")
    assert "more than 3 operations match" in shell.fails(2, "cancel", "--kind", "many", "--max", "3", "--yes")
    assert "name operations, or choose them" in shell.fails(2, "cancel", "--yes")
    assert "not both" in shell.fails(2, "cancel", "m1", "--kind", "many", "--yes")
    assert "not a valid id" in shell.fails(4, "cancel", "m1", "m/2", "--yes")
    assert shell.says("signal", "--kind", "many", "pause", "--yes") == "4 signalled\n"
    assert shell.says("cancel", "m1", "m2", "none", "--force", "--yes") == (
        "2 cancelled, 1 skipped, as there was nothing to do\n"
    )
    assert shell.says("cancel", "-", "--force", "--yes", stdin=b"m3\n\nm3\n") == "1 cancelled\n"
    assert shell.says("cancel", "-", "--yes") == "0 cancelled\n"
    assert ids(shell, "--status", "cancelled") == {"m1", "m2", "m3"}
    assert shell.says("retain", "--kind", "many", "--status", "failed", "--pin", "--yes") == "2 kept anew\n"
    [failed] = [it for it in shell.lines("ls", "--kind", "many") if it["id"] == "f1"]
    assert failed["expires_at"] > "2030"
    groups = [json.loads(line) for line in shell.says("failures", "--kind", "many", "-o", "jsonl").splitlines()]
    assert [(it["error"], it["number"], it["message"]) for it in groups] == [("timeout", 2, "no answer for f2")]
    assert "many" in shell.says("failures", "--kind", "many", "--by", "kind")
    refused = shell.run("rm", "m4", "f2", "--yes")
    assert (refused.returncode, refused.stdout) == (2, "1 deleted, 1 failed\n")
    assert "m4: operation m4 is running: cancel it, or delete it with force" in refused.stderr
    assert shell.says("purge", "--kind", "many", "--id-prefix", "m", "--yes") == "3 deleted\n"
    assert ids(shell) == {"m4", "f1"}
    assert shell.says("rm", "f1") == "1 deleted\n"
    assert shell.says("rm", "--kind", "many", "--force", "--yes") == "1 deleted\n"
    assert ids(shell) == set()
    assert shell.says("purge", "--kind", "many", "--yes") == "0 deleted\n"


def test_commands_on_many(shell: Shell) -> None:
    many_at_once(shell)
    audit = shell.says("audit", "--action", "delete", "-o", "jsonl")
    assert "kind=many" in audit


def test_a_purge_keeps_the_newest(shell: Shell) -> None:
    for number in range(3):
        make(shell, f"a{number}", kind="a", ended=True)
        make(shell, f"b{number}", kind="b", ended=True)
    make(shell, "open", kind="a")
    assert shell.says("purge", "--keep", "2", "--per", "kind", "--yes") == "2 deleted\n"
    assert set(shell.says("ls", "-o", "name").split()) == {"a1", "a2", "b1", "b2", "open"}
    assert shell.says("purge", "--kind", "a", "--keep", "1", "--yes") == "1 deleted\n"
    assert shell.says("purge", "--keep", "9", "--yes") == "0 deleted\n"
    assert "--keep" in shell.fails(2, "purge", "--per", "kind", "--yes")


def test_what_lists_show(shell: Shell) -> None:
    make(shell, "a", "b")
    make(shell, "c", ended=True)
    counts = json.loads(shell.says("ls", "--counts", "--json"))
    assert counts == {"counts": {"running": 2, "failed": 1}, "total": 3, "approximate": False}
    assert shell.says("ls", "--counts").splitlines()[-1].split() == ["total", "3"]
    assert shell.says("ls", "--all", "-o", "name").split() == ["c", "b", "a"]
    assert shell.says("ls", "--sort", "ended", "-o", "name").split() == ["c"]
    head, row = shell.says("ls", "--error", "ANSWER", "-o", "csv").splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True))["error"] == "timeout"
    assert "only operations that ended" in shell.fails(2, "ls", "--sort", "ended", "--status", "running")


@pytest.mark.parametrize("words", [("--for", "1d", "--pin"), (), ("--for", "99999d")])
def test_how_long_is_said_once(shell: Shell, words: tuple[str, ...]) -> None:
    make(shell, "a")
    shell.fails(2, "retain", "a", *words)


def test_many_are_followed_at_a_time(shell: Shell) -> None:
    make(shell, "t1", "t2", "other", kind="tailed")
    with shell.open("tail", "--kind", "tailed", "--id-prefix", "t", "--follow", "--grep", "now|Row|end") as tail:
        assert tail.stdout

        def line() -> list[str]:
            assert tail.stdout
            said: str = tail.stdout.readline().decode()
            return said.split()

        assert {line()[0] for _ in range(2)} == {"t1", "t2"}
        shell.says("publish", "t1", "--type", "log", "--data", '{"message": "Row 7"}')
        assert line()[-2:] == ["Row", "7"]
        shell.says("publish", "t1", "--type", "log", "--data", '{"message": "nothing"}')
        make(shell, "t3", kind="tailed")
        assert line()[0] == "t3"
        shell.says("publish", "t3", "--type", "end", "--data", '{"status": "failed"}')
        assert line()[:1] == ["t3"]
        tail.terminate()
    for id in ("t1", "t2"):
        shell.says("publish", id, "--type", "end", "--data", '{"status": "succeeded"}')
    both = shell.run("tail", "t1", "t2", "--from", "start", "--json", "--types", "log")
    assert both.returncode == 0
    assert [(event["operation"], event["type"]) for event in map(json.loads, both.stdout.splitlines())].count(
        ("t1", "log")
    ) == 2
    assert "regular expression" in shell.fails(2, "tail", "--kind", "k", "--grep", "(")
    missing = shell.run("tail", "none", "no", "--types", "log")
    assert (missing.returncode, missing.stderr.count("there is no operation")) == (4, 2)
