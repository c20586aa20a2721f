"""Connections with their sealed credentials, scans with their completeness, the inventory, findings."""

from alembic import op

from services._mesh.schema import allow, mesh_tables, run, tenancy

revision = "0001"
down_revision = None

_KEY = """
        provider text NOT NULL,
        partition text NOT NULL,
        account text NOT NULL,
        region text NOT NULL,
        type text NOT NULL,
        id text NOT NULL"""


def upgrade() -> None:
    """Make the scanner's tables."""
    tables = [*_CONNECTIONS, *_SCANS, *_INVENTORY, *_FINDINGS]
    run(op.execute, [*mesh_tables("scanner", jobs=True, worker=True), *tables])


_CONNECTIONS = [
    """CREATE TABLE scanner.connections (
        organization_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        display_name text NOT NULL,
        provider text NOT NULL,
        accounts jsonb NOT NULL,
        regions text[] NOT NULL,
        external_id text NOT NULL,
        credential_id uuid NOT NULL,
        access_key_id text NOT NULL,
        state text NOT NULL CHECK (state IN ('PENDING', 'VERIFYING', 'ACTIVE', 'FAILED', 'DISABLED')),
        problem text NOT NULL DEFAULT '',
        role_checks jsonb NOT NULL DEFAULT '[]',
        version bigint NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL,
        verified_at timestamptz,
        PRIMARY KEY (organization_id, connection_id))""",
    *tenancy("scanner", "connections", "state"),
    *allow("scanner", "connections", api="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE"),
    """CREATE TABLE scanner.credentials (
        organization_id uuid NOT NULL,
        credential_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        envelope bytea NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, credential_id),
        FOREIGN KEY (organization_id, connection_id)
          REFERENCES scanner.connections (organization_id, connection_id))""",
    *tenancy("scanner", "credentials", "state"),
    *allow("scanner", "credentials", api="SELECT, INSERT"),
]

_SCANS = [
    """CREATE TABLE scanner.scans (
        organization_id uuid NOT NULL,
        scan_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'COMPLETE', 'PARTIAL', 'FAILED')),
        units_total integer NOT NULL,
        resources_seen integer NOT NULL DEFAULT 0,
        findings_open integer NOT NULL DEFAULT 0,
        problem text NOT NULL DEFAULT '',
        created_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        PRIMARY KEY (organization_id, scan_id),
        FOREIGN KEY (organization_id, connection_id)
          REFERENCES scanner.connections (organization_id, connection_id))""",
    # One scan of a connection at a time.
    "CREATE UNIQUE INDEX scans_open ON scanner.scans (organization_id, connection_id)"
    " WHERE state IN ('QUEUED', 'RUNNING')",
    *tenancy("scanner", "scans", "state"),
    *allow("scanner", "scans", api="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE"),
    """CREATE TABLE scanner.scan_units (
        organization_id uuid NOT NULL,
        scan_id uuid NOT NULL,
        account text NOT NULL,
        region text NOT NULL,
        api text NOT NULL,
        outcome text NOT NULL,
        pages integer NOT NULL,
        resources integer NOT NULL,
        throttles integer NOT NULL,
        calls integer NOT NULL,
        error_code text NOT NULL,
        PRIMARY KEY (organization_id, scan_id, account, region, api))""",
    *tenancy("scanner", "scan_units", "inventory"),
    *allow("scanner", "scan_units", api="SELECT", worker="SELECT, INSERT, UPDATE"),
]

_INVENTORY = [
    # The first-seen ledger stands beside the facts: since when a resource has been in its condition.
    f"""CREATE TABLE scanner.resources (
        organization_id uuid NOT NULL,
        connection_id uuid NOT NULL,{_KEY},
        name text NOT NULL,
        facts jsonb NOT NULL,
        tags jsonb NOT NULL,
        details jsonb NOT NULL,
        condition text NOT NULL,
        condition_since timestamptz NOT NULL,
        held boolean NOT NULL,
        first_seen_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        gone_at timestamptz,
        PRIMARY KEY (organization_id, connection_id, account, region, type, id))""",
    *tenancy("scanner", "resources", "inventory"),
    *allow("scanner", "resources", api="SELECT", worker="SELECT, INSERT, UPDATE"),
]

_FINDINGS = [
    f"""CREATE TABLE scanner.findings (
        organization_id uuid NOT NULL,
        finding_id uuid NOT NULL,
        connection_id uuid NOT NULL,
        scan_id uuid NOT NULL,
        detection_id text NOT NULL,{_KEY},
        resource_name text NOT NULL,
        state text NOT NULL CHECK (state IN ('OPEN', 'RESOLVED')),
        actionability text NOT NULL,
        saving numeric,
        currency text NOT NULL,
        price_version text NOT NULL,
        severity text NOT NULL,
        confidence text NOT NULL,
        evidence jsonb NOT NULL,
        action_type text NOT NULL,
        first_seen_at timestamptz NOT NULL,
        last_seen_at timestamptz NOT NULL,
        PRIMARY KEY (organization_id, finding_id),
        UNIQUE (organization_id, connection_id, detection_id, account, region, type, id))""",
    "CREATE INDEX findings_by_saving ON scanner.findings"
    " (organization_id, state, (coalesce(saving, -1)) DESC, finding_id)",
    *tenancy("scanner", "findings", "inventory"),
    *allow("scanner", "findings", api="SELECT", worker="SELECT, INSERT, UPDATE"),
]
