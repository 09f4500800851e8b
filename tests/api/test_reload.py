"""Settings that a server reads again, and a drain that an operator asks for."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.errors import SetupError
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.api.test_operations import OPS
from tests.servers import eventually


async def test_a_reload_changes_rates_and_leaves_out_what_takes_a_restart(
    http: httpx.AsyncClient, app: Any, store: Store
) -> None:
    reloader = app.state.reloader
    assert "ratelimit" not in (await http.get(f"{OPS}/a")).headers
    changes = {"requests_per_s": 50.0, "handshakes_per_s": 7, "access_log": True, "drain_s": 1.5}
    reloader.reread = lambda: store.settings.model_copy(update=changes)
    report = reloader.reload()
    assert set(report.changed) == {"requests_per_s", "handshakes_per_s", "access_log"}
    assert report.restart == ["drain_s"]
    answer = await http.get(f"{OPS}/a")
    assert answer.headers["ratelimit-policy"] == '"requests";q=100;w=2'
    assert app.state.live.access_log
    changes["requests_per_s"] = 10.0
    reloader.reload()
    assert (await http.get(f"{OPS}/a")).headers["ratelimit-policy"] == '"requests";q=20;w=2'
    changes["requests_per_s"] = None
    reloader.reload()
    assert "ratelimit" not in (await http.get(f"{OPS}/a")).headers
    changes |= {"requests_per_s": 5.0, "tls_cert": Path("cert.pem")}
    with pytest.raises(SetupError, match="TLS can't be turned on"):
        reloader.reload()
    assert "ratelimit" not in (await http.get(f"{OPS}/a")).headers


async def test_all_replicas_are_asked_to_reload_and_one_to_drain(http: httpx.AsyncClient, app: Any) -> None:
    replica = app.state.context.hub.streams.replica

    async def present() -> bool:
        return bool((await http.get("/v1/admin/replicas")).json()["replicas"])

    await eventually(present, "the replica is present")
    assert (await http.post("/v1/admin/reload")).json() == {
        "replicas": [{"replica": replica, "error": None, "changed": [], "restart": []}],
        "silent": [],
    }

    def fails() -> Settings:
        raise SetupError("a fault")

    app.state.reloader.reread = fails
    [told] = (await http.post("/v1/admin/reload")).json()["replicas"]
    assert told["error"] == "a fault"
    answer = await http.post("/v1/admin/drain", params={"replica": replica})
    assert (answer.status_code, answer.json()["type"]) == (409, "conflict")
    assert (await http.post("/v1/admin/drain", params={"replica": "nobody"})).status_code == 404
    answer = await http.post("/v1/admin/drain", params={"replica": replica, "force": True})
    assert answer.json() == {"replica": replica, "streams": 0}
    assert (await http.get("/readyz")).json()["type"] == "draining"
