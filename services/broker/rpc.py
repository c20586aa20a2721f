"""The broker's RPCs: decode, call, encode."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.broker.v1 import broker_service_pb2 as pb
from recoup.broker.v1 import broker_service_pb2_grpc, failure_service_pb2, failure_service_pb2_grpc
from services._mesh.clouds import CloudToken
from services._mesh.kms.interface import Kek, KeyService, SecretContext
from services._mesh.times import stamp
from services.broker import usecases
from services.broker.failures import Failures
from services.broker.rewrapping import PROBE_PURPOSE, Rewrapper
from services.broker.signing import Message, Signer
from services.broker.usecases import Desk

Context = Any


class BrokerRpc(broker_service_pb2_grpc.BrokerServiceServicer):
    """recoup.broker.v1.BrokerService."""

    def __init__(self, desk: Desk, rewrapper: Rewrapper, signer: Signer) -> None:
        self._desk, self._rewrapper, self._signer = desk, rewrapper, signer

    async def OpenCredential(self, request: pb.OpenCredentialRequest, context: Context) -> pb.OpenCredentialResponse:
        opened = await usecases.open_credential(self._desk, request.sealed_credential)
        if isinstance(opened, CloudToken):
            return pb.OpenCredentialResponse(
                token=pb.CloudToken(
                    access_token=opened.access_token,
                    expires_at=stamp(opened.expires_at),
                    scope_id=opened.scope_id,
                    source_identity=opened.source_identity,
                )
            )
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

    async def RewrapCredentials(
        self, request: pb.RewrapCredentialsRequest, context: Context
    ) -> pb.RewrapCredentialsResponse:
        given = [(UUID(each.credential_id), each.sealed_credential, each.purpose) for each in request.credentials]
        done = await self._rewrapper.rewrap_credentials(_kek(request.kek), given)
        return pb.RewrapCredentialsResponse(
            credentials=[
                pb.RewrappedCredential(
                    credential_id=str(each.credential_id), sealed_credential=each.envelope, problem=each.problem
                )
                for each in done
            ]
        )

    async def SignWebhook(self, request: pb.SignWebhookRequest, context: Context) -> pb.SignWebhookResponse:
        message = Message(request.webhook_id, request.timestamp, request.body)
        return pb.SignWebhookResponse(signature=await self._signer.sign_webhook(request.sealed_key, message))

    async def ProveKek(self, request: pb.ProveKekRequest, context: Context) -> pb.ProveKekResponse:
        probe = SecretContext(UUID(request.organization_id), UUID(request.probe_id), PROBE_PURPOSE)
        await self._rewrapper.prove_kek(probe, _kek(request.kek), request.wrapped, request.digest)
        return pb.ProveKekResponse()


def _kek(name: pb.KekName) -> Kek:
    return Kek(KeyService(name.service), name.reference)


def _outcome(name: str) -> pb.ProbeOutcome.ValueType:
    return pb.ProbeOutcome.Value(f"PROBE_OUTCOME_{name}")


class FailureRpc(failure_service_pb2_grpc.FailureServiceServicer):
    """recoup.broker.v1.FailureService."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    async def GetFailures(
        self, request: failure_service_pb2.GetFailuresRequest, context: Context
    ) -> failure_service_pb2.GetFailuresResponse:
        found = self._failures.of(UUID(request.organization_id))
        return failure_service_pb2.GetFailuresResponse(
            since=stamp(self._failures.since),
            failures=[
                failure_service_pb2.Failure(reason=reason, count=each.count, last_at=stamp(each.last_at))
                for reason, each in sorted(found.items())
            ],
        )
