"""Serves RPCs over mTLS behind their gates. Refuses to start when any RPC lacks a rule or a caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services._mesh.access import Checks, Gate
from services._mesh.descriptors import MethodRule, faults, method_rules
from services._mesh.interceptors import Draining, Handler
from services._mesh.listening import Unlistenable, listening_socket
from services._mesh.peers import allowed_callers
from services._mesh.settings import CallersSettings
from services._mesh.tls import CertificateFiles

Service = tuple[ServiceDescriptor, Any]


class Refused(Exception):
    """The process must not start: each line says which RPC breaks which rule."""


class MeshServer:
    """The gRPC server of one process."""

    def __init__(
        self,
        services: Sequence[Service],
        checks: Checks,
        callers: CallersSettings,
        files: CertificateFiles,
        profile: str,
    ) -> None:
        descriptors = [descriptor for descriptor, _ in services]
        _refuse_faults(descriptors, callers)
        self._draining = Draining()
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(
            maximum_concurrent_rpcs=checks.limits.concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", checks.limits.message_bytes),
                ("grpc.max_metadata_size", 16 * 1024),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        for descriptor, servicer in services:
            self._server.add_generic_rpc_handlers((_handlers(descriptor, servicer, checks, callers, self._draining),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if profile == "local":
            _reflect(descriptors, self._server)
        self._files = files

    async def start(self, address: str) -> int:
        """Listen at `address`; returns the port. NOT_SERVING until `set_serving(True)`. Raises Unlistenable."""
        await self.set_serving(False)
        listening_socket(address, "process.listen").close()  # gRPC takes no socket, and doesn't say what is wrong.
        try:
            port = self._server.add_secure_port(address, self._files.server_credentials())
        except RuntimeError as error:
            raise Unlistenable(address, "process.listen", "it was taken just now") from error
        await self._server.start()
        return port

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set("", status)

    async def stop(self, seconds: float) -> None:
        """Take no more calls, end streams, and give running calls `seconds` to end."""
        await self.set_serving(False)
        self._draining.begin()
        await self._server.stop(seconds)


def _refuse_faults(descriptors: Sequence[ServiceDescriptor], callers: CallersSettings) -> None:
    found = faults(descriptors)
    rules = [rule for descriptor in descriptors for rule in method_rules(descriptor)]
    names = {rule.name for rule in rules}
    found += [
        f"{rule.name} has no caller: name one under [callers.rpc]" for rule in rules if not _callers(rule, callers)
    ]
    found += [f"{name} under [callers.rpc] isn't an RPC of this process" for name in callers.rpc if name not in names]
    if found:
        raise Refused("\n".join(found))


def _callers(rule: MethodRule, callers: CallersSettings) -> Any:
    return allowed_callers(rule, callers.default, callers.rpc)


def _handlers(
    descriptor: ServiceDescriptor, servicer: Any, checks: Checks, callers: CallersSettings, draining: Draining
) -> grpc.GenericRpcHandler:
    methods = {}
    for rule in method_rules(descriptor):
        handler = Handler(Gate(rule, _callers(rule, callers), checks), checks.metrics, draining)
        behavior = getattr(servicer, rule.method)
        methods[rule.method] = handler.stream(behavior) if rule.response_streaming else handler.unary(behavior)
    return grpc.method_handlers_generic_handler(descriptor.full_name, methods)


def _reflect(descriptors: Sequence[ServiceDescriptor], server: grpc.aio.Server) -> None:
    from grpc_reflection.v1alpha import reflection

    reflection.enable_server_reflection(
        [*(descriptor.full_name for descriptor in descriptors), reflection.SERVICE_NAME], server
    )
