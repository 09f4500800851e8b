"""Creates an operation, unless it already exists with the same values."""

import logging
import secrets
from typing import Any, NamedTuple

from progress_broker.errors import OperationExists
from progress_broker.model.operation import NewOperation
from progress_broker.model.validation import validated
from progress_broker.runtime import tracing
from progress_broker.settings import Settings, load_settings
from progress_workers.lifecycle.creation_fields import readable_fields
from progress_workers.options import Default
from progress_workers.transport.carrier import CreatedReply
from progress_workers.transport.link import Link
from progress_workers.transport.registry import link_to

logger = logging.getLogger(__name__)


class Created(NamedTuple):
    """An operation that exists, whether it is new or was created before."""

    link: Link
    operation: str
    lease_s: float | None
    kind: str
    reply: CreatedReply
    metadata: dict[str, Any]
    parent: str | None
    warnings: list[tuple[str, str]]
    """The names of options that were ignored or changed, each with a warning."""


def create(
    kind: str,
    *,
    settings: Settings | None = None,
    id: str | None = None,
    tags: object = (),
    lease_s: float | Default | None = Default.LEASE,
    **fields: Any,
) -> Created:
    """Create an operation, unless it already exists with the same values. The options are those of `CreateOptions`.

    Raises `InvalidInput`, before anything is created, if `id`, `parent` or `lease_s` is invalid, or if `tags` is a
    single string.
    """
    settings = settings or load_settings()
    lease = settings.lease_s if lease_s is Default.LEASE else lease_s
    if unknown := [name for name in fields if name not in NewOperation.model_fields]:
        raise TypeError(f"unknown option {unknown[0]!r}: see `Operation.start` for the options")
    given, warnings = readable_fields(kind, tags, fields)
    new = validated(NewOperation, {"id": secrets.token_hex(10) if id is None else id, "lease_s": lease, **given})
    link = link_to(settings)
    operation = str(new.id)
    try:
        reply = link.carrier.create(operation, new, tracing.current())
    except OperationExists as error:
        raise OperationExists(f"{error.detail}: use the same values as before, or choose another id") from None
    return Created(link, operation, new.lease_s, new.kind, reply, new.metadata, new.parent, warnings)


def create_pending(kind: str, **options: Any) -> str:
    """Create an operation that no worker has started yet. Return its id."""
    created = create(kind, **options)
    for _, said in created.warnings:
        logger.warning("operation %s: %s", created.operation, said)
    return created.operation
