"""Creates an operation, unless it already exists with the same values."""

import logging
import secrets
from typing import Any

from progress_broker.model.operation import NewOperation
from progress_broker.model.validation import validated
from progress_broker.runtime import tracing
from progress_broker.settings import Settings
from progress_workers.core.opening import Opening
from progress_workers.core.reporter import Reporter
from progress_workers.lifecycle.creation_fields import readable_fields
from progress_workers.lifecycle.settings import is_required, working_settings
from progress_workers.options import Default
from progress_workers.transport.registry import link_to

logger = logging.getLogger(__name__)


def described(
    kind: str,
    settings: Settings,
    *,
    id: str | None = None,
    tags: object = (),
    lease_s: float | Default | None = Default.LEASE,
    **fields: Any,
) -> tuple[Opening, list[tuple[str, str]]]:
    """Return how to create an operation with these options, which are those of `CreateOptions`.

    Also return the names of options that were ignored or changed, each with a warning. Raises `InvalidInput` if `id`,
    `parent` or `lease_s` is invalid, or if `tags` is a single string.
    """
    lease = settings.lease_s if lease_s is Default.LEASE else lease_s
    if unknown := [name for name in fields if name not in NewOperation.model_fields]:
        raise TypeError(f"unknown option {unknown[0]!r}: see `Operation.start` for the options")
    given, warnings = readable_fields(kind, tags, fields)
    new = validated(NewOperation, {"id": secrets.token_hex(10) if id is None else id, "lease_s": lease, **given})
    return Opening(str(new.id), new, tracing.current()), warnings


def create_pending(kind: str, *, settings: Settings | None = None, required: bool | None = None, **options: Any) -> str:
    """Create an operation that no worker has started yet. Return its id."""
    settings = working_settings(settings, required)
    opening, warnings = described(kind, settings, **options)
    reporter = Reporter(opening.operation, settings, opening=opening._replace(only_creates=True))
    link_to(settings).open(reporter, required=is_required(required, settings))
    for _, said in warnings:
        logger.warning("operation %s: %s", opening.operation, said)
    return opening.operation
