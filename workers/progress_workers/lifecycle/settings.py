"""The settings of an operation that starts, also where they are invalid: reporting must never fail the work."""

import logging

from progress_broker.errors import InvalidInput, SetupError
from progress_broker.settings import Settings, load_settings
from progress_workers.transport.link import check_settings
from progress_workers.values import brief

logger = logging.getLogger(__name__)

_told: set[str] = set()


def working_settings(given: Settings | None, required: bool | None) -> Settings:
    """Return the given settings, or those of the environment. If these are invalid, reporting is off.

    With `required`, raise `SetupError` instead. Raises `InvalidInput` if the given ones are something else.
    """
    settings = given
    if not isinstance(given, Settings | None):
        raise InvalidInput(f"settings: expected `Settings`, or None, not {brief(given)}", field="settings")
    try:
        settings = load_settings() if given is None else given
        check_settings(settings)
    except SetupError as error:
        if required or (settings is not None and is_required(required, settings)):
            raise
        if error.detail not in _told:
            _told.add(error.detail)
            logger.error("no progress is reported: %s", error.detail)
        return Settings.model_construct(disabled=True)
    return settings


def is_required(required: bool | None, settings: Settings) -> bool:
    """Return whether a start raises if it can't be reported."""
    return settings.required if required is None else required
