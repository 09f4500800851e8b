"""Origins: whose page it is that opens a connection, as browsers say and nobody else does (RFC 6454)."""

from collections.abc import Collection

_PORTS = {"http": ":80", "https": ":443"}


def allowed(origin: str | None, host: str | None, allow_list: Collection[str]) -> bool:
    """Return whether a page of this origin may talk to us; None, from what is no browser's page, may.

    A page from where the request went, its `host`, is ours. Any other has to be on the list, word for word: a `*` there
    allows nobody here, as a browser sends its cookies along, whoever asks. The scheme is not compared with ours, which
    a proxy that ends TLS hides from us.
    """
    if origin is None or origin in allow_list:
        return True
    scheme, separator, authority = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if not (separator and authority and host and port):  # `null`, an extension's page, a file's
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)
