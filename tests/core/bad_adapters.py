"""Bad adapters of a Model, and what is said of each by the parser and by the CRD."""

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
        "an adapter with a name that is none",
        with_fields(adapters=[{"name": "a b", "source": "file:///a"}]),
        "spec.adapters[0].name",
        "[host/]",
        "a name must be",
    ),
    Bad(
        "an adapter from nowhere",
        with_fields(adapters=[{"name": "a", "source": "a.gguf"}]),
        "spec.adapters[0].source",
        "package://",
        "the source must be package://",
    ),
    Bad(
        "an adapter of an endless scale",
        with_fields(adapters=[{"name": "a", "source": "file:///a", "scale": 101}]),
        "spec.adapters[0].scale",
        "at most 100",
        "should be less than or equal to 100",
    ),
    Bad(
        "an adapter with the name of the Model",
        with_fields(names=["a"], adapters=[{"name": "A", "source": "file:///a"}]),
        "spec.adapters[0].name",
        "nothing else of the Model",
        "nothing else of the Model",
    ),
    Bad(
        "an adapter on another claim",
        with_fields(source="pvc://a/x", adapters=[{"name": "b", "source": "pvc://b/x"}]),
        "spec.adapters[0].source",
        "the claim of the Model's own source",
        "the claim of the Model's own source",
    ),
]
