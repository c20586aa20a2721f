"""The identity process: `python -m services.identity --config FILE`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable

from recoup.identity.v1 import (
    browser_service_pb2,
    credential_service_pb2,
    elevation_service_pb2,
    exception_service_pb2,
    identity_service_pb2,
    invitation_service_pb2,
    operator_service_pb2,
    organization_service_pb2,
    origin_service_pb2,
    person_service_pb2,
    posture_service_pb2,
    review_service_pb2,
    role_service_pb2,
    scim_service_pb2,
    sso_service_pb2,
    token_service_pb2,
)
from recoup.services import SERVICES
from services._mesh.descriptors import PermissionRule, method_rules, permission_rules
from services._mesh.pages import PageTokens
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.process import Mesh, run
from services._mesh.producing import produce
from services._mesh.revocations import Revocation, RevocationKind
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store
from services.identity.clients.dns import TxtResolver
from services.identity.clients.jwks import SessionKeys
from services.identity.config import IdentitySettings
from services.identity.falling_due import FallingDue
from services.identity.model.api_tokens import TOKEN_AAL
from services.identity.model.elevations import Reach
from services.identity.model.permissions import Held, PermissionTable
from services.identity.model.sso import ServiceProvider
from services.identity.rpc.browsers import BrowserRpc
from services.identity.rpc.credentials import CredentialRpc
from services.identity.rpc.elevations import ElevationRpc
from services.identity.rpc.exceptions import ExceptionRpc
from services.identity.rpc.identity import IdentityRpc
from services.identity.rpc.invitations import InvitationRpc
from services.identity.rpc.operators import OperatorRpc
from services.identity.rpc.organizations import OrganizationRpc
from services.identity.rpc.origins import OriginRpc
from services.identity.rpc.persons import PersonRpc
from services.identity.rpc.posture import PostureRpc
from services.identity.rpc.reviews import ReviewRpc
from services.identity.rpc.roles import RoleRpc
from services.identity.rpc.scim import ScimRpc
from services.identity.rpc.sso import SsoRpc
from services.identity.rpc.tokens import TokenRpc
from services.identity.usecases import feed, sso_domains
from services.identity.usecases.principals import Authority
from services.identity.usecases.saml_requests import SamlOffice

_IDENTITY = identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"]
_BROWSERS = browser_service_pb2.DESCRIPTOR.services_by_name["BrowserService"]
_CREDENTIALS = credential_service_pb2.DESCRIPTOR.services_by_name["CredentialService"]
_INVITATIONS = invitation_service_pb2.DESCRIPTOR.services_by_name["InvitationService"]
_ORGANIZATIONS = organization_service_pb2.DESCRIPTOR.services_by_name["OrganizationService"]
_ORIGINS = origin_service_pb2.DESCRIPTOR.services_by_name["OriginService"]
_PERSONS = person_service_pb2.DESCRIPTOR.services_by_name["PersonService"]
_OPERATORS = operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"]
_ELEVATIONS = elevation_service_pb2.DESCRIPTOR.services_by_name["ElevationService"]
_EXCEPTIONS = exception_service_pb2.DESCRIPTOR.services_by_name["ExceptionService"]
_TOKENS = token_service_pb2.DESCRIPTOR.services_by_name["TokenService"]
_POSTURE = posture_service_pb2.DESCRIPTOR.services_by_name["PostureService"]
_REVIEWS = review_service_pb2.DESCRIPTOR.services_by_name["ReviewService"]
_ROLES = role_service_pb2.DESCRIPTOR.services_by_name["RoleService"]
_SCIM = scim_service_pb2.DESCRIPTOR.services_by_name["ScimService"]
_SSO = sso_service_pb2.DESCRIPTOR.services_by_name["SsoService"]


def permission_table() -> PermissionTable:
    """What each role holds, from the protos."""
    rules = [rule for services in SERVICES.values() for service in services for rule in permission_rules(service)]
    approvals = frozenset(rule.name for rule in rules if rule.is_approval)
    return PermissionTable(
        customers=_held(lambda rule: rule.roles),
        platform=_held(lambda rule: rule.platform_roles),
        approvals=approvals,
        for_people=_for_people(),
        personal=frozenset(rule.name for rule in rules if rule.is_personal),
    )


def _for_people() -> frozenset[str]:
    """The permissions of which no RPC that names one lets a machine in: a token proves no second factor either."""
    rules = [rule for services in SERVICES.values() for service in services for rule in method_rules(service)]
    open_to = {rule.permission for rule in rules if not rule.human_only and rule.min_aal <= TOKEN_AAL}
    return frozenset(rule.permission for rule in rules) - open_to


def _held(roles_of: Callable[[PermissionRule], tuple[str, ...]]) -> Held:
    table: dict[str, dict[str, frozenset[str]]] = {}
    for process, services in SERVICES.items():
        roles: dict[str, set[str]] = defaultdict(set)
        for rule in (rule for service in services for rule in permission_rules(service)):
            for role in roles_of(rule):
                roles[role].add(rule.name)
        table[process] = {role: frozenset(names) for role, names in roles.items()}
    return table


def break_glass_reach() -> Reach:
    """What break-glass may reach, from the protos: never what no role of the organization could hold."""
    return Reach(_reach(lambda rule: rule.roles), _reach(lambda rule: rule.platform_roles))


def _reach(roles_of: Callable[[PermissionRule], tuple[str, ...]]) -> dict[str, frozenset[str]]:
    found = {}
    for process, services in SERVICES.items():
        held = {rule.name for service in services for rule in permission_rules(service) if roles_of(rule)}
        needed = {rule.permission for service in services for rule in method_rules(service) if rule.break_glass}
        found[process] = frozenset(held & needed)
    return found


async def _own_feed(mesh: Mesh, store: Store) -> None:
    """Identity's own knowledge of revocations comes straight from its table."""
    import asyncio

    while True:
        try:
            piece = await feed.read_revocations(store, mesh.revocations.resume(), mesh.clock.wall_now())
            mesh.revocations.apply(
                [Revocation(r.seq, RevocationKind[r.kind], r.key, r.revoked_at.timestamp()) for r in piece.entries],
                piece.latest_seq,
            )
        except Exception:  # A database that is away makes the feed stale, which refuses what must be refused.
            mesh.revocations.resume()
        await asyncio.sleep(0.5)


async def compose(mesh: Mesh, settings: IdentitySettings) -> None:
    """Wire identity together and serve."""
    store = mesh.store("identity")
    mesh.task(_own_feed(mesh, store), "own feed")
    mesh.health.needs("its own revocation feed", mesh.revocations.is_fresh)
    sessions = SessionKeys(settings.sessions.jwks, settings.sessions.ca)
    mesh.task(sessions.keep(), "session keys")
    authority = Authority(
        reader=store,
        sessions=sessions,
        issuer=settings.sessions.issuer,
        audience=settings.sessions.audience,
        key=mesh.signing_key(),
        verifier=PassportVerifier(mesh.trust, mesh.revocations, mesh.clock, audience=mesh.name, profile=mesh.profile),
        revocations=mesh.revocations,
        permissions=permission_table(),
        reach=break_glass_reach(),
        clock=mesh.clock,
        seconds=int(settings.passports.seconds),
        confirms_email=settings.sessions.email_verified == "always",
    )
    produce(mesh, "identity", store)
    dispatcher = mesh.database(mesh.role("dispatcher"), 2)
    resolver = TxtResolver(settings.sso.nameservers)
    asks = sso_domains.asks(store, resolver)
    mesh.task(FallingDue(dispatcher, store, mesh.clock, mesh.metrics, asks).run(), "what is due")
    sp = ServiceProvider(settings.sso.public_url, settings.sso.return_urls)
    office = SamlOffice(store, sp, BoundedThreads(2, "saml"), mesh.denials, mesh.clock.wall_now)
    mesh.task(authority.sightings.run(store), "sightings")
    pages = PageTokens.from_file(settings.passports.page_key)
    await mesh.serve(
        [
            (_IDENTITY, IdentityRpc(authority, store, mesh.clock, pages)),
            (_BROWSERS, BrowserRpc(store, mesh.clock)),
            (_CREDENTIALS, CredentialRpc(store)),
            (_OPERATORS, OperatorRpc(store, mesh.clock, pages)),
            (_ELEVATIONS, ElevationRpc(store, mesh.clock, pages, authority.permissions, authority.reach)),
            (_EXCEPTIONS, ExceptionRpc(store, mesh.clock, pages)),
            (_REVIEWS, ReviewRpc(store, mesh.clock, pages)),
            (_POSTURE, PostureRpc(store, mesh.clock)),
            (_ROLES, RoleRpc(store, authority.permissions, mesh.clock, pages)),
            (_SCIM, ScimRpc(store, mesh.clock, pages, authority.permissions)),
            (_TOKENS, TokenRpc(store, mesh.clock, pages, authority.permissions)),
            (_ORGANIZATIONS, OrganizationRpc(store)),
            (_ORIGINS, OriginRpc(store, is_local=mesh.profile == "local")),
            (_PERSONS, PersonRpc(store, authority.permissions, pages)),
            (_INVITATIONS, InvitationRpc(store, authority.permissions, mesh.clock, pages)),
            (_SSO, SsoRpc(office, resolver, authority.permissions)),
        ]
    )


if __name__ == "__main__":
    sys.exit(run(IdentitySettings, compose, "Recoup's identity service"))
