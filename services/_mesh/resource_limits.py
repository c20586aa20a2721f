"""What a caller's role is limited to within their organization. It must not know what any resource means.

A passport carries it, the access rule of an RPC says whether its handler honours it, and the database does so: policies
of the tables that hold resources (schema.py) read what each transaction begins with (database.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

T = TypeVar("T")
MAX_CONNECTIONS, MAX_TAGS = 30, 10


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Resources of some connections (none named: all), with one of some tags (none named: any)."""

    connection_ids: tuple[UUID, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.connection_ids or self.tags)

    def is_within(self, other: ResourceLimits) -> bool:
        """Whether nothing is reached by these that the others don't reach."""
        pairs = ((self.connection_ids, other.connection_ids), (self.tags, other.tags))
        return all(not most or (bool(some) and set(some) <= set(most)) for some, most in pairs)

    def reach(self, connection_id: UUID, tags: Mapping[str, str]) -> bool:
        """Whether a resource of a connection, with these tags, is within them: as the policies of tables decide it."""
        tagged = not self.tags or any(tags.get(key) == value for key, value in self.tags)
        return tagged and (not self.connection_ids or connection_id in self.connection_ids)

    def claim(self) -> dict[str, Any]:
        """As a passport carries it."""
        return {"c": [str(each) for each in self.connection_ids], "t": [list(each) for each in self.tags]}

    @classmethod
    def from_claim(cls, claim: Mapping[str, Any]) -> ResourceLimits:
        """The limits that a passport carries. Raises ValueError, TypeError or KeyError for anything else."""
        return cls(tuple(UUID(each) for each in claim["c"]), tuple((str(key), str(value)) for key, value in claim["t"]))

    def settings(self) -> tuple[str, str]:
        """What policies read: connections as an array of UUIDs, tags as JSON objects; empty where there is no limit."""
        connections = "{" + ",".join(str(each) for each in self.connection_ids) + "}" if self.connection_ids else ""
        tags = json.dumps([{key: value} for key, value in self.tags]) if self.tags else ""
        return connections, tags


UNLIMITED = ResourceLimits()
# The connection of nobody: what is limited to it sees nothing.
_NOWHERE = (UUID(int=0),)


def narrowed(*given: ResourceLimits | None) -> ResourceLimits | None:
    """Limits that keep within every one of those given, and never beyond; None where none of them limits anything."""
    found: ResourceLimits | None = None
    for each in given:
        if each:
            found = each if found is None else _both(found, each)
    return found


def _both(one: ResourceLimits, other: ResourceLimits) -> ResourceLimits:
    connections = _common(one.connection_ids, other.connection_ids)
    tags = _common(one.tags, other.tags)
    if connections is None or tags is None:
        return ResourceLimits(_NOWHERE)
    return ResourceLimits(connections, tags)


def _common(one: tuple[T, ...], other: tuple[T, ...]) -> tuple[T, ...] | None:
    """What both name; the other's where one names none, which means all. None where nothing is left."""
    if not one or not other:
        return one or other
    return tuple(each for each in one if each in other) or None
