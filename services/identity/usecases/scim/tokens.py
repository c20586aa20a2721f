"""SCIM tokens: made by an Admin, shown once, good for one organization until they end."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.database import scope
from services._mesh.errors import Exhausted, Reason, Unauthenticated
from services._mesh.ids import PLATFORM, uuid7
from services._mesh.limits import BoundedCache
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.scim.tokens import DEFAULT_LIFETIME, ScimToken, digest, is_token, new_token
from services.identity.store import scim_tokens as store
from services.identity.store.organizations import find_organization

MAX_TOKENS = 20
_USE_SECONDS = 60.0


async def create_scim_token(work: UnitOfWork, name: str, lifetime_days: int) -> tuple[str, ScimToken]:
    """A new token and its facts. Raises Exhausted where too many are good."""
    if await store.count_tokens(work.connection, work.wall_now) >= MAX_TOKENS:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"At most {MAX_TOKENS} SCIM tokens can be good at a time. Revoke one first.",
            {"limit": str(MAX_TOKENS)},
        )
    person = current().responsible_person
    assert person is not None
    lifetime = timedelta(days=lifetime_days) if lifetime_days else DEFAULT_LIFETIME
    ends = work.wall_now + lifetime
    token = ScimToken(work.organization_id, uuid7(), name, person, work.wall_now, ends, None)
    text = new_token()
    await store.insert_token(work.connection, token, digest(text))
    work.emit(
        "identity.scim_token.create",
        f"scimTokens/{token.token_id}",
        {"before": {}, "after": {"name": name, "expires_at": ends.isoformat(timespec="seconds")}},
    )
    return text, token


async def list_scim_tokens(reader: Store, after: UUID | None, limit: int) -> list[ScimToken]:
    """Tokens by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_tokens(connection, after, limit + 1)


async def revoke_scim_token(work: UnitOfWork, token_id: UUID) -> ScimToken:
    """End a token; one that has ended stays as it is. Raises NotFound."""
    before = await store.get_token(work.connection, token_id)
    if before.revoked_at is None:
        await store.mark_token_revoked(work.connection, token_id, work.wall_now)
    after = await store.get_token(work.connection, token_id)
    state = "ACTIVE" if before.revoked_at is None else "REVOKED"
    work.emit(
        "identity.scim_token.revoke",
        f"scimTokens/{token_id}",
        {"before": {"state": state}, "after": {"state": "REVOKED"}, "name": before.name},
    )
    return after


class Doorkeeper:
    """Lets directories in by their tokens, and remembers when each was last used."""

    def __init__(self, reader: Store, clock: Clock) -> None:
        self._reader, self._clock = reader, clock
        self._noted: BoundedCache[UUID, bool] = BoundedCache(10_000)

    async def admit(self, bearer: str) -> ScimToken:
        """The token that a text is; every time from the database, so that a revoked one ends at once.

        Raises Unauthenticated, which says the same whatever is amiss.
        """
        refused = Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The token can't be accepted.")
        if not is_token(bearer):
            raise refused
        async with self._reader.read(PLATFORM) as connection:
            token = await store.find_token(connection, digest(bearer))
            if token is None or not token.is_good(self._clock.wall_now()):
                raise refused
            await scope(connection, token.organization_id)
            organization = await find_organization(connection, token.organization_id)
        if organization is None or organization.state != "ACTIVE":
            raise refused
        return token

    async def note_use(self, token: ScimToken) -> None:
        """Remember that a token was used, at most once a minute."""
        if self._noted.get(token.token_id):
            return
        self._noted.put(token.token_id, True, _USE_SECONDS)
        async with self._reader.begin(token.organization_id, interim=True) as work:
            await store.mark_token_used(work.connection, token, work.now, wrote=False)
