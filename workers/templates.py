"""Options in which a `{name}` stands for a call's argument of that name."""

import inspect
import logging
from collections.abc import Callable, Iterator
from string import Formatter
from typing import Any, Final

from workers.options import StartOptions

logger = logging.getLogger(__name__)

_TEMPLATES: Final = ("id", "title", "owner")


class Templates:
    """Those of one function's options. Raises `ValueError` for a `{name}` that is no parameter of it."""

    def __init__(self, function: Callable[..., Any], kind: str, options: StartOptions) -> None:
        self._kind = kind
        self._texts = {name: text for name in _TEMPLATES if isinstance(text := options.get(name), str)}
        self._signature = inspect.signature(function) if self._texts else inspect.Signature()
        self._check()

    def filled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
        """Yield each with its text for a call; one that can't be filled in stays as it is, but for an id."""
        for name, text in self._texts.items():
            yield name, self._filled(name, text, args, kwargs)

    def _filled(self, name: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        try:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return text.format_map(bound.arguments)
        except Exception as error:  # what an argument's attributes or its __str__ raise, or wrong arguments
            logger.warning("%s: %s=%r can't be filled in: %s", self._kind, name, text, type(error).__name__)
            return None if name == "id" else text

    def _check(self) -> None:
        for name, text in self._texts.items():
            for _, field, _, _ in Formatter().parse(text):
                wanted = None if field is None else field.partition(".")[0].partition("[")[0]
                if wanted is not None and wanted not in self._signature.parameters:
                    raise ValueError(f"{name}={text!r}: {self._kind} has no parameter {wanted!r}")
