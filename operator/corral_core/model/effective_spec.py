"""Spec of a Model over the defaults that its source brings.

- What the Model says has precedence, field by field; of ``parameters``, one by one.
- A source's parameters are written by others: those that no Model could have are left out.
- An effective spec is for the runner, the memory estimate and ``/api/show``. It is never written back or hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pydantic import TypeAdapter, ValidationError

from corral_core.contracts.source_defaults import SourceDefaults, SourceMessage
from corral_core.model.model import ModelSpec
from corral_core.model.parameters import Parameters


def effective_spec(spec: ModelSpec, defaults: SourceDefaults) -> ModelSpec:
    """Return the spec with the source's template, system prompt, licenses and parameters where it has none.

    The texts may exceed the limits of a Model's own, up to those of ``SourceDefaults``.
    """
    licenses = "\n".join(text for text in defaults.licenses if text)
    accepted, _ = usable_parameters(defaults.parameters)
    return spec.model_copy(
        update={
            "template": spec.template or defaults.template or None,
            "system": spec.system if spec.system is not None else defaults.system or None,
            "license": spec.license or licenses or None,
            "parameters": {**accepted, **spec.parameters},
        }
    )


def example_messages(spec: ModelSpec, defaults: SourceDefaults) -> tuple[SourceMessage, ...]:
    """Return the messages that precede every conversation: the spec's, else the source's."""
    return tuple(SourceMessage(each.role, each.content) for each in spec.messages) or defaults.messages


def usable_parameters(parameters: Mapping[str, object]) -> tuple[Parameters, tuple[str, ...]]:
    """Return the parameters that a Model could have, and the names of the others: unknown or with an invalid value."""
    accepted: Parameters = {}
    ignored = []
    for name, value in parameters.items():
        try:
            accepted.update(_adapter().validate_python({name: value}))
        except ValidationError:
            ignored.append(name)
    return accepted, tuple(ignored)


@cache
def _adapter() -> TypeAdapter[Parameters]:
    return TypeAdapter(Parameters)
