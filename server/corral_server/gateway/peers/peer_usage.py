"""Usage of the peers, from their last reports.

- The report of a peer counts until none has arrived for ``PEER_TIMEOUT``, even if its stream is broken: the stream is
  reopened soon, and until then the last report is a better estimate than zero.
- A peer that is no longer a member is removed immediately.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from corral_core.base.exposition import Metric, gauge
from corral_core.base.json_fields import JsonObject
from corral_server.gateway.peers.usage import PEER_TIMEOUT, UsageReport
from corral_server.gateway.queueing.admission import PendingByNamespace


@dataclass
class _Peer:
    report: UsageReport
    received_at: float
    timer: asyncio.TimerHandle


class Peers:
    """Implements ``PeerPending``, ``ContendingPeers`` and ``PeerKeyUsage``. ``own_name`` is the name of this gateway.

    ``on_pending_change(key)`` is called when the pending requests of a peer for a model become zero or non-zero.
    """

    def __init__(self, own: str, *, timeout: float = PEER_TIMEOUT) -> None:
        self.own_name = own
        self.on_pending_change: Callable[[str], None] = lambda key: None
        self._timeout = timeout
        self._members: frozenset[str] = frozenset()
        self._peers: dict[str, _Peer] = {}
        self._total = 0

    @property
    def has_peers(self) -> bool:
        """Whether there is another gateway, reporting or not."""
        return bool(self._members)

    def pending_total(self) -> int:
        return self._total

    def pending_for(self, key: str) -> int:
        return sum(peer.report.pending.get(key, 0) for peer in self._peers.values())

    def pending_by_namespace(self) -> PendingByNamespace:
        found: dict[str, Counter[str]] = {}
        for peer in self._peers.values():
            for key, pending in peer.report.namespaces.items():
                found.setdefault(key, Counter()).update(pending)
        return found

    def contenders(self, key: str) -> Collection[str]:
        """Return the names of the peers with pending requests for this model."""
        return {peer.report.gateway for peer in self._peers.values() if key in peer.report.pending}

    def key_usage(self, key: str) -> tuple[int, int]:
        """Return the requests of this API key that run at the peers, and those started there in the last minute."""
        usages = [peer.report.key_usage[key] for peer in self._peers.values() if key in peer.report.key_usage]
        return sum(running for running, _ in usages), sum(recent for _, recent in usages)

    def key_tokens(self, key: str) -> tuple[int, int]:
        """Return the tokens of this API key at the peers, of the last minute and of the last day."""
        tokens = [peer.report.key_tokens[key] for peer in self._peers.values() if key in peer.report.key_tokens]
        return sum(minute for minute, _ in tokens), sum(day for _, day in tokens)

    def set_members(self, names: Iterable[str]) -> None:
        """Set the peers, by the names that ``receive`` gets."""
        self._members = frozenset(names)
        for name in self._peers.keys() - self._members:
            self._remove(name)

    def receive(self, name: str, line: JsonObject | None) -> None:
        """Apply a line of a peer's stream; None means that the stream has ended. Raises ValueError if it is invalid."""
        if line is None or name not in self._members:
            return
        report = UsageReport.from_json(line)
        if report.gateway == self.own_name:
            return  # an address of this gateway is in the list
        now = asyncio.get_running_loop().time()
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer(
                UsageReport(report.gateway), now, self._schedule_check(name, now + self._timeout)
            )
        before, peer.report, peer.received_at = peer.report, report, now
        self._apply_change(before, report)

    def families(self) -> Iterator[Metric]:
        members, reporting = len(self._members), len(self._peers)
        yield gauge("corral_gateway_peers", "Other gateway replicas behind the same Service.", [({}, members)])
        yield gauge(
            "corral_gateway_peers_reporting",
            "Other gateway replicas whose usage report is up to date.",
            [({}, reporting)],
        )

    def close(self) -> None:
        self.set_members(())

    def _schedule_check(self, name: str, when: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when, self._check_timeout, name)

    def _check_timeout(self, name: str) -> None:
        peer = self._peers[name]
        until = peer.received_at + self._timeout
        if until > asyncio.get_running_loop().time():
            peer.timer = self._schedule_check(name, until)
        else:
            self._remove(name)

    def _remove(self, name: str) -> None:
        peer = self._peers.pop(name)
        peer.timer.cancel()
        self._apply_change(peer.report, UsageReport(peer.report.gateway))

    def _apply_change(self, before: UsageReport, after: UsageReport) -> None:
        self._total += after.pending_total - before.pending_total
        for key in before.pending.keys() ^ after.pending.keys():
            self.on_pending_change(key)
