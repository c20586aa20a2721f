"""The floor of rpc.authorized_read: mTLS and one RLS transaction, and nothing else of the mesh."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
import uvloop

from recoup.identity.v1 import identity_service_pb2 as pb
from services._mesh.config import load_settings
from services._mesh.database import Database
from services.identity.config import IdentitySettings
from services.identity.store import organizations as store
from services.identity.wire import members as wire


class Bare:
    """Answers GetOrganization for one organization, whoever asks."""

    def __init__(self, database: Database, organization_id: UUID) -> None:
        self._database, self._organization_id = database, organization_id

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Any) -> pb.GetOrganizationResponse:
        async with self._database.scoped(self._organization_id, read_only=True) as connection:
            found = await store.get_organization(connection, self._organization_id)
        return pb.GetOrganizationResponse(organization=wire.organization(found))


async def main(config: Path, port: int, organization_id: UUID) -> None:
    """Serve until terminated."""
    settings = load_settings(IdentitySettings, config)
    assert settings.database is not None
    database = Database(settings.database, settings.database.user, settings.database.password_file)
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        Bare(database, organization_id).GetOrganization,
        request_deserializer=pb.GetOrganizationRequest.FromString,
        response_serializer=pb.GetOrganizationResponse.SerializeToString,
    )
    service = "recoup.identity.v1.IdentityService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"GetOrganization": handler}),))
    credentials = grpc.ssl_server_credentials(
        [(settings.tls.key.read_bytes(), settings.tls.cert.read_bytes())],
        settings.tls.ca.read_bytes(),
        require_client_auth=True,
    )
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), UUID(sys.argv[3])))
