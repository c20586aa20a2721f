"""How API tokens end before their time: revoked by somebody, or with the membership of who made them or owns their
machine.
"""

from __future__ import annotations

from services._mesh.revocations import RevocationKind
from services._mesh.uow import UnitOfWork
from services.identity.model.api_tokens import ApiToken
from services.identity.model.membership import Member
from services.identity.store import tokens as store
from services.identity.store.revocations import insert_revocation


async def end_token(work: UnitOfWork, token: ApiToken, reason: str) -> ApiToken:
    """End a token, and every passport that was given for it, with its event; returns it as it is now."""
    after = await store.mark_token(work.connection, token.token_id, state="REVOKED")
    # A passport names the token that it was given for as its session.
    await insert_revocation(work.connection, RevocationKind.SESSION.name, str(token.token_id), work.wall_now)
    work.emit(
        "identity.token.revoke",
        f"tokens/{token.token_id}",
        {"before": {"state": token.state}, "after": {"state": after.state}, "reason": reason},
    )
    return after


async def end_tokens(work: UnitOfWork, member: Member) -> int:
    """An ending (see `endings`): what the member made, and what machines of theirs act with."""
    found = await store.list_live_tokens(work.connection, member.user_id)
    for token in found:
        await end_token(work, token, "membership ended")
    return len(found)
