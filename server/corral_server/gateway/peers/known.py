"""What the other gateways hold, as far as they have said it lately.

A peer counts from its first line until it was silent for ``SILENCE``, whether its stream stands or not: a stream that
broke is soon opened again, and what its requests are is better guessed from the last word than as none. A peer that is
no longer listed is forgotten at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from corral_core.jsonfields import Json
from corral_core.metrics import Family, gauge
from corral_server.gateway.peers.held import SILENCE, Held


@dataclass
class _Peer:
    held: Held
    heard_at: float
    timer: asyncio.TimerHandle


class Peers:
    """Implements ``admission.Elsewhere``, ``shares.Rivals`` and ``rates.Elsewhere``. ``own`` is this gateway's name.

    ``changed(key)`` is called when what waits elsewhere for a model changed between none and some.
    """

    def __init__(self, own: str, *, silence: float = SILENCE) -> None:
        self.own = own
        self.changed: Callable[[str], None] = lambda key: None
        self._silence = silence
        self._listed: frozenset[str] = frozenset()
        self._peers: dict[str, _Peer] = {}
        self._total = 0

    @property
    def any(self) -> bool:
        """Whether there is another gateway, heard or not."""
        return bool(self._listed)

    def total(self) -> int:
        return self._total

    def of(self, key: str) -> int:
        return sum(peer.held.waiting.get(key, 0) for peer in self._peers.values())

    def keys(self) -> Iterable[str]:
        return {key for peer in self._peers.values() for key in peer.held.waiting}

    def rivals(self, key: str) -> Collection[str]:
        """The gateways at which requests wait for this model, this one apart."""
        return {peer.held.gateway for peer in self._peers.values() if key in peer.held.waiting}

    def use(self, key: str) -> tuple[int, int]:
        """How many requests of this API key run at the others, and how many began there in the last minute."""
        said = [peer.held.uses[key] for peer in self._peers.values() if key in peer.held.uses]
        return sum(running for running, _ in said), sum(lately for _, lately in said)

    def list(self, names: Iterable[str]) -> None:
        """The peers that there are, by the names under which they are ``heard``."""
        self._listed = frozenset(names)
        for name in self._peers.keys() - self._listed:
            self._forget(name)

    def heard(self, name: str, line: Json | None) -> None:
        """Raises ValueError for a line that makes no sense."""
        if line is None or name not in self._listed:
            return
        held = Held.from_json(line)
        if held.gateway == self.own:
            return  # the list led back here
        now = asyncio.get_running_loop().time()
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = _Peer(Held(held.gateway), now, self._look_at(name, now + self._silence))
        before, peer.held, peer.heard_at = peer.held, held, now
        self._tell(before, held)

    def families(self) -> Iterator[Family]:
        """How many there are, and how many of them tell what they hold."""
        listed, heard = len(self._listed), len(self._peers)
        yield gauge("corral_gateway_peers", "Other gateways of the same Service.", [({}, listed)])
        yield gauge("corral_gateway_peers_heard", "Of these, the ones that lately told what they hold.", [({}, heard)])

    def close(self) -> None:
        self.list(())

    def _look_at(self, name: str, when: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when, self._look, name)

    def _look(self, name: str) -> None:
        peer = self._peers[name]
        until = peer.heard_at + self._silence
        if until > asyncio.get_running_loop().time():
            peer.timer = self._look_at(name, until)
        else:
            self._forget(name)

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name)
        peer.timer.cancel()
        self._tell(peer.held, Held(peer.held.gateway))

    def _tell(self, before: Held, after: Held) -> None:
        self._total += after.total - before.total
        for key in before.waiting.keys() ^ after.waiting.keys():
            self.changed(key)
