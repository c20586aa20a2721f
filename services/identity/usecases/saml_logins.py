"""Sign-ins by SAML: the provider's answer, and whom it lets in.

An answer is verified before anything else is asked of it. Then, in one transaction: its request is used up, its id is
remembered, and the person is found or made. Whatever is amiss, nothing of it stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from services._mesh.context import current, entered
from services._mesh.errors import AlreadyExists, WrongState
from services._mesh.resource_limits import UNLIMITED
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role
from services.identity.model.persons import Login, LoginKind
from services.identity.model.saml.documents import SamlRefused
from services.identity.model.saml.responses import SKEW, Assertion, Expected, read_response, unverified_request_id
from services.identity.model.sso import (
    GroupRole,
    Provider,
    ProviderState,
    aal_of,
    address_of,
    is_inside,
    require_joining,
    require_lasting,
    require_proven,
    role_of,
)
from services.identity.model.sso_logins import (
    LoginFacts,
    LoginRequest,
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
from services.identity.usecases.saml_requests import SamlOffice, digest, provider_at
from services.identity.usecases.scim.membership import is_inactive, link_person
from services.identity.usecases.sso_sessions import make_code

_VERIFY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a good answer led to: a code and where to take it, or the end of a test."""

    code: str
    return_to: str
    is_test: bool


async def accept_saml_response(
    office: SamlOffice, organization_id: UUID, provider_id: UUID, response: bytes, relay_state: str, browser: str
) -> Accepted:
    """Take a provider's answer, from the browser that shows the secret `browser`, or none.

    Raises SamlRefused, NotFound, Conflict; a refusal is counted, and ends its test.
    """
    provider = await provider_at(office, organization_id, provider_id)
    try:
        assertion = await _verified(office, provider, response)
        came = _Came(relay_state, digest(browser), next(iter(office.sp.return_urls), ""))
        user_id, person = await _user_of(office.store, provider, assertion)
        says = f"saml:{provider_id}"
        call = replace(current(), actor=f"user:{user_id}", responsible_person=person, authority=says)
        with entered(call):
            async with office.store.begin(organization_id, call) as work:
                return await _accept(work, provider, assertion, came, user_id)
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


@dataclass(frozen=True, slots=True)
class _Came:
    """With what an answer came, and where somebody goes on who began at the provider."""

    relay_state: str
    browser_sha256: bytes
    return_to: str


async def _accept(work: UnitOfWork, seen: Provider, assertion: Assertion, came: _Came, user_id: UUID) -> Accepted:
    await members_store.lock_members(work.connection, work.organization_id)
    provider = await store.get_provider(work.connection, seen.provider_id, lock=True)
    if provider.config_version != seen.config_version:
        raise SamlRefused("CHANGED", "The identity provider's settings were changed just now. Sign in again.")
    request = await _answered(work, provider, assertion, came)
    shown, until = digest(assertion.assertion_id), assertion.usable_until + SKEW
    where = (work.organization_id, provider.provider_id)
    if not await logins.insert_assertion(work.connection, *where, shown, until):
        raise SamlRefused("REPLAY", "This assertion was used before.")
    if request is not None and request.test_id is not None:
        await _pass_test(work, provider, assertion, request.test_id)
        return Accepted("", "", True)
    await _require_open(work, provider)
    member = await _sign_in(work, provider, assertion, user_id)
    await _require_authenticated_since(work, member, assertion)
    challenge, return_to = (request.challenge, request.return_to) if request else ("", came.return_to)
    aal = aal_of(provider, assertion.authn_context)
    facts = LoginFacts(aal, assertion.authenticated_at, assertion.session_ends_at, challenge)
    code = await make_code(work, provider, member, facts)
    _emit_accepted(work, provider, "LOGIN", {"user_id": str(member.user_id), "aal": str(aal)})
    return Accepted(code, return_to, False)


async def _answered(work: UnitOfWork, provider: Provider, assertion: Assertion, came: _Came) -> LoginRequest | None:
    """The request that is answered, used up with that; None where none is, and none has to be."""
    if not assertion.in_response_to:
        if not provider.provider_initiated:
            raise SamlRefused("NO_REQUEST", "Nobody asked for this sign-in. Begin it here.")
        if not came.return_to:
            raise SamlRefused("NO_RETURN", "There is no address to go on at (sso.return_urls). Begin the sign-in here.")
        return None
    this = (provider.provider_id, assertion.in_response_to)
    relay = digest(came.relay_state)
    request = await logins.take_request(work.connection, *this, relay, came.browser_sha256, work.wall_now)
    if request is not None:
        return request
    pending = await logins.find_request(work.connection, *this)
    if pending is not None and pending.relay_sha256 == relay and pending.browser_sha256 != came.browser_sha256:
        raise SamlRefused("BROWSER", "This browser didn't begin this sign-in, or began another one since. Begin again.")
    raise SamlRefused("REQUEST", "The request that is answered isn't one of ours, was answered before, or is over.")


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
    if is_inside(email, await store.joinable_domains(work.connection, work.now)):
        member = await link_person(work, user_id, email, assertion.name_id) or member
    # Without mapped groups, roles are given by hand, or by the directory.
    return await _governed(work, member, given) if provider.group_roles else member


async def _member_of(
    work: UnitOfWork, provider: Provider, assertion: Assertion, user_id: UUID, email: str, given: GroupRole
) -> Member:
    """The member who signs in by the NameID, made the first time. Raises SamlRefused where the membership ended."""
    found = await find_linked_identity(work.connection, work.organization_id, _login(provider, assertion))
    if found is None:
        require_joining(email, await store.joinable_domains(work.connection, work.now))
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
        if request is not None and request.test_id is not None and request.relay_sha256 == digest(relay_state):
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


def _login(provider: Provider, assertion: Assertion) -> Login:
    """(provider, NameID), and never an address: whoever gets an address later isn't who had it before."""
    return Login(LoginKind.SAML, str(provider.provider_id), assertion.name_id)
