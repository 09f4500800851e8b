"""What is removed from an export is nowhere in it; what is replaced is the same code everywhere in it."""

import re
from typing import Any

import orjson
import pytest

from progress_broker.errors import InvalidInput
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.transfer.endpoints import Result, Unfinished
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.files.json_path import JsonPath
from progress_broker.transfer.files.redaction import RedactedSource
from progress_broker.transfer.format import ExportedOperation
from progress_broker.transfer.redis.source import RedisSource
from tests.transfer.exports import ALL, forget_all, import_into, listed, parts_of, results
from tests.transfer.fleet import make_fleet

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("path", "value", "after"),
    [
        ("$.a.b", {"a": {"b": 1, "c": 2}, "b": 3}, {"a": {"c": 2}, "b": 3}),
        ("$..b", {"a": [{"b": 1}, {"b": {"b": 2}}], "b": 3}, {"a": [{}, {}]}),
        ("$.rows[*].name", {"rows": [{"name": 1, "n": 2}, {"name": 3}, 4]}, {"rows": [{"n": 2}, {}, 4]}),
        ("$.rows[*]", {"rows": [1, 2]}, {"rows": []}),
        ("$['a b']", {"a b": 1}, {}),
        ("$.a", [1], [1]),
    ],
)
def test_a_path_removes_what_it_leads_to(path: str, value: Any, after: Any) -> None:
    removed = JsonPath(path).remove(value)
    assert value == after
    assert removed is (path != "$.a")


@pytest.mark.parametrize("path", ["", "$", "a.b", "$.a[0]", "$.a[?(@.b)]", "$.", "$ .a"])
def test_what_is_no_path_is_told(path: str) -> None:
    with pytest.raises(InvalidInput, match="is no path: use"):
        JsonPath(path)


async def redacted(store: Store, *paths: str, anonymise: bool = False) -> bytes:
    source = RedactedSource(RedisSource(store, ALL), paths, anonymise=anonymise)
    return b"".join([lines async for lines in export_lines(source)])


async def test_what_is_redacted_is_gone_and_all_else_stays_as_it_was(store: Store) -> None:
    await make_fleet(store)
    await store.create(NewOperation(id="secret", metadata={"password": SECRET, "customer": 1}))
    for data in (b'{"message":"x","fields":{"password":"%b","n": 1e3}}', b'{"message": "not %b"}'):
        await store.publish("secret", [NewEvent("log", data % SECRET.encode())])
    await store.publish("secret", [encode("metadata", {"password": SECRET + "!"}, store.settings)])
    plain, text = await redacted(store), await redacted(store, "$..password")
    assert parts_of(text)[0].redacted == ["$..password"]
    assert text.count(SECRET.encode()) == 1  # in the message, where no path leads
    for before, after in zip(plain.splitlines()[1:-1], text.splitlines()[1:-1], strict=True):
        assert before == after or b'"password"' in before or b'"k":"end","id":"secret"' in before
    await forget_all(store)
    assert set(results(await import_into(store, text, unfinished=Unfinished.KEEP)).values()) == {Result.STORED}
    assert await listed(store, metadata=("customer=1",)) == {"secret"}
    assert await listed(store, metadata=(f"password={SECRET}",)) == set()
    assert (await store.get("secret")).metadata == {"customer": 1}


async def test_who_is_anonymised_has_one_code_in_an_export(store: Store) -> None:
    await make_fleet(store)
    for id in ("by-1", "by-2"):
        await store.create(NewOperation(id=id, owner="jo", title="Jo's job", metadata={"name": "jo"}))
        await store.publish(id, [encode("log", {"message": "jo was here"}, store.settings)])
        await store.publish(id, [encode("metadata", {"name": "jo", "more": ["jo", 1, None]}, store.settings)])
        await store.cancel(id, by="jo", force=True)
    text, other = await redacted(store, anonymise=True), await redacted(store, anonymise=True)
    assert parts_of(text)[0].redacted == ["anonymised"]
    assert not re.search(rb".{0,80}\b(jo|ann|Jo's)\b.{0,80}", text)
    operations = {part.id: part for part in parts_of(text) if isinstance(part, ExportedOperation)}
    owner = orjson.loads(operations["by-1"].fields[b"spec"])["owner"]
    assert owner == orjson.loads(operations["by-2"].fields[b"spec"])["owner"]
    assert owner.encode() not in other
    await forget_all(store)
    assert set(results(await import_into(store, text, unfinished=Unfinished.KEEP)).values()) == {Result.STORED}
    assert await listed(store, owners=(owner,)) == {"by-1", "by-2"} == await listed(store, metadata=(f"name={owner}",))
    assert len(await listed(store)) == len(operations)
