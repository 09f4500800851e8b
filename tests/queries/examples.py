"""Operations of all kinds, filters for them, and Hypothesis with a store of the test's event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.grants import Grant, Grants, granted
from progress_broker.model.operation import NewOperation, Operation, Status
from progress_broker.operations.commands import publish_call
from progress_broker.operations.loading import load
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters, Span

T = TypeVar("T")

TITLES = (
    None,
    "Customers",
    "CUSTOMERS of Straße 5",
    'say "hi" \\ \u212aelvin',
    "ﬁnal",
    "a/b <c> & 'd' +1",
    "Köln\nBonn",
)
WORKERS = ("w1", "w-2", "Fuß", "")
ERRORS = (
    b'{"status":"failed","error":{"type":"timeout","message":"The bank did not answer"}}',
    b'{"status":"failed","error":{"type":"Timeout","message":"Stra\\u00dfe \\"7\\""}}',
    '{"status":"failed","error":{"type":"zürich","message":"FUSS"}}'.encode(),
    b'{"status":"failed","error":["a","list"]}',
    b'{"status":"failed","error":"a text"}',
    b'{"status":"cancelled"}',
    b'{"status":"succeeded","result":{"timeout":1}}',
)
TEXTS = ("custom", "STRASSE", "straße", "kelvin", "FI", "hi", '"', "\\", "a/b", "<", "op1", "OP", "köln", "\n", "fuss")
NUMBER = 84


async def fill(store: Store) -> None:
    """Create operations that differ in all that filters ask for."""
    for i in range(NUMBER):
        new = NewOperation(
            id=f"{('op', 'Op', 'import-')[i % 3]}{i}",
            kind=("k", "l", "m")[i % 3],
            owner=("ann", "bob", None)[i // 3 % 3],
            title=TITLES[i % len(TITLES)],
            tags=[f"t{i % 4}", f"u{i % 5}"],
            metadata={"customer": i % 3},
            parent=("op0", "none", None)[i % 3] if i % 2 else None,
        )
        id = (await store.create(new))[0].id
        if i % 4:
            worker = WORKERS[i % len(WORKERS)]
            call = publish_call(id, store.keyspace.operation(id), [NewEvent("log", b"{}")], worker=worker)
            await store.connections.scripts.run(call)
        if i % 5 == 1:
            await store.publish(id, [encode("metadata", {"customer": 7}, store.settings)])
        if i % 4 > 1:
            error = ERRORS[i // 4 % len(ERRORS)]
            await store.publish(id, [NewEvent("end", error, error[11:].partition(b'"')[0].decode())])


async def all_of(store: Store) -> list[Operation]:
    """Return all operations, without the help of indexes."""
    ids = [f"{prefix}{i}" for i in range(NUMBER) for prefix in ("op", "Op", "import-")]
    return await load(store.connections, store.keyspace, store.rollups, ids)


def spans(times: list[int]) -> st.SearchStrategy[Span]:
    ends = st.none() | st.sampled_from(sorted({ms + by for ms in times for by in (-1, 0, 1)}))
    return st.builds(lambda a, b: Span(*sorted((a, b))) if a and b else Span(a, b), ends, ends)


def grants() -> st.SearchStrategy[Grants | None]:
    names = st.sets(st.sampled_from(("k", "ann", "t1", "op1", "op4", "nobody")), max_size=3) | st.none()
    prefixes = st.none() | st.sampled_from((("op",), ("import-1", "Op")))
    one = st.builds(
        lambda ids, owners, kinds, tags, prefixes: granted(
            ["read"], ids=ids, owners=owners, kinds=kinds, tags=tags, prefixes=prefixes
        ),
        *(names, names, names, names, prefixes),
    )
    limits: st.SearchStrategy[tuple[Grant, ...]] = st.just(()) | st.tuples(one)
    return st.none() | st.builds(Grants, st.lists(one, max_size=2).map(tuple), limits)


def few(*values: T) -> st.SearchStrategy[tuple[T, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


def filters(operations: list[Operation]) -> st.SearchStrategy[Filters]:
    """Return filters that some of the operations match."""

    def ms(*names: str) -> list[int]:
        times = [getattr(operation, name) for operation in operations for name in names]
        return [round(time.timestamp() * 1000) for time in times if time is not None]

    every = {
        "ids": few("op0", "op3", "Op1", "import-2", "x"),
        "statuses": st.frozensets(st.sampled_from(Status), max_size=3),
        "kinds": few("k", "l", "x\ny"),
        "owners": few("ann", "bob"),
        "tags": few("t1", "u2"),
        "metadata": few("customer=1", "customer=7"),
        "parent": st.sampled_from(("op0", "none")),
        "roots": st.just(True),
        "id_prefix": st.sampled_from(("op", "import-1", "Op2")),
        "text": st.sampled_from(TEXTS),
        "worker": st.sampled_from(("w1", "Fuß", "w")),
        "error": st.sampled_from(("timeout", "BANK", "fuss", "zürich", "Straße", "malformed", "list", "text", "7")),
        "changed": spans(ms("updated_at")),
        "created": spans(ms("created_at")),
        "ended": spans(ms("finished_at")),
        "grants": grants(),
    }
    names = st.lists(st.sampled_from(sorted(every)), max_size=3, unique=True)
    return names.flatmap(lambda chosen: st.builds(Filters, **{name: every[name] for name in chosen}))


async def holds(check: Callable[..., Awaitable[None]], *strategies: st.SearchStrategy[object], examples: int) -> None:
    """Check examples in the event loop of the test, where its store lives."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*strategies))
    def ask(example: tuple[object, ...]) -> None:
        async def checked() -> None:
            await check(*example)

        asyncio.run_coroutine_threadsafe(checked(), loop).result()

    await asyncio.to_thread(ask)
