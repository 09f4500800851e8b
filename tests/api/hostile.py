"""Hostile requests. Each is a list of pieces that are sent one after another over one connection."""

import random
import struct

from tests.api.raw import STREAM, request

OPS = "/v1/operations"
EVENTS = f"{OPS}/a/events"
WEBSOCKET = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(193))
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
BODY = b'{"type":"log","data":{"message":"m"}}'


def post(*lines: str, body: bytes = b"", path: str = EVENTS) -> bytes:
    return request(path, "Content-Type: application/json", *lines, method="POST") + body


def _one(text: bytes) -> list[bytes]:
    return [text]


def _bytewise(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


KINDS: dict[str, list[bytes]] = {
    "nothing": [],
    "half a request line": _one(b"GET /v1/oper"),
    "half a head": _one(request()[:-4]),
    "a head of single bytes": _bytewise(request("/livez")),
    "a stream asked for in single bytes": _bytewise(request()),
    "half a body": _one(post("Content-Length: 1000", body=BODY)),
    "a body of single bytes": [post(f"Content-Length: {len(BODY)}"), *_bytewise(BODY)],
    "a body shorter than told, then another request": _one(post("Content-Length: 60", body=BODY) + request("/livez")),
    "a body longer than told": _one(post("Content-Length: 5", body=BODY)),
    "two lengths": _one(post("Content-Length: 5", f"Content-Length: {len(BODY)}", body=BODY)),
    "a length and chunks": _one(
        post("Content-Length: 5", "Transfer-Encoding: chunked", body=b"5\r\n12345\r\n0\r\n\r\n")
    ),
    "no number for a length": _one(post("Content-Length: many", body=BODY)),
    "a length below zero": _one(post("Content-Length: -1", body=BODY)),
    "a length beyond all numbers": _one(post(f"Content-Length: {'9' * 40}", body=BODY)),
    "a length of a terabyte": _one(post(f"Content-Length: {1 << 40}", body=BODY)),
    "chunks of no size": _one(post("Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n")),
    "a chunk below zero": _one(post("Transfer-Encoding: chunked", body=b"-5\r\n{}\r\n0\r\n\r\n")),
    "a chunk beyond all sizes": _one(post("Transfer-Encoding: chunked", body=b"ffffffffffffffffff\r\n{}")),
    "a chunk without its end": _one(post("Transfer-Encoding: chunked", body=b"5\r\n12345678")),
    "chunks with no last one": _one(post("Transfer-Encoding: chunked", body=b"2\r\n{}\r\n")),
    "a chunk extension without an end": _one(post("Transfer-Encoding: chunked", body=b"2;" + b"x" * 100_000)),
    "lines of NDJSON broken off": _one(
        request(EVENTS, "Content-Type: application/x-ndjson", "Content-Length: 9999", method="POST") + BODY + b"\n{"
    ),
    "a header of a megabyte": [request("/livez", "X-A: ")[:-4], *[b"x" * 65_536] * 16],
    "headers without an end": [request("/livez")[:-2], *[b"X-A: b\r\n" * 1_000] * 8],
    "a path of a megabyte": [b"GET /", *[b"x" * 65_536] * 16],
    "a query of 100 kilobytes": _one(request(f"{STREAM}?types={'a,' * 50_000}a")),
    "NULs": _one(bytes(4_096)),
    "NULs in a head": _one(request("/livez", "X-A: a\0b")),
    "a NUL in the path": _one(request("/livez\0")),
    "a NUL escaped": _one(request(f"{OPS}/%00/stream")),
    "bytes above ASCII": _one(request("/\xff\xfe", "X-\xe4: \xff")),
    "a header folded": _one(request("/livez", "X-A: b", " c")),
    "a header without a colon": _one(request("/livez", "nothing")),
    "a space before the colon": _one(request("/livez", "Content-Length : 5")),
    "bare line feeds": _one(request("/livez").replace(b"\r\n", b"\n")),
    "bare carriage returns": _one(request("/livez").replace(b"\r\n", b"\r")),
    "TLS": _one(TLS_HELLO),
    "HTTP/2": _one(HTTP2),
    "HTTP/0.9": _one(b"GET /livez\r\n"),
    "HTTP/9.9": _one(request("/livez", version="9.9")),
    "no host": _one(b"GET /livez HTTP/1.1\r\n\r\n"),
    "an absolute target": _one(request("http://localhost/livez")),
    "a stranger's absolute target": _one(request("http://evil.example/livez")),
    "an authority": _one(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "an asterisk": _one(request("*", method="OPTIONS")),
    "a method of its own": _one(request("/livez", method="FETCH")),
    "dots in the path": _one(request("/web/client/../../../etc/passwd") + request("/web/client/..%2f..%2fsetup.py")),
    "a thousand requests at once": _one(request("/livez") * 1_000),
    "a stream, and a hundred requests behind it": _one(request() + request("/livez") * 100),
    "a stream, and junk behind it": [request(), b"\r\n\0junk" * 10_000],
    "a request, and junk behind it": _one(request("/livez") + b"\0\xff" * 1_000),
    "an expectation": _one(post("Expect: 100-continue", "Content-Length: 5")),
    "an upgrade to what is not there": _one(request("/livez", "Upgrade: h2c", "Connection: Upgrade")),
    "a websocket where there is none": _one(request("/v1/nothing", *WEBSOCKET)),
    "a websocket broken off": _one(request(f"{OPS}/a/ws", *WEBSOCKET)),
    "half a websocket's head": _one(request("/v1/ws", *WEBSOCKET)[:-2]),
    "a websocket, and junk": [request("/v1/ws", *WEBSOCKET), b"\xff\xff" + bytes(200)],
    "a websocket, and half a frame": [request("/v1/ws", *WEBSOCKET), b"\x81" + struct.pack("!BQ", 0xFF, 1 << 62)],
    "a websocket of no version": _one(request("/v1/ws", *WEBSOCKET).replace(b": 13", b": 99")),
    "a websocket without a key": _one(request("/v1/ws", *WEBSOCKET[:3])),
}


def mutated(chance: random.Random) -> list[bytes]:
    """Return a hostile request with bytes changed, lost and duplicated, cut into random pieces."""
    text = bytearray(b"".join(chance.choice(list(KINDS.values())))[:20_000])
    for _ in range(chance.randint(1, 8) if text else 0):
        at = chance.randrange(len(text))
        match chance.randrange(4):
            case 0:
                text[at] = chance.randrange(256)
            case 1:
                del text[at : at + chance.randint(1, 20)]
            case 2:
                text[at:at] = text[at : at + chance.randint(1, 200)]
            case 3:
                text[at:at] = chance.randbytes(chance.randint(1, 20))
        if not text:
            break
    pieces = []
    while text:
        size = chance.choice((1, 7, 100, 20_000))
        pieces.append(bytes(text[:size]))
        del text[:size]
    return pieces[:200]
