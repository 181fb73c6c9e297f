"""gRPC services of the kubelet's plugin APIs, made from the proto files in the kubelet's own Go module.

The module has the version of the tests' kubelet, so a service that it does not know fails here. The files are compiled
at run time into one descriptor set: no generated module is imported.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from tests.cluster.tools import HERE

DEVICE_PLUGIN: Final = "v1beta1.DevicePlugin"
DEVICE_REGISTRATION: Final = "v1beta1.Registration"
PLUGIN_REGISTRATION: Final = "pluginregistration.Registration"
DRA_PLUGIN: Final = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
_FILES: Final = ("deviceplugin/v1beta1/api.proto", "pluginregistration/v1/api.proto", "dra/v1/api.proto")
_CALL_TIMEOUT: Final = 10.0

Message = Any
"""A protobuf message, whose class exists only at run time."""

Method = Callable[[Message, Any], Any]
"""Takes the request and the gRPC context; returns the response, or an iterator of them if the method streams."""


def message(name: str, /, **fields: object) -> Message:
    """Return a message of the type with this full name."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(name))(**fields)


def handler(service: str, methods: Mapping[str, Method]) -> Any:
    """Return the gRPC handler that implements these methods of the service."""
    return grpc.method_handlers_generic_handler(
        service, {name: _method_handler(service, name, method) for name, method in methods.items()}
    )


def _method_handler(service: str, name: str, method: Method) -> Any:
    described = _pool().FindServiceByName(service).FindMethodByName(name)
    make = grpc.unary_stream_rpc_method_handler if described.server_streaming else grpc.unary_unary_rpc_method_handler
    answer = message_factory.GetMessageClass(described.output_type)
    request = message_factory.GetMessageClass(described.input_type)
    return make(method, request_deserializer=request.FromString, response_serializer=answer.SerializeToString)


def call(socket: Path, service: str, method: str, /, **fields: object) -> None:
    """Call a unary method of the service at a Unix socket. Raises grpc.RpcError."""
    described = _pool().FindServiceByName(service).FindMethodByName(method)
    request = message_factory.GetMessageClass(described.input_type)
    answer = message_factory.GetMessageClass(described.output_type)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        invoke = channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        invoke(request(**fields), timeout=_CALL_TIMEOUT, wait_for_ready=True)


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    module = ["go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubelet"]
    found = subprocess.run(module, cwd=HERE, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as work:
        compiled = Path(work) / "descriptors"
        status = protoc.main(["protoc", f"-I{found}/pkg/apis", f"--descriptor_set_out={compiled}", *_FILES])
        assert status == 0, f"protoc failed with {found}"
        files = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool
