"""Sign-ins by SAML: our request, the provider's answer, and whom it lets in.

An answer is verified before anything else is asked of it. Then, in one transaction: its request is used up, its id is
remembered, and the person is found or made. Whatever is amiss, nothing of it stays.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from services._mesh.context import current, entered
from services._mesh.denials import DenialLedger
from services._mesh.errors import AlreadyExists, Exhausted, NotFound, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.resource_limits import UNLIMITED
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role
from services.identity.model.persons import Login, LoginKind
from services.identity.model.saml.documents import SamlRefused
from services.identity.model.saml.metadata import sp_metadata
from services.identity.model.saml.requests import authn_request, redirect_url
from services.identity.model.saml.responses import SKEW, Assertion, Expected, read_response, unverified_request_id
from services.identity.model.sso import (
    GroupRole,
    Provider,
    ProviderState,
    ServiceProvider,
    aal_of,
    address_of,
    require_lasting,
    require_proven,
    role_of,
)
from services.identity.model.sso_logins import (
    MAX_PENDING_REQUESTS,
    REQUEST_SECONDS,
    TEST_SECONDS,
    LoginFacts,
    LoginRequest,
    TestLogin,
)
from services.identity.store import members as members_store
from services.identity.store import roles as roles_store
from services.identity.store import sso as store
from services.identity.store import sso_logins as logins
from services.identity.store.admissions import find_admission
from services.identity.store.organizations import find_organization
from services.identity.usecases.members import add_member
from services.identity.usecases.persons import (
    find_linked_identity,
    link_by_address,
    link_identity,
    responsible_person,
)
from services.identity.usecases.roles import give_role
from services.identity.usecases.scim.membership import is_inactive, link_person
from services.identity.usecases.sso_sessions import make_code

_VERIFY_SECONDS = 10.0


@dataclass(frozen=True)
class SamlOffice:
    """What sign-ins need: the store, our own addresses, threads for the verifier, and where refusals are counted."""

    store: Store
    sp: ServiceProvider
    threads: BoundedThreads
    denials: DenialLedger
    wall_now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a good answer led to: a code and where to take it, or the end of a test."""

    code: str
    return_to: str
    is_test: bool


async def read_sp_metadata(office: SamlOffice, organization_id: UUID, provider_id: UUID) -> bytes:
    """Our metadata for a provider. Raises NotFound."""
    await _provider(office, organization_id, provider_id)
    where = (organization_id, provider_id)
    return sp_metadata(office.sp.url(*where, "metadata"), office.sp.url(*where, "acs"))


async def start_login(
    office: SamlOffice, organization_id: UUID, provider_id: UUID, challenge: str, return_to: str, *, anew: bool = False
) -> str:
    """Where to send a browser to sign in; `anew`: by authenticating there now. Raises NotFound, Invalid, WrongState,
    Exhausted.
    """
    if not _is_challenge(challenge):
        raise invalid_field("code_challenge", "must be the S256 challenge of a verifier (RFC 7636): 43 characters")
    office.sp.require_return_url(return_to)
    async with office.store.begin(organization_id, interim=True) as work:
        provider = await store.get_provider(work.connection, provider_id)
        if provider.state is not ProviderState.ACTIVE:
            raise WrongState(
                Reason.ERROR_REASON_STATE_WRONG,
                "This identity provider signs nobody in.",
                {"state": provider.state.value, "allowed": ProviderState.ACTIVE.value},
            )
        return await _send(work, office.sp, provider, challenge, return_to, None, anew=anew)


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
    url = await _send(work, sp, provider, "", "", test.test_id)
    facts = {"test_id": str(test.test_id), "config_version": str(provider.config_version)}
    work.emit("identity.test_login.start", f"identityProviders/{provider_id}", {"before": {}, "after": facts})
    return test, url


async def get_test_result(reader: Store, test_id: UUID, wall_now: datetime) -> TestLogin:
    """What came of a test. Raises NotFound."""
    async with reader.read() as connection:
        return await logins.get_test(connection, test_id, wall_now)


async def _send(
    work: UnitOfWork,
    sp: ServiceProvider,
    provider: Provider,
    challenge: str,
    return_to: str,
    test_id: UUID | None,
    *,
    anew: bool = False,
) -> str:
    """Remember a request, and give the address that carries it."""
    await logins.clear_ended(work.connection, work.wall_now)
    await _make_room(work, provider)
    request_id, relay_state = f"_{secrets.token_hex(20)}", secrets.token_urlsafe(32)
    ends_at = work.wall_now + timedelta(seconds=REQUEST_SECONDS)
    where = (work.organization_id, provider.provider_id)
    relay = _sha256(relay_state)
    await logins.insert_request(
        work.connection,
        LoginRequest(
            work.organization_id, request_id, provider.provider_id, relay, challenge, return_to, test_id, ends_at
        ),
    )
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


async def accept_saml_response(
    office: SamlOffice, organization_id: UUID, provider_id: UUID, response: bytes, relay_state: str
) -> Accepted:
    """Take a provider's answer. Raises SamlRefused, NotFound, Conflict; a refusal is counted, and ends its test."""
    provider = await _provider(office, organization_id, provider_id)
    try:
        assertion = await _verified(office, provider, response)
        user_id, person = await _user_of(office.store, provider, assertion)
        says = f"saml:{provider_id}"
        call = replace(current(), actor=f"user:{user_id}", responsible_person=person, authority=says)
        with entered(call):
            async with office.store.begin(organization_id, call) as work:
                return await _accept(work, provider, assertion, relay_state, user_id)
    except SamlRefused as refused:
        _note(office, organization_id, provider_id, refused)
        await _fail_test(office, provider, response, relay_state, refused)
        raise


async def _verified(office: SamlOffice, provider: Provider, response: bytes) -> Assertion:
    where = (provider.organization_id, provider.provider_id)
    expected = Expected(
        office.sp.url(*where, "metadata"),
        office.sp.url(*where, "acs"),
        provider.entity_id,
        provider.certificates,
        office.wall_now(),
    )
    return await office.threads.run(_VERIFY_SECONDS, read_response, response, expected)


async def _user_of(reader: Store, provider: Provider, assertion: Assertion) -> tuple[UUID, UUID]:
    """The user that a NameID is, or the id of a new one, and the person: events name who is signing in."""
    async with reader.read(provider.organization_id) as connection:
        found = await find_linked_identity(connection, provider.organization_id, _login(provider, assertion))
        user_id = found.user_id if found else uuid4()
        return user_id, await responsible_person(connection, provider.organization_id, user_id)


async def _accept(work: UnitOfWork, seen: Provider, assertion: Assertion, relay_state: str, user_id: UUID) -> Accepted:
    await members_store.lock_members(work.connection, work.organization_id)
    provider = await store.get_provider(work.connection, seen.provider_id, lock=True)
    if provider.config_version != seen.config_version:
        raise SamlRefused("CHANGED", "The identity provider's settings were changed just now. Sign in again.")
    request = await _answered(work, provider, assertion, relay_state)
    digest, until = _sha256(assertion.assertion_id), assertion.usable_until + SKEW
    where = (work.organization_id, provider.provider_id)
    if not await logins.insert_assertion(work.connection, *where, digest, until):
        raise SamlRefused("REPLAY", "This assertion was used before.")
    if request is not None and request.test_id is not None:
        await _pass_test(work, provider, assertion, request.test_id)
        return Accepted("", "", True)
    await _require_open(work, provider)
    member = await _sign_in(work, provider, assertion, user_id)
    await _require_authenticated_since(work, member, assertion)
    challenge, return_to = (request.challenge, request.return_to) if request else ("", "")
    aal = aal_of(provider, assertion.authn_context)
    facts = LoginFacts(aal, assertion.authenticated_at, assertion.session_ends_at, challenge)
    code = await make_code(work, provider, member, facts)
    _emit_accepted(work, provider, "LOGIN", {"user_id": str(member.user_id), "aal": str(aal)})
    return Accepted(code, return_to, False)


async def _answered(
    work: UnitOfWork, provider: Provider, assertion: Assertion, relay_state: str
) -> LoginRequest | None:
    """The request that is answered, used up with that; None where none is, and none has to be."""
    if not assertion.in_response_to:
        if not provider.provider_initiated:
            raise SamlRefused("NO_REQUEST", "Nobody asked for this sign-in. Begin it here.")
        return None
    relay = _sha256(relay_state)
    request = await logins.take_request(
        work.connection, provider.provider_id, assertion.in_response_to, relay, work.wall_now
    )
    if request is None:
        raise SamlRefused("REQUEST", "The request that is answered isn't one of ours, was answered before, or is over.")
    return request


async def _require_open(work: UnitOfWork, provider: Provider) -> None:
    """Raise SamlRefused where the provider, or the whole organization, signs nobody in, or by another one only."""
    organization = await find_organization(work.connection, work.organization_id)
    if provider.state is not ProviderState.ACTIVE or organization is None or organization.state != "ACTIVE":
        raise SamlRefused("DISABLED", "This identity provider signs nobody in.")
    demanded = await store.enforcing_provider(work.connection)
    if demanded is not None and demanded.provider_id != provider.provider_id:
        raise SamlRefused("ENFORCED", "The organization demands that you sign in by another identity provider.")


async def _sign_in(work: UnitOfWork, provider: Provider, assertion: Assertion, user_id: UUID) -> Member:
    """The member that the assertion is about: made where nobody signed in by this NameID before."""
    email, given = await _entitled(work, provider, assertion)
    member = await _member_of(work, provider, assertion, user_id, email, given)
    # Who the directory has provisioned is this user from their first sign-in on: what it ends ends here.
    member = await link_person(work, user_id, email, assertion.name_id) or member
    # Without mapped groups, roles are given by hand, or by the directory.
    return await _governed(work, member, given) if provider.group_roles else member


async def _member_of(
    work: UnitOfWork, provider: Provider, assertion: Assertion, user_id: UUID, email: str, given: GroupRole
) -> Member:
    """The member who signs in by the NameID, made the first time. Raises SamlRefused where the membership ended."""
    found = await find_linked_identity(work.connection, work.organization_id, _login(provider, assertion))
    if found is None:
        try:
            await link_identity(work, _login(provider, assertion), user_id)
            role = Role.VIEWER if given.role is Role.CUSTOM else given.role
            return await add_member(work, user_id, email, role, given_by=given.granted_by)
        except AlreadyExists as error:
            raise SamlRefused("RACE", "Somebody signed in by this NameID just now. Sign in again.") from error
    member = await members_store.find_member_of_user(work.connection, work.organization_id, found.user_id)
    if found.state != "ACTIVE" or found.user_id != user_id or member is None or member.state != "ACTIVE":
        raise SamlRefused("MEMBERSHIP", "The person's membership has ended. An Admin can bring them back.")
    if member.email != email:
        member = await members_store.mark_member(work.connection, member.member_id, email=email)
        _emit_update(work, member, {"address": "changed"}, "OK")
        await link_by_address(work, member)
    return member


async def _require_authenticated_since(work: UnitOfWork, member: Member, assertion: Assertion) -> None:
    """Raise SamlRefused where the person's sessions were ended after they authenticated at the provider."""
    admission = await find_admission(work.connection, work.organization_id, member.user_id, "", member.actor)
    if admission is None or admission.has_ended(int(assertion.authenticated_at.timestamp())):
        raise SamlRefused("AUTHENTICATE", "Your sessions were ended. Begin with force_authn=true to authenticate anew.")


async def _entitled(work: UnitOfWork, provider: Provider, assertion: Assertion) -> tuple[str, GroupRole]:
    """The address and role that an assertion gives somebody. Raises SamlRefused outside of proven domains."""
    require_lasting(assertion)
    email = address_of(provider, assertion)
    require_proven(email, await store.proven_domains(work.connection))
    if await is_inactive(work, email, assertion.name_id):
        raise SamlRefused("DIRECTORY", "The directory says that the person isn't active.")
    return email, role_of(provider, assertion.attributes)


async def _governed(work: UnitOfWork, member: Member, given: GroupRole) -> Member:
    """The member with the role of today's groups. The last Admin stays one, and the log says who asked otherwise."""
    if (member.role, member.custom_role_id) == (given.role, given.custom_role_id):
        return member
    custom = await roles_store.get_role(work.connection, given.custom_role_id) if given.custom_role_id else None
    limits = UNLIMITED if given.role is Role.ADMIN else member.limits
    try:
        return await give_role(work, member, given.role, custom, limits, given.granted_by)
    except WrongState as refused:
        _emit_update(work, member, {"role": member.role_name, "asked": given.says, "why": refused.message}, "DENIED")
        return member


def _emit_update(work: UnitOfWork, member: Member, facts: dict[str, str], result: str) -> None:
    metadata = {"before": {}, "after": facts, "user_id": str(member.user_id)}
    work.emit("identity.member.update", f"members/{member.member_id}", metadata, result)


def _emit_accepted(work: UnitOfWork, provider: Provider, purpose: str, facts: dict[str, str]) -> None:
    metadata = {"before": {}, "after": {"purpose": purpose, **facts}}
    work.emit("identity.saml_response.accept", f"identityProviders/{provider.provider_id}", metadata)


async def _pass_test(work: UnitOfWork, provider: Provider, assertion: Assertion, test_id: UUID) -> None:
    """Say what the sign-in would have led to; a refusal rolls all of it back, and is said by `_fail_test`."""
    email, given = await _entitled(work, provider, assertion)
    await logins.mark_test(
        work.connection,
        test_id,
        state="PASSED",
        name_id=assertion.name_id,
        email=email,
        role=given.role.value,
        aal=aal_of(provider, assertion.authn_context),
        attribute_names=sorted(assertion.attributes)[:100],
    )
    await store.mark_provider(work.connection, provider, tested_version=provider.config_version)
    _emit_accepted(work, provider, "TEST", {"test_id": str(test_id), "config_version": str(provider.config_version)})


async def _fail_test(
    office: SamlOffice, provider: Provider, response: bytes, relay_state: str, refused: SamlRefused
) -> None:
    """Tell whoever runs a test why it failed. What isn't verified ends only the test of who holds its relay state."""
    request_id = unverified_request_id(response)
    if not request_id:
        return
    async with office.store.begin(provider.organization_id, interim=True) as work:
        request = await logins.find_request(work.connection, provider.provider_id, request_id)
        if request is not None and request.test_id is not None and request.relay_sha256 == _sha256(relay_state):
            problem = f"{refused.cause}: {refused.message}"
            await logins.mark_test(work.connection, request.test_id, state="FAILED", problem=problem)


def _note(office: SamlOffice, organization_id: UUID, provider_id: UUID, refused: SamlRefused) -> None:
    call = current()
    office.denials.note(
        organization_id=organization_id,
        actor=f"identityProviders/{provider_id}",
        peer=call.peer,
        rpc=call.rpc,
        reason=f"SAML_{refused.cause}",
        trace_id=call.trace_id,
    )


async def _provider(office: SamlOffice, organization_id: UUID, provider_id: UUID) -> Provider:
    async with office.store.read(organization_id) as connection:
        found = await store.find_provider(connection, provider_id)
    if found is None:
        raise NotFound("identity_provider")
    return found


def _login(provider: Provider, assertion: Assertion) -> Login:
    """(provider, NameID), and never an address: whoever gets an address later isn't who had it before."""
    return Login(LoginKind.SAML, str(provider.provider_id), assertion.name_id)


def _is_challenge(text: str) -> bool:
    return len(text) == 43 and text.isascii() and all(each.isalnum() or each in "-_" for each in text)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
