"""What is installed with a distribution, by the metadata of what is installed here."""

import re
from importlib.metadata import distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

OURS = "progress-broker"


def name_of(requirement: str) -> str:
    """Return a distribution's name as all spellings of it are compared."""
    return re.sub(r"[-_.]+", "-", requirement).lower()


def direct(name: str, extras: frozenset[str] = frozenset()) -> dict[str, frozenset[str]]:
    """Return what a distribution itself asks for, with the extras it asks for."""
    found: dict[str, frozenset[str]] = {}
    for requirement in map(Requirement, requires(name) or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            wanted = name_of(requirement.name)
            found[wanted] = found.get(wanted, frozenset()) | requirement.extras
    return found


def needed(*extras: str) -> set[str]:
    """Return the names of all distributions that are installed with ours, and its own."""
    seen: dict[str, frozenset[str]] = {}
    ahead = [(OURS, frozenset(extras))]
    while ahead:
        name, wanted = ahead.pop()
        if name not in seen or wanted - seen[name]:
            seen[name] = seen.get(name, frozenset()) | wanted
            ahead += direct(name, seen[name]).items()
    return set(seen)


def link(names: set[str], folder: Path) -> None:
    """Have a folder hold what these distributions installed, and nothing else."""
    folder.mkdir()
    for name in names:
        its = distribution(name)
        for top in {path.parts[0] for path in its.files or () if path.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(its.locate_file(top))))
