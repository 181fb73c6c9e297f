"""A real node: containerd, kubelet and kube-proxy in a mount and a network namespace of their own.

Nodes are attached to one bridge of this machine, whose address is ``GATEWAY``; node N has 10.99.0.(1+N) and its pods
have 10.244.N.0/24. The machine itself reaches every pod and every Service. A stopped node leaves nothing behind, and
leftovers of a killed run are removed before a new one starts (``clear_left_over``).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.child_processes import Child
from tests.cluster.workspace import PREFIX
from tests.node import node_config
from tests.support.waiting import until

BRIDGE = "corral0"
GATEWAY = "10.99.0.1"
SERVICES = "10.96.0.0/16"
NUMBERS = (1, 2, 3, 4, 5)
_CGROUPS = Path("/sys/fs/cgroup")


class RealNode:
    """A node: ``start`` once, ``stop`` once; ``vanish`` ends its processes like a power cut."""

    def __init__(
        self,
        number: int,
        *,
        programs: Path,
        containerd: Path,
        nvidia_runtime: Path,
        kubeconfig: Path,
        proxy_kubeconfig: Path,
        folder: Path,
    ) -> None:
        self.number = number
        self.name = f"node-{number}"
        self.address = f"10.99.0.{1 + number}"
        self.pods = f"10.244.{number}.0/24"
        self._programs = programs
        self._containerd = containerd
        self._nvidia_runtime = nvidia_runtime
        self._kubeconfig = kubeconfig
        self._proxy_kubeconfig = proxy_kubeconfig
        self._folder = folder
        self._keeper: Child | None = None
        self._children: dict[str, Child] = {}

    @property
    def children(self) -> list[Child]:
        return list(self._children.values())

    @property
    def cdi(self) -> Path:
        """The folder of CDI specifications, which containerd and NVIDIA's runtime read."""
        return self._folder / "cdi"

    @property
    def device_plugins(self) -> Path:
        """The folder of the sockets of kubelet and device plugins."""
        return self._folder / "device-plugins"

    @property
    def plugins(self) -> Path:
        """The kubelet's folder with the sockets of other plugins."""
        return self._folder / "kubelet" / "plugins"

    @property
    def plugins_registry(self) -> Path:
        """The folder in which the kubelet looks for sockets of other plugins to register."""
        return self._folder / "kubelet" / "plugins_registry"

    def start(self) -> None:
        self._folder.mkdir(parents=True)
        self._configure()
        self._isolate()
        self.start_containerd()
        self.start_kubelet()
        proxy = self._folder / "proxy.json"
        self._spawn("kube-proxy", [self._programs / "kube-proxy", "--config", proxy, "--hostname-override", self.name])

    def start_containerd(self) -> None:
        path = f"PATH={self._containerd}:{os.environ['PATH']}"  # containerd starts the first shim in it
        runtime = f"NVIDIA_CTK_CONFIG_FILE_PATH={self._folder / 'nvidia.toml'}"
        config = self._folder / "containerd.toml"
        self._spawn("containerd", ["env", path, runtime, self._containerd / "containerd", "-c", config])
        until(lambda: self._ctr("version").returncode == 0, 60, what=f"containerd on {self.name}", interval=0.1)

    def start_kubelet(self) -> None:
        command: list[str | Path] = [self._programs / "kubelet", "--config", self._folder / "kubelet.json"]
        command += ["--kubeconfig", self._kubeconfig, "--hostname-override", self.name]
        command += ["--node-ip", self.address, "--root-dir", self._folder / "kubelet"]
        self._spawn("kubelet", command)

    def end(self, *names: str) -> None:
        """End some of its programs; containers keep running."""
        for name in names:
            self._children.pop(name).stop(grace=10.0)

    def load(self, archives: Sequence[Path]) -> None:
        """Load the images of OCI archives into containerd."""
        for archive in archives:
            done = self._ctr("images", "import", str(archive), timeout=300)
            assert done.returncode == 0, f"{archive} on {self.name}: {done.stderr}"

    def allow_plain_http(self, registry: str) -> None:
        """Let containerd pull from a registry (``host:port``) without TLS."""
        folder = self._folder / "registries" / registry
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(node_config.plain_http(registry))

    def vanish(self) -> None:
        """Kill all processes and containers at once, with the network cut first, so that no peer is notified."""
        ip("link", "set", cable_of(self.number), "down")
        for name in ("kubelet", "kube-proxy"):
            self._children.pop(name).kill()
        self._kill_containers()
        self._children.pop("containerd").kill()
        self._kill_shims()

    def stop(self) -> None:
        for name in ("kubelet", "kube-proxy"):
            if name in self._children:
                self._children.pop(name).stop(grace=5.0)
        if "containerd" in self._children:
            self._kill_containers()
            self._children.pop("containerd").stop(grace=10.0)
        self._kill_shims()
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper = None
        clear_node(self.number)

    def kill_container(self, container: str) -> None:
        """Send SIGKILL to a container's first process; ``container`` is its id in the pod's status."""
        done = self._ctr("task", "kill", "-s", "KILL", container.rpartition("/")[2])
        assert done.returncode == 0, f"kill of {container}: {done.stderr}"

    def mount_memory(self, path: Path, size: int, *, change: bool = False) -> None:
        """Mount a file system of ``size`` bytes at the folder, for the node and its pods; ``change`` its size."""
        options = f"{'remount,' if change else ''}size={size},mode=777"
        done = self.run("mount", "-t", "tmpfs", "-o", options, "tests", path)
        assert done.returncode == 0, f"mount of {path} on {self.name}: {done.stderr}"

    def run(self, *command: str | Path, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        """Return the command that runs inside the node's namespaces."""
        whole = [*self._inside(), *map(str, command)]
        return subprocess.run(whole, capture_output=True, text=True, timeout=timeout, check=False)

    def _configure(self) -> None:
        for name in ("cdi", "cni", "device-plugins", "kubelet", "sysctl"):
            (self._folder / name).mkdir()
        (self._folder / "cni" / "10-bridge.conflist").write_text(node_config.network(self._folder, self.pods))
        (self._folder / "containerd.toml").write_text(
            node_config.containerd(self._folder, cdi=self.cdi, nvidia_runtime=self._nvidia_runtime)
        )
        (self._folder / "nvidia.toml").write_text(node_config.nvidia(self.cdi))
        (self._folder / "kubelet.json").write_text(node_config.kubelet(self._folder, cgroup=self._cgroup))
        (self._folder / "proxy.json").write_text(node_config.proxy(self._proxy_kubeconfig))
        for name, value in node_config.SYSCTLS.items():
            (self._folder / "sysctl" / name.rpartition("/")[2]).write_text(value)

    @property
    def _cgroup(self) -> str:
        return cgroup_of(self.number)

    def _isolate(self) -> None:
        """Create the namespaces, kept by a sleeping process, and the veth pair to the bridge."""
        binds = "".join(
            f"mount --bind {self._folder}/sysctl/{name.rpartition('/')[2]} /proc/sys/{name}\n"
            for name in node_config.SYSCTLS
        )
        own = "".join(f"mkdir -p {path}\nmount -t tmpfs node {path}\n" for path in node_config.OWN_FOLDERS)
        shared = node_config.DEVICE_PLUGINS  # with the tests, which have no other way to the kubelet's socket
        own += f"mkdir -p {shared}\nmount --bind {self.device_plugins} {shared}\n"
        script = (
            "set -e\nmount --make-rshared /\nip link set lo up\nsysctl -qw net.ipv4.ip_forward=1\n"
            f"{own}{binds}touch {self._folder}/isolated\nexec sleep infinity"
        )
        command = ["unshare", "-m", "-n", "--propagation", "private", "bash", "-c", script]
        self._keeper = Child(f"{self.name} namespaces", command, log=self._folder / "namespaces.log")
        until((self._folder / "isolated").exists, 30, what=f"the namespaces of {self.name}")
        self._connect(self._keeper.pid)
        self._make_cgroups()

    def _connect(self, pid: int) -> None:
        cable = cable_of(self.number)
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        ip("link", "set", cable, "master", BRIDGE, "up")
        self._inside_ip("addr", "add", f"{self.address}/24", "dev", "eth0")
        self._inside_ip("link", "set", "eth0", "up")
        self._inside_ip("route", "add", "default", "via", GATEWAY)
        for other in NUMBERS:
            if other != self.number:
                self._inside_ip("route", "add", f"10.244.{other}.0/24", "via", f"10.99.0.{1 + other}")
        ip("route", "replace", self.pods, "via", self.address)
        if self.number == NUMBERS[0]:  # the machine itself reaches Services by way of the first node
            ip("route", "replace", SERVICES, "via", self.address)

    def _inside_ip(self, *arguments: str) -> None:
        done = self.run("ip", *arguments)
        assert done.returncode == 0, f"ip {' '.join(arguments)} on {self.name}: {done.stderr}"

    def _make_cgroups(self) -> None:
        for root in cgroup_roots():
            (root / self._cgroup).mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (root / name).exists() and root.name == "cpuset":
                    (root / self._cgroup / name).write_text((root / name).read_text())

    def _spawn(self, name: str, command: Sequence[str | Path]) -> None:
        log = self._folder / f"{name}.log"
        self._children[name] = Child(f"{self.name} {name}", [*self._inside(), *command], log=log)

    def _inside(self) -> list[str]:
        assert self._keeper is not None, f"{self.name} is not started"
        return ["nsenter", "-t", str(self._keeper.pid), "-m", "-n"]

    def _ctr(self, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        ctr, address = self._containerd / "ctr", f"{self._folder}/containerd.sock"
        return self.run(ctr, "--namespace", "k8s.io", "--address", address, *arguments, timeout=timeout)

    def _kill_containers(self) -> None:
        for task in self._ctr("task", "ls", "-q").stdout.split():
            self._ctr("task", "kill", "-s", "KILL", task)
        until(lambda: "RUNNING" not in self._ctr("task", "ls").stdout, 20, what=f"the end of {self.name}'s containers")

    def _kill_shims(self) -> None:
        kill_shims(self.name)


def cgroup_of(number: int) -> str:
    return f"corral-node-{number}"


def cable_of(number: int) -> str:
    return f"corral-{number}"


def cgroup_roots() -> list[Path]:
    """Return the cgroup roots: version 2 has one tree, version 1 one per controller."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def make_bridge() -> None:
    """Create the bridge. Raises AssertionError if that is not permitted."""
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")


def clear_left_over() -> None:
    """Remove the leftovers of a killed run; only one run at a time has nodes on a machine."""
    kill_shims()
    for number in NUMBERS:
        clear_node(number)
    ip("link", "del", BRIDGE, check=False)


def clear_node(number: int) -> None:
    kill_contained(number)
    ip("link", "del", cable_of(number), check=False)
    ip("route", "del", f"10.244.{number}.0/24", check=False)
    for root in cgroup_roots():
        for folder, _, _ in os.walk(root / cgroup_of(number), topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue


def kill_contained(number: int) -> None:
    """End all processes in the node's cgroups and wait for them."""

    def inside() -> set[int]:
        files = [file for root in cgroup_roots() for file in (root / cgroup_of(number)).rglob("cgroup.procs")]
        return {int(pid) for file in files for pid in _lines(file)} - {0}

    for pid in inside():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not inside(), 10, what=f"the end of what ran in {cgroup_of(number)}")


def kill_shims(node: str = "node-") -> None:
    """Ends the processes that hold the containers of a node of the tests, or of all."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        ours = any(f"/{PREFIX}" in word and f"/{node}" in word for word in words[1:])
        if words[0].endswith("containerd-shim-runc-v2") and ours:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0 or not check, f"ip {' '.join(arguments)}: {done.stderr.strip()}"
