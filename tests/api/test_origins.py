import pytest

from progress_server.http.origins import allowed

LIST = ("https://app.example.org",)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "example.org"),
        (None, None),
        ("https://example.org", "example.org"),
        ("https://example.org", "example.org:443"),
        ("https://example.org:443", "Example.org"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("https://app.example.org", "example.org"),
        ("https://app.example.org", None),
    ],
)
def test_those_that_may(origin: str | None, host: str | None) -> None:
    assert allowed(origin, host, LIST)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "example.org"),
        ("https://example.org.evil.example", "example.org"),
        ("https://evil.example", None),
        ("http://app.example.org", "example.org"),
        ("https://app.example.org:8443", "example.org"),
        ("http://localhost:8001", "localhost:8000"),
        ("http://localhost", "localhost:443"),
        ("null", "null"),
        ("null", "example.org"),
        ("", "example.org"),
        ("", ""),
        ("https://", ""),
        ("file://", "example.org"),
        ("chrome-extension://example.org", "example.org"),
        ("*", "example.org"),
    ],
)
def test_those_that_may_not(origin: str, host: str | None) -> None:
    assert not allowed(origin, host, LIST)


def test_a_star_allows_nobody() -> None:
    assert not allowed("https://evil.example", "example.org", ("*",))
