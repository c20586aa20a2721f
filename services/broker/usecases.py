"""What the broker does: open the one credential that a grant names, and give a session of no more than it allows."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar
from uuid import UUID, uuid4

from services._mesh.aws import Failure
from services._mesh.clock import Clock
from services._mesh.clouds import CloudToken
from services._mesh.context import current
from services._mesh.errors import Denied, Reason, Unavailable, WrongState
from services._mesh.grants import CredentialScope, Grant
from services._mesh.kms.interface import EnvelopeBroken, SecretContext
from services.broker.clients import AssumeFailed, CloudSession, Sts
from services.broker.model import base_key, cloud_key
from services.broker.model.ages import require_young
from services.broker.model.base_key import BaseKey
from services.broker.model.cloud_key import ALL, AZURE_PURPOSE, GCP_PURPOSE, SEALED_FOR, CloudKey
from services.broker.model.purposes import OPENED_FOR, ROLE_OF, TRIED_FOR, session_policy
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener

T = TypeVar("T")
_CLOUDS = {AZURE_PURPOSE: "Azure", GCP_PURPOSE: "Google Cloud"}

log = logging.getLogger(__name__)


class TokenGiver(Protocol):
    """A cloud's token service."""

    async def token(self, key: CloudKey, subject: str) -> tuple[str, float]:
        """A token, and when it ends in seconds since the epoch. Without a secret in the key, we are `subject`.

        Raises AssumeFailed.
        """


@dataclass(frozen=True)
class Desk:
    """What the broker works with. `tokens` are the token services by what a credential is sealed for."""

    opener: Opener
    sts: Sts
    used: UsedGrants
    clock: Clock
    tokens: Mapping[str, TokenGiver] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and what the cloud's own trail will show of it."""

    session: CloudSession
    role_arn: str
    source_identity: str


async def open_credential(desk: Desk, sealed: bytes) -> Opened | CloudToken:
    """Open the grant's credential and assume its role under its session policy; or get Azure's or Google's token.

    Raises Denied (GRANT_INVALID), Conflict (GRANT_PREDATES_BROKER), WrongState (CREDENTIAL_UNOPENABLE, CLOUD_REFUSED),
    Unavailable (CREDENTIAL_TOO_OLD, KMS_UNAVAILABLE, KMS_KEY_UNUSABLE, CLOUD_THROTTLED, CLOUD_UNREACHABLE).
    """
    grant, scope = _take_grant(desk, OPENED_FOR)
    if scope.purpose in SEALED_FOR:
        return await _open_token(desk, sealed, grant, scope)
    policy = session_policy(scope.purpose, scope.statements)
    base = await _open(desk, sealed, grant.organization_id, scope.credential_id)
    role_arn = base.role(scope.account, ROLE_OF[scope.purpose])
    identity = f"{scope.purpose}-{grant.subject}"
    try:
        session = await desk.sts.assume(base, role_arn, base.external_id, identity, policy)
    except AssumeFailed as failed:
        raise _cloud_problem(failed, scope.account) from None
    log.info("opened a credential", extra={"purpose": scope.purpose, "grant": grant.jti, "role_arn": role_arn})
    return Opened(session, role_arn, identity)


async def _open_token(desk: Desk, sealed: bytes, grant: Grant, scope: CredentialScope) -> CloudToken:
    """A token for one scope that the credential was sealed for. Such a token can't be shaped by actions."""
    purpose = SEALED_FOR[scope.purpose]
    if scope.statements:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant names actions, and the purpose has none.")
    giver = desk.tokens[purpose]
    key = await _opened(desk, sealed, grant.organization_id, scope.credential_id, purpose, cloud_key.parse)
    key.require(scope.account)
    try:
        if scope.account == ALL and not key.secret:
            await _require_exact_trust(giver, key)
        token, ends_at = await giver.token(key, str(scope.credential_id))
    except AssumeFailed as failed:
        raise _cloud_problem(failed, scope.account, _CLOUDS[purpose]) from None
    identity = f"{scope.purpose}-{grant.subject}"
    log.info("opened a credential", extra={"purpose": scope.purpose, "grant": grant.jti, "scope": scope.account})
    return CloudToken(token, scope.account, identity, datetime.fromtimestamp(ends_at, UTC))


async def _require_exact_trust(giver: TokenGiver, key: CloudKey) -> None:
    """See somebody else refused, once in each check: a cloud that trusts any subject of ours would let in every other
    customer's connection (the confused deputy problem, as of roles in AWS). Raises AssumeFailed.
    """
    try:
        await giver.token(key, str(uuid4()))
    except AssumeFailed as failed:
        if failed.failure in (Failure.DENIED, Failure.REFUSED):
            return
        raise
    raise AssumeFailed(Failure.DENIED, "AnySubject")


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of assuming the role in three ways: "ALLOWED", "REFUSED" or "UNREACHABLE" each."""

    role_arn: str
    without_external_id: str
    with_wrong_external_id: str
    with_external_id: str
    error_code: str


async def probe_credential(desk: Desk, sealed: bytes) -> Probe:
    """Try the grant's role without an external id, with a wrong one, and with the right one."""
    grant, scope = _take_grant(desk, TRIED_FOR)
    base = await _open(desk, sealed, grant.organization_id, scope.credential_id)
    role_arn = base.role(scope.account, ROLE_OF[scope.purpose])
    identity = f"probe-{grant.subject}"
    without, _ = await _attempt(desk, base, role_arn, None, identity)
    wrong, _ = await _attempt(desk, base, role_arn, secrets.token_urlsafe(24), identity)
    right, code = await _attempt(desk, base, role_arn, base.external_id, identity)
    return Probe(role_arn, without, wrong, right, code)


async def _attempt(desk: Desk, base: BaseKey, role_arn: str, external_id: str | None, identity: str) -> tuple[str, str]:
    try:
        await desk.sts.assume(base, role_arn, external_id, identity, None)
    except AssumeFailed as failed:
        refused = failed.failure in (Failure.DENIED, Failure.REFUSED)
        return ("REFUSED" if refused else "UNREACHABLE"), failed.code
    return "ALLOWED", ""


def _take_grant(desk: Desk, allowed: Mapping[str, frozenset[str]]) -> tuple[Grant, CredentialScope]:
    """The call's grant, used up by this call, and the credential that it names. `allowed`: purposes by kind of work."""
    grant = current().grant
    if grant is None or grant.credential is None:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant names no credential.")
    if grant.credential.purpose not in allowed.get(grant.kind, ()):
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant's work has no such purpose.")
    desk.used.use(grant.jti, grant.issued_at, desk.clock.wall_seconds())
    try:
        require_young(grant.credential, desk.clock.now())
    except Unavailable as problem:
        desk.opener.on_failure(grant.organization_id, problem.reason_name)
        raise
    return grant, grant.credential


async def _open(desk: Desk, sealed: bytes, organization_id: UUID, credential_id: UUID) -> BaseKey:
    """The base key."""
    return await _opened(desk, sealed, organization_id, credential_id, base_key.PURPOSE, base_key.parse)


async def _opened(
    desk: Desk, sealed: bytes, organization_id: UUID, credential_id: UUID, purpose: str, parse: Callable[[bytearray], T]
) -> T:
    """What is sealed. The context comes from the grant, never from the envelope or its row."""
    context = SecretContext(organization_id, credential_id, purpose)
    try:
        return parse(await desk.opener.open(sealed, context))
    except (EnvelopeBroken, ValueError, KeyError, AttributeError):
        raise WrongState(
            Reason.ERROR_REASON_CREDENTIAL_UNOPENABLE,
            "The credential doesn't open. Connect the cloud scope again.",
            {"credential_id": str(credential_id)},
        ) from None


def _cloud_problem(failed: AssumeFailed, account: str, cloud: str = "AWS") -> WrongState | Unavailable:
    operation = "sts:AssumeRole" if cloud == "AWS" else "token"
    metadata = {"code": failed.code, "account": account, "operation": operation}
    if failed.failure is Failure.THROTTLED:
        return Unavailable(Reason.ERROR_REASON_CLOUD_THROTTLED, f"{cloud} throttles {operation}.", metadata)
    if failed.failure in (Failure.UNREACHABLE, Failure.AMBIGUOUS):
        return Unavailable(Reason.ERROR_REASON_CLOUD_UNREACHABLE, f"{cloud} doesn't answer {operation}.", metadata)
    said = f"AWS refuses to let us assume the role ({failed.code}). Check its trust policy and external id."
    if cloud != "AWS":
        said = f"{cloud} refuses our credential ({failed.code}). Check the connection: it says what to do."
    return WrongState(Reason.ERROR_REASON_CLOUD_REFUSED, said, metadata)
