-- Makes partitions for more shards of the log. For a superuser, as one command, while everything runs; it says what it did:
--
--   psql --set ON_ERROR_STOP=1 --single-transaction --set more=8 --dbname recoup --file deploy/add_shards.sql
--
-- A shard is used up by each year, and by each recovery (the alert LogShardsFewLeft says when they run short). Without a
-- partition for the next one the log stays in its shard, and loses nothing; a recovery is refused. No role of the
-- services may do this: the event triggers refuse to whoever isn't a superuser that anything is added to the log's tables.
-- The new partitions are empty and sealed like the others. Appends wait for a moment; where the log is too busy, nothing
-- is done after ten seconds.
--
-- PostgreSQL 17 or newer (event_triggers); on a managed one, without event triggers, leave out that line.

SELECT set_config('recoup.more', :'more', true), set_config('lock_timeout', '10s', true);

DO $body$
DECLARE
  more integer := current_setting('recoup.more')::integer;
  tenant constant text := '(organization_id = (select nullif(current_setting(''app.organization_id'', true), '''')::uuid))';
  name text;
  part text;
  last integer;
BEGIN
  IF more NOT BETWEEN 1 AND 100 THEN
    RAISE EXCEPTION 'no partitions made: % isn''t a number from 1 to 100', more USING ERRCODE = 'RC003';
  END IF;
  SELECT min(tables.last) INTO last FROM (
    SELECT max(substring(c.relname FROM '_s([0-9]+)$')::integer) AS last
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent IN ('audit.entries'::regclass, 'audit.payloads'::regclass) GROUP BY i.inhparent) AS tables;
  -- The seal is lifted for this transaction alone. Nothing else runs in it.
  PERFORM set_config('event_triggers', 'off', true);
  SET LOCAL ROLE audit_owner;
  FOR shard IN last + 1 .. last + more LOOP
    FOREACH name IN ARRAY ARRAY['entries', 'payloads'] LOOP
      part := format('audit.%s_s%s', name, shard);
      EXECUTE format('CREATE TABLE %s PARTITION OF audit.%s FOR VALUES FROM (%s) TO (%s)',
        part, name, shard::bigint << 40, (shard + 1)::bigint << 40);
      EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
      EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', part);
      EXECUTE format('CREATE POLICY tenant ON %s FOR SELECT USING %s', part, tenant);
      IF name = 'entries' THEN
        EXECUTE format('CREATE UNIQUE INDEX entries_s%s_chain ON %s (organization_id, organization_seq)', shard, part);
      END IF;
      EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s'
        ' FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse_change()', part);
      EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER append_only', part);
      EXECUTE format('COMMENT ON TABLE %s IS ''kind=log''', part);
    END LOOP;
  END LOOP;
  RESET ROLE;
  PERFORM set_config('event_triggers', 'on', true);
  RAISE NOTICE 'the log has partitions for the shards up to %', last + more;
END
$body$;
