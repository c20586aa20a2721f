"""The plan: what exactly will be done, on which conditions, and how the saving will be measured.

Owns the document that is hashed and approved. A plan never changes; another plan is another action.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import rfc8785

PLAN_VERSION = 1
METHOD = "recoup-savings/1"
WINDOWS_DAYS = (7, 14, 30)
# A plan that rests on an older reading is made anew: the estate moves on.
MAX_AGE = timedelta(days=14)
APPROVAL_PERIOD = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """What names a cloud resource everywhere; the fields are those of `recoup.mesh.v1.ResourceKey`."""

    provider: str
    partition: str
    account: str
    region: str
    type: str
    id: str

    def document(self) -> dict[str, str]:
        """The key as it stands in canonical documents."""
        return {
            "provider": self.provider,
            "partition": self.partition,
            "account": self.account,
            "region": self.region,
            "type": self.type,
            "id": self.id,
        }


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated monthly saving: a decimal string, its currency and the price version behind it."""

    amount: str
    currency: str
    price_version: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen plan: the canonical document and its SHA-256.

    `document` is RFC 8785 JSON; `plan_hash` is its SHA-256 in hexadecimal: what an approver approves.
    """

    document: bytes
    plan_hash: str
    content: Mapping[str, Any]

    @property
    def resource(self) -> ResourceKey:
        """The resource that the plan changes."""
        return ResourceKey(**self.content["resource"])

    @property
    def preconditions(self) -> Mapping[str, str]:
        """The facts that must still hold right before each change."""
        facts: Mapping[str, str] = self.content["preconditions"]
        return facts

    @property
    def parameters(self) -> Mapping[str, str]:
        """What the change sets, such as the target volume's IOPS."""
        values: Mapping[str, str] = self.content["parameters"]
        return values

    @property
    def evidence(self) -> Mapping[str, str]:
        """What else the finding rested on, such as since when a volume has been available."""
        found: Mapping[str, str] = self.content["evidence"]
        return found

    @property
    def valid_until(self) -> datetime:
        """When the plan is too old to be begun."""
        return datetime.fromisoformat(self.content["valid_until"])


@dataclass(frozen=True, slots=True)
class PlanInput:
    """All that a plan is made of, before it is frozen."""

    organization_id: str
    action_id: str
    action_type: str
    finding_id: str
    detection_id: str
    connection_id: str
    credential_id: str
    resource: ResourceKey
    preconditions: Mapping[str, str]
    evidence: Mapping[str, str]
    parameters: Mapping[str, str]
    estimate: Estimate
    baseline_digest: str
    removes_resource: bool
    quarantine_hours: int
    made_at: datetime


def freeze_plan(given: PlanInput) -> Plan:
    """Freeze a plan: build its canonical document and hash it."""
    content: dict[str, Any] = {
        "v": PLAN_VERSION,
        "organization_id": given.organization_id,
        "action_id": given.action_id,
        "action_type": given.action_type,
        "finding_id": given.finding_id,
        "detection_id": given.detection_id,
        "connection_id": given.connection_id,
        "credential_id": given.credential_id,
        "resource": given.resource.document(),
        "preconditions": dict(given.preconditions),
        "evidence": dict(given.evidence),
        "parameters": dict(given.parameters),
        "quarantine_hours": given.quarantine_hours,
        "made_at": timestamp(given.made_at),
        "valid_until": timestamp(given.made_at + MAX_AGE),
        "measurement": {
            "method": METHOD,
            "windows_days": list(WINDOWS_DAYS),
            "baseline_sha256": given.baseline_digest,
            "removes_resource": given.removes_resource,
            "estimate": {
                "amount": given.estimate.amount,
                "currency": given.estimate.currency,
                "period": "month",
                "price_version": given.estimate.price_version,
            },
        },
    }
    document = rfc8785.dumps(content)
    return Plan(document, hashlib.sha256(document).hexdigest(), content)


def load_plan(document: bytes, plan_hash: str) -> Plan:
    """Read a stored plan back; raises ValueError when the document isn't the one that was hashed."""
    if hashlib.sha256(document).hexdigest() != plan_hash:
        raise ValueError("the stored plan isn't the one that was hashed")
    return Plan(document, plan_hash, orjson.loads(document))


def differences(expected: Mapping[str, str], observed: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Name every precondition that no longer holds, with what was expected and what is there now.

    A fact that can't be read any more counts as a difference: it is shown as "(absent)".
    """
    return {
        name: (value, observed.get(name, "(absent)"))
        for name, value in sorted(expected.items())
        if observed.get(name) != value
    }


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as canonical documents carry it."""
    return moment.astimezone(UTC).replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Window:
    """A checkpoint's window: whole UTC days, both ends inclusive."""

    days: int
    from_day: date
    to_day: date

    @property
    def earliest_due_at(self) -> datetime:
        """The first moment at which the bill for the window can be complete: the day after its last one."""
        following = self.to_day + timedelta(days=1)
        return datetime(following.year, following.month, following.day, tzinfo=UTC)


def checkpoint_windows(executed_at: datetime) -> list[Window]:
    """The windows `[D+1, D+1+k)` for k = 7, 14, 30; the day D of the action itself is in none of them."""
    first = executed_at.astimezone(UTC).date() + timedelta(days=1)
    return [Window(days, first, first + timedelta(days=days - 1)) for days in WINDOWS_DAYS]
