"""The event that every change by SCIM leaves: what was done to which resource, before and after, by ids alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from services._mesh.uow import UnitOfWork
from services.identity.model.scim.users import ScimUser

_MOST_IDS = 300


def emit_provision(
    work: UnitOfWork, kind: str, identifier: UUID, operation: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    """Record a change. `kind` is "Users" or "Groups", `operation` such as "create"."""
    work.emit(
        "identity.scim.provision",
        f"scim/{kind}/{identifier}",
        {"operation": operation, "before": dict(before), "after": dict(after)},
    )


def facts(user: ScimUser) -> dict[str, Any]:
    """What is said of a user: nothing personal."""
    return {
        "active": "true" if user.active else "false",
        "version": str(user.version),
        "user_id": str(user.user_id or ""),
    }


def told_ids(ids: Collection[UUID]) -> dict[str, Any]:
    """Ids as an event holds them: all of them, or how many and the SHA-256 of their list where they are too many."""
    listed = sorted(str(each) for each in ids)
    if len(listed) <= _MOST_IDS:
        return {"ids": listed}
    return {"count": str(len(listed)), "sha256": hashlib.sha256("\n".join(listed).encode()).hexdigest()}
