"""What a request proves who sends it with: a token or an API key, from the settings or from a file."""

import re
from collections.abc import Generator
from pathlib import Path

import httpx

from progress_broker.errors import SetupError
from progress_broker.settings import Settings, expand_user


class TokenAuth(httpx.Auth):
    """Sends the token with each request. If the server rejects it, the file is read again: it may have a new one."""

    def __init__(self, settings: Settings) -> None:
        if settings.token is not None and settings.token_file is not None:
            raise SetupError("PROGRESS_TOKEN and PROGRESS_TOKEN_FILE are both set: remove one of them")
        self._file = settings.token_file
        if self._file is not None:
            self._token: str | None = _read(self._file)
        else:
            self._token = settings.token.get_secret_value() if settings.token is not None else None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request; once more if it was rejected and the file has another token now."""
        sent = self._token
        response = yield self._signed(request, sent)
        if response.status_code == 401 and self._renew(sent):
            yield self._signed(request, self._token)

    def _signed(self, request: httpx.Request, token: str | None) -> httpx.Request:
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    def _renew(self, rejected: str | None) -> bool:
        if self._file is not None and self._token == rejected:
            try:
                self._token = _read(self._file)
            except SetupError:  # it is being replaced: the caller gets the rejection, and tries again later or not
                return False
        return self._token != rejected


def _read(file: Path) -> str:
    try:
        token = expand_user(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"PROGRESS_TOKEN_FILE can't be read: {error}") from None
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SetupError(f"PROGRESS_TOKEN_FILE: {file} must hold one word of visible ASCII characters")
    return token
