"""How findings are printed: for people, for programs, and for two kinds of monitoring."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum

from progress_broker.diagnosis.finding import Finding, Level, sorted_by_level
from progress_cli.exit_codes import STORAGE
from progress_cli.output.formats import Column, Format, Printer, Shape

FAULTS, WARNINGS, FINE = 2, 1, 0
_LEVELS = {FAULTS: "CRITICAL", WARNINGS: "WARNING", FINE: "OK"}


class ReportFormat(StrEnum):
    """How findings are printed."""

    TABLE = "table"
    WIDE = "wide"
    """Also what is as it should be, and what was measured."""
    JSON = "json"
    NAGIOS = "nagios"
    PROMETHEUS = "prometheus"
    """For the textfile collector of node_exporter."""


_SHAPE: Shape[Finding] = Shape(
    columns=(
        Column("LEVEL", lambda finding: finding.level),
        Column("CHECK", lambda finding: finding.check),
        Column("AT", lambda finding: finding.at),
        Column("FOUND", lambda finding: finding.said),
        Column("WHAT TO DO", lambda finding: finding.fix),
        Column(
            "FIGURES",
            lambda finding: " ".join(f"{name}={value:g}" for name, value in finding.figures.items()),
            wide=True,
        ),
    ),
    name=lambda finding: finding.check,
    to_json=lambda finding: {
        "check": finding.check,
        "level": finding.level,
        "at": finding.at,
        "found": finding.said,
        "fix": finding.fix,
        "figures": dict(finding.figures),
    },
)


def exit_code(findings: Sequence[Finding], format: ReportFormat, *, reached: bool) -> int:
    """Return 2 if there is a fault, 1 if there is a warning, else 0; 5 if nothing was reached.

    Nagios knows no 5: there, that nothing was reached is a fault as others.
    """
    if not reached and format is not ReportFormat.NAGIOS:
        return STORAGE
    return _worst(findings)


def _worst(findings: Sequence[Finding]) -> int:
    levels = {finding.level for finding in findings}
    return FAULTS if Level.FAULT in levels else WARNINGS if Level.WARNING in levels else FINE


def print_report(findings: Sequence[Finding], format: ReportFormat, write: Callable[[str], None]) -> None:
    """Print findings, the worst first."""
    ordered = sorted_by_level(findings)
    match format:
        case ReportFormat.NAGIOS:
            lines = _nagios(ordered)
        case ReportFormat.PROMETHEUS:
            lines = _prometheus(ordered)
        case ReportFormat.JSON | ReportFormat.WIDE:
            _print(ordered, Format(format), write)
            return
        case ReportFormat.TABLE:
            bad = [finding for finding in ordered if finding.level is not Level.GOOD]
            if bad:
                _print(bad, Format.TABLE, write)
            lines = iter([_summary(ordered)])
    for line in lines:
        write(line)


def _print(findings: Sequence[Finding], format: Format, write: Callable[[str], None]) -> None:
    with Printer(_SHAPE, format, write) as printer:
        for finding in findings:
            printer.add(finding)


def _summary(findings: Sequence[Finding]) -> str:
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    names = {
        Level.FAULT: ("fault", "faults"),
        Level.WARNING: ("warning", "warnings"),
        Level.UNCHECKED: ("not checked", "not checked"),
        Level.GOOD: ("good", "good"),
    }
    return ", ".join(f"{count} {names[level][count != 1]}" for level, count in counts.items())


def _nagios(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of a Nagios plugin: the state with figures after a bar, then a line a finding."""
    bad = [finding for finding in findings if finding.level is not Level.GOOD]
    first = f": {bad[0].said}" if bad else ""
    figures = " ".join(
        f"'{finding.check}_{name}@{finding.at}'={value:.12g}".replace("|", "/")
        for finding in findings
        for name, value in finding.figures.items()
    )
    told = f"PROGRESS {_LEVELS[_worst(findings)]} - {_summary(findings)}{first}"
    yield f"{_one_line(told)} | {figures}" if figures else _one_line(told)
    for finding in bad:
        yield _one_line(f"{finding.level} {finding.check} at {finding.at}: {finding.said}. {_advice(finding)}")


def _one_line(text: str) -> str:
    """Return a text as a plugin may write it: a bar begins its figures."""
    return " ".join(text.replace("|", "/").split())


def _advice(finding: Finding) -> str:
    return f"What to do: {finding.fix}" if finding.fix else ""


def _prometheus(findings: Sequence[Finding]) -> Iterator[str]:
    yield "# HELP progress_broker_doctor_findings Findings of `progress-broker doctor`, by level."
    yield "# TYPE progress_broker_doctor_findings gauge"
    for level in Level:
        count = sum(finding.level is level for finding in findings)
        yield f'progress_broker_doctor_findings{{level="{level}"}} {count}'
    yield "# HELP progress_broker_doctor_finding A fault, a warning, or what was not checked, with what to do."
    yield "# TYPE progress_broker_doctor_finding gauge"
    bad = [finding for finding in findings if finding.level is not Level.GOOD]
    for labels in dict.fromkeys(_labels(level=it.level, check=it.check, at=it.at, fix=it.fix) for it in bad):
        yield f"progress_broker_doctor_finding{labels} 1"
    yield "# HELP progress_broker_doctor_figure What was measured. The name ends in its unit."
    yield "# TYPE progress_broker_doctor_figure gauge"
    figures = {
        _labels(check=finding.check, at=finding.at, name=name): value
        for finding in findings
        for name, value in finding.figures.items()
    }
    for labels, value in figures.items():
        yield f"progress_broker_doctor_figure{labels} {value:.12g}"


def _labels(**labels: str) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
