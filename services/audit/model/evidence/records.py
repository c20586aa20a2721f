"""What a person looks for in a bundle: approvals, changes, break-glass uses, exceptions, found by their actions. Pure.

A record is one disclosed event said briefly: it names its event, and whoever doubts it finds the proof there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

Record = dict[str, Any]

_APPROVALS = frozenset({"actions.action.approve", "actions.action.reject"})
# The noun in the middle of "<service>.<noun>.<verb>" tells what an event is about.
_CHANGED = (
    *("member", "membership", "invitation", "ownership", "organization", "platform", "operatoraccess", "installation"),
    *("role", "approver", "permission", "policy", "person", "login", "token", "service_account"),
    *("sso", "identity_provider", "metadata", "domain", "enforcement", "group_role"),
    *("scim", "scim_token", "scim_roles", "allowed_origins"),
)
_NOUNS = {
    **dict.fromkeys(_CHANGED, "changes"),
    **dict.fromkeys(("elevation", "break_glass", "alarm", "bypass", "control"), "break_glass"),
    **dict.fromkeys(("exception", "review"), "exceptions"),
}
_TEXTS = (
    *("event_id", "occurred_at", "action", "target", "result", "actor", "responsible_person", "role"),
    "authority",
)
# What an event rests on that was done under break-glass access: its elevation, and the passport.
_UNDER_BREAK_GLASS = "elevation:"
EVENT_COLUMNS = (*_TEXTS, "metadata")
INDEX_COLUMNS = ("shard", "index", "org_seq", *EVENT_COLUMNS)


@dataclass(frozen=True, slots=True)
class Kind:
    """A file of records: its name without ending, its heading, what is said where it is empty."""

    name: str
    heading: str
    empty: str


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("approvals", "Who approved what", "Nothing was approved or rejected in this period."),
        Kind(
            "changes",
            "Changes of who may do what: members, roles, tokens, ways to sign in, policy",
            "None of these was changed in this period.",
        ),
        Kind(
            "break_glass",
            "Break-glass access and all that was done under it, bypassed controls, alarms",
            "None of these is recorded in this period.",
        ),
        Kind(
            "exceptions",
            "Exceptions, and the reviews of them and of break-glass access",
            "None of these is recorded in this period.",
        ),
    )
}


def kinds_of(action: str, authority: str) -> list[str]:
    """The files that an event belongs into: by its action, and that of break-glass access if it was done under it."""
    noun = action.partition(".")[2].partition(".")[0]
    found = "approvals" if action in _APPROVALS else _NOUNS.get(noun)
    kinds = [] if found is None else [found]
    if authority.startswith(_UNDER_BREAK_GLASS) and found != "break_glass":
        kinds.append("break_glass")
    return kinds


def record(payload: Mapping[str, Any]) -> Record:
    """An event as a record."""
    metadata = payload.get("metadata")
    return {
        **{name: str(payload.get(name, "")) for name in _TEXTS},
        "metadata": metadata if isinstance(metadata, dict) else {},
    }


def cells(found: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """A record's cells in CSV; what isn't a text is JSON."""
    return [value if isinstance(value := found.get(name, ""), str) else _json(value) for name in columns]


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


SCAN_COLUMNS = (
    *("scan_id", "event_id", "connection_id", "state", "created_at", "finished_at", "units_done", "units_total"),
    *("resources_seen", "complete", "problem"),
)
KEY_COLUMNS = (
    *("kind", "id", "event_id", "name", "state", "created_at", "age_days", "verified_at", "external_id_enforced"),
    *("valid_from", "valid_to", "problem"),
)
