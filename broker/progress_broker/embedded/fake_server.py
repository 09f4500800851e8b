"""The store of last resort: fakeredis' TCP server, in a thread of this process. It keeps nothing when it ends."""

import threading
from contextlib import ExitStack

from progress_broker.extras import require

try:
    import lupa  # noqa: F401 - runs fakeredis' scripts, which says nothing of it before the first
    from fakeredis import TcpFakeServer
except ModuleNotFoundError:
    require("testing", "a Redis in memory")
    raise


def start_fake_server(resources: ExitStack) -> str:
    """Start one on a free loopback port, for as long as `resources` stay open, and return its address."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, name="embedded-redis", daemon=True).start()
    resources.callback(server.server_close)
    resources.callback(server.shutdown)
    host, port = server.server_address[:2]
    return f"redis://{host!s}:{port}/0"
