"""Files with Kubernetes objects that the repository offers to users: the examples and the catalogue of Models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from corral_core.base.json_fields import JsonObject
from corral_core.model.documents import load_documents

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = sorted((ROOT / "charts/models/catalogue").glob("*.yaml"))
EXAMPLES = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "examples/cluster").glob("*.yaml")])
VALUES = sorted((ROOT / "examples/values").glob("*.yaml"))
"""Files of values for the chart, which are no objects."""


def objects(path: Path) -> Iterator[JsonObject]:
    """Yield the objects of a file."""
    for document in load_documents(path.read_text("utf-8"), label=path.name):
        assert isinstance(document, Mapping), path
        yield document


def models(path: Path) -> list[JsonObject]:
    return [item for item in objects(path) if item.get("kind") == "Model"]
