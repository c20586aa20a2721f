"""What is decided before a cloud is connected: the organization's external id, and the roles that it must make."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from services._mesh.errors import invalid_field
from services._mesh.uow import UnitOfWork
from services.scanner.model.cloud import Provider
from services.scanner.policies.aws import RolePlan, plan_roles
from services.scanner.store import connections

_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(user|role)/[A-Za-z0-9+=,.@_/-]{1,512}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What roles are planned for: who assumes them, for which action types, and the bill's bucket and prefix."""

    principal_arn: str
    action_types: Sequence[str]
    bill: tuple[str, str] | None
    provider: Provider = Provider.AWS


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What the installation's operator says: its own AWS principal ("" for none), whether organizations that say
    nothing may connect with long-lived keys, and the issuer that other clouds know the broker by ("" for none).
    """

    principal_arn: str = ""
    static_keys: bool = False
    issuer: str = ""


def new_external_id() -> str:
    """An external id that nobody can guess (AWS IAM user guide, "The confused deputy problem")."""
    return f"recoup-{secrets.token_hex(16)}"


async def set_static_keys(work: UnitOfWork, *, allowed: bool) -> None:
    """Say whether connections may be made with long-lived keys from now on."""
    before = await connections.find_static_keys(work.connection)
    await connections.set_static_keys(work.connection, work.organization_id, allowed, work.now)
    said = {None: "unset", True: "allowed", False: "forbidden"}
    metadata = {"before": said[before], "after": said[allowed]}
    work.emit("scanner.static_keys.set", f"organizations/{work.organization_id}", metadata)


async def check_key(work: UnitOfWork, rules: KeyRules, access_key_id: str) -> None:
    """Raises Invalid for a key where the organization allows none, and for none where we have no principal."""
    if access_key_id and not await _takes_keys(work, rules):
        own = (
            f"Leave it empty, so that {rules.principal_arn} assumes the roles; or have"
            if rules.principal_arn
            else "Have"
        )
        way_out = f"{own} an Admin allow them: recoup connect static-keys allowed"
        raise invalid_field("aws_access_key_id", f"this organization allows no long-lived keys. {way_out}")
    if not access_key_id and not rules.principal_arn:
        raise invalid_field(
            "aws_access_key_id", "must be given: this installation has no AWS principal of its own to assume roles with"
        )


async def check_other_key(work: UnitOfWork, rules: KeyRules, provider: Provider) -> None:
    """Raises Invalid for a key of a service account where the organization allows no long-lived keys."""
    if provider is Provider.GCP and not await _takes_keys(work, rules):
        way_out = "Have an Admin allow them: recoup connect static-keys allowed"
        raise invalid_field("gcp_service_account_key", f"this organization allows no long-lived keys. {way_out}")


async def _takes_keys(work: UnitOfWork, rules: KeyRules) -> bool:
    chosen = await connections.find_static_keys(work.connection)
    return rules.static_keys if chosen is None else chosen


async def plan_reading(work: UnitOfWork, wanted: Wanted, scopes: Sequence[str]) -> None:
    """Note that the role of another cloud than AWS was asked for. Raises Invalid for what only AWS has."""
    said = f"must be empty: it is AWS's, and the plan is for {wanted.provider.brand}"
    if wanted.principal_arn:
        raise invalid_field("principal_arn", said)
    if wanted.bill is not None:
        raise invalid_field("bill_bucket", said)
    if wanted.action_types:
        rule = f"must be empty: no action is offered for {wanted.provider.brand} yet, so that it is only read"
        raise invalid_field("action_types", rule)
    metadata = {"provider": wanted.provider.value, "action_types": [], "scopes": list(scopes)}
    work.emit("scanner.connection.plan", f"organizations/{work.organization_id}", metadata)


async def plan_connection(work: UnitOfWork, rules: KeyRules, wanted: Wanted) -> tuple[str, tuple[RolePlan, ...]]:
    """The organization's external id, generated when it is first needed, and the roles to be made in AWS.

    Raises Invalid for a principal that is no user or role, an action type that there isn't, a bucket without a prefix.
    """
    principal_arn = wanted.principal_arn or rules.principal_arn
    if not _PRINCIPAL.fullmatch(principal_arn):
        raise invalid_field(
            "principal_arn",
            "must be the ARN of the IAM user or role that assumes the roles, such as "
            "arn:aws:iam::123456789012:user/recoup-base: the base user whose key you will give",
        )
    if wanted.bill is not None and not all(wanted.bill):
        raise invalid_field("bill_prefix", "must be given together with bill_bucket, so that nothing else is readable")
    external_id = await connections.take_external_id(work.connection, work.organization_id, new_external_id(), work.now)
    roles = plan_roles(principal_arn, external_id, wanted.action_types, wanted.bill)
    work.emit(
        "scanner.connection.plan",
        f"organizations/{work.organization_id}",
        {
            "action_types": list(wanted.action_types),
            "principal_arn": principal_arn,
            "bill_bucket": wanted.bill[0] if wanted.bill else "",
        },
    )
    return external_id, roles
