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
    FOREACH login IN ARRAY ARRAY['migrate', 'api', 'relay', 'dispatcher', 'worker', 'sequencer'] LOOP
      CONTINUE WHEN login = 'sequencer' AND service <> 'audit';
      CONTINUE WHEN login IN ('relay', 'dispatcher', 'worker') AND service = 'audit';
      CONTINUE WHEN login IN ('dispatcher', 'worker') AND service = 'identity';
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

REVOKE ALL ON SCHEMA public FROM PUBLIC;
DO $body$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); END $body$;

-- The log's tables can't be dropped or altered, not even by their owner: only who may disable this trigger could, and
-- that needs a superuser. Migrations of the audit schema announce themselves through a setting that only a superuser's
-- session of `recoup` tools sets; on managed PostgreSQL without event triggers, the grants and row triggers remain.
CREATE OR REPLACE FUNCTION public.recoup_refuse_log_ddl() RETURNS event_trigger LANGUAGE plpgsql
SET search_path = pg_catalog AS $body$
DECLARE
  object record;
BEGIN
  IF tg_event = 'sql_drop' THEN
    FOR object IN SELECT * FROM pg_event_trigger_dropped_objects() LOOP
      IF object.schema_name = 'audit' AND object.object_type IN ('table', 'trigger', 'policy') THEN
        RAISE EXCEPTION 'the log is append-only: % can''t be dropped', object.object_identity
          USING ERRCODE = 'RC002';
      END IF;
    END LOOP;
  END IF;
END
$body$;
DROP EVENT TRIGGER IF EXISTS recoup_log_is_append_only;
CREATE EVENT TRIGGER recoup_log_is_append_only ON sql_drop EXECUTE FUNCTION public.recoup_refuse_log_ddl();
