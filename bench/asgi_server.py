"""An app on plain uvicorn, without our server code: `python -m bench.asgi_server broker|sse-starlette [REDIS_URL]`."""

import resource
import socket
import sys

import uvicorn
from fastapi import FastAPI

BACKLOG = 4096


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        print(f"serving on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(_app(*sys.argv[1:]), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listener])


def _app(name: str, redis_url: str = "") -> FastAPI:
    if name == "broker":
        from bench.harness import settings_for
        from progress_server.app import create_app

        return create_app(settings_for(redis_url))
    from bench.sse_starlette_app import app

    return app


if __name__ == "__main__":
    main()
