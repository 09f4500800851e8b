"""Addresses of Redis: one server, the sentinels that know it, or some nodes of a Cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

Kind = Literal["single", "sentinel", "cluster"]

_TLS: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_KINDS: Final[dict[str, Kind]] = {"": "single", "+sentinel": "sentinel", "+cluster": "cluster"}
_UNIX = "unix"
SCHEMES: Final[Mapping[str, Kind]] = {name + suffix: kind for name in _TLS for suffix, kind in _KINDS.items()} | {
    _UNIX: "single"
}
"""The schemes of addresses, and the kind of Redis that each stands for."""

_PORTS = range(1, 65536)
_DEFAULT_PORTS: Final[dict[Kind, int]] = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_FORMS: Final[dict[Kind, str]] = {
    "single": "redis://user:password@host:6379/0",
    "sentinel": "redis+sentinel://user:password@host:26379,host:26379/service/0",
    "cluster": "redis+cluster://user:password@host:6379,host:6379",
}


class Endpoint(NamedTuple):
    """Where a server listens: at a host and port, or at the path of a unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return self.path or f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """An address, taken apart. Its representation shows nothing secret."""

    kind: Kind
    tls: bool
    seeds: tuple[Endpoint, ...]
    """The server, the sentinels, or some nodes of the Cluster."""
    username: str = field(repr=False)
    password: str = field(repr=False)
    database: int
    """Always 0 for a Cluster."""
    service: str
    """What sentinels call the master; empty for other kinds."""
    sentinel_username: str = field(repr=False)
    sentinel_password: str = field(repr=False)
    reachable: Mapping[Endpoint, Endpoint]
    """Where servers are reached from here, by the endpoints that they announce."""
    library: Mapping[str, str] = field(repr=False)
    """Options for the client library, such as `ssl_ca_certs`."""
    wait_replicas: int | None = None
    """How many replicas must have a creation or an end before it is said to be stored; None: one, if there is any."""
    wait_ms: int = 250
    """How long they are waited for at most, in milliseconds."""

    @property
    def shown(self) -> str:
        """The address without its user, password and options."""
        if self.seeds[0].path:
            return f"{_UNIX}://{self.seeds[0]}"
        scheme = f"redis{'s' if self.tls else ''}{'' if self.kind == 'single' else f'+{self.kind}'}"
        return f"{scheme}://{','.join(map(str, self.seeds))}{f'/{self.service}' if self.service else ''}"

    @property
    def identity(self) -> str:
        """A name of the data behind the address. It does not change with a password, or with the order of the seeds."""
        service = f"/{self.service}" if self.service else ""
        return f"{','.join(sorted(map(str, self.seeds)))}{service}/{self.database}"

    def at(self, server: Endpoint) -> "RedisAddress":
        """Return the address of one server of these, with the same user and options."""
        return replace(self, seeds=(server,))

    def url_of(self, server: Endpoint) -> str:
        """Return one server's address as the client library reads it, with the password and all options."""
        return self._url(server, self.username, self.password, self.database)

    def url_of_sentinel(self, sentinel: Endpoint) -> str:
        """Return one sentinel's address likewise. Sentinels have users of their own, and no databases."""
        return self._url(sentinel, self.sentinel_username, self.sentinel_password, 0)

    def _url(self, server: Endpoint, username: str, password: str, database: int) -> str:
        user = quote(username, safe="") + (f":{quote(password, safe='')}" if password else "")
        where = quote(server.path) if server.path else str(server)
        scheme = _UNIX if server.path else f"redis{'s' if self.tls else ''}"
        return f"{scheme}://{user and f'{user}@'}{where}?{urlencode({'db': database, **self.library})}"


def kind_of(text: str) -> Kind:
    """Return what kind of Redis an address is of. Raises `ValueError` if it begins with another scheme."""
    scheme, separator, _ = text.strip().partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise ValueError(
            "a Redis address must begin with redis://, rediss:// or unix://, redis+sentinel:// or redis+cluster://"
        )
    return SCHEMES[scheme.lower()]


def parse_address(text: str) -> RedisAddress:
    """Take an address apart. Raises `ValueError`, whose text quotes no part of a password, if it is wrong.

    After the hosts, an address of sentinels has a service and, if it is not 0, a database. Options of it and of a
    Cluster are `nat` (`announced:6379>reached:7001,…`), and for sentinels `sentinel_user` and `sentinel_password`. Each
    takes `wait_replicas` and `wait_ms`.
    """
    scheme, _, rest = text.strip().partition("://")  # a file that it was read from may end with a line feed
    kind = kind_of(text)
    location, _, query = rest.partition("#")[0].partition("?")
    authority, slash, path = location.partition("/")
    if kind != "single" and "@" in rest[len(authority) :]:  # then a part of a password looks like a service
        raise ValueError("write the characters / : @ # % in a password as %2F %3A %40 %23 %25")
    user, _, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query):
        options.setdefault(name, value)
    service = ""
    if kind == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise ValueError(f"the name of the service is missing: write it like {_FORMS[kind]}")
    unix = scheme.lower() == _UNIX
    database = _database(kind, options.pop("db", "" if unix else path.strip("/")))
    of_sentinels = kind == "sentinel"
    wait_replicas, wait_ms = options.pop("wait_replicas", None), options.pop("wait_ms", "250")
    return RedisAddress(
        kind,
        _TLS.get(scheme.lower().partition("+")[0], False),
        (_socket(slash + path),) if unix else _seeds(kind, hosts),
        unquote(username),
        unquote(password),
        database,
        unquote(service),
        options.pop("sentinel_user", "") if of_sentinels else "",
        options.pop("sentinel_password", "") if of_sentinels else "",
        {} if kind == "single" else _reachable(options.pop("nat", "")),
        options,
        None if wait_replicas is None else _whole(wait_replicas, "wait_replicas"),
        _whole(wait_ms, "wait_ms"),
    )


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} must be a whole number")
    return int(text)


def _database(kind: Kind, text: str) -> int:
    number = unquote(text)
    if not number:
        return 0
    if not (number.isascii() and number.isdigit()):
        raise ValueError("the database must be a number")
    if kind == "cluster" and int(number) != 0:
        raise ValueError("a Cluster has only database 0")
    return int(number)


def _seeds(kind: Kind, hosts: str) -> tuple[Endpoint, ...]:
    if kind == "single":
        if "," in hosts:
            raise ValueError(f"it names several hosts: write {_FORMS['sentinel']} or {_FORMS['cluster']}")
        hosts = hosts or "localhost"
    return tuple(_endpoint(host, _DEFAULT_PORTS[kind]) for host in hosts.split(","))


def _socket(path: str) -> Endpoint:
    if not path:
        raise ValueError("the path of the socket is missing: write it like unix:///run/redis.sock")
    return Endpoint("", 0, unquote(path))


def _reachable(text: str) -> dict[Endpoint, Endpoint]:
    found = {}
    for pair in text.split(",") if text else ():
        announced, arrow, reached = pair.partition(">")
        if not arrow:
            raise ValueError("write nat like 10.0.0.1:6379>redis.example:7001, with commas between several")
        found[_endpoint(announced)] = _endpoint(reached)
    return found


def _endpoint(text: str, default: int | None = None) -> Endpoint:
    """Return a host and its port. IPv6 addresses are in brackets. No part of the text is quoted in errors."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError("an IPv6 address must be in brackets, such as [::1]:6379")
        port = port[1:]
    else:
        host, _, port = text.partition(":")
    if not host:
        raise ValueError("a host is missing")
    if not port and default is not None:
        return Endpoint(unquote(host).lower(), default)
    if not (port.isascii() and port.isdigit() and int(port) in _PORTS):
        raise ValueError("a port must be a number from 1 to 65535")
    return Endpoint(unquote(host).lower(), int(port))
