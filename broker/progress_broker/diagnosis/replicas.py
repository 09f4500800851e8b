"""What is wrong with the servers that use a Redis, by what each of them tells of itself there."""

from collections.abc import Iterable, Iterator, Sequence

from progress_broker.diagnosis.clocks import of_clock
from progress_broker.diagnosis.finding import MAKE_ROOM, Check, Finding, Level
from progress_broker.operations.store import Store
from progress_broker.replicas.presence import ReplicaState, differing_settings, present_replicas
from progress_broker.storage import lanes

FILES_PER_STREAM = 1.1
"""Beside its streams, a server needs files for requests, Redis and its own modules."""
STARTING_S = 15.0
"""How long after its start a server may still become ready."""
_UNSURE_S = 0.5
"""How exactly it is known when a replica told what its clock says."""
_WHO_MAY = frozenset({"auth", "jwt_issuer", "jwt_audience"})
_REFUSED = {
    "full": (
        Check.MEMORY,
        "Redis refused what the server published last, as it is out of memory or disk: nothing new is stored",
        MAKE_ROOM,
    ),
    "read-only": (
        Check.ROLE,
        "the Redis that the server writes to is a replica, or takes no writes for want of replicas",
        "give the server the address of the master, or of the sentinels, and start the replicas",
    ),
    "away": (
        Check.REDIS,
        "the server can not reach a server of Redis at which it publishes",
        "look from the server's machine whether Redis answers: firewalls and `bind` may be in the way",
    ),
    "failed": (
        Check.GRANTS,
        "Redis answers the server, but rejects what it publishes",
        "the server's log says why: a permission may be missing, or a key is of another program",
    ),
}
"""What it means that a server's last probe was refused, and what to do."""


async def examine_replicas(store: Store, at: str) -> Iterable[Finding]:
    """Return what is wrong with the servers that are present, or that there is none."""
    states = await present_replicas(store)
    if not states:
        return [_nobody(at)]
    now_s = (await store.now()).timestamp()
    return [
        *_differences(states, at),
        *(found for state in states for found in _of_one(state, now_s, store.settings.max_streams)),
    ]


def _nobody(at: str) -> Finding:
    return Finding(
        Check.REPLICAS,
        Level.FAULT,
        at,
        "no server uses this Redis: nobody gets events, expired operations stay, and silent workers are not noticed",
        "start one (`progress-broker serve`) with this PROGRESS_REDIS_URL and PROGRESS_PREFIX",
    )


def _differences(states: Sequence[ReplicaState], at: str) -> Iterator[Finding]:
    versions = {state.version: _name(state) for state in states}
    if len(versions) > 1:
        told = ", ".join(f"{version} on {name}" for version, name in versions.items())
        fix = "upgrade the older ones; while an upgrade goes on, this is as it should be"
        yield Finding(Check.REPLICAS, Level.WARNING, at, f"servers of several versions run: {told}", fix)
    else:
        yield Finding(
            Check.REPLICAS,
            Level.GOOD,
            at,
            f"servers run, of version {states[0].version}",
            figures={"replicas": len(states), "streams": sum(state.streams for state in states)},
        )
    for setting in differing_settings(states):
        values = {str(state.settings.get(setting)): _name(state) for state in states}
        told = ", ".join(f"{value} on {name}" for value, name in values.items())
        name = f"PROGRESS_{setting.upper()}"
        yield Finding(
            Check.SETTINGS,
            Level.FAULT if setting in _WHO_MAY else Level.WARNING,
            at,
            f"servers differ in {name}, so it depends on the server what a caller gets: {told}",
            f"set {name} to the same value everywhere, and restart the servers that have another",
        )


def _of_one(state: ReplicaState, now_s: float, max_streams: int) -> Iterator[Finding]:
    name = _name(state)
    yield of_clock(name, "the server", state.clock_at.timestamp() - (now_s - state.told_s), _UNSURE_S, "Redis")
    if not state.ready and not state.draining:
        away = f" ({lanes.shown(state.lanes_away)})" if state.lanes_away else ""
        yield Finding(
            Check.REPLICAS,
            Level.WARNING if now_s - state.started_at.timestamp() < STARTING_S else Level.FAULT,
            name,
            f"the server is not ready: {state.reason}{away}",
            "its /readyz and its log say why: Redis may be away from there, or reject what it sends",
        )
    elif state.lanes_away:
        yield Finding(
            Check.REPLICAS,
            Level.FAULT,
            name,
            f"the server can't reach {lanes.shown(state.lanes_away)}: their operations get no streams there",
            "start the master that has these lanes, or let a replica of it take over",
        )
    if state.refused:
        check, said, fix = _REFUSED.get(state.refused, _REFUSED["failed"])
        yield Finding(check, Level.FAULT, name, said, fix)
    yield _files(state, name, state.streams_max or max_streams)


def _files(state: ReplicaState, name: str, max_streams: int) -> Finding:
    figures = {"files_max": float(state.files_max)}
    if state.files_max < 0 or state.files_max >= FILES_PER_STREAM * max_streams:
        return Finding(Check.FILES, Level.GOOD, name, "the server may open enough files", figures=figures)
    return Finding(
        Check.FILES,
        Level.WARNING,
        name,
        f"the server may open {state.files_max} files, and each stream needs one: it takes fewer than"
        f" PROGRESS_MAX_STREAMS ({max_streams})",
        f"raise its limit to {round(FILES_PER_STREAM * max_streams)} (systemd: LimitNOFILE; compose: ulimits; shells:"
        " ulimit -n), or set PROGRESS_MAX_STREAMS to what it shall take",
        figures,
    )


def _name(state: ReplicaState) -> str:
    return f"{state.id} ({state.host}, {state.address})"
