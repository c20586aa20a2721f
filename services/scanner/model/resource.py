"""Cloud resources as the scanner sees them: what names one, its facts and its tags.

Owns the shape of the inventory. Facts are text, spelled as `ARCHITECTURE.md` ("evidence") says, because plans compare
them by equality.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import rfc8785


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """What names a cloud resource everywhere; the fields are those of `recoup.mesh.v1.ResourceKey`."""

    provider: str
    partition: str
    account: str
    region: str
    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as one reading saw it.

    `facts` are what plans freeze; `details` are further text that detections use (such as "ami_ids"); `attached` are
    ids of resources that belong to it. A fact that the provider didn't give is absent, never empty by guess.
    """

    key: ResourceKey
    facts: Mapping[str, str]
    tags: Mapping[str, str]
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name tag: hostile input, to be shown as text only; at most 256 characters."""
        return self.tags.get("Name", "")[:256]


class Hold(enum.StrEnum):
    """Why a resource may not be acted on directly; the names are those of `recoup.scanner.v1.Actionability`."""

    NONE = "ACTIONABLE"
    HELD = "HELD"
    MANAGED_AS_CODE = "MANAGED_AS_CODE"
    AUTOSCALED = "AUTOSCALED"


_CODE_TOOLS = frozenset({"terraform", "cloudformation", "pulumi", "cdk", "opentofu"})


def hold_of(tags: Mapping[str, str]) -> Hold:
    """What the tags say about acting on the resource; a hold by a person outranks the rest."""
    lowered = {key.lower(): value.strip().lower() for key, value in tags.items()}
    if lowered.get("recoup:hold", "false") not in ("false", "no", "0"):
        return Hold.HELD
    if any(key.startswith(("aws:autoscaling:", "k8s.io/cluster-autoscaler", "karpenter.sh/")) for key in lowered):
        return Hold.AUTOSCALED
    if any(key.startswith(("aws:cloudformation:", "terraform")) for key in lowered):
        return Hold.MANAGED_AS_CODE
    if any(lowered.get(key, "") in _CODE_TOOLS for key in ("managedby", "managed-by", "managed_by", "iac")):
        return Hold.MANAGED_AS_CODE
    return Hold.NONE


def tags_digest(tags: Mapping[str, str]) -> str:
    """SHA-256 over all tags as RFC 8785 JSON, hexadecimal: any change of any tag shows."""
    return hashlib.sha256(rfc8785.dumps(dict(tags))).hexdigest()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as facts carry it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime | None:
    """The moment that a fact names, or None when it names none."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
