"""Options in which a `{name}` stands for a call's argument of that name."""

import inspect
import logging
from collections.abc import Callable, Iterator
from string import Formatter
from typing import Any, Final

from progress_workers.options import StartOptions
from progress_workers.values import attempt, operation_id, type_name
from progress_workers.values import text as readable

logger = logging.getLogger(__name__)

_TEMPLATES: Final = ("id", "title", "owner")


_MAX_CHARS = 1 << 16


class _Readable(Formatter):
    """Formats as `str.format` does, but shows only the beginning of what is huge."""

    def format_field(self, value: object, format_spec: str) -> str:
        bounded = not format_spec and type(value) in (list, tuple, dict, set)
        return readable(value, _MAX_CHARS) if bounded else format(value, format_spec)


_FORMATTER = _Readable()


class Templates:
    """Those of one function's options. Raises `ValueError` for a `{name}` that is no parameter of it."""

    def __init__(self, function: Callable[..., Any], kind: str, options: StartOptions) -> None:
        self._kind = kind
        self._texts = {name: text for name in _TEMPLATES if isinstance(text := options.get(name), str)}
        self._signature = inspect.signature(function) if self._texts else inspect.Signature()
        self._check()

    def filled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
        """Yield each with its text for a call; one that can't be filled in stays as it is, but for an id.

        An id is written such that it can be one (`operation_id`); it is None, which has one made up, if it is empty.
        """
        for name, text in self._texts.items():
            yield name, self._filled(name, text, args, kwargs)

    def _filled(self, name: str, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        filled = attempt(self._fill, text, args, kwargs, otherwise=lambda error: self._unfilled(name, text, error))
        if name != "id":
            return filled
        return operation_id(filled) if filled else None

    def _fill(self, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _FORMATTER.vformat(text, (), bound.arguments)

    def _unfilled(self, name: str, text: str, error: BaseException) -> str | None:
        """Return what stands in for a text: an argument's attributes or `__str__` raised, or arguments are wrong."""
        logger.warning("%s: %s=%r can't be filled in: %s", self._kind, name, text, type_name(error))
        return None if name == "id" else text

    def _check(self) -> None:
        for name, text in self._texts.items():
            for _, field, _, _ in Formatter().parse(text):
                wanted = None if field is None else field.partition(".")[0].partition("[")[0]
                if wanted is not None and wanted not in self._signature.parameters:
                    raise ValueError(f"{name}={text!r}: {self._kind} has no parameter {wanted!r}")
