"""The RPCs of organizations' keys: decode, call, encode."""

from __future__ import annotations

from typing import Any

from recoup.scanner.v1 import kek_service_pb2 as pb
from recoup.scanner.v1 import kek_service_pb2_grpc
from services._mesh.context import current
from services._mesh.jobs import Planner
from services._mesh.kms.interface import KeyService
from services._mesh.pages import PageTokens, size_of
from services._mesh.times import stamp
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.kek import NamedKek, RegisteredKek
from services.scanner.usecases import keks as usecases
from services.scanner.usecases import rewrapping
from services.scanner.usecases.keks import Keks, Uses


class KekRpc(kek_service_pb2_grpc.KekServiceServicer):
    """recoup.scanner.v1.KekService."""

    def __init__(self, store: Store, keks: Keks, planner: Planner, pages: PageTokens) -> None:
        self._store, self._keks, self._planner, self._pages = store, keks, planner, pages

    async def RegisterKek(self, request: pb.RegisterKekRequest, context: Any) -> pb.RegisterKekResponse:
        earlier = await self._store.replayed(request, pb.RegisterKekResponse)
        if earlier is not None:
            return earlier
        named = _named(request)
        # Before the transaction, like every call to a key service.
        await self._keks.probe(named)

        async def decide(work: UnitOfWork) -> pb.RegisterKekResponse:
            return pb.RegisterKekResponse(kek=_kek(await usecases.register_kek(work, named)))

        return await self._store.write(request, pb.RegisterKekResponse, decide)

    async def RotateKek(self, request: pb.RotateKekRequest, context: Any) -> pb.RotateKekResponse:
        earlier = await self._store.replayed(request, pb.RotateKekResponse)
        if earlier is not None:
            return earlier
        newest = await rewrapping.find_newest(self._store)
        await self._keks.probe(newest.named)

        async def decide(work: UnitOfWork) -> pb.RotateKekResponse:
            left = await rewrapping.rotate_kek(work, self._planner, newest)
            return pb.RotateKekResponse(kek=_kek(newest), credentials_to_move=left)

        return await self._store.write(request, pb.RotateKekResponse, decide)

    async def RetireKek(self, request: pb.RetireKekRequest, context: Any) -> pb.RetireKekResponse:
        async def decide(work: UnitOfWork) -> pb.RetireKekResponse:
            return pb.RetireKekResponse(kek=_kek(await rewrapping.retire_kek(work, request.version)))

        return await self._store.write(request, pb.RetireKekResponse, decide)

    async def ListKeks(self, request: pb.ListKeksRequest, context: Any) -> pb.ListKeksResponse:
        organization_id, limit = current().organization(), size_of(request)
        position = self._pages.decode(organization_id, request)
        found = await usecases.list_keks(self._store, int(position) if position else None, limit)
        more = len(found) > limit
        token = self._pages.encode(organization_id, request, str(found[limit - 1].version)) if more else ""
        uses = await usecases.count_uses(self._store)
        return pb.ListKeksResponse(
            keks=[_kek(each, uses) for each in found[:limit]],
            next_page_token=token,
            credentials_by_rule=uses.by_rule,
            credentials_stuck=uses.stuck,
        )


def _named(request: pb.RegisterKekRequest) -> NamedKek:
    name = pb.KekProvider.Name(request.provider).removeprefix("KEK_PROVIDER_")
    return NamedKek(KeyService[name], request.key_id, request.region, request.key_version)


def _kek(found: RegisteredKek, uses: Uses | None = None) -> pb.Kek:
    reference = found.named.kek().reference
    return pb.Kek(
        version=found.version,
        provider=pb.KekProvider.Value(f"KEK_PROVIDER_{found.named.service.name}"),
        key_id=found.named.key_id,
        region=found.named.region,
        key_version=found.named.key_version,
        state=pb.KekState.Value(f"KEK_STATE_{found.state.value}"),
        created_at=stamp(found.created_at),
        credentials=uses.by_reference.get(reference, 0) if uses else 0,
        backups=uses.backups.get(reference, 0) if uses else 0,
    )
