"""Moving operations by commands."""

import gzip
import json
from typing import Any

import zstandard

from tests.cli.conftest import Shell


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
