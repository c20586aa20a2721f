"""Decides whether one call may reach its handler: authority, permission, organization, limits. In that order, always.

One `Gate` is made per RPC when the process starts, with everything worked out that doesn't depend on the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError, Message

from services._mesh import grants, passports, tokens
from services._mesh.clock import Clock, monotonic
from services._mesh.context import CallContext
from services._mesh.denials import DenialLedger
from services._mesh.descriptors import ORGANIZATION_FIELD, Effect, LimitRule, MethodRule, Scope, TenantFields
from services._mesh.errors import DeadlinePassed, Denied, Invalid, NotFound, Problem, Reason, Unauthenticated
from services._mesh.grants import Grant, GrantVerifier
from services._mesh.ids import PLATFORM, UUID_TEXT, uuid7
from services._mesh.metrics import Metrics
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.passports import Kind, Passport
from services._mesh.peers import AllowedCallers, Peer, PeerReader
from services._mesh.revocations import Revocations
from services._mesh.settings import LimitsSettings
from services._mesh.validation import RequestValidator

REQUEST_ID_KEY = "recoup-request-id"
# We answer a little before the caller stops listening, so that it gets our error and not its own guess.
_SHAVE_SECONDS = 0.020
# With less than this no useful work can be finished; refusing early keeps an overloaded process from doing it in vain.
_MINIMUM_SECONDS = 0.100
_MAX_REQUEST_ID = 100


@dataclass(frozen=True)
class Checks:
    """What the gates of all RPCs of a process share."""

    peers: PeerReader
    passports: PassportVerifier
    grants: GrantVerifier
    revocations: Revocations
    validator: RequestValidator
    denials: DenialLedger
    limits: LimitsSettings
    metrics: Metrics
    clock: Clock


class ForeignOrganization(NotFound):
    """A request that names another organization. To the caller it is NOT_FOUND; to us it is a denial."""


class Gate:
    """The checks of one RPC."""

    def __init__(self, rule: MethodRule, callers: AllowedCallers, checks: Checks) -> None:
        self.rule = rule
        self.callers = callers
        self._checks = checks
        self._tenant_fields = TenantFields(rule.descriptor.input_type)
        fields = rule.descriptor.input_type.fields_by_name
        # AIP-155: the request_id of a change names it; elsewhere a field of that name may be a filter.
        self._names_request = rule.effect is Effect.WRITE and "request_id" in fields
        checks.validator.prepare(rule.request)

    def peer(self, auth_context: Mapping[str, Any]) -> Peer:
        """The peer, if it may make this call."""
        peer = self._checks.peers.read(auth_context)
        self.callers.check(peer.name)
        return peer

    def budget(self, remaining: float | None) -> float | None:
        """Seconds that the handler has. None only for a stream whose caller set no deadline."""
        limits = self._checks.limits
        if remaining is None:
            return None if self.rule.response_streaming else limits.default_deadline_seconds
        if remaining < _MINIMUM_SECONDS:
            raise DeadlinePassed(
                Reason.ERROR_REASON_DEADLINE_TOO_SHORT, "Less than 100 ms are left, which is too short to do anything."
            )
        if self.rule.response_streaming:
            return remaining - _SHAVE_SECONDS
        return min(remaining - _SHAVE_SECONDS, limits.max_deadline_seconds)

    def authority(self, metadata: Mapping[str, Any], peer: Peer) -> Passport | Grant | None:
        """The passport or grant that the RPC's scope asks for, verified; None where it asks for neither."""
        if self.rule.needs_passport:
            token = passports.from_metadata(metadata.get(passports.METADATA_KEY))
            return self._checks.passports.verify(token, peer.thumbprint)
        if self.rule.needs_grant:
            return self._checks.grants.verify(metadata.get(grants.METADATA_KEY), peer.thumbprint)
        return None

    def context(
        self,
        authority: Passport | Grant | None,
        peer: Peer,
        metadata: Mapping[str, Any],
        trace_id: str,
        budget: float | None,
    ) -> CallContext:
        """The circumstances of the call, of verified facts only."""
        common: dict[str, Any] = {
            "rpc": self.rule.name,
            "peer": peer.name,
            "peer_thumbprint": peer.thumbprint,
            "request_id": _request_id(metadata.get(REQUEST_ID_KEY)),
            "trace_id": trace_id,
            "deadline": None if budget is None else monotonic() + budget,
            "audit_action": self.rule.audit_action,
        }
        if isinstance(authority, Passport):
            return CallContext(
                **common,
                organization_id=authority.organization_id,
                actor=authority.actor,
                responsible_person=authority.responsible_person,
                role=authority.role,
                aal=authority.aal,
                session_id=authority.session_id,
                authority=authority.authority,
                passport=authority,
                passport_token=passports.from_metadata(metadata.get(passports.METADATA_KEY)),
            )
        actor = tokens.spiffe(peer.name)
        if authority is None:
            return CallContext(**common, actor=actor)
        organization, jti = authority.organization_id, authority.jti
        return CallContext(
            **common, actor=actor, organization_id=organization, authority=f"grant:{jti}", grant=authority
        )

    def authorize(self, authority: Passport | Grant | None) -> None:
        """Raises Denied or Unavailable unless the caller may do this, now."""
        if isinstance(authority, Passport):
            self._require_permission(authority)
        if self.rule.needs_fresh_feed:
            self._checks.revocations.require_fresh()

    def _require_permission(self, passport: Passport) -> None:
        rule = self.rule
        if rule.scope is Scope.ORGANIZATION and passport.organization_id is None:
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The passport is for no organization.")
        if rule.scope is Scope.PLATFORM and passport.organization_id != PLATFORM:
            # What it is about is no secret, and is nobody's resource: whoever asks may know what they lack.
            raise Denied(
                Reason.ERROR_REASON_PERMISSION_MISSING,
                f"Only members of the platform organization can hold {rule.permission}.",
                {"permission": rule.permission},
            )
        if rule.permission in passport.withheld:
            raise _withheld(rule.permission, passport)
        if rule.permission and not self._holds(passport):
            raise Denied(
                Reason.ERROR_REASON_PERMISSION_MISSING,
                f"The role {passport.role or 'without a name'} doesn't hold {rule.permission}.",
                {"permission": rule.permission},
            )
        if rule.human_only and passport.kind is not Kind.HUMAN:
            raise Denied(
                Reason.ERROR_REASON_HUMAN_SESSION_REQUIRED,
                "This is for people: no API token or service account may do it. Sign in, and repeat it.",
                {"session": Kind.HUMAN.value},
            )
        if passport.limits is not None:
            self._require_limits_kept(passport)
        if passport.aal < rule.min_aal:
            raise Denied(
                Reason.ERROR_REASON_ASSURANCE_TOO_LOW,
                "This needs a session with a second factor.",
                {"required_aal": str(rule.min_aal)},
            )
        if rule.max_auth_age_seconds:
            self._require_recent(passport)

    def _require_recent(self, passport: Passport) -> None:
        """By the wall clock, as everything about sessions: `auth_time` is the session issuer's."""
        age, most = self._checks.clock.wall_seconds() - passport.auth_time, self.rule.max_auth_age_seconds
        if age > most:
            raise Denied(
                Reason.ERROR_REASON_REAUTHENTICATION_REQUIRED,
                f"This needs somebody who authenticated within the last {most // 60} minutes. Authenticate again, and"
                " repeat it with the new session.",
                {"max_auth_age_seconds": str(most), "auth_age_seconds": f"{age:.0f}"},
            )

    def _holds(self, passport: Passport) -> bool:
        """Whether the RPC's permission is the role's, or break-glass adds it and may reach this very RPC."""
        if self.rule.permission in passport.permissions:
            return True
        elevation = passport.elevation
        return self.rule.break_glass and elevation is not None and self.rule.permission in elevation.permissions

    def _require_limits_kept(self, passport: Passport) -> None:
        """What doesn't say that it keeps within a role's limits is denied to whoever has such a role."""
        kept = self.rule.limits
        if kept in (LimitRule.NEUTRAL, LimitRule.HONOURED) or (kept is LimitRule.THROUGH_SERVICE and passport.act):
            return
        raise Denied(
            Reason.ERROR_REASON_ROLE_LIMITED,
            "Your role is limited to some connections or tags, and this is about the whole organization. Ask an Admin"
            " for a role without limits.",
        )

    def request(self, raw: bytes, organization_id: UUID | None) -> Message:
        """The request, if it is about the caller's organization alone and within its limits.

        Bytes are parsed only here, after the caller has proved who they are and what they may.
        """
        try:
            request = self.rule.request.FromString(raw)
        except DecodeError as error:
            raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, "The request isn't the message it should be.") from error
        if self._tenant_fields and (self.rule.needs_passport or self.rule.needs_grant):
            self._require_tenant(request, organization_id)
        self._checks.validator.check(request)
        return request

    def _require_tenant(self, request: Message, organization_id: UUID | None) -> None:
        if self.rule.scope is Scope.PLATFORM:
            return  # Its permission is held by no role of an organization (descriptors.faults sees to that).
        own = "" if organization_id is None else str(organization_id)
        if self._tenant_fields.only_top:
            value = getattr(request, ORGANIZATION_FIELD)
            foreign = bool(value) and value != own
        else:
            foreign = any(value != own for _, value in self._tenant_fields.values(request))
        if foreign:
            # Whether such an organization exists must not show. A value that can't be an id at all may be explained.
            self._checks.validator.check(request)
            raise ForeignOrganization("organization")
        if self.rule.scope is Scope.ORGANIZATION and not getattr(request, ORGANIZATION_FIELD):
            self._checks.validator.check(request)
            raise ForeignOrganization("organization")

    def with_request_id(self, context: CallContext, request: Any) -> CallContext:
        """The context under the request's own id, where the caller named the change."""
        if not self._names_request or not request.request_id:
            return context
        from dataclasses import replace

        return replace(context, request_id=request.request_id)

    def note(self, problem: Problem, context: CallContext | None, peer: Peer | None, trace_id: str) -> None:
        """Counts the problem if it is a refusal."""
        if isinstance(problem, Denied | Unauthenticated | ForeignOrganization):
            name = "unknown" if peer is None else peer.name
            self._checks.denials.note(
                organization_id=None if context is None else context.organization_id,
                actor=tokens.spiffe(name) if context is None else context.actor,
                peer=name,
                rpc=self.rule.name,
                reason=problem.reason_name if not isinstance(problem, ForeignOrganization) else "ORGANIZATION_FOREIGN",
                trace_id=trace_id,
            )


def told_request_id(metadata: Mapping[str, Any]) -> dict[str, str]:
    """A span's attribute: what a caller from outside the mesh calls its request, so that its trace is found by it.

    Only what is a UUID: a span says nothing that somebody wrote.
    """
    value = metadata.get(REQUEST_ID_KEY)
    return {"recoup.request_id": value} if isinstance(value, str) and UUID_TEXT.fullmatch(value) else {}


def _request_id(value: Any) -> str:
    if isinstance(value, str) and 0 < len(value) <= _MAX_REQUEST_ID and value.isprintable():
        return value
    return str(uuid7())


def _withheld(permission: str, passport: Passport) -> Denied:
    if passport.awaits_provider:
        return Denied(
            Reason.ERROR_REASON_PROVIDER_FRESH,
            "Your session is of an identity provider whose metadata or settings were changed less than a day ago. Wait,"
            " or have an Admin confirm the provider who isn't the one that changed it.",
            {"permission": permission},
        )
    return Denied(
        Reason.ERROR_REASON_APPROVER_FRESH,
        "Your role holds this, but it was given to you less than a day ago. Wait, or have an Admin confirm you"
        " who isn't the one that gave it.",
        {"permission": permission},
    )
