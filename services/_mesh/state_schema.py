"""What a migration says so that rows which decide who may do what are held against their events (state_watch.py).

A seal is a digest of each watched column of a row. A trigger writes it at the commit, and only beside an event of the
same transaction. What goes past the triggers leaves the seal as it was, and so does every later change of that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services._mesh.schema import tenancy

TRIGGER = "seals_state"


@dataclass(frozen=True, slots=True)
class Watched:
    """A state table: the columns of its primary key after the organization's (UUIDs all), and those watched."""

    table: str
    keys: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def arguments(self) -> tuple[str, str]:
        """The arguments of its trigger, from which the watch learns what to compare."""
        return ",".join(self.keys), ",".join(self.columns)


SEAL_OF = """
  SELECT coalesce(jsonb_object_agg(
    name, encode(sha256(convert_to(coalesce((content -> name)::text, ''), 'UTF8')), 'hex')), '{}')
  FROM unnest(names) AS name
"""


def seal_state(schema: str) -> str:
    """The body of a schema's seal_state: what is held against it is `require_event`'s to refuse."""
    return f"""
DECLARE
  organization uuid := CASE TG_OP WHEN 'DELETE' THEN OLD.organization_id ELSE NEW.organization_id END;
  content jsonb := CASE TG_OP WHEN 'INSERT' THEN to_jsonb(NEW) ELSE to_jsonb(OLD) END;
  names text[] := string_to_array(TG_ARGV[1], ',');
  key_of text := array_to_string(ARRAY(SELECT content ->> name FROM unnest(string_to_array(TG_ARGV[0], ','))
    WITH ORDINALITY AS k(name, place) ORDER BY place), '/');
  before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN {schema}.seal_of(to_jsonb(OLD), names) END;
  after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN {schema}.seal_of(to_jsonb(NEW), names) END;
  event uuid;
BEGIN
  IF before = after THEN
    RETURN NULL;
  END IF;
  SELECT o.event_id INTO event FROM {schema}.outbox o
    WHERE o.organization_id = organization AND o.txid = pg_current_xact_id() ORDER BY o.counter DESC LIMIT 1;
  IF event IS NULL THEN
    RETURN NULL;
  ELSIF TG_OP = 'INSERT' THEN
    INSERT INTO {schema}.state_seals AS s (organization_id, relation, row_key, seal, event_id)
      VALUES (organization, TG_TABLE_NAME, key_of, after, event)
      ON CONFLICT (organization_id, relation, row_key) DO UPDATE SET seal = after, event_id = event
        WHERE s.seal IS NULL;
  ELSE
    UPDATE {schema}.state_seals s SET seal = after, event_id = event
      WHERE s.organization_id = organization AND s.relation = TG_TABLE_NAME AND s.row_key = key_of
        AND s.seal = before;
  END IF;
  RETURN NULL;
END """


def state_seals(schema: str, tables: Sequence[Watched], writers: Sequence[str] = ("api",)) -> list[str]:
    """Watch these tables; what stands in them now is taken as it is. `writers` are the roles that change any of them.

    Each table is locked until the migration commits, while its rows are read once. A table that somebody holds for
    longer than ten seconds makes the migration fail, to be run again.
    """
    roles = ", ".join(f"{schema}_{writer}" for writer in writers)
    return [
        "SET LOCAL lock_timeout = '10s'",
        # The row's key is its UUIDs with slashes between: under row-level security an index compares texts, and
        # not arrays (array_eq isn't leakproof). Without a seal the row was deleted; without an event it is as found.
        f"""CREATE TABLE {schema}.state_seals (
            organization_id uuid NOT NULL,
            relation text NOT NULL,
            row_key text COLLATE "C" NOT NULL,
            seal jsonb,
            event_id uuid,
            PRIMARY KEY (organization_id, relation, row_key))""",
        f"""CREATE FUNCTION {schema}.seal_of(content jsonb, names text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE
            SET search_path = pg_catalog AS $body${SEAL_OF}$body$""",
        f"""CREATE FUNCTION {schema}.seal_state() RETURNS trigger LANGUAGE plpgsql
            SET search_path = pg_catalog AS $body${seal_state(schema)}$body$""",
        f"GRANT EXECUTE ON FUNCTION {schema}.seal_of(jsonb, text[]) TO {roles}",
        *(statement for table in tables for statement in _watch(schema, table)),
        *tenancy(schema, "state_seals", "inventory"),
        f"GRANT SELECT, INSERT, UPDATE ON {schema}.state_seals TO {roles}",
    ]


def more_state_seals(schema: str, tables: Sequence[Watched]) -> list[str]:
    """Watch further tables of a schema that has its seals already; what stands in them now is taken as it is."""
    return ["SET LOCAL lock_timeout = '10s'", *(statement for table in tables for statement in _watch(schema, table))]


def key_of(watched: Watched) -> str:
    """An expression for the key of a row `t` as its seal has it."""
    return f"concat_ws('/', {', '.join(f't.{key}' for key in watched.keys)})" if watched.keys else "''"


def content_of(watched: Watched) -> str:
    """An expression for what is watched of a row `t`: as `to_jsonb(t)` has it, without reading the rest."""
    pairs = ", ".join(f"'{column}', t.{column}" for column in watched.columns)
    return f"jsonb_build_object({pairs})"


def _watch(schema: str, watched: Watched) -> list[str]:
    name = f"{schema}.{watched.table}"
    first, second = watched.arguments
    columns = ", ".join(f"'{column}'" for column in watched.columns)
    return [
        # Not ALWAYS: what a replica's session changes isn't sealed.
        f"CREATE CONSTRAINT TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {name} DEFERRABLE INITIALLY DEFERRED "
        f"FOR EACH ROW EXECUTE FUNCTION {schema}.seal_state('{first}', '{second}')",
        # The owner sees the rows of all organizations while row-level security isn't forced on it: in here alone.
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"INSERT INTO {schema}.state_seals (organization_id, relation, row_key, seal)"
        f" SELECT t.organization_id, '{watched.table}', {key_of(watched)},"
        f" {schema}.seal_of({content_of(watched)}, ARRAY[{columns}]) FROM {name} t",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
    ]


def watch_more(schema: str, watched: Watched, more: Sequence[str]) -> list[str]:
    """Watch further columns (`more`, of `watched`) of a table that is watched already.

    What the seals say of the other columns stays as it is, so that no bypass is forgotten over it.
    """
    name = f"{schema}.{watched.table}"
    first, second = watched.arguments
    columns = ", ".join(f"'{column}'" for column in more)
    content = content_of(Watched(watched.table, watched.keys, tuple(more)))
    return [
        "SET LOCAL lock_timeout = '10s'",
        # A moment's text, and so its digest, would follow the session's time zone.
        "SET LOCAL timezone = 'UTC'",
        f"DROP TRIGGER {TRIGGER} ON {name}",
        f"CREATE CONSTRAINT TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE ON {name} DEFERRABLE INITIALLY DEFERRED "
        f"FOR EACH ROW EXECUTE FUNCTION {schema}.seal_state('{first}', '{second}')",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {schema}.state_seals NO FORCE ROW LEVEL SECURITY",
        f"UPDATE {schema}.state_seals AS s SET seal = s.seal || {schema}.seal_of({content}, ARRAY[{columns}])"
        f" FROM {name} t WHERE s.organization_id = t.organization_id AND s.relation = '{watched.table}'"
        f" AND s.row_key = {key_of(watched)} AND s.seal IS NOT NULL",
        f"ALTER TABLE {schema}.state_seals FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
    ]
