"""When a node counts as away, and who tries it again."""

import pytest

from progress_broker.routing.health import Health


def test_a_node_is_away_once_a_check_failed_and_back_with_its_first_answer() -> None:
    health = Health(lambda: 0.0)
    assert health.doubt("connection lost")  # whoever hears this first checks it
    assert not health.doubt("connection lost")
    assert health.away is None  # it may have been one idle connection
    assert [health.failed("refused") for _ in range(5)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    assert health.away == "refused"
    health.succeeded()
    assert health.away is None
    assert health.doubt("connection lost")
    assert health.failed("refused") == pytest.approx(0.1)


def test_a_node_that_hangs_is_away_at_once() -> None:
    health = Health()
    assert health.doubt("timed out", hangs=True)
    assert health.away == "timed out"


def test_checks_of_many_processes_are_spread() -> None:
    assert Health(lambda: 1.0).failed("refused") == pytest.approx(0.05)
