-- What needs a superuser in the database of the subjects' keys, once for each installation. Safe to run again. Holds no
-- password: the installer sets those with ALTER ROLE afterwards.
--
--   psql --set ON_ERROR_STOP=1 --dbname recoup_keys --file deploy/bootstrap_keys.sql
--
-- The log's payloads are sealed under keys that stand here and nowhere else: a database of its own, with logins of its
-- own, so that neither a dump of the log nor one of the keys can be read by itself. Its backups are kept apart from the
-- log's, no longer than erased data may come back from one, and taken after the log's: a restored event whose key is
-- younger than the keys' backup can't be read by anybody any more.
--
--   api      opens payloads: reads the keys of one organization at a time
--   sealer   the sequencer's: finds and makes keys for a flush that holds several organizations' events
--   eraser   destroys keys, and can't read them

DO $body$
DECLARE
  login text;
  role text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'subjects_owner') THEN
    CREATE ROLE subjects_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
  END IF;
  CREATE SCHEMA IF NOT EXISTS subjects AUTHORIZATION subjects_owner;
  REVOKE ALL ON SCHEMA subjects FROM PUBLIC;
  -- A function can be executed by everybody unless this says otherwise.
  ALTER DEFAULT PRIVILEGES FOR ROLE subjects_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
  FOREACH login IN ARRAY ARRAY['migrate', 'api', 'sealer', 'eraser'] LOOP
    role := 'subjects_' || login;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
      EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT', role);
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA subjects TO %I', role);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
  END LOOP;
  -- The migration role becomes the owner with SET ROLE, and only so.
  GRANT subjects_owner TO subjects_migrate WITH INHERIT FALSE, SET TRUE;
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END
$body$;

-- As in bootstrap.sql: backups are read under the one login that row-level security lets through. It may read the services'
-- tables, those of later migrations too, and nothing else: no password hash, and nothing that writes.
DO $body$
DECLARE
  service text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'backup_reader') THEN
    CREATE ROLE backup_reader LOGIN NOSUPERUSER BYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT;
  END IF;
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO backup_reader', current_database());
  FOREACH service IN ARRAY ARRAY['subjects'] LOOP
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO backup_reader', service);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO backup_reader', service);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO backup_reader',
      service || '_owner', service);
  END LOOP;
END
$body$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
