"""The one servicer of `recoup.mesh.v1.JobService`, which every API that owns jobs serves.

Decode, call the desk, encode; the policy of each kind is the service's own.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from recoup.mesh.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from services._mesh.jobs import JobDesk, Lease


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """Serves leases."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk

    async def ClaimJob(  # The RPC's name.
        self, request: job_service_pb2.ClaimJobRequest, context: Any
    ) -> job_service_pb2.ClaimJobResponse:
        """Lease a job to the calling worker."""
        lease = await self._desk.claim(UUID(request.job_id))
        return job_service_pb2.ClaimJobResponse(job=leased(lease))

    async def RenewLease(
        self, request: job_service_pb2.RenewLeaseRequest, context: Any
    ) -> job_service_pb2.RenewLeaseResponse:
        """Renew a lease and its grants."""
        lease = await self._desk.renew(UUID(request.job_id), request.fence)
        return job_service_pb2.RenewLeaseResponse(job=leased(lease))


def leased(lease: Lease) -> job_pb2.LeasedJob:
    """A lease on the wire."""
    message = job_pb2.LeasedJob(
        job_id=str(lease.job.job_id),
        kind=lease.job.kind,
        subject_id=str(lease.job.subject_id),
        organization_id=str(lease.job.organization_id),
        fence=lease.fence,
        attempt=lease.job.attempts,
        grant=lease.grant,
        trace_parent=lease.trace_parent,
        credential_grants=[
            job_pb2.CredentialGrant(purpose=scope.purpose, account=scope.account, grant=grant)
            for scope, grant in lease.credential_grants
        ],
    )
    message.lease_expires_at.FromDatetime(lease.lease_until)
    return message
