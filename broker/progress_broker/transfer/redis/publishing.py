"""Imports an operation by publishing its events again: they get new positions, and clients are told of them."""

from contextlib import aclosing
from hashlib import blake2s
from itertools import islice

from progress_broker.errors import Conflict, Gone, InvalidInput, OperationEnded, OperationExists, TooLarge
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import TERMINAL
from progress_broker.operations.store import Store
from progress_broker.transfer.endpoints import ImportOptions, OnConflict, OperationCopy, Outcome, Result, Unfinished
from progress_broker.transfer.format import ExportedOperation
from progress_broker.transfer.republishing import END_DATA, entries, new_operation

_AT_ONCE = 200


async def publish_again(store: Store, copy: OperationCopy, options: ImportOptions) -> Outcome:
    """Create an operation like another one, and publish its events.

    If this breaks off, the operation has a part of them. To do the same again completes it.
    """
    operation, id = copy.operation, copy.operation.id + options.suffix
    ended = operation.fields[b"status"].decode() in TERMINAL
    if not ended and options.unfinished is Unfinished.REFUSE:
        return Outcome(
            id, Result.REFUSED, "it has not ended: choose with --unfinished whether to end it, or to keep it"
        )
    if options.on_conflict is OnConflict.REPLACE:
        return Outcome(id, Result.REFUSED, "with new positions no operation is replaced: delete it, or use a suffix")
    last = [] if ended or options.unfinished is Unfinished.KEEP else [_end(operation)]
    try:
        new = new_operation(operation, id)
        _, is_new = (None, True) if options.dry_run else await store.create(new)
        async with aclosing(copy.events()) as parts:
            async for part in parts:
                publishing = entries(part, producer_of(operation))
                while some := list(islice(publishing, _AT_ONCE)):
                    if not options.dry_run:
                        await store.publish(id, some)
        if last and not options.dry_run:
            await store.publish(id, last)
    except (OperationExists, OperationEnded, Gone, Conflict) as error:
        skipped = options.on_conflict is OnConflict.SKIP
        return Outcome(id, Result.SKIPPED if skipped else Result.CONFLICT, error.detail)
    except (InvalidInput, TooLarge) as error:
        if type(error) not in (InvalidInput, TooLarge):  # the source is damaged
            raise
        return Outcome(id, Result.REFUSED, error.detail)
    return Outcome(id, Result.STORED) if is_new else Outcome(id, Result.SKIPPED, "it was published before")


def producer_of(operation: ExportedOperation) -> str:
    """Return the producer of the events of an operation that are published again."""
    name = operation.id.encode() + b" " + operation.position
    return f"import-{blake2s(name, digest_size=8).hexdigest()}"


def _end(operation: ExportedOperation) -> NewEvent:
    return NewEvent("end", END_DATA, "failed").numbered(producer_of(operation), operation.n + 1)
