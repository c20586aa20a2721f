"""SQL of when credentials were last fetched to be opened: no state, and so no event."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.scanner.tables import credential_uses

# What is younger isn't written again, so that a scan of many accounts is one write.
PRECISION = timedelta(minutes=1)


async def note_use(connection: AsyncConnection, organization_id: UUID, credential_id: UUID, now: datetime) -> None:
    """Note that a credential is fetched to be opened."""
    query = select(credential_uses.c.last_used_at).where(credential_uses.c.credential_id == credential_id)
    before = (await connection.execute(query)).scalar()
    if before is not None and before > now - PRECISION:
        return
    used = upsert(credential_uses).values(
        organization_id=organization_id, credential_id=credential_id, last_used_at=now
    )
    key = ["organization_id", "credential_id"]
    await connection.execute(used.on_conflict_do_update(index_elements=key, set_={"last_used_at": now}))
