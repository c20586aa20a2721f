"""API tokens on a real database: decided by people, exchanged for passports by identity, checked as services do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from services._mesh.context import entered
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.passports import Kind, Passport
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.uow import UnitOfWork
from services.identity.__main__ import break_glass_reach, permission_table
from services.identity.model.api_tokens import ApiToken, NewToken, new_text
from services.identity.usecases import feed, tokens
from services.identity.usecases.passports import exchange_passport, issue_passport
from services.identity.usecases.principals import Authority
from tests.support.identity import ADMIN, Registry
from tests.support.things import ACME, context, keys

T = TypeVar("T")
READ_FINDINGS, READ_MEMBERS = "scanner.finding.read", "identity.member.read"
TABLE = permission_table()


@dataclass
class Desk:
    """Identity as the gateway sees it, and the scanner that trusts what it signs."""

    made: Registry
    authority: Authority
    scanner: PassportVerifier
    revocations: Revocations

    async def decide(
        self, user: UUID, decide: Callable[[UnitOfWork], Awaitable[T]], organization: UUID = ACME, **facts: Any
    ) -> T:
        """A decision of a member's own session, under the permissions of their role."""
        passport = await self.session(user, organization)
        return await self.made.decide(decide, user, organization, passport=passport, **facts)

    async def session(self, user: UUID, organization: UUID = ACME) -> Passport:
        """The passport for identity of a member's own session."""
        member = await self.made.member(user, organization)
        return Passport(
            audience="identity",
            actor=member.actor,
            responsible_person=user,
            organization_id=organization,
            role=member.role.value,
            permissions=TABLE.held(organization, member.role.value, "identity"),
            permissions_version=1,
            session_id=str(uuid4()),
            aal=2,
            auth_time=0,
            act=(),
            presenter="x",
            jti=str(uuid4()),
            issued_at=0,
            expires_at=1,
            kind=Kind.HUMAN,
            rests_on=(member.actor,),
        )

    def wanted(self, *permissions: str, days: int = 30, account: UUID | None = None) -> NewToken:
        """What somebody asks for."""
        ends_at = self.made.clock.wall_now().replace(microsecond=0) + timedelta(days=days)
        return NewToken("a token", frozenset(permissions or {READ_FINDINGS}), frozenset(), ends_at, account)

    async def create(self, wanted: NewToken, user: UUID = ADMIN, organization: UUID = ACME) -> tuple[ApiToken, str]:
        """A token of a user's, and its text."""
        text = new_text()
        made = await self.decide(
            user,
            lambda work: tokens.create_token(work, TABLE, wanted, text),
            organization,
            action="identity.token.create",
        )
        return made, text

    async def passport(self, text: str, organization: UUID | None = ACME, audience: str = "scanner") -> str:
        """The passport that the gateway gets for a credential."""
        with entered(context(None, peer="gateway", peer_thumbprint="gateway")):
            signed, _ = await issue_passport(self.authority, text, audience, organization)
        return signed

    async def exchanged(self, signed: str, audience: str) -> str:
        """The passport that the scanner gets for the one that it received."""
        with entered(context(None, peer="scanner", peer_thumbprint="scanner")):
            exchanged, _ = await exchange_passport(self.authority, signed, audience)
        return exchanged

    async def verified(self, signed: str) -> Passport:
        """What the scanner makes of a passport, once it knows what was revoked. Raises Unauthenticated."""
        await self.learn()
        return self.scanner.verify(signed, "gateway")

    async def held(self, text: str) -> frozenset[str]:
        """What a credential's passport for the scanner holds now."""
        return (await self.verified(await self.passport(text))).permissions

    async def learn(self) -> None:
        """Read the feed."""
        piece = await feed.read_revocations(
            self.made.store, self.revocations.resume(), self.made.clock.wall_now() + timedelta(seconds=1)
        )
        entries = [Revocation(r.seq, RevocationKind[r.kind], r.key, r.revoked_at.timestamp()) for r in piece.entries]
        self.revocations.apply(entries, piece.latest_seq)


def desk(made: Registry, folder: Path) -> Desk:
    """Identity with a key of its own, over a registry's database."""
    key, trust = keys(folder, "identity")
    revocations = Revocations(made.clock)
    nobody: Any = None  # No session token is shown here.

    def verifier(audience: str) -> PassportVerifier:
        return PassportVerifier(trust, revocations, made.clock, audience=audience, profile="local")

    authority = Authority(
        reader=made.store,
        sessions=nobody,
        issuer="",
        audience="",
        key=key,
        verifier=verifier("identity"),
        revocations=revocations,
        permissions=TABLE,
        reach=break_glass_reach(),
        clock=made.clock,
        seconds=300,
    )
    return Desk(made, authority, verifier("scanner"), revocations)
