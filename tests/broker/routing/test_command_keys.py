"""The key by which a command is sent to a server, against what Redis itself says."""

import re
from pathlib import Path
from typing import Any

import pytest
import redis

from progress_broker.routing.command_keys import key_of
from progress_broker.routing.slots import slot_of

GRANTS = Path(__file__).parents[3] / "deploy" / "redis.conf"
KEYLESS = {"ping", "time"}
OF_A_SERVER = {"info", "script", "client", "wait", "role", "cluster", "asking", "hello", "config", "slowlog"}

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "evalsha": ("EVALSHA", "0" * 40, 2, "k", "other", "argument"),
    "memory": ("MEMORY USAGE", "k"),  # as the library writes it
    "xread": ("XREAD", "COUNT", 5, "BLOCK", 10, "STREAMS", "k", "other", "0-0", "0-0"),
    "zinter": ("ZINTER", 2, "k", "other", "WITHSCORES"),
}


def granted() -> set[str]:
    """The commands of the users in deploy/redis.conf."""
    users = [line for line in GRANTS.read_text().splitlines() if line.startswith("user ")]
    words = re.findall(r" \+([a-z]+)(?:\|[a-z-]+)?", " ".join(users))
    assert words
    return set(words) - KEYLESS - OF_A_SERVER


def test_the_key_is_the_one_that_redis_finds(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.response_callbacks.clear()  # type: ignore[attr-defined]
        for name in sorted(granted()):
            arity = client.execute_command("COMMAND", "INFO", name)[0][1]
            words = EXAMPLES.get(name, (name.upper(), "k", *"12345")[: abs(arity)])
            assert client.execute_command("COMMAND", "GETKEYS", *words[0].split(), *words[1:])[0] == b"k", name
            assert key_of(words) == "k"


@pytest.mark.parametrize("name", sorted(KEYLESS))
def test_any_server_may_answer_commands_that_name_no_key(name: str) -> None:
    assert key_of((name.upper(),)) is None


@pytest.mark.parametrize(
    "words", [("INFO",), ("SCRIPT LOAD", "text"), ("SCRIPT", "LOAD", "text"), ("CONFIG", "GET", "x"), ("DBSIZE",)]
)
def test_what_is_meant_for_one_server_is_sent_nowhere_by_accident(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="names no key"):
        key_of(words)


def test_slots_are_those_that_a_cluster_computes() -> None:
    assert slot_of("{pb:3}:op:x") == slot_of(b"{pb:3}:feed") == slot_of("pb:3")
    assert slot_of("{}:x") != slot_of("")
    assert slot_of("123456789") == 0x31C3
