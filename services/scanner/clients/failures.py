"""What the broker counted of an organization's secrets that didn't open."""

from __future__ import annotations

from uuid import UUID

import grpc.aio

from recoup.broker.v1 import failure_service_pb2 as pb
from recoup.broker.v1 import failure_service_pb2_grpc
from services._mesh.times import moment
from services.scanner.model.posture import DecryptFailure, DecryptFailures

# The posture is read all the same where the broker is away.
_SECONDS = 3.0


class FailureCounts:
    """The broker, as far as it counts."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = failure_service_pb2_grpc.FailureServiceStub(channel)

    async def find(self, organization_id: UUID) -> DecryptFailures | None:
        """The counts since the broker started; None where it can't be asked."""
        request = pb.GetFailuresRequest(organization_id=str(organization_id))
        try:
            answer = await self._stub.GetFailures(request, timeout=_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        failures = tuple(DecryptFailure(each.reason, each.count, moment(each.last_at)) for each in answer.failures)
        return DecryptFailures(moment(answer.since), failures)
