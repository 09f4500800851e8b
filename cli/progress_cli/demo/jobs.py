"""The jobs by name, and how each is started: a new operation each time."""

from collections.abc import Callable
from dataclasses import dataclass

from progress_cli.demo.archiving import archive_library
from progress_cli.demo.compiling import compile_library
from progress_cli.demo.importing import import_customers
from progress_workers import Operation


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work, and what people are told it is."""

    work: Callable[[Operation], None]
    title: str
    owner: str
    tags: tuple[str, ...]
    unit: str | None = None

    def run(self, kind: str) -> str:
        """Do the work once, as an operation of its own, and return its id. Raise what it raises."""
        with Operation.start(kind, title=self.title, owner=self.owner, tags=self.tags, unit=self.unit) as op:
            self.work(op)
            return op.id


JOBS = {
    "import": Job(import_customers, "Import customers into SQLite", "alice", ("demo", "eu")),
    "archive": Job(archive_library, "Hash and compress the standard library", "bob", ("demo",), "bytes"),
    "compile": Job(compile_library, "Byte-compile some packages", "carol", ("demo", "build")),
}
