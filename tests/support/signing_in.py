"""Single sign-on on a real database: acme's provider with a proven domain, and people who sign in by it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from recoup.mesh.v1 import forward_pb2
from services._mesh.context import entered
from services._mesh.denials import DenialLedger
from services._mesh.threads import BoundedThreads
from services.identity.model.permissions import PermissionTable
from services.identity.model.sso import Provider, ServiceProvider
from services.identity.model.sso_tokens import challenge_of
from services.identity.rpc import saml
from services.identity.store.sso import get_provider
from services.identity.usecases import saml_requests, sso, sso_domains, sso_sessions
from services.identity.usecases.saml_requests import SamlOffice
from tests.support.identity import Registry
from tests.support.postgres import TestDatabase
from tests.support.saml_idp import Said, TestIdp
from tests.support.things import ACME, context

VERIFIER = "v" * 43
PUBLIC = "https://recoup.example.com"
RETURN = "https://app.example.com/signed-in"
TABLE = PermissionTable({"identity": {}}, {})


class Dns:
    """Names and what their TXT records say."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}

    async def txt(self, name: str) -> list[str]:
        return self.records.get(name, [])


@dataclass
class Desk:
    """What signs people in, and the providers that tests play."""

    made: Registry
    office: SamlOffice
    dns: Dns
    idp: TestIdp
    provider: Provider
    counted: dict[str, int] = field(default_factory=dict)
    cookie: str = ""

    async def get(self, path: str) -> forward_pb2.HttpResponse:
        """A browser's GET below /saml."""
        path, _, query = path.partition("?")
        with entered(context(None, rpc="test/ServeSaml")):
            answer = await saml.serve(self.office, forward_pb2.HttpRequest(method="GET", path=path, query=query))
        self._keep(answer)
        return answer

    async def post(self, path: str, fields: dict[str, str]) -> forward_pb2.HttpResponse:
        """A browser's POST below /saml."""
        from urllib.parse import urlencode

        body = urlencode(fields).encode()
        with entered(context(None, action="identity.saml_response.accept", rpc="test/AcceptSamlResponse")):
            request = forward_pb2.HttpRequest(method="POST", path=path, body=body, cookie=self.cookie)
            answer = await saml.accept(self.office, request)
        self._keep(answer)
        return answer

    def _keep(self, answer: forward_pb2.HttpResponse) -> None:
        if answer.HasField("cookie"):
            self.cookie = answer.cookie.value

    def path(self, what: str, provider: Provider | None = None) -> str:
        """Where something of a provider's is served."""
        found = provider or self.provider
        return f"/{found.organization_id}/{found.provider_id}/{what}"

    def said(self, provider: Provider | None = None, **changes: Any) -> Said:
        """What a provider says of Eve, unless told otherwise."""
        found = provider or self.provider
        where = (found.organization_id, found.provider_id)
        sp = self.office.sp
        given = Said(sp.url(*where, "acs"), sp.url(*where, "metadata"), attributes={"email": ["eve@acme.example"]})
        return replace(given, **changes)

    async def begin(self, return_to: str = "", provider: Provider | None = None) -> str:
        """Where a sign-in sends the browser."""
        query = f"code_challenge={challenge_of(VERIFIER)}&return_to={return_to}"
        answer = await self.get(f"{self.path('login', provider)}?{query}")
        assert answer.status == 303
        return str(answer.headers[0].value)

    async def sign_in(self, said: Said | None = None, **settings: Any) -> forward_pb2.HttpResponse:
        """A whole sign-in that began here."""
        form = self.idp.answer(await self.begin(), said or self.said(), **settings)
        return await self.post(self.path("acs"), form)

    async def session(self, said: Said | None = None) -> tuple[str, Any]:
        """A sign-in up to its session token."""
        answer = await self.sign_in(said)
        assert answer.status == 303, answer.body
        return await self.exchange(code_of(answer))

    async def exchange(self, code: str, verifier: str = VERIFIER) -> tuple[str, Any]:
        """A code into a session."""
        with entered(context(None, action="identity.session.create")):
            return await sso_sessions.create_sso_session(self.office.store, code, verifier)

    async def now(self) -> Provider:
        """The provider as it is now."""
        async with self.made.store.read(self.provider.organization_id) as connection:
            return await get_provider(connection, self.provider.provider_id)

    async def update(self, **changes: Any) -> Provider:
        """Change how answers are read."""
        found = await self.now()
        values = {
            "display_name": "",
            "provider_initiated": found.provider_initiated,
            "email_attribute": found.email_attribute,
            "groups_attribute": found.groups_attribute,
            "mfa_contexts": found.mfa_contexts,
            "default_role": found.default_role,
            "session_minutes": found.session_minutes,
            "etag": found.etag,
        }
        change = sso.ProviderChange(**{**values, **changes})
        return await self.made.decide(lambda work: sso.update_identity_provider(work, TABLE, found.provider_id, change))

    async def passed_test(self) -> None:
        """A test sign-in that passes."""
        _, url = await self.made.decide(
            lambda work: saml_requests.start_test_login(work, self.office.sp, self.provider.provider_id)
        )
        answer = await self.post(self.path("acs"), self.idp.answer(url, self.said()))
        assert answer.status == 200, answer.body


def code_of(answer: forward_pb2.HttpResponse) -> str:
    """The code that a browser is sent back with."""
    (code,) = parse_qs(urlsplit(answer.headers[0].value).query)["code"]
    return code


async def prove_domain(made: Registry, dns: Dns, name: str, organization: UUID, user: UUID) -> UUID:
    """Name a domain, put its record up, and have it looked for."""
    domain = await made.decide(lambda work: sso_domains.add_domain(work, name), user, organization)
    dns.records[domain.record_name] = ["something else", domain.record_value]
    with entered(context(organization)):
        await sso_domains.find_proof(made.store, dns, domain.domain_id)
    await made.decide(lambda work: sso_domains.verify_domain(work, domain.domain_id), user, organization)
    return domain.domain_id


async def set_up(made: Registry, idp: TestIdp, organization: UUID, user: UUID) -> Provider:
    """A provider with metadata and the e-mail attribute, still in setup."""
    from services.identity.model.membership import Role

    provider = await made.decide(lambda work: sso.create_identity_provider(work, "Okta"), user, organization)
    provider = await made.decide(
        lambda work: sso.import_metadata(work, provider.provider_id, idp.metadata(), "", provider.etag),
        user,
        organization,
    )
    change = sso.ProviderChange("", False, "email", "groups", (), Role.VIEWER, 60, provider.etag)
    return await made.decide(
        lambda work: sso.update_identity_provider(work, TABLE, provider.provider_id, change),
        user,
        organization,
    )


async def enable(made: Registry, provider: Provider, user: UUID) -> Provider:
    """Let a provider sign people in."""
    return await made.decide(
        lambda work: sso.enable_identity_provider(work, provider.provider_id, provider.etag),
        user,
        provider.organization_id,
    )


@asynccontextmanager
async def desk(made: Registry) -> AsyncIterator[Desk]:
    """acme's provider, enabled, with acme.example proven."""
    from tests.support.identity import ADMIN

    threads = BoundedThreads(1, "saml")
    denials = DenialLedger(made.clock, max_keys=100, window_seconds=60)
    office = SamlOffice(made.store, ServiceProvider(PUBLIC, (RETURN,)), threads, denials, made.clock.wall_now)
    dns, idp = Dns(), TestIdp()
    await prove_domain(made, dns, "acme.example", ACME, ADMIN)
    provider = await enable(made, await set_up(made, idp, ACME, ADMIN), ADMIN)
    try:
        yield Desk(made, office, dns, idp, provider)
    finally:
        threads.close()


__all__ = ["Desk", "Dns", "TestDatabase", "code_of", "desk", "enable", "prove_domain", "set_up"]
