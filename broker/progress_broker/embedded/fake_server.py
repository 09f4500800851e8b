"""The fallback without a Redis server: fakeredis' TCP server, in a thread of this process. It keeps no data."""

import threading
from contextlib import ExitStack

from progress_broker.extras import require

try:
    import lupa  # noqa: F401 - fakeredis needs it for scripts, but would report that only at the first script
    from fakeredis import TcpFakeServer
except ModuleNotFoundError:
    require("testing", "a Redis in memory")
    raise


def start_fake_server(resources: ExitStack) -> str:
    """Start a server on a free loopback port; return its address. It stops when `resources` are closed."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, name="embedded-redis", daemon=True).start()
    resources.callback(server.server_close)
    resources.callback(server.shutdown)
    host, port = server.server_address[:2]
    return f"redis://{host!s}:{port}/0"
