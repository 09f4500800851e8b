"""What is wrong with a Redis server, by its own words and by how it answers."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import redis.exceptions

from progress_broker.diagnosis.bounded import all_of, bounded, denied
from progress_broker.diagnosis.certificates import examine_certificate
from progress_broker.diagnosis.clocks import of_clock
from progress_broker.diagnosis.finding import Check, Finding, Level, said_and_fix
from progress_broker.diagnosis.grants import examine_grants
from progress_broker.diagnosis.redis_report import examine_report
from progress_broker.diagnosis.servers import Server
from progress_broker.errors import StorageReadOnly, StorageUnavailable, StorageUnsuitable
from progress_broker.nodes.protocol_check import explained
from progress_broker.nodes.redis_errors import storage_error
from progress_broker.routing.server_kind import inquire
from progress_broker.runtime.steps import run_steps_async
from progress_broker.settings import Settings

SLOW_S = 0.02
LEAST_BUFFER_BYTES = 32 << 20
"""More than a page of the largest events."""
_OFF = ("false", "no", "0")
_PINGS, _SLOWEST_BUT_ONE = 100, -2

_REACH = "start Redis, or set PROGRESS_REDIS_URL to its address; firewalls and `bind` may be in the way"
_LOGIN = "write a user and password that Redis knows in PROGRESS_REDIS_URL: redis://user:password@host:6379/0"
_MASTER = "set PROGRESS_REDIS_URL to the master's address, or to its sentinels (redis+sentinel://…), which follow it"


async def examine_server(
    server: Server, settings: Settings, patience_s: float, clock: Callable[[], float]
) -> tuple[list[Finding], bool]:
    """Return what is wrong with one server, and whether it answers."""
    role, answers = await _reach(server, settings, patience_s)
    if not answers:
        return role, False

    def run(check: Check, work: Awaitable[Iterable[Finding]]) -> Awaitable[list[Finding]]:
        return bounded(check, server.at, work, patience_s)

    # The first is alone, as what other checks ask would make it slow.
    latency = await run(Check.LATENCY, _latency(server, patience_s))
    others = [
        run(Check.MEMORY, _report(server)),
        run(Check.GRANTS, examine_grants(server, settings)),
        run(Check.CLOCK, _clock(server, clock)),
        run(Check.BUFFERS, _buffers(server)),
    ]
    if server.address.tls:
        others.append(run(Check.CERTIFICATE, _certificate(server, clock)))
    return [*role, *latency, *await all_of(*others)], True


async def _reach(server: Server, settings: Settings, patience_s: float) -> tuple[list[Finding], bool]:
    """Return whether a server answers, and whether it is of the right kind, and a master."""

    async def ask(command: tuple[str, ...]) -> Any:
        (reply,) = await server.ask(command)
        return reply

    shown = server.address.shown
    try:
        async with asyncio.timeout(patience_s):
            await run_steps_async(inquire(shown, server.address.kind), ask)
    except TimeoutError:
        unanswered = f"Redis does not answer within {patience_s:g} s"
        return [await _unreached(server, settings, StorageUnavailable(unanswered))], False
    except (redis.exceptions.RedisError, OSError) as error:
        if _rejects_login(error):
            return [Finding(Check.REDIS, Level.FAULT, server.at, f"Redis rejects the login: {error}", _LOGIN)], False
        ours = storage_error(error)
        if isinstance(ours, StorageReadOnly):
            return [Finding(Check.ROLE, Level.FAULT, server.at, ours.detail.partition(". ")[0], _MASTER)], True
        if isinstance(ours, StorageUnsuitable):  # of another kind
            return [Finding(Check.ROLE, Level.FAULT, server.at, *said_and_fix(ours.detail))], True
        away = ours if isinstance(ours, StorageUnavailable) else StorageUnavailable(str(error))
        return [await _unreached(server, settings, away)], False
    return [Finding(Check.REDIS, Level.GOOD, server.at, "Redis answers, and is a master")], True


def _rejects_login(error: Exception) -> bool:
    login = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
    return isinstance(error, login) or isinstance(error.__cause__, login) or str(error).startswith("NOAUTH")


async def _unreached(server: Server, settings: Settings, error: StorageUnavailable) -> Finding:
    """Return that a server does not answer, with the cause if it speaks another protocol."""
    found = await asyncio.to_thread(explained, settings, error)
    if isinstance(found, StorageUnsuitable):
        return Finding(Check.REDIS, Level.FAULT, server.at, *said_and_fix(found.detail))
    return Finding(Check.REDIS, Level.FAULT, server.at, error.detail, _REACH)


async def _report(server: Server) -> Iterable[Finding]:
    try:
        report = await server.client.info()
    except redis.exceptions.NoPermissionError:
        return [denied(Check.MEMORY, server.at, "+info")]
    return list(examine_report(report, server.at, replicated=server.address.kind != "single"))


async def _buffers(server: Server) -> Iterable[Finding]:
    try:
        reply = await server.client.config_get("client-output-buffer-limit")
    except redis.exceptions.NoPermissionError:
        return [denied(Check.BUFFERS, server.at, "+config|get")]
    words = _text(next(iter(reply.values()), "")).split()
    # Four words a class of clients: its name, a hard and a soft limit in bytes, and for how many seconds the soft one.
    limits = {words[at]: words[at + 1 : at + 3] for at in range(0, len(words) - 2, 4)}
    least = min((int(limit) for limit in limits.get("normal", ()) if limit.isdigit() and limit != "0"), default=None)
    if least is None or least >= LEAST_BUFFER_BYTES:
        return [Finding(Check.BUFFERS, Level.GOOD, server.at, "replies may be as large as they need to be")]
    said = f"Redis cuts off clients that have not taken {least} bytes of replies yet: servers that catch up take more"
    fix = "CONFIG SET client-output-buffer-limit 'normal 0 0 0', and in its configuration"
    return [Finding(Check.BUFFERS, Level.WARNING, server.at, said, fix)]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


async def _clock(server: Server, clock: Callable[[], float]) -> Iterable[Finding]:
    began = clock()
    seconds, microseconds = await server.client.time()
    took_s = clock() - began
    # Redis looked at its clock some time in between.
    ahead_s = seconds + microseconds / 1e6 - (began + took_s / 2)
    return [of_clock(server.at, "Redis", ahead_s, took_s / 2, "this machine")]


async def _latency(server: Server, patience_s: float) -> Iterable[Finding]:
    took: list[float] = []
    end = time.perf_counter() + patience_s / 2
    connection = server.client.connection_pool.make_connection()
    try:
        await connection.connect()
        while len(took) < _PINGS and (not took or time.perf_counter() < end):
            began = time.perf_counter()
            await connection.send_command("PING", check_health=False)
            await connection.read_response()
            took.append(time.perf_counter() - began)
    finally:
        await connection.disconnect(nowait=True)
    return [await _of_latency(server, sorted(took))]


async def _of_latency(server: Server, took: list[float]) -> Finding:
    typical_s, slow_s = took[len(took) // 2], took[max(_SLOWEST_BUT_ONE, -len(took))]
    figures = {"ping_median_s": round(typical_s, 6), "ping_p99_s": round(slow_s, 6)}
    said = f"a PING takes {1000 * typical_s:.1f} ms, and one of a hundred {1000 * slow_s:.1f} ms"
    if slow_s <= SLOW_S:
        return Finding(Check.LATENCY, Level.GOOD, server.at, said, figures=figures)
    return Finding(
        Check.LATENCY,
        Level.WARNING,
        server.at,
        f"Redis answers slowly: {said}",
        f"move Redis nearer, give it a CPU of its own, or look for slow commands (SLOWLOG GET){await _slowest(server)}",
        figures,
    )


async def _slowest(server: Server) -> str:
    """Return the last entry of the slow log for people, where our user may read it."""
    with suppress(redis.exceptions.RedisError, OSError):
        for entry in await server.client.slowlog_get(1):
            command = entry["command"].split(b" ")
            name = b" ".join(command[:2]).decode("utf-8", "replace")
            return f": the last was {name} with {entry['duration'] / 1000:.0f} ms"
    return ""


async def _certificate(server: Server, clock: Callable[[], float]) -> Iterable[Finding]:
    options = server.address.library
    if options.get("ssl_cert_reqs") == "none":
        said = "Redis' certificate is not checked (ssl_cert_reqs=none): somebody else can pretend to be this Redis"
        fix = "take ssl_cert_reqs out of PROGRESS_REDIS_URL, and name the CA of the certificate: ?ssl_ca_certs=…"
        return [Finding(Check.CERTIFICATE, Level.WARNING, server.at, said, fix)]
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    if options.get("ssl_check_hostname", "true").lower() in _OFF:
        context.check_hostname = False
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return [await examine_certificate(server.at, server.endpoint, context, clock())]
