"""Private names of others stand in two packages of the server alone, each of them in a list with its reason."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from progress_server.protocols.names import FEATURES, names_of
from tests.test_layers import PACKAGES, modules

ALLOWED = ("progress_server.protocols", "progress_server.server")
"""Where private names of others may be used."""

INTERNAL = ("uvicorn", "websockets", "httptools", "sse_starlette")
"""Whose modules are imported there alone, as most of what we need of them is undocumented."""

DOCUMENTED = {
    "_asdict": "namedtuple",
    "_replace": "namedtuple",
    "_fields": "namedtuple",
    "_exit": "os",
    "_value_": "enum",
}
"""Names that begin with an underscore, and are public all the same."""

KNOWN = {name: path for package in PACKAGES.values() for name, path in modules(package).items()}


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(KNOWN[module].read_text("utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES


def defined(tree: ast.AST) -> set[str]:
    """Return the names that code gives to something: functions, classes, variables, attributes, slots."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                names |= {slot.value for slot in ast.walk(value) if isinstance(slot, ast.Constant)}
    return names


def imports_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield modules, with what is imported from each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ClassDef)}


def own_names(module: str, cls: ast.ClassDef) -> set[str]:
    """Return what a class of ours defines, with those of ours that it inherits from."""
    names = defined(cls)
    origins = {name: source for source, name in imports_of(tree_of(module)) if source in KNOWN}
    for base in cls.bases:
        base = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(base, ast.Name):
            source = origins.get(base.id, module)
            found = classes(source).get(base.id)
            if found is not None and found is not cls:
                names |= own_names(source, found)
    return names


def foreign(module: str) -> Iterator[str]:
    """Yield the private names of others that a module uses.

    What is asked of `self` has to be defined by its class; what is asked of anything else, by the module itself or by
    one of ours that it imports.
    """
    tree = tree_of(module)
    near = defined(tree).union(*(defined(tree_of(source)) for source, _ in imports_of(tree) if source in KNOWN))
    in_class: dict[ast.AST, set[str]] = {}
    for cls in classes(module).values():
        own = own_names(module, cls)
        in_class |= {node: own for node in ast.walk(cls) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr) or node.attr in DOCUMENTED:
            continue
        of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if node.attr not in (in_class.get(node, near) if of_self else near):
            yield f"{module}:{node.lineno}: {ast.unparse(node)}"
    for source, name in imports_of(tree):
        if not is_ours(source) and any(map(is_private, (*source.split("."), name))):
            yield f"{module}: {source} {name}"


def test_they_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
import rich.progress
from redis._parsers import helpers
from ours import Base

class Bar(rich.progress.Progress):
    _own = 1
    def go(self, other):
        self._own, self._lock, other._own, other._else, other.__name__, other._replace()

class Derived(Base):
    def go(self):
        self._inherited
"""
    (tmp_path / "ours.py").write_text("class Base:\n    def __init__(self):\n        self._inherited = 1\n")
    (tmp_path / "theirs.py").write_text(code)
    for name in ("ours", "theirs"):
        monkeypatch.setitem(KNOWN, name, tmp_path / f"{name}.py")
    assert sorted(foreign("theirs")) == [
        "theirs: redis._parsers helpers",
        "theirs:9: other._else",
        "theirs:9: self._lock",
    ]


def elsewhere() -> list[str]:
    return [name for name in KNOWN if not name.startswith(ALLOWED)]


def test_they_stand_in_two_packages_alone() -> None:
    assert [found for module in elsewhere() for found in foreign(module)] == []


def test_so_do_imports_of_packages_whose_internals_we_need() -> None:
    found = {
        f"{module}: {source}"
        for module in elsewhere()
        for source, _ in imports_of(tree_of(module))
        if source.partition(".")[0] in INTERNAL
    }
    assert found == set()


def listed() -> dict[str, set[str]]:
    """Return the names on the list, by the class they are of."""
    names: dict[str, set[str]] = {}
    for feature in FEATURES:
        for needed in feature.needs:
            names.setdefault(needed.owner, set()).update(needed.names)
    return names


PUBLIC = {"serve", "should_exit"}
"""What uvicorn documents of its server."""


@pytest.mark.parametrize("module", [name for name in KNOWN if name.startswith(ALLOWED)])
def test_the_list_names_all_that_is_used(module: str) -> None:
    names = listed()
    for name, cls in classes(module).items():
        kinds = getattr(import_module(module), name).__mro__
        theirs = next((kind for kind in kinds if kind.__module__.startswith(INTERNAL)), None)
        if theirs is None:
            continue
        used = {node.name for node in ast.walk(cls) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        used |= {
            node.attr
            for node in ast.walk(cls)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
        }
        of_theirs = {each for each in used & names_of(theirs) if not each.startswith("__")} - PUBLIC
        assert of_theirs <= names[theirs.__name__], f"the list lacks names that {name} uses"


def test_the_list_says_why() -> None:
    assert all(needed.names and needed.why.startswith("to ") for feature in FEATURES for needed in feature.needs)
