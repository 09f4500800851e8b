"""Arguments that are wrong: each call says what was expected, before anything is sent."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from progress_broker.errors import InvalidInput, NotFound
from progress_client import AsyncClient, Client
from progress_server import Progress
from progress_server.mounted.operations import Operations
from tests.conftest import make_settings

NOWHERE = "redis://127.0.0.1:1"
"""No Redis: a call that reached for it would fail with another error."""

WRONG: dict[str, list[Any]] = {
    "id": [5, None, b"i", ["i"]],
    "operation": [5, None],
    "reason": [5, b"why"],
    "by": [5],
    "force": ["no", 1, None],
    "list_children": ["no"],
    "timeout": ["5", float("nan"), True],
    "after": [5, b"0-0", "x"],
    "types": [5, [5], "A B"],
    "type": [5, None],
    "status": [5, [None], "done"],
    "owner": [5, ["a"]],
    "kind": [5],
    "tag": [5, [5]],
    "parent": [5],
    "metadata": [5, "x", {5: 1}, {"a": [1]}],
    "page_size": ["x", 0, 201, 2.5, None],
    "limit": [0, "x"],
    "cursor": [5],
    "principal": [5, None],
}
RIGHT: dict[str, Any] = {"id": "i", "operation": "i", "type": "pause", "principal": "alice"}


async def call(method: Callable[..., Any], arguments: dict[str, Any]) -> None:
    made = method(**arguments)
    if inspect.isasyncgen(made):
        await anext(made, None)
    else:
        await made


def calls(owner: type, *names: str) -> list[Any]:
    """Return each method with each of its arguments that can be wrong."""
    methods = {name: inspect.signature(getattr(owner, name)).parameters for name in names}
    return [pytest.param(name, of, id=f"{name}-{of}") for name, has in methods.items() for of in has if of in WRONG]


@pytest.mark.parametrize(
    ("name", "wrong"), calls(AsyncClient, "get", "list", "watch", "wait", "cancel", "signal", "publish")
)
async def test_a_call_of_the_reader_says_which_argument_is_wrong(name: str, wrong: str) -> None:
    async with AsyncClient(redis_url=NOWHERE) as client:
        method = getattr(client, name)
        given = {of: RIGHT[of] for of in inspect.signature(method).parameters if of in RIGHT}
        for value in WRONG[wrong]:
            with pytest.raises(InvalidInput) as error:
                await call(method, given | {wrong: value})
            assert error.value.field in (wrong, "position"), value
        for id in ("", "a b", "x" * 129, "ü"):
            if "id" in given:
                with pytest.raises(NotFound, match="not a valid id"):
                    await call(method, given | {"id": id})


async def test_events_and_signals_have_the_names_that_a_server_takes() -> None:
    async with AsyncClient(redis_url=NOWHERE) as client:
        for type in ("A B", "", "x" * 65, "snapshot"):
            with pytest.raises(InvalidInput, match="type"):
                await client.publish("i", type, {})
        for type in ("A B", "", "x" * 65, "cancel"):
            with pytest.raises(InvalidInput, match="type"):
                await client.signal("i", type, {})


@pytest.mark.parametrize(("name", "wrong"), calls(Operations, "get", "list", "cancel", "publish", "ticket"))
async def test_so_does_a_call_of_a_mounted_server(name: str, wrong: str) -> None:
    progress = Progress(lambda _: None, settings=make_settings(redis_url=NOWHERE))
    method = getattr(progress.operations, name)
    given = {of: RIGHT[of] for of in inspect.signature(method).parameters if of in RIGHT}
    for value in WRONG[wrong]:
        with pytest.raises(InvalidInput) as error:
            await method(**given | {wrong: value})
        assert error.value.field == wrong


@pytest.mark.parametrize("options", [{"settings": {}}, {"patience_s": "x"}, {"settings": "redis://x"}])
def test_so_does_making_a_client(options: Any) -> None:
    for kind in (AsyncClient, Client):
        with pytest.raises(InvalidInput, match=next(iter(options))):
            kind(**options)
