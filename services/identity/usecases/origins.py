"""Which web pages of other origins may call for an organization: none, unless its Admins name them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services._mesh.context import current
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import require_etag
from services.identity.model.origins import AllowedOrigins, require_origins
from services.identity.store import origins as store
from services.identity.store.members import lock_members


async def get_allowed_origins(reader: Store) -> AllowedOrigins:
    """The caller's organization's."""
    async with reader.read() as connection:
        return await store.get_origins(connection, current().organization())


async def set_allowed_origins(
    work: UnitOfWork, origins: Sequence[str], etag: str, *, is_local: bool = False
) -> AllowedOrigins:
    """Allow these and no others. Raises Invalid, Conflict (ETAG_MISMATCH)."""
    require_origins(origins, is_local=is_local)
    await lock_members(work.connection, work.organization_id)
    before = await store.get_origins(work.connection, work.organization_id)
    require_etag(etag, before.etag)
    after = AllowedOrigins(work.organization_id, tuple(sorted(origins)), before.version + 1)
    await store.put_origins(work.connection, after)
    about = {"before": {"origins": list(before.origins)}, "after": {"origins": list(after.origins)}}
    work.emit("identity.allowed_origins.set", f"organizations/{work.organization_id}", about)
    return after


async def check_allowed_origins(reader: Store, organization_id: UUID) -> Sequence[str]:
    """Any organization's, for the edge; of one that there isn't, none."""
    async with reader.read(organization_id) as connection:
        return (await store.get_origins(connection, organization_id)).origins
