"""Batches are carried by the rules, whatever nodes do: a fake of nodes, and faults between all steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis.exceptions
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.routing.address import Endpoint
from progress_broker.routing.health import NodeAway
from progress_broker.routing.plan import PAUSES_S, REDIRECTIONS, Learn, Part, Pause, Request, carry, is_moving
from progress_broker.routing.slots import SLOTS, Layout, SlotMap, slot_of

NODES = tuple(Endpoint(host, 6379) for host in "abc")
KEYS = tuple(f"{{{number}}}:{name}" for number in range(3) for name in "xy")
TEXTS = ("return 1", "return 2")
MOST_STEPS = 100

MOVING = (
    redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot", "TRYAGAIN"),
    redis.exceptions.ResponseError("Script attempted to access a non local key in a cluster node script: x, on @y."),
    redis.exceptions.ResponseError(
        "Unable to execute command 'exists' in script because undeclared keys were accessed"
        " during rehashing of the slot"
    ),
)


@dataclass
class Nodes:
    """Nodes of a Cluster, as they behave to who sends them commands."""

    owners: dict[int, Endpoint]
    moving: dict[int, Endpoint] = field(default_factory=dict)
    """The targets of slots that move."""
    moved: set[str] = field(default_factory=set)
    """The keys of such slots that are at the target."""
    dead: set[Endpoint] = field(default_factory=set)
    away: set[Endpoint] = field(default_factory=set)
    """Nodes that are known to be dead."""
    scripts: set[tuple[Endpoint, str]] = field(default_factory=set)
    runs: list[int] = field(default_factory=list)
    """The numbers of the commands, in the order in which they ran."""
    cut_after: int | None = None
    """After how many more commands a connection breaks, before their replies arrive."""

    def send(self, part: Part, batch: Sequence[Request]) -> dict[int, Any]:
        assert part.places
        self.scripts |= {(part.node, text) for text in part.load if part.node not in self.dead}
        lost = redis.exceptions.ConnectionError("connection lost")
        replies: dict[int, Any] = {}
        for at in part.places:
            if part.node in self.dead or lost in replies.values():
                replies[at] = lost
                continue
            replies[at] = self._run(part.node, at, batch[at], asking=at in part.asking)
            if self.cut_after is not None and replies[at] == "ran":
                self.cut_after -= 1
                if self.cut_after < 0:
                    self.cut_after = None
                    replies[at] = lost
        return replies

    def _run(self, node: Endpoint, at: int, request: Request, *, asking: bool) -> Any:
        assert request.script is None or not asking, "no script follows ASK"
        key = _key(request)
        slot = slot_of(key)
        owner, target = self.owners[slot], self.moving.get(slot)
        if node == owner:
            if target is not None and request.script is not None and not {key, f"{key}:2"} <= self.moved:
                return MOVING[at % len(MOVING)]
            if target is not None and key in self.moved:
                return redis.exceptions.AskError(f"{slot} {target}", "ASK")
        elif not (asking and node == target):
            return redis.exceptions.MovedError(f"{slot} {owner}", "MOVED")
        if request.script is not None and (node, request.script) not in self.scripts:
            return redis.exceptions.NoScriptError("No matching script", "NOSCRIPT")
        self.runs.append(at)
        return "ran"

    def begin_move(self, slot: int, target: Endpoint) -> None:
        if self.owners[slot] != target:
            self.moving[slot] = target

    def settle(self, slot: int) -> None:
        target = self.moving.pop(slot, None)
        if target is not None:
            self.owners[slot] = target
            self.moved = {key for key in self.moved if slot_of(key) != slot}

    def layout(self) -> Layout:
        return Layout(tuple((slot, slot, owner) for slot, owner in self.owners.items()), ())


def _key(request: Request) -> str:
    return str(request.words[1] if request.script is None else request.words[3])


def plain(key: str) -> Request:
    return Request(("HGET", key, "f"))


def script(key: str, text: str = TEXTS[0]) -> Request:
    return Request(("EVALSHA", text, 2, key, f"{key}:2"), text)


def drive(
    nodes: Nodes, slots: SlotMap, batch: Sequence[Request], between: Callable[[], None] = lambda: None
) -> tuple[list[Any], float]:
    """Carry a batch; do something between all steps. Return the replies, and how long was waited in all."""
    carrying = carry(slots, lambda node: "dead" if node in nodes.away else None, batch)
    waited_s, answer = 0.0, None
    for _ in range(MOST_STEPS):
        try:
            step = carrying.send(answer)
        except StopIteration as over:
            return over.value, waited_s
        parts = [] if isinstance(step, (Pause, Learn)) else step
        assert not {part.node for part in parts} & nodes.away, "nothing is sent to a node that is known to be away"
        assert len({part.node for part in parts}) == len(parts), "one write a node"
        between()
        answer = None
        if isinstance(step, Pause):
            waited_s += step.seconds
        elif isinstance(step, Learn):
            slots.take(nodes.layout(), slots.version)
        else:
            answer = {at: reply for part in step for at, reply in nodes.send(part, batch).items()}
    raise AssertionError("it goes on for ever")


def fresh(seed: Mapping[int, int] | None = None) -> Nodes:
    slots = sorted({slot_of(key) for key in KEYS})
    return Nodes({slot: NODES[(seed or {}).get(place, place % 3)] for place, slot in enumerate(slots)})


def known(nodes: Nodes) -> SlotMap:
    slots = SlotMap()
    slots.take(nodes.layout(), slots.version)
    return slots


batches = st.lists(st.sampled_from(KEYS).flatmap(lambda key: st.sampled_from([plain(key), script(key), *(
    script(key, text) for text in TEXTS
)])), max_size=8)  # fmt: skip
layouts = st.dictionaries(st.integers(0, 2), st.integers(0, 2))


@given(layouts, layouts, batches, st.booleans())
def test_with_any_map_all_commands_run_once_where_their_keys_are(
    before: Mapping[int, int], now: Mapping[int, int], batch: Sequence[Request], empty: bool
) -> None:
    nodes, slots = fresh(now), SlotMap() if empty else known(fresh(before))
    replies, _ = drive(nodes, slots, batch)
    assert replies == ["ran"] * len(batch)
    assert sorted(nodes.runs) == list(range(len(batch)))
    assert all(slots.owner(slot_of(_key(request))) == nodes.owners[slot_of(_key(request))] for request in batch)


@given(st.data(), layouts, batches)
def test_whatever_happens_a_command_runs_at_most_once_and_errors_say_whether(
    data: st.DataObject, seed: Mapping[int, int], batch: Sequence[Request]
) -> None:
    nodes = fresh(seed)
    slots = known(nodes)
    every = sorted(nodes.owners)

    def fault() -> None:
        match data.draw(st.sampled_from(["", "begin", "key", "settle", "kill", "forget", "cut", "away", "back"])):
            case "begin":
                nodes.begin_move(data.draw(st.sampled_from(every)), data.draw(st.sampled_from(NODES)))
            case "key":
                key = data.draw(st.sampled_from(KEYS))
                if slot_of(key) in nodes.moving:
                    nodes.moved |= {key, f"{key}:2"}
            case "settle":
                nodes.settle(data.draw(st.sampled_from(every)))
            case "kill":
                nodes.dead.add(data.draw(st.sampled_from(NODES)))
            case "forget":
                nodes.scripts.clear()
            case "cut":
                nodes.cut_after = data.draw(st.integers(0, 3))
            case "away":
                nodes.away |= nodes.dead
            case "back":
                nodes.dead.clear()
                nodes.away.clear()

    fault()
    replies, _ = drive(nodes, slots, batch, fault)
    for at, reply in enumerate(replies):
        ran = nodes.runs.count(at)
        assert ran <= 1
        if reply == "ran":
            assert ran == 1
        elif type(reply) is not redis.exceptions.ConnectionError:  # after which nobody knows
            assert isinstance(reply, Exception)
            assert ran == 0
    for key in KEYS:
        scripts = [at for at, request in enumerate(batch) if request.script is not None and _key(request) == key]
        ran_in_order = [at for at in nodes.runs if at in scripts]
        assert ran_in_order == sorted(ran_in_order)
        assert ran_in_order == scripts[: len(ran_in_order)], "none runs after one that did not"


@given(layouts, batches, st.sampled_from(NODES), st.booleans())
def test_a_node_that_fails_costs_only_its_own_commands(
    seed: Mapping[int, int], batch: Sequence[Request], dead: Endpoint, is_known: bool
) -> None:
    nodes = fresh(seed)
    nodes.dead = {dead}
    nodes.away = {dead} if is_known else set()
    replies, _ = drive(nodes, known(nodes), batch)
    for request, reply in zip(batch, replies, strict=True):
        if nodes.owners[slot_of(_key(request))] == dead:
            assert isinstance(reply, NodeAway if is_known else redis.exceptions.ConnectionError)
        else:
            assert reply == "ran"


def test_a_command_waits_for_its_slot_and_then_fails_with_what_redis_said() -> None:
    nodes = fresh()
    slots, slot = known(nodes), slot_of(KEYS[0])
    nodes.begin_move(slot, next(node for node in NODES if node != nodes.owners[slot]))
    (reply,), waited_s = drive(nodes, slots, [script(KEYS[0])])
    assert is_moving(reply)
    assert waited_s == pytest.approx(sum(PAUSES_S))
    nodes.moved = {KEYS[0]}
    assert drive(nodes, slots, [plain(KEYS[0])]) == (["ran"], 0)  # a plain command follows its key
    left = iter([lambda: None] * 3)
    assert drive(nodes, slots, [script(KEYS[0])], lambda: next(left, lambda: nodes.settle(slot))())[0] == ["ran"]


def test_nodes_that_name_each_other_do_not_keep_a_command() -> None:
    nodes = fresh()
    slots, slot = known(nodes), slot_of(KEYS[0])

    def turn() -> None:  # away from the node that is about to be asked
        nodes.owners[slot] = next(node for node in NODES if node != slots.owner(slot))

    (reply,), waited_s = drive(nodes, slots, [plain(KEYS[0])], turn)
    assert isinstance(reply, redis.exceptions.MovedError)
    assert waited_s == pytest.approx(sum(PAUSES_S[: REDIRECTIONS - 1]))


def test_a_slot_that_nobody_serves_is_asked_for_once() -> None:
    carrying = carry(SlotMap(), lambda _: None, [plain(KEYS[0]), plain(KEYS[2])])
    assert next(carrying) == Learn()
    with pytest.raises(StopIteration) as over:
        carrying.send(None)
    assert [type(reply) for reply in over.value.value] == [NodeAway, NodeAway]
    refused = redis.exceptions.ConnectionError("refused")
    carrying = carry(SlotMap(), lambda _: None, [plain(KEYS[0])])
    next(carrying)
    with pytest.raises(StopIteration) as over:
        carrying.send(refused)
    assert over.value.value == [refused]


def test_addresses_are_translated_where_redirections_name_them() -> None:
    inside, outside = Endpoint("10.0.0.1", 6379), Endpoint("redis.example", 7001)
    slots = SlotMap({inside: outside})
    slots.take(Layout(((0, SLOTS - 1, NODES[0]),), ()), slots.version)
    slot = slot_of(KEYS[0])
    carrying = carry(slots, lambda _: None, [plain(KEYS[0])])
    next(carrying)
    (part,) = carrying.send({0: redis.exceptions.MovedError(f"{slot} {inside}", "MOVED")})
    assert part.node == slots.owner(slot) == outside
    assert isinstance(carrying.send({0: redis.exceptions.MovedError(f"{slot} :6380", "MOVED")}), Pause)
    (part,) = carrying.send(None)
    assert part.node == Endpoint("redis.example", 6380)  # the server that answered, at another port
