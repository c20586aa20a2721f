"""Sign-ins by SAML: our metadata, and our requests, each of them bound to the browser that it sends away."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.denials import DenialLedger
from services._mesh.errors import Exhausted, NotFound, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.saml.metadata import sp_metadata
from services.identity.model.saml.requests import authn_request, redirect_url
from services.identity.model.sso import Provider, ProviderState, ServiceProvider
from services.identity.model.sso_logins import (
    MAX_PENDING_REQUESTS,
    REQUEST_SECONDS,
    TEST_SECONDS,
    LoginRequest,
    TestLogin,
)
from services.identity.store import sso as store
from services.identity.store import sso_logins as logins
from services.identity.usecases.enforcement import require_no_provider


@dataclass(frozen=True)
class SamlOffice:
    """What sign-ins need: the store, our own addresses, threads for the verifier, and where refusals are counted."""

    store: Store
    sp: ServiceProvider
    threads: BoundedThreads
    denials: DenialLedger
    wall_now: Callable[[], datetime]


async def read_sp_metadata(office: SamlOffice, organization_id: UUID, provider_id: UUID) -> bytes:
    """Our metadata for a provider. Raises NotFound."""
    await provider_at(office, organization_id, provider_id)
    where = (organization_id, provider_id)
    return sp_metadata(office.sp.url(*where, "metadata"), office.sp.url(*where, "acs"))


async def start_login(
    office: SamlOffice, organization_id: UUID, provider_id: UUID, challenge: str, return_to: str, *, anew: bool = False
) -> tuple[str, str]:
    """Where to send a browser to sign in, and the secret that it has to show when it comes back; `anew`: by
    authenticating at the provider now.

    Raises NotFound, Invalid, WrongState, Exhausted, and Denied (SSO_REQUIRED) where another provider is demanded.
    """
    if not _is_challenge(challenge):
        raise invalid_field("code_challenge", "must be the S256 challenge of a verifier (RFC 7636): 43 characters")
    return_to, browser = office.sp.return_url(return_to), secrets.token_urlsafe(32)
    async with office.store.begin(organization_id, interim=True) as work:
        provider = await store.get_provider(work.connection, provider_id)
        if provider.state is not ProviderState.ACTIVE:
            raise WrongState(
                Reason.ERROR_REASON_STATE_WRONG,
                "This identity provider signs nobody in.",
                {"state": provider.state.value, "allowed": ProviderState.ACTIVE.value},
            )
        demanded = await store.enforcing_provider(work.connection)
        require_no_provider(demanded.provider_id if demanded else None, provider_id)
        url = await _send(work, office.sp, provider, _Begun(challenge, return_to, digest(browser), None), anew=anew)
        return url, browser


async def start_test_login(work: UnitOfWork, sp: ServiceProvider, provider_id: UUID) -> tuple[TestLogin, str]:
    """A test sign-in, and where it begins. Raises NotFound, WrongState without metadata."""
    provider = await store.get_provider(work.connection, provider_id)
    if not provider.certificates:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "Import the identity provider's metadata first.",
            {"state": provider.state.value, "allowed": "with metadata"},
        )
    ends_at = work.wall_now + timedelta(seconds=TEST_SECONDS)
    test = TestLogin(
        work.organization_id, uuid7(), provider_id, provider.config_version, "PENDING", "", "", "", "", 0, (), ends_at
    )
    await logins.insert_test(work.connection, test)
    url = await _send(work, sp, provider, _Begun("", "", None, test.test_id))
    facts = {"test_id": str(test.test_id), "config_version": str(provider.config_version)}
    work.emit("identity.test_login.start", f"identityProviders/{provider_id}", {"before": {}, "after": facts})
    return test, url


async def get_test_result(reader: Store, test_id: UUID, wall_now: datetime) -> TestLogin:
    """What came of a test. Raises NotFound."""
    async with reader.read() as connection:
        return await logins.get_test(connection, test_id, wall_now)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Who began a sign-in, and where they go on. A test has nothing of this: it signs nobody in."""

    challenge: str
    return_to: str
    browser_sha256: bytes | None
    test_id: UUID | None


async def _send(work: UnitOfWork, sp: ServiceProvider, provider: Provider, begun: _Begun, *, anew: bool = False) -> str:
    """Remember a request, and give the address that carries it."""
    await logins.clear_ended(work.connection, work.wall_now)
    await _make_room(work, provider)
    request_id, relay_state = f"_{secrets.token_hex(20)}", secrets.token_urlsafe(32)
    ends_at = work.wall_now + timedelta(seconds=REQUEST_SECONDS)
    where = (work.organization_id, provider.provider_id)
    request = LoginRequest(
        work.organization_id,
        request_id,
        provider.provider_id,
        digest(relay_state),
        begun.challenge,
        begun.return_to,
        begun.test_id,
        ends_at,
        begun.browser_sha256,
    )
    await logins.insert_request(work.connection, request)
    document = authn_request(
        request_id, sp.url(*where, "metadata"), sp.url(*where, "acs"), provider.sso_url, work.wall_now, anew=anew
    )
    return redirect_url(provider.sso_url, document, relay_state)


async def _make_room(work: UnitOfWork, provider: Provider) -> None:
    """Let one more sign-in fit. Anybody may begin one, so the oldest go; Exhausted where all of them are tests."""
    above = await logins.count_requests(work.connection, provider.provider_id) - MAX_PENDING_REQUESTS + 1
    if above > 0 and await logins.delete_oldest_requests(work.connection, provider.provider_id, above) == 0:
        raise Exhausted(
            Reason.ERROR_REASON_RATE_LIMITED,
            "Too many sign-ins are on their way. Try again in a few minutes.",
            {"retry_after_seconds": "60"},
        )


async def provider_at(office: SamlOffice, organization_id: UUID, provider_id: UUID) -> Provider:
    """A provider, for who isn't signed in yet. Raises NotFound."""
    async with office.store.read(organization_id) as connection:
        found = await store.find_provider(connection, provider_id)
    if found is None:
        raise NotFound("identity_provider")
    return found


def _is_challenge(text: str) -> bool:
    return len(text) == 43 and text.isascii() and all(each.isalnum() or each in "-_" for each in text)


def digest(text: str) -> bytes:
    """What is kept of a secret that a browser, or the provider, shows again."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
