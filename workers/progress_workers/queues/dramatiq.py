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

Call `install` where the broker is created, before actors are declared, so that it runs both in the processes that send
and in the worker. `PROGRESS_REDIS_URL` sets which Redis the progress goes to. After `message = import_rows.send(rows)`,
the operation can be followed as `message.message_id` at once.

An operation's kind is the actor's name by default. Set this and other options where the actor is declared or the
message is sent; `False` turns reporting off:

    @dramatiq.actor(progress={"kind": "import", "tags": ["nightly"]})
    def import_rows(rows): ...

    import_rows.send_with_options(args=[rows], progress={"title": "Import of May", "owner": "alice"})

    @dramatiq.actor(progress=False)
    def heartbeat(): ...

**Retries** are further attempts at the same operation. So are messages that are delivered again because their worker
died.

**Cancelling.** When an operation is cancelled, its actor stops where it checks:
`progress_workers.current().raise_if_cancelled()`. If it still runs `interrupt_after_s` seconds later (default 10; None:
never), it is interrupted as Dramatiq's time limit does it: `Interrupted` is raised in its thread, between two steps of
Python, so not in the middle of a blocking call. In both cases the message fails and is not retried. Dramatiq itself
can't revoke a message. If a middleware skips a message, its operation ends as cancelled, or as failed if the middleware
failed the message. If a middleware interrupts an actor with its own `Interrupt`, without a retry, the operation ends as
cancelled.

**Limits.** In a coroutine, too, `progress_workers.current()` is an `Operation`. With gevent, actors are not
interrupted. The exceptions that stop an actor are added to its `throws` option. A message that has its own `throws` is
retried once too often.
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
from progress_workers.null import NullOperation
from progress_workers.operation import Operation
from progress_workers.queues._runs import (
    LOST,
    begin,
    create_for_task,
    force_stop_after,
    leave,
    merge_options,
    seconds,
    succeed,
)
from progress_workers.values import let_pass

__all__ = ["Interrupted", "Progress", "install"]

let_pass(Interrupt)


class Interrupted(Interrupt):
    """Raised in an actor's thread when its operation was cancelled and the actor did not stop by itself."""


def install(broker: Broker, *, interrupt_after_s: float | None = 10.0) -> None:
    """Report a broker's messages. Call it before actors are declared.

    An actor that still runs `interrupt_after_s` seconds after its operation was cancelled is interrupted. None: never.
    """
    progress = Progress(interrupt_after_s=interrupt_after_s)
    if broker.middleware:
        broker.add_middleware(progress, before=type(broker.middleware[0]))
    else:
        broker.add_middleware(progress)


class _Run:
    """A message while its actor processes it."""

    def __init__(self, op: Operation | NullOperation, message: str) -> None:
        self.op, self.message = op, message
        self.retry_in_s: float | None = None
        """The delay of the retry, in seconds; None if the message was not enqueued again with its id."""
        self.resort = ExitStack()


_run: ContextVar[_Run | None] = ContextVar("progress_dramatiq", default=None)
"""The run of this worker thread. It is not looked up by message id: a message may be delivered again while it runs."""


def _taken() -> _Run | None:
    run = _run.get()
    _run.set(None)
    if run is not None:
        # An interrupt may arrive at the moment at which the actor ends.
        with suppress(Interrupted):
            run.resort.close()
    return run


class Progress(Middleware):
    """The middleware that `install` adds. It stands first, so that after a message it runs last and sees the result."""

    def __init__(self, *, interrupt_after_s: float | None = 10.0) -> None:
        self._interrupt_after_s = None if is_gevent_active() else interrupt_after_s  # type: ignore[no-untyped-call]

    @property
    def actor_options(self) -> set[str]:
        """The actor option that holds the operation's options."""
        return {"progress"}

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        """Prevent retries after the exceptions that stop an actor."""
        throws = actor.options.get("throws") or ()
        given = throws if isinstance(throws, tuple) else tuple(throws) if isinstance(throws, list) else (throws,)
        actor.options["throws"] = tuple(dict.fromkeys((*given, Cancelled, Interrupted, *LOST)))

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        """Create the operation; for a retry, note that it continues."""
        run = _run.get()
        if run is not None and run.message == message.message_id:
            run.retry_in_s = seconds(delay) / 1000
        elif not message.options.get("retries"):
            operation_options = _operation_options(broker, message)
            if operation_options is not None:
                create_for_task(message.message_id, operation_options)

    def before_process_message(self, broker: Broker, message: Any) -> None:
        """Begin an attempt."""
        operation_options = _operation_options(broker, message)
        if operation_options is None:
            return
        try:
            op = begin(Operation, message.message_id, operation_options)
        except Cancelled as error:
            message.fail()
            raise SkipMessage(str(error)) from error
        run = _Run(op, message.message_id)
        _run.set(run)
        op.__enter__()
        interrupt: Callable[[], None] = partial(raise_thread_exception, get_ident(), Interrupted)
        run.resort.enter_context(force_stop_after(op, self._interrupt_after_s, interrupt))

    def after_process_message(
        self, broker: Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Report how the run ended: only now is it known whether the message is retried."""
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
        """Report that another middleware skipped the message."""
        run = _taken()
        if run is not None:
            run.op.fail("skipped" if message.failed else Cancelled(run.op.id, "skipped"))
            leave(run.op)


def _operation_options(broker: Broker, message: Any) -> Any:
    actor = broker.actors.get(message.actor_name)
    declared = actor.options.get("progress") if actor is not None else None
    return merge_options(message.actor_name, declared, message.options.get("progress"))


def _stopped(op: Operation | NullOperation, exception: BaseException) -> Cancelled | None:
    """Return `Cancelled` for an interrupt that stopped the actor, None for any other exception."""
    if not isinstance(exception, Interrupt) or isinstance(exception, Shutdown | TimeLimitExceeded):
        return None
    try:
        op.raise_if_cancelled()
    except Cancelled as error:
        return error
    except LOST:
        pass
    return Cancelled(op.id, type(exception).__name__)
