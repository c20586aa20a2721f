"""The broker's RPCs: decode, call, encode."""

from __future__ import annotations

from typing import Any

from recoup.broker.v1 import broker_service_pb2 as pb
from recoup.broker.v1 import broker_service_pb2_grpc
from services._mesh.times import stamp
from services.broker import usecases
from services.broker.usecases import Desk

Context = Any


class BrokerRpc(broker_service_pb2_grpc.BrokerServiceServicer):
    """recoup.broker.v1.BrokerService."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def OpenCredential(self, request: pb.OpenCredentialRequest, context: Context) -> pb.OpenCredentialResponse:
        opened = await usecases.open_credential(self._desk, request.sealed_credential)
        session = opened.session
        return pb.OpenCredentialResponse(
            aws=pb.AwsSession(
                access_key_id=session.access_key_id,
                secret_access_key=session.secret_access_key,
                session_token=session.session_token,
                expires_at=stamp(session.expires_at),
                role_arn=opened.role_arn,
                source_identity=opened.source_identity,
            )
        )

    async def ProbeCredential(self, request: pb.ProbeCredentialRequest, context: Context) -> pb.ProbeCredentialResponse:
        found = await usecases.probe_credential(self._desk, request.sealed_credential)
        return pb.ProbeCredentialResponse(
            role_arn=found.role_arn,
            without_external_id=_outcome(found.without_external_id),
            with_wrong_external_id=_outcome(found.with_wrong_external_id),
            with_external_id=_outcome(found.with_external_id),
            error_code=found.error_code,
        )


def _outcome(name: str) -> pb.ProbeOutcome.ValueType:
    return pb.ProbeOutcome.Value(f"PROBE_OUTCOME_{name}")
