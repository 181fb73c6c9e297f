"""Image volumes of a node, by the versions that it reports."""

from __future__ import annotations

import pytest

from corral_core.planning.image_volumes import has_image_volumes
from corral_core.planning.node import parse_node


@pytest.mark.parametrize(
    ("kubelet", "runtime"),
    [
        ("v1.35.0", "containerd://2.1.0"),
        ("v1.36.3", "containerd://2.10.1"),
        ("v1.35.2-gke.1100", "containerd://v2.2.0-rc.1"),
        ("v1.36.1+k3s1", "containerd://2.1.4-k3s1"),
        ("v2.0.0", "containerd://3.0.0"),
        ("v1.35.1", "cri-o://1.33.0"),
    ],
)
def test_a_node_with_these_versions_has_image_volumes(kubelet: str, runtime: str) -> None:
    assert has_image_volumes(kubelet, runtime)


@pytest.mark.parametrize(
    ("kubelet", "runtime"),
    [
        ("v1.34.9", "containerd://2.1.0"),
        ("v1.36.0", "containerd://2.0.9"),
        ("v1.36.0", "containerd://1.7.28"),
        ("v1.36.0", "cri-o://1.32.4"),
        ("v1.36.2", "docker://29.6.2"),
        ("v1.36.2", "containerd://"),
        ("v1.36.2", "containerd://2"),
        ("", ""),
        ("v1.36.2", ""),
        ("latest", "containerd://2.1.0"),
    ],
)
def test_a_node_with_these_versions_has_none(kubelet: str, runtime: str) -> None:
    assert not has_image_volumes(kubelet, runtime)


def test_the_versions_are_those_of_the_node_info() -> None:
    info = {"kubeletVersion": "v1.36.3", "containerRuntimeVersion": "containerd://2.4.2"}
    assert parse_node({"metadata": {"name": "n"}, "status": {"nodeInfo": info}}).image_volumes
    assert not parse_node({"metadata": {"name": "n"}}).image_volumes
