import asyncio
import importlib
import logging
import logging.config
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from progress_workers import Operation, log_handler
from progress_workers.log_handler import LogHandler
from progress_workers.testing import Logged, Recording


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("app.import")
    logger.setLevel(1)
    logger.propagate = False
    yield logger
    for handler in logger.handlers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("number", "level"),
    [
        (5, "debug"),
        (logging.DEBUG, "debug"),
        (logging.INFO, "info"),
        (25, "info"),
        (logging.WARNING, "warning"),
        (logging.ERROR, "error"),
        (logging.CRITICAL, "critical"),
        (99, "critical"),
    ],
)
def test_a_level_is_the_next_lower_of_the_usual_ones(
    recorded: Recording, logger: logging.Logger, number: int, level: str
) -> None:
    logger.addHandler(LogHandler())
    with Operation.start("import"):
        logger.log(number, "row %d", 7)
    assert recorded.logs == [Logged("row 7", level)]


def test_records_below_its_level_stay_out(recorded: Recording, logger: logging.Logger) -> None:
    logger.addHandler(LogHandler("WARNING"))
    with Operation.start("import"):
        logger.info("no")
        logger.warning("yes")
    assert recorded.logs == [Logged("yes", "warning")]


def test_a_line_has_its_formatter_s_form_its_lines_and_its_stage(recorded: Recording, logger: logging.Logger) -> None:
    handler = LogHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(handler)
    with Operation.start("import") as op, op.stage("parse"):
        logger.info("one\ntwo")
    assert recorded.logs == [Logged("app.import: one\ntwo", "info", "parse")]


def test_a_traceback_goes_along(recorded: Recording, logger: logging.Logger) -> None:
    logger.addHandler(LogHandler())
    with Operation.start("import"):
        try:
            raise ValueError("no such row")
        except ValueError:
            logger.exception("it went wrong")
    (line,) = recorded.logs
    assert line.level == "error"
    assert line.message.startswith("it went wrong\nTraceback (most recent call last):\n")
    assert line.message.endswith("ValueError: no such row")


def test_of_a_long_traceback_both_ends_are_kept(recorded: Recording, logger: logging.Logger) -> None:
    logger.addHandler(LogHandler())
    with Operation.start("import"):
        logger.error("it went wrong\n%s\nValueError: the cause", "x" * 10_000)
    (line,) = recorded.logs
    assert len(line.message) == 4096
    assert line.message.startswith("it went wrong\nxxx")
    assert "x\n[…]\nx" in line.message
    assert line.message.endswith("xxx\nValueError: the cause")


def _record(message: str, *args: Any, name: str = "app.import") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, message, args, None)


def test_outside_an_operation_nothing_is_even_formatted(capsys: pytest.CaptureFixture[str]) -> None:
    class Form:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    LogHandler().handle(_record("%s", Form()))
    assert capsys.readouterr().err == ""


def test_an_operation_may_be_given(recorded: Recording, logger: logging.Logger) -> None:
    with Operation.start("one") as one, Operation.start("two"):
        logger.addHandler(LogHandler(operation=one))
        logger.info("for one")
    assert [operation.logs for operation in recorded.operations.values()] == [[Logged("for one")], []]


def test_each_task_and_thread_logs_to_its_own_operation(recorded: Recording, logger: logging.Logger) -> None:
    logger.addHandler(LogHandler())

    def work(kind: str) -> None:
        with Operation.start(kind):
            logger.info("in a thread: %s", kind)

    async def together() -> None:
        await asyncio.gather(*(asyncio.to_thread(work, kind) for kind in ("a", "b")))

    threads = [threading.Thread(target=work, args=(kind,)) for kind in ("c", "d")]
    for thread in threads:
        thread.start()
    asyncio.run(together())
    for thread in threads:
        thread.join()
    for kind in "abcd":
        assert [operation.logs for operation in recorded.of_kind(kind)] == [[Logged(f"in a thread: {kind}")]]


@pytest.mark.parametrize(
    "name",
    [
        "progress_workers",
        "progress_workers.transport.sender",
        "progress_broker",
        "progress_broker.operations.store",
        "redis",
        "redis.connection",
    ],
)
def test_what_speaks_of_sending_is_not_sent(recorded: Recording, name: str) -> None:
    if name.startswith("progress_broker."):
        importlib.import_module(name)
    with Operation.start("import"):
        LogHandler().handle(_record("progress is buffered", name=name))
    assert recorded.logs == []


@pytest.mark.parametrize("name", ["progress_workers.of_mine", "progress_broker.of_mine", "redistribution", "root"])
def test_other_loggers_of_such_names_are_sent(recorded: Recording, name: str) -> None:
    with Operation.start("import"):
        LogHandler().handle(_record("mine", name=name))
    assert recorded.logs == [Logged("mine")]


def test_a_record_that_cannot_be_formatted_is_the_handler_s_fault_alone(
    recorded: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    with Operation.start("import"):
        LogHandler().handle(_record("%d rows", "many"))
        LogHandler().handle(_record("goes on"))
    assert recorded.logs == [Logged("goes on")]
    assert "Logging error" in capsys.readouterr().err


def test_an_operation_that_has_ended_takes_no_more(recorded: Recording, logger: logging.Logger) -> None:
    logger.addHandler(LogHandler())
    with Operation.start("import") as op:
        op.succeed()
        logger.info("too late")
    assert recorded.logs == []


def test_it_can_be_configured(recorded: Recording, logger: logging.Logger) -> None:
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"short": {"format": "[%(levelname)s] %(message)s"}},
        "handlers": {
            "progress": {"class": f"{log_handler.__name__}.LogHandler", "level": "INFO", "formatter": "short"}
        },
        "loggers": {"app.import": {"handlers": ["progress"], "level": "DEBUG"}},
    }
    logging.config.dictConfig(config)
    with Operation.start("import"):
        logger.debug("no")
        logger.info("yes")
    assert recorded.logs == [Logged("[INFO] yes")]


def test_many_threads_may_log(recorded: Recording, logger: logging.Logger) -> None:
    with Operation.start("import") as op:
        logger.addHandler(LogHandler(operation=op))
        threads = [
            threading.Thread(target=lambda: [logger.info("%d", number) for number in range(50)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(recorded.logs) == 200
