"""How SCIM tokens end with what their maker was: nobody goes on through a directory's token after they went."""

from __future__ import annotations

from services._mesh.uow import UnitOfWork
from services.identity.model.membership import Member
from services.identity.store import scim_tokens as store
from services.identity.store.persons import person_of_user, users_of_person


async def end_scim_tokens(work: UnitOfWork, member: Member) -> int:
    """An ending (see `endings`): what the member made, under their own id or their person's."""
    person = await person_of_user(work.connection, work.organization_id, member.user_id)
    users = await users_of_person(work.connection, work.organization_id, person)
    ended = await store.mark_revoked_of(work.connection, users | {member.user_id}, work.wall_now)
    for token_id in ended:
        told = {"before": {"state": "ACTIVE"}, "after": {"state": "REVOKED"}, "why": "its maker went"}
        work.emit("identity.scim_token.revoke", f"scimTokens/{token_id}", told)
    return len(ended)
