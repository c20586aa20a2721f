"""Somebody whom the directory has provisioned comes for the first time, with a session of their own."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from services._mesh.context import current, entered
from services._mesh.uow import Store
from services.identity.model.membership import fold_address
from services.identity.model.sso import is_inside
from services.identity.store.organizations import find_organization
from services.identity.store.scim_users import list_unlinked
from services.identity.store.sso import enforcing_provider, joinable_domains
from services.identity.usecases.scim.membership import link_person


async def join_provisioned(
    reader: Store, organization_id: UUID, user_id: UUID, email: str, jti: str, *, aal: int, now: datetime
) -> bool:
    """Make a person a member whom the directory has provisioned by this address; whether it did.

    `email` is one that the session proves, or empty. It counts only inside a domain that the organization has proven,
    and not where its identity provider is demanded. Who would be an Admin needs a second factor (`aal` 2).
    `jti` is the passport that is about to be made.
    """
    if not email or not await _may_join(reader, organization_id, email, now):
        return False
    context = replace(
        current(),
        actor=f"user:{user_id}",
        organization_id=organization_id,
        responsible_person=user_id,
        authority=f"passport:{jti}",
    )
    with entered(context):
        async with reader.begin(organization_id, context, interim=True) as work:
            return await link_person(work, user_id, email, aal=aal) is not None


async def _may_join(reader: Store, organization_id: UUID, email: str, now: datetime) -> bool:
    async with reader.read(organization_id) as connection:
        organization = await find_organization(connection, organization_id)
        if organization is None or organization.state != "ACTIVE":
            return False
        if not is_inside(email, await joinable_domains(connection, now)):
            return False
        if await enforcing_provider(connection) is not None:
            return False
        return len(await list_unlinked(connection, fold_address(email), lock=False)) == 1
