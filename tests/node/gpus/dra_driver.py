"""DRA driver of the tests: it publishes fake GPUs as NVIDIA's driver does, and prepares claims for the kubelet."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

from tests.cluster.api import Api, at
from tests.node.gpus.kubelet_api import DRA_PLUGIN, PLUGIN_REGISTRATION, Message, handler, message
from tests.node.real_node import RealNode
from tests.support.fake_gpus import DRIVER, RESOURCES, FakeGpu, device_class, resource_slice
from tests.support.waiting import until

_DRA: Final = "k8s.io.kubelet.pkg.apis.dra.v1"
_REGISTRATION: Final = "pluginregistration"


class DraDriver:
    """Serves in threads of this process between ``start`` and ``stop``."""

    def __init__(self, gpus: Sequence[FakeGpu], node: RealNode, api: Api) -> None:
        self._gpus = {f"gpu-{gpu.index}": gpu for gpu in gpus}
        self._node = node
        self._api = api
        self._registered = ""
        self._slice = f"{node.name}-{DRIVER}"
        self._server = grpc.server(ThreadPoolExecutor(4))

    def start(self) -> None:
        """Serve, wait until the kubelet has registered the driver, and publish the devices and their class."""
        socket = self._node.plugins / DRIVER / "dra.sock"
        socket.parent.mkdir(parents=True)
        info = message(
            f"{_REGISTRATION}.PluginInfo",
            type="DRAPlugin",
            name=DRIVER,
            endpoint=str(socket),
            supported_versions=["v1.DRAPlugin"],
        )
        registration = {"GetInfo": lambda _request, _context: info, "NotifyRegistrationStatus": self._notified}
        preparation = {"NodePrepareResources": self._prepare, "NodeUnprepareResources": self._unprepare}
        services = (handler(PLUGIN_REGISTRATION, registration), handler(DRA_PLUGIN, preparation))
        self._server.add_generic_rpc_handlers(services)
        for path in (socket, self._node.plugins_registry / f"{DRIVER}-reg.sock"):
            assert self._server.add_insecure_port(f"unix:{path}")
        self._server.start()
        until(lambda: self._registered == "yes", 30, what=f"the registration ({self._registered})", interval=0.1)
        self._api.create(f"{RESOURCES}/deviceclasses", device_class())
        self._api.create(f"{RESOURCES}/resourceslices", resource_slice(self._node.name, list(self._gpus.values())))

    def set_memory(self, mebibytes: int) -> None:
        """Publish the devices with so much memory each."""
        published = resource_slice(self._node.name, list(self._gpus.values()), memory=f"{mebibytes}Mi")
        self._api.patch(f"{RESOURCES}/resourceslices/{self._slice}", {"spec": published["spec"]})

    def stop(self) -> None:
        self._api.delete(f"{RESOURCES}/resourceslices/{self._slice}")
        self._api.delete(f"{RESOURCES}/deviceclasses/{DRIVER}")
        self._server.stop(grace=None).wait()

    def _notified(self, request: Message, _context: Any) -> Message:
        self._registered = "yes" if request.plugin_registered else str(request.error)
        return message(f"{_REGISTRATION}.RegistrationStatusResponse")

    def _prepare(self, request: Message, _context: Any) -> Message:
        return message(
            f"{_DRA}.NodePrepareResourcesResponse",
            claims={claim.uid: self._prepared(claim.namespace, claim.name) for claim in request.claims},
        )

    def _prepared(self, namespace: str, name: str) -> Message:
        claim = self._api.get(f"{RESOURCES}/namespaces/{namespace}/resourceclaims/{name}")
        results = at(claim, "status", "allocation", "devices", "results")
        assert isinstance(results, list)
        devices = [
            message(
                f"{_DRA}.Device",
                request_names=[result["request"]],
                pool_name=result["pool"],
                device_name=result["device"],
                cdi_device_ids=[self._gpus[result["device"]].cdi_name],
                share_id=result.get("shareID"),
            )
            for result in results
        ]
        return message(f"{_DRA}.NodePrepareResourceResponse", devices=devices)

    def _unprepare(self, request: Message, _context: Any) -> Message:
        done = message(f"{_DRA}.NodeUnprepareResourceResponse")
        return message(f"{_DRA}.NodeUnprepareResourcesResponse", claims={claim.uid: done for claim in request.claims})
