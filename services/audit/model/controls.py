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

# The tables whose rows are held against their seals, with the arguments of their triggers: keys, and what is watched.
SEALED = (
    ("identity.organizations", "", "slug,state"),
    ("identity.members", "member_id", "user_id,role,state"),
    ("scanner.connections", "connection_id", "accounts,external_id,credential_id,state"),
    ("pricing.bill_sources", "bill_source_id", "connection_id,credential_id,account,bucket,prefix,state"),
    ("actions.actions", "action_id", "requester_person,plan_hash,state"),
    ("actions.approvals", "action_id,person", "requester_person,decision,plan_hash"),
    ("audit.erasures", "erasure_id", "subject_hash,state,requester_hash,decider_hash"),
    ("audit.legal_holds", "hold_id", "subject_hash,releaser_hash"),
)


@dataclass(frozen=True, slots=True, order=True)
class Bypass:
    """A control that isn't as the migrations made it: which one, on what, and how it is."""

    control: str
    what: str
    how: str

    def __str__(self) -> str:
        return f"{self.control} of {self.what}: {self.how}"
