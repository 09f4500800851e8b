"""What operators change at all replicas, or at one of them: settings that are read again, and a drain."""

from typing import Any

from pydantic import BaseModel

from progress_broker.errors import Conflict, NotFound, StorageUnavailable
from progress_broker.operations.store import Store
from progress_broker.replicas.calls import Question, Reply, ask
from progress_broker.replicas.presence import present_replicas

RELOAD_S = 10.0
"""How long a replica may take to read its settings again: a key set may have to be checked."""


class ReplicaReload(BaseModel):
    """What came of a reload at one replica."""

    replica: str
    error: str | None = None
    """Why nothing has changed there."""
    changed: list[str] = []
    """The settings with other values than before."""
    restart: list[str] = []
    """The settings that have changed, too, but only a restart takes them."""


class Reloads(BaseModel):
    """What came of a reload at all replicas."""

    replicas: list[ReplicaReload]
    silent: list[str]
    """The replicas that did not answer."""

    def described(self) -> str:
        """Return one line, for the audit."""
        failed = [it.replica for it in self.replicas if it.error is not None]
        parts = [f"{len(self.replicas) - len(failed)} of {len(self.replicas) + len(self.silent)} replicas"]
        parts += [f"not {', '.join(failed)}"] if failed else []
        parts += [f"no answer of {', '.join(self.silent)}"] if self.silent else []
        return "; ".join(parts)


class Drained(BaseModel):
    """A replica that sends its clients away."""

    replica: str
    streams: int
    """How many streams it had."""


async def reload_all(store: Store) -> Reloads:
    """Have all replicas read their settings again. Raises `StorageUnavailable` or `StorageFull`."""
    replies = await ask(store, Question.RELOAD, {}, patience_s=RELOAD_S)
    return Reloads(replicas=[_reload(reply) for reply in replies.answers], silent=list(replies.silent))


def _reload(reply: Reply) -> ReplicaReload:
    if "error" in reply.body:
        return ReplicaReload(replica=reply.replica, error=str(reply.body["detail"]))
    return ReplicaReload(replica=reply.replica, **reply.body)


async def drain(store: Store, replica: str, *, force: bool) -> Drained:
    """Have a replica send all its clients to the others. It takes no new ones until it is started again.

    Raises `NotFound` if there is no such replica, `Conflict` if no other one is ready, unless by `force`, and
    `StorageUnavailable` if it does not answer.
    """
    present = await present_replicas(store)
    if replica not in {state.id for state in present}:
        raise NotFound(f"there is no replica {replica[:60]!r}: `progress-broker replicas` lists those that are present")
    if not force and not any(state.ready for state in present if state.id != replica):
        raise Conflict(f"no other replica than {replica} is ready to take its clients: use force to drain it anyway")
    replies = await ask(store, Question.DRAIN, {"replica": replica}, replicas={replica})
    answers: dict[str, Any] = {reply.replica: reply.body for reply in replies.answers}
    if replica not in answers:
        raise StorageUnavailable(f"replica {replica} did not answer, so it may not drain")
    return Drained(replica=replica, streams=answers[replica]["streams"])
