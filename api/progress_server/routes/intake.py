"""Intake: what is published over HTTP is counted, by what came of it."""

from collections.abc import Sequence

from progress_broker.errors import BrokerError
from progress_broker.model.entry import Entry
from progress_broker.model.operation import Answer
from progress_server.context import Context

STORED = "stored"


async def take(context: Context, operation: str, entries: Sequence[Entry]) -> Answer:
    """Publish events to an operation. Raises what `Store.publish` does."""
    outcome = "internal"
    try:
        answer = await context.store.publish(operation, entries)
        outcome = STORED
    except BrokerError as error:
        outcome = error.code
        raise
    finally:
        tally = context.hub.tally
        tally.published[outcome] += len(entries)
        tally.published_bytes[outcome] += sum([len(entry.data) for entry in entries])
    return answer
