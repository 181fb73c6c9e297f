"""Load of an idle installation: requests to the API server, memory and CPU time.

An operator and two gateways run as processes with a real API server and many Models at zero replicas. When the state is
stable, the API server's audit log counts the requests of each process for a while, and /proc has their memory and CPU
time. Renewals of the operator's Lease are counted separately, because they do not depend on the Models. Watches are
counted when they end, a few times per hour.

    python bench/idle.py [--models N] [--seconds N]

Needs what the tests with an API server need (docs/development.md). The last line is a JSON object; counts are requests
per minute, and ``writes`` are those of all three processes without the Lease renewals.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cluster.api import Object, at
from tests.cluster.child_processes import Child
from tests.cluster.cluster import Cluster, open_cluster
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.installation import Installation, installation
from tests.cluster.tools import programs
from tests.support.waiting import until

PARTS = ("operator", "gateway-1", "gateway-2")
QUIET = 20.0
"""Seconds without a write, but for the Lease's, after which all is settled."""

_WRITES = frozenset({"create", "update", "patch", "delete"})
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Use:
    """CPU time of a process so far in seconds, and its memory now in bytes."""

    cpu: float
    memory: int


def use_of(child: Child) -> Use:
    folder = Path(f"/proc/{child.pid}")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int((folder / "statm").read_text().split()[1])
    return Use(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))


class Audit:
    """Requests in the audit log of the API server."""

    def __init__(self, cluster: Cluster) -> None:
        if cluster.control_plane is None:
            sys.exit("this needs a control plane of its own: unset CORRAL_TEST_KUBECONFIG")
        self._log = cluster.control_plane.audit_log

    def length(self) -> int:
        return self._log.stat().st_size

    def since(self, offset: int) -> list[Object]:
        with self._log.open("rb") as file:
            file.seek(offset)
            return [json.loads(line) for line in file.read().splitlines()]


def what(request: Object) -> str:
    resource = at(request, "objectRef", "resource") or at(request, "requestURI")
    part = at(request, "objectRef", "subresource")
    return f"{at(request, 'verb')} {resource}{f'/{part}' if part else ''}"


def is_write(request: Object) -> bool:
    return at(request, "verb") in _WRITES and not is_lease(request)


def is_lease(request: Object) -> bool:
    return at(request, "objectRef", "resource") == "leases"


def settle(audit: Audit, installed: Installation, names: list[str]) -> None:
    """Wait until every Model is Idle and nothing was written for a while."""
    for name in names:
        installed.wait_phase(name, "Idle", 600)
    seen = audit.length()
    quiet_since = time.monotonic()

    def quiet() -> bool:
        nonlocal seen, quiet_since
        if any(is_write(request) for request in audit.since(seen)):
            quiet_since = time.monotonic()
        seen = audit.length()
        return time.monotonic() - quiet_since > QUIET

    until(quiet, 600, what="a quiet cluster", interval=0.5)


def counted(requests: list[Object], seconds: float) -> dict[str, dict[str, float]]:
    """Return requests per minute by process and kind."""
    counts: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    for request in requests:
        counts[str(at(request, "user", "username"))][what(request)] += 1
    return {part: {kind: count * 60 / seconds for kind, count in kinds.items()} for part, kinds in counts.items()}


def measure(installed: Installation, audit: Audit, *, seconds: float, models: int) -> dict[str, object]:
    children = {child.name: child for child in installed.children}
    before, offset, start = {part: use_of(children[part]) for part in PARTS}, audit.length(), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - start
    requests = audit.since(offset)
    after = {part: use_of(children[part]) for part in PARTS}
    rates = counted(requests, took)
    figures: dict[str, object] = {"models": models, "seconds": round(took, 1)}
    figures["writes"] = round(sum(map(is_write, requests)) * 60 / took, 2)
    figures["lease_writes"] = round(sum(map(_renews, requests)) * 60 / took, 2)
    figures["reads"] = round(sum(not is_write(one) and not _renews(one) for one in requests) * 60 / took, 2)
    for part in PARTS:
        share = 100 * (after[part].cpu - before[part].cpu) / took
        show(part, rates[part], after[part], share)
        figures[f"{part}_rss_mib"] = round(after[part].memory / _MIB, 1)
        figures[f"{part}_cpu_percent"] = round(share, 2)
    return figures


def _renews(request: Object) -> bool:
    return is_lease(request) and at(request, "verb") in _WRITES


def show(part: str, rates: Mapping[str, float], use: Use, share: float) -> None:
    print(f"{part}: {use.memory / _MIB:.0f} MiB resident, {share:.2f} % of one core; requests per minute:")
    for kind, rate in sorted(rates.items(), key=lambda item: -item[1]):
        print(f"  {rate:8.2f}  {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Load of an idle installation.")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=180.0)
    options = parser.parse_args()
    names = [f"idle-{number}" for number in range(options.models)]
    with open_cluster(programs(report=print), audited_users=PARTS) as cluster, cluster.namespace() as namespace:
        audit = Audit(cluster)
        kubelet = FakeKubelet(cluster.api, cluster.workspace)
        try:
            with installation(cluster, namespace, runners=lambda: kubelet.children(namespace)) as installed:
                start(installed, cluster)
                for name in names:
                    installed.add(name)
                settle(audit, installed, names)
                figures = measure(installed, audit, seconds=options.seconds, models=options.models)
        finally:
            kubelet.stop()
    print(json.dumps(figures))


def start(installed: Installation, cluster: Cluster) -> None:
    assert cluster.control_plane is not None
    config = {part: str(cluster.control_plane.kubeconfig_of(part)) for part in PARTS}
    installed.start_operator(PARTS[0], KUBECONFIG=config[PARTS[0]])
    for part in PARTS[1:]:
        installed.start_gateway(part, KUBECONFIG=config[part])


if __name__ == "__main__":
    main()
