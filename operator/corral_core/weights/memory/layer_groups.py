"""Groups of successive layers of the same size, which hold the sizes of all layers in little room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from itertools import groupby

from corral_core.contracts.model_metadata import MAX_LAYER_GROUPS, LayerGroup


def group_layers(layers: Sequence[LayerGroup], *, maximum: int = MAX_LAYER_GROUPS) -> tuple[LayerGroup, ...]:
    """Group equal neighbours among ``layers``, each with a ``count`` of one.

    With more than ``maximum`` groups, neighbours are put together, and every number is the largest of them.
    """
    groups = [replace(layer, count=len(list(equal))) for layer, equal in groupby(layers)]
    together = -(-len(groups) // maximum)
    if together <= 1:
        return tuple(groups)
    return tuple(_largest(groups[start : start + together]) for start in range(0, len(groups), together))


def each_layer(groups: Sequence[LayerGroup]) -> Iterator[LayerGroup]:
    """Yield every layer of the groups, with a ``count`` of one."""
    for group in groups:
        layer = replace(group, count=1)
        for _ in range(group.count):
            yield layer


def _largest(groups: Sequence[LayerGroup]) -> LayerGroup:
    count = sum(group.count for group in groups)
    _, *numbers = (max(column) for column in zip(*(astuple(group) for group in groups), strict=True))
    return LayerGroup(count, *numbers)
