"""A good tenant's requests beside a hostile tenant, on a real node.

Two Models are loaded, in a namespace each. The good tenant sends short requests without a pause, in turn alone for a
while and beside the hostile tenant, so that other work on the machine affects both alike. The hostile tenant repeats
its attacks in rounds: Model objects that are nested or sized to break their readers, names of others, Deployments that
are refused, a pod that pretends to be a runner, request bodies, templates, schemas and prompts that cost more than
they should, and floods of requests and connections. The outcomes of attacks are counted. The hostile runner is limited
to a third of a core, as on any node that tenants share.

    python bench/hostile_tenant.py [--minutes N]

Needs what the tests on a real node need (docs/development.md). The last line is a JSON object: ``lost`` requests of the
good tenant (must be 0), and ``p99_ratio``, its 99th percentile under attack over the quiet one (limit: 2).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cluster.api import at
from tests.cluster.tools import programs
from tests.node import images
from tests.node.real_cluster import NEEDED, WEIGHTS, RealCluster, missing, open_cluster
from tests.node.release import COLD_START, MODELS_NAMESPACE, NAMESPACE, Release

GOOD, HOSTILE = "good", "hostile"
CLIENTS = 2
LIMIT = 2.0
ALONE, ATTACKED = 30.0, 120.0
"""Seconds of one turn without and with attacks."""
PAUSE = 5.0
"""Seconds after the attacks of a turn, whose last requests may still run, before the good tenant counts as alone."""
_LIMITED = {"resources": {"limits": {"cpu": "300m"}}, "env": [{"name": "CORRAL_THREADS", "value": "1"}]}
_IMPOSTOR = """
import http.server
class Runner(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        for line in (b'{"expires_at": 1e300, "in_flight": 1e999}', b'[' * 5000, b'{"expires_at": NaN}'):
            self.wfile.write(line + b'\\n')
    do_POST = do_GET
http.server.ThreadingHTTPServer(("", 8080), Runner).serve_forever()
"""


@dataclass
class Tenant:
    """The good tenant's clients; ``latencies`` are seconds of answered requests since ``begin``."""

    url: str
    latencies: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, name=f"good-{number}") for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def begin(self) -> None:
        """Forget the requests so far."""
        self.latencies = []

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        body = {"model": GOOD, "prompt": "Tell me a story.", "options": {"num_predict": 8, "temperature": 0}}
        with httpx.Client(timeout=120) as client:
            while not self._stop.is_set():
                start = time.monotonic()
                try:
                    answer = client.post(f"{self.url}/api/generate", json=body | {"stream": False})
                    if answer.status_code != 200 or not answer.json().get("done"):
                        raise ConnectionError(f"{answer.status_code}: {answer.text[:200]}")
                except (httpx.TransportError, ConnectionError, ValueError) as error:
                    self.lost.append(repr(error))
                    continue
                self.latencies.append(time.monotonic() - start)


class Attacker:
    """The hostile tenant: it may write Models and pods in its namespace, and send requests."""

    def __init__(self, cluster: RealCluster, url: str) -> None:
        self._cluster = cluster
        self._url = url
        self._random = random.Random(1)
        self.outcomes: Counter[str] = Counter()

    def attacks(self) -> Sequence[Callable[[], str]]:
        objects = (self.deep_object, self.large_quantity, self.stolen_name, self.refused_pod, self.large_variable)
        requests = (self.template, self.loop, self.schema, self.formats, self.prompt, self.two_models, self.deep_body)
        return (*objects, self.impostor, *requests, self.flood, self.connections, self.slow_bodies)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            attacks = list(self.attacks())
            self._random.shuffle(attacks)
            for attack in attacks:
                if time.monotonic() > end:
                    return
                self.outcomes[f"{attack.__name__}: {self._try(attack)}"] += 1

    def _try(self, attack: Callable[[], str]) -> str:
        try:
            return attack()
        except (httpx.HTTPError, OSError) as error:
            return type(error).__name__

    def _apply(self, name: str, spec: dict[str, object]) -> str:
        metadata = {"name": name, "namespace": HOSTILE}
        document: dict[str, object] = {
            "apiVersion": "corral.dev/v1alpha1",
            "kind": "Model",
            "metadata": metadata,
            "spec": spec,
        }
        try:
            self._cluster.apply(document)
        except AssertionError:
            return "refused"
        return "admitted"

    def _small(self, **pod: object) -> dict[str, object]:
        return {"source": f"pvc://weights/{WEIGHTS}", "contextLength": 512, "parallel": 1, "pod": _LIMITED | pod}

    def deep_object(self) -> str:
        nested: dict[str, object] = {}
        for _ in range(800):
            nested = {"a": nested}
        return self._apply("deep", self._small(affinity={"nodeAffinity": nested}))

    def large_quantity(self) -> str:
        size = self._random.choice(["1e1000", "9" * 5000, "1e-999999"])
        return self._apply("quantity", self._small(resources={"limits": {"memory": size}}))

    def stolen_name(self) -> str:
        return self._apply("thief", self._small() | {"names": [GOOD, f"{MODELS_NAMESPACE}/{GOOD}", f"{GOOD}:latest"]})

    def refused_pod(self) -> str:
        verdict = self._apply("refused", self._small(affinity={"nodeAffinity": {"nonsense": [1]}}))
        self._ask({"model": "refused", "prompt": "x"}, timeout=2)
        return verdict

    def large_variable(self) -> str:
        variables = [{"name": f"V{number}", "value": "x" * 4000} for number in range(100)]
        return self._apply("variable", self._small(env=variables))

    def impostor(self) -> str:
        labels = {
            "corral.dev/model": HOSTILE,
            "app.kubernetes.io/component": "runner",
            "app.kubernetes.io/name": "corral",
        }
        container = {
            "name": "runner",
            "image": "corral/control:dev",
            "command": ["/opt/corral/bin/python", "-c", _IMPOSTOR],
            "ports": [{"containerPort": 8080}],
            "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        secure = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
        metadata = {"name": "impostor", "namespace": HOSTILE, "labels": labels}
        spec = {"containers": [container], "securityContext": secure}
        try:
            self._cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        except AssertionError:
            return "refused"
        return "admitted"

    def template(self) -> str:
        return self._ask({"model": HOSTILE, "prompt": "x", "template": "{{a}}" * 40_000})

    def loop(self) -> str:
        loops = "{{ range .Messages }}{{ range $.Messages }}{{ range $.Messages }}x{{ end }}{{ end }}{{ end }}"
        return self._ask({"model": HOSTILE, "prompt": "x", "template": loops * 100})

    def schema(self) -> str:
        parts = [{"type": "string", "maxLength": 1000}] * 3900
        return self._ask({"model": HOSTILE, "prompt": "x", "format": {"type": "array", "prefixItems": parts}})

    def formats(self) -> str:
        parts = [{"type": "string", "format": "uuid"}] * 3900
        return self._ask({"model": HOSTILE, "prompt": "x", "format": {"anyOf": parts}})

    def prompt(self) -> str:
        return self._ask({"model": HOSTILE, "prompt": "word " * 4_000_000, "raw": True}, timeout=30)

    def two_models(self) -> str:
        text = f'{{"model": "{HOSTILE}", "MODEL": "{GOOD}", "prompt": "x", "options": {{"num_predict": 4}}}}'
        headers = {"Cookie": "session=1", "Authorization": "Bearer x", "Content-Type": "application/json"}
        return str(httpx.post(f"{self._url}/api/generate", content=text, headers=headers, timeout=30).status_code)

    def deep_body(self) -> str:
        return str(httpx.post(f"{self._url}/api/chat", content="[" * 1_000_000, timeout=30).status_code)

    def flood(self) -> str:
        """Send 200 requests to the own Model and leave before they are answered."""
        body = {"model": HOSTILE, "prompt": "Tell me a story.", "options": {"num_predict": 500}}
        sockets = [self._connect() for _ in range(200)]
        payload = json.dumps(body).encode()
        head = f"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        for one in sockets:
            one.sendall(head + payload)
        return self._hold(sockets, 5)

    def connections(self) -> str:
        return self._hold([self._connect() for _ in range(800)], 5)

    def slow_bodies(self) -> str:
        sockets = [self._connect() for _ in range(100)]
        for one in sockets:
            one.sendall(b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n{")
        return self._hold(sockets, 5)

    def _connect(self) -> socket.socket:
        address = urlsplit(self._url)
        return socket.create_connection((str(address.hostname), address.port or 80), timeout=10)

    def _hold(self, sockets: list[socket.socket], seconds: float) -> str:
        threading.Event().wait(seconds)
        for one in sockets:
            one.close()
        return "held"

    def _ask(self, body: dict[str, object], timeout: float = 60) -> str:
        content = json.dumps({"stream": False, "options": {"num_predict": 4}} | body)
        return str(httpx.post(f"{self._url}/api/generate", content=content, timeout=timeout).status_code)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def measure(cluster: RealCluster, *, minutes: float) -> dict[str, object]:
    for namespace in (NAMESPACE, MODELS_NAMESPACE, HOSTILE):
        cluster.make_namespace(namespace)
    release = Release(cluster)
    release.install()
    release.add(GOOD, parallel=4)
    attacker = Attacker(cluster, release.url)
    attacker._apply(HOSTILE, attacker._small())
    release.ask(GOOD).result(COLD_START)
    release.ask(HOSTILE).result(COLD_START)
    restarts = _restarts(cluster)
    tenant = Tenant(release.url)
    tenant.start()
    try:
        alone, attacked = take_turns(tenant, attacker, minutes * 60)
    finally:
        tenant.stop()
        release.close()
    for outcome, count in sorted(attacker.outcomes.items()):
        print(f"{count:6} {outcome}")
    before, during = percentile(alone, 0.99), percentile(attacked, 0.99)
    return {
        "requests": len(alone) + len(attacked),
        "attacks": sum(attacker.outcomes.values()),
        "lost": len(tenant.lost),
        "errors": tenant.lost[:5],
        "restarts": _restarts(cluster) - restarts,
        "quiet_p99_s": round(before, 3),
        "attacked_p99_s": round(during, 3),
        "p99_ratio": round(during / before, 2),
    }


def take_turns(tenant: Tenant, attacker: Attacker, seconds: float) -> tuple[list[float], list[float]]:
    """Attack for ``seconds`` in all; return the good tenant's latencies without and with attacks."""
    alone: list[float] = []
    attacked: list[float] = []
    while seconds > 0:
        time.sleep(PAUSE)
        tenant.begin()
        time.sleep(ALONE)
        alone += tenant.latencies
        tenant.begin()
        attacker.run(min(seconds, ATTACKED))
        attacked += tenant.latencies
        seconds -= ATTACKED
    return alone, attacked


def _restarts(cluster: RealCluster) -> int:
    """Return how often containers of the operator, the gateways and the good runner were started again."""
    total = 0
    for namespace in (NAMESPACE, MODELS_NAMESPACE):
        for pod in cluster.api.items(f"/api/v1/namespaces/{namespace}/pods"):
            count = at(pod, "status", "containerStatuses", 0, "restartCount")
            total += count if isinstance(count, int) else 0
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description="A good tenant's requests beside a hostile tenant, on a real node.")
    parser.add_argument("--minutes", type=float, default=20, help="duration of the attacks")
    arguments = parser.parse_args()
    if reason := missing() or images.missing():
        raise SystemExit(reason)
    with open_cluster(programs(NEEDED), images.archives()) as cluster:
        figures = measure(cluster, minutes=arguments.minutes)
    print(json.dumps(figures))
    if figures["lost"] or figures["restarts"] or float(str(figures["p99_ratio"])) > LIMIT:
        raise SystemExit("the good tenant was disturbed")


if __name__ == "__main__":
    main()
