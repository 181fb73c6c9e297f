"""Invalid adapters, with the errors of the parser and of the CRD; part of ``bad_models``."""

from __future__ import annotations

from tests.core.model_cases import Bad, with_fields

BAD_ADAPTERS = [
    Bad(
        "an adapter without source",
        with_fields(adapters=[{"name": "a"}]),
        "spec.adapters[0].source",
        "required",
        "spec.adapters[0].source: Required value",
    ),
    Bad(
        "an adapter with an invalid name",
        with_fields(adapters=[{"name": "a b", "source": "file:///a"}]),
        "spec.adapters[0].name",
        "[host/]",
        "a name must be",
    ),
    Bad(
        "an adapter with an invalid source",
        with_fields(adapters=[{"name": "a", "source": "a.gguf"}]),
        "spec.adapters[0].source",
        "package://",
        "the source must begin with",
    ),
    Bad(
        "an adapter with a scale out of range",
        with_fields(adapters=[{"name": "a", "source": "file:///a", "scale": 101}]),
        "spec.adapters[0].scale",
        "at most 100",
        "should be less than or equal to 100",
    ),
    Bad(
        "an adapter with the name of the Model",
        with_fields(names=["a"], adapters=[{"name": "A", "source": "file:///a"}]),
        "spec.adapters[0].name",
        "unique within the Model",
        "differ from all other names",
    ),
    Bad(
        "an adapter on another claim",
        with_fields(source="pvc://a/x", adapters=[{"name": "b", "source": "pvc://b/x"}]),
        "spec.adapters[0].source",
        "on the claim of the Model's source",
        "on the claim of spec.source",
    ),
]
