"""Groups of layers of the same size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral_core.contracts.model_metadata import LayerGroup
from corral_core.weights.memory.layer_groups import each_layer, group_layers

LAYERS = st.lists(st.builds(LayerGroup, st.just(1), *[st.integers(0, 3)] * 5), max_size=40)


@given(LAYERS)
def test_groups_keep_every_layer(layers: list[LayerGroup]) -> None:
    assert list(each_layer(group_layers(layers))) == layers


def test_equal_neighbours_are_one_group() -> None:
    one, other = LayerGroup(1, 10), LayerGroup(1, 20)
    assert group_layers([one, one, other, one]) == (LayerGroup(2, 10), LayerGroup(1, 20), LayerGroup(1, 10))


@given(LAYERS, st.integers(1, 5))
def test_more_groups_than_the_maximum_are_put_together_and_never_smaller(
    layers: list[LayerGroup], maximum: int
) -> None:
    groups = group_layers(layers, maximum=maximum)
    assert len(groups) <= maximum
    for kept, layer in zip(each_layer(groups), layers, strict=True):
        assert kept.weights >= layer.weights
        assert kept.keys >= layer.keys
        assert kept.state >= layer.state
