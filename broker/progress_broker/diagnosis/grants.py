"""Which commands Redis grants to our user. Each is sent in a form that changes nothing, granted or not.

`ACL DRYRUN` would need an administrator. Redis checks permissions before it reads arguments: so a command with wrong
arguments is rejected as such if it is granted, and otherwise as not permitted (NOPERM).
"""

from collections.abc import Iterable, Mapping, Sequence
from secrets import token_hex
from typing import Any

import redis.exceptions

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.diagnosis.servers import Server
from progress_broker.settings import Settings
from progress_broker.storage.keys import denied_key, lane_tags, meta_key, secrets_key
from progress_broker.storage.scripts import SCHEMA

Form = tuple[str, ...]

_NO_SCRIPT = "0" * 40
_NOBODY_WAITS = {"role", "wait"}
"""Without these, creations and ends do not wait for replicas: it works all the same."""
_OF_CLUSTERS = {"asking", "cluster|slots"}


def forms(key: str) -> Mapping[str, Form]:
    """Return each command that a server sends, or that a script of it runs, by its name in ACL, in a harmless form.

    Nothing has the key.
    """
    return {
        "ping": ("PING",),
        "info": ("INFO", "server"),
        "client|setname": ("CLIENT", "SETNAME", "a name with spaces"),
        "cluster|slots": ("CLUSTER", "SLOTS"),
        "evalsha": ("EVALSHA", _NO_SCRIPT, "0"),
        "script|load": ("SCRIPT", "LOAD", "this is not Lua"),
        "role": ("ROLE",),
        "wait": ("WAIT", "0", "1"),
        "time": ("TIME",),
        "get": ("GET", key),
        "set": ("SET", key, "value", "NO-SUCH-OPTION"),
        "exists": ("EXISTS", key),
        "del": ("DEL", key),
        "expire": ("EXPIRE", key, "not-a-number"),
        "pexpire": ("PEXPIRE", key, "not-a-number"),
        "pexpireat": ("PEXPIREAT", key, "not-a-number"),
        "pttl": ("PTTL", key),
        "rename": ("RENAME", key, key),
        "hget": ("HGET", key, "field"),
        "hgetall": ("HGETALL", key),
        "hmget": ("HMGET", key, "field"),
        "hset": ("HSET", key, "field", "value", "field-without-a-value"),
        "hexists": ("HEXISTS", key, "field"),
        "hincrby": ("HINCRBY", key, "field", "not-a-number"),
        "hdel": ("HDEL", key, "field"),
        "xadd": ("XADD", key, "not-an-id", "field", "value"),
        "xdel": ("XDEL", key, "0-1"),
        "xtrim": ("XTRIM", key, "NO-SUCH-OPTION", "1"),
        "xlen": ("XLEN", key),
        "xread": ("XREAD", "STREAMS", key, "not-an-id"),
        "xrange": ("XRANGE", key, "-", "+", "COUNT", "1"),
        "xrevrange": ("XREVRANGE", key, "+", "-", "COUNT", "1"),
        "zadd": ("ZADD", key, "not-a-number", "member"),
        "zcard": ("ZCARD", key),
        "zinter": ("ZINTER", "1", key),
        "zrandmember": ("ZRANDMEMBER", key),
        "zrange": ("ZRANGE", key, "0", "0"),
        "zrangebyscore": ("ZRANGEBYSCORE", key, "0", "0"),
        "zrevrangebyscore": ("ZREVRANGEBYSCORE", key, "0", "0"),
        "zrem": ("ZREM", key, "member"),
        "zremrangebyscore": ("ZREMRANGEBYSCORE", key, "not-a-number", "0"),
        "zscan": ("ZSCAN", key, "0"),
        "zscore": ("ZSCORE", key, "member"),
        "asking": ("ASKING",),  # the last, as it is about the command after it
    }


async def examine_grants(server: Server, settings: Settings) -> Iterable[Finding]:
    """Return the commands and the keys that the user of an address lacks."""
    prefix = settings.prefix
    of_lane = f"{{{lane_tags(prefix, 1)[0]}}}:doctor:{token_hex(8)}"
    keys = (meta_key(prefix), secrets_key(prefix), denied_key(prefix), of_lane)
    wanted = {
        name: form
        for name, form in forms(of_lane).items()
        if server.address.kind == "cluster" or name not in _OF_CLUSTERS
    }
    meta, *replies = await server.ask(
        ("HEXISTS", keys[0], "schema"), *(("EXISTS", key) for key in keys), *wanted.values()
    )
    hidden = [key for key, reply in zip(keys, replies, strict=False) if _lacks_key(reply)]
    missing = [name for name, reply in zip(wanted, replies[len(keys) :], strict=True) if _lacks_command(reply)]
    if meta == 1:
        # It has no form with wrong arguments. Sent only where the field is there, so it sets nothing; and if it is lost
        # just now, this is what every program writes to it.
        (reply,) = await server.ask(("HSETNX", keys[0], "schema", str(SCHEMA)))
        missing += ["hsetnx"] if _lacks_command(reply) else []
    return _found(server, missing, hidden, prefix)


def _lacks_command(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.NoPermissionError) and " run " in str(reply)


def _lacks_key(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.NoPermissionError) and " run " not in str(reply)


def _found(server: Server, missing: Sequence[str], hidden: Sequence[str], prefix: str) -> Iterable[Finding]:
    user = server.address.username or "default"
    if hidden:
        yield Finding(
            Check.GRANTS,
            Level.FAULT,
            server.at,
            f"the Redis user {user} may not access keys such as {', '.join(hidden)}",
            f"ACL SETUSER {user} ~{prefix}:* ~{{{prefix}:*",
        )
    needed = [name for name in missing if name not in _NOBODY_WAITS]
    if needed:
        yield Finding(
            Check.GRANTS,
            Level.FAULT,
            server.at,
            f"the Redis user {user} may not run {', '.join(needed)}, which servers need",
            f"ACL SETUSER {user} {_grants(missing)} (deploy/redis.conf has all grants)",
        )
    elif missing:
        yield Finding(
            Check.GRANTS,
            Level.WARNING,
            server.at,
            f"the Redis user {user} may not run {', '.join(missing)}, so creations and ends do not wait for replicas",
            f"ACL SETUSER {user} {_grants(missing)}",
        )
    elif not hidden:
        yield Finding(Check.GRANTS, Level.GOOD, server.at, f"the Redis user {user} may run all commands of a server")


def _grants(names: Sequence[str]) -> str:
    return " ".join(f"+{name}" for name in names)
