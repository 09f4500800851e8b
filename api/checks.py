"""What can be told to be wrong with settings before anything is started for them."""

from api.auth.guard import Guard
from api.callback.callback import Callback
from api.tls import check_certificate
from broker.settings import Settings
from broker.tally import Tally


def check(settings: Settings) -> None:
    """Raise `SetupError` if the keys, files or addresses that a server is to go by can't be used."""
    check_certificate(settings)
    Guard(settings, Callback(settings, Tally()) if settings.auth == "callback" else None)
