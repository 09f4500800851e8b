"""What import-linter does not hold: no circles in a package, folders that fit on a screen, a short reading tour."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {path.name: path for path in sorted(ROOT.glob("*/progress_*")) if (path / "__init__.py").is_file()}
MOST_MODULES = 12
"""In a folder; `__init__.py` is not counted."""
LONGER = {"progress_workers"}
"""Whose public modules people import by name."""
TOUR_FILES = 10
TOUR_LINES = 1_500

Graph = dict[str, set[str]]


def modules(package: Path) -> dict[str, Path]:
    """Return the modules below a folder by their names; a package's own is its `__init__.py`."""
    return {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in package.rglob("*.py")
    }


def imported(code: str, known: dict[str, Path]) -> Iterator[str]:
    """Tell which of the known modules code imports: anywhere in it, in functions and for type checkers too."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name modules in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known:
                    yield inner
                elif node.module in known:
                    yield node.module


def graph_of(package: Path) -> Graph:
    known = modules(package)
    return {name: set(imported(path.read_text("utf-8"), known)) for name, path in known.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of modules each of which imports itself by way of the others."""
    reached = {name: _reached(graph, name) for name in graph}
    groups = {frozenset(other for other in ahead if name in reached[other]) for name, ahead in reached.items()}
    return sorted(sorted(group) for group in groups if group)


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - seen
        seen |= new
        ahead += new
    return seen


def test_circles_are_found() -> None:
    graph: Graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}, "f": {"a"}}
    assert circles(graph) == [["b", "c"], ["e"]]


def test_imports_are_seen_wherever_they_stand() -> None:
    known = dict.fromkeys(("p", "p.a", "p.b", "p.c"), Path())
    code = """
import p.a, elsewhere
from p import thing, c
if TYPE_CHECKING:
    from p.b import Thing
def late():
    from p.a import other
"""
    assert sorted(imported(code, known)) == ["p", "p.a", "p.a", "p.b", "p.c"]


def test_there_are_six_packages() -> None:
    assert set(PACKAGES) == {
        "progress_broker",
        "progress_cli",
        "progress_client",
        "progress_server",
        "progress_web",
        "progress_workers",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    assert circles(graph_of(PACKAGES[package])) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_has_few_modules(package: str) -> None:
    counted: dict[str, int] = {}
    for name, path in modules(PACKAGES[package]).items():
        if path.name != "__init__.py":
            counted[name.rpartition(".")[0]] = counted.get(name.rpartition(".")[0], 0) + 1
    assert {name: count for name, count in counted.items() if count > MOST_MODULES and name not in LONGER} == {}


def test_the_reading_tour_is_short() -> None:
    files = re.findall(r"^\d+\. `([^`]+)`", (ROOT / "docs" / "design.md").read_text("utf-8"), re.MULTILINE)
    assert len(files) == TOUR_FILES
    lines = {file: len((ROOT / file).read_text("utf-8").splitlines()) for file in files}
    assert sum(lines.values()) <= TOUR_LINES, lines
