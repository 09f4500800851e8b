"""A recording double, for unit tests of code that reports: no Redis, no threads in the background, no waiting.

    from progress_workers.testing import recording

    def test_all_rows_are_imported():
        with recording() as recorded:
            import_rows(["ada", "grace"])
        assert recorded.outcome.status == "succeeded"
        assert [progress["current"] for progress in recorded.progresses] == [1, 2]

In the block, operations are started, joined and found by `progress_workers.current()` as in earnest, whatever the
settings say of Redis. What they say goes through the real reporter and the real scripts into a Redis in memory, so what
is recorded is what would be stored, and what would be refused is. It is for one test at a time in a process.
Needs the extra `testing`.
"""

from progress_workers.testing.recorded import Logged, RecordedEvent, RecordedOperation
from progress_workers.testing.recording import Recording, recording

__all__ = ["Logged", "RecordedEvent", "RecordedOperation", "Recording", "recording"]
