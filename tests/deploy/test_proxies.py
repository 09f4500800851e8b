"""The recipes of docs/how-to/proxies.md, as they are written: nothing is held back, lost, or told that must not be."""

import asyncio
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from typing import Self

import httpx
import pytest

from progress_broker.settings import Settings
from progress_workers import Operation
from tests import sse
from tests.deploy.proxies import RECIPES, SILENCE, Certificate, Front, recipe
from tests.deploy.stack import Curl
from tests.deploy.test_rolling import Source
from tests.servers import DEADLINE_S, START_S, ApiReplica, eventually, wait_until
from tests.workers.harness import Broker, assert_whole

EVENTS = {"Accept": "text/event-stream"}  # and nothing else, as an EventSource says


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=RECIPES)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Front]:
    """For tests that leave all of it as it was."""
    with Front(request.param, tmp_path_factory.mktemp(request.param), certificate).running() as running:
        yield running


def curl(front: Front, url: str, *options: str) -> Curl:
    return Curl(front.folder, url, "--cacert", str(front.certificate.cert), "-i", *options)


@pytest.mark.parametrize("version", ["http1.1", "http2"])
def test_events_arrive_at_once(front: Front, version: str) -> None:
    operation = f"import-{version}"
    with curl(front, front.create(operation), f"--{version}") as stream:
        stream.await_text("event: snapshot")
        for n in range(3):
            front.publish(operation, "log", {"message": f"line {n}"})
            stream.await_text(f"line {n}")  # while the stream is open: nothing on its way waits for more
        stream.await_text(": ping")
        front.publish(operation, "end", {"status": "succeeded"})
        assert "event: end" in stream.await_end()
        assert stream.popen is not None
        assert stream.popen.returncode == 0
    assert stream.output().startswith(f"HTTP/{version.removeprefix('http')} 200")


def test_packed_events_arrive_at_once(front: Front) -> None:
    with curl(front, front.create("import-packed"), "--compressed") as stream:
        stream.await_text("event: snapshot")
        assert "content-encoding: gzip" in stream.output().lower()
        for n in range(3):
            front.publish("import-packed", "log", {"message": f"line {n}" + " and so on" * 100 * n})
            stream.await_text(f"line {n}")
        front.publish("import-packed", "end", {"status": "succeeded"})
        stream.await_end()
        assert stream.popen is not None
        assert stream.popen.returncode == 0


def test_a_body_is_passed_on_as_it_comes(front: Front) -> None:
    with curl(front, front.create("import-lines")) as stream:
        stream.await_text("event: snapshot")

        def lines() -> Iterator[bytes]:
            for message in ("one", "two"):
                yield b'{"type": "log", "data": {"message":"%b"}}\n' % message.encode()
                stream.await_text(f'"message":"{message}"')  # though the request has no end yet

        answer = front.client.post(
            "/v1/operations/import-lines/events", content=lines(), headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.json()["accepted"] == 2


def test_a_body_is_as_large_as_the_api_says(front: Front) -> None:
    front.create("import-large")
    event = {"type": "log", "data": {"message": "x" * 60_000}}
    answer = front.client.post("/v1/operations/import-large/events", json=[event] * 50)  # 3 MB
    assert answer.status_code == 200
    answer = front.client.post("/v1/operations/import-large/events", json=[event] * 100)
    assert (answer.status_code, answer.json()["type"]) == (413, "too-large")


def test_a_url_may_name_many_operations(front: Front) -> None:
    front.create("import-long")
    query = "&".join(f"operation={id}" for id in ("import-long", *(f"import-{n:04}" for n in range(999))))  # 23 KB
    assert len(query) > 20_000
    assert front.client.head(f"/v1/stream?{query}").status_code == 200


def test_an_address_is_the_proxy_s_word_and_not_the_client_s(front: Front) -> None:
    front.create("import-whose")
    url = f"{front.proxy.url}/v1/operations/import-whose"
    liar = ["-H", "X-Forwarded-For: 192.0.2.6", "-H", "Forwarded: for=192.0.2.6", "-H", "X-Real-IP: 192.0.2.6"]
    with curl(front, url, "--interface", "127.0.0.9", *liar) as asked:
        assert " 200" in asked.await_end()
    told = "".join(replica.output() for replica in front.replicas)
    [line] = [line for line in told.splitlines() if "GET /v1/operations/import-whose " in line]
    assert "127.0.0.9" in line
    assert "192.0.2.6" not in told


def test_metrics_are_not_told_to_strangers(front: Front) -> None:
    assert front.client.get("/metrics").status_code == 404
    assert all(httpx.get(f"{replica.url}/metrics", timeout=DEADLINE_S).status_code == 200 for replica in front.replicas)


def test_browsers_are_told_to_stay_with_tls(front: Front) -> None:
    assert "max-age=" in front.client.get("/livez").headers["strict-transport-security"]


def test_idle_limits_are_above_what_streams_and_long_polls_need() -> None:
    fields = Settings.model_fields
    needed_s = max(2 * fields["ping_s"].default, fields["max_long_poll_s"].default)
    assert SILENCE == "5m"
    assert needed_s < 300
    for name in RECIPES:
        assert f" {SILENCE}" in recipe(name)


@pytest.mark.parametrize("name", RECIPES)
def test_pings_outlast_the_idle_limit(name: str, folder: Path, certificate: Certificate) -> None:
    """With a limit of a second: a stream that pings lives on; one that does not is cut, as the limit is in force.

    On a busy machine pings may come late, too, so any of the streams may be cut: others follow, until both are seen.
    """
    front = Front(name, folder, certificate, silence="1s")
    front.replicas[1] = quiet = ApiReplica(front.redis.url, folder / "quiet.log", front.replicas[1].port, ping_s=60)
    with front.running(), ExitStack() as stack:
        # Not through the proxy: there an answer may take longer than its limit.
        httpx.post(
            f"{front.replicas[0].url}/v1/operations", json={"id": "import-1"}, timeout=DEADLINE_S
        ).raise_for_status()
        url = f"{front.proxy.url}/v1/operations/import-1/stream"
        streams: list[Curl] = []

        def outlasted(stream: Curl) -> bool:
            return stream.output().count(": ping") > 5

        def both_seen() -> bool:
            undecided = [stream for stream in streams if not ended(stream) and not outlasted(stream)]
            if len(undecided) < 4:
                streams.append(stack.enter_context(curl(front, url)))
                time.sleep(0.2)  # each takes a while to start: more of them at once would only be in each other's way
            silent = [stream.output() for stream in streams if ended(stream) and ": ping" not in stream.output()]
            return any("event: snapshot" in shown for shown in silent) and any(map(outlasted, streams))

        wait_until(both_seen, "one without pings is cut, and one with pings is not", START_S)
        assert "Traceback" not in quiet.output()


def ended(stream: Curl) -> bool:
    assert stream.popen is not None
    return stream.popen.poll() is not None


@pytest.mark.parametrize("name", RECIPES)
async def test_restarts_and_kills_lose_nothing(
    name: str, folder: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas are stopped one after the other, politely and then not, while clients watch and others call and work."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    front = Front(name, folder, certificate)
    with front.running(), Working(front) as working:
        await asyncio.to_thread(front.create, "import-1")
        sources = [Source("import-1", front.proxy.port, certificate.context()) for _ in range(6)]
        statuses: list[int] = []
        seqs = count(1)
        enough = threading.Event()

        def call() -> None:
            with httpx.Client(base_url=front.proxy.url, verify=certificate.context(), timeout=60) as client:
                while not enough.wait(0.02):
                    with suppress(httpx.RemoteProtocolError):  # cut with its replica: clients ask again, as browsers do
                        statuses.append(client.get("/v1/operations/import-1").status_code)

        def restart_each(how: int) -> None:
            for replica in front.replicas:
                assert replica.stop(how) == (0 if how == signal.SIGTERM else -how)
                before = len(replica.output())
                replica.start().await_ready()
                await_calls(replica, before)
                publish(front, next(seqs))
                working.hears_of_a_signal()

        try:
            async with asyncio.timeout(400), asyncio.TaskGroup() as group:
                for source in sources:
                    group.create_task(source.run())
                caller = group.create_task(asyncio.to_thread(call))
                await eventually(lambda: all(source.numbers for source in sources), "all are served")
                await asyncio.to_thread(restart_each, signal.SIGTERM)
                assert {reason for source in sources for reason in source.reasons} == {"draining"}  # none was torn
                await asyncio.to_thread(restart_each, signal.SIGKILL)
                enough.set()
                await caller
                await asyncio.to_thread(working.succeed)
                await asyncio.to_thread(publish, front, next(seqs))
                await asyncio.to_thread(front.publish, "import-1", "end", {"status": "succeeded"})
        finally:
            enough.set()
        shown = front.client.get("/v1/operations/import-1").json()
        for source in sources:
            assert source.faults == []
            assert source.numbers == list(range(1, shown["events"] + 1))
        assert shown["events"] == 1 + next(seqs)  # with the beginning and the end
        assert set(statuses) == {200}
        working.check()
        assert all("Traceback" not in replica.output() for replica in front.replicas)


def await_calls(replica: ApiReplica, before: int) -> None:
    """Wait until the proxy sends requests to a replica again; before that, there must not be one less."""
    called = "GET /v1/operations/import-1 200"
    wait_until(lambda: called in replica.output()[before:], "the proxy knows that it is back")


class Working:
    """A worker that reports through the proxy all the time. What it reports is stored once, and so are its signals."""

    def __init__(self, front: Front) -> None:
        self._front = front
        settings = Settings(_env_file=None, url=front.proxy.url)
        self._op = Operation.start("import", id="work", interval_s=0.01, history_length=100_000, settings=settings)
        self._signals = self._op.signals(timeout=60)
        self._lines = self._sent = 0
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._enough.wait(0.02):
            self._op.log(f"line {self._lines}")
            self._lines += 1

    def hears_of_a_signal(self) -> None:
        signal = {"type": "pause", "data": self._sent}
        wait_until(
            lambda: self._front.client.post("/v1/operations/work/signals", json=signal).status_code == 202, "it is sent"
        )
        assert next(self._signals).data == self._sent
        self._sent += 1

    def succeed(self) -> None:
        self.__exit__()
        self._op.succeed()
        assert self._op.flush(timeout=60)

    def check(self) -> None:
        broker = Broker(self._front.redis.url)
        assert_whole(broker.events("work"))
        assert broker.logged("work") == [f"line {n}" for n in range(self._lines)]
        broker.redis.close()
        for path in ("publish", "signals"):
            assert all(f"POST /v1/workers/{path} 200" in replica.output() for replica in self._front.replicas)


def publish(front: Front, seq: int) -> None:
    """Publish an event. A proxy must not repeat a POST; who numbers its events may, and each is stored once."""
    event = {"type": "log", "data": {"message": f"line {seq}"}, "producer": "p1", "seq": seq}

    def published() -> bool:
        answer = front.client.post("/v1/operations/import-1/events", json=event)
        assert answer.status_code == 200 or int(answer.headers["retry-after"]) > 0, answer.text
        return answer.status_code == 200

    wait_until(published, "it is published")


@pytest.mark.parametrize("name", RECIPES)
def test_an_event_source_survives_that_there_is_no_replica(name: str, folder: Path, certificate: Certificate) -> None:
    """It gives up for good on anything but a 200. Others are told by a problem; no log tells their tickets."""
    front = Front(name, folder, certificate)
    with front.running():
        front.create("import-1")
        path = "/v1/operations/import-1"

        def sent_away(asked: str) -> bool:
            answer = front.client.get(f"{path}/stream", headers=EVENTS, params={"ticket": "t1cket"})
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            [message] = sse.read(answer.content)
            assert message.type == "reconnect"
            assert re.match(r"retry: \d+\n", answer.text)
            return bool(message.json["reason"] == asked)

        front.redis.stop()  # so that none is ready, and all still answer
        with httpx.Client(timeout=DEADLINE_S) as direct:
            for replica in front.replicas:
                wait_until(lambda r=replica: direct.get(f"{r.url}/readyz").status_code == 503, "it is not ready")  # type: ignore[misc]
        for _ in range(5):
            assert sent_away("storage-unavailable") or sent_away("at-capacity")
        for replica in front.replicas:
            replica.stop(signal.SIGKILL)
        wait_until(lambda: sent_away("at-capacity"), "none is there")
        answer = front.client.get(path, params={"ticket": "t1cket"}, headers={"Referer": "https://x/?ticket=t1cket"})
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0
        assert (answer.json()["type"], answer.json()["status"]) == ("at-capacity", 503)

        front.redis.start()
        for replica in front.replicas:
            replica.start().await_ready()
        wait_until(lambda: front.client.get("/livez").status_code == 200, "all are back")
        assert path in front.proxy.logged()
        for log in (front.proxy.logged(), *(replica.output() for replica in front.replicas)):
            assert "t1cket" not in log
