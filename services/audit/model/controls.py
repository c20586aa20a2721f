"""The controls that stand in the database, and what is expected of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

SERVICES = ("identity", "scanner", "pricing", "actions", "audit")
EVENT_TRIGGERS = ("recoup_log_refuses_alter", "recoup_log_refuses_drop", "recoup_log_refuses_opening")
LOGS = tuple(f"audit.{name}" for name in ("entries", "payloads", "nodes", "dedup", "checkpoints", "erased_keys"))
# Who may insert into which log.
OPEN_TO_INSERTS = (
    *(
        f"audit.{name} audit_sequencer"
        for name in ("entries", "payloads", "nodes", "dedup", "checkpoints", "cosignatures")
    ),
    "audit.erased_keys audit_api",
)


@dataclass(frozen=True, slots=True, order=True)
class Bypass:
    """A control that isn't as the migrations made it: which one, on what, and how it is."""

    control: str
    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.control} of {self.what}: {self.how}"
