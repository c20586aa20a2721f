"""What a request rests on, gathered from peers, and whether an action may be made of it. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services.actions.model.kinds import KINDS, ActionKind
from services.actions.model.plan import MAX_AGE, Estimate, ResourceKey


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding, as the scanner reports it. `estimate` is None where a price isn't known."""

    finding_id: UUID
    connection_id: UUID
    detection_id: str
    resource: ResourceKey
    state: str
    actionability: str
    action_type: str
    evidence: Mapping[str, str]
    estimate: Estimate | None
    last_seen_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a connection lets us do in one account."""

    credential_id: UUID
    state: str
    has_act_role: bool


@dataclass(frozen=True, slots=True)
class FrozenBaseline:
    """A baseline document, frozen before anything is done."""

    document: bytes
    currency: str

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal."""
        return hashlib.sha256(self.document).hexdigest()


class NotActionable(Exception):
    """The finding can't be acted on: a cause that programs know, and a sentence with the way out."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause, self.message = cause, message


def actionable(finding: Finding, scope: Scope) -> tuple[ActionKind, Estimate]:
    """The kind of action and the estimate. Raises NotActionable."""
    kind = KINDS.get(finding.action_type)
    if finding.actionability != "ACTIONABLE" or kind is None:
        raise NotActionable(
            finding.actionability if finding.actionability != "ACTIONABLE" else "NO_ACTION",
            "The finding is reported, but can't be acted on here. Act on what manages the resource, or lift the hold.",
        )
    missing = kind.parameter_keys.keys() - finding.evidence.keys()
    if finding.resource.type != kind.resource_type or missing:
        needs = ", ".join([kind.resource_type, *sorted(kind.parameter_keys)])
        raise NotActionable("FINDING_UNFIT", f"{kind.action_type} needs {needs}. Scan the connection again.")
    if finding.estimate is None:
        raise NotActionable("PRICE_UNKNOWN", "The saving isn't known, so that it couldn't be verified either.")
    if scope.state != "ACTIVE":
        raise NotActionable("CONNECTION_NOT_ACTIVE", f"Its connection is {scope.state}. Verify the connection.")
    if not scope.has_act_role:
        raise NotActionable(
            "NO_ACT_ROLE", f"The connection has no role to act with in account {finding.resource.account}. Add one."
        )
    return kind, finding.estimate


def is_too_old(finding: Finding, now: datetime) -> bool:
    """Whether the reading behind a finding is older than a plan may be."""
    return now - finding.last_seen_at > MAX_AGE
