"""What a back end is told, what it may say, and how its word is taken."""

import json
import time
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import HTTPConnection

from progress_broker.errors import SetupError
from progress_broker.model.grants import Action, ResourceAttributes
from progress_broker.settings import Settings, load_settings
from progress_server.callback.decision import MAX_EVENTS, read_decision
from progress_server.callback.payloads import Caller, caller_in, connect_request_in, new_connection
from progress_server.callback.signature import Signer, new_message_id
from tests.callback.backend import SECRET


def scope(path: str, query: bytes = b"", method: str = "GET", **headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": raw,
        "client": ("203.0.113.9", 5),
    }


class TestAConnectRequest:
    @pytest.mark.parametrize(
        ("path", "operation"),
        [
            ("/v1/operations/a/stream", "a"),
            ("/v1/operations/stream/stream", "stream"),
            ("/v1/operations/a/ws", "a"),
            ("/v1/stream", None),
            ("/v1/ws", None),
        ],
    )
    def test_is_a_stream_or_a_websocket(self, path: str, operation: str | None) -> None:
        connect_request = connect_request_in(scope(path))
        assert connect_request is not None
        assert (connect_request.operation, connect_request.url) == (operation, path)

    @pytest.mark.parametrize(
        ("path", "method"),
        [
            ("/v1/operations", "GET"),
            ("/v1/operations/stream", "GET"),
            ("/v1/operations/ws", "GET"),
            ("/v1/operations/a/events", "GET"),
            ("/v1/operations/a/stream", "POST"),
        ],
    )
    def test_is_nothing_else(self, path: str, method: str) -> None:
        assert connect_request_in(scope(path, method=method)) is None

    def test_tells_the_query_without_a_ticket(self) -> None:
        connect_request = connect_request_in(scope("/v1/stream", b"tag=a%26b&ticket=secret&owner="))
        assert connect_request is not None
        assert connect_request.url == "/v1/stream?tag=a%26b&owner="
        assert connect_request_in(scope("/v1/stream", b"%74icket=secret")).url == "/v1/stream"  # type: ignore[union-attr]
        assert connect_request_in(scope("/v1/stream", b"tag=x%2fy")).url == "/v1/stream?tag=x%2fy"  # type: ignore[union-attr]

    def test_has_an_id_that_sorts_by_time(self) -> None:
        first = new_connection()
        time.sleep(0.002)
        assert first < new_connection()


class TestWho:
    def test_is_told_by_four_headers_as_they_were_sent(self) -> None:
        request = scope("/", authorization="Bearer x", cookie="a=1", user_agent="u", origin="https://o", accept="*/*")
        who = caller_in(HTTPConnection(request))
        assert who.headers == {"authorization": "Bearer x", "cookie": "a=1", "user-agent": "u", "origin": "https://o"}
        assert "Bearer" not in repr(who)

    def test_has_a_key_of_all_that_is_told(self) -> None:
        keys = [
            Caller(client, headers, principal).key()
            for client in ("1", "2")
            for headers in ({}, {"cookie": "a"}, {"cookie": "b"}, {"authorization": "a"})
            for principal in (None, "p")
        ]
        assert len(set(keys)) == len(keys) == 16
        assert Caller("1", {"cookie": "a", "origin": "o"}).key() == Caller("1", {"origin": "o", "cookie": "a"}).key()

    def test_a_call_does_not_tell_which(self) -> None:
        assert set(json.loads(Caller("1", {}).calls())) == {"action", "principal", "client", "headers"}


class TestASignature:
    BODY = '{"action":"call","client":"é"}'.encode()

    def test_is_what_the_library_makes(self) -> None:
        """Of the secret, id, time and body that the specification's libraries are tested with, too."""
        for secret, id, body in (
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'),
            (SECRET, new_message_id(), self.BODY),
        ):
            expected = Webhook(secret).sign(id, datetime.fromtimestamp(1_614_265_330, UTC), body.decode())
            assert Signer(secret).headers(id, body, 1_614_265_330.9) == {
                "webhook-id": id,
                "webhook-timestamp": "1614265330",
                "webhook-signature": expected,
            }

    def test_is_verified_by_the_library(self) -> None:
        headers = Signer(SECRET).headers("msg_1", self.BODY)
        assert Webhook(SECRET).verify(self.BODY, headers) == {"action": "call", "client": "é"}

    @pytest.mark.parametrize("age_s", [-400, 400])
    def test_is_good_for_some_minutes(self, age_s: float) -> None:
        with pytest.raises(WebhookVerificationError, match=r"too (old|new)"):
            Webhook(SECRET).verify(self.BODY, Signer(SECRET).headers("msg_1", self.BODY, time.time() + age_s))

    def test_is_of_one_message_one_time_one_body_and_one_secret(self) -> None:
        headers = Signer(SECRET).headers("msg_1", self.BODY)
        later = {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
        other = Webhook(f"whsec_{b64encode(bytes(32)).decode()}")
        for verifier, changed, body in (
            (other, headers, self.BODY),
            (Webhook(SECRET), headers, self.BODY + b" "),
            (Webhook(SECRET), headers | later, self.BODY),
            (Webhook(SECRET), headers | {"webhook-id": "msg_2"}, self.BODY),
        ):
            with pytest.raises(WebhookVerificationError, match="No matching signature"):
                verifier.verify(body, changed)


class TestAnAnswer:
    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            (b"", "not JSON"),
            (b"true", "dictionary"),
            (b"{}", "allow"),
            (b'{"allow": "true", "principal": "a"}', "allow"),
            (b'{"allow": 1, "principal": "a"}', "allow"),
            (b'{"allow": true}', "name"),
            (b'{"allow": true, "principal": ""}', "principal"),
            (b'{"allow": true, "principal": 7}', "principal"),
            (b'{"allow": true, "principal": "a", "expires_in_s": 0}', "expires_in_s"),
            (b'{"allow": true, "principal": "a", "expires_in_s": "9"}', "expires_in_s"),
            (b'{"allow": true, "principal": "a", "grants": [{"actions": ["fly"]}]}', "grants.0.actions.0"),
            (b'{"allow": true, "principal": "a", "grants": [{"actions": ["read"], "idz": ["x"]}]}', "idz"),
            (b'{"allow": true, "principal": "a", "grants": [{"ids": ["x"]}]}', "actions"),
            (b'{"allow": true, "principal": "a", "grants": [{"actions": ["read"], "ids": "xyz"}]}', "ids"),
            (b'{"allow": true, "principal": "a", "grants": "all"}', "grants"),
            (b'{"allow": true, "principal": "a", "scope": ["read"]}', "scope"),
            (b'{"allow": true, "principal": "a", "events": [{"type": "end"}]}', "events.0.type"),
            (b'{"allow": true, "principal": "a", "events": [{"type": "replaced"}]}', "events.0.type"),
            (b'{"allow": true, "principal": "a", "events": [{"type": "a\\nid: 9"}]}', "events.0.type"),
        ],
    )
    def test_that_can_not_be_read_allows_nothing(self, body: bytes, fault: str) -> None:
        with pytest.raises(ValueError, match=fault):
            read_decision(body)

    def test_holds_so_many_events(self) -> None:
        events = [{"type": "a"}] * (MAX_EVENTS + 1)
        with pytest.raises(ValueError, match="events"):
            read_decision(json.dumps({"allow": True, "principal": "a", "events": events}).encode())

    def test_may_say_more_than_is_known(self) -> None:
        assert read_decision(b'{"allow": false, "why": "later versions may tell"}').allow is False

    def test_grants_what_it_says(self) -> None:
        answer = read_decision(
            b'{"allow": true, "principal": "a", "scope": "read", "grants": [{"actions": ["cancel"], "ids": ["x"]}]}'
        )
        grants = answer.principal_of().grants
        assert grants.allows(Action.READ, ResourceAttributes("y", owner="a"))
        assert not grants.allows(Action.READ, ResourceAttributes("y", owner="b"))
        assert grants.allows(Action.CANCEL, ResourceAttributes("x", owner="b"))
        assert not grants.allows(Action.CANCEL, ResourceAttributes("y", owner="a"))

    def test_grants_nothing_unless_it_says_so(self) -> None:
        grants = read_decision(b'{"allow": true, "principal": "a"}').principal_of().grants
        assert not any(grants.allows(action, ResourceAttributes("y", owner="a")) for action in Action)

    def test_first_events_can_not_break_the_framing_and_have_no_id(self) -> None:
        [event] = read_decision(
            json.dumps({"allow": True, "principal": "a", "events": [{"type": "hi", "data": "a\n\nid: 9"}]}).encode()
        ).events
        frame = event.frame()
        head, data, *rest = frame.wire.split(b"\n")
        assert (head, rest) == (b"event: hi", [b"", b""])
        assert json.loads(data.removeprefix(b"data: "))["data"] == "a\n\nid: 9"
        assert frame.envelope == data.removeprefix(b"data: ")


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("callback_secret", "whsec_c2hvcnQ="),
            ("callback_secret", "whsec_" + b64encode(bytes(23)).decode()),
            ("callback_secret", "whsec_" + b64encode(bytes(65)).decode()),
            ("callback_secret", "whsec_ no base64 of so many bytes is this, is it?"),
            ("callback_secret", b64encode(bytes(32)).decode()),
            ("callback_url", "ftp://x"),
            ("callback_url", "https:///hook"),
            ("callback_url", "https://user:password@x/hook"),
            ("sign_in_url", "javascript:alert(1)"),
            ("sign_in_url", "//elsewhere.example/login"),
            ("sign_in_url", "/\\elsewhere.example/login"),
            ("sign_in_url", "login"),
        ],
    )
    def test_a_bad_one_is_told_and_not_shown(self, name: str, value: str) -> None:
        with pytest.raises(SetupError, match=f"PROGRESS_{name.upper()}") as error:
            load_settings(**{name: value})
        assert "password@" not in error.value.detail
        assert name != "callback_secret" or value not in error.value.detail

    @pytest.mark.parametrize("size", [24, 32, 64])
    def test_a_secret_is_what_standard_webhooks_says(self, size: int) -> None:
        secret = f"whsec_{b64encode(bytes(size)).decode()}"
        assert load_settings(callback_secret=secret).callback_secret is not None

    def test_both_are_needed(self) -> None:
        from progress_broker.runtime.tally import Tally
        from progress_server.callback.client import AuthorizerClient

        with pytest.raises(SetupError, match="PROGRESS_CALLBACK_SECRET"):
            AuthorizerClient(Settings(_env_file=None, callback_url="http://x"), Tally())
