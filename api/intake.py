"""Intake: what is published over HTTP is counted, by what came of it."""

from collections.abc import Sequence

from api.context import Context
from broker.errors import BrokerError
from broker.models import Answer
from broker.publishing import Entry

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
