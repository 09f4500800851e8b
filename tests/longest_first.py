"""The order in which files of tests are begun: those that take longest first.

Files are dealt out whole, to whichever process has nothing left to do. One that gets a long file last does it alone
while the others wait, so the long ones are begun while there is much else. The order among the others does not matter.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LONGEST = [
    "contract/test_schemathesis.py",
    "docs/test_guides.py",
    "cli/test_processes.py",
    "bench/test_quick.py",
    "e2e/test_windows.py",
    "e2e/test_dashboard.py",
    "cli/test_demo.py",
    "deploy/test_stack.py",
    "deploy/test_proxies.py",
    "queues/test_tasks.py",
    "queues/test_particulars.py",
    "api/transports/test_contract.py",
    "workers/test_typing.py",
    "e2e/test_sign_in.py",
    "deploy/test_rolling.py",
    "chaos/test_chaos.py",
    "chaos/test_cutoff.py",
    "chaos/test_kills.py",
    "chaos/test_stream_leases.py",
    "e2e/test_eventsource.py",
    "e2e/test_failover.py",
    "docs/test_blocks.py",
    "workers/test_leases.py",
    "docs/test_pages.py",
    "e2e/test_many_operations.py",
    "e2e/test_redis_away.py",
    "e2e/test_browser.py",
    "e2e/test_looks.py",
    "e2e/test_sign_in_elsewhere.py",
    "e2e/test_secrets.py",
    "e2e/test_interrupted.py",
    "cli/test_run.py",
    "cli/test_setup.py",
    "cli/test_kinds_of_redis.py",
    "api/test_adoption.py",
    "api/test_ws.py",
    "queues/test_runs.py",
    "broker/test_bundles.py",
    "deploy/test_redis.py",
]


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests, those of the long files first; within a file their order stays."""
    ranks = {FOLDER / name: rank for rank, name in enumerate(LONGEST)}
    return sorted(items, key=lambda item: ranks.get(item.path, len(ranks)))
