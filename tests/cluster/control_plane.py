"""A Kubernetes control plane of child processes: etcd, API server, controllers and scheduler.

Everything it writes lies in one folder of the run. Users are tokens: ``admin`` may do everything, the controllers
and the scheduler have the rights that Kubernetes itself gives them. The API server is ended before etcd, because it
keeps its port while it waits for an etcd that is gone.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.children import Child
from tests.support.waiting import until

_USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
_START = 90.0
_LOOPBACK = "127.0.0.1"


class ControlPlane:
    """``start`` once, ``stop`` once; between them the API server may be stopped and started at will."""

    def __init__(
        self,
        programs: Path,
        folder: Path,
        *,
        address: str = _LOOPBACK,
        users: Mapping[str, str] | None = None,
        audited: Sequence[str] = (),
    ) -> None:
        """``address`` is where the API server listens; ``users`` are further ones, each with its group.

        What the users in ``audited`` ask is written to ``audit_log``, a line of JSON for each request.
        """
        self._programs = programs
        self._folder = folder
        self._address = address
        self._users = _USERS | dict(users or {})
        self._audited = list(audited)
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        self._port, self._etcd_port, self._peer_port = free_ports(3)
        self._children: dict[str, Child] = {}

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.kubeconfig_of("admin")

    @property
    def audit_log(self) -> Path:
        return self._folder / "audit.log"

    @property
    def children(self) -> list[Child]:
        return list(self._children.values())

    def start(self) -> None:
        """etcd and the API server, until it is ready. Raises RuntimeError when a program ends instead."""
        self._folder.mkdir(parents=True)
        self._write_credentials()
        self._spawn("etcd", self._etcd_flags())
        self.start_api_server()

    def start_controllers(self) -> None:
        """Controllers and scheduler.

        The garbage collector looks for new kinds only every 30 s, so kinds that are to be collected come first.
        """
        self._spawn("kube-controller-manager", self._controller_flags())
        self._spawn("kube-scheduler", self._common("system:kube-scheduler"))

    def start_api_server(self) -> None:
        self._spawn("kube-apiserver", self._api_server_flags())
        until(self._ready, _START, what="the API server's readiness", interval=0.1)

    def kill_api_server(self) -> None:
        """As a crash would end it."""
        self._children.pop("kube-apiserver").kill()

    def stop(self) -> None:
        """Ends everything, the API server before its etcd."""
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            child = self._children.pop(name, None)
            if child is not None:
                child.stop(grace=2.0)  # an orderly end would wait for every client that keeps its connection

    def _spawn(self, name: str, flags: Mapping[str, str | int | Path]) -> None:
        command = [str(self._programs / name), *(f"--{flag}={value}" for flag, value in flags.items())]
        self._children[name] = Child(name, command, log=self._folder / f"{name}.log")

    def _ready(self) -> bool:
        for child in self.children:
            if not child.alive:
                raise RuntimeError(f"{child.name} ended with {child.exit_status()}:\n{child.tail(10)}")
        authority = self._folder / "certs" / "apiserver.crt"
        if not authority.exists():
            return False
        request = urllib.request.Request(f"https://{self._address}:{self._port}/readyz")
        request.add_header("Authorization", f"Bearer {self._tokens['admin']}")
        try:
            context = ssl.create_default_context(cafile=authority)
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _write_credentials(self) -> None:
        subprocess.run(
            ["openssl", "genrsa", "-out", self._folder / "accounts.key", "2048"],
            capture_output=True,
            check=True,
            timeout=60,
        )
        lines = [f'{self._tokens[user]},{user},{user},"{group}"\n' for user, group in self._users.items()]
        (self._folder / "tokens.csv").write_text("".join(lines))
        (self._folder / "audit.json").write_text(json.dumps(self._audit_policy()))
        for user in self._users:
            self.kubeconfig_of(user).write_text(self._kubeconfig_text(user))

    def kubeconfig_of(self, user: str) -> Path:
        return self._folder / f"{user.rpartition(':')[2]}.kubeconfig"

    def _kubeconfig_text(self, user: str) -> str:
        authority = self._folder / "certs" / "apiserver.crt"
        return (
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n"
            "clusters: [{name: test, cluster: "
            f'{{server: "https://{self._address}:{self._port}", certificate-authority: "{authority}"}}}}]\n'
            f'users: [{{name: "{user}", user: {{token: "{self._tokens[user]}"}}}}]\n'
            f'contexts: [{{name: test, context: {{cluster: test, user: "{user}"}}}}]\n'
        )

    def _etcd_flags(self) -> dict[str, str | int | Path]:
        peer, client = f"http://127.0.0.1:{self._peer_port}", f"http://127.0.0.1:{self._etcd_port}"
        return {
            "data-dir": self._folder / "etcd",
            "unsafe-no-fsync": "true",  # the data is thrown away; waiting for the disk would only cost time
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }

    def _audit_policy(self) -> dict[str, object]:
        heard = {"level": "Metadata", "users": self._audited, "omitStages": ["RequestReceived", "ResponseStarted"]}
        rules = [heard, {"level": "None"}] if self._audited else [{"level": "None"}]
        return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}

    def _api_server_flags(self) -> dict[str, str | int | Path]:
        key = self._folder / "accounts.key"
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "cert-dir": self._folder / "certs",
            "secure-port": self._port,
            "bind-address": self._address,
            "advertise-address": self._address,
            # EndpointSlices refuse loopback
            "endpoint-reconciler-type": "none" if self._address == _LOOPBACK else "lease",
            "kubelet-preferred-address-types": "InternalIP",
            "service-cluster-ip-range": "10.96.0.0/16",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "token-auth-file": self._folder / "tokens.csv",
            "audit-policy-file": self._folder / "audit.json",
            "audit-log-path": self.audit_log,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
        }

    def _controller_flags(self) -> dict[str, str | int | Path]:
        return self._common("system:kube-controller-manager") | {
            "service-account-private-key-file": self._folder / "accounts.key",
            "use-service-account-credentials": "true",
            "root-ca-file": self._folder / "certs" / "apiserver.crt",
        }

    def _common(self, user: str) -> dict[str, str | int | Path]:
        """``secure-port`` 0: nobody asks these for their health, and the ports would clash with another run's."""
        return {"kubeconfig": self.kubeconfig_of(user), "leader-elect": "false", "secure-port": 0}


def missing() -> str | None:
    """What this machine lacks besides the Kubernetes programs themselves; None: nothing."""
    for program, package in (("openssl", "openssl"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is not installed (package {package})"
    return None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
