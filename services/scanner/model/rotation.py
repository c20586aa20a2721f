"""A connection's credential giving way to another one: its states, and what is judged of the new one. Pure.

PROBING → READING → DRAINING → DONE        the new one is in use from DRAINING on
    └────────┴──→ FAILED | CANCELLED       the one before stays
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.scanner.model.cloud import Provider
from services.scanner.model.connection import PermissionCheck, RoleCheck, judge
from services.scanner.model.health import REFUSED, Health
from services.scanner.model.reading import Coverage, Outcome

# The kind of job that takes a rotation from one state to the next, a step at each lease.
ROTATE = "rotate_credential"
# A grant lives four minutes. One more is for who read the connection before the new credential came into use and signed
# after it, and for two clocks that differ.
DRAIN = timedelta(minutes=5)
# How soon a cloud that didn't answer is asked again, and how long.
PAUSE, PATIENCE = timedelta(minutes=5), timedelta(days=1)
_NAMED = 5


class RotationState(enum.StrEnum):
    """Where a rotation stands; the names are those of `recoup.scanner.v1.RotationState`."""

    PROBING = "PROBING"
    READING = "READING"
    DRAINING = "DRAINING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


# The new credential isn't in use yet.
TRYING = (RotationState.PROBING, RotationState.READING)
OPEN = (*TRYING, RotationState.DRAINING)


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation. `told`: whether the revocation feed knows of the credential that came to its end.

    `drains_until` is wall time, as grants are; all else is the injected clock's.
    """

    organization_id: UUID
    rotation_id: UUID
    connection_id: UUID
    state: RotationState
    candidate_id: UUID
    replaced_id: UUID
    access_key_id: str
    replaced_access_key_id: str
    started_at: datetime
    problem: str = ""
    role_checks: Sequence[RoleCheck] = ()
    permission_checks: Sequence[PermissionCheck] = ()
    promoted_at: datetime | None = None
    drains_until: datetime | None = None
    ended_at: datetime | None = None
    told: bool = False
    provider: Provider = Provider.AWS

    @property
    def ended_credential(self) -> UUID:
        """The one of the two that nobody uses any more, or won't."""
        return self.replaced_id if self.state in (RotationState.DRAINING, RotationState.DONE) else self.candidate_id

    @property
    def plan(self) -> str:
        """What the job's grants say: the two credentials that it may be about (services/identity reads it)."""
        return plan_of(self.candidate_id, self.replaced_id)

    @property
    def advice(self) -> str:
        """What only the customer can do, in their cloud."""
        if self.state in TRYING:
            return ""
        if self.state in (RotationState.FAILED, RotationState.CANCELLED):
            return f"Unless it is tried again: {self._end(self.access_key_id, 'new')}" if self.access_key_id else ""
        if self.replaced_access_key_id:
            when = "when the rotation is DONE, " if self.state is RotationState.DRAINING else ""
            return when + self._end(self.replaced_access_key_id, "old")
        return (
            "take the principal that the broker has by itself out of the trust policy of each role; "
            "recoup connect aws --print-policy --principal ARN shows the policy for the new key's user"
        )

    def _end(self, key: str, which: str) -> str:
        """How a static key is ended (AWS IAM user guide, "Rotating access keys"; the other clouds have the same)."""
        if self.provider is Provider.AZURE:
            return f"remove the {which} client secret or certificate of application {key} (az ad app credential delete)"
        if self.provider is Provider.GCP:
            return f"delete the key {key} of the service account (gcloud iam service-accounts keys delete {key})"
        return _end_of_aws(key)


def _end_of_aws(key: str) -> str:
    return (
        f"deactivate the access key {key} (aws iam update-access-key --status Inactive --access-key-id {key}), see in "
        f"its last use that nothing else needs it, then delete it (aws iam delete-access-key --access-key-id {key})"
    )


def plan_of(candidate_id: UUID, replaced_id: UUID) -> str:
    """See `Rotation.plan`."""
    return f"{candidate_id}.{replaced_id}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done after a step: go on, ask again in a while, or give up and say why."""

    is_certain: bool
    problem: str


def judge_probe(health: Health, seen: Sequence[PermissionCheck]) -> Verdict:
    """Whether a new credential does what the one before did: every role, every reading, every change it was allowed.

    What the one before lacked already, by the last check, is no reason to keep it.
    """
    if not health.is_certain:
        return Verdict(False, judge(health.roles))
    if wrong := judge(health.roles):
        return Verdict(True, wrong)
    lacked = {check.name for check in health.before.permission_checks if check.outcome in REFUSED}
    needed = [c for c in health.permissions if c.use == "scan" or c.outcome == "LOST"]
    worse = [c for c in needed if c.outcome in REFUSED and c.name not in lacked]
    if worse:
        return Verdict(True, _said([f"{c.role_arn} refuses {c.permission} ({c.error_code}): {c.fix}" for c in worse]))
    unknown = [c for c in seen if c.use == "scan" and c.outcome == "UNKNOWN"]
    return Verdict(not unknown, _said([f"{c.role_arn}, {c.permission}: {c.fix}" for c in unknown]))


def judge_reading(coverages: Sequence[Coverage], checks: Sequence[PermissionCheck]) -> Verdict:
    """Whether the cloud was read with a new credential, as far as the probe said that it can be."""
    known = {c.permission for c in checks if c.use == "scan" and c.outcome in REFUSED}
    missing = [c for c in coverages if c.outcome is not Outcome.COMPLETE and c.unit.api not in known]
    said = _said([f"{c.unit.api} in {c.unit.account}/{c.unit.region}: {c.outcome} ({c.error_code})" for c in missing])
    is_certain = not missing or any(c.outcome in (Outcome.DENIED, Outcome.FAILED) for c in missing)
    return Verdict(is_certain, said and f"Reading with the new credential went wrong: {said}")


def _said(each: Sequence[str]) -> str:
    more = f" (and {len(each) - _NAMED} more)" if len(each) > _NAMED else ""
    return "; ".join(each[:_NAMED]) + more
