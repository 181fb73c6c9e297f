"""Sample objects of pulls: a Model with a remote source, its inspector, claim and puller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.pull_status import encode_pulled
from corral_core.contracts.source_resolution import ResolvedPins, SourceResolution
from corral_core.contracts.termination_message import encode_metadata
from corral_core.model.resource import parse_model
from corral_core.sources.snapshot import snapshot_id
from corral_core.weights.files import adapters_digest
from corral_operator.config import RunnerDefaults
from corral_operator.reconcile.inspector_pod import inspector_pod
from corral_operator.reconcile.pulling.puller_pod import puller_pod
from tests.operator import samples
from tests.operator.inspector_samples import succeeded

SOURCE = "hf://organization/model:Q4_K_M"
PIN = "0123456789abcdef0123456789abcdef01234567"
SIZE = 98_362_432
EPHEMERAL = {"cache": {"type": "ephemeral"}}
"""Field of a Model whose runner pods pull the weights."""
METADATA = replace(samples.METADATA, source=SOURCE)
RESOLVED = SourceResolution(SOURCE, {SOURCE: PIN}, SIZE)
SNAPSHOT = snapshot_id(SOURCE, PIN)
IMAGE_SOURCE = "oci://registry.example:5000/team/model"
IMAGE_PIN = "sha256:" + "0f" * 32
IMAGE = SourceResolution(IMAGE_SOURCE, {IMAGE_SOURCE: IMAGE_PIN}, SIZE, image_path="models/m.gguf")
NODE_INFO = {"kubeletVersion": "v1.36.3", "containerRuntimeVersion": "containerd://2.4.2"}
"""Versions of a node with image volumes."""
PULLED = replace(RESOLVED, snapshots={SOURCE: SNAPSHOT}, claim="model-tiny", claim_uid="uid-claim")


def model(
    name: str = "tiny",
    *,
    version: int = 10,
    source: SourceResolution | None = RESOLVED,
    status: Mapping[str, object] | None = None,
    spec: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return a Model with a remote source. Its status has the metadata and ``source``, unless that is None."""
    known = {"model": METADATA.to_json(), "source": source.to_json()} if source is not None else {}
    return samples.model(
        name,
        version=version,
        spec={"source": SOURCE, **(spec or {})},
        status={**known, **(status or {})},
        inspected=False,
    )


def image_model(
    *, source: SourceResolution | None = IMAGE, version: int = 10, spec: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return a Model whose source is an image, with ``source`` in its status."""
    wanted = {"source": IMAGE_SOURCE, "cache": {"type": "image"}, **(spec or {})}
    digest = adapters_digest(parse_model(samples.model(spec=wanted)).spec)
    metadata = replace(METADATA, source=IMAGE_SOURCE, adapters_digest=digest)
    known = {"model": metadata.to_json(), "source": source.to_json()} if source is not None else {}
    return samples.model(version=version, spec=wanted, status=known, inspected=False)


def claim(
    name: str = "tiny", *, version: int = 10, uid: str = "uid-claim", size: str = "1100Mi", phase: str = "Bound"
) -> JsonObject:
    spec = {"resources": {"requests": {"storage": size}}}
    raw = samples.owned(name, f"model-{name}", version=version, spec=spec, status={"phase": phase})
    return samples.with_metadata(raw, uid=uid)


def inspector(
    resolved: ResolvedPins | None = None,
    *,
    version: int = 20,
    finished: str = "",
    metadata: ModelMetadata = METADATA,
) -> JsonObject:
    """Return the resolver of the sample Model, which has ended."""
    pod = inspector_pod(parse_model(model()), defaults=RunnerDefaults(), remote=True)
    message = encode_metadata(metadata, resolved or ResolvedPins((PIN,), SIZE))
    return {
        **samples.with_metadata(pod, resourceVersion=str(version), uid="uid-info"),
        "status": succeeded(message, finished=finished),
    }


def puller(
    state: Mapping[str, object] | None = None,
    *,
    last: Mapping[str, object] | None = None,
    phase: str = "Running",
    version: int = 20,
    name: str = "tiny",
) -> JsonObject:
    """Return the puller of the sample Model with this state of its container."""
    pod = puller_pod(parse_model(model(name)), RESOLVED, defaults=RunnerDefaults(), claim_uid="uid-claim")
    container = {"name": "puller", "restartCount": 0, "state": state or {}, "lastState": last or {}}
    status = {"phase": phase, "podIP": "10.1.2.4", "containerStatuses": [container]}
    return {**samples.with_metadata(pod, resourceVersion=str(version), uid="uid-pull"), "status": status}


def runner(
    state: Mapping[str, object] | None = None,
    *,
    last: Mapping[str, object] | None = None,
    ready: bool = False,
    version: int = 20,
    name: str = "tiny-0",
    status: Mapping[str, object] | None = None,
) -> JsonObject:
    """Return a pod of the sample Model whose init container, with this state, pulls the weights."""
    container = {"name": "puller", "restartCount": 0, "state": state or {}, "lastState": last or {}}
    spec = {"nodeName": "node-1", "initContainers": [{"name": "puller"}]}
    known = {"phase": "Pending", "initContainerStatuses": [container], **(status or {})}
    return samples.pod(name=name, ready=ready, version=version, spec=spec, status=known)


def finished(name: str = "tiny", *, version: int = 21, message: str = encode_pulled([SNAPSHOT])) -> JsonObject:
    return puller({"terminated": {"exitCode": 0, "message": message}}, phase="Succeeded", version=version, name=name)


def failed(message: str, *, code: int = 1) -> Mapping[str, object]:
    """Return the state of a container that ended with this message."""
    return {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
