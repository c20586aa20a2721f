"""What a caller's role is limited to within their organization. It must not know what any resource means.

A passport carries it, the access rule of an RPC says whether its handler honours it, and the database does so: policies
of the tables that hold resources (schema.py) read what each transaction begins with (database.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

MAX_CONNECTIONS, MAX_TAGS = 30, 10


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Resources of some connections (none named: all), with one of some tags (none named: any)."""

    connection_ids: tuple[UUID, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.connection_ids or self.tags)

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
