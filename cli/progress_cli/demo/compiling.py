"""Runs another program, the byte-compiler, and forwards its output, line by line, to the operation's log."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from progress_workers import Operation

PACKAGES = ("asyncio", "concurrent", "email", "encodings", "html", "http", "importlib", "json", "logging", "unittest")
_PATIENCE_S = 5


def compile_library(op: Operation, packages: tuple[str, ...] = PACKAGES) -> None:
    """Byte-compile a copy of some packages of the standard library."""
    copy, build = op.stage("copy", total=len(packages)), op.stage("compile", weight=9)
    with TemporaryDirectory(prefix="progress-demo-") as folder:
        with copy:
            for name in packages:
                op.raise_if_cancelled()
                source = Path(sysconfig.get_path("stdlib")) / name
                shutil.copytree(source, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__", "test"))
                copy.advance()
        files = sum(1 for _ in Path(folder).rglob("*.py"))
        build.update(total=files)
        with build:
            op.update(message=f"compiling {files} files")
            run(
                op,
                [sys.executable, "-I", "-u", "-m", "compileall", "-f", "-o", "0", "-o", "1", "-o", "2", folder],
                folder,
            )
    op.succeed({"compiled": files})


def run(op: Operation, command: list[str], folder: str) -> None:
    """Run a program to its end and forward its lines. A cancel or an error ends the program."""
    build = op.stage("compile")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as program:
        try:
            for line in program.stdout or ():
                op.raise_if_cancelled()
                build.log(line.rstrip().replace(folder, ""))
                if line.startswith("Compiling"):
                    build.advance()
        except BaseException:
            end(program)
            raise
    if program.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {program.returncode}")


def end(program: "subprocess.Popen[str]") -> None:
    """End a program: SIGTERM first, then SIGKILL."""
    program.terminate()
    try:
        program.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        program.kill()
