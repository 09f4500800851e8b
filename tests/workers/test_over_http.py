"""Workers without Redis: a server that is killed, drains, limits or rejects them loses and repeats nothing."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import orjson
import pytest

from progress_broker.errors import (
    BrokerError,
    Forbidden,
    Gap,
    LaneAway,
    ServerUnavailable,
    SetupError,
    StorageUnavailable,
    TooLarge,
)
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish, Published
from progress_broker.runtime.backoff import Backoff
from progress_broker.settings import Settings
from progress_broker.workers.wire import read_answer, write_answer
from progress_server.auth.api_keys import hash_key
from progress_server.http.problems import problem_of
from progress_workers import Operation
from progress_workers.transport.carrier import LANE_AWAY_S, CallRejected, delay_s
from progress_workers.transport.over_http.errors import of_one
from progress_workers.transport.over_http.limits import ServerLimits
from progress_workers.transport.over_http.publishes import Publishes
from tests.deploy.proxies import Certificate
from tests.servers import DEADLINE_S, ApiReplica, RealRedis, free_port, wait_until
from tests.workers.forward_proxy import PASSWORD, ForwardProxy
from tests.workers.harness import Broker, assert_whole

KEY = "pbk_of_a_worker"
pytestmark = pytest.mark.one_server


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def settings_of(replica: ApiReplica, **others: Any) -> Settings:
    return Settings(_env_file=None, url=replica.url, **others)


def guarded(redis: RealRedis, folder: Path, **settings: Any) -> ApiReplica:
    """Return a replica for callers with the key, who may create and publish what begins with `mine-`."""
    keys, grant = folder / "keys.toml", '{actions = ["create", "publish"], prefixes = ["mine-"]}'
    keys.write_text(f'[[keys]]\nname = "worker"\nsha256 = "{hash_key(KEY)}"\ngrants = [{grant}]\n')
    return ApiReplica(redis.url, folder / "log", auth="jwt", jwt_key="x" * 32, api_keys=keys, **settings)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_is_killed_or_drains_loses_and_repeats_nothing(
    broker: Broker, redis_server: RealRedis, log: Path, number: signal.Signals
) -> None:
    port, written = free_port(), 0
    replica = ApiReplica(redis_server.url, log, port, drain_s=0.1).start().await_ready()
    with Operation.start("import", id="op", interval_s=0.01, settings=settings_of(replica)) as op:
        for _ in range(3):
            for _ in range(300):
                op.log(f"line {written}")
                written += 1
                if written % 300 == 150:  # in the middle of what is sent
                    replica.stop(number)
            replica = ApiReplica(redis_server.url, log, port, drain_s=0.1).start()
            assert op.flush(timeout=60)
        broker.signal("op", "pause", {"a": 1})
        assert [(one.type, one.data) for one in zip_first(op.signals(timeout=30))] == [("pause", {"a": 1})]
    replica.stop(signal.SIGKILL)
    assert "Traceback" not in log.read_text()
    assert_whole(broker.events("op"))
    assert broker.logged("op") == [f"line {n}" for n in range(written)]


def test_a_redis_that_is_away_behind_the_server_loses_and_repeats_nothing(kept_redis: RealRedis, log: Path) -> None:
    broker = Broker(kept_redis.url)
    with ApiReplica(kept_redis.url, log) as replica:
        settings = settings_of(replica)
        with Operation.start("import", id="op", interval_s=0.01, settings=settings) as op:
            for number in range(100):
                op.log(f"line {number}")
                if number == 50:
                    kept_redis.stop(signal.SIGKILL)
            with pytest.raises(StorageUnavailable):
                Operation.start("import", settings=settings, required=True)
            later = Operation.start("import", id="later", settings=settings)
            kept_redis.start()
            assert op.flush(timeout=60)
            later.succeed()
            assert later.flush(timeout=60)
    assert_whole(broker.events("op"))
    assert broker.logged("op") == [f"line {n}" for n in range(100)]
    assert broker.show("later").status is Status.SUCCEEDED
    broker.redis.close()


def zip_first(signals: Iterator[Any]) -> list[Any]:
    return [next(signals)]


def test_one_operation_that_a_token_does_not_cover_is_given_up_and_no_other(
    redis_url: str, redis_server: RealRedis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded(redis_server, tmp_path) as replica:
        broker, settings = Broker(redis_url), settings_of(replica, token=KEY)
        with pytest.raises(Forbidden, match="do not allow you to create operation other"):
            Operation.start("import", id="other", settings=settings, required=True)
        mine = Operation.start("import", id="mine-1", interval_s=0.01, settings=settings)
        lost = Operation.start("import", id="mine-2", interval_s=0.01, settings=settings)
        caplog.set_level(logging.WARNING, "progress_workers")
        lost._reporter.operation = "other"  # as if its grant had been taken away
        for n in range(5):
            mine.log(f"line {n}")
            lost.log(f"line {n}")
            assert mine.flush(timeout=60)
        wait_until(lambda: lost.cancelled, "it is given up")
        assert any("PROGRESS_TOKEN has no grant to publish to it" in said for said in caplog.messages)
        mine.succeed()
        assert mine.flush(timeout=60)
        assert broker.logged("mine-1") == [f"line {n}" for n in range(5)]
        assert broker.logged("mine-2") == []
        broker.redis.close()


def test_a_wrong_token_is_an_error_at_the_start_that_says_what_to_do(redis_server: RealRedis, tmp_path: Path) -> None:
    said = r"rejected the credentials: set PROGRESS_TOKEN or PROGRESS_TOKEN_FILE"
    with guarded(redis_server, tmp_path) as replica, pytest.raises(SetupError, match=said):
        Operation.start("import", settings=settings_of(replica, token="pbk_wrong"), required=True)


def test_a_worker_behind_an_http_proxy_reports_over_tls(
    broker: Broker,
    redis_server: RealRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A certificate that is not trusted, and a proxy that wants a password, are said once, and the work goes on."""
    caplog.set_level(logging.WARNING, "progress_workers")
    certificate = Certificate(tmp_path / "certificate")
    tls = {"tls_cert": certificate.cert, "tls_key": certificate.key}
    with ApiReplica(redis_server.url, tmp_path / "log", **tls) as replica, ForwardProxy(replica.port) as proxy:
        settings = (settings_of(replica, lease_s=number) for number in range(10, 100))  # each has its connections
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        asks_for_password = f"http://{proxy.address}"

        def goes_on(said: str) -> None:
            caplog.clear()
            op = Operation.start("import", settings=next(settings))
            wait_until(lambda: caplog.messages, "it is told")
            op.log("the work goes on")
            assert not op.flush(timeout=0.1)
            op._reporter.discard(told=False)
            assert len(caplog.messages) == 1
            assert said in caplog.text
            assert "(by the proxy of HTTPS_PROXY" in caplog.text
            assert PASSWORD not in caplog.text

        goes_on("its certificate is not accepted (self-signed certificate): set SSL_CERT_FILE to a file with the")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        goes_on(f"SSL_CERT_FILE names {tmp_path / 'none'}, which is no file")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
        monkeypatch.setenv("https_proxy", asks_for_password)
        goes_on("the proxy answered 407")
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(StorageUnavailable, match="use a name in PROGRESS_URL that the certificate has"):
            Operation.start("import", settings=Settings(_env_file=None, url="https://other.invalid"), required=True)

        with Operation.start("import", id="op", interval_s=0.01, settings=next(settings)) as op:
            signals = op.signals(timeout=60)
            for number in range(3):
                for line in range(100):
                    op.log(f"line {100 * number + line}")
                proxy.cut()
                broker.signal("op", "pause", number)
                assert next(signals).data == number
                assert op.flush(timeout=60)
        assert_whole(broker.events("op"))
        assert broker.logged("op") == [f"line {n}" for n in range(300)]
        assert {f"CONNECT 127.0.0.1:{replica.port}", "CONNECT other.invalid:443"} == set(proxy.asked)

        monkeypatch.setenv("no_proxy", "127.0.0.1")
        proxy.asked.clear()
        with Operation.start("import", id="direct", settings=next(settings)) as op:
            assert op.flush(timeout=60)
        assert proxy.asked == []


def test_an_http_proxy_carries_http_too(broker: Broker, server: ApiReplica, monkeypatch: pytest.MonkeyPatch) -> None:
    with ForwardProxy(server.port) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with Operation.start("import", id="op", settings=Settings(_env_file=None, url="http://localhost")) as op:
            op.log("through it")
            assert op.flush(timeout=60)
        assert broker.logged("op") == ["through it"]
        assert {target.rpartition("/")[0] for target in proxy.asked} == {"POST http://localhost/v1/workers"}


def test_what_is_too_large_for_the_server_is_shortened_or_left_out_and_said_so(
    broker: Broker, redis_server: RealRedis, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the end, without which the operation would stall. What fits is stored, and so is all that follows."""
    caplog.set_level(logging.WARNING, "progress_workers")
    limits = {"max_event_bytes": 1500, "max_progress_bytes": 600, "max_body_bytes": 20_000}
    with ApiReplica(redis_server.url, log, **limits) as replica:
        settings = settings_of(replica, max_event_bytes=100_000, max_progress_bytes=100_000)
        for number in range(2):
            name = f"op-{number}"
            with Operation.start("import", id=name, interval_s=0.001, total=9, settings=settings) as op:
                op.publish("chunk", {"n": 0})
                op.publish("chunk", {"text": "x" * 2000})
                op.publish("chunk", {"text": "x" * 50_000})  # more than a request may have
                op.publish("chunk", {"n": 1})
                op.log("x" * 4000)
                op.update(current=4, metrics={f"metric-{n}": n for n in range(100)})
                assert op.flush(timeout=60)
                op.log("the last line")
                op.succeed({"rows": ["x" * 1000] * 50})
            assert_whole(broker.events(name))
            assert broker.data(name, "chunk") == [{"n": 0}, {"n": 1}]
            lines = broker.logged(name)
            assert sum("an event of type 'chunk' with 2,011 bytes of data was left out" in line for line in lines) == 1
            assert sum("'chunk' with 50,011 bytes" in line for line in lines) == 1
            assert any(line.startswith("xxx") and line.endswith("…") for line in lines)
            assert lines[-1] == "the last line"
            assert {progress["current"] for progress in broker.data(name, "progress")} >= {4}
            shown = broker.show(name)
            assert (shown.status, shown.result) == (Status.SUCCEEDED, None)
    assert len(caplog.messages) == 1
    assert "Set PROGRESS_MAX_EVENT_BYTES and PROGRESS_MAX_PROGRESS_BYTES of this worker" in caplog.text


def test_limits_of_a_server_delay_reports_and_lose_none(broker: Broker, redis_server: RealRedis, log: Path) -> None:
    """Events that do not fit one request are sent in several, and so are those of a caller with too many requests."""
    limits = {"max_body_bytes": 100_000, "requests_per_s": 10}
    with (
        ApiReplica(redis_server.url, log, **limits) as replica,
        Operation.start("import", id="op", interval_s=0.001, settings=settings_of(replica)) as op,
    ):
        for n in range(40):
            op.publish("chunk", {"n": n, "text": "x" * 30_000})
            op.flush(timeout=0.01)
        assert op.flush(timeout=60)
    assert_whole(broker.events("op"))
    assert [data["n"] for data in broker.data("op", "chunk")] == list(range(40))


class Front(ThreadingHTTPServer):
    """A proxy before a server that gives its own answer to publishes, or to all calls, as long as it has one."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.target, self.only, self.given = port, "", 0
        self.answer: tuple[int, bytes] | None = None
        super().__init__(("127.0.0.1", 0), _Answering)
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Answering(BaseHTTPRequestHandler):
    server: Front

    def do_POST(self) -> None:
        body, answer = self.rfile.read(int(self.headers["content-length"])), self.server.answer
        if answer is not None and self.path.endswith(self.server.only):
            self.server.given += 1
            kind = "application/problem+json" if answer[1].startswith(b'{"type"') else "text/html"
            self._send(answer[0], kind, answer[1])
        elif self.path.endswith("/signals"):
            self._send(503, "text/html", b"")
        else:
            with httpx.Client(timeout=DEADLINE_S) as client:
                passed = {name: self.headers[name] for name in ("content-type", "accept") if name in self.headers}
                got = client.post(f"http://127.0.0.1:{self.server.target}{self.path}", content=body, headers=passed)
            self._send(got.status_code, got.headers["content-type"], got.content)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fronted(port: int) -> Iterator[Front]:
    with Front(port) as front:
        thread = Thread(target=front.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield front
        finally:
            front.shutdown()
            thread.join()


PAGES = [(200, b"<html>sign in</html>"), (200, b""), (200, b"[]"), (200, b"{}"), (200, b"[null, null]"), (413, b"")]
PAGES += [(404, b"<html>"), (403, b""), (302, b""), (502, b"<html>")]
"""What a proxy, or a server of another kind, may answer."""


def test_whatever_a_proxy_answers_no_operation_is_given_up(broker: Broker, server: ApiReplica) -> None:
    """A progress server rejects an operation in its answer for this one; any other answer may pass."""
    with fronted(httpx.URL(server.url).port or 0) as front:
        front.only = "/publish"
        settings = Settings(_env_file=None, url=front.url)
        ops = [Operation.start("import", id=name, interval_s=0.01, settings=settings) for name in ("a", "b")]
        for number, page in enumerate(PAGES):
            front.answer = page
            for op in ops:  # a request for one, and then for both
                op.log(f"line {number}")
                before = front.given
                wait_until(lambda before=before: front.given >= before + 2, "it is tried again")  # type: ignore[misc]
            front.answer = None
            for op in ops:
                assert op.flush(timeout=60), page
        for op in ops:
            assert not op.cancelled
            op.succeed()
            assert op.flush(timeout=60)
    for name in ("a", "b"):
        assert_whole(broker.events(name))
        assert broker.logged(name) == [f"line {number}" for number in range(len(PAGES))]
        assert broker.show(name).status == "succeeded"


def test_an_operation_whose_lane_is_away_behind_the_server_delays_no_other(
    broker: Broker, server: ApiReplica, caplog: pytest.LogCaptureFixture
) -> None:
    with fronted(httpx.URL(server.url).port or 0) as front:
        settings = Settings(_env_file=None, url=front.url)
        here = Operation.start("import", id="here", interval_s=0.01, settings=settings)
        front.only, front.answer = "/create", (503, bytes(problem_of(LaneAway("Redis can't be reached")).body))
        there = Operation.start("import", id="there", interval_s=0.01, settings=settings)
        wait_until(lambda: front.given >= 3, "it is tried again")
        here.log("goes on")
        assert here.flush(timeout=60)
        assert "rejected progress of operation there" in caplog.text
        assert "could not be sent" not in caplog.text, "the others are not held back"
        front.answer = None
        for op in (here, there):
            op.succeed()
            assert op.flush(timeout=60)
    assert broker.logged("here") == ["goes on"]
    assert broker.show("there").status == "succeeded"


def test_reports_to_a_lane_that_is_away_are_sent_again_soon() -> None:
    answer = read_answer(write_answer(LaneAway("Redis can't be reached")))
    assert isinstance(answer, LaneAway)
    error, backoff = of_one(answer, "there"), Backoff(chance=lambda: 0.0)
    assert max(delay_s(backoff, error) for _ in range(10)) == LANE_AWAY_S
    assert delay_s(backoff, CallRejected("it may be the server")) > LANE_AWAY_S


def test_a_limit_of_a_proxy_is_learned_and_forgotten() -> None:
    most, sizes = 2_000, []

    def post(body: bytes, number: int) -> list[Published | BrokerError]:
        sizes.append(len(body))
        if len(body) > most:
            raise TooLarge("a proxy answered 413")
        return [Published("1-1", 1)] * number

    line = NewEvent("log", orjson.dumps({"message": "x" * 800}))
    sent = Publishes(post, ServerLimits("a server"))
    one = [Publish(operation="many", entries=[line] * 40)]
    few = [Publish(operation=f"op-{n}", entries=[line]) for n in range(40)]
    for given in (few, one):
        assert [type(answer) for answer in sent.send(given)] == [Published] * len(given)
    with pytest.raises(ServerUnavailable, match="raise the limit"):
        sent.send([Publish(operation="large", entries=[NewEvent("log", orjson.dumps({"message": "x" * 3_000}))])])
    most = 1_000_000
    for _ in range(40):
        sizes.clear()
        sent.send(few)
    assert len(sizes) == 1, "all in one request again"


def test_parts_of_a_publish_that_a_failover_lost_are_sent_again() -> None:
    stored, failing_at = 3, 21

    def post(body: bytes, number: int) -> list[Published | BrokerError]:
        nonlocal stored, failing_at
        if len(body) > 2_000:
            raise TooLarge("a proxy answered 413")
        (publish,) = orjson.loads(body)
        if publish["events"][-1]["seq"] >= failing_at:
            stored, failing_at = 5, 1_000  # it had all before, and now has less
        if stored < publish["after"]:
            gap = Gap("lost")
            gap.last = stored
            return [gap]
        stored = publish["events"][-1]["seq"]
        return [Published("1-1", 1)]

    line = NewEvent("log", orjson.dumps({"message": "x" * 400}))
    entries = [line.numbered("p", seq) for seq in range(4, 44)]
    publish, sent = Publish("many", entries, after=("p", 3)), Publishes(post, ServerLimits("a server"))
    (answer,) = sent.send([publish])
    assert isinstance(answer, Gap)
    assert answer.last == 5
    (answer,) = sent.send([publish])
    assert isinstance(answer, Published)
    assert stored == 43


def test_what_events_follow_is_a_seq_of_their_producer(server: ApiReplica) -> None:
    def publish(operation: str, **fields: Any) -> httpx.Response:
        body = [{"operation": operation, **fields}]
        return httpx.post(f"{server.url}/v1/workers/publish", json=body, timeout=DEADLINE_S)

    [rejected] = publish("follows", after=1).json()
    assert rejected == {"error": "invalid", "detail": "after: needs a producer, whose seq it is"}
    httpx.post(f"{server.url}/v1/operations", json={"id": "follows"}, timeout=DEADLINE_S).raise_for_status()
    [rejected] = publish("follows", producer="p", after=1).json()
    assert (rejected["error"], rejected["last"]) == ("gap", 0)
    event = {"type": "log", "data": {"message": "m"}, "seq": 1}
    assert publish("follows", producer="p", after=0, events=[event]).json()[0]["n"] == 2
    assert publish("follows", producer="p", after=1).json()[0]["n"] == 2


def test_a_page_in_the_place_of_the_server_never_fails_the_work(
    broker: Broker, server: ApiReplica, caplog: pytest.LogCaptureFixture
) -> None:
    ran = []
    with fronted(httpx.URL(server.url).port or 0) as front:
        settings = Settings(_env_file=None, url=front.url)
        for number, page in enumerate(PAGES):
            front.answer = page
            with pytest.raises(BrokerError, match=r"PROGRESS_URL|answered 4[01]3"):
                Operation.start("import", required=True, settings=settings)
            with Operation.start("import", id=f"at-{number}", settings=settings) as op:
                op.log("at work")
                ran.append(page)
        assert ran == PAGES
        assert sum("could not be sent" in said for said in caplog.messages) == 1
        front.answer = None
        for number, (status, _) in enumerate(PAGES):
            if status != 403:  # that is taken for an answer: these may not create it
                wait_until(lambda at=f"at-{number}": broker.data(at, "end"), "it is reported")  # type: ignore[misc]
