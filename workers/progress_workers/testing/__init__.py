"""A recorder for unit tests of code that reports: no Redis, no background threads, no waiting.

    from progress_workers.testing import recording

    def test_all_rows_are_imported():
        with recording() as recorded:
            import_rows(["ada", "grace"])
        assert recorded.outcome.status == "succeeded"
        assert [progress["current"] for progress in recorded.progresses] == [1, 2]

In the block, operations are started, joined and found by `progress_workers.current()` as in production. The settings
for Redis are ignored. Reports go through the real reporter and the real scripts into an in-memory Redis. So the
recording contains exactly what Redis would store, and what Redis would reject is rejected. Use one recording at a time
in a process. Needs the extra `testing`.
"""

from progress_workers.testing.recorded import Logged, RecordedEvent, RecordedOperation
from progress_workers.testing.recording import Recording, recording

__all__ = ["Logged", "RecordedEvent", "RecordedOperation", "Recording", "recording"]
