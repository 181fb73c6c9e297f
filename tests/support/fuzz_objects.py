"""Fuzzed input that is not from clients: objects of the API server, and the messages of runners and inspectors.

Hypothesis generates a corpus: specs and statuses that follow the schema of the CRD, and odd values. A case takes an
object of the corpus and sets odd values at some of its places, which the API server may reject: a process must survive
a superset. To draw each case by hypothesis takes 30 ms, to take it from a corpus a fraction of a millisecond. A case is
determined by the seed and the size of the corpus and by its number.
"""

from __future__ import annotations

import base64
import copy
import json
import random
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from corral_core.contracts.termination_message import encode_metadata
from tests.operator import inspector_samples, pull_samples, samples

Json = dict[str, object]
Strategy = st.SearchStrategy[object]
Place = tuple[str | int, ...]

CRD = Path(__file__).resolve().parents[2] / "crds/corral.dev_models.yaml"
SCHEMA = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]

_DURATIONS = ("0", "5m", "-1s", "1h30m", "9223372036s", "1ns", 0, -1, 1, 9223372036)
_QUANTITIES = (
    "0",
    "1",
    "500m",
    "8Gi",
    "1e99",
    "9" * 64,
    "0." + "9" * 62,
    ".5",
    "1n",
    "9E",
    "1e-99",
    "7.Ei",
    0,
    2**63 - 1,
)
_TEXTS = (
    "",
    "a",
    "é\u2028\ud7ff",
    "\x00",
    "a" * 300,
    "-",
    "../..",
    "NaN",
    "1e999",
    "{}",
    "$(HOME)",
    "2026-01-02T03:04:05Z",
)
_TIMES = ("2026-01-02T03:04:05Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-02T03:04:05+23:59")
_BY_NAME: Mapping[str, Strategy] = {
    "source": st.sampled_from(("file:///weights.gguf", "pvc://claim/a b.gguf", "package://llm/x.gguf", "file:///é%41")),
    "sha256": st.sampled_from(("0" * 64, "f" * 64)),
    "names": st.lists(st.sampled_from(("a", "B:c", "x/y/z:t", "a.b", "tiny:1b")), max_size=3, unique_by=str.lower),
    "adapters": st.just([]),
    "cache": st.sampled_from(
        (
            {},
            {"size": "9E", "storageClassName": "a.b", "accessModes": ["ReadWriteMany"], "retain": True},
            {"size": 0},
            {"type": "shared", "claimName": "a.b"},
        )
    ),
    "proxy": st.sampled_from(
        (
            {},
            {"httpsProxy": "http://a:1", "noProxy": ",,*,\ud7ff", "caBundle": {"secretName": "a", "key": "../.."}},
            {"httpsProxySecretRef": {"name": "a", "key": "$(b)"}, "caBundle": {"configMapName": "a"}},
        )
    ),
    "pollInterval": st.sampled_from((30, "30s", "9223372036s")),
    "contextLength": st.sampled_from(("auto", 4, 4096, 2**24)),
    "parallel": st.sampled_from(("auto", 1, 4, 256)),
    "keepAlive": st.sampled_from(_DURATIONS),
    "keepAliveMin": st.sampled_from((0, "1ns", "5m")),
    "keepAliveMax": st.sampled_from((-1, "5m", 9223372036)),
    "maxWait": st.sampled_from(("1ns", "5m", 1, 9223372036)),
    "minReplicas": st.integers(0, 1),
    "maxReplicas": st.just(1),
    "replicas": st.integers(0, 1),
    "runtimeClassName": st.sampled_from(("nvidia", "a.b")),
    "resource": st.sampled_from(("nvidia.com/gpu", "a", "cpu", "memory")),
    "divisor": st.sampled_from(_QUANTITIES),
    "limits": st.dictionaries(st.sampled_from(("cpu", "memory", "pods", "x.io/y")), st.sampled_from(_QUANTITIES)),
    "requests": st.dictionaries(st.sampled_from(("cpu", "memory", "hugepages-2Mi")), st.sampled_from(_QUANTITIES)),
}
_KEYS = st.sampled_from(("a", "example.com/b", "kubernetes.io/arch", "A_.b"))

NUMBERS = st.sampled_from((0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), 10**400, 0.5, 1e300, -1e308, 5e-324))
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from((*_TEXTS, *_TIMES)) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_TEXTS[:6]), inner),
    max_leaves=8,
)
ODD = VALUES | st.integers(2, 300).map(lambda depth: nested(depth)) | st.sampled_from(_QUANTITIES)


def nested(depth: int) -> object:
    value: object = 1
    for level in range(depth):
        value = {"a": value} if level % 3 else [value]
    return value


def from_schema(schema: Mapping[str, object], name: str = "") -> Strategy:
    """Return a strategy for values of a structural schema; the bounds of CEL rules are those of ``_BY_NAME``."""
    if name in _BY_NAME and (name, schema.get("type")) != ("source", "object"):  # status.source is an object
        return _BY_NAME[name]
    if "enum" in schema:
        return st.sampled_from(cast("list[object]", schema["enum"]))
    kind = schema.get("type")
    if kind == "object":
        return _objects(schema)
    if kind == "array":
        return _arrays(schema)
    if kind == "string":
        return _strings(schema)
    if kind == "integer":
        bits = 31 if schema.get("format") == "int32" else 63
        low, high = schema.get("minimum", -(2**bits)), schema.get("maximum", 2**bits - 1)
        return st.integers(cast("int", low), cast("int", high)) | st.sampled_from((low, high))
    if kind == "number":
        low, high = schema.get("minimum", -1e300), schema.get("maximum", 1e300)
        return st.floats(cast("float", low), cast("float", high), allow_nan=False, allow_infinity=False)
    return st.booleans() if kind == "boolean" else SCALARS


def _objects(schema: Mapping[str, object]) -> Strategy:
    inner = schema.get("additionalProperties")
    if isinstance(inner, Mapping):
        return st.dictionaries(_KEYS, from_schema(inner), max_size=3)
    fields = {name: from_schema(each, name) for name, each in cast("Json", schema.get("properties", {})).items()}  # type: ignore[arg-type]  # schemas
    required = cast("list[str]", schema.get("required", []))
    optional = {name: each for name, each in fields.items() if name not in required}
    return st.fixed_dictionaries({name: fields[name] for name in required}, optional=optional)


def _arrays(schema: Mapping[str, object]) -> Strategy:
    items = from_schema(cast("Mapping[str, object]", schema["items"]))
    keys = cast("list[str]", schema.get("x-kubernetes-list-map-keys", []))
    most = min(cast("int", schema.get("maxItems", 3)), 3)
    if keys:
        return st.lists(items, max_size=most, unique_by=lambda item: json.dumps(cast("Json", item)[keys[0]]))
    return st.lists(items, max_size=most)


def _strings(schema: Mapping[str, object]) -> Strategy:
    longest = min(cast("int", schema.get("maxLength", 1000)), 5000)
    if schema.get("format") == "date-time":
        return st.sampled_from(_TIMES)
    if "pattern" in schema:
        texts = st.from_regex(str(schema["pattern"]), fullmatch=True).filter(lambda text: len(text) <= longest)
        return texts.filter(lambda text: "\n" not in text)
    least = cast("int", schema.get("minLength", 0))
    texts = st.text(min_size=least, max_size=12) | st.sampled_from(("a" * longest, *_TEXTS))
    return texts.filter(lambda text: least <= len(text) <= longest)


SPECS = cast("st.SearchStrategy[Json]", from_schema(SCHEMA["spec"]))
STATUSES = cast("st.SearchStrategy[Json]", from_schema(SCHEMA["status"]))

_IDENTITY = frozenset({"name", "namespace", "uid", "labels", "nodeName", "resourceVersion"})
_LINE = samples.runner_status(expires_at=samples.NOW + 300).to_json(samples.NOW)
_MESSAGE = encode_metadata(samples.METADATA)
_RAW_LINES = (
    *(b"", b"{", b"null", b"[[[[", b"\xff\xfe", b"[" * 3000, b'{"a":' * 3000, b"{}" * 40_000),
    b'{"in_flight":' + b"9" * 5000,
)
_RAW_MESSAGES = ("", _MESSAGE[:-9], "corral-metadata:", "corral-metadata:\u00e9", "corral-metadata:" + "0" * 4000)

T = TypeVar("T")


@dataclass(frozen=True)
class Corpus:
    """What hypothesis generated, and the cases made of it."""

    specs: Sequence[Json]
    statuses: Sequence[Json]
    values: Sequence[object]

    @classmethod
    def generate(cls, number: int, *, size: int) -> Corpus:
        """Generate ``size`` specs, statuses and values by this seed."""
        return cls(*(_drawn(each, number, size=size) for each in (SPECS, STATUSES, ODD)))  # type: ignore[arg-type]  # in order

    def model(self, rng: random.Random, name: str) -> Json:
        """Return a Model that follows the schema, or, in one of three cases, one with odd values."""
        raw = samples.model(
            name,
            spec={**rng.choice(self.specs), "source": rng.choice((samples.SOURCE, pull_samples.SOURCE))},
            status=self.status(rng),
        )
        return self.mutated(rng, raw) if rng.random() < 0.33 else raw

    def status(self, rng: random.Random) -> Json:
        return rng.choice(self.statuses)

    def line(self, rng: random.Random) -> bytes:
        """Return a line of ``/activity``; some numbers are NaN or infinite."""
        if rng.random() < 0.1:
            return rng.choice(_RAW_LINES)
        text = json.dumps(self.mutated(rng, _LINE)).replace('"NaN"', "NaN").replace('"1e999"', "1e999")
        return text.encode("utf-8", "surrogatepass")

    def inspector_pod(self, rng: random.Random) -> Json:
        """Return an inspector pod that has ended with some message."""
        message = rng.choice(_RAW_MESSAGES)
        if rng.random() < 0.8:
            value = self.mutated(rng, samples.METADATA.to_json())
            message = "corral-metadata:" + base64.b85encode(zlib.compress(json.dumps(value).encode())).decode()
        return cast("Json", dict(inspector_samples.inspector_in(inspector_samples.succeeded(message))))

    def mutated(self, rng: random.Random, sample: Mapping[str, object]) -> Json:
        """Return the sample with odd values at one to three places."""
        made: Json = copy.deepcopy(dict(sample))
        for _ in range(rng.randint(1, 3)):
            holder, key = rng.choice(list(_places(made)))
            holder[key] = copy.deepcopy(rng.choice(self.values))  # type: ignore[index]  # a place of this object
        return made


def _places(value: object) -> Iterator[tuple[object, str | int]]:
    """Yield holder and key of every value, apart from those that identify the object."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if key != "metadata" and key not in _IDENTITY:
            yield value, key
        if key not in _IDENTITY:
            yield from _places(item)


def _drawn(strategy: st.SearchStrategy[T], number: int, *, size: int) -> list[T]:
    """Return examples of a strategy, the same for the same seed."""
    found: list[T] = []

    @seed(number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: T) -> None:
        found.append(value)

    collect()
    return found
