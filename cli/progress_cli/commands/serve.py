"""`serve`: run a server with the API, and an embedded Redis if no other one is configured."""

from progress_broker.settings import Settings
from progress_cli.options import SERVER, with_settings


@with_settings(*SERVER, rest=True)
def serve(settings: Settings) -> None:
    """Serve the API and the dashboard. Ctrl-C or SIGTERM stops it.

    Without --redis-url, a private Redis is started, with its data in the data directory. Workers and commands on this
    machine find it there. A second `serve` with the same directory shares it.

    Each setting is also an environment variable, which may be in a file `.env`: --data-dir is PROGRESS_DATA_DIR.

    Set secrets by environment variable: other users can see command lines. The secrets are PROGRESS_JWT_KEY,
    PROGRESS_TICKET_SECRET and PROGRESS_CALLBACK_SECRET.
    """
    from progress_cli.server.run import run  # imports the web framework: other commands save half a second

    run(settings)
