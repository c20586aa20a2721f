-- What needs a superuser, once for each installation. Safe to run again. Holds no password: the installer sets those
-- with ALTER ROLE afterwards.
--
--   psql --set ON_ERROR_STOP=1 --dbname recoup --file deploy/bootstrap.sql
--
-- Every service has a schema of its own, an owner that nobody can log in as, and separate logins to migrate, to serve,
-- to relay, to dispatch and to work. None of them may bypass row-level security.

DO $body$
DECLARE
  service text;
  login text;
  role text;
BEGIN
  FOREACH service IN ARRAY ARRAY['identity', 'scanner', 'pricing', 'actions', 'audit'] LOOP
    role := service || '_owner';
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', role);
    END IF;
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', service, role);
    EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', service);
    -- A function can be executed by everybody unless this says otherwise.
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC', role);
    FOREACH login IN ARRAY ARRAY['migrate', 'api', 'relay', 'dispatcher', 'worker', 'sequencer', 'checker', 'archiver',
      'backup']
    LOOP
      CONTINUE WHEN login IN ('sequencer', 'checker', 'archiver') AND service <> 'audit';
      CONTINUE WHEN login = 'backup' AND service <> 'scanner';  -- Records which backups hold which secrets.
      CONTINUE WHEN login = 'worker' AND service = 'identity';
      role := service || '_' || login;
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT', role);
      END IF;
      EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', service, role);
      EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
    END LOOP;
    -- The migration role becomes the owner with SET ROLE, and only so.
    EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', service || '_owner', service || '_migrate');
  END LOOP;
END
$body$;

-- Backups are read under the one login that row-level security lets through. It may read the services'
-- tables, those of later migrations too, and nothing else: no password hash, and nothing that writes.
DO $body$
DECLARE
  service text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'backup_reader') THEN
    CREATE ROLE backup_reader LOGIN NOSUPERUSER BYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT;
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO backup_reader', current_database());
  FOREACH service IN ARRAY ARRAY['identity', 'scanner', 'pricing', 'actions', 'audit'] LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO backup_reader', service);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO backup_reader', service);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO backup_reader',
      service || '_owner', service);
  END LOOP;
END
$body$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
DO $body$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $body$;

-- A table whose comment is 'kind=log' is sealed: it can't be altered, dropped or unsealed, nor can its triggers, policies,
-- constraints, indexes and the function behind them, nor be inherited from, handed to another owner or opened to changes
-- by a grant, not even by its owner. Only who may disable an event trigger could, and that needs a superuser (as would a
-- later migration that changes such a table). Where a managed PostgreSQL gives no superuser, leave out everything from
-- here on: the grants and the row triggers remain (SECURITY.md, "Without event triggers", says what is lost).
CREATE OR REPLACE FUNCTION public.recoup_refuse_alter() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $body$
DECLARE
  command record;
  relation oid;
  is_sealed boolean;
BEGIN
  FOR command IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP
    relation := CASE command.classid
      WHEN 'pg_proc'::regclass THEN
        (SELECT tgrelid FROM pg_trigger
         WHERE tgfoid = command.objid AND obj_description(tgrelid, 'pg_class') = 'kind=log' LIMIT 1)
      -- An index is altered with its table; a child that isn't sealed itself adds rows to its parent.
      WHEN 'pg_class'::regclass THEN coalesce(
        (SELECT indrelid FROM pg_index WHERE indexrelid = command.objid),
        (SELECT i.inhparent FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhrelid = command.objid AND (NOT c.relispartition OR command.command_tag = 'CREATE TABLE')
           AND obj_description(i.inhrelid, 'pg_class') IS DISTINCT FROM 'kind=log'
           AND obj_description(i.inhparent, 'pg_class') = 'kind=log' LIMIT 1),
        command.objid)
      WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = command.objid)
      WHEN 'pg_policy'::regclass THEN (SELECT polrelid FROM pg_policy WHERE oid = command.objid)
      WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = command.objid)
      WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = command.objid)
      WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = command.objid)
      WHEN 'pg_statistic_ext'::regclass THEN (SELECT stxrelid FROM pg_statistic_ext WHERE oid = command.objid)
    END;
    CONTINUE WHEN relation IS NULL;
    is_sealed := coalesce(obj_description(relation, 'pg_class') = 'kind=log', false);
    IF command.command_tag = 'COMMENT' AND command.classid = 'pg_class'::regclass THEN
      -- Sealing is allowed, unsealing isn't; what refuses changes tells a log from all other tables.
      CONTINUE WHEN is_sealed OR NOT EXISTS (
        SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = relation AND p.proname = 'refuse_change');
    ELSE
      CONTINUE WHEN NOT is_sealed;
    END IF;
    RAISE EXCEPTION 'the log is append-only: % of % refused', command.command_tag, relation::regclass
      USING ERRCODE = 'RC002';
  END LOOP;
END
$body$;

-- GRANT doesn't say what it changed, so what it leaves is looked at.
CREATE OR REPLACE FUNCTION public.recoup_refuse_opening() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $body$
DECLARE
  opened record;
BEGIN
  FOR opened IN
    SELECT c.oid::regclass AS name FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND obj_description(c.oid, 'pg_class') = 'kind=log' AND EXISTS (
      SELECT FROM (
        SELECT grantee, privilege_type FROM aclexplode(c.relacl)
        UNION ALL SELECT x.grantee, x.privilege_type FROM pg_attribute a, aclexplode(a.attacl) x
          WHERE a.attrelid = c.oid) g
      WHERE g.grantee <> c.relowner AND g.privilege_type NOT IN ('SELECT', 'INSERT'))
  LOOP
    RAISE EXCEPTION 'the log is append-only: % of % refused', tg_tag, opened.name USING ERRCODE = 'RC002';
  END LOOP;
END
$body$;

CREATE OR REPLACE FUNCTION public.recoup_refuse_drop() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $body$
DECLARE
  object record;
BEGIN
  FOR object IN SELECT * FROM pg_event_trigger_dropped_objects() LOOP
    -- A table's own comment is gone by now, but its triggers are listed with it.
    IF object.object_type = 'trigger' AND object.address_names[3] = 'append_only'
      OR object.object_type IN ('trigger', 'policy', 'rule', 'table constraint', 'default value')
        AND obj_description(to_regclass(format('%I.%I', object.address_names[1], object.address_names[2])), 'pg_class')
          = 'kind=log'
    THEN
      RAISE EXCEPTION 'the log is append-only: % can''t be dropped', object.object_identity USING ERRCODE = 'RC002';
    END IF;
  END LOOP;
END
$body$;

DROP EVENT TRIGGER IF EXISTS recoup_log_refuses_alter;
CREATE EVENT TRIGGER recoup_log_refuses_alter ON ddl_command_end EXECUTE FUNCTION public.recoup_refuse_alter();
DROP EVENT TRIGGER IF EXISTS recoup_log_refuses_opening;
CREATE EVENT TRIGGER recoup_log_refuses_opening ON ddl_command_end WHEN TAG IN ('GRANT')
  EXECUTE FUNCTION public.recoup_refuse_opening();
DROP EVENT TRIGGER IF EXISTS recoup_log_refuses_drop;
CREATE EVENT TRIGGER recoup_log_refuses_drop ON sql_drop EXECUTE FUNCTION public.recoup_refuse_drop();
