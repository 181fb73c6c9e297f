"""How much memory the requests of a loaded model may take: what its container's limit leaves."""

from __future__ import annotations

import os

from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import MIB, REQUEST_BYTES, process_bytes
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.system.cgroup_memory import ContainerMemory

MINIMUM = 32 * MIB
"""For a limit below the estimate: small requests work, and more would not be safe."""


def request_memory(loaded: LoadedModel, memory: ContainerMemory | None) -> int:
    """Return the bytes for requests. ``memory`` is the container's, measured with the model loaded.

    The compute buffer of the projector is allocated with the first image. Mapped weights count as used although the
    kernel could drop their pages: it would read them again for every token. Without a limit an eighth of the machine's
    memory is for requests, as other runners share it.
    """
    if memory is None:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return max(REQUEST_BYTES, machine // 8)
    engine = loaded.engine
    config = LoadConfig(engine.context_length, engine.slots)
    process = process_bytes(loaded.metadata.dimensions, config, gpus=bool(engine.vram_bytes))
    dims = loaded.metadata.dimensions
    encoder = dims.projector_compute if dims is not None and not engine.vram_bytes else 0
    left = memory.limit - (engine.size_bytes - engine.vram_bytes) - process - encoder
    return max(MINIMUM, min(left, memory.free))
