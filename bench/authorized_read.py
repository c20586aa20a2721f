"""rpc.authorized_read: a tenant's read with everything, against a bare handler with the same transaction.

Everything: mTLS, peer list, passport, access rule, validation, trace. The bare one: mTLS and the transaction alone.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Any

import grpc.aio

from bench.measuring import Result, compare
from recoup.identity.v1 import identity_service_pb2 as pb
from recoup.identity.v1 import identity_service_pb2_grpc
from recoup_local.embedded.nats import free_port
from recoup_local.issuer import organization_id
from tests.support.mesh import TestMesh

CALLS, IN_FLIGHT = 4000, 64
READY_SECONDS = 30.0


async def run(made: TestMesh) -> Result:
    """Measure."""
    organization = str(organization_id("acme"))
    request = pb.GetOrganizationRequest(organization_id=organization)
    port = free_port()
    config = made.mesh.installation.config_file("identity")
    bare = subprocess.Popen(  # noqa: ASYNC220 - starts before anything is measured
        [sys.executable, "-m", "bench.bare_server", str(config), str(port), organization]
    )
    try:
        async with made.channel("identity", "client/tests") as channel, _bare(made, port) as floor_channel:
            metadata = (("authorization", f"Bearer {await _passport(made)}"),)

            async def subject() -> float:
                return await _rate(identity_service_pb2_grpc.IdentityServiceStub(channel), request, metadata)

            async def floor() -> float:
                return await _rate(identity_service_pb2_grpc.IdentityServiceStub(floor_channel), request, ())

            await asyncio.wait_for(floor_channel.channel_ready(), READY_SECONDS)
            name = "bare grpc.aio mTLS handler, same RLS transaction"
            return await compare("rpc.authorized_read", "calls/s", name, subject, floor)
    finally:
        bare.terminate()
        bare.wait()


def _bare(made: TestMesh, port: int) -> grpc.aio.Channel:
    folder = made.mesh.state / "clients" / "tests"
    credentials = grpc.ssl_channel_credentials(
        made.mesh.installation.ca.cert_file.read_bytes(),
        (folder / "tls.key").read_bytes(),
        (folder / "tls.pem").read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", "identity")]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)


async def _passport(made: TestMesh) -> str:
    async with made.channel("identity", "client/tests") as channel:
        answer = await identity_service_pb2_grpc.IdentityServiceStub(channel).IssuePassport(
            pb.IssuePassportRequest(
                session_token=made.mesh.token("acme", "Admin"),
                audience="identity",
                organization_id=str(organization_id("acme")),
            ),
            timeout=10,
        )
        return str(answer.passport)


async def _rate(stub: Any, request: pb.GetOrganizationRequest, metadata: tuple[tuple[str, str], ...]) -> float:
    left = iter(range(CALLS))

    async def caller() -> None:
        for _ in left:
            await stub.GetOrganization(request, metadata=metadata, timeout=30)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return CALLS / (time.perf_counter() - began)
