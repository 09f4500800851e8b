"""Dramatiq: every message is an operation.

    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    import progress_workers
    from progress_workers.queues.dramatiq import install

    broker = RedisBroker()
    install(broker)
    dramatiq.set_broker(broker)

    @dramatiq.actor
    def import_rows(rows):
        for row in progress_workers.track(rows):
            ...

`install` is called where the broker is made, before actors are declared, so that both who sends and the worker do so;
which Redis the progress goes to says `PROGRESS_REDIS_URL`. `message = import_rows.send(rows)` can be followed as
`message.message_id` at once.

What to say of an operation beside its kind, the actor's name, stands where the actor is declared or the message is
sent; `False` is for what is not to be reported:

    @dramatiq.actor(progress={"kind": "import", "tags": ["nightly"]})
    def import_rows(rows): ...

    import_rows.send_with_options(args=[rows], progress={"title": "Import of May", "owner": "alice"})

    @dramatiq.actor(progress=False)
    def heartbeat(): ...

**Retries**, and messages that are delivered again because their worker died, are further attempts at the same
operation.

**Cancelling.** An operation that is cancelled stops its actor where the actor looks:
`progress_workers.current().raise_if_cancelled()`. One that still runs `interrupt_after_s` seconds later (10; None for
never) is interrupted as Dramatiq's time limit does it: `Interrupted` is raised in its thread, between two steps of
Python, so not in the middle of a call that waits. Either way the message fails and is not retried. Dramatiq itself
can't revoke a message; what a middleware skips ends as cancelled, or as failed if the middleware failed it, and what it
interrupts by an `Interrupt` of its own, without a retry, ends as cancelled.

**Limits.** In a coroutine, too, `progress_workers.current()` is an `Operation`. With gevent nothing is interrupted. An
actor's `throws` option is extended by what stops an actor; a message that brings its own `throws` is retried once too
often.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from functools import partial
from threading import get_ident
from typing import Any

from progress_broker.extras import require

try:
    from dramatiq import Actor, Broker, Message, Middleware
    from dramatiq.middleware import Interrupt, SkipMessage
    from dramatiq.middleware.shutdown import Shutdown
    from dramatiq.middleware.threading import is_gevent_active, raise_thread_exception
    from dramatiq.middleware.time_limit import TimeLimitExceeded
except ModuleNotFoundError:
    require("dramatiq", __name__)
    raise

from progress_workers.errors import Cancelled
from progress_workers.null import NoOperation
from progress_workers.operation import Operation
from progress_workers.queues._runs import LOST, announce, begin, last_resort, leave, seconds, succeed, worded
from progress_workers.values import let_pass

__all__ = ["Interrupted", "Progress", "install"]

let_pass(Interrupt)


class Interrupted(Interrupt):
    """Raised in an actor's thread when its operation was cancelled and it did not stop by itself."""


def install(broker: Broker, *, interrupt_after_s: float | None = 10.0) -> None:
    """Report a broker's messages. Call it before actors are declared.

    An actor that still runs `interrupt_after_s` seconds after its operation was cancelled is interrupted; None: never.
    """
    progress = Progress(interrupt_after_s=interrupt_after_s)
    if broker.middleware:
        broker.add_middleware(progress, before=type(broker.middleware[0]))
    else:
        broker.add_middleware(progress)


class _Run:
    """A message while its actor works on it."""

    def __init__(self, op: Operation | NoOperation, message: str) -> None:
        self.op, self.message = op, message
        self.retry_in_s: float | None = None
        """When it was enqueued again under its id: how much later it follows, in seconds."""
        self.resort = ExitStack()


_run: ContextVar[_Run | None] = ContextVar("progress_dramatiq", default=None)
"""What the worker's thread works on. Not found by the message's id: one may be delivered while it is worked on."""


def _taken() -> _Run | None:
    run = _run.get()
    _run.set(None)
    if run is not None:
        # It may be about to interrupt an actor that ends this very moment.
        with suppress(Interrupted):
            run.resort.close()
    return run


class Progress(Middleware):
    """What `install` adds. It has to stand before all others, so that it hears last what they did with a message."""

    def __init__(self, *, interrupt_after_s: float | None = 10.0) -> None:
        self._interrupt_after_s = None if is_gevent_active() else interrupt_after_s  # type: ignore[no-untyped-call]

    @property
    def actor_options(self) -> set[str]:
        """The option that says what is said of an operation."""
        return {"progress"}

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Have what stops an actor not retried."""
        throws = actor.options.get("throws") or ()
        given = throws if isinstance(throws, tuple) else tuple(throws) if isinstance(throws, list) else (throws,)
        actor.options["throws"] = tuple(dict.fromkeys((*given, Cancelled, Interrupted, *LOST)))

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Create the operation, or note that it goes on."""
        run = _run.get()
        if run is not None and run.message == message.message_id:
            run.retry_in_s = seconds(delay) / 1000
        elif not message.options.get("retries"):
            words = _words(broker, message)
            if words is not None:
                announce(message.message_id, words)

    def before_process_message(self, broker: Broker, message: Any) -> None:
        """Begin an attempt."""
        words = _words(broker, message)
        if words is None:
            return
        try:
            op = begin(Operation, message.message_id, words)
        except Cancelled as error:
            message.fail()
            raise SkipMessage(str(error)) from error
        run = _Run(op, message.message_id)
        _run.set(run)
        op.__enter__()
        interrupt: Callable[[], None] = partial(raise_thread_exception, get_ident(), Interrupted)
        run.resort.enter_context(last_resort(op, self._interrupt_after_s, interrupt))

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Say how it went, now that it is known whether it is retried."""
        run = _taken()
        if run is None:
            return
        if exception is None:
            succeed(run.op, result)
        elif run.retry_in_s is not None:
            run.op.retry_in(run.retry_in_s, exception)
        else:
            run.op.fail(_stopped(run.op, exception) or exception)
        leave(run.op)

    def after_skip_message(self, broker: Broker, message: Any) -> None:
        """Say that another middleware had it skipped."""
        run = _taken()
        if run is not None:
            run.op.fail("skipped" if message.failed else Cancelled(run.op.id, "skipped"))
            leave(run.op)


def _words(broker: Broker, message: Any) -> Any:
    actor = broker.actors.get(message.actor_name)
    declared = actor.options.get("progress") if actor is not None else None
    return worded(message.actor_name, declared, message.options.get("progress"))


def _stopped(op: Operation | NoOperation, exception: BaseException) -> Cancelled | None:
    """Return an interrupt as the cancel that it was, None for any other exception."""
    if not isinstance(exception, Interrupt) or isinstance(exception, Shutdown | TimeLimitExceeded):
        return None
    try:
        op.raise_if_cancelled()
    except Cancelled as error:
        return error
    except LOST:
        pass
    return Cancelled(op.id, type(exception).__name__)
