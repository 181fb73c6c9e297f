"""Whether a node has image volumes: the kubelet pulls an image and mounts it into a pod.

- They are in Kubernetes from 1.31 on, enabled by default from 1.35 on and always enabled from 1.36 on (``ImageVolume``
  in ``pkg/features/kube_features.go``). A kubelet is never newer than the API server
  (https://kubernetes.io/releases/version-skew-policy/), so the version of the kubelet decides.
- containerd mounts them from 2.1 on (https://github.com/containerd/containerd/pull/10579), CRI-O from 1.33 on
  (https://kubernetes.io/blog/2025/04/29/kubernetes-v1-33-image-volume-beta/). cri-dockerd does not
  (https://github.com/Mirantis/cri-dockerd/issues/526).
"""

from __future__ import annotations

import re
from typing import Final

_KUBELET: Final = (1, 35)
_RUNTIMES: Final = {"containerd": (2, 1), "cri-o": (1, 33)}
_VERSION: Final = re.compile(r"v?(\d{1,6})\.(\d{1,6})(?!\d)")


def has_image_volumes(kubelet: str, runtime: str) -> bool:
    """Return whether a node with these versions has image volumes.

    ``kubelet`` is like ``v1.36.3`` and ``runtime`` like ``containerd://2.1.4``: ``kubeletVersion`` and
    ``containerRuntimeVersion`` in the ``nodeInfo`` of a node. A version that cannot be read has none.
    """
    name, _, version = runtime.partition("://")
    needed = _RUNTIMES.get(name)
    return needed is not None and _version(kubelet) >= _KUBELET and _version(version) >= needed


def _version(text: str) -> tuple[int, int]:
    """Return major and minor version, (0, 0) if the text has none."""
    match = _VERSION.match(text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
