"""Actions with their approvals and steps, checkpoints, receipts."""

from alembic import op

from services._mesh.schema import allow, mesh_tables, run, tenancy

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of actions."""
    tables = [*_ACTIONS, *_APPROVALS, *_STEPS, *_CHECKPOINTS, *_RECEIPTS]
    run(op.execute, [*mesh_tables("actions", jobs=True, worker=True), *tables])


_STATES = (
    "'REQUESTED', 'APPROVED', 'REJECTED', 'CANCELLED', 'EXPIRED', 'EXECUTING', 'QUARANTINED', 'EXECUTED', 'STALE',"
    " 'FAILED', 'UNKNOWN', 'CLOSED'"
)
# The model's OPEN_STATES: while an action is in one of them, its resource can have no other.
_OPEN = "'REQUESTED', 'APPROVED', 'EXECUTING', 'QUARANTINED', 'UNKNOWN'"

# The model's states that lead nowhere.
_FINAL = "'REJECTED', 'CANCELLED', 'EXPIRED', 'STALE', 'FAILED', 'CLOSED'"
_MOVES = "state, quarantined_until, executed_at, problem, version"

_ACTIONS = [
    f"""CREATE TABLE actions.actions (
        organization_id uuid NOT NULL,
        action_id uuid NOT NULL,
        finding_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        credential_id uuid NOT NULL,
        action_type text NOT NULL,
        provider text NOT NULL,
        partition text NOT NULL,
        account text NOT NULL,
        region text NOT NULL,
        type text NOT NULL,
        id text NOT NULL,
        state text NOT NULL CHECK (state IN ({_STATES})),
        plan_version smallint NOT NULL,
        plan_hash text NOT NULL,
        plan bytea NOT NULL,
        baseline bytea NOT NULL,
        estimate numeric NOT NULL,
        currency text NOT NULL,
        price_version text NOT NULL,
        requested_by text NOT NULL,
        requester_person uuid NOT NULL,
        requester_role text NOT NULL,
        requested_at timestamptz NOT NULL,
        request_event_id uuid NOT NULL,
        approve_before timestamptz NOT NULL,
        quarantined_until timestamptz,
        executed_at timestamptz,
        problem text NOT NULL DEFAULT '',
        version bigint NOT NULL DEFAULT 1,
        PRIMARY KEY (organization_id, action_id),
        UNIQUE (organization_id, action_id, requester_person, plan_hash))""",
    # What is over stays over, whoever may write the row.
    f"""CREATE FUNCTION actions.hold_final_state() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog AS $body$
        BEGIN
          IF OLD.state IN ({_FINAL}) AND NEW.state <> OLD.state THEN
            RAISE EXCEPTION 'an action that is % stays so', OLD.state USING ERRCODE = 'RC003';
          END IF;
          RETURN NEW;
        END $body$""",
    "CREATE TRIGGER final_state BEFORE UPDATE ON actions.actions"
    " FOR EACH ROW EXECUTE FUNCTION actions.hold_final_state()",
    "CREATE UNIQUE INDEX actions_open ON actions.actions"
    f" (organization_id, provider, partition, account, region, type, id) WHERE state IN ({_OPEN})",
    "CREATE INDEX actions_by_finding ON actions.actions (organization_id, finding_id)",
    *tenancy("actions", "actions", "state"),
    # An action moves on; what was requested, by whom and under which hash can't be changed by anybody.
    *allow("actions", "actions", api=f"SELECT, INSERT, UPDATE ({_MOVES})", worker=f"SELECT, UPDATE ({_MOVES})"),
]

_APPROVALS = [
    # Nobody approves what they requested, and an approval is of the plan that the action has: held by the data itself.
    """CREATE TABLE actions.approvals (
        organization_id uuid NOT NULL,
        action_id uuid NOT NULL,
        person uuid NOT NULL,
        requester_person uuid NOT NULL,
        decided_by text NOT NULL,
        role text NOT NULL,
        decision text NOT NULL CHECK (decision IN ('APPROVED', 'REJECTED')),
        plan_hash text NOT NULL,
        comment text NOT NULL,
        decided_at timestamptz NOT NULL,
        event_id uuid NOT NULL,
        PRIMARY KEY (organization_id, action_id, person),
        CHECK (decision <> 'APPROVED' OR person <> requester_person),
        FOREIGN KEY (organization_id, action_id, requester_person, plan_hash)
          REFERENCES actions.actions (organization_id, action_id, requester_person, plan_hash))""",
    *tenancy("actions", "approvals", "state"),
    *allow("actions", "approvals", api="SELECT, INSERT", worker="SELECT"),
]

_STEPS = [
    """CREATE TABLE actions.steps (
        organization_id uuid NOT NULL,
        action_id uuid NOT NULL,
        place integer NOT NULL,
        attempt integer NOT NULL,
        name text NOT NULL,
        state text NOT NULL CHECK (state IN ('INTENDED', 'CONFIRMED', 'REFUSED', 'UNKNOWN')),
        result_id text NOT NULL DEFAULT '',
        error_code text NOT NULL DEFAULT '',
        intended_at timestamptz NOT NULL,
        confirmed_at timestamptz,
        intent_event_id uuid NOT NULL,
        outcome_event_id uuid,
        PRIMARY KEY (organization_id, action_id, place, attempt),
        FOREIGN KEY (organization_id, action_id) REFERENCES actions.actions (organization_id, action_id))""",
    # One attempt at a time, whoever believes to hold the lease.
    "CREATE UNIQUE INDEX steps_open ON actions.steps (organization_id, action_id)"
    " WHERE state IN ('INTENDED', 'UNKNOWN')",
    *tenancy("actions", "steps", "state"),
    *allow(
        "actions",
        "steps",
        api="SELECT",
        worker="SELECT, INSERT, UPDATE (state, result_id, error_code, confirmed_at, outcome_event_id)",
    ),
]

_CHECKPOINTS = [
    """CREATE TABLE actions.checkpoints (
        organization_id uuid NOT NULL,
        checkpoint_id uuid NOT NULL,
        action_id uuid NOT NULL,
        days integer NOT NULL,
        from_day date,
        to_day date,
        decision text NOT NULL DEFAULT '',
        economic numeric,
        cash numeric,
        currency text NOT NULL,
        provisional boolean NOT NULL DEFAULT false,
        explanation text NOT NULL DEFAULT '',
        measurement bytea NOT NULL DEFAULT '',
        measurement_digest text NOT NULL DEFAULT '',
        decided_at timestamptz,
        decide_event_id uuid,
        revision integer NOT NULL DEFAULT 0,
        receipt_id uuid,
        PRIMARY KEY (organization_id, checkpoint_id),
        UNIQUE (organization_id, action_id, days),
        FOREIGN KEY (organization_id, action_id) REFERENCES actions.actions (organization_id, action_id))""",
    *tenancy("actions", "checkpoints", "state"),
    # The worker decides, the API issues the receipt: neither can do the other's part.
    *allow(
        "actions",
        "checkpoints",
        api="SELECT, INSERT, UPDATE (receipt_id)",
        worker="SELECT, UPDATE (from_day, to_day, decision, economic, cash, currency, provisional, explanation,"
        " measurement, measurement_digest, decided_at, decide_event_id, revision)",
    ),
]

_RECEIPTS = [
    # What a receipt says is frozen with it: a later decision of the same checkpoint makes another receipt.
    """CREATE TABLE actions.receipts (
        organization_id uuid NOT NULL,
        receipt_id uuid NOT NULL,
        action_id uuid NOT NULL,
        days integer NOT NULL,
        revision integer NOT NULL,
        decision text NOT NULL,
        economic numeric,
        cash numeric,
        currency text NOT NULL,
        provisional boolean NOT NULL,
        format smallint NOT NULL,
        digest text NOT NULL,
        document bytea NOT NULL,
        measurement bytea NOT NULL,
        envelope bytea NOT NULL,
        event_ids uuid[] NOT NULL,
        issued_at timestamptz NOT NULL,
        supersedes uuid,
        PRIMARY KEY (organization_id, receipt_id),
        UNIQUE (organization_id, action_id, days, revision),
        FOREIGN KEY (organization_id, action_id) REFERENCES actions.actions (organization_id, action_id))""",
    *tenancy("actions", "receipts", "state"),
    *allow("actions", "receipts", api="SELECT, INSERT"),
]
