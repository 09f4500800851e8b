"""A replica whose callers are who they say; its settings are from the environment."""

import asyncio

from api.app import create_app
from api.listener import listen
from api.server import Server
from broker.settings import load_settings
from tests.api.named import Named


def main() -> None:
    settings = load_settings()
    app = create_app(settings)
    app.add_middleware(Named)
    with listen(settings) as listener:
        asyncio.run(Server(app, settings).run_on(listener))


if __name__ == "__main__":
    main()
