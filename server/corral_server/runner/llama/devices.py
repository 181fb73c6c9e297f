"""GPUs as ggml enumerates them, in the order in which llama.cpp splits a model over them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

from corral_server.runner.llama.library import initialize, library

_GPU, _INTEGRATED_GPU = 1, 2
"""Values of ``enum ggml_backend_dev_type`` (``ggml-backend.h``)."""


class _Properties(ctypes.Structure):
    """``struct ggml_backend_dev_props``; its last field, five booleans, is not read."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("free", ctypes.c_size_t),
        ("total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 8),
    )


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU: ``name`` is ggml's (``CUDA0``), ``description`` the product's. ``free`` and ``total`` are bytes.

    ``free`` is what the driver reported when the device was listed. ``handle`` is the address of a
    ``ggml_backend_device``.
    """

    name: str
    description: str
    free: int
    total: int
    handle: int


def gpu_devices() -> tuple[Device, ...]:
    """List the GPUs that llama.cpp uses without a list of its own (``llama_prepare_model_devices``, ``llama.cpp``).

    A GPU that two backends see counts once, and integrated GPUs count only without others. Raises LoadFailed.
    """
    initialize()
    ggml = _functions()
    found: dict[int, list[Device]] = {_GPU: [], _INTEGRATED_GPU: []}
    ids: set[bytes] = set()
    for index in range(ggml.ggml_backend_dev_count()):
        handle, properties = ggml.ggml_backend_dev_get(index), _Properties()
        ggml.ggml_backend_dev_get_props(handle, ctypes.byref(properties))
        if properties.type not in found or properties.id in ids:
            continue
        if properties.id:
            ids.add(properties.id)
        found[properties.type].append(_device(handle, properties))
    return tuple(found[_GPU] or found[_INTEGRATED_GPU])


def device_of_buffer_type(buffer_type: int) -> int:
    """Return the handle of the device whose own memory a buffer type is; 0 for host memory."""
    ggml = _functions()
    return 0 if ggml.ggml_backend_buft_is_host(buffer_type) else ggml.ggml_backend_buft_get_device(buffer_type) or 0


def cpu_buffer_type() -> int:
    """Return the address of the buffer type of plain host memory."""
    return int(_functions().ggml_backend_cpu_buffer_type())


def _device(handle: int, properties: _Properties) -> Device:
    return Device(
        (properties.name or b"").decode("utf-8", "replace"),
        (properties.description or b"").decode("utf-8", "replace"),
        free=properties.free,
        total=properties.total,
        handle=handle,
    )


_POINTER: Final = ctypes.c_void_p


def _functions() -> ctypes.CDLL:
    """Return ``libggml``, whose functions pass pointers as addresses."""
    ggml = library()
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.argtypes, ggml.ggml_backend_dev_get.restype = [ctypes.c_size_t], _POINTER
    ggml.ggml_backend_dev_get_props.argtypes = [_POINTER, _POINTER]
    ggml.ggml_backend_dev_get_props.restype = None
    ggml.ggml_backend_buft_is_host.argtypes, ggml.ggml_backend_buft_is_host.restype = [_POINTER], ctypes.c_bool
    ggml.ggml_backend_buft_get_device.argtypes, ggml.ggml_backend_buft_get_device.restype = [_POINTER], _POINTER
    ggml.ggml_backend_cpu_buffer_type.argtypes, ggml.ggml_backend_cpu_buffer_type.restype = [], _POINTER
    return ggml
