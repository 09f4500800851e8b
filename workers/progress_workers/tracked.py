"""`@tracked`: makes every call of a function an operation."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack
from functools import wraps
from string import Formatter
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, ParamSpec, TypeVar, Unpack, overload

from progress_broker.errors import BrokerError, Gone, OperationEnded, OperationExists
from progress_broker.settings import load_settings
from progress_workers.async_operation import AsyncOperation
from progress_workers.base import BaseOperation
from progress_workers.current import current, leave
from progress_workers.errors import Cancelled
from progress_workers.lifecycle.handle import Handle
from progress_workers.operation import Operation
from progress_workers.options import StartOptions
from progress_workers.transport.registry import link_to
from progress_workers.values import attempt, label, operation_id, type_name
from progress_workers.values import text as readable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_USED = (OperationEnded, OperationExists, Gone)
_OPTIONS: Final = StartOptions.__required_keys__ | StartOptions.__optional_keys__
_TEMPLATES: Final = ("id", "title", "owner")
_MAX_CHARS = 1 << 16


@overload
def tracked(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def tracked(
    *, kind: str | None = None, **options: Unpack[StartOptions]
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def tracked(
    function: Callable[..., Any] | None = None, /, *, kind: str | None = None, **options: Unpack[StartOptions]
) -> Callable[..., Any]:
    """Make each call of a function, sync or async, an operation: `@tracked` or `@tracked(title="Import {path}")`.

    Inside the function, `progress_workers.current()` is the operation. It succeeds with the function's return value, or
    fails with the exception that the function raises. A call inside another operation becomes a child of that
    operation.

    `kind` is the function's qualified name by default. The other options are those of `Operation.start`. In `id`,
    `title` and `owner`, `{name}` stands for the call's argument of that name. If a template can't be filled in, the
    text stays as it is; for an `id`, a random one is generated. In an id, each invalid character is written as `~`, its
    code point in hexadecimal digits and a dot: with `id="x-{path}"` and the path `a b/c` the id is `x-a~20.b~2f.c`. An
    id that is too long is cut and ends in its SHA-256.

    The function almost always runs. If Redis is unavailable, the operation is created later. If the id was used before,
    or if an option is invalid, it runs without being reported, and the log says so. With `required=True`, the error is
    raised instead. There is one other exception: if somebody cancelled the earlier
    operation with this id, or the operation around the call, the function does not run and `Cancelled` is raised. If a
    plain function returns a coroutine, as a decorated `async def` may, the coroutine is part of the call. The work of a
    generator, or of any other object that is awaited later, is not part of it, and the log says so.

    The decorator raises `TypeError` for generator functions (their body runs step by step in the callers' blocks), for
    classes, for the results of `@classmethod` and `@staticmethod`, and for an unknown option. It raises `ValueError`
    for a `{name}` that is not a parameter.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        calls = _Calls(function, kind, options)
        return calls.wrap_async() if _is_async(function) else calls.wrap()

    return decorate if function is None else decorate(function)


class _Calls:
    """The calls of one function, as operations."""

    def __init__(self, function: Callable[..., Any], kind: str | None, options: StartOptions) -> None:
        _reject(function)
        if unknown := sorted(options.keys() - _OPTIONS):
            raise TypeError(f"unknown option {unknown[0]!r}: see `Operation.start` for the options")
        self._function = function
        self._kind = label(kind or getattr(function, "__qualname__", type(function).__qualname__))
        self._options = options
        self._templates = Templates(function, self._kind, options)

    def wrap(self) -> Callable[..., Any]:
        @wraps(self._function)
        def call(*args: Any, **kwargs: Any) -> Any:
            operation = self._begin(args, kwargs)
            if operation is None:
                return self._function(*args, **kwargs)
            with ExitStack() as block:
                block.enter_context(operation)
                result = self._function(*args, **kwargs)
                if issubclass(type(result), Coroutine):
                    block.pop_all()
                    leave(operation)
                    return _awaited(operation, result)
                _warn_of_later_work(operation, result)
                operation.succeed(result)
                return result

        return call

    def wrap_async(self) -> Callable[..., Any]:
        @wraps(self._function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            operation = await self._begin_async(args, kwargs)
            if operation is None:
                return await self._function(*args, **kwargs)
            async with operation:
                result = await self._function(*args, **kwargs)
                operation.succeed(result)
                return result

        return call

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
        options = self._call_options(args, kwargs)
        try:
            return Operation.start(self._kind, **options)
        except _USED as error:
            _raise_if_cancelled_before(options, error)
            self._unreported(error)
        except Cancelled:
            raise
        except Exception as error:  # whatever the error is, the function must run
            self._unreported(error)
        return None

    async def _begin_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncOperation | None:
        options = self._call_options(args, kwargs)
        try:
            return await AsyncOperation.start(self._kind, **options)
        except _USED as error:
            await asyncio.to_thread(_raise_if_cancelled_before, options, error)
            self._unreported(error)
        except Cancelled:
            raise
        except Exception as error:  # whatever the error is, the function must run
            self._unreported(error)
        return None

    def _call_options(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StartOptions:
        options = self._options.copy()
        outer = current()
        if outer.id:
            outer.raise_if_cancelled()
            options.setdefault("parent", outer.id)
            options.setdefault("settings", outer._settings)
        for name, text in self._templates.filled(args, kwargs):
            options[name] = text  # type: ignore[literal-required]
        return options

    def _unreported(self, error: Exception) -> None:
        if self._options.get("required"):
            raise error
        logger.warning("%s runs without being reported: %s", self._kind, error)


class _Readable(Formatter):
    """Formats as `str.format` does, but shows only the beginning of very large values."""

    def format_field(self, value: object, format_spec: str) -> str:
        bounded = not format_spec and type(value) in (list, tuple, dict, set)
        return readable(value, _MAX_CHARS) if bounded else format(value, format_spec)


_FORMATTER = _Readable()


class Templates:
    """Options of one function in which `{name}` stands for the call's argument of that name.

    Raises `ValueError` for a `{name}` that is not a parameter of the function.
    """

    def __init__(self, function: Callable[..., Any], kind: str, options: StartOptions) -> None:
        self._kind = kind
        self._texts = {name: text for name in _TEMPLATES if isinstance(text := options.get(name), str)}
        self._signature = inspect.signature(function) if self._texts else inspect.Signature()
        self._check()

    def filled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
        """Yield each option with its text for a call. A text that can't be filled in stays as it is, except for an id.

        An id is converted to a valid one (`operation_id`). If it is empty, None is yielded, so that an id is generated.
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
        """Return the replacement for a text: an argument's attribute or `__str__` raised, or an argument is wrong."""
        logger.warning("%s: %s=%r can't be filled in: %s", self._kind, name, text, type_name(error))
        return None if name == "id" else text

    def _check(self) -> None:
        for name, text in self._texts.items():
            for _, field, _, _ in Formatter().parse(text):
                wanted = None if field is None else field.partition(".")[0].partition("[")[0]
                if wanted is not None and wanted not in self._signature.parameters:
                    raise ValueError(f"{name}={text!r}: {self._kind} has no parameter {wanted!r}")


def _is_async(function: Callable[..., Any]) -> bool:
    called = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is examined, not whether one exists
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _reject(function: object) -> None:
    """Raise `TypeError` for anything but a function whose body runs when it is called. The message says what to do."""
    if isinstance(function, str):
        raise TypeError(f"@tracked accepts options by keyword only: @tracked(kind={function!r})")
    name = getattr(function, "__qualname__", repr(function))
    if isinstance(function, classmethod | staticmethod):
        raise TypeError(f"{name}: put @tracked below @{type(function).__name__}, right above the def")
    if inspect.isclass(function):
        raise TypeError(f"{name} is a class: put @tracked on the methods that do the work")
    if not callable(function):
        raise TypeError(f"@tracked is for functions, not {function!r}; it accepts options by keyword only")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{name} is a generator function, and its body runs inside the loops of its callers: "
            "start an operation around such a loop, or use @tracked on the function that contains the loop"
        )


def _warn_of_later_work(operation: BaseOperation, result: object) -> None:
    """Log a warning if the work of the result is not done yet."""
    if issubclass(type(result), GeneratorType | AsyncGeneratorType | Awaitable):
        operation.log(
            f"the call returned a {type_name(result)}; its work continues after the call and is not reported: "
            "put @tracked on the function that awaits it or loops over it",
            "warning",
        )


async def _awaited(operation: Operation, result: Coroutine[Any, Any, Any]) -> Any:
    """Await the coroutine that a plain function returned, as part of the same operation."""
    opened = Handle(operation._link, operation._reporter, operation._settings, operation._ends)
    async with AsyncOperation(opened) as rest:
        result = await result
        rest.succeed(result)
        return result


def _raise_if_cancelled_before(options: StartOptions, error: BrokerError) -> None:
    """Raise `Cancelled` if the earlier operation with this id was cancelled: then somebody did not want this work."""
    id = options.get("id")
    try:
        link = link_to(options.get("settings") or load_settings())
        cancelled_at = link.carrier.view(str(id)).cancelled_at_s
    except BrokerError:
        return
    if cancelled_at is not None:
        raise Cancelled(str(id), "before this call began") from error
