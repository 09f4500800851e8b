"""`serve`: a replica of the API, and its embedded Redis where no other is named."""

from progress_broker.settings import Settings
from progress_cli.options import SERVER, with_settings


@with_settings(*SERVER, rest=True)
def serve(settings: Settings) -> None:
    """Serve the API and the dashboard until told to stop.

    Without --redis-url a private Redis is started, with its data in the data directory; workers and commands on this
    machine find it there. A second `serve` on the same directory shares it.

    Each setting is an environment variable too, also from a file `.env`: --data-dir is PROGRESS_DATA_DIR.

    Set secrets by environment variable, as other users can see command lines:
    PROGRESS_JWT_KEY, PROGRESS_TICKET_SECRET, PROGRESS_CALLBACK_SECRET.
    """
    from progress_cli.server.run import run  # the web framework: half a second that other commands need not spend

    run(settings)
