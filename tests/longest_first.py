"""The order in which files of tests are begun: those that take longest first.

Files are dealt out whole, to whichever process has nothing left to do. One that gets a long file last does it alone
while the others wait, so the long ones are begun while there is much else. The order among the others does not matter.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LONGEST = [
    "e2e/test_windows.py",
    "api/test_adoption.py",
    "e2e/test_dashboard.py",
    "deploy/test_proxies.py",
    "bench/test_quick.py",
    "cli/test_processes.py",
    "api/transports/test_contract.py",
    "contract/test_schemathesis.py",
    "api/test_ws.py",
    "cli/test_run.py",
    "cli/test_over_http.py",
    "client/test_resuming.py",
    "chaos/test_watching.py",
    "topologies/test_cluster_faults.py",
    "e2e/test_sign_in.py",
    "docs/test_guides.py",
    "e2e/test_eventsource.py",
    "e2e/test_many_operations.py",
    "e2e/test_failover.py",
    "workers/test_leases.py",
    "workers/test_counting.py",
    "workers/test_values.py",
    "api/test_edge.py",
    "deploy/test_stack.py",
    "queues/test_tasks.py",
    "callback/test_streams.py",
    "workers/test_ends.py",
    "workers/test_run_process.py",
    "workers/test_typing.py",
    "api/test_missing_names.py",
    "api/test_children.py",
    "docs/test_blocks.py",
    "cli/test_demo.py",
    "e2e/test_sign_in_elsewhere.py",
    "deploy/test_rolling.py",
    "deploy/test_redis.py",
    "cli/test_kinds_of_redis.py",
    "api/test_messages.py",
    "api/test_limits.py",
    "broker/test_hub.py",
    "broker/test_foreign.py",
    "deploy/test_extras.py",
    "e2e/test_browser.py",
    "api/test_operations.py",
    "e2e/test_secrets.py",
    "api/test_event_source.py",
    "deploy/test_wheel.py",
    "api/test_queries.py",
    "api/test_multi_stream.py",
    "e2e/test_looks.py",
    "bench/test_redis_time.py",
    "broker/test_history.py",
    "api/test_bounds.py",
    "cli/test_tail.py",
    "workers/test_bars.py",
    "api/test_upgrades.py",
    "chaos/test_stream_leases.py",
    "workers/test_children.py",
    "api/test_permissions.py",
    "callback/test_hostile_backends.py",
]


def longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the tests, those of the long files first; within a file their order stays."""
    ranks = {FOLDER / name: rank for rank, name in enumerate(LONGEST)}
    return sorted(items, key=lambda item: ranks.get(item.path, len(ranks)))
