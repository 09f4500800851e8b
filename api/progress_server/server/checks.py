"""What can be told to be wrong with settings before anything is started for them."""

from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.auth.guard import Guard
from progress_server.callback.authenticator import Callback
from progress_server.server.tls import check_certificate


def check(settings: Settings) -> None:
    """Raise `SetupError` if the keys, files or addresses that a server is to go by can't be used."""
    check_certificate(settings)
    Guard(settings, Callback(settings, Tally()) if settings.auth == "callback" else None)
