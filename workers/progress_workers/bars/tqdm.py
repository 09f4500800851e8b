"""tqdm bars that also report: replace the import from `tqdm` by `from progress_workers.bars.tqdm import tqdm, trange`.

The class is based on `tqdm.auto`, so drawing, waiting and iterating work as there: in terminals, notebooks and asyncio.
A bar that is created in an operation's block reports to that operation each time tqdm draws it, also to a file or a
pipe. A bar with `disable=True` is not drawn, and reports ten times a second at most. With nested bars, the outermost
one is the progress of the operation, or of its running stage. Bars that follow one another add up, and so do parallel
bars of the same unit, as soon as it shows that they are parallel: one goes on while the others are unfinished. The
descriptions form the message, with the percentages of inner and parallel bars. `set_postfix` sets metrics. Needs the
extra `tqdm`.
"""

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

from progress_broker.extras import require

try:
    from tqdm.auto import tqdm as auto_tqdm
except ModuleNotFoundError:
    require("tqdm", __name__)
    raise

from progress_workers.bars._share import BarContribution, NoContribution
from progress_workers.base import BaseOperation
from progress_workers.core.progress.progress import MAX_NAMES
from progress_workers.current import current
from progress_workers.null import NULL_OPERATION
from progress_workers.values import attempt, number, pairs, text

T = TypeVar("T")

_DRAWN_S = 0.1
"""The shortest time between two reports of a disabled bar; other bars report when they are drawn."""


if TYPE_CHECKING:
    _AutoBar = auto_tqdm
else:

    class _AutoBar(auto_tqdm):
        def __class_getitem__(cls, _: object) -> type:
            return cls  # tqdm's class is generic in its stubs only


class tqdm(_AutoBar[T]):
    """A tqdm bar that reports to the operation in whose block it is created."""

    if not TYPE_CHECKING:  # type checkers use the signature of tqdm's `__init__`

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            """Return a bar. Outside an operation it is a plain tqdm bar, at tqdm's speed: nothing is overridden."""
            bar = super().__new__(cls, *args, **kwargs)
            operation = current()
            if operation.id and not issubclass(cls, _Bar):  # it already is one when a reporting bar is copied
                bar.__class__ = _reporting(
                    cls
                )  # set after creation, because tqdm stores its lock and its monitor in `cls`
                bar.__dict__.update(_operation=operation, _share=BarContribution(operation, _refresh(bar)))
            return bar


def trange(*args: int, **kwargs: Any) -> tqdm[int]:
    """Return a bar over `range(*args)`."""
    return tqdm(range(*args), **kwargs)


@cache
def _reporting(cls: type[Any]) -> type[Any]:
    """Return a subclass of a bar class that reports."""
    return type(cls.__name__, (_Bar, cls), {"__doc__": cls.__doc__, "__module__": cls.__module__})


class _Bar(_AutoBar[Any]):
    """The methods that differ in an operation's block. It comes before the user's bar class in the MRO."""

    _operation: BaseOperation = NULL_OPERATION
    _share: BarContribution | NoContribution = NoContribution()
    _has_begun = False
    _reported_at = 0.0
    _given: Mapping[str, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A disabled bar does not keep its arguments.
        self._given = {"desc": args[1], **kwargs} if len(args) > 1 else kwargs
        super().__init__(*args, **kwargs)
        self._report()
        self._has_begun = True

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_operation", "_share")}

    def display(self, *args: Any, **kwargs: Any) -> Any:
        self._report()
        return super().display(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        if self.disable:
            self._report()
        return super().refresh(*args, **kwargs)

    def reset(self, total: float | None = None) -> None:
        self._report()  # steps since the last draw: another bar may need to know that this one has finished
        super().reset(total)
        if self.disable:
            self._report()

    def update(self, n: float | None = 1) -> bool | None:
        if self.disable and self._share.is_open:
            self.n += number(n) or 0
            self._tell_now_and_then()
        return super().update(n)

    def __iter__(self) -> Iterator[Any]:
        return self._iterate() if self.disable and self._share.is_open else super().__iter__()

    def _iterate(self) -> Iterator[Any]:
        try:
            for item in self.iterable:
                yield item
                self.n += 1
                self._tell_now_and_then()
        finally:
            self.close()

    def set_postfix(
        self,
        ordered_dict: Any = None,
        refresh: bool | None = True,
        **kwargs: Any,
    ) -> None:
        if ordered_dict is not None and not issubclass(type(ordered_dict), Mapping):
            ordered_dict = list(ordered_dict)  # it may be an iterator, and tqdm needs its items too
        state = [*(pairs(ordered_dict, MAX_NAMES) or ()), *kwargs.items()]
        self._operation.update(metrics={name: _shown(value) for name, value in dict(state).items()})
        super().set_postfix(ordered_dict, refresh, **kwargs)

    def close(self) -> None:
        if self._share.is_open:
            self._report()
            self._share.close()
        super().close()

    def _tell_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _DRAWN_S:
            self._reported_at = now
            self._report()

    def _report(self) -> None:
        state = {**self._given, **self.__dict__}
        if "n" not in state:
            return  # the bar's `__init__` failed
        scale = state.get("unit_scale")
        by = 1 if scale is None or isinstance(scale, bool) else scale
        desc, unit = (state.get(name) for name in ("desc", "unit"))
        done = _scaled(self.n, by)
        if done is None:
            return
        self._share.report(
            done,
            _scaled(self.total, by),
            "" if desc is None else text(desc).rstrip().removesuffix(":"),
            "" if unit is None or (named := text(unit)) == "it" else named,
            work=self._has_begun,
        )


def _refresh(bar: Any) -> Callable[[], None]:
    """Return a function that makes a bar report its count. It does not keep the bar alive."""
    found = weakref.ref(bar)

    def refresh() -> None:
        if (bar := found()) is not None:
            bar._report()

    return refresh


def _scaled(value: Any, by: Any) -> float | None:
    return attempt(lambda: number(value * by), otherwise=lambda _: None)


def _shown(value: Any) -> Any:
    """Return a metric as a number or a text, as tqdm shows it."""
    if value is None or isinstance(value, str):
        return value
    found = number(value)
    return text(value) if found is None else found
