"""The one list of settings, read from the environment (`PROGRESS_…`) or a `.env` file; CLI and docs derive from it."""

import ipaddress
import os
import re
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from progress_broker.errors import SetupError
from progress_broker.routing.address import kind_of

Seconds = Annotated[float, Field(gt=0, le=10 * 366 * 86400)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]
"""A count; 0 means no limit."""

LEAST_SECRET_BYTES = 32  # the output size of HMAC-SHA256: a shorter secret would be easier to guess than a signature
WEBHOOK_KEY_PREFIX = "whsec_"
WEBHOOK_KEY_BYTES = range(24, 65)
"""Sizes of a key that Standard Webhooks allows."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


_NO_HOME = "/nonexistent"
"""The home of a user without one, by Debian's convention. Nobody can create it, so what needs it says so."""


def expand_user(path: str | Path) -> Path:
    """Return a path with the home directory for `~`; it remains `~` for a user without one, as in some containers."""
    return Path(os.path.expanduser(path))


def _default_data_dir() -> Path:
    home = expand_user("~")
    base = os.environ.get("XDG_DATA_HOME") or (home if home.is_absolute() else Path(_NO_HOME)) / ".local" / "share"
    return Path(base) / "progress-broker"


def _redis_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        kind_of(value.get_secret_value())
    return value


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check that origins are written as browsers send them: any other form would never match. `*` must be alone."""
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", origin):
            raise ValueError(
                f"{origin!r} is not an origin: write scheme, host and port, such as https://app.example.com"
            )
    if "*" in value and len(value) > 1:
        raise ValueError("* can't be combined with other origins: it allows every origin, without credentials")
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A list; in environment variables the items are separated by commas."""


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for part in value:
        try:
            ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(
                f"{part!r} is not an IP address or network: write it like 10.0.0.7 or 10.0.0.0/8"
            ) from None
    return value


def _callback_url(value: str | None) -> str | None:
    if value is not None:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("the URL of the back end must begin with https:// or http://, and have a host")
        if address.username is not None or address.fragment:
            raise ValueError(
                "the URL must not have a user, password or #fragment: requests are signed with PROGRESS_CALLBACK_SECRET"
            )
    return value


def _page(value: str | None) -> str | None:
    if value is not None and not re.match(r"(https?://[^/\s]|/(?![/\\]))", value):
        # Browsers read `//` and `/\` as the start of a host name.
        raise ValueError(
            "the page must be a URL that begins with https:// or http://, or a path on the same host that"
            " begins with one /"
        )
    return value


def _public_url(value: str | None) -> str | None:
    if value is None:
        return None
    address = urlsplit(value)
    if address.scheme not in ("http", "https") or not address.hostname or address.query or address.fragment:
        raise ValueError("write a URL that begins with https:// or http://, without a query or #fragment")
    try:
        known = address.port != 0 and address.hostname.encode("idna") and not re.search(r"[\x00-\x20\x7f]", value)
    except ValueError:  # the port is out of range, or a part of the name is empty or too long
        known = False
    if not known:
        raise ValueError(
            "the host or the port of this URL can't exist: write a URL such as https://example.com/progress"
        )
    return value.rstrip("/")


def _server_url(value: str | None) -> str | None:
    if not value:  # an empty variable overrides the address in a `.env` file
        return None
    if (address := urlsplit(value)).username is not None:
        raise ValueError(f"the URL must not have a user or password: set PROGRESS_TOKEN ({address.hostname})")
    return _public_url(value)


def _token(value: SecretStr | None) -> SecretStr | None:
    if value is None or not value.get_secret_value():
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise ValueError("a token is one word of visible ASCII characters")
    return value


def _long_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value().encode()) < LEAST_SECRET_BYTES:
        raise ValueError(
            f"the secret must have at least {LEAST_SECRET_BYTES} bytes: `openssl rand -hex 32` generates one"
        )
    return value


def _webhook_secret(value: SecretStr | None) -> SecretStr | None:
    """Check that a secret has the format of Standard Webhooks: receivers' libraries accept no other."""
    if value is not None:
        text = value.get_secret_value()
        try:
            size = len(b64decode(text.removeprefix(WEBHOOK_KEY_PREFIX), validate=True))
        except ValueError:
            size = 0
        if not text.startswith(WEBHOOK_KEY_PREFIX) or size not in WEBHOOK_KEY_BYTES:
            raise ValueError(
                f"the secret must be {WEBHOOK_KEY_PREFIX} and the base64 of 24 to 64 random bytes:"
                f" `echo {WEBHOOK_KEY_PREFIX}$(openssl rand -base64 32)` makes one"
            )
    return value


class Settings(BaseSettings):
    """All settings. The suffix of a name is its unit: `_s` is seconds, `_ms` milliseconds, `_bytes` bytes."""

    model_config = SettingsConfigDict(
        env_prefix="PROGRESS_", env_file=".env", extra="ignore", frozen=True, defer_build=True
    )

    if TYPE_CHECKING:  # without pydantic's plugin mypy misses the defaults, and would want every setting

        def __init__(self, **values: Any) -> None: ...

    redis_url: Annotated[SecretStr | None, AfterValidator(_redis_url)] = Field(
        None,
        description="Redis address (redis://, rediss://, unix://; redis+sentinel://, rediss+sentinel:// for sentinels;"
        " redis+cluster://, rediss+cluster:// for some nodes of a Cluster; also valkey:// and valkeys://); default: the"
        " private Redis that `serve` starts",
    )
    url: Annotated[str | None, AfterValidator(_server_url)] = Field(
        None,
        description="URL of a server, such as https://example.com/progress, for workers and clients without access to"
        " Redis; servers ignore it",
    )
    token: Annotated[SecretStr | None, AfterValidator(_token)] = Field(
        None, description="API key or token to send to the server of PROGRESS_URL"
    )
    token_file: Path | None = Field(
        None, description="file with that key or token; it is read again when the server rejects the old one"
    )
    prefix: str = Field("pb", pattern=r"^[A-Za-z0-9._-]{1,32}$", description="prefix of all keys in Redis")
    lanes: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None,
        description="number of parts (lanes) that operations are divided into in Redis; fixed at the first start (16;"
        " in a Cluster of more than 4 masters 64, of more than 16 masters 256)",
    )
    data_dir: Path = Field(default_factory=_default_data_dir, description="directory of the private Redis' data")
    embedded_max_bytes: Limit | None = Field(
        None,
        description="maximum memory of the private Redis (its `maxmemory`); 0: no limit; default: a quarter of the"
        " machine's or container's memory",
    )
    redis_timeout_s: Seconds = Field(5, description="timeout of a request to Redis")

    host: str = Field("127.0.0.1", description="address to listen on; `::`: all addresses, of IPv4 too")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port to listen on; 0: any free port")
    processes: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="number of server processes, each a full replica; use about one per CPU core"
    )
    insecure: bool = Field(False, description="allow listening on other addresses than loopback without authentication")
    auth: Literal["none", "jwt", "callback"] = Field("none", description="authentication method")
    jwt_key: SecretStr | None = Field(
        None, description="shared secret or PEM public key to verify tokens, or `@` and the path of a file with it"
    )
    jwt_jwks: str | None = Field(None, description="URL or path of the key set (JWKS) to verify tokens")
    jwt_jwks_s: Seconds = Field(300, description="how often the key set is reloaded")
    jwt_algorithms: str | None = Field(
        None,
        description="accepted signature algorithms (HS256, RS256, ES256), separated by commas; default: by type of key",
    )
    jwt_audience: str | None = Field(None, description="required audience of tokens (`aud`)")
    jwt_issuer: str | None = Field(None, description="required issuer of tokens (`iss`)")
    jwt_leeway_s: Annotated[float, Field(ge=0, le=600)] = Field(
        10, description="allowed clock difference when `nbf` and `exp` of a token are checked"
    )
    jwt_cookie: str = Field(
        "progress_token",
        pattern=r"^[A-Za-z0-9_-]*$",
        description="name of a cookie that may carry a token; empty: tokens in cookies are not accepted",
    )
    jwt_subject_claim: str = Field("sub", description="claim with the principal's name")
    jwt_scope_claim: str = Field(
        "scope", description="claim with the actions allowed on the principal's own operations"
    )
    jwt_grants_claim: str = Field("grants", description="claim with grants on other operations")
    sign_in_url: Annotated[str | None, AfterValidator(_page)] = Field(
        None, description="URL of the sign-in page; the web page links to it, and replaces `{page}` by its own URL"
    )
    api_keys: Path | None = Field(None, description="TOML or JSON file with API keys for workers")
    ticket_ttl_s: Annotated[float, Field(gt=0, le=60)] = Field(
        60, description="lifetime of a ticket that opens a stream"
    )
    ticket_secret: Annotated[SecretStr | None, AfterValidator(_long_secret)] = Field(
        None, description="secret to sign tickets, the same on all replicas; default: generated and kept in Redis"
    )
    revocation_check_s: Seconds = Field(1, description="how often replicas read new revocations")
    callback_url: Annotated[str | None, AfterValidator(_callback_url)] = Field(
        None, description="URL of your back end that authorizes callers, for authentication by `callback`"
    )
    callback_secret: Annotated[SecretStr | None, AfterValidator(_webhook_secret)] = Field(
        None,
        description="secret to sign requests to the back end of `callback` (Standard Webhooks): `whsec_` and base64",
    )
    callback_timeout_s: Seconds = Field(
        5, description="timeout of a request to the back end of `callback`; without an answer the caller is rejected"
    )
    callback_concurrency: Annotated[int, Field(ge=1, le=1_000)] = Field(
        32, description="maximum concurrent requests to the back end of `callback`, per process"
    )
    callback_cache_s: Annotated[float, Field(ge=0, le=300)] = Field(
        5, description="how long decisions of the back end of `callback` on ordinary requests are cached; 0: not at all"
    )
    callback_requests_per_s: Limit = Field(
        100,
        description="maximum requests to the back end of `callback` per second, per process, that callers at one"
        " address may cause; 0: no limit",
    )
    tls_cert: Path | None = Field(None, description="PEM file with the certificate and its chain, for HTTPS")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key", validate_default=True)
    public_url: Annotated[str | None, AfterValidator(_public_url)] = Field(
        None,
        description="URL under which clients reach the API, such as https://example.com/progress, for links in"
        " responses; default: as each request says",
    )
    cors_origins: Annotated[Listed, AfterValidator(_origins)] = Field(
        (),
        description="origins whose web pages may call the API with credentials, separated by commas; *: all origins may"
        " read, without credentials",
    )
    allowed_hosts: Annotated[Listed, AfterValidator(lambda names: tuple(name.lower() for name in names))] = Field(
        (),
        description="accepted `Host` headers, separated by commas; `*.example.com` accepts all subdomains, * any host;"
        " default: localhost if the server listens on loopback without authentication, else any host",
    )
    drain_s: Seconds = Field(10, description="how long a shutdown takes to disconnect clients")

    history_length: Count = Field(
        1000, description="approximate number of events kept per operation, not counting `progress`"
    )
    feed_length: Count = Field(
        10_000, description="minimum number of recent events kept in each lane's feed, from which servers read"
    )
    retention_s: Seconds = Field(86_400, description="how long an ended operation is kept")
    idle_timeout_s: Seconds = Field(
        7 * 86_400, description="how long an operation that has not ended is kept without events"
    )
    tombstone_ttl_s: Seconds = Field(
        3_600, description="how long requests for a deleted operation get the error `gone`"
    )
    sweep_interval_s: Seconds = Field(
        5, description="how often expired operations are removed, and watched ones without events are checked"
    )
    lease_s: Seconds = Field(
        15,
        description="default time without a message from its worker after which an operation is stalled",
    )
    on_sigterm: Literal["cancel", "fail", "leave"] = Field(
        "cancel",
        description="what SIGTERM does to a worker's open operations, unless the program has a handler of its own:"
        " end them as cancelled or as failed, or leave them open for a next attempt",
    )
    error_tracebacks: bool = Field(
        False,
        description="whether the error of a failed operation has the traceback and the causes of its exception: all who"
        " may read the operation see them, with file names, lines of code and messages",
    )
    required: bool = Field(
        False, description="raise an error where an operation can't be started or created, instead of doing it later"
    )
    spool_dir: Path | None = Field(
        None,
        description="directory for reports of workers that can't be sent, which the next start on this machine sends",
    )
    spool_max_bytes: Count = Field(64 * 1024 * 1024, description="maximum size of the files in that directory")
    disabled: bool = Field(False, description="report nothing from workers: they run as if they reported")
    worker_lost_after_s: Seconds = Field(
        60, description="how long a stalled operation waits for its worker until it fails"
    )
    probe_interval_s: Seconds = Field(2, description="how often a replica checks that published events reach it")
    lease_check_interval_s: Seconds = Field(
        0.5, description="how often servers look for operations whose workers are silent (expired leases)"
    )
    force_cancel_after_s: Seconds = Field(
        30, description="how long a worker may take to stop after a cancel until it is shown as overdue"
    )

    max_event_bytes: Count = Field(65_536, description="maximum size of an event's data")
    max_progress_bytes: Count = Field(16_384, description="maximum size of a `progress` object")
    max_body_bytes: Count = Field(
        4 * 1024 * 1024, description="maximum size of a request body, except NDJSON, which is streamed"
    )

    max_url_bytes: Count = Field(32_768, description="maximum size of a request's URL with its query")
    max_head_bytes: Count = Field(65_536, description="maximum size of a request's URL and headers together")
    request_timeout_s: Seconds = Field(
        15,
        description="timeout to receive a request's headers; a body gets the same, plus one second per 16 KiB",
    )
    max_connections: Count = Field(
        60_000,
        description="maximum connections per process, including streams; never more than 90% of its open-file limit",
    )
    max_streams: Count = Field(
        50_000, description="maximum streams per process; WebSockets and long polls count as streams"
    )
    max_streams_per_address: Limit = Field(
        0,
        description="maximum streams per client address (IPv6: per /64) and process; 0: no limit, because many clients"
        " may share an address",
    )
    max_streams_per_principal: Limit = Field(
        100, description="maximum streams per principal, over all replicas; 0: no limit"
    )
    stream_lease_s: Seconds = Field(25, description="how long the streams of a crashed replica still count")
    requests_per_s: Limit | None = Field(
        None,
        description="maximum requests per second of a principal, or of an address without authentication, after a burst"
        " of two seconds' worth; 0: no limit (200 with authentication, else 0)",
    )
    sent_bytes_per_s: Limit | None = Field(
        None,
        description="maximum bytes of request bodies per second of a principal, or of an address without"
        " authentication, after a burst of two seconds' worth or of one body of the maximum size; 0: no limit"
        " (2 MiB with authentication, else 0)",
    )
    trusted_proxies: Annotated[Listed, AfterValidator(_networks)] = Field(
        LOOPBACK[:2],
        description="IP addresses and networks of proxies whose X-Forwarded-For is trusted, separated by commas",
    )
    handshakes_per_s: Count = Field(
        1_000, description="maximum new streams per second and process; other clients must retry later"
    )
    max_operations_per_stream: Count = Field(1_000, description="maximum operations that one stream may follow")
    messages_per_s: Count = Field(100, description="maximum messages per second of one WebSocket; more messages wait")
    stream_max_age_s: Seconds = Field(3_600, description="maximum age of a stream; the client then resumes")
    ping_s: Seconds = Field(15, description="how often a ping is sent on each stream")
    retry_ms: Count = Field(2_000, description="approximate delay after which clients reconnect")
    max_long_poll_s: Seconds = Field(60, description="maximum wait of a long poll")
    client_buffer_bytes: Count = Field(
        65_536, description="size of a client's send buffer; when it is full, the client catches up from history"
    )
    gzip_min_bytes: Annotated[int, Field(ge=0, le=65_535)] = Field(
        500, description="minimum size of events that are compressed with gzip; 0: no compression"
    )
    stuck_timeout_s: Seconds = Field(60, description="how long a client may receive nothing until it is disconnected")
    ring_length: Count = Field(128, description="maximum recent events kept in memory per watched operation")
    ring_bytes: Count = Field(
        64 * 1024 * 1024,
        description="approximate total size of recent events kept in memory; when many clients resume, for some"
        " seconds up to half as much more",
    )
    page_length: Count = Field(100, description="number of events read from Redis at a time")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="minimum level of log lines")
    log_format: Literal["console", "json"] = Field(
        "console", description="text lines for people, or one JSON object per line"
    )

    metrics_host: str = Field("127.0.0.1", description="address of the port for metrics; it asks for no credentials")
    metrics_port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None,
        description="port for the metrics of all processes together, and for health checks, beside `port`",
    )
    access_log: bool = Field(False, description="log one line per request (always on at log level debug)")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return expand_user(value).absolute()

    @field_validator("tls_key")
    @classmethod
    def _with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) is not (info.data.get("tls_cert") is None):
            raise ValueError(
                "TLS needs both a certificate and a key: set PROGRESS_TLS_CERT and PROGRESS_TLS_KEY, or neither"
            )
        return value


def load_settings(**overrides: object) -> Settings:
    """Read the settings. An override of `None` is ignored. Raise `SetupError` with one line that names each fault.

    An override also replaces the setting that it is the alternative to: a URL that is given, a Redis address of the
    environment. Without overrides, they are read again only when the environment or the `.env` file has changed.
    """
    global _last
    chosen = {name: value for name, value in overrides.items() if value is not None}
    if chosen:
        replaced = {_ALTERNATIVES[name] for name in chosen.keys() & _ALTERNATIVES.keys()} - chosen.keys()
        return _read(chosen).model_copy(update=dict.fromkeys(replaced))
    source = _source()
    if _last is None or _last[0] != source:
        _last = source, _read({})
    return _last[1]


_last: tuple[object, Settings] | None = None
_ALTERNATIVES = {"url": "redis_url", "redis_url": "url", "token": "token_file", "token_file": "token"}


def _source() -> object:
    """Return what the settings are read from: equal to that of another call unless something has changed."""
    try:
        file = os.stat(".env")
    except OSError:
        return dict(os.environ)
    return dict(os.environ), (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns)


def _read(chosen: dict[str, object]) -> Settings:
    try:
        return Settings(**chosen)
    except ValidationError as error:
        faults = "; ".join(
            f"PROGRESS_{'_'.join(str(part) for part in fault['loc'] if isinstance(part, str)).upper()}:"
            f" {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SetupError(f"invalid settings: {faults}") from None
