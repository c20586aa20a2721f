"""What a check of a connection saw, permission by permission, and what follows from it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from services.scanner.model.cloud import CloudScope
from services.scanner.model.connection import Connection, ConnectionState, PermissionCheck, RoleCheck, judge

_NAMED = 5
REFUSED = ("REFUSED", "LOST")


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at a connection's cloud saw: who lets us in, what is allowed, and which scopes there are."""

    roles: Sequence[RoleCheck]
    permissions: Sequence[PermissionCheck]
    discovered: Sequence[CloudScope] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What one check saw of a connection, and what was known of it before."""

    before: Connection
    roles: Sequence[RoleCheck]
    permissions: Sequence[PermissionCheck]
    discovered: Sequence[CloudScope] = ()

    @classmethod
    def of(
        cls,
        before: Connection,
        roles: Sequence[RoleCheck],
        seen: Sequence[PermissionCheck],
        discovered: Sequence[CloudScope] = (),
    ) -> Health:
        """A check against the one before: what was allowed and isn't is lost, and what nobody could say stays."""
        known = {check.name: check.outcome for check in before.permission_checks}
        now = [replace(c, outcome=_outcome(known.get(c.name), c.outcome)) for c in seen]
        return cls(before, roles, now, discovered)

    @property
    def is_certain(self) -> bool:
        """Whether every role could be asked. Without that nothing follows."""
        tried = [(c.without_external_id, c.with_wrong_external_id, c.with_external_id) for c in self.roles]
        return not any("UNREACHABLE" in each for each in tried)

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands after it.

        Every permission to read is needed to be accepted; what is lost later shows, and leaves scans with less.
        """
        if self.before.state is ConnectionState.DISABLED:
            return ConnectionState.DISABLED
        is_new = self.before.verified_at is None
        refused = judge(self.roles) or self._names_nothing or (is_new and self._lacks_reads)
        return ConnectionState.FAILED if refused else ConnectionState.ACTIVE

    @property
    def problem(self) -> str:
        """What is wrong, with the way out; empty when nothing is.

        What a role for acting never allowed is no fault: writing is allowed action type by action type.
        """
        lost = [c for c in self.permissions if c.use == "act" and c.outcome == "LOST"]
        refused = judge(self.roles) or self._names_nothing
        return refused or _said(self._lacks_reads, "lacks") or _said(lost, "no longer allows")

    @property
    def drift(self) -> list[str]:
        """What worked at the check before and doesn't any more, in words."""
        allowed = {check.name for check in self.before.permission_checks if check.outcome == "ALLOWED"}
        lost = [c for c in self.permissions if c.outcome == "LOST" and c.name in allowed]
        return [*self._roles_lost(), *(f"{c.role_arn} no longer allows {c.permission}" for c in lost)]

    @property
    def _names_nothing(self) -> str:
        """Why a connection without any scope isn't accepted: it was made to see which ones there are."""
        if self.before.accounts:
            return ""
        kind = self.before.provider.scope_kind
        found = ", ".join(scope.scope_id for scope in self.discovered[:_NAMED])
        return f"It names no {kind}; it could read: {found or 'none'}. Connect again with those that are to be read."

    @property
    def _lacks_reads(self) -> list[PermissionCheck]:
        return [c for c in self.permissions if c.use == "scan" and c.outcome in REFUSED]

    def _roles_lost(self) -> list[str]:
        worked = {c.role_arn for c in self.before.role_checks if not judge([c])}
        said = []
        for check in self.roles:
            if check.role_arn not in worked:
                continue
            if "ALLOWED" in (check.without_external_id, check.with_wrong_external_id):
                said.append(f"{check.role_arn} no longer demands the external id")
            elif check.with_external_id == "REFUSED":
                said.append(f"{check.role_arn} refuses us ({check.error_code})")
        return said


def _outcome(before: str | None, now: str) -> str:
    if now == "UNKNOWN":
        return before or now
    return "LOST" if now == "REFUSED" and before in ("ALLOWED", "LOST") else now


def _said(checks: Sequence[PermissionCheck], what: str) -> str:
    if not checks:
        return ""
    named = "; ".join(f"{c.role_arn} {what} {c.permission}" for c in checks[:_NAMED])
    more = f" (and {len(checks) - _NAMED} more)" if len(checks) > _NAMED else ""
    return f"{named}{more}. {checks[0].fix}; then check again."
