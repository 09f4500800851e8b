"""Backups with what replicas share about callers."""

import json
import stat

import redis

from tests.cli.conftest import Shell


def test_a_backup_with_secrets_is_for_its_owner_and_is_restored(shell: Shell) -> None:
    shell.says("publish", "a", "--create", "--type", "end", "--data", '{"status": "succeeded"}')
    shell.run("limits", "set", "noisy", "--requests", "20")
    assert "1 operation with 2 events in saved" in shell.run("backup", "saved", "--secrets").stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (shell.folder / "saved").iterdir()}
    assert modes == dict.fromkeys(("callers.json", "manifest.json", "operations-00001.ndjson.zst"), 0o600)
    with redis.Redis.from_url(shell.env["PROGRESS_REDIS_URL"]) as client:
        client.flushall()
    assert shell.run("restore", "saved").stderr == "progress-broker: 1 operation: 1 stored\n"
    assert "noisy" not in shell.says("limits", "ls", "-o", "jsonl")
    done = shell.run("restore", "saved", "--secrets")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        0,
        "progress-broker: restored: secrets 0, revocations 0, limits 1",
    )
    assert "noisy" in shell.says("limits", "ls", "-o", "jsonl")
    audited = [json.loads(line) for line in shell.says("audit", "--action", "restore", "-o", "jsonl").splitlines()]
    assert [line["detail"] for line in audited] == ["secrets 0, revocations 0, limits 1"]
    shell.run("backup", "plain")
    assert "was made without --secrets" in shell.fails(2, "restore", "plain", "--secrets")
