"""The list of long files names files."""

from tests.longest_first import FOLDER, LONGEST


def test_there_are_such_files() -> None:
    assert [name for name in LONGEST if not (FOLDER / name).is_file()] == []
    assert len(set(LONGEST)) == len(LONGEST)
