"""Buckets: every caller gets exactly the rate and the burst."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.limits import gcra
from progress_broker.limits.gcra import LONGEST_S, Bucket, Buckets, Rate

pauses = st.lists(st.floats(0, 2), min_size=1, max_size=200)


def test_a_burst_and_then_the_rate() -> None:
    buckets, now = Buckets(Rate(10, 20)), 100.0
    assert [buckets.take("a", 1, now) for _ in range(20)] == [0] * 20
    assert buckets.take("a", 1, now) == pytest.approx(0.1)
    now += 0.35
    assert [buckets.take("a", 1, now) == 0 for _ in range(4)] == [True, True, True, False]


def test_callers_are_told_apart() -> None:
    buckets = Buckets(Rate(1, 1))
    assert buckets.take("a", 1, 0) == 0
    assert buckets.take("a", 1, 0) == 1
    assert buckets.take("b", 1, 0) == 0


@given(pauses, st.integers(1, 50), st.floats(1, 5))
def test_in_no_span_of_time_is_more_let_in_than_the_rate_and_a_burst(
    pauses: list[float], per_s: int, burst_s: float
) -> None:
    rate = Rate(per_s, per_s * burst_s)
    buckets, now, let_in = Buckets(rate), 0.0, list[float]()
    for pause in pauses:
        now += pause / per_s
        if not buckets.take("a", 1, now):
            let_in.append(now)
    for first, begin in enumerate(let_in):
        for last, end in enumerate(let_in[first:], first):
            assert last - first + 1 <= rate.per_s * (end - begin) + rate.burst + 1e-3


@given(pauses, st.integers(1, 50))
def test_who_waits_as_long_as_told_is_let_in(pauses: list[float], per_s: int) -> None:
    buckets, now = Buckets(Rate(per_s, 2 * per_s)), 0.0
    for pause in pauses:
        now += pause / per_s / 4
        wait_s = buckets.take("a", 1, now)
        if wait_s:
            now += wait_s + 1e-9
            assert not buckets.take("a", 1, now)


def test_what_costs_more_than_there_is_leaves_a_debt_that_is_bounded() -> None:
    rate = Rate(10, 20)
    buckets = Buckets(rate)
    buckets.charge("a", 50, 0)
    assert buckets.left("a", rate, 0) == (0, 5)
    assert buckets.wait_s("a", 1, 0) == pytest.approx(3.1)
    buckets.charge("a", 1e9, 0)
    assert buckets.left("a", rate, 0) == (0, 2 + LONGEST_S)


def test_what_is_let_in_at_a_full_bucket_may_cost_more_than_it_holds() -> None:
    assert Buckets(Rate(10, 20)).wait_s("a", 1_000, 0) == 0


def test_settling_takes_over_what_others_spent() -> None:
    bucket, rate = Bucket(), Rate(10, 20)
    bucket.spend(rate, 5, 0)
    bucket.unsettled_s = 0.0  # told
    bucket.spend(rate, 1, 0)  # while the report was in progress
    bucket.settled(1.5, 0)  # 5 of ours, 10 of others
    assert bucket.left(rate, 0) == 20 - 15 - 1
    assert bucket.left(rate, 1.6) == 20


def test_a_debt_that_could_not_be_settled_fades_as_time_makes_it_good() -> None:
    bucket, rate = Bucket(), Rate(10, 20)
    for now in range(100):  # as while Redis is unavailable
        bucket.spend(rate, 10, now)
        charge_s, bucket.unsettled_s = bucket.unsettled_s, 0.0
        bucket.put_back(charge_s, now)
        assert bucket.unsettled_s <= 1
    bucket.put_back(5, 200)
    assert bucket.unsettled_s == 0


def test_the_full_are_forgotten_and_those_with_debts_are_not() -> None:
    buckets = Buckets(Rate(1, 2))
    buckets.charge("settled", 1, 0)
    buckets.unsettled()["settled"].unsettled_s = 0.0
    buckets.charge("unsettled", 1, 0)
    buckets.forget_full(0.5)
    assert len(buckets) == 2
    buckets.forget_full(5)
    assert len(buckets) == 1
    assert list(buckets.unsettled()) == ["unsettled"]


def test_those_who_are_too_many_to_be_told_apart_share_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcra, "MAX_BUCKETS", 3)
    buckets = Buckets(Rate(1, 2))
    for i in range(50):
        buckets.take(f"caller-{i}", 1, 0)
    assert len(buckets) == 3
    assert len(buckets.unsettled()) == 3, "nobody else's are told"
    assert buckets.take("caller-49", 1, 0) > 0
