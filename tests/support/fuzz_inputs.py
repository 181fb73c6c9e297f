"""Inputs for fuzzing an HTTP server: valid requests and known attacks, concatenated, mutated and split at random.

A case is the data of one connection, in the segments in which it arrives. It is determined by seed and number.
"""

from __future__ import annotations

import random

BODY = b'{"model":"tiny","messages":[{"role":"user","content":"hi"}]}'
STREAM = b'{"model":"tiny","prompt":"x","stream":true}'


def _post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: localhost", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _chunked(path: bytes, *chunks: bytes, trailer: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"POST " + path + b" HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + body + b"0\r\n" + trailer + b"\r\n"


def _get(path: bytes, *headers: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/" + version, b"host: localhost", *headers, b"", b""])


SMUGGLED = _get(b"/api/version")
CORPUS = (
    _post(b"/api/chat", BODY),
    _post(b"/api/generate?x=1&y=%20", STREAM),
    _post(b"/v1/chat/completions", BODY, b"authorization: Bearer x", b"connection: close"),
    _post(b"/v1/messages", BODY, b"x-api-key: y", b"connection: keep-alive, x-api-key"),
    _post(b"/v1/completions", STREAM, b"expect: 100-continue"),
    _post(b"/api/embed", b'{"model":"tiny","input":"x"}', b"connection: upgrade", b"upgrade: h2c"),
    _post(b"/v1/embeddings", b'{"model":"absent","input":"x"}'),
    _post(b"/v1/responses", b'{"model":"tiny","input":"x"}', b"te: trailers", b"keep-alive: 5"),
    _post(b"/api/generate", b'{"model":"tiny","keep_alive":0}'),
    _post(b"/api/show", b'{"model":"tiny"}'),
    _post(b"/api/chat", b"[" * 600 + b"]" * 600),
    _post(b"/api/chat", b'{"model":"tiny","a":"\xff\xfe\\ud800"}'),
    _post(b"/api/chat", b"\x28\xb5\x2f\xfd\x04\x00\x01", b"content-encoding: zstd"),
    _post(b"/api/pull", b'{"model":"tiny"}'),
    _chunked(b"/api/chat", BODY[:10], BODY[10:]),
    _chunked(b"/v1/chat/completions", BODY, trailer=b"x-late: y\r\n"),
    _chunked(b"/api/chat", BODY).replace(b"chunked", b"chunked, identity"),
    _chunked(b"/api/chat", BODY).replace(b"chunked", b"gzip, chunked"),
    _chunked(b"/api/chat", BODY).replace(b"HTTP/1.1", b"HTTP/1.0"),
    _chunked(b"/api/chat", BODY).replace(b"host", b"content-length: 4\r\nhost"),
    _chunked(b"/api/chat", BODY).replace(b"transfer-encoding:", b"transfer-encoding :"),
    _chunked(b"/api/chat", BODY).replace(b"\r\n\r\n", b"\r\n\r\n0\r\n\r\n" + SMUGGLED, 1),
    _post(b"/api/chat", BODY, b"content-length: 3"),
    _post(b"/api/chat", BODY + SMUGGLED),
    _post(b"/api/chat", BODY).replace(b"\r\n", b"\n"),
    _get(b"/"),
    _get(b"/api/version", b"connection: close"),
    _get(b"/api/tags", method=b"HEAD"),
    _get(b"/api/ps"),
    _get(b"/v1/models/tiny", version=b"1.0"),
    _get(b"/v1/models", b"origin: http://evil.example"),
    _get(b"/readyz", version=b"0.9"),
    _get(b"http://other:80/api/version"),
    _get(b"other:443", method=b"CONNECT"),
    _get(b"*", method=b"OPTIONS"),
    _get(b"/api/version", method=b"TRACE"),
    _get(b"/api/version", b"a: b", b" folded: c"),
    _get(b"/%2e%2e/%00/api/chat/"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b",", b"\x0b", b"0\r\n\r\n", b"ffffffffffffffff",
    b"-1", b"+5", b"0x5", b"5;a=b", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding:\tchunked\r\n",
    b"connection: close\r\n", b"connection: content-length, host, transfer-encoding\r\n", b"expect: 100-continue\r\n",
    b"corral-gateway: me\r\n", b"corral-queued-ns: 9\r\n", b"host: other\r\n", b"upgrade: websocket\r\n",
    b"HTTP/1.0", b"HTTP/2.0",
    b"GET ", b"HEAD ", b"\xff", b"\xc3\xa9", b"/api/chat", b"/v1/messages", b'"', b"{", b"]", b"\\u0000",
    b"1e999", b"x" * 70_000,
)  # fmt: skip


def fuzz_case(seed: int, number: int) -> list[bytes]:
    """Return the segments that one client sends."""
    rng = random.Random(f"{seed}:{number}")
    data = b"".join(rng.choice(CORPUS) for _ in range(rng.choice((1, 1, 1, 2, 3))))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3, 6))):
        data = _mutate(data, rng)
    return _split(data, rng)


def _mutate(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    to = min(len(data), at + rng.choice((1, 1, 2, 8, 40)))
    kind = rng.randrange(6)
    if kind == 0:
        return data[:at] + rng.choice(TOKENS) + data[at:]
    if kind == 1:
        return data[:at] + data[to:]
    if kind == 2:
        return data[:to] + data[at:]
    if kind == 3:
        return data[:at] + bytes(rng.randrange(256) for _ in range(to - at)) + data[to:]
    if kind == 4:
        other = rng.choice(CORPUS)
        return data[:at] + other[rng.randrange(len(other)) :]
    return data[:at] + rng.choice(TOKENS) + data[to:]


def _split(data: bytes, rng: random.Random) -> list[bytes]:
    kind = rng.randrange(4)
    if kind < 2 or len(data) > 10_000:
        return [data]
    if kind == 2:
        size = rng.choice((1, 2, 7, 31))
        data = data[: size * 200]
        return [data[start : start + size] for start in range(0, len(data), size)]
    marks = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return [data[start:end] for start, end in zip([0, *marks], [*marks, len(data)], strict=True) if start < end]
