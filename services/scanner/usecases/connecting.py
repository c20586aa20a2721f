"""What is decided before a cloud is connected: the organization's external id, and the roles that it must make."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from services._mesh.errors import invalid_field
from services._mesh.uow import UnitOfWork
from services.scanner.policies.aws import RolePlan, plan_roles
from services.scanner.store import connections

_PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:(user|role)/[A-Za-z0-9+=,.@_/-]{1,512}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What roles are planned for: who assumes them, for which action types, and the bill's bucket and prefix."""

    principal_arn: str
    action_types: Sequence[str]
    bill: tuple[str, str] | None


def new_external_id() -> str:
    """An external id that nobody can guess (AWS IAM user guide, "The confused deputy problem")."""
    return f"recoup-{secrets.token_hex(16)}"


async def plan_connection(work: UnitOfWork, wanted: Wanted) -> tuple[str, tuple[RolePlan, ...]]:
    """The organization's external id, generated when it is first needed, and the roles to be made.

    Raises Invalid for a principal that is no user or role, an action type that there isn't, a bucket without a prefix.
    """
    if not _PRINCIPAL.fullmatch(wanted.principal_arn):
        raise invalid_field(
            "principal_arn",
            "must be the ARN of the IAM user or role that assumes the roles, such as "
            "arn:aws:iam::123456789012:user/recoup-base: the base user whose key you will give",
        )
    if wanted.bill is not None and not all(wanted.bill):
        raise invalid_field("bill_prefix", "must be given together with bill_bucket, so that nothing else is readable")
    external_id = await connections.take_external_id(work.connection, work.organization_id, new_external_id(), work.now)
    roles = plan_roles(wanted.principal_arn, external_id, wanted.action_types, wanted.bill)
    work.emit(
        "scanner.connection.plan",
        f"organizations/{work.organization_id}",
        {
            "action_types": list(wanted.action_types),
            "principal_arn": wanted.principal_arn,
            "bill_bucket": wanted.bill[0] if wanted.bill else "",
        },
    )
    return external_id, roles
