"""The SDK's types from a user's point of view: mypy and pyright accept correct code and find the user's mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file="],
    "pyright": [str(ROOT / "tests/node_modules/.bin/pyright"), "--pythonpath", sys.executable, "--level", "error"],
}
MISTAKES = """
from progress_workers import Operation, tracked
op = Operation.start("import", total=3)
op.advance("three")
op.stage("parse", weight="heavy")
op.log(message=3)

@tracked
def squared(number: int) -> int: return number * number
squared("three")
Operation.start("import", totl=3)
"""


def check(checker: str, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CHECKERS[checker], str(file)], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_a_typed_user_writes_is_right(checker: str) -> None:
    checked = check(checker, HERE / "typed_user.py")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_typed_user_s_mistakes_are_found(checker: str, tmp_path: Path) -> None:
    file = tmp_path / "mistakes.py"
    file.write_text(MISTAKES)
    checked = check(checker, file)
    told = [line for line in checked.stdout.splitlines() if "mistakes.py:" in line and "error" in line]
    found = {int(line.split("mistakes.py:")[1].split(":")[0]) for line in told}
    assert found == {4, 5, 6, 10, 11}, checked.stdout
