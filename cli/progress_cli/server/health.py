"""The image's health check, `python -m progress_cli.server.health`: ends with 0 while this container's server is ready.

It uses only the standard library, because an engine runs it every few seconds: loading the settings takes five times as
long. So it knows host, port and TLS from environment variables only, not from options of `serve` or a file `.env`.
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping

TIMEOUT_S = 4
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a server is reached that listens on all addresses


def check(env: Mapping[str, str]) -> tuple[bool, str]:
    """Return whether the server of an environment is ready, and what it answered or why it did not."""
    host, port = env.get("PROGRESS_HOST", "127.0.0.1"), int(env.get("PROGRESS_PORT", "8000"))
    # http.client, not urllib: urllib would use a proxy from the environment.
    connection = _connection(_LOOPBACK.get(host, host), port, tls="PROGRESS_TLS_CERT" in env)
    try:
        # An address as `Host`: names are rejected unless PROGRESS_ALLOWED_HOSTS has them.
        connection.request("GET", "/readyz", headers={"Host": "127.0.0.1"})
        answer = connection.getresponse()
        return answer.status == http.client.OK, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return False, f"{host}:{port} does not answer: {str(error) or type(error).__name__}"
    finally:
        connection.close()


def _connection(host: str, port: int, *, tls: bool) -> http.client.HTTPConnection:
    if not tls:
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The certificate has the server's public name, not this address. Nothing secret is sent, and it is our own server.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)


if __name__ == "__main__":
    ready, told = check(os.environ)
    sys.stdout.write(f"{told}\n")  # engines show it, for example `docker inspect`
    sys.exit(not ready)
