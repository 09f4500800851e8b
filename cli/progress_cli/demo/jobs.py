"""The demo's jobs by name. Each run of a job is a new operation."""

from collections.abc import Callable
from dataclasses import dataclass

from progress_cli.demo.archiving import archive_library
from progress_cli.demo.compiling import compile_library
from progress_cli.demo.importing import import_customers
from progress_workers import Operation


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work, and the description that people see."""

    work: Callable[[Operation], None]
    title: str
    owner: str
    tags: tuple[str, ...]
    unit: str | None = None

    def run(self, kind: str) -> str:
        """Do the work once, as a new operation, and return its id. Raise what the work raises."""
        with Operation.start(kind, title=self.title, owner=self.owner, tags=self.tags, unit=self.unit) as op:
            self.work(op)
            return op.id


JOBS = {
    "import": Job(import_customers, "Import customers into SQLite", "alice", ("demo", "eu")),
    "archive": Job(archive_library, "Hash and compress the standard library", "bob", ("demo",), "bytes"),
    "compile": Job(compile_library, "Byte-compile some packages", "carol", ("demo", "build")),
}
