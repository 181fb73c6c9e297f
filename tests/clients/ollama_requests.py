"""Requests whose answers of the real Ollama are recorded, for comparison with those of Corral.

None of them changes a model, and none needs generated text. ``tiny`` is a model for chats without thinking, tools and
insertion; no other name is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

KNOWN, UNKNOWN = "tiny", "nope"
DIGEST = "sha256:" + "0" * 64
"""The digest of no blob."""

_LONG = "x" * 81
BAD_NAMES = ("../x", "a b", _LONG, "a:b:c", "/x", "x:", ":x", "http://reg/x", "n/o/p/e/s", "")
UNKNOWN_NAMES = (UNKNOWN, "NOPE", "nope:1b", "u/nope", "hf.co/a/b:Q", "nope:local")
CLOUD_NAMES = ("nope:cloud", "nope:1b-cloud", "nope-cloud", "nope:local:cloud")

PULL, PUSH, CREATE, COPY = "/api/pull", "/api/push", "/api/create", "/api/copy"
DELETE, SHOW, BLOBS = "/api/delete", "/api/show", "/api/blobs/"
GENERATE, CHAT, EMBED, EMBEDDINGS = "/api/generate", "/api/chat", "/api/embed", "/api/embeddings"
V1_CHAT, V1_COMPLETIONS, V1_EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
V1_RESPONSES, V1_MESSAGES = "/v1/responses", "/v1/messages"
VERBS = {PULL: "POST", PUSH: "POST", CREATE: "POST", COPY: "POST", DELETE: "DELETE", SHOW: "POST"}
INFERENCE = (
    GENERATE,
    CHAT,
    EMBED,
    EMBEDDINGS,
    V1_CHAT,
    V1_COMPLETIONS,
    V1_EMBEDDINGS,
    V1_RESPONSES,
    V1_MESSAGES,
)
BAD_BODIES = (b"", b"{}", b"{", b"x", b"[]", b'{"model": 1}')
TURN: Mapping[str, object] = {"role": "user", "content": "x"}
ASKED: Mapping[str, object] = {"messages": [TURN], "prompt": "x", "input": "x", "max_tokens": 5}
"""What the inference paths need beside the model; each ignores the members of the others."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request; ``body`` is sent as it is."""

    method: str
    path: str
    body: bytes = b""

    def __str__(self) -> str:
        shown = self.body.decode()
        return f"{self.method} {self.path} {shown}".strip()


def _json(path: str, body: Mapping[str, object], method: str = "POST") -> Sent:
    return Sent(method, path, json.dumps(body).encode())


def _bodies() -> Iterator[Sent]:
    for path, method in {**VERBS, **dict.fromkeys(INFERENCE, "POST")}.items():
        for body in BAD_BODIES:
            yield Sent(method, path, body)


def _names() -> Iterator[Sent]:
    """Bad and unknown names; an unknown name is not pulled or pushed, since Ollama would ask its registry for it."""
    for name in (*BAD_NAMES, *UNKNOWN_NAMES, *CLOUD_NAMES):
        yield _json(SHOW, {"model": name})
        yield _json(DELETE, {"name": name}, "DELETE")
        yield _json(COPY, {"source": name, "destination": "new"})
        yield _json(CREATE, {"model": name, "files": {}})
        for path in INFERENCE:
            yield _json(path, {"model": name, **ASKED})
        if name and ".." not in name and "//" not in name:
            yield Sent("GET", f"/v1/models/{name.replace(' ', '%20')}")
    for name in (*BAD_NAMES, "nope:local:cloud"):
        yield _json(PULL, {"model": name})
        yield _json(PUSH, {"name": name, "stream": False})
        yield _json(COPY, {"source": UNKNOWN, "destination": name})


_CREATE_FIELDS: tuple[Mapping[str, object], ...] = (
    {},
    {"from": ""},
    {"modelfile": "FROM x"},
    {"files": {}},
    {"files": {"../x": DIGEST}},
    {"files": {"/x.gguf": DIGEST}},
    {"files": {"x.gguf": "sha256:x"}},
    {"files": {"x.gguf": ""}},
    {"files": {"x.gguf": DIGEST, "y.safetensors": DIGEST}},
    {"from": "a b"},
    {"from": "a b", "stream": False},
    {"from": KNOWN, "quantize": "q4_K_M"},
    {"files": {"x.gguf": DIGEST}, "quantize": "q4_K_M"},
    {"quantize": "q4_K_M"},
    {"from": KNOWN, "draft_quantize": "q8_0"},
    {"from": KNOWN, "template": "{{ .Bad"},
    {"from": KNOWN, "license": 1},
    {"from": KNOWN, "license": ["a", 1]},
    {"from": KNOWN, "parameters": {"typical_p": 0.5}},
    {"files": ["x"]},
    {"parameters": [1]},
    {"messages": "x"},
    {"from": 1},
    {"system": 1},
    {"stream": "no"},
)


def _create() -> Iterator[Sent]:
    for fields in _CREATE_FIELDS:
        yield _json(CREATE, {"model": "new", **fields})


def _blobs() -> Iterator[Sent]:
    yield Sent("HEAD", BLOBS + DIGEST)
    for digest in ("sha256:x", "md5:" + "0" * 32, "sha256:" + "0" * 63, ""):
        yield Sent("HEAD", BLOBS + digest)
        yield Sent("POST", BLOBS + digest, b"x")
    yield Sent("GET", BLOBS + DIGEST)
    yield Sent("POST", BLOBS + DIGEST, b"x")
    yield Sent("POST", f"{BLOBS}sha256-{'0' * 64}", b"x")


_ONE = {"messages": [TURN]}
_WRONG_TYPES: tuple[tuple[str, Mapping[str, object]], ...] = (
    (CHAT, {"messages": [{"role": 1}]}),
    (CHAT, {"messages": ["x"]}),
    (CHAT, {"messages": [{**TURN, "tool_calls": [{"function": {"name": 1}}]}]}),
    (CHAT, {**_ONE, "tools": [{"type": "function", "function": {"name": 1}}]}),
    (CHAT, {**_ONE, "options": [1]}),
    (GENERATE, {"context": ["x"]}),
    (GENERATE, {"prompt": 1}),
    (EMBED, {"input": 1}),
    (EMBED, {"input": "x", "dimensions": "x"}),
    (V1_CHAT, {"messages": [{"role": 1}]}),
    (V1_CHAT, {"messages": ["x"]}),
    (V1_CHAT, {"messages": "x"}),
    (V1_CHAT, {**_ONE, "stream_options": {"include_usage": 1}}),
    (V1_CHAT, {**_ONE, "response_format": {"type": 1}}),
    (V1_CHAT, {**_ONE, "max_tokens": 1.5}),
    (V1_CHAT, {**_ONE, "tools": [{"type": "function", "function": {"name": 1}}]}),
    (V1_CHAT, {"messages": [{"role": "user", "content": [{"type": 1}]}]}),
    (V1_CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}),
    (V1_CHAT, {"messages": [{"role": "user", "content": {}}]}),
    (V1_COMPLETIONS, {"prompt": ["x"]}),
    (V1_COMPLETIONS, {"prompt": "x", "logprobs": "x"}),
    (V1_RESPONSES, {"input": "x", "text": {"format": {"type": 1}}}),
    (V1_MESSAGES, {"max_tokens": 5, "messages": [{"role": 1}]}),
    (V1_MESSAGES, {"max_tokens": 5, "messages": []}),
    (V1_MESSAGES, {"messages": [TURN]}),
    (V1_MESSAGES, {**_ONE, "max_tokens": 5, "tools": [{"name": 1}]}),
    (V1_MESSAGES, {**_ONE, "max_tokens": 5, "thinking": {"type": 1}}),
    (V1_MESSAGES, {**_ONE, "max_tokens": "x"}),
    (V1_EMBEDDINGS, {"input": 1}),
    (V1_EMBEDDINGS, {"input": "x", "encoding_format": "x"}),
)


_GENERATE_FIELDS: tuple[Mapping[str, object], ...] = (
    {"options": {"typical_p": 0.5, "num_predict": 1}},
    {"options": {"num_ctx": "x"}},
    {"suffix": "y"},
    {"top_logprobs": 21},
    {"raw": True, "system": "s"},
    {"keep_alive": "x"},
)


def _inference() -> Iterator[Sent]:
    levels = ("minimal", "low", "xhigh", "ultra", "none", "x", "max", "", "true", 1)
    for level in levels:
        yield _json(GENERATE, {"model": KNOWN, "prompt": "x", "think": level})
        yield _json(CHAT, {"model": KNOWN, "messages": [TURN], "think": level})
        if level not in ("none", ""):
            yield _json(V1_CHAT, {"model": KNOWN, "messages": [TURN], "reasoning_effort": level})
            yield _json(V1_RESPONSES, {"model": KNOWN, "input": "x", "reasoning": {"effort": level}})
    for content in (None, 1, ["x"]):
        if content is not None:
            yield _json(CHAT, {"model": KNOWN, "messages": [{"role": "user", "content": content}]})
        message = {"role": "user", "content": content}
        yield _json(V1_CHAT, {"model": KNOWN, "messages": [message], "max_tokens": 1})
    yield _json(CHAT, {"model": KNOWN, "messages": "x"})
    for fields in _GENERATE_FIELDS:
        yield _json(GENERATE, {"model": KNOWN, "prompt": "x", **fields})
    for path, fields in _WRONG_TYPES:
        yield _json(path, {"model": KNOWN, **fields})
    tool = {"type": "function", "function": {"name": "f"}}
    yield _json(CHAT, {"model": KNOWN, "messages": [TURN], "tools": [tool]})


def _paths() -> Iterator[Sent]:
    for path in ("/nope", PULL, "/api/blobs/x", "/metrics", "/api/experimental/aliases", "/api/status"):
        yield Sent("GET", path)
    for path in ("/api/tags", "/v1/messages/count_tokens", "/v1/rerank", "/api/tokenize", "/api/generate/"):
        yield Sent("POST", path)
    for path in ("/api/me", "/api/signout", "/v1/audio/transcriptions", "/v1/images/generations"):
        yield Sent("POST", path)
    yield Sent("DELETE", "/api/create")
    yield Sent("DELETE", "/api/user/keys/x")
    yield _json("/api/experimental/web_search", {"query": "x"})
    yield _json("/api/experimental/web_fetch", {"url": "x"})


REQUESTS: tuple[Sent, ...] = tuple(
    dict.fromkeys((*_bodies(), *_names(), *_create(), *_blobs(), *_inference(), *_paths()))
)
