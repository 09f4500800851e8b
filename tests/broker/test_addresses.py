"""Addresses of Redis: every form, and that nothing secret is shown."""

import traceback
from urllib.parse import quote

import pytest
import redis.connection
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.routing.address import Endpoint, parse_address

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}(\.[a-z]{1,4})?", fullmatch=True)
HOSTS = NAMES | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(str)
PORTS = st.integers(1, 65535)
SERVERS = st.builds(Endpoint, HOSTS, PORTS, st.just(""))
PUNCTUATION = st.text("12/:@#%[]?,&=", max_size=4)
SECRETS = st.builds("{}S3CRET{}".format, PUNCTUATION, PUNCTUATION)


def user(name: str, password: str) -> str:
    return f"{quote(name, safe='')}:{quote(password, safe='')}@" if name or password else ""


@given(TEXTS, TEXTS, SERVERS, st.integers(0, 15), st.sampled_from(["redis", "rediss", "valkey", "valkeys"]))
def test_an_address_of_one_server_is_read_as_the_library_reads_it(
    name: str, password: str, server: Endpoint, database: int, scheme: str
) -> None:
    rest = f"://{user(name, password)}{server}/{database}?ssl_keyfile=a%2Fb+c"
    address = parse_address(scheme + rest)
    theirs = redis.connection.parse_url(scheme.replace("valkeys", "rediss").replace("valkey", "redis") + rest)
    assert redis.connection.parse_url(address.url_of(address.seeds[0])) == theirs
    assert (address.kind, address.seeds, address.database) == ("single", (server,), database)
    assert (address.username, address.password, address.tls) == (name, password, scheme in ("rediss", "valkeys"))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("redis://", "redis://localhost:6379"),
        ("redis://h", "redis://h:6379/0"),
        ("redis://h?db=3", "redis://h:6379/3"),
        ("redis://H:1/2/ \n", "redis://h:1/2"),
        ("redis://:pw@h", "redis://:pw@h:6379"),
        ("redis://name@h", "redis://name@h:6379"),
        ("valkey://h", "redis://h"),
        ("unix://name:pw@/run/a%20b.sock?db=1", "unix://name:pw@/run/a b.sock?db=1"),
    ],
)
def test_what_may_be_left_out(text: str, same: str) -> None:
    assert parse_address(text) == parse_address(same)
    address = parse_address(text)
    theirs = {"host": "localhost", "port": 6379, "db": 0} if "unix" not in same else {}
    given = redis.connection.parse_url(address.url_of(address.seeds[0]))
    assert given == theirs | redis.connection.parse_url(same)


def test_how_many_replicas_confirm_a_write_is_no_option_of_the_library() -> None:
    for text in ("redis://h", "unix:///s", "redis+cluster://h", "redis+sentinel://h/s"):
        address = parse_address(f"{text}?wait_replicas=2&wait_ms=50")
        assert (address.wait_replicas, address.wait_ms, address.library) == (2, 50, {})
        assert (parse_address(text).wait_replicas, parse_address(text).wait_ms) == (None, 250)


@given(TEXTS, TEXTS, st.lists(SERVERS, min_size=1, max_size=4), st.booleans())
def test_a_cluster_is_named_by_some_of_its_nodes(name: str, password: str, seeds: list[Endpoint], tls: bool) -> None:
    hosts = ",".join(map(str, seeds))
    address = parse_address(f"redis{'s' * tls}+cluster://{user(name, password)}{hosts}?nat=10.0.0.1:1>h:2,[::1]:3>i:4")
    assert (address.kind, address.tls, address.seeds, address.database) == ("cluster", tls, tuple(seeds), 0)
    assert (address.username, address.password) == (name, password)
    assert address.reachable == {Endpoint("10.0.0.1", 1): Endpoint("h", 2), Endpoint("::1", 3): Endpoint("i", 4)}
    assert parse_address(address.shown).seeds == address.seeds
    backwards = ",".join(map(str, reversed(seeds)))
    assert parse_address(f"valkey+cluster://{backwards}").identity == address.identity


@given(TEXTS, TEXTS, TEXTS.filter(bool), st.lists(SERVERS, min_size=1, max_size=4), st.integers(0, 15))
def test_sentinels_are_named_with_the_service_that_they_watch(
    name: str, password: str, service: str, seeds: list[Endpoint], database: int
) -> None:
    hosts, service_of = ",".join(map(str, seeds)), quote(service, safe="")
    own = f"sentinel_user={quote(password, safe='')}&sentinel_password={quote(name, safe='')}&ssl_certfile=c"
    address = parse_address(f"redis+sentinel://{user(name, password)}{hosts}/{service_of}/{database}?{own}")
    assert (address.kind, address.seeds, address.service, address.database) == (
        *("sentinel", tuple(seeds), service),
        database,
    )
    assert (address.sentinel_username, address.sentinel_password) == (password, name)
    assert redis.connection.parse_url(address.url_of(Endpoint("h", 1))) == redis.connection.parse_url(
        f"redis://{user(name, password)}h:1/{database}?ssl_certfile=c"
    )


def test_ports_that_are_not_named() -> None:
    assert parse_address("redis+sentinel://a,[::1]/main").seeds == (Endpoint("a", 26379), Endpoint("::1", 26379))
    assert parse_address("redis+cluster://a,b:1").seeds == (Endpoint("a", 6379), Endpoint("b", 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://h", "must begin with redis://"),
        ("redis:h", "must begin with redis://"),
        ("redis://a,b", "names several hosts"),
        ("redis://h:port", "a port must be"),
        ("redis://h:0", "a port must be"),
        ("redis://h:65536", "a port must be"),
        ("redis://[::1:6379", "in brackets"),
        ("redis://::1", "a host is missing"),
        ("redis://h/main", "database must be a number"),
        ("redis+cluster://a,", "a host is missing"),
        ("redis+cluster://a/1", "only database 0"),
        ("redis://a?wait_replicas=some", "wait_replicas must be a whole number"),
        ("redis+cluster://a?wait_ms=-1", "wait_ms must be a whole number"),
        ("redis+cluster://a?nat=b:1", "write nat like"),
        ("redis+cluster://a?nat=b>c", "a port must be"),
        ("redis+sentinel://a", "name of the service is missing"),
        ("redis+sentinel://a/main/x", "database must be a number"),
        ("unix://", "path of the socket is missing"),
    ],
)
def test_what_is_wrong_is_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(text)


@given(
    SECRETS, st.booleans(), st.sampled_from(["redis://{}@h/0", "redis+cluster://{}@h", "redis+sentinel://{}@h/main"])
)
def test_no_secret_is_shown_whatever_is_wrong(secret: str, encoded: bool, form: str) -> None:
    """A password may have been written as it is, so that it is taken for a host, a port or a service."""
    said = told(form.format(f"U5ER:{quote(secret, safe='') if encoded else secret}"))
    assert "S3CRET" not in said
    assert not encoded or "U5ER" not in said


def told(text: str) -> str:
    """Return all that is shown of an address, or of what is wrong with it."""
    try:
        return repr(address := parse_address(text)) + address.shown + address.identity
    except ValueError as error:
        return "".join(traceback.format_exception_only(error)) + repr((error.__cause__, error.__context__))
