"""Each server that people run apps with: follow, resume, cancel, drain. `make frameworks` runs all, `make test` one."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.mounted.visit import ALICE, following, is_open, sign_in_to_django, start, visit
from tests.servers import Process, eventually, free_port

APP = "tests.mounted.apps:app"
DJANGO = "tests.mounted.django_app:application"
PROTOCOLS = "progress_server.protocols.for_uvicorn"
UVICORN = f"uvicorn --factory {APP} --port {{port}}"
SERVERS = {
    "uvicorn": UVICORN,
    "uvicorn, with our protocols": f"{UVICORN} --http {PROTOCOLS}:HTTP --ws {PROTOCOLS}:WEBSOCKET",
    "uvicorn, reloading": f"{UVICORN} --reload --reload-dir docs",
    "uvicorn, two workers": f"{UVICORN} --workers 2",
    "hypercorn": f"hypercorn {APP}() --bind 127.0.0.1:{{port}}",
    "hypercorn, one process": f"hypercorn {APP}() --bind 127.0.0.1:{{port}} --workers 0",
    "granian": f"granian --interface asgi --factory {APP} --port {{port}}",
    "gunicorn, with uvicorn": f"gunicorn {APP}() -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{{port}}",
    "django, uvicorn": f"uvicorn {DJANGO} --port {{port}}",
    "django, daphne": f"daphne {DJANGO} -p {{port}}",
}
CUTS = ("hypercorn", "django, daphne")
"""Servers that do not tell their processes that they stop, or do not wait: they cut streams, and clients resume."""


class WithItsWorkers(Process):
    """A server in a process group of its own. At the end all of the group is killed."""

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        super().__exit__(*error)


CASES = [
    (name, middleware)
    for name in SERVERS
    for middleware in ("none", "all")
    if "django" not in name or middleware == "none"
]


@pytest.mark.parametrize(("name", "middleware"), CASES if "PROGRESS_FRAMEWORKS" in os.environ else [("uvicorn", "all")])
async def test_a_mounted_server_follows_resumes_cancels_and_drains(
    redis_url: str, tmp_path: Path, name: str, middleware: str
) -> None:
    port = free_port()
    env = os.environ | {"PROGRESS_REDIS_URL": redis_url, "MIDDLEWARE": middleware, "DB": str(tmp_path / "db")}
    command = ["setsid", sys.executable, "-m", *SERVERS[name].format(port=port).split()]
    server = WithItsWorkers(command, tmp_path / "log", env)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        with server:
            await eventually(lambda: is_open(http), f"it starts: {server.output()}")
            proof = await sign_in_to_django(http) if "django" in name else ALICE
            await visit(http, "a", proof)
            await start(http, "b")
            async with following(http, "b", proof) as stream:
                seen = await stream.until("snapshot")
                server.send(signal.SIGTERM)
                try:
                    last = (await stream.until("reconnect")).data
                except httpx.RemoteProtocolError:
                    last = "cut"
            assert last == ("cut" if name in CUTS else '{"reason":"draining"}')
            await eventually(lambda: server.popen is not None and server.popen.poll() is not None, "it ends")
            assert name in CUTS or "Traceback" not in server.output(), server.output()
        with server:
            await eventually(lambda: is_open(http), f"it starts again: {server.output()}")
            async with following(http, "b", proof, after=seen.json["data"]["position"]) as stream:
                await http.post("/progress/v1/operations/b/cancel", headers=proof)
                assert (await stream.until("end")).json["data"]["status"] == "cancelled"
