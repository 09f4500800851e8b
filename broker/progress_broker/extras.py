"""The extras of the distribution. If an extra's packages are missing, the error says how to install it."""

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
        "yaml",
    ),
    "cli": ("typer", "rich", "yaml"),
    "http": ("httpx",),
    "operators": ("zstandard", "obstore"),
    "testing": ("fakeredis", "lupa"),
    "celery": ("celery",),
    "rq": ("rq",),
    "dramatiq": ("dramatiq",),
    "arq": ("arq",),
    "taskiq": ("taskiq",),
    "tqdm": ("tqdm",),
    "rich": ("rich",),
}
"""The modules of each extra that are imported here."""


class MissingExtra(SetupError, ModuleNotFoundError):
    """Required packages are not installed."""


def _is_there(module: str) -> bool:
    """Whether a module can be found. A folder without code, for example left by an uninstall, does not count."""
    try:
        spec = find_spec(module)
    except ValueError:  # `sys.modules` has a substitute for it, for example in a test
        return True
    return spec is not None and spec.origin is not None


def require(extra: str, by: str) -> None:
    """Raise `MissingExtra` if packages of an extra are missing. `by` names the feature that needs them.

    Nothing is imported here: if an installed package can't be imported, its own error says why.
    """
    missing = [module for module in EXTRAS[extra] if not _is_there(module)]
    if missing:
        needs = "more packages" if len(missing) > 1 else f"the package {missing[0]}"
        raise MissingExtra(f"{by} needs {needs}: pip install 'progress-broker[{extra}]'") from None
