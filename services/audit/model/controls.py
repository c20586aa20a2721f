"""The controls that stand in the databases of the log and of the subjects' keys, and what is expected of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

SERVICES = ("identity", "scanner", "pricing", "actions", "audit")
# What deploy/bootstrap.sql makes: each event trigger with its event, its tags, and its function.
EVENT_TRIGGERS = (
    ("recoup_log_refuses_alter", "ddl_command_end", "", "public.recoup_refuse_alter"),
    ("recoup_log_refuses_drop", "sql_drop", "", "public.recoup_refuse_drop"),
    ("recoup_log_refuses_opening", "ddl_command_end", "GRANT", "public.recoup_refuse_opening"),
)
# SHA-256 of bodies that stand in no code which runs here: white space counts as one space.
BODIES_SHA256 = {
    "identity.refuse_second_end": "8d5a5ac05c00b52a2074828c0ae999f958f560f570c9906f49b0ac375fe54f6b",
    "identity.require_other_person": "24ffcb35ad19138346013436cb0a6221db413991277b91f9a31b9f3d8ad486c0",
    "identity.require_renewal": "966453e683aa5bc5c6fc562c2537ed4e37fad6b77a720ccc71691422b722839e",
    "identity.keep_admin": "0476c2ef53affeecbd6564a137ba653949d1012a2f456b31007fc21eed05edb7",
    "identity.settle_once": "3c8c8075f851ef1a21e01e99a01f1dad31594ea767b022e32dcb420a6a6af04f",
    "identity.require_another_person": "d8ed075f5a9aa43b20fec8108feca985e77b059d7592af9c06610a44873fca28",
    "actions.require_another_person": "f1175685e004d949237ae1709f6ade2fe4b7ce45d4363642d4513edb737dd36c",
    "actions.hold_final_state": "1eebad381c3ff92643a1e8c1ab13c4bd4238144ac5f269db4359b372aad26e9c",
    "public.recoup_refuse_alter": "247bc0ab5f51512d2c27e2dd68af8a7f13d6ddfab2811ee7055e0109d50f8771",
    "public.recoup_refuse_drop": "20f053075ec0556b8d344a931bf63e8b30b6e115fbd14078cb0f552dcecb2f51",
    "public.recoup_refuse_opening": "191adc173c8201d66f5d305c597cb9391a1018ec513f0c4910ed27a5de7afa4f",
    "subjects.refuse_change": "5bd19f5f5f2a3bf10d39be292cf6d5d352ede99e24dd4f75b8f3e1a9c6695063",
}
LOGS = tuple(
    f"audit.{name}" for name in ("entries", "payloads", "nodes", "dedup", "checkpoints", "cosignatures", "erased_keys")
)
# What each table is, whatever its comment says: its owner may change that. One that isn't here is a later version's.
_KINDS = {
    "log": (*LOGS, "audit.events"),
    "state": (
        *(f"identity.{name}" for name in ("organizations", "members", "roles", "elevations", "exceptions", "reviews")),
        *(f"identity.{name}" for name in ("persons", "linked_identities", "invitations", "ownerships")),
        *(f"identity.sso_{name}" for name in ("providers", "group_roles", "domains", "sessions")),
        *(f"scanner.{name}" for name in ("connections", "credentials", "keks", "scans")),
        *("scanner.external_ids", "scanner.static_keys", "scanner.organization_keys", "scanner.backups"),
        *("scanner.rotations", "scanner.rotation_rules"),
        *(f"pricing.{name}" for name in ("bill_sources", "bill_imports", "bill_batches")),
        *(f"actions.{name}" for name in ("actions", "approvals", "checkpoints", "receipts", "steps")),
        "actions.approval_voids",
        *(f"audit.{name}" for name in ("erasures", "legal_holds", "evidence_exports")),
    ),
    "outbox": tuple(f"{service}.outbox" for service in SERVICES),
    "dispatch": (
        *(f"{service}.outbox_counters" for service in SERVICES),
        *(f"{service}.jobs" for service in SERVICES if service != "identity"),
        *("audit.chains", "audit.producers", "identity.due_items"),
    ),
}
KINDS = {name: kind for kind, names in _KINDS.items() for name in names}
# Triggers by their names, with the function of their table's own schema.
TRIGGERS = (
    ("append_only", "refuse_change"),
    ("owes_event", "require_event"),
    ("final_state", "hold_payload"),
    ("final_state", "hold_final_state"),
    ("seals_state", "seal_state"),
    ("another_person", "require_another_person"),
    ("final_state", "refuse_second_end"),
    ("other_person", "require_other_person"),
    ("renewed_by_review", "require_renewal"),
    ("settle_once", "settle_once"),
    ("keep_admin", "keep_admin"),
    ("refuses_drop", "refuse_drop"),
)
# Further triggers, each with its table, type (pg_trigger.tgtype), state and function; and constraints.
GUARDS = (
    ("actions.actions", "final_state", 1 + 2 + 16, "O", "hold_final_state"),
    ("actions.approvals", "another_person", 1 + 2 + 4 + 16, "O", "require_another_person"),
    ("identity.members", "another_person", 1 + 2 + 4 + 16, "O", "require_another_person"),
    ("identity.elevations", "final_state", 1 + 2 + 16, "O", "refuse_second_end"),
    ("identity.exceptions", "final_state", 1 + 2 + 16, "O", "refuse_second_end"),
    ("identity.exceptions", "renewed_by_review", 1 + 2 + 16, "O", "require_renewal"),
    ("identity.reviews", "final_state", 1 + 2 + 16, "O", "refuse_second_end"),
    ("identity.reviews", "other_person", 1 + 2 + 4 + 16, "O", "require_other_person"),
    ("identity.invitations", "settle_once", 1 + 2 + 16, "O", "settle_once"),
    ("identity.members", "keep_admin", 1 + 8 + 16, "O", "keep_admin"),
    ("scanner.credentials", "refuses_drop", 1 + 2 + 8, "O", "refuse_drop"),
)
_UNDECIDED = "(state <> ALL (ARRAY['APPROVED'::text, 'DONE'::text]))"
CONSTRAINTS = (
    (
        "actions.approvals",
        "another_person",
        "((decision <> 'APPROVED'::text) OR (requester_person <> ALL (persons)))",
    ),
    ("actions.approvals", "no_machine", "((decision <> 'APPROVED'::text) OR (decided_by ~~ 'user:%'::text))"),
    (
        "identity.members",
        "confirmed_by_another",
        "((confirmed_by IS NULL) OR ((confirmed_by <> user_id) AND (confirmed_by IS DISTINCT FROM approver_by)))",
    ),
    (
        "identity.sso_providers",
        "confirmed_by_another",
        "((confirmed_by IS NULL) OR ((changed_by IS NOT NULL) AND (confirmed_by <> changed_by)))",
    ),
    (
        "identity.elevations",
        "an_hour_at_most",
        "((expires_at > begins_at) AND (expires_at <= (begins_at + '01:00:00'::interval)))",
    ),
    (
        "identity.exceptions",
        "a_year_at_most",
        "((expires_at > term_begins_at) AND (expires_at <= (term_begins_at + '366 days'::interval)))",
    ),
    ("identity.reviews", "somebody_else_decides", "(reviewer_person <> subject_person)"),
    ("audit.erasures", "two_people", f"({_UNDECIDED} OR (decider_hash <> requester_hash))"),
    ("audit.erasures", "two_people_of_all", f"({_UNDECIDED} OR (requester_hash <> ALL (decider_hashes)))"),
    ("audit.erasures", "not_of_oneself_at_all", f"({_UNDECIDED} OR (subject_hash <> ALL (decider_hashes)))"),
    ("audit.erasures", "not_of_oneself", f"({_UNDECIDED} OR (decider_hash <> subject_hash))"),
)

# The same of the database of the subjects' keys. Every right on the keys is listed: table, column, privilege, role.
KEYS_SCHEMA = "subjects"
KEYS_KINDS = {"subjects.keys": "inventory", "subjects.generation": "reference"}
KEYS_TRIGGERS = (("only_destroyed", "refuse_change"), ("never_emptied", "refuse_change"))
KEYS_GUARDS = (
    ("subjects.keys", "only_destroyed", 1 + 2 + 8 + 16, "A", "refuse_change"),
    ("subjects.keys", "never_emptied", 2 + 32, "A", "refuse_change"),
)
KEYS_CONSTRAINTS = (
    ("subjects.keys", "gone_when_destroyed", "((destroyed_at IS NULL) = (length(wrapped_key) > 0))"),
    ("subjects.keys", "destroyed_for_a_reason", "((destroyed_at IS NULL) = (erasure_id IS NULL))"),
)
_SEALER_READS = ("organization_id", "subject_hash", "key_id", "wrapped_key", "destroyed_at")
_SEALER_WRITES = ("organization_id", "subject_hash", "key_id", "wrapped_key", "created_at")
_ERASER_READS = ("organization_id", "subject_hash", "key_id", "created_at", "destroyed_at", "erasure_id")
KEYS_RIGHTS = (
    "subjects.keys . SELECT subjects_api",
    *(f"subjects.keys .{column} SELECT subjects_sealer" for column in _SEALER_READS),
    *(f"subjects.keys .{column} INSERT subjects_sealer" for column in _SEALER_WRITES),
    *(f"subjects.keys .{column} SELECT subjects_eraser" for column in _ERASER_READS),
    *(f"subjects.keys .{column} UPDATE subjects_eraser" for column in ("wrapped_key", "destroyed_at", "erasure_id")),
    *(f"subjects.generation . SELECT subjects_{role}" for role in ("api", "sealer", "eraser")),
    "subjects.generation .generation UPDATE subjects_eraser",
    *(f"subjects.{name} . SELECT backup_reader" for name in ("keys", "generation")),
)
KEYS_POLICIES = ("subjects.keys tenant -", "subjects.keys sealer subjects_sealer")
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
    (
        "identity.members",
        "member_id",
        "user_id,role,state,custom_role_id,connection_ids,resource_tags,approver_for,approver_since,approver_by,"
        "confirmed_by",
    ),
    ("identity.roles", "role_id", "name,permissions"),
    (
        "identity.elevations",
        "elevation_id",
        "holder,holder_person,session_id,permissions,begins_at,expires_at,ended_at",
    ),
    (
        "identity.exceptions",
        "exception_id",
        "kind,about,owner_person,reviewers,term_begins_at,expires_at,ended_at",
    ),
    ("identity.reviews", "review_id", "elevation_id,subject_person,due_at,verdict,reviewer_person,decided_at"),
    ("identity.persons", "user_id", "person_id"),
    ("identity.linked_identities", "identity_id", "kind,issuer,subject,user_id,state"),
    ("identity.invitations", "invitation_id", "email,role,secret_digest,state,expires_at,member_id"),
    ("identity.ownerships", "", "member_id"),
    (
        "identity.sso_providers",
        "provider_id",
        "state,entity_id,certificates,provider_initiated,mfa_contexts,default_role,enforced,changed_at,changed_by,"
        "confirmed_by",
    ),
    ("identity.sso_group_roles", "mapping_id", "provider_id,group_name,role,custom_role_id"),
    ("identity.sso_domains", "domain_id", "name,state,missing_since"),
    ("identity.sso_sessions", "session_id", "token_hash,user_id,aal,expires_at,ended_at"),
    ("identity.allowed_origins", "", "origins"),
    (
        "identity.browser_sessions",
        "session_id",
        "token_sha256,user_id,login_id,provider_id,aal,authenticated_at,expires_at,ended_at",
    ),
    ("scanner.connections", "connection_id", "accounts,external_id,credential_id,state"),
    ("scanner.keks", "kek_id", "version,provider,key_id,region,key_version,state"),
    ("scanner.organization_keys", "key_id", "purpose,name,state,ends_at"),
    ("scanner.rotations", "rotation_id", "connection_id,candidate_id,replaced_id,state"),
    ("scanner.rotation_rules", "", "remind_after_days,rotate_within_days,enforced_from,limits"),
    ("scanner.external_ids", "", "external_id"),
    ("scanner.static_keys", "", "allowed"),
    ("pricing.bill_sources", "bill_source_id", "connection_id,credential_id,account,bucket,prefix,state"),
    ("actions.actions", "action_id", "requester_person,plan_hash,state,requester_user"),
    ("actions.approvals", "action_id,person", "requester_person,decision,plan_hash"),
    ("actions.approval_voids", "action_id,person", "event_id"),
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
