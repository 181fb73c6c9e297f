"""Kubernetes control plane of child processes: etcd, API server, controller manager and scheduler.

All files are in one folder of the run. Users authenticate with tokens: ``admin`` may do everything, controller manager
and scheduler have the permissions that Kubernetes gives them. The API server is stopped before etcd, because it keeps
its port while it waits for an etcd that is gone.
"""

from __future__ import annotations

import json
import secrets
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.cluster.api import Object, at
from tests.cluster.child_processes import Child
from tests.support.ports import free_ports
from tests.support.waiting import until

_USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
_START = 90.0
_LOOPBACK = "127.0.0.1"


class ControlPlane:
    """Call ``start`` and ``stop`` once; between them the API server may be killed and started any number of times."""

    def __init__(
        self,
        programs: Path,
        folder: Path,
        *,
        address: str = _LOOPBACK,
        users: Mapping[str, str] | None = None,
        audited: Sequence[str] = (),
    ) -> None:
        """``address`` is where the API server listens; ``users`` are further users with their groups.

        The requests of the users in ``audited`` are written to ``audit_log``, one JSON object per line.
        """
        self._programs = programs
        self._folder = folder
        self._address = address
        self._users = _USERS | dict(users or {})
        self._audited = list(audited)
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        self._port, self._etcd_port, self._peer_port = free_ports(3)
        self._children: dict[str, Child] = {}
        self._starts: list[tuple[datetime, datetime]] = []

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self.kubeconfig_of("admin")

    @property
    def audit_log(self) -> Path:
        return self._folder / "audit.log"

    @property
    def children(self) -> list[Child]:
        return list(self._children.values())

    def start(self) -> None:
        """Start etcd and the API server and wait until it is ready. Raises RuntimeError when a program ends instead."""
        self._folder.mkdir(parents=True)
        self._write_credentials()
        self._spawn("etcd", self._etcd_flags())
        self.start_api_server()

    def start_controllers(self) -> None:
        """Start controller manager and scheduler.

        The garbage collector discovers new kinds only every 30 s, so CRDs must be applied before.
        """
        self._spawn("kube-controller-manager", self._controller_flags())
        self._spawn("kube-scheduler", self._common("system:kube-scheduler"))

    def start_api_server(self) -> None:
        begin = datetime.now(UTC)
        self._spawn("kube-apiserver", self._api_server_flags())
        until(self._ready, _START, what="the API server's readiness", interval=0.1)
        self._starts.append((begin, datetime.now(UTC)))

    def audited(self) -> list[Object]:
        """Return the audit log: requests of the audited users with their responses.

        Requests that came before the API server was ready are left out: it answers them with 403 until it has read the
        roles.
        """
        requests: list[Object] = [json.loads(line) for line in self.audit_log.read_text().splitlines()]
        return [one for one in requests if not self._starting_at(str(at(one, "requestReceivedTimestamp")))]

    def _starting_at(self, timestamp: str) -> bool:
        time = datetime.fromisoformat(timestamp)
        return any(begin <= time <= ready for begin, ready in self._starts)

    def kill_api_server(self) -> None:
        """Kill the API server, as a crash would end it."""
        self._children.pop("kube-apiserver").kill()

    def back_up(self, folder: Path) -> None:
        """Copy the data of etcd to ``folder``; etcd and the API server are stopped meanwhile."""
        self._stop_etcd()
        shutil.copytree(self._folder / "etcd", folder)
        self._start_etcd()

    def restore(self, folder: Path) -> None:
        """Restore the data of etcd from a backup, so that resource versions continue from those of the backup."""
        self._stop_etcd()
        shutil.rmtree(self._folder / "etcd")
        shutil.copytree(folder, self._folder / "etcd")
        self._start_etcd()

    def _stop_etcd(self) -> None:
        self.kill_api_server()
        self._children.pop("etcd").stop()

    def _start_etcd(self) -> None:
        self._spawn("etcd", self._etcd_flags())
        self.start_api_server()

    def stop(self) -> None:
        """Stop everything, the API server before etcd."""
        for name in ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            child = self._children.pop(name, None)
            if child is not None:
                child.stop(grace=2.0)  # a graceful shutdown would wait for every open connection

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
            "unsafe-no-fsync": "true",  # the data is temporary, so waiting for the disk is not needed
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }

    def _audit_policy(self) -> dict[str, object]:
        audited = {"level": "Metadata", "users": self._audited, "omitStages": ["RequestReceived", "ResponseStarted"]}
        rules = [audited, {"level": "None"}] if self._audited else [{"level": "None"}]
        return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules}

    def _api_server_flags(self) -> dict[str, str | int | Path]:
        key = self._folder / "accounts.key"
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "cert-dir": self._folder / "certs",
            "secure-port": self._port,
            "bind-address": self._address,
            "advertise-address": self._address,
            # EndpointSlices reject loopback addresses
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
        """``secure-port`` 0: no health port, which could be in use by another run."""
        return {"kubeconfig": self.kubeconfig_of(user), "leader-elect": "false", "secure-port": 0}


def missing() -> str | None:
    """Return what this machine lacks beside the Kubernetes programs; None if nothing."""
    for program, package in (("openssl", "openssl"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            return f"{program} is not installed (package {package})"
    return None
