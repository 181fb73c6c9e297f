"""Placement of a model's tensors on GPUs: the part of ``llama_model_params`` that says what goes where."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from corral_server.runner.llama.devices import Device, cpu_buffer_type
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.library import C

SPLIT_MODES: Final = ("none", "layer", "row")
"""In the order of ``enum llama_split_mode``. ``row`` needs a backend with split buffers, such as CUDA's."""
_EXPERTS: Final = r"blk\.%d\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""Names of the expert tensors of one layer, as in llama.cpp's option ``--n-cpu-moe`` (``common.h``)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Devices and layers of a model; without devices everything is in host memory.

    ``layers`` counts from the last one, which is the output; -1 is all. With ``split_mode`` none the model is on device
    number ``main_gpu`` alone. ``tensor_split`` are the shares of the devices; without them llama.cpp splits by their
    free memory. The experts of the first ``expert_layers_on_cpu`` layers stay in host memory.
    """

    devices: tuple[Device, ...] = ()
    layers: int = -1
    split_mode: str = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    expert_layers_on_cpu: int = 0

    def apply(self, params: Any) -> list[object]:
        """Set the fields of ``llama_model_params``; return what they point to, which has to live as long as the model.

        Raises LoadFailed for a device that does not exist: llama.cpp reads shares by the number of its devices.
        """
        self._check()
        params.n_gpu_layers = self.layers if self.devices else 0
        params.split_mode, params.main_gpu = SPLIT_MODES.index(self.split_mode), self.main_gpu
        devices = _pointers(device.handle for device in self.devices)
        shares = (ctypes.c_float * C.llama_max_devices())(*self.tensor_split)
        experts = _experts_on_cpu(self.expert_layers_on_cpu if self.devices else 0)
        params.devices, params.tensor_split = ctypes.addressof(devices), shares
        params.tensor_buft_overrides = ctypes.addressof(experts)
        return [devices, shares, experts]

    def _check(self) -> None:
        count = len(self.devices)
        if count and self.split_mode == "none" and self.main_gpu >= count:
            raise LoadFailed(f"there is no GPU {self.main_gpu}: llama.cpp finds {count}, counted from 0")
        if count and len(self.tensor_split) > count:
            raise LoadFailed(f"there are {len(self.tensor_split)} shares for {count} GPUs")


ON_CPU: Final = Placement()


class _Override(ctypes.Structure):
    """``struct llama_model_tensor_buft_override``."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def _pointers(addresses: Iterable[int]) -> ctypes.Array[ctypes.c_void_p]:
    """Return a list that a null pointer ends."""
    values = [*addresses, None]
    return (ctypes.c_void_p * len(values))(*values)


def _experts_on_cpu(layers: int) -> ctypes.Array[_Override]:
    patterns = [(_EXPERTS % layer).encode() for layer in range(layers)]
    return (_Override * (layers + 1))(*(_Override(pattern, cpu_buffer_type()) for pattern in patterns))
