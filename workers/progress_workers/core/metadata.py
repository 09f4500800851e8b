"""The metadata of an operation, as far as this process knows it, and its changes that wait to be sent."""

from typing import Any

import orjson

from progress_broker.errors import TooLarge
from progress_broker.model.entry import NewEvent
from progress_broker.model.metadata import FIELD, MAX_METADATA_BYTES, check_size, merged
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.values import brief, tree

NOT_A_MAPPING = "the metadata {} was ignored; expected a mapping"


def plain_metadata(given: object) -> tuple[dict[str, Any], str]:
    """Return metadata as JSON, and a warning about what was ignored or changed; otherwise an empty text."""
    try:
        converted = tree(given, MAX_METADATA_BYTES)
    except TooLarge as error:
        return {}, f"the metadata was ignored, because {error}"
    if not isinstance(converted.value, dict):
        return {}, NOT_A_MAPPING.format(brief(given))
    shown = ", ".join(converted.replaced)
    return converted.value, f"the metadata is not JSON; these parts are shown as text: {shown}" if shown else ""


class Metadata:
    """Several changes before a batch become one event. So they can't fill the buffer while Redis is away."""

    def __init__(self, dirty_flag: DirtyFlag) -> None:
        self.known: dict[str, Any] = {}
        self._dirty_flag = dirty_flag
        self._changes: dict[str, Any] = {}

    def begin(self, known: dict[str, Any]) -> None:
        """Note what the metadata are where the changes begin."""
        with self._dirty_flag.lock:
            self.known = merged(known, self._changes)

    @property
    def waits(self) -> bool:
        """Whether changes wait to be sent."""
        return bool(self._changes)

    def update(self, given: object) -> None:
        """Change it: each key replaces the one before, and None removes it. What would be too large is left out."""
        changes, said = plain_metadata(given)
        with self._dirty_flag.lock:
            after = merged(self.known, changes)
            pending = self._changes | changes
            try:
                check_size(orjson.dumps(after))
                check_size(orjson.dumps(pending))
            except TooLarge as error:
                said = f"the metadata {brief(given)} was left out: {error}"
            else:
                self.known, self._changes = after, pending
        if said:
            self._dirty_flag.warn(FIELD, said)

    def take(self) -> NewEvent | None:
        """Return the event with the changes that wait, if there are any. The caller holds the lock."""
        changes, self._changes = self._changes, {}
        return NewEvent(FIELD, orjson.dumps(changes)) if changes else None

    def after_fork(self) -> None:
        """Leave the changes that wait to the parent."""
        self._changes = {}
