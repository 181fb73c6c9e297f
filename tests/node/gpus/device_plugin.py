"""Device plugin of the tests: it offers fake GPUs to the kubelet as NVIDIA's plugin offers real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Literal

import grpc

from tests.node.gpus.kubelet_api import DEVICE_PLUGIN, DEVICE_REGISTRATION, Message, call, handler, message
from tests.support.fake_gpus import KIND, FakeGpu

_SOCKET: Final = "nvidia-gpu.sock"
DeviceListStrategy = Literal["cdi-cri", "envvar"]
"""How a container gets its devices, by NVIDIA's names: the plugin names CDI devices to the kubelet, or a variable tells
NVIDIA's runtime.
"""


class DevicePlugin:
    """Serves in threads of this process between ``start`` and ``stop``. ``strategy`` may be set at any time."""

    def __init__(self, gpus: Sequence[FakeGpu], folder: Path) -> None:
        self.strategy: DeviceListStrategy = "cdi-cri"
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._folder = folder
        self._unhealthy: set[str] = set()
        self._streams: list[SimpleQueue[Message]] = []
        self._server = grpc.server(ThreadPoolExecutor(4))

    def start(self) -> None:
        """Serve, and register with the kubelet."""
        methods = {
            "GetDevicePluginOptions": lambda _request, _context: message("v1beta1.DevicePluginOptions"),
            "ListAndWatch": self._list_and_watch,
            "Allocate": self._allocate,
        }
        self._server.add_generic_rpc_handlers((handler(DEVICE_PLUGIN, methods),))
        assert self._server.add_insecure_port(f"unix:{self._folder / _SOCKET}")
        self._server.start()
        kubelet = self._folder / "kubelet.sock"
        call(kubelet, DEVICE_REGISTRATION, "Register", version="v1beta1", endpoint=_SOCKET, resource_name=KIND)

    def stop(self) -> None:
        self._server.stop(grace=None).wait()

    def set_healthy(self, uuid: str, healthy: bool) -> None:
        """Change the health of a device, and report it to the kubelet."""
        (self._unhealthy.discard if healthy else self._unhealthy.add)(uuid)
        for reports in self._streams:
            reports.put(self._devices())

    def _list_and_watch(self, _request: Message, context: Any) -> Iterator[Message]:
        """Yield the devices at the start and after each change."""
        reports: SimpleQueue[Message] = SimpleQueue()
        reports.put(self._devices())
        self._streams.append(reports)
        context.add_callback(lambda: reports.put(None))
        yield from iter(reports.get, None)

    def _devices(self) -> Message:
        health = {uuid: "Unhealthy" if uuid in self._unhealthy else "Healthy" for uuid in self._gpus}
        devices = [message("v1beta1.Device", ID=uuid, health=state) for uuid, state in health.items()]
        return message("v1beta1.ListAndWatchResponse", devices=devices)

    def _allocate(self, request: Message, _context: Any) -> Message:
        containers = [self._container(list(each.devices_ids)) for each in request.container_requests]
        return message("v1beta1.AllocateResponse", container_responses=containers)

    def _container(self, uuids: Sequence[str]) -> Message:
        if self.strategy == "envvar":
            return message("v1beta1.ContainerAllocateResponse", envs={"NVIDIA_VISIBLE_DEVICES": ",".join(uuids)})
        devices = [message("v1beta1.CDIDevice", name=self._gpus[uuid].cdi_name) for uuid in uuids]
        return message("v1beta1.ContainerAllocateResponse", cdi_devices=devices)
