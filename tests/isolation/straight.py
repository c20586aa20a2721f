"""Calls that go straight at a service, past the edge, under the certificate of any process."""

from __future__ import annotations

import time

import grpc

from recoup.identity.v1 import identity_service_pb2, identity_service_pb2_grpc
from recoup_local.issuer import organization_id
from services._mesh.descriptors import MethodRule
from tests.support.mesh import TestMesh, blocking_channel_of

# Well below the five minutes of a passport.
_KEPT_SECONDS = 60.0


class Straight:
    """Connections that are kept for the whole suite: it asks as everybody, of everybody."""

    def __init__(self, made: TestMesh) -> None:
        self._made = made
        self._channels: dict[tuple[str, str], grpc.Channel] = {}
        self._passports: dict[tuple[str, str, str], tuple[str, float]] = {}

    def channel(self, process: str, peer: str) -> grpc.Channel:
        """A channel to `process` under the certificate of `peer`."""
        if (process, peer) not in self._channels:
            self._channels[process, peer] = blocking_channel_of(self._made.mesh, process, peer)
        return self._channels[process, peer]

    def passport(self, organization: str, role: str, audience: str) -> str:
        """A passport that a typed client presents to `audience`."""
        key = (organization, role, audience)
        kept, issued_at = self._passports.get(key, ("", 0.0))
        if time.monotonic() - issued_at > _KEPT_SECONDS or not kept:
            request = identity_service_pb2.IssuePassportRequest(
                session_token=self._made.mesh.token(organization, role),
                audience=audience,
                organization_id=str(organization_id(organization)),
            )
            stub = identity_service_pb2_grpc.IdentityServiceStub(self.channel("identity", "client/tests"))
            kept = str(stub.IssuePassport(request, timeout=10).passport)
            self._passports[key] = (kept, time.monotonic())
        return kept

    def code(
        self, process: str, peer: str, rule: MethodRule, request: object, metadata: tuple[tuple[str, str], ...]
    ) -> grpc.StatusCode:
        """How `process` answers `peer`."""
        channel = self.channel(process, peer)
        shape = channel.unary_stream if rule.response_streaming else channel.unary_unary
        call = shape(f"/{rule.name}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=bytes)
        try:
            answer = call(request, metadata=metadata, timeout=10)
            if rule.response_streaming:
                next(answer, None)
                answer.cancel()
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def close(self) -> None:
        """End all connections."""
        for channel in self._channels.values():
            channel.close()
