"""What a runner says of itself, followed over one HTTP stream for as long as it lives.

The stream is opened again whenever it breaks. A runner that is silent for three heartbeats cannot be asked: its
activity is None until it is heard again.
"""

from __future__ import annotations

from collections.abc import Callable

from corral_core.activity import HEARTBEAT, Activity
from corral_core.jsonfields import Json
from corral_server.gateway import streams

SILENCE = 3 * HEARTBEAT


async def follow(port: int, heard: Callable[[Activity | None], None], *, silence: float = SILENCE) -> None:
    """Calls ``heard`` with every activity of the runner at this port of the loopback interface, until cancelled."""

    def line(said: Json | None) -> None:
        heard(None if said is None else Activity.from_json(said))

    path, pause = "/activity?watch=true", streams.FIRST_PAUSE
    await streams.follow("127.0.0.1", port, path, heard=line, silence=silence, longest_pause=pause)
