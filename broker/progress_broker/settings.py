"""The one list of settings, read from the environment (`PROGRESS_…`) or a `.env` file; CLI and docs derive from it."""

import ipaddress
import os
import re
from base64 import b64decode
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from progress_broker.errors import SetupError

Seconds = Annotated[float, Field(gt=0, le=10 * 366 * 86400)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]
"""A count, where 0 is no limit."""

REDIS_SCHEMES = ("redis", "rediss", "unix")
LEAST_SECRET_BYTES = 32  # as long as what HMAC-SHA256 makes: a shorter one would be what is guessed
WEBHOOK_KEY_PREFIX = "whsec_"
WEBHOOK_KEY_BYTES = range(24, 65)
"""Sizes of a key that Standard Webhooks allows."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "progress-broker"


def _redis_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None and urlsplit(value.get_secret_value()).scheme not in REDIS_SCHEMES:
        raise ValueError("a Redis address begins with redis://, rediss:// or unix://")
    return value


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers spell them: what is spelled otherwise would never be met, and `*` makes the others moot."""
    for origin in value:
        if origin != "*" and not re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", origin):
            raise ValueError(f"{origin!r} is no origin: scheme, host and port, such as https://app.example.com")
    if "*" in value and len(value) > 1:
        raise ValueError("* stands alone: it lets every origin in, and none of them with credentials")
    return value


Listed = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A list, in the environment separated by commas."""


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for part in value:
        try:
            ipaddress.ip_network(part)
        except ValueError:
            raise ValueError(f"{part!r} is no address or network, such as 10.0.0.7 or 10.0.0.0/8") from None
    return value


def _callback_url(value: str | None) -> str | None:
    if value is not None:
        address = urlsplit(value)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("the address of a back end begins with https:// or http://")
        if address.username is not None or address.fragment:
            raise ValueError("it must have no user, password or #fragment: requests to it are signed")
    return value


def _page(value: str | None) -> str | None:
    if value is not None and not re.match(r"(https?://[^/\s]|/(?![/\\]))", value):  # a browser reads both as a host's
        raise ValueError("a page's address begins with https:// or http://, or with one / where it is of the same host")
    return value


def _long_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None and len(value.get_secret_value().encode()) < LEAST_SECRET_BYTES:
        raise ValueError(f"a secret has {LEAST_SECRET_BYTES} bytes or more: `openssl rand -hex 32` makes one")
    return value


def _webhook_secret(value: SecretStr | None) -> SecretStr | None:
    """Accept a secret only as Standard Webhooks writes it, as receivers' libraries read no other."""
    if value is not None:
        text = value.get_secret_value()
        try:
            size = len(b64decode(text.removeprefix(WEBHOOK_KEY_PREFIX), validate=True))
        except ValueError:
            size = 0
        if not text.startswith(WEBHOOK_KEY_PREFIX) or size not in WEBHOOK_KEY_BYTES:
            raise ValueError(
                f"a secret is {WEBHOOK_KEY_PREFIX} and the base64 of 24 to 64 random bytes:"
                f" `echo {WEBHOOK_KEY_PREFIX}$(openssl rand -base64 32)` makes one"
            )
    return value


class Settings(BaseSettings):
    """What can be set. Durations are in seconds and sizes in bytes, as the names say."""

    model_config = SettingsConfigDict(
        env_prefix="PROGRESS_", env_file=".env", extra="ignore", frozen=True, defer_build=True
    )

    redis_url: Annotated[SecretStr | None, AfterValidator(_redis_url)] = Field(
        None,
        description="redis://, rediss:// or unix:// address; without one the private Redis that `serve` starts",
    )
    prefix: str = Field("pb", pattern=r"^[A-Za-z0-9._-]{1,32}$", description="what every key begins with")
    lanes: Annotated[int, Field(ge=1, le=256)] | None = Field(
        None, description="lanes operations are spread over; fixed at first start (16)"
    )
    data_dir: Path = Field(default_factory=_default_data_dir, description="where the private Redis keeps its data")
    redis_timeout_s: Seconds = Field(5, description="longest wait for an answer of Redis")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port to listen on; 0 takes a free one")
    processes: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="processes that serve the address, each a whole replica; about one for each core"
    )
    insecure: bool = Field(False, description="listen on more than loopback without authentication")
    auth: Literal["none", "jwt", "callback"] = Field("none", description="how callers prove who they are")
    jwt_key: SecretStr | None = Field(
        None, description="secret or PEM public key that tokens are signed with, or `@` and the path of a file with it"
    )
    jwt_jwks: str | None = Field(None, description="URL or path of the key set (JWKS) that tokens are signed with")
    jwt_jwks_s: Seconds = Field(300, description="how often the key set is read again")
    jwt_algorithms: str | None = Field(
        None, description="algorithms taken, of HS256, RS256 and ES256, separated by commas; those the key is for"
    )
    jwt_audience: str | None = Field(None, description="who tokens must be meant for (`aud`)")
    jwt_issuer: str | None = Field(None, description="who tokens must come from (`iss`)")
    jwt_leeway_s: Annotated[float, Field(ge=0, le=600)] = Field(
        10, description="how far clocks may differ when a token begins or expires"
    )
    jwt_cookie: str = Field(
        "progress_token", pattern=r"^[A-Za-z0-9_-]*$", description="cookie that may carry a token; empty, none is taken"
    )
    jwt_subject_claim: str = Field("sub", description="claim that names the principal")
    jwt_scope_claim: str = Field("scope", description="claim that lists actions on what the principal owns")
    jwt_grants_claim: str = Field("grants", description="claim that lists wider grants")
    sign_in_url: Annotated[str | None, AfterValidator(_page)] = Field(
        None, description="where people sign in, for the page to lead to; `{page}` in it becomes the page's own address"
    )
    api_keys: Path | None = Field(None, description="TOML or JSON file of the keys that workers come with")
    ticket_s: Annotated[float, Field(gt=0, le=60)] = Field(
        60, description="how long after it was made a ticket opens a stream"
    )
    ticket_secret: Annotated[SecretStr | None, AfterValidator(_long_secret)] = Field(
        None, description="what tickets are signed with on every replica; without one it is made and kept in Redis"
    )
    denials_s: Seconds = Field(1, description="how often revocations are looked for")
    callback_url: Annotated[str | None, AfterValidator(_callback_url)] = Field(
        None, description="http(s) address of your back end that is asked who may come in, with auth `callback`"
    )
    callback_secret: Annotated[SecretStr | None, AfterValidator(_webhook_secret)] = Field(
        None, description="secret that questions to it are signed with (Standard Webhooks): `whsec_` and base64"
    )
    callback_timeout_s: Seconds = Field(5, description="longest wait for its answer; without one nobody is let in")
    callback_concurrency: Annotated[int, Field(ge=1, le=1_000)] = Field(
        32, description="questions it is asked at a time, by each process"
    )
    callback_cache_s: Annotated[float, Field(ge=0, le=300)] = Field(
        5, description="how long what it said of plain calls holds; 0 asks for each"
    )
    callback_questions_per_s: Limit = Field(
        100, description="questions a second that callers of one address may cause at a process; 0 is no limit"
    )
    tls_cert: Path | None = Field(None, description="PEM file of the certificate, and its chain, to serve https with")
    tls_key: Path | None = Field(None, description="PEM file of its private key", validate_default=True)
    cors_origins: Annotated[Listed, AfterValidator(_origins)] = Field(
        (), description="origins whose pages may call, with credentials; * lets pages of all origins read, without"
    )
    allowed_hosts: Annotated[Listed, AfterValidator(lambda names: tuple(name.lower() for name in names))] = Field(
        (), description="names in `Host` that are answered, `*.example.com` for all under one; * turns the check off"
    )
    drain_s: Seconds = Field(10, description="time over which a stopping server sends its clients away")

    history_length: Count = Field(1000, description="events kept of each operation, at least")
    feed_length: Count = Field(10_000, description="events kept in each lane's feed, at least")
    retention_s: Seconds = Field(86_400, description="how long an ended operation is kept")
    idle_limit_s: Seconds = Field(7 * 86_400, description="how long one that has not ended is kept without an event")
    tombstone_s: Seconds = Field(3_600, description="how long a deleted operation answers `gone`")
    sweep_s: Seconds = Field(5, description="how often expired operations are swept, and silent ones checked")
    lease_s: Seconds = Field(15, description="default time a worker may be silent before it counts as stalled")
    abandon_after_s: Seconds = Field(60, description="how long a stalled operation waits for its worker")
    probe_s: Seconds = Field(2, description="how often a replica proves that what is published reaches it")
    reap_s: Seconds = Field(0.5, description="how often lapsed leases are looked for")
    force_after_s: Seconds = Field(30, description="how long a worker may take to stop before it is shown to ignore it")

    max_event_bytes: Count = Field(65_536, description="largest payload of an event")
    max_progress_bytes: Count = Field(16_384, description="largest `progress` object")
    max_body_bytes: Count = Field(
        4 * 1024 * 1024, description="largest request body, but for NDJSON, which is streamed"
    )

    max_url_bytes: Count = Field(32_768, description="largest URL of a request, with its query")
    max_head_bytes: Count = Field(65_536, description="largest head of a request: its URL and all headers")
    request_timeout_s: Seconds = Field(
        15, description="longest a request's head may take to come; a body may take that and a second each 16 KiB"
    )
    max_connections: Count = Field(
        60_000,
        description="connections of a process, streams too; never more than 9 of 10 files it may open",
    )
    max_streams: Count = Field(50_000, description="streams of a process; WebSockets and long polls count as well")
    max_streams_per_address: Limit = Field(
        0, description="streams of an address at a process, IPv6 by /64; 0 is no limit, as many may share an address"
    )
    max_streams_per_principal: Limit = Field(
        100, description="streams of a principal at all replicas together; 0 is no limit"
    )
    stream_lease_s: Seconds = Field(25, description="how long the streams of a replica that died count on")
    requests_per_s: Limit | None = Field(
        None,
        description="requests a second of a principal, or of an address without one, after a burst of two seconds'"
        " worth; 0 is no limit (200 with authentication, else 0)",
    )
    sent_bytes_per_s: Limit | None = Field(
        None,
        description="bytes of request bodies a second of a principal, or of an address without one, after a burst of"
        " two seconds' worth or one largest body; 0 is no limit (2 MiB with authentication, else 0)",
    )
    trusted_proxies: Annotated[Listed, AfterValidator(_networks)] = Field(
        LOOPBACK[:2],
        description="addresses and networks, separated by commas, whose X-Forwarded-For says who calls",
    )
    handshakes_per_s: Count = Field(1_000, description="streams that may be opened a second; the rest come back later")
    max_operations_per_stream: Count = Field(1_000, description="operations that one connection may follow")
    messages_per_s: Count = Field(100, description="messages taken a second of one WebSocket; more of them wait")
    stream_max_age_s: Seconds = Field(3_600, description="longest life of a stream; the client then resumes")
    ping_s: Seconds = Field(15, description="how often a stream says that it is alive")
    retry_ms: Count = Field(2_000, description="how soon clients are told to reconnect, about")
    max_wait_s: Seconds = Field(60, description="longest a request may wait for something to happen")
    client_buffer_bytes: Count = Field(65_536, description="bytes held for a client before it has to catch up")
    gzip_over: Annotated[int, Field(ge=0, le=65_535)] = Field(
        500, description="events of this size and over are compressed for clients that accept gzip; 0 turns gzip off"
    )
    stuck_timeout_s: Seconds = Field(60, description="how long a client may take nothing before it is cut off")
    ring_length: Count = Field(128, description="recent events of a watched operation kept in memory, at most")
    ring_bytes: Count = Field(64 * 1024 * 1024, description="bytes of recent events kept in memory, in all, about")
    page_length: Count = Field(100, description="events read from Redis at a time")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe log line shown")
    log_format: Literal["console", "json"] = Field("console", description="lines for people, or a JSON object a line")

    access_log: bool = Field(False, description="log a line for each request; at log level debug there is one anyway")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("tls_key")
    @classmethod
    def _with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) is not (info.data.get("tls_cert") is None):
            raise ValueError("a certificate and its key are given together")
        return value


def load_settings(**overrides: object) -> Settings:
    """Read the settings; `None` overrides nothing. Raise `SetupError` with one line that names each bad one."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"PROGRESS_{'_'.join(str(part) for part in fault['loc'] if isinstance(part, str)).upper()}:"
            f" {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SetupError(f"bad settings: {faults}") from None
