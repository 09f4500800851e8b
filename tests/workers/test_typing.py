"""The SDK's types from a user's point of view: mypy and pyright accept correct code and find the user's mistakes."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
USERS = [str(HERE / "typed_user.py")]
USERS += [str(ROOT / "tests" / name) for name in ("client/typed_reader.py", "mounted/typed_app.py")]
READ_BEFORE = ROOT / ".mypy_cache" / "users"
"""What mypy knows of the libraries from an earlier run, with a user's settings and not ours."""
CHECKERS = {
    "mypy": [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={READ_BEFORE}", "--config-file="],
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

from progress_client import End, watch
for event in watch("import-42"):
    if isinstance(event, End): print(event.outcome)
    print(event.message)
watch(42)

from progress_server import Principal, Progress
progress = Progress(authenticate=3)
Progress(cfrs=True)
Principal("alice", "read")
async def start() -> None:
    await progress.operations.create(kid="import")
    await progress.operations.cancel(7)

from progress_workers import AsyncOperation
AsyncOperation.start("import").advance()
from progress_client import AsyncClient, get
get(None)
AsyncClient(patience_s="5")
"""


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_a_typed_user_writes_is_right_and_mistakes_are_found(checker: str, tmp_path: Path) -> None:
    """In one run, as a checker reads the SDK and its libraries first, which takes nearly all of its time."""
    file = tmp_path / "mistakes.py"
    file.write_text(MISTAKES)
    command = [*CHECKERS[checker], *USERS, str(file)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    told = [line for line in checked.stdout.splitlines() if ".py:" in line and "error" in line]
    assert all("mistakes.py:" in line for line in told), checked.stdout
    found = {int(line.split("mistakes.py:")[1].split(":")[0]) for line in told}
    assert found == {4, 5, 6, 10, 11, 15, 16, 17, 20, 21, 22, 24, 25, 28, 30, 31}, checked.stdout
