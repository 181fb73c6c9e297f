"""Model documents, from YAML or from the API, into values; and what follows from the values alone.

``InvalidModel`` always carries every problem that was found, each with the field's path, the value and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import ValidationError

from corral_core.documents import documents_of, plain_value
from corral_core.errors import NOTHING, InvalidModel, Problem
from corral_core.model import API_VERSION, GPU, KIND, MAX_NAME, Adapter, Model, ModelSpec, Queue
from corral_core.names import canonical
from corral_core.parameters import Parameters
from corral_core.pod import DNS_LABEL, EnvVar, Pod, Resources, SecretReference, Toleration
from corral_core.problems import problems_of, shortened, suggestion

DEFAULT_NAMESPACE = "default"

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_SERVED = (
    "source",
    "sha256",
    "parameters",
    "system",
    "template",
    "context_length",
    "parallel",
    "embeddings",
    "adapters",
    "keep_alive",
    "keep_alive_min",
    "keep_alive_max",
)
"""The fields of the spec that a runner depends on, beside the number of GPUs: a change of one means a new runner."""

_FIELDS: Mapping[str, Iterable[str]] = {
    "": _TOP,
    "spec": [field.alias or name for name, field in ModelSpec.model_fields.items()],
    "spec.gpu": [field.alias or name for name, field in GPU.model_fields.items()],
    "spec.queue": [field.alias or name for name, field in Queue.model_fields.items()],
    "spec.adapters[]": [field.alias or name for name, field in Adapter.model_fields.items()],
    "spec.pod": [field.alias or name for name, field in Pod.model_fields.items()],
    "spec.parameters": Parameters.__annotations__,
    "spec.pod.resources": Resources.__annotations__,
    "spec.pod.tolerations[]": Toleration.__annotations__,
    "spec.pod.env[]": EnvVar.__annotations__,
    "spec.pod.imagePullSecrets[]": SecretReference.__annotations__,
}


def parse_model(document: Mapping[str, object], default_namespace: str = DEFAULT_NAMESPACE) -> Model:
    """A Model from one document. Raises InvalidModel with all of its problems.

    Fields of ``metadata`` beside name, namespace, creationTimestamp, generation and uid are the API server's business
    and ``status`` is ignored; a null counts as unset.
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
    """The Models of a YAML text with one or several documents.

    Raises InvalidModel for the first document that is not valid, and when two documents are the same Model.
    """
    models: dict[str, Model] = {}
    for index, document in enumerate(documents_of(text, label="file"), start=1):
        if not isinstance(document, Mapping):
            raise InvalidModel(f"(document {index})", (Problem("(document)", shortened(document), "a Model object"),))
        model = parse_model(document, default_namespace)
        if model.key in models:
            problem = Problem("metadata.name", model.name, f"each Model once (document {index} repeats {model.key})")
            raise InvalidModel(model.key, (problem,))
        models[model.key] = model
    return list(models.values())


def serving_spec(model: Model) -> dict[str, object]:
    """The fields of the spec that a runner depends on, as JSON values; what is unset is left out."""
    dumped = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(_SERVED))
    return {**dumped, "gpu": {"count": model.spec.gpu.count}}


def parse_served(document: Mapping[str, object]) -> Model:
    """The Model that a runner is given: ``{"name", "namespace", "spec": serving_spec(...)}``. Raises InvalidModel."""
    metadata = {"name": document.get("name"), "namespace": document.get("namespace")}
    return parse_model({"metadata": metadata, "spec": document.get("spec")})


def serving_digest(model: Model) -> str:
    """64 hex digits that change exactly when ``serving_spec`` does."""
    text = json.dumps(serving_spec(model), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def names_of(model: Model) -> tuple[str, ...]:
    """The canonical names that clients may use, the main one first, the adapters' last.

    Without any in the spec the main one is metadata.name.
    """
    adapters = tuple(adapter.name for adapter in model.spec.adapters)
    return tuple(canonical(name) for name in (*(model.spec.names or (model.name,)), *adapters))


def claims(models: Iterable[Model]) -> dict[str, str]:
    """The Models that claim a name which an older one has: their key, and the reason in words.

    Older is who was created first, and of two of one time who comes first by key. A Model that loses any of its names
    is refused altogether, and so takes no name from a Model that is younger still.
    """
    owners: dict[str, str] = {}
    lost: dict[str, str] = {}
    for model in sorted(models, key=lambda model: (model.created, model.key)):
        names = names_of(model)
        taken = [f"{name} (it belongs to the older Model {owners[name]})" for name in names if name in owners]
        if taken:
            lost[model.key] = f"the name is taken: {', '.join(taken)}"
        else:
            owners.update(dict.fromkeys(names, model.key))
    return lost


def _parse_spec(raw: object, label: str, *, problems: list[Problem]) -> ModelSpec | None:
    """The spec, or None after adding to ``problems``."""
    if not isinstance(raw, Mapping):
        allowed = "an object of keys and values" if raw is not None else "it is required"
        problems.append(Problem("spec", NOTHING if raw is None else shortened(raw), allowed))
        return None
    try:
        return ModelSpec.model_validate(_without_nulls(plain_value(raw, label=label)))
    except ValidationError as error:
        problems.extend(problems_of(error, "spec", known=lambda path: _FIELDS.get(re.sub(r"\[\d+\]", "[]", path), ())))
    return None


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _top_problems(document: Mapping[str, object]) -> Iterable[Problem]:
    """What is wrong beside metadata and spec. Objects inside a list of the API have no kind, so its absence is fine."""
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field, expected) != expected:
            yield Problem(field, shortened(document[field]), f"only {expected}")
    for field in document:
        if field not in _TOP:
            allowed = f"there is no such field{suggestion(str(field), _TOP)}; the fields are {', '.join(_TOP)}"
            yield Problem(str(field), shortened(document[field]), allowed)


def _metadata_problems(metadata: Mapping[str, object]) -> Iterable[Problem]:
    name = metadata.get("name")
    if name is None:
        yield Problem("metadata.name", NOTHING, "it is required")
    elif not _is_label(name, MAX_NAME):
        allowed = f"lower-case letters, digits and '-', at most {MAX_NAME} characters"
        hint = " (names for clients such as llama3.2:1b go to spec.names)" if isinstance(name, str) else ""
        yield Problem("metadata.name", shortened(name), allowed + hint)
    namespace = metadata.get("namespace")
    if namespace is not None and not _is_label(namespace, 63):
        allowed = "lower-case letters, digits and '-', at most 63 characters"
        yield Problem("metadata.namespace", shortened(namespace), allowed)
    created = metadata.get("creationTimestamp")
    if created is not None and _created(created) is None:
        yield Problem("metadata.creationTimestamp", shortened(created), "a time such as 2026-01-31T12:00:00Z")


def _is_label(value: object, maximum: int) -> bool:
    return isinstance(value, str) and len(value) <= maximum and re.fullmatch(DNS_LABEL, value) is not None


def _created(value: object) -> float | None:
    """Unix seconds of an RFC 3339 time with its zone, else None."""
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
