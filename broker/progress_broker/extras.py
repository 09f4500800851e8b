"""The extras of the distribution: who lacks the packages of one is told in one line what to type."""

from importlib.util import find_spec

from progress_broker.errors import SetupError

EXTRAS: dict[str, tuple[str, ...]] = {
    "server": (
        "fastapi",
        "uvicorn",
        "httptools",
        "websockets",
        "sse_starlette",
        "jwt",
        "cryptography",
        "prometheus_client",
        "httpx",
        "typer",
        "rich",
    ),
    "cli": ("typer", "rich"),
    "http": ("httpx",),
    "testing": ("fakeredis", "lupa"),
    "celery": ("celery",),
    "rq": ("rq",),
    "dramatiq": ("dramatiq",),
    "arq": ("arq",),
    "taskiq": ("taskiq",),
    "tqdm": ("tqdm",),
    "rich": ("rich",),
}
"""The modules that each brings, as far as we import them."""


class MissingExtra(SetupError, ModuleNotFoundError):
    """Packages are not installed that this needs."""


def _is_there(module: str) -> bool:
    """Whether a module can be found. A mere folder of its name, which somebody has or an uninstall left, is none."""
    try:
        spec = find_spec(module)
    except ValueError:  # somebody put a stand-in among the loaded modules
        return True
    return spec is not None and spec.origin is not None


def require(extra: str, by: str) -> None:
    """Raise `MissingExtra` unless the packages of an extra are installed that something needs, named `by`.

    Nothing is imported: where an installed package can't be imported, its own error tells why.
    """
    missing = [module for module in EXTRAS[extra] if not _is_there(module)]
    if missing:
        needs = "more packages" if len(missing) > 1 else f"the package {missing[0]}"
        raise MissingExtra(f"{by} needs {needs}: pip install 'progress-broker[{extra}]'") from None
