"""The pool of workers that an operation is distributed over, as users report it."""

import logging
from typing import Any

from pydantic import BaseModel, model_validator

from progress_broker.errors import TooLarge
from progress_broker.model import payloads
from progress_workers.values import attempt, fit, text, tree

logger = logging.getLogger(__name__)

_MAX_BYTES = 16_384
_warned: set[str] = set()


class PoolWorker(payloads.PoolWorker):
    """One worker of a pool: its `id`, `status`, `item` and `percent` (0 to 100). Invalid values are left out."""

    @model_validator(mode="before")
    @classmethod
    def _good(cls, given: Any) -> Any:
        if isinstance(given, dict) and not isinstance(given.get("id", 0), int | str):
            given = given | {"id": text(given["id"])}
        return _good(payloads.PoolWorker, given)


class Pool(payloads.Pool):
    """The workers that share an operation: `active`, `max`, `queue_depth`, `workers`. Invalid values are left out."""

    workers: list[PoolWorker] | None = None  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _good(cls, given: Any) -> Any:
        return _good(payloads.Pool, given)


def shown_pool(pool: object) -> object:
    """Return a pool as it is shown, without unset fields."""
    if not issubclass(type(pool), payloads.Pool):
        return pool
    return attempt(
        lambda: pool.model_dump(mode="json", exclude_none=True, warnings=False),  # type: ignore[attr-defined]
        otherwise=lambda _: pool,
    )


def _good(model: type[BaseModel], given: Any) -> Any:
    """Return the fields without those that the model rejects. Warn about each rejected field once per process."""
    if not isinstance(given, dict):
        return given
    try:
        kept, rejected = fit(model, tree(given, _MAX_BYTES).value)
    except TooLarge as error:
        kept, rejected = {name: text(given[name]) for name in given if name == "id"}, [str(error)]
    new = [name for name in rejected if name not in _warned and len(_warned) < 1000]
    if new:
        _warned.update(new)
        logger.warning(
            "invalid fields of a %s were ignored (docs/protocol.md has the valid values): %s",
            model.__name__,
            ", ".join(new),
        )
    return kept
