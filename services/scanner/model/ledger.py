"""The first-seen ledger: since when a resource has been in the condition that a detection asks about.

Providers don't keep these ages, so we do. An age counts only what we saw: it starts with the reading that first saw
the condition, and starts anew when the condition lapsed, or when a hold was lifted, in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.scanner.model.resource import Hold, Resource, hold_of


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger says of one resource: the condition it was last seen in, since when, and whether it was held."""

    condition: str
    since: datetime
    held: bool


def condition_of(resource: Resource) -> str:
    """The condition whose age matters: idle or in use, as far as one reading can tell.

    A volume's state, an address's association and an instance's state are conditions; anything else is "present".
    """
    facts = resource.facts
    if resource.key.type == "ec2.volume":
        return facts["state"]
    if resource.key.type == "ec2.address":
        return "associated" if facts["association_id"] or facts["network_interface_id"] else "unassociated"
    if resource.key.type == "ec2.instance":
        return facts["state"]
    return "present"


def advance(before: Entry | None, resource: Resource, seen_at: datetime) -> Entry:
    """The ledger's entry after a reading at `seen_at`."""
    condition, held = condition_of(resource), hold_of(resource.tags) is Hold.HELD
    lapsed = before is None or before.condition != condition
    hold_lifted = before is not None and before.held and not held
    since = seen_at if lapsed or hold_lifted or before is None else before.since
    return Entry(condition, since, held)
