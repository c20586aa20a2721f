"""The RPCs of the organization's own keys: decode, call, encode.

What was generated is put into the answer after that was kept for repeated requests: it is nowhere else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from recoup.scanner.v1 import key_service_pb2 as pb
from recoup.scanner.v1 import key_service_pb2_grpc
from services._mesh.context import current
from services._mesh.jobs import Planner
from services._mesh.kms.opening import Sealer
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import stamp
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.key import Key, KeyPurpose
from services.scanner.usecases import keys

Context = Any


class KeyRpc(key_service_pb2_grpc.KeyServiceServicer):
    """recoup.scanner.v1.KeyService."""

    def __init__(self, store: Store, planner: Planner, sealer: Sealer, pages: PageTokens) -> None:
        self._store, self._planner, self._sealer, self._pages = store, planner, sealer, pages

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        earlier = await self._store.replayed(request, pb.CreateKeyResponse)
        if earlier is not None:
            return earlier
        purpose = KeyPurpose[pb.KeyPurpose.Name(request.purpose).removeprefix("KEY_PURPOSE_")]
        # Before the transaction, like every call to a key service.
        sealed, shown = await keys.seal_key(self._sealer, purpose, request.secret), list[str]()

        async def decide(work: UnitOfWork) -> pb.CreateKeyResponse:
            made = await keys.create_key(work, request.name, sealed)
            shown.append(sealed.shown)
            return pb.CreateKeyResponse(key=_key(made))

        answer = await self._store.write(request, pb.CreateKeyResponse, decide)
        answer.secret = "".join(shown)
        return answer

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        earlier = await self._store.replayed(request, pb.RotateKeyResponse)
        if earlier is not None:
            return earlier
        purpose = await keys.purpose_of(self._store, UUID(request.key_id))
        sealed, shown = await keys.seal_key(self._sealer, purpose, request.secret), list[str]()
        overlap = timedelta(hours=request.overlap_hours)

        async def decide(work: UnitOfWork) -> pb.RotateKeyResponse:
            new, old = await keys.rotate_key(work, self._planner, UUID(request.key_id), overlap, sealed)
            shown.append(sealed.shown)
            return pb.RotateKeyResponse(key=_key(new), replaced=_key(old))

        answer = await self._store.write(request, pb.RotateKeyResponse, decide)
        answer.secret = "".join(shown)
        return answer

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        async def decide(work: UnitOfWork) -> pb.RevokeKeyResponse:
            return pb.RevokeKeyResponse(key=_key(await keys.revoke_key(work, self._planner, UUID(request.key_id))))

        return await self._store.write(request, pb.RevokeKeyResponse, decide)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await keys.list_keys(self._store, UUID(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].key_id)) if more else ""
        return pb.ListKeysResponse(keys=[_key(each) for each in found[:limit]], next_page_token=token)


def _key(found: Key) -> pb.Key:
    return pb.Key(
        key_id=str(found.key_id),
        purpose=pb.KeyPurpose.Value(f"KEY_PURPOSE_{found.purpose.name}"),
        name=found.name,
        state=pb.KeyState.Value(f"KEY_STATE_{found.state.name}"),
        created_at=stamp(found.created_at),
        ends_at=stamp(found.ends_at) if found.ends_at else None,
    )
