"""What every key service under test is to the suite, and the state that a fake is in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from services._mesh.kms.interface import Kek, Kms

DEADLINE_SECONDS = 20.0
SHORT_SECONDS = 0.4


@dataclass
class Keeper:
    """A key service under test: two versions of one KEK, one that lies elsewhere, and how to open it.

    `can_be` are the states that it knows, with the cause that we make of each.
    """

    kek: Kek
    newer: Kek
    elsewhere: Kek
    open: Callable[[float], Kms]
    set_state: Callable[[str], None]
    set_rights: Callable[[Collection[str]], None] = lambda _: None
    can_be: dict[str, str] = field(default_factory=dict)


ALL = {name: name for name in ("DISABLED", "MISSING", "RETIRED", "DENIED", "THROTTLED", "TIMEOUT", "UNREACHABLE")}


class State:
    """What a fake answers with. `released` lets those go who were left hanging; `rights` are the caller's role's."""

    def __init__(self) -> None:
        self.name, self.released = "", threading.Event()
        self.rights: Collection[str] | None = None

    def lacks(self, right: str) -> bool:
        """Whether the caller's role, where it has one, lacks a right."""
        return self.rights is not None and right not in self.rights

    def set_rights(self, rights: Collection[str]) -> None:
        self.rights = rights

    def set(self, name: str) -> None:
        self.name = name
