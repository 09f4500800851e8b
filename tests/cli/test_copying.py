"""`copy` as people run it: it goes on after a kill, says where it stands, and is finished by the cut-over."""

import asyncio
import signal
from json import loads

import redis

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from tests.cases import case
from tests.cli.conftest import Shell
from tests.conftest import make_settings
from tests.servers import free_port, wait_until
from tests.transfer.copies import contents

COUNT = 200
LINE = NewEvent("log", b'{"message":"line"}')


async def change(url: str, created: range, deleted: str = "") -> None:
    async with await Store.open(make_settings(redis_url=url)) as store:
        for n in created:
            await store.create(NewOperation(id=f"op-{n}"))
            await store.publish(f"op-{n}", [LINE] * 20)
        if deleted:
            await store.publish("op-0", [LINE])
            await store.delete(deleted, force=True)


async def both(*urls: str) -> list[dict[str, object]]:
    found = []
    for url in urls:
        async with await Store.open(make_settings(redis_url=url)) as store:
            found.append(await contents(store))
    return found


def test_a_copy_that_is_killed_goes_on_and_one_at_a_time_writes(shell: Shell, redis_url: str, second_url: str) -> None:
    words = ("copy", "--to-redis-url", second_url)
    asyncio.run(change(redis_url, range(COUNT)))
    with redis.Redis.from_url(second_url) as target:

        def copied() -> int:
            return sum(target.zcard(key) for key in target.keys("{pb:*}:index"))

        for at, least in enumerate((5, COUNT // 2)):
            with shell.process(*words, "--follow") as copier:
                wait_until(lambda least=least: copied() > least, "some are copied")  # type: ignore[misc]
                copier.stop(signal.SIGKILL)
            assert copied() < COUNT
            said = shell.fails(2, *words)
            assert said.startswith(f"process {copier.pid} of ")
            assert "has the target of the copy now; one that died has it for 30 s more at most" in said
            assert 0 < target.pttl("pb:copying") <= 30_000
            target.delete("pb:copying")  # as after 30 s
            asyncio.run(change(redis_url, range(COUNT + 10 * at, COUNT + 10 * at + 10), deleted=f"op-{at + 1}"))
    done = shell.run(*words)
    assert (done.returncode, done.stderr) == (0, f"progress-broker: the copy has caught up: {COUNT + 18} operations\n")
    source, target_has = asyncio.run(both(redis_url, second_url))
    assert target_has == source


def test_a_copy_that_is_stopped_says_where_it_stands_and_goes_on(shell: Shell, second_url: str) -> None:
    for id in ("a", "open"):
        shell.says("publish", id, "--create", "--kind", "import", "--type", "progress", "--data", "{}")
    shell.says("publish", "a", "--type", "end", "--data", '{"status": "succeeded"}')
    to = ("copy", "--to-redis-url", second_url)
    with shell.process(*to, "--follow") as copier:
        wait_until(lambda: "It goes on with what changes" in copier.output(), "it has caught up")
        assert copier.stop(signal.SIGINT) == 0
    assert copier.output().splitlines()[1:] == [
        "progress-broker: stopped: it has all, 2 operations, and is 0.0 s behind."
        " The same command goes on with the copy; with --cut-over it also finishes it"
    ]
    shell.says("publish", "open", "--type", "log", "--data", '{"message": "later"}')
    done = shell.run("copy", "--to-redis-url", "-", "--cut-over", stdin=second_url.encode() + b"\n")
    assert done.returncode == 0
    assert f"start servers and workers with PROGRESS_REDIS_URL={second_url} and PROGRESS_PREFIX=pb" in done.stderr
    assert shell.lines("ls", "--redis-url", second_url) == shell.lines("ls")
    assert "neither empty nor a copy" in shell.fails(2, *to)
    audited = [loads(line)["target"] for line in shell.says("audit", "--action", "copy", "-o", "jsonl").splitlines()]
    assert audited == [second_url] * 2
    assert len(shell.says("audit", "--redis-url", second_url, "-o", "jsonl").splitlines()) == 1


def test_a_cut_over_that_is_stopped_changes_nothing(shell: Shell, second_url: str) -> None:
    with shell.process("serve", "--port", "0") as server:
        wait_until(lambda: "serving on http" in server.output(), "it serves")
        with shell.process("copy", "--to-redis-url", second_url, "--cut-over") as copier:
            wait_until(lambda: "waiting until the servers at the source are stopped" in copier.output(), "it waits")
            assert copier.stop(signal.SIGTERM) == 130
        assert "the source is still the one to use" in copier.output()
    assert shell.run("copy", "--to-redis-url", second_url).returncode == 0


def test_a_target_that_can_not_be_used_is_rejected_by_its_option(shell: Shell, redis_url: str, second_url: str) -> None:
    with redis.Redis.from_url(second_url) as target:
        target.hset("lanes:meta", mapping={"schema": "2", "lanes": "1", "tags": "lanes:0"})
    for code, said, words in (
        (2, "the target is the source itself: give --to-redis-url another Redis, or --to-prefix", (redis_url,)),
        (5, "the target can't be used: Redis can't be reached", (f"redis://127.0.0.1:{free_port()}",)),
        (5, "the target can't be used: invalid settings: --to-redis-url: a Redis address must begin with", ("no-url",)),
        (5, "the target can't be used: invalid settings: --to-prefix:", (second_url, "--to-prefix", "a b")),
        (5, "the target was set up with another number of lanes", (second_url, "--to-prefix", "lanes")),
    ):
        with case(words):
            assert shell.fails(code, "copy", "--to-redis-url", *words).startswith(said)
