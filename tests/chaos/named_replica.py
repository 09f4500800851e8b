"""A replica whose callers are who they say; its settings are from the environment."""

import asyncio

from progress_broker.limits import limiter
from progress_broker.settings import load_settings
from progress_server.app import create_app
from progress_server.server.server import Server
from progress_server.server.sockets import listen
from tests.api.named import name_callers


def main() -> None:
    limiter.TIMEOUT_S = 20  # on a busy machine it would now and then keep its limits alone
    settings = load_settings()
    app = name_callers(create_app(settings))
    with listen(settings) as listener:
        asyncio.run(Server(app, settings).run_on(listener))
