"""Many cases in one test, where what each would start costs more than it does: an error names its case."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(*what: object) -> Iterator[None]:
    """Say in an error of this block which case it was."""
    try:
        yield
    except BaseException as error:
        error.add_note("the case: " + ", ".join(map(repr, what))[:1000])
        raise
