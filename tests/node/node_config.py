"""Config files of a node's programs."""

from __future__ import annotations

import json
from pathlib import Path

SYSCTLS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
"""Kernel parameters that the kubelet sets; in the node's namespace they are separate files."""

OWN_FOLDERS = ("/run/containerd", "/run/netns", "/var/lib/cni", "/var/log")
"""Folders that a node's programs write to regardless of their config; each node has its own, empty at the start."""

DEVICE_PLUGINS = "/var/lib/kubelet/device-plugins"
"""Folder of the sockets of device plugins, for every kubelet (``constants.go`` of the device plugin API)."""

PAUSE = "registry.k8s.io/pause:3.10"


def network(folder: Path, pods: str) -> str:
    """Return the CNI network: a bridge in the node."""
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "ipam"),
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    plugins: list[dict[str, object]] = [
        {**bridge, "ipam": addresses},
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        {"type": "firewall"},
    ]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})


def plain_http(host: str) -> str:
    """Return the ``hosts.toml`` of a registry (``host:port``) without TLS; it is in ``registries/<host:port>/``."""
    return f'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n'


def nvidia(cdi: Path) -> str:
    """Return the config of NVIDIA's container runtime, which finds devices in the folder ``cdi``."""
    return f"""\
[nvidia-container-runtime]
mode = "cdi"
runtimes = ["runc"]
[nvidia-container-runtime.modes.cdi]
spec-dirs = ["{cdi}"]
"""


def containerd(folder: Path, *, cdi: Path, nvidia_runtime: Path) -> str:
    """Return the config. NVIDIA's runtime is registered as its toolkit does it (``nvidia-ctk runtime configure``)."""
    return f"""\
version = 3
root = "{folder}/containerd"
state = "{folder}/run"
disabled_plugins = [
  "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.nri.v1.nri",
]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{folder}/registries"
[plugins."io.containerd.cri.v1.runtime"]
  cdi_spec_dirs = ["{cdi}"]
  disable_apparmor = true
  restrict_oom_score_adj = true  # a sandbox may not lower it
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options]
        BinaryName = "{nvidia_runtime}"
"""


def kubelet(folder: Path, *, cgroup: str) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "podLogsDir": str(folder / "pods"),
            "enforceNodeAllocatable": [],
            "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "resolvConf": "",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageMinimumGCAge": "24h",
            "nodeStatusUpdateFrequency": "5s",
        }
    )


def proxy(kubeconfig: Path) -> str:
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": "10.244.0.0/16",
            "conntrack": {"maxPerCore": 0, "min": 0},
        }
    )
