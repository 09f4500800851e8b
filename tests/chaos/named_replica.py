"""A replica whose callers are who they say; its settings are from the environment."""

import asyncio

from api.app import create_app
from api.listener import listen
from api.server import Server
from broker import limiter
from broker.settings import load_settings
from tests.api.named import name_callers


def main() -> None:
    limiter.PATIENCE_S = 20  # on a busy machine it would now and then keep its limits alone
    settings = load_settings()
    app = name_callers(create_app(settings))
    with listen(settings) as listener:
        asyncio.run(Server(app, settings).run_on(listener))


if __name__ == "__main__":
    main()
