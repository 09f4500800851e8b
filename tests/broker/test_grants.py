"""What grants allow. A decision by id must never differ from the decision by all attributes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.model.grants import EVERYTHING, NOTHING, Action, Grant, Grants, ResourceAttributes, granted

FACTS = ResourceAttributes("import-42", "alice", "import", ("eu", "big"), ("tenant=red", "vip=true", "n=7"))

NAMES = st.sampled_from(["a", "b", "ab"])
SETS = st.none() | st.frozensets(NAMES, max_size=2)
PAIRS = st.frozensets(NAMES.map("key={}".format), max_size=2)
GRANTS = st.builds(
    Grant,
    actions=st.frozensets(st.sampled_from(Action), max_size=2),
    ids=SETS,
    prefixes=st.none() | st.tuples() | st.tuples(NAMES),
    owners=SETS,
    kinds=SETS,
    tags=SETS,
    metadata=st.none() | st.tuples(PAIRS) | st.tuples(PAIRS, PAIRS),
)
MANY = st.builds(Grants, given=st.lists(GRANTS, max_size=3).map(tuple), limits=st.lists(GRANTS, max_size=2).map(tuple))
OPERATIONS = st.builds(
    ResourceAttributes,
    id=NAMES,
    owner=st.none() | NAMES,
    kind=NAMES,
    tags=st.frozensets(NAMES, max_size=2),
    metadata=st.frozensets(NAMES.map("key={}".format), max_size=2),
)


@pytest.mark.parametrize(
    ("selectors", "covered"),
    [
        ({}, True),
        ({"ids": ["import-42"]}, True),
        ({"ids": ["import-4"]}, False),
        ({"prefixes": ["import-"]}, True),
        ({"prefixes": ["export-", "imp"]}, True),
        ({"prefixes": ["export-"]}, False),
        ({"owners": ["bob", "alice"]}, True),
        ({"owners": ["bob"]}, False),
        ({"kinds": ["import"], "tags": ["eu"]}, True),
        ({"kinds": ["import"], "tags": ["us"]}, False),
        ({"tags": ["us", "big"]}, True),
        ({"metadata": {"tenant": ["blue", "red"]}}, True),
        ({"metadata": {"tenant": ["red"], "vip": [True], "n": [7]}}, True),
        ({"metadata": {"tenant": ["red"], "vip": ["false"]}}, False),
        ({"metadata": {"nothing": ["red"]}}, False),
        ({"metadata": {"tenant": []}}, False),
        *(({name: []}, False) for name in ("ids", "prefixes", "owners", "kinds", "tags")),
    ],
)
def test_a_grant_covers_what_all_its_selectors_pick(selectors: dict[str, Any], covered: bool) -> None:
    grants = Grants((granted(["read"], **selectors),))
    assert grants.allows(Action.READ, FACTS) is covered
    assert not grants.allows(Action.PUBLISH, FACTS)


def test_admin_may_do_all_and_only_admin_that() -> None:
    assert all(Grants((granted(["admin"]),)).allows(action, FACTS) for action in Action)
    rest = Grants((granted(set(Action) - {Action.ADMIN}),))
    assert [action for action in Action if not rest.allows(action, FACTS)] == [Action.ADMIN]


def test_without_a_grant_nothing_is_allowed() -> None:
    assert not any(NOTHING.allows(action, FACTS) for action in Action)
    assert all(EVERYTHING.allows_everywhere(action) for action in Action)


def test_an_unknown_action_is_none() -> None:
    with pytest.raises(ValueError, match="fly"):
        granted(["read", "fly"])


@given(MANY, st.sampled_from(Action), OPERATIONS)
def test_the_id_alone_decides_as_the_facts_would(grants: Grants, action: Action, facts: ResourceAttributes) -> None:
    assert grants.decide_by_id(action, facts.id) in (None, grants.allows(action, facts))


@given(MANY, GRANTS, st.sampled_from(Action), OPERATIONS)
def test_a_limit_never_widens(grants: Grants, limit: Grant, action: Action, facts: ResourceAttributes) -> None:
    within = grants.narrowed(limit).allows(action, facts)
    assert within <= grants.allows(action, facts)
    assert within <= Grants((limit,)).allows(action, facts)


@given(MANY, st.sampled_from(Action), OPERATIONS)
def test_what_is_allowed_everywhere_is_allowed_here(grants: Grants, action: Action, facts: ResourceAttributes) -> None:
    assert not grants.allows_everywhere(action) or grants.allows(action, facts)
