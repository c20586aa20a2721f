"""The kinds of the scanner's jobs, and the refusals that several decisions share."""

from __future__ import annotations

from datetime import datetime, timedelta

from services._mesh.context import current
from services._mesh.errors import Denied, Reason, WrongState
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Connection, ConnectionState

VERIFY, CHECK, SCAN = "verify_connection", "check_connection", "scan"
# The kind of job that delivers a webhook, and what its grants for keys say that they are for. The broker knows both.
DELIVER, SIGN = "deliver_webhook", "sign"
# How long a connection may wait to be verified before it is given up.
PENDING_PERIOD, FIRST_CHECK = timedelta(days=7), timedelta(days=1)
# The kind of job that makes evidence bundles, and how many scans or connections one of its pages has.
EXPORT_EVIDENCE, EVIDENCE_PAGE = "export_evidence", 50


def gives_up_at(found: Connection) -> datetime:
    """Until when a connection that was never accepted may be accepted."""
    return (found.checked_at or found.created_at) + PENDING_PERIOD


def wrong_state(what: str, state: ConnectionState, allowed: str) -> WrongState:
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG,
        f"A connection that is {state.value} can't be {what}.",
        {"state": state.value, "allowed": allowed},
    )


def require_scanned(found: Connection) -> None:
    """Raises WrongState for a connection of a cloud that has no detections yet: nothing would be scanned."""
    if found.provider is not Provider.AWS:
        raise WrongState(
            Reason.ERROR_REASON_CLOUD_NOT_SCANNED,
            f"{found.provider.brand} can be connected and checked, and not scanned yet. Scan a connection of AWS.",
            {"provider": found.provider.value},
        )


def require_evidence_grant() -> None:
    grant = current().grant
    if grant is None or grant.kind != EXPORT_EVIDENCE:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for an export of evidence.")
