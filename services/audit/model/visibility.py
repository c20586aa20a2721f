"""Whose events who may see: a table from permissions to the beginnings of actions. Pure.

A passport carries the permissions of the one service that it is for, so that they stand here and not the roles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

# The empty beginning is that of every action.
EVERYTHING = ("",)
VIEWS: Mapping[str, tuple[str, ...]] = {
    "audit.event.read_all": EVERYTHING,
    "audit.event.read_scanner": ("scanner.",),
    "audit.event.read_pricing": ("pricing.",),
    "audit.event.read_actions": ("actions.",),
    "audit.event.read_receipts": ("actions.receipt.",),
}


def view_of(permissions: Collection[str]) -> tuple[str, ...]:
    """The beginnings of the actions whose events may be seen with these permissions, none within another."""
    found = {start for name, starts in VIEWS.items() if name in permissions for start in starts}
    return tuple(sorted(start for start in found if not any(start != o and start.startswith(o) for o in found)))


def is_visible(action: str, view: Collection[str]) -> bool:
    """Whether an event of this action may be seen."""
    return any(action.startswith(start) for start in view)


def narrowed(asked: str, view: Collection[str]) -> list[str] | None:
    """What of a view a filter leaves: actions, or beginnings that end in a dot; None for everything.

    `asked` is an action, the beginning of some when it ends in a dot, or empty.
    """
    if not asked:
        return None if "" in view else sorted(view)
    if is_visible(asked, view):
        return [asked]
    return sorted(start for start in view if asked.endswith(".") and start.startswith(asked))
