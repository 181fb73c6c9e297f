"""Parsing of Model documents from YAML files or the API, and values derived from a Model.

``InvalidModel`` carries every problem that was found, each with the field's path, its value and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import ValidationError

from corral_core.base.errors import MISSING, InvalidModel, Problem
from corral_core.base.json_fields import get_object
from corral_core.base.names import canonical_name
from corral_core.model.affinity import Affinity, NodeAffinity, PodAffinity
from corral_core.model.documents import load_documents, to_json_value
from corral_core.model.model import (
    API_VERSION,
    KIND,
    MAX_NAME,
    AdapterSpec,
    GPUSpec,
    MessageSpec,
    Model,
    ModelSpec,
    QueueSpec,
    RequestLimitsSpec,
)
from corral_core.model.parameters import Parameters
from corral_core.model.pod import DNS_LABEL, EnvSource, EnvVar, PodOverrides, Resources, SecretReference, TolerationSpec
from corral_core.model.problems import problems_from, suggestion, truncated
from corral_core.model.pulling import CABundleSpec, CacheSpec, ProxySpec, SecretKey

DEFAULT_NAMESPACE = "default"

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_RUNNER_FIELDS = (
    "source",
    "sha256",
    "parameters",
    "system",
    "template",
    "messages",
    "context_length",
    "parallel",
    "embeddings",
    "kv_cache_type",
    "flash_attention",
    "adapters",
    "projector",
    "keep_alive",
    "keep_alive_min",
    "keep_alive_max",
)
"""Spec fields that the runner depends on, besides those of ``spec.gpu``; a change of one replaces the runner."""
_RUNNER_GPU_FIELDS = ("count", "offload", "split_mode", "main_gpu", "tensor_split", "expert_layers_on_cpu")
"""Fields of ``spec.gpu`` that the runner depends on."""

_FIELDS: Mapping[str, Iterable[str]] = {
    "": _TOP,
    "spec": [field.alias or name for name, field in ModelSpec.model_fields.items()],
    "spec.gpu": [field.alias or name for name, field in GPUSpec.model_fields.items()],
    "spec.queue": [field.alias or name for name, field in QueueSpec.model_fields.items()],
    "spec.requestLimits": [field.alias or name for name, field in RequestLimitsSpec.model_fields.items()],
    "spec.sourceSecretRef": SecretReference.__annotations__,
    "spec.cache": [field.alias or name for name, field in CacheSpec.model_fields.items()],
    "spec.proxy": [field.alias or name for name, field in ProxySpec.model_fields.items()],
    "spec.proxy.httpsProxySecretRef": SecretKey.__annotations__,
    "spec.proxy.caBundle": [field.alias or name for name, field in CABundleSpec.model_fields.items()],
    "spec.adapters[]": [field.alias or name for name, field in AdapterSpec.model_fields.items()],
    "spec.messages[]": [field.alias or name for name, field in MessageSpec.model_fields.items()],
    "spec.pod": [field.alias or name for name, field in PodOverrides.model_fields.items()],
    "spec.parameters": Parameters.__annotations__,
    "spec.pod.resources": Resources.__annotations__,
    "spec.pod.tolerations[]": TolerationSpec.__annotations__,
    "spec.pod.affinity": Affinity.__annotations__,
    "spec.pod.affinity.nodeAffinity": NodeAffinity.__annotations__,
    "spec.pod.affinity.podAffinity": PodAffinity.__annotations__,
    "spec.pod.affinity.podAntiAffinity": PodAffinity.__annotations__,
    "spec.pod.env[]": EnvVar.__annotations__,
    "spec.pod.env[].valueFrom": EnvSource.__annotations__,
    "spec.pod.imagePullSecrets[]": SecretReference.__annotations__,
}


def parse_model(document: Mapping[str, object], default_namespace: str = DEFAULT_NAMESPACE) -> Model:
    """Parse one document. Raises InvalidModel with all of its problems.

    Of ``metadata`` only name, namespace, creationTimestamp, generation and uid are read, ``status`` is ignored, and a
    null counts as unset.
    """
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    label = _label(metadata)
    problems = [*_top_problems(document), *_metadata_problems(metadata)]
    spec = _parse_spec(document.get("spec"), label, problems=problems)
    if problems or spec is None:
        raise InvalidModel(label, tuple(problems))
    return Model(
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or default_namespace),
        created=_created(metadata.get("creationTimestamp")) or 0.0,
        generation=_integer(metadata.get("generation")),
        uid=str(metadata.get("uid") or ""),
        spec=spec,
    )


def load_models(text: str, default_namespace: str = DEFAULT_NAMESPACE) -> list[Model]:
    """Parse the Models of a YAML file with one or several documents.

    Raises InvalidModel for the first document that is not valid, and if two documents have the same namespace and name.
    """
    models: dict[str, Model] = {}
    for index, document in enumerate(load_documents(text, label="file"), start=1):
        if not isinstance(document, Mapping):
            raise InvalidModel(f"(document {index})", (Problem("(document)", truncated(document), "a Model object"),))
        model = parse_model(document, default_namespace)
        if model.key in models:
            problem = Problem("metadata.name", model.name, f"unique Models (document {index} repeats {model.key})")
            raise InvalidModel(model.key, (problem,))
        models[model.key] = model
    return list(models.values())


def runner_spec(model: Model) -> dict[str, object]:
    """Return the spec fields that the runner depends on as JSON values, without unset ones."""
    include: dict[str, bool | set[str]] = {**dict.fromkeys(_RUNNER_FIELDS, True), "gpu": set(_RUNNER_GPU_FIELDS)}
    return model.spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=include)


def runner_model(model: Model, gpus: int | None = None) -> dict[str, object]:
    """Return the part of a Model that is passed to its runner, as JSON values; ``parse_runner_model`` parses it.

    ``gpus`` is the number of GPUs that the runner gets instead of ``spec.gpu.count``, which may be auto.
    """
    uid = {"uid": model.uid} if model.uid else {}
    spec = runner_spec(model)
    if gpus is not None:
        spec["gpu"] = {**get_object(spec, "gpu"), "count": gpus}
    return {"name": model.name, "namespace": model.namespace, **uid, "spec": spec}


def parse_runner_model(document: Mapping[str, object]) -> Model:
    """Parse the result of ``runner_model``. Raises InvalidModel."""
    metadata = {name: document.get(name) for name in ("name", "namespace", "uid")}
    return parse_model({"metadata": metadata, "spec": document.get("spec")})


def runner_spec_digest(model: Model) -> str:
    """Return the SHA-256 of ``runner_spec``."""
    text = json.dumps(runner_spec(model), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def client_names(model: Model) -> tuple[str, ...]:
    """Return the canonical names for clients: ``spec.names``, or else metadata.name, then the adapters' names.

    The first one is the primary name.
    """
    adapters = tuple(adapter.name for adapter in model.spec.adapters)
    return tuple(canonical_name(name) for name in (*(model.spec.names or (model.name,)), *adapters))


def _parse_spec(raw: object, label: str, *, problems: list[Problem]) -> ModelSpec | None:
    """Parse the spec; on failure append to ``problems`` and return None."""
    if not isinstance(raw, Mapping):
        allowed = "an object of keys and values" if raw is not None else "it is required"
        problems.append(Problem("spec", MISSING if raw is None else truncated(raw), allowed))
        return None
    try:
        return ModelSpec.model_validate(_without_nulls(to_json_value(raw, label=label)))
    except ValidationError as error:
        problems.extend(
            problems_from(error, "spec", known=lambda path: _FIELDS.get(re.sub(r"\[\d+\]", "[]", path), ()))
        )
    return None


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _top_problems(document: Mapping[str, object]) -> Iterable[Problem]:
    """Check the top-level fields. Items of an API list have no kind, so its absence is valid."""
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field, expected) != expected:
            yield Problem(field, truncated(document[field]), f"only {expected}")
    for field in document:
        if field not in _TOP:
            allowed = f"unknown field{suggestion(str(field), _TOP)}; the fields are {', '.join(_TOP)}"
            yield Problem(str(field), truncated(document[field]), allowed)


def _metadata_problems(metadata: Mapping[str, object]) -> Iterable[Problem]:
    name = metadata.get("name")
    if name is None:
        yield Problem("metadata.name", MISSING, "it is required")
    elif not _is_label(name, MAX_NAME):
        allowed = f"lower-case letters, digits and '-', at most {MAX_NAME} characters"
        hint = " (put names for clients such as llama3.2:1b into spec.names)" if isinstance(name, str) else ""
        yield Problem("metadata.name", truncated(name), allowed + hint)
    namespace = metadata.get("namespace")
    if namespace is not None and not _is_label(namespace, 63):
        allowed = "lower-case letters, digits and '-', at most 63 characters"
        yield Problem("metadata.namespace", truncated(namespace), allowed)
    created = metadata.get("creationTimestamp")
    if created is not None and _created(created) is None:
        yield Problem("metadata.creationTimestamp", truncated(created), "a timestamp such as 2026-01-31T12:00:00Z")


def _is_label(value: object, maximum: int) -> bool:
    return isinstance(value, str) and len(value) <= maximum and re.fullmatch(DNS_LABEL, value) is not None


def _created(value: object) -> float | None:
    """Parse an RFC 3339 timestamp with a time zone to Unix seconds, else None."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.timestamp() if moment is not None and moment.tzinfo is not None else None


def _integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _label(metadata: Mapping[str, object]) -> str:
    name, namespace = metadata.get("name"), metadata.get("namespace")
    shown = str(name)[:100] if name else "(without a name)"
    return f"{namespace}/{shown}" if isinstance(namespace, str) else shown
