"""A connection to a cloud scope: its states, and what is judged of a verification. Pure."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.scanner.model.cloud import CloudScope, Identity, Provider, entry_fault, provider_of

CREDENTIAL_PURPOSE = Provider.AWS.purpose


class ConnectionState(enum.StrEnum):
    """Where a connection stands; the names are those of `recoup.scanner.v1.ConnectionState`."""

    PENDING = "PENDING"
    VERIFYING = "VERIFYING"
    ACTIVE = "ACTIVE"
    FAILED = "FAILED"
    DISABLED = "DISABLED"


@dataclass(frozen=True, slots=True)
class Account:
    """An AWS account and the roles in it; `act_role_arn` is empty when the account is only read.

    Of Azure and Google Cloud it is a subscription or project, by its id, and has no roles.
    """

    account_id: str
    scan_role_arn: str
    act_role_arn: str


@dataclass(frozen=True, slots=True)
class NewConnection:
    """What a person gives to connect a cloud scope. The secret is sealed at once and kept nowhere else."""

    display_name: str
    access_key_id: str
    secret_access_key: str
    accounts: Sequence[Account]
    regions: Sequence[str]
    provider: Provider = Provider.AWS
    identity: Identity = field(default_factory=Identity)

    def __repr__(self) -> str:
        return f"NewConnection({self.display_name!r})"


@dataclass(frozen=True, slots=True)
class SealedConnection:
    """A connection that is about to be made, with its credential in its envelope. Only AWS has external ids."""

    given: NewConnection
    external_id: str
    credential_id: UUID
    envelope: bytes


@dataclass(frozen=True, slots=True)
class RoleCheck:
    """What a verification saw of one role: "ALLOWED", "REFUSED" or "UNREACHABLE" for each attempt.

    Of Azure and Google Cloud, which have no external ids, it is an identity or a scope, and only the last is said.
    """

    role_arn: str
    without_external_id: str
    with_wrong_external_id: str
    with_external_id: str
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class PermissionCheck:
    """What came of probing one permission of a role in one region.

    `use` is what the role is for: "scan" or "act". `outcome` is "ALLOWED", "REFUSED", "LOST" (refused, and allowed
    before), or "UNKNOWN" where nobody could say.
    """

    role_arn: str
    use: str
    region: str
    permission: str
    outcome: str
    error_code: str = ""

    @property
    def name(self) -> tuple[str, str]:
        """What it is about, whatever came of it."""
        return self.role_arn, self.permission

    @property
    def fix(self) -> str:
        """What to do; empty where nothing is to be done."""
        if self.outcome == "ALLOWED":
            return ""
        provider = provider_of(self.role_arn)
        if self.outcome == "UNKNOWN":
            return f"{provider.brand} didn't say; check again in a moment"
        if provider is not Provider.AWS:
            how = f"recoup connect {provider.value} --print-policy"
            return f"Add {self.permission} to the role RecoupRead, and have it hold on {self.role_arn} ({how})"
        wanted = "" if self.use == "scan" else " --for ACTION_TYPE"
        role = self.role_arn.rpartition("/")[2]
        return f"Allow {self.permission} in the policy of {role} (recoup connect aws --print-policy{wanted})"


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection. The sealed credential stands elsewhere; here is only its id."""

    organization_id: UUID
    connection_id: UUID
    display_name: str
    accounts: Sequence[Account]
    regions: Sequence[str]
    external_id: str
    credential_id: UUID
    access_key_id: str
    state: ConnectionState
    problem: str
    role_checks: Sequence[RoleCheck]
    version: int
    created_at: datetime
    verified_at: datetime | None
    permission_checks: Sequence[PermissionCheck] = ()
    checked_at: datetime | None = None
    provider: Provider = Provider.AWS
    identity: Mapping[str, str] = field(default_factory=dict)
    discovered: Sequence[CloudScope] = ()

    @property
    def holds_secret(self) -> bool:
        """Whether its credential is a secret that gets old; not where the broker assumes AWS roles as itself, nor where
        another cloud trusts our issuer.
        """
        return bool(self.access_key_id) if self.provider is Provider.AWS else "issuer" not in self.identity

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return hashlib.sha256(f"{self.connection_id}/{self.version}".encode()).hexdigest()[:16]


def judge(checks: Sequence[RoleCheck]) -> str:
    """Why a connection can't be accepted, with the way out; empty when it can.

    A role that lets us in without the external id, or with any, would let in every other customer of ours too (the
    confused deputy problem, AWS IAM user guide).
    """
    for check in checks:
        if provider_of(check.role_arn) is not Provider.AWS:
            if said := entry_fault(check.role_arn, check.with_external_id, check.error_code):
                return said
            continue
        if "ALLOWED" in (check.without_external_id, check.with_wrong_external_id):
            return (
                f"{check.role_arn} can be assumed without the external id. Add the condition "
                "StringEquals sts:ExternalId to its trust policy, then verify again."
            )
        if check.with_external_id == "REFUSED":
            return (
                f"{check.role_arn} refuses us ({check.error_code}). Let the base user assume it, with the external id "
                "that recoup connect aws --print-policy shows and no other, in its trust policy, then verify again."
            )
        if "UNREACHABLE" in (check.without_external_id, check.with_wrong_external_id, check.with_external_id):
            return f"AWS didn't answer for {check.role_arn}. Verify again in a moment."
    return ""
