"""Single use of grants: what was used is remembered for as long as it could be used again, in bounded memory.

A broker that has just started remembers nothing, so it takes no grant from before its start.
"""

from __future__ import annotations

from services._mesh.errors import Conflict, Denied, Exhausted, Reason

# A grant lives five minutes at most.
_KEEP_SECONDS = 400.0
_MAX_USED = 200_000


class UsedGrants:
    """The grants that were used. `now` is wall time in seconds."""

    def __init__(self, started_at: float) -> None:
        self._started_at = started_at
        self._used: dict[str, float] = {}

    def use(self, jti: str, issued_at: float, now: float) -> None:
        """Use a grant. Raises Denied when it was used, Conflict (GRANT_PREDATES_BROKER) when that can't be known."""
        # Issue times are whole seconds: one of the very second of our start counts as before it.
        if issued_at <= self._started_at:
            raise Conflict(
                Reason.ERROR_REASON_GRANT_PREDATES_BROKER,
                "The grant is older than this broker, so single use can't be shown. Renew the lease.",
            )
        if jti in self._used:
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant was used before.")
        if len(self._used) >= _MAX_USED:
            self._forget(now)
        self._used[jti] = now

    def _forget(self, now: float) -> None:
        self._used = {jti: at for jti, at in self._used.items() if now - at < _KEEP_SECONDS}
        if len(self._used) >= _MAX_USED:
            raise Exhausted(
                Reason.ERROR_REASON_QUOTA_EXCEEDED, "Too many grants are in use.", {"limit": str(_MAX_USED)}
            )
