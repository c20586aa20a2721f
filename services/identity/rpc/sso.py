"""The RPCs of single sign-on: decode, call, encode."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from recoup.identity.v1 import sso_service_pb2 as pb
from recoup.identity.v1 import sso_service_pb2_grpc
from services._mesh.context import current
from services._mesh.times import stamp
from services._mesh.uow import UnitOfWork
from services.identity.model.permissions import PermissionTable
from services.identity.model.sso import Provider
from services.identity.rpc import saml
from services.identity.usecases import saml_requests, sso, sso_changes, sso_domains, sso_sessions
from services.identity.usecases.saml_requests import SamlOffice
from services.identity.wire import sso as wire

Context = Any
R = TypeVar("R", bound=Message)


class SsoRpc(sso_service_pb2_grpc.SsoServiceServicer):
    """recoup.identity.v1.SsoService."""

    def __init__(self, office: SamlOffice, resolver: sso_domains.Resolver, permissions: PermissionTable) -> None:
        self._office, self._store, self._resolver, self._table = office, office.store, resolver, permissions

    async def _write(self, request: Any, response: type[R], decide: Callable[[UnitOfWork], Awaitable[Provider]]) -> R:
        """A change of one provider."""

        async def decided(work: UnitOfWork) -> R:
            make: Callable[..., R] = response
            return make(provider=wire.provider(await decide(work), self._office.sp))

        return await self._store.write(request, response, decided)

    async def CreateIdentityProvider(
        self, request: pb.CreateIdentityProviderRequest, context: Context
    ) -> pb.CreateIdentityProviderResponse:
        return await self._write(
            request,
            pb.CreateIdentityProviderResponse,
            lambda work: sso.create_identity_provider(work, request.display_name),
        )

    async def GetIdentityProvider(
        self, request: pb.GetIdentityProviderRequest, context: Context
    ) -> pb.GetIdentityProviderResponse:
        found = await sso.get_identity_provider(self._store, UUID(request.provider_id))
        return pb.GetIdentityProviderResponse(provider=wire.provider(found, self._office.sp))

    async def ListIdentityProviders(
        self, request: pb.ListIdentityProvidersRequest, context: Context
    ) -> pb.ListIdentityProvidersResponse:
        found = await sso.list_identity_providers(self._store)
        return pb.ListIdentityProvidersResponse(providers=[wire.provider(each, self._office.sp) for each in found])

    async def UpdateIdentityProvider(
        self, request: pb.UpdateIdentityProviderRequest, context: Context
    ) -> pb.UpdateIdentityProviderResponse:
        change = sso.ProviderChange(
            request.display_name,
            request.provider_initiated == pb.PROVIDER_INITIATED_ALLOWED,
            request.email_attribute,
            request.groups_attribute,
            tuple(request.mfa_contexts),
            wire.default_role(request.default_role),
            request.session_minutes,
            request.etag,
        )
        return await self._write(
            request,
            pb.UpdateIdentityProviderResponse,
            lambda work: sso.update_identity_provider(work, self._table, UUID(request.provider_id), change),
        )

    async def ImportMetadata(self, request: pb.ImportMetadataRequest, context: Context) -> pb.ImportMetadataResponse:
        return await self._write(
            request,
            pb.ImportMetadataResponse,
            lambda work: sso.import_metadata(
                work, UUID(request.provider_id), request.metadata.encode(), request.metadata_url, request.etag
            ),
        )

    async def SetGroupRoles(self, request: pb.SetGroupRolesRequest, context: Context) -> pb.SetGroupRolesResponse:
        wanted = [wire.group_role(each, current().responsible_person) for each in request.group_roles]
        return await self._write(
            request,
            pb.SetGroupRolesResponse,
            lambda work: sso.set_group_roles(work, self._table, UUID(request.provider_id), wanted, request.etag),
        )

    async def EnableIdentityProvider(
        self, request: pb.EnableIdentityProviderRequest, context: Context
    ) -> pb.EnableIdentityProviderResponse:
        return await self._write(
            request,
            pb.EnableIdentityProviderResponse,
            lambda work: sso.enable_identity_provider(work, UUID(request.provider_id), request.etag),
        )

    async def ConfirmIdentityProvider(
        self, request: pb.ConfirmIdentityProviderRequest, context: Context
    ) -> pb.ConfirmIdentityProviderResponse:
        return await self._write(
            request,
            pb.ConfirmIdentityProviderResponse,
            lambda work: sso_changes.confirm_identity_provider(work, UUID(request.provider_id), request.etag),
        )

    async def DisableIdentityProvider(
        self, request: pb.DisableIdentityProviderRequest, context: Context
    ) -> pb.DisableIdentityProviderResponse:
        async def decide(work: UnitOfWork) -> pb.DisableIdentityProviderResponse:
            after, ended = await sso.disable_identity_provider(work, UUID(request.provider_id))
            return pb.DisableIdentityProviderResponse(
                provider=wire.provider(after, self._office.sp), sessions_ended=ended
            )

        return await self._store.write(request, pb.DisableIdentityProviderResponse, decide)

    async def SetEnforcement(self, request: pb.SetEnforcementRequest, context: Context) -> pb.SetEnforcementResponse:
        break_glass = UUID(request.break_glass_member_id) if request.break_glass_member_id else None
        return await self._write(
            request,
            pb.SetEnforcementResponse,
            lambda work: sso.set_enforcement(
                work,
                UUID(request.provider_id),
                request.enforcement == pb.ENFORCEMENT_ON,
                break_glass,
                request.etag,
            ),
        )

    async def StartTestLogin(self, request: pb.StartTestLoginRequest, context: Context) -> pb.StartTestLoginResponse:
        async def decide(work: UnitOfWork) -> pb.StartTestLoginResponse:
            test, url = await saml_requests.start_test_login(work, self._office.sp, UUID(request.provider_id))
            return pb.StartTestLoginResponse(test=wire.test_login(test), login_url=url)

        return await self._store.write(request, pb.StartTestLoginResponse, decide)

    async def GetTestResult(self, request: pb.GetTestResultRequest, context: Context) -> pb.GetTestResultResponse:
        found = await saml_requests.get_test_result(self._store, UUID(request.test_id), self._office.wall_now())
        return pb.GetTestResultResponse(test=wire.test_login(found))

    async def AddDomain(self, request: pb.AddDomainRequest, context: Context) -> pb.AddDomainResponse:
        async def decide(work: UnitOfWork) -> pb.AddDomainResponse:
            return pb.AddDomainResponse(domain=wire.domain(await sso_domains.add_domain(work, request.name)))

        return await self._store.write(request, pb.AddDomainResponse, decide)

    async def ListDomains(self, request: pb.ListDomainsRequest, context: Context) -> pb.ListDomainsResponse:
        return pb.ListDomainsResponse(
            domains=[wire.domain(each) for each in await sso_domains.list_domains(self._store)]
        )

    async def VerifyDomain(self, request: pb.VerifyDomainRequest, context: Context) -> pb.VerifyDomainResponse:
        earlier = await self._store.replayed(request, pb.VerifyDomainResponse)
        if earlier is not None:
            return earlier
        await sso_domains.find_proof(self._store, self._resolver, UUID(request.domain_id))

        async def decide(work: UnitOfWork) -> pb.VerifyDomainResponse:
            return pb.VerifyDomainResponse(
                domain=wire.domain(await sso_domains.verify_domain(work, UUID(request.domain_id)))
            )

        return await self._store.write(request, pb.VerifyDomainResponse, decide)

    async def RemoveDomain(self, request: pb.RemoveDomainRequest, context: Context) -> pb.RemoveDomainResponse:
        async def decide(work: UnitOfWork) -> pb.RemoveDomainResponse:
            await sso_domains.remove_domain(work, UUID(request.domain_id))
            return pb.RemoveDomainResponse()

        return await self._store.write(request, pb.RemoveDomainResponse, decide)

    async def CreateSsoSession(
        self, request: pb.CreateSsoSessionRequest, context: Context
    ) -> pb.CreateSsoSessionResponse:
        token, made = await sso_sessions.create_sso_session(self._store, request.code, request.code_verifier)
        return pb.CreateSsoSessionResponse(
            session_token=token, expires_at=stamp(made.expires_at), session=wire.session(made)
        )

    async def ServeSaml(self, request: pb.ServeSamlRequest, context: Context) -> pb.ServeSamlResponse:
        return pb.ServeSamlResponse(http=await saml.serve(self._office, request.http))

    async def AcceptSamlResponse(
        self, request: pb.AcceptSamlResponseRequest, context: Context
    ) -> pb.AcceptSamlResponseResponse:
        return pb.AcceptSamlResponseResponse(http=await saml.accept(self._office, request.http))
