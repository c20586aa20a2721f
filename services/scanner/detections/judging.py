"""Runs the catalogue over a reading: every detection on every resource of its type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from services.scanner.detections import DETECTIONS
from services.scanner.detections.base import Detection, Match, Sight
from services.scanner.detections.base import Undetermined as NotKnown
from services.scanner.model.finding import Finding, PriceBook, new_id
from services.scanner.model.ledger import Entry
from services.scanner.model.resource import Hold, Resource, hold_of

# Snapshots that an action of ours keeps aren't waste until its checkpoints are over.
_OWN_SNAPSHOT_TAG = "recoup:action"


def skus_of(seen: Sequence[Resource]) -> set[tuple[str, str]]:
    """All (region, sku) that judging these resources may ask prices for."""
    return {
        (resource.key.region, sku)
        for resource in seen
        for detection in DETECTIONS
        if detection.resource_type == resource.key.type
        for sku in detection.skus(resource)
    }


def judge_all(
    connection_id: UUID,
    scan_id: UUID,
    seen: Sequence[tuple[Resource, Entry]],
    books: Mapping[str, PriceBook],
    now: datetime,
) -> tuple[list[Finding], int]:
    """The findings of a reading, and how many verdicts couldn't be reached for want of a fact."""
    found, undetermined = [], 0
    for resource, entry in seen:
        for detection in DETECTIONS:
            if detection.resource_type != resource.key.type:
                continue
            book = books[resource.key.region]
            verdict = detection.judge(Sight(resource, entry, book, now, detection.settings()))
            if isinstance(verdict, NotKnown):
                undetermined += 1
            elif verdict is not None:
                found.append(_finding(connection_id, scan_id, detection, resource, entry, verdict, book, now))
    return found, undetermined


def _finding(
    connection_id: UUID,
    scan_id: UUID,
    detection: Detection,
    resource: Resource,
    entry: Entry,
    match: Match,
    book: PriceBook,
    now: datetime,
) -> Finding:
    facts = {f"fact.{name}": value for name, value in resource.facts.items()}
    return Finding(
        finding_id=new_id(),
        connection_id=connection_id,
        scan_id=scan_id,
        detection_id=detection.detection_id,
        resource=resource.key,
        resource_name=resource.name,
        actionability=_actionability(detection, resource),
        saving=match.saving,
        currency=book.currency,
        price_version=book.version,
        severity=detection.severity,
        confidence=match.confidence,
        evidence={**facts, **match.evidence},
        action_type=detection.action_type,
        first_seen_at=entry.since,
        last_seen_at=now,
    )


def _actionability(detection: Detection, resource: Resource) -> str:
    hold = hold_of(resource.tags)
    if hold is not Hold.NONE:
        return hold.value
    if not detection.action_type or _OWN_SNAPSHOT_TAG in resource.tags:
        return "NO_ACTION"
    return "ACTIONABLE"
