"""Memory of a context by device, as llama.cpp counts it: ``llama_get_memory_breakdown`` (``src/llama-ext.h``).

The function is C++: it returns a ``std::map`` by buffer type, whose nodes are read in the layout of libstdc++. So this
works on Linux only, and a new version of llama-cpp-python may change it; the tests compare it with llama.cpp's log. It
is the one way to the sizes of a model that was loaded with ``no_alloc``: the log has zeros for it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from corral_server.runner.llama.devices import device_of_buffer_type
from corral_server.runner.llama.library import C

_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes on one device: weights; KV cache and recurrent state; compute buffers."""

    model: int
    context: int
    compute: int


class _Node(ctypes.Structure):
    """A node of ``std::map<ggml_backend_buffer_type_t, llama_memory_breakdown_data>``."""

    _fields_ = (
        ("color", ctypes.c_size_t),
        ("parent", ctypes.c_void_p),
        ("left", ctypes.c_void_p),
        ("right", ctypes.c_void_p),
        ("buffer_type", ctypes.c_void_p),
        ("model", ctypes.c_size_t),
        ("context", ctypes.c_size_t),
        ("compute", ctypes.c_size_t),
    )


class _Map(ctypes.Structure):
    """The map itself, whose root is the parent of its header. ctypes passes the memory for such a large result."""

    _fields_ = (
        ("compare", ctypes.c_size_t),
        ("color", ctypes.c_size_t),
        ("root", ctypes.c_void_p),
        ("first", ctypes.c_void_p),
        ("last", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


def is_available() -> bool:
    """Whether this build of llama.cpp tells the memory by device."""
    return sys.platform == "linux" and hasattr(C._lib, _SYMBOL)


def memory_by_device(context: object) -> Mapping[int, DeviceMemory]:
    """Return the memory of a ``llama_context`` and its model by the handle of the device; 0 is host memory.

    The nodes of the map, some hundred bytes, are not freed.
    """
    function = getattr(C._lib, _SYMBOL)
    function.argtypes, function.restype = [ctypes.c_void_p], _Map
    found: dict[int, DeviceMemory] = {}
    for node in _nodes(function(context).root):
        device = device_of_buffer_type(node.buffer_type)
        before = found.get(device, DeviceMemory(0, 0, 0))
        found[device] = DeviceMemory(
            before.model + node.model, before.context + node.context, before.compute + node.compute
        )
    return found


def _nodes(address: int | None) -> Iterator[_Node]:
    if address:
        node = _Node.from_address(address)
        yield from _nodes(node.left)
        yield node
        yield from _nodes(node.right)
