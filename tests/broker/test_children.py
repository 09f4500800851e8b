"""The summary of children, and how often a family sends it: rules without I/O."""

from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.live.family import INTERVAL_S, Family, FamilyWatcher
from progress_broker.model.children import (
    MAX_GENERATIONS,
    MAX_READ,
    MAX_SHOWN,
    Child,
    Tree,
    mean,
    read_child,
    read_child_notice,
    with_rollup,
)
from progress_broker.model.event import Event
from progress_broker.model.operation import ChildrenSummary, Status
from progress_broker.model.progress import reported_percent
from tests.broker.harness import Timers, event

PERCENTS = st.floats(0, 100)
WEIGHTS = st.floats(1e-3, 1e9)


def child(id: str, percent: float | None = None, status: str = "running", **more: object) -> Child:
    progress = None if percent is None else orjson.dumps({"percent": percent})
    return Child(id, status=Status(status), progress=progress, **more)  # type: ignore[arg-type]


def tree(*children: Child, under: str = "p") -> Tree:
    made = Tree()
    made.add(under, children)
    return made


def summary(*children: Child) -> ChildrenSummary:
    found = tree(*children).summary("p")
    assert found is not None
    return found


class TestAddingUp:
    def test_percentages_count_by_weight(self) -> None:
        assert summary(child("a", 50, weight=3), child("b", 10)).percent == 40
        assert summary(child("a", 41.5)).percent == 41.5

    def test_one_that_succeeded_is_whole_and_one_that_says_nothing_has_not_begun(self) -> None:
        assert summary(child("a", 10, "succeeded"), child("b"), child("c", None, "pending")).percent == 33.33

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_one_that_gave_up_counts_as_far_as_it_came(self, status: str) -> None:
        assert summary(child("a", 40, status), child("b", 0, "succeeded")).percent == 70

    def test_each_is_counted_by_where_it_stands(self) -> None:
        told = summary(*(child(status, 0, status) for status in Status))
        assert (told.total, told.done, told.failed, told.cancelled, told.running) == (7, 3, 1, 1, 3)

    def test_one_without_children_has_no_summary(self) -> None:
        assert tree().summary("p") is None
        assert tree(child("a")).summary("a") is None

    @given(st.lists(st.tuples(WEIGHTS, PERCENTS), min_size=1, max_size=50))
    def test_the_mean_lies_between_them_and_is_whole_only_if_all_are(self, parts: list[tuple[float, float]]) -> None:
        percents = [percent for _, percent in parts]
        found = mean(parts)
        assert min(percents) - 0.011 <= found <= max(percents) + 1e-6
        assert (found == 100) is all(percent == 100 for percent in percents)

    @given(st.lists(st.tuples(WEIGHTS, PERCENTS), min_size=2, max_size=20), PERCENTS)
    def test_progress_of_one_never_lowers_the_whole(self, parts: list[tuple[float, float]], further: float) -> None:
        weight, percent = parts[0]
        assert mean([(weight, max(percent, further)), *parts[1:]]) >= mean(parts)

    def test_one_whose_children_say_how_far_it_is(self) -> None:
        family = tree(child("a", is_parent=True), child("b", 100))
        family.add("a", [child("a1", 20), child("a2", 40)])
        found = family.summary("p")
        assert found is not None
        assert found.percent == 65
        assert [brief["percent"] for brief in family.listed("p")] == [30, 100]

    def test_what_one_says_itself_counts_more_than_its_children(self) -> None:
        family = tree(child("a", 70, is_parent=True))
        family.add("a", [child("a1", 20)])
        assert family.listed("p")[0]["percent"] == 70

    def test_circles_end(self) -> None:
        family = tree(child("a"), child("b", 50))
        family.add("a", [child("p")])
        found = family.summary("p")
        assert found is not None
        assert found.percent == 25
        assert tree(child("p"), child("a")).under == {"p": ["a"]}

    def test_what_lies_too_deep_does_not_count(self) -> None:
        family = tree(child("c1"))
        for depth in range(1, 2_000):
            family.add_one(f"c{depth}", child(f"c{depth + 1}", 60 if depth == MAX_GENERATIONS else None))
        found = family.summary("p")
        assert found is not None
        assert found.percent == 0

    def test_where_not_all_are_looked_at_each_stands_for_some(self) -> None:
        told = summary(child("a", 100, "succeeded", stands_for=3), child("b", 20), child("c", 0, "failed"))
        assert (told.total, told.done, told.failed, told.percent) == (5, 4, 1, 64)


class TestReading:
    @pytest.mark.parametrize(
        ("progress", "percent"),
        [
            ({"percent": 5}, 5),
            ({"percent": 500}, 100),
            ({"current": 1, "total": 4}, 25),
            ({"percent": 0, "current": 1, "total": 4}, 0),
            ({"current": 1e300, "total": 1e-300}, 100),
            ({}, None),
            ({"percent": None, "current": 3}, None),
            ({"percent": True}, None),
            ({"percent": -1}, None),
            ({"percent": "5"}, None),
            ({"current": 1, "total": 0}, None),
        ],
    )
    def test_how_far_a_worker_says_it_is(self, progress: dict[str, object], percent: float | None) -> None:
        assert reported_percent(progress) == percent

    @given(st.tuples(*(st.none() | st.binary(max_size=20) for _ in range(6))))
    def test_whatever_redis_holds_is_a_child_or_none(self, state: tuple[bytes | None, ...]) -> None:
        found = read_child(b"a", state)
        if found is not None:
            assert tree(found).listed("p")

    @pytest.mark.parametrize("spec", [b"[]", b"{", b"null", b'{"weight":-1}', b'{"weight":"x","title":[1]}'])
    def test_one_created_by_a_foreign_hand_weighs_as_much_as_others(self, spec: bytes) -> None:
        found = read_child(b"a", (b"running", spec, b'{"percent":7}', b"1-0", b"1", None))
        assert found is not None
        assert (found.weight, found.percent) == (1, 7)

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"operation":7}', b'{"operation":null}'])
    def test_a_note_that_is_none(self, data: bytes) -> None:
        assert read_child_notice(data) is None

    def test_the_list_is_bounded_and_holds_those_at_work(self) -> None:
        ended = [child(f"e{n}", status="succeeded", created=n) for n in range(MAX_SHOWN)]
        waiting = [child(f"w{n}", status="pending", created=n) for n in range(MAX_SHOWN - 1)]
        shown = tree(*ended, *waiting, child("busy", created=MAX_SHOWN)).shown("p")
        assert [it.id for it in shown] == [*(it.id for it in waiting), "busy"]

    def test_no_more_is_kept_of_progress_than_is_shown(self) -> None:
        it = child("a", status="succeeded")
        it.progress = orjson.dumps({"percent": 7, "message": "m" * 5_000, "more": "x" * 5_000})
        assert (it.percent, it.progress, it.reported) == (100, None, (7, "m" * 200))

    def test_what_nests_too_deep_is_ignored(self) -> None:
        deep = b'{"operation":"a","percent":7,"kind":' + b"[" * 900 + b"]" * 900 + b"}"
        assert read_child_notice(deep) is None
        assert Child("a", progress=deep).percent is None

    def test_what_the_list_tells_is_bounded(self) -> None:
        progress = orjson.dumps({"message": "m" * 5_000})
        [brief] = tree(Child("a", kind="k" * 5_000, title="t" * 5_000, progress=progress)).listed("p")
        assert len(orjson.dumps(brief)) < 1_500
        assert "message" not in tree(child("a", 1)).listed("p")[0]


class TestHearing:
    def test_the_newest_counts(self) -> None:
        it = child("a")
        assert it.apply(event(2, "progress", "a", b'{"percent":7}'))
        assert not it.apply(event(1, "progress", "a", b'{"percent":5}'))
        assert not it.apply(event(3, "log", "a", b'{"message":"m"}'))
        assert it.percent == 7
        assert it.apply(event(4, "status", "a", b'{"status":"stalled"}'))
        assert it.status is Status.STALLED

    def test_another_attempt_begins_anew(self) -> None:
        it = child("a", 60)
        it.apply(event(2, "status", "a", b'{"status":"running","attempt":2}'))
        assert it.percent is None

    @pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"status":"odd"}', b"\xff"])
    def test_an_end_stays_one_whatever_it_says(self, data: bytes) -> None:
        it = child("a", 60)
        it.apply(event(2, "end", "a", data))
        assert (it.status, it.percent) == (Status.FAILED, 60)


class TestShowing:
    TOLD = ChildrenSummary(total=2, done=1, failed=0, cancelled=0, running=1, percent=30)

    @pytest.mark.parametrize("progress", [None, {}, {"percent": None, "message": "m"}, {"current": 3}])
    def test_who_tells_no_percentage_is_shown_with_its_children_s(self, progress: dict[str, object] | None) -> None:
        shown = with_rollup(progress, self.TOLD, Status.RUNNING)
        assert shown == (progress or {}) | {"percent": 30, "rolled_up": True}

    @pytest.mark.parametrize("progress", [{"percent": 0}, {"current": 0, "total": 3}])
    def test_who_tells_how_far_it_is_knows_best(self, progress: dict[str, object]) -> None:
        assert with_rollup(progress, self.TOLD, Status.RUNNING) == progress

    def test_who_succeeded_is_whole(self) -> None:
        assert with_rollup(None, self.TOLD, Status.SUCCEEDED) == {"percent": 100, "rolled_up": True}
        assert with_rollup(None, None, Status.SUCCEEDED) is None


class Watcher:
    """A double for a family's subscription and for its hub."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.reads, self.followed, self.left = 0, frozenset[str](), False
        self.family = Family("p", self, self.timers.clock, self.timers.call_later)
        self.live = True
        self.percents: list[float] = []
        self.aside = self.look_on()

    def look_on(self, interval_s: float = 0) -> FamilyWatcher:
        return FamilyWatcher(self.family, self, interval_s)  # type: ignore[arg-type]

    def flush_side(self, *, last: bool = False) -> None:
        if self.live:
            frames = self.aside.pending(last=last)
            self.percents += [orjson.loads(frame.envelope)["data"]["percent"] for frame in frames]

    def read(self, family: Family) -> None:
        self.reads += 1

    def follow(self, family: Family, ids: Iterable[str]) -> None:
        self.followed = frozenset(ids)

    def follow_also(self, family: Family, id: str) -> None:
        self.followed |= {id}

    def empty(self, family: Family) -> None:
        self.left = True

    def take(self, *children: Child) -> None:
        self.family.take(tree(*children))

    def hear(self, n: int, percent: float, id: str = "a") -> None:
        self.family.apply(event(n, "progress", id, b'{"percent":%d}' % percent))

    def note(self, n: int, id: str, parent: str = "p") -> None:
        self.family.apply(event(n, "child", parent, orjson.dumps({"operation": id, "kind": "k", "weight": 1})))


@pytest.fixture
def watcher() -> Watcher:
    """A watcher that has received a family with one child, which is at 10 %."""
    watcher = Watcher()
    watcher.family.begin()
    for _ in range(2):  # a child that it did not know is read
        watcher.take(child("a", 10))
        watcher.timers.advance(INTERVAL_S)
    watcher.timers.advance(INTERVAL_S)
    assert (watcher.percents, watcher.reads) == ([10], 2)
    return watcher


class TestPacing:
    def test_what_comes_at_once_is_shown_at_once_and_then_so_often(self, watcher: Watcher) -> None:
        for n, percent in enumerate((20, 30, 40, 50), 1):
            watcher.hear(n, percent)
            watcher.timers.advance(INTERVAL_S / 4)
        watcher.timers.advance(INTERVAL_S)
        assert watcher.percents == [10, 20, 50]
        assert watcher.timers.timers == []

    def test_what_changes_nothing_to_see_is_not_shown(self, watcher: Watcher) -> None:
        watcher.hear(1, 10)
        watcher.family.apply(event(2, "log", "a"))
        watcher.timers.advance(1)
        assert watcher.percents == [10]

    def test_one_who_is_behind_is_shown_only_the_newest(self, watcher: Watcher) -> None:
        watcher.live = False
        for n, percent in enumerate((20, 30, 40), 1):
            watcher.hear(n, percent)
            watcher.timers.advance(1)
        watcher.live = True
        watcher.flush_side()
        watcher.flush_side()
        assert watcher.percents == [10, 40]

    def test_a_longer_interval_is_kept_but_before_the_end(self, watcher: Watcher) -> None:
        watcher.aside.leave()
        watcher.aside = watcher.look_on(interval_s=5)
        watcher.flush_side()
        watcher.hear(1, 20)
        watcher.timers.advance(1)
        watcher.hear(2, 30)
        watcher.timers.advance(3)
        assert watcher.percents == [10, 10]
        watcher.timers.advance(1)
        assert watcher.percents == [10, 10, 30]
        watcher.hear(3, 40)
        watcher.flush_side(last=True)
        watcher.flush_side(last=True)
        assert watcher.percents == [10, 10, 30, 40]

    def test_the_last_tells_what_nobody_was_shown_yet(self, watcher: Watcher) -> None:
        watcher.hear(1, 20)
        watcher.timers.advance(0)
        watcher.hear(2, 30)
        watcher.flush_side(last=True)
        assert watcher.percents == [10, 20, 30]

    def test_a_new_child_is_followed_from_its_note_on_and_read(self, watcher: Watcher) -> None:
        watcher.note(1, "b")
        assert watcher.followed == {"a", "b"}
        watcher.timers.advance(0)
        assert watcher.reads == 3
        watcher.hear(2, 90, "b")  # while it is being read
        watcher.take(child("a", 10, position=b"1-0"), child("b", 80, position=b"1-0"))
        watcher.timers.advance(1)
        assert watcher.percents[-1] == 50

    def test_a_new_child_costs_as_much_as_any_other_and_no_more_than_can_be_looked_at_are_followed(
        self, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watcher, "follow", None)
        monkeypatch.setattr(Tree, "add", None)
        monkeypatch.setattr("progress_broker.live.family.MAX_READ", 10)
        for n in range(20):
            watcher.note(n, f"b{n}")
        assert len(watcher.followed) == 10 < MAX_READ
        watcher.timers.advance(0)
        assert watcher.reads == 3

    def test_who_told_for_its_children_and_begins_anew_has_them_read(self, watcher: Watcher) -> None:
        watcher.take(child("a", 10, is_parent=True))
        watcher.timers.advance(10)
        reads = watcher.reads
        watcher.hear(1, 20)
        watcher.timers.advance(10)
        assert watcher.reads == reads
        watcher.family.apply(event(2, "status", "a", b'{"status":"running","attempt":2}'))
        watcher.timers.advance(10)
        assert watcher.reads == reads + 1

    def test_frames_that_cost_much_are_made_less_often(self, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = Tree.listed

        def slowly(it: Tree, parent: str) -> object:
            watcher.timers.now += 1
            return listed(it, parent)

        monkeypatch.setattr(Tree, "listed", slowly)
        for n in range(1, 9):
            watcher.hear(n, 10 + n)
            watcher.timers.advance(1)
        assert watcher.percents == [10, 11]
        watcher.timers.advance(10)
        assert watcher.percents == [10, 11, 18]

    def test_a_frame_that_can_t_be_made_is_tried_again(self, watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as broken:
            broken.setattr(Tree, "listed", None)
            watcher.hear(1, 20)
            watcher.flush_side(last=True)
        assert (watcher.percents, watcher.reads) == ([10], 2)
        watcher.timers.advance(10)
        assert watcher.reads == 3
        watcher.take(child("a", 30))
        watcher.timers.advance(1)
        assert watcher.percents == [10, 30]

    def test_many_new_children_are_read_together(self, watcher: Watcher) -> None:
        for n in range(100):
            watcher.note(n, f"b{n}")
        watcher.timers.advance(0)
        assert watcher.reads == 3
        watcher.note(200, "b200")
        watcher.timers.advance(INTERVAL_S / 10)
        assert watcher.reads == 3, "one at a time"
        watcher.take(child("a", 10))
        watcher.timers.advance(2 * INTERVAL_S)
        assert watcher.reads == 4, "that one may be from before the last came"

    def test_a_read_that_takes_long_is_followed_by_a_long_rest(self, watcher: Watcher) -> None:
        watcher.note(1, "b")
        watcher.timers.advance(0)
        watcher.timers.advance(1)
        watcher.take(child("a", 10), child("b"))
        watcher.note(2, "c")
        watcher.timers.advance(9.9)
        assert watcher.reads == 3
        watcher.timers.advance(0.1)
        assert watcher.reads == 4

    def test_what_was_heard_of_what_storage_lost_is_forgotten(self, watcher: Watcher) -> None:
        watcher.hear(5, 90)
        watcher.family.invalidate()
        watcher.timers.advance(0)
        assert watcher.reads == 3
        watcher.hear(3, 60)
        watcher.take(child("a", 50, position=b"1002-0"))
        watcher.timers.advance(1)
        assert watcher.percents[-1] == 60

    def test_what_was_read_while_storage_lost_it_is_forgotten_too(self, watcher: Watcher) -> None:
        watcher.family.invalidate()
        watcher.timers.advance(1)
        watcher.family.invalidate()  # the read in progress may be from the lost server
        watcher.take(child("a", 90, position=b"1009-0"))
        watcher.timers.advance(1)
        watcher.take(child("a", 50, position=b"1002-0"))
        watcher.timers.advance(1)
        assert watcher.percents[-1] == 50

    def test_one_that_is_deleted_is_missed(self, watcher: Watcher) -> None:
        watcher.family.apply(Event(b"a", b"9-0", 0, b"gone", b"null"))
        watcher.timers.advance(0)
        assert watcher.reads == 3
        watcher.take()
        watcher.timers.advance(1)
        assert watcher.percents == [10, 0]

    def test_the_children_of_a_child_count_from_their_note_on(self, watcher: Watcher) -> None:
        watcher.take(child("a"), child("b", 0))
        watcher.note(1, "a1", parent="a")
        watcher.hear(2, 80, "a1")
        watcher.timers.advance(1)
        assert watcher.percents[-1] == 40

    def test_one_who_leaves_leaves_no_timer(self, watcher: Watcher) -> None:
        other = watcher.look_on(interval_s=60)
        other.pending()
        watcher.hear(1, 20)
        watcher.timers.advance(1)
        other.pending()
        watcher.note(2, "b")
        for one in (other, watcher.aside):
            assert not watcher.left
            one.leave()
        assert watcher.left
        assert all(timer.cancelled for timer in watcher.timers.timers)

    def test_a_family_without_children_says_nothing_of_them(self) -> None:
        watcher = Watcher()
        watcher.family.begin()
        watcher.take()
        watcher.timers.advance(1)
        watcher.flush_side(last=True)
        assert watcher.percents == []
