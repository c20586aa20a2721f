-- Takes the entries and payloads of one closed shard out of the log's tables, once its archive was read back. For a
-- superuser; on a managed PostgreSQL without event triggers for audit_migrate, or whoever else may become audit_owner. As
-- one command; it refuses loudly, says what it did, and drops nothing:
--
--   psql --set ON_ERROR_STOP=1 --single-transaction --set shard=0 --dbname recoup --file deploy/detach_shard.sql
--
-- It checks the recorded verification itself: that the shard is closed, that the whole of it was read back from the
-- archive within 31 days, that what was read gave the root of the checkpoint signed at the shard's end, that the
-- partition holds exactly the shard's entries, and that the log itself has the event of that verification. The tree's
-- nodes, the checkpoints and every other shard stay: what is under them is still proven. The log says that it was done, by
-- the event audit.shard.detach of the same transaction; without it, the watch on controls and the self-check would raise
-- the alarm. Shards are detached in their order. The events of this shard can no longer be read or disclosed one by one
-- through the service, which answers where they are. Evidence is still made of them while audit.entries_s<shard> and
-- audit.payloads_s<shard> are there; once they are dropped, no evidence can be made for an organization that has events in
-- them, until they are restored. Payloads aren't in the archive: dump both tables before you drop them, for as long as they
-- must be kept. A receipt is kept from the first time that somebody read it as final: where the shard has events of
-- receipts that nobody read, nothing is done, unless PGOPTIONS="-c recoup.unread_receipts=given-up".
-- Only a superuser sees which those are: audit_owner needs that option, and somebody who read them all before.
--
-- Where event triggers seal the log, only a superuser can lift them, and PostgreSQL 17 or newer is needed.

SELECT set_config('recoup.shard', :'shard', true);

DO $body$
DECLARE
  number smallint := current_setting('recoup.shard')::smallint;
  platform constant uuid := '00000000-0000-0000-0000-000000000000';
  closed bigint;
  state record;
  place bigint;
  signed_root bytea;
  entries bigint;
  payloads bigint;
  made constant uuid := gen_random_uuid();
  unread bigint := 0;
  moment constant text := to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US');
  counted bigint;
  mighty constant boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
BEGIN
  IF NOT mighty THEN
    IF EXISTS (SELECT FROM pg_event_trigger WHERE starts_with(evtname, 'recoup_log_refuses_')) THEN
      RAISE EXCEPTION 'shard %: not detached: event triggers seal the log, and % isn''t a superuser', number, current_user
        USING ERRCODE = 'RC003';
    END IF;
    IF NOT pg_has_role('audit_owner', 'SET') THEN
      RAISE EXCEPTION 'shard %: not detached: % can''t become audit_owner', number, current_user USING ERRCODE = 'RC003';
    END IF;
    PERFORM set_config('role', 'audit_owner', true);
  END IF;
  -- The owner sees the rows of one organization only, as everybody does.
  PERFORM set_config('app.organization_id', platform::text, true);
  SELECT closed_size INTO closed FROM audit.shards WHERE shard = number;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'shard %: not detached: there is no such shard', number USING ERRCODE = 'RC003';
  END IF;
  IF closed IS NULL THEN
    RAISE EXCEPTION 'shard %: not detached: it is still appended to', number USING ERRCODE = 'RC003';
  END IF;
  SELECT * INTO state FROM audit.archive WHERE shard = number FOR UPDATE;
  IF NOT FOUND OR NOT state.complete OR state.size <> closed THEN
    RAISE EXCEPTION 'shard %: not detached: % of its % leaves are in the archive', number, coalesce(state.size, 0), closed
      USING ERRCODE = 'RC003';
  END IF;
  IF state.detached_at IS NOT NULL THEN
    RAISE EXCEPTION 'shard %: it was detached at %', number, state.detached_at USING ERRCODE = 'RC003';
  END IF;
  IF EXISTS (
    SELECT FROM audit.shards s LEFT JOIN audit.archive a ON a.shard = s.shard
    WHERE s.shard < number AND s.kind <> 'LOST' AND a.detached_at IS NULL) THEN
    RAISE EXCEPTION 'shard %: not detached: an older one is still there, and comes first', number USING ERRCODE = 'RC003';
  END IF;
  IF state.problem <> '' THEN
    RAISE EXCEPTION 'shard %: not detached: the archive differs: %', number, state.problem USING ERRCODE = 'RC003';
  END IF;
  IF state.verified_at IS NULL OR state.verified_size <> closed THEN
    RAISE EXCEPTION 'shard %: not detached: its archive wasn''t read back', number USING ERRCODE = 'RC003';
  END IF;
  IF state.verified_at < now() - interval '31 days' THEN
    RAISE EXCEPTION 'shard %: not detached: its archive was last read back at %', number, state.verified_at
      USING ERRCODE = 'RC003';
  END IF;
  place := number::bigint << 40 | closed;
  SELECT root INTO signed_root FROM audit.checkpoints WHERE size = place;
  IF signed_root IS NULL OR state.verified_root IS DISTINCT FROM signed_root THEN
    RAISE EXCEPTION 'shard %: not detached: what was read back isn''t what was signed at size %', number, closed
      USING ERRCODE = 'RC003';
  END IF;
  IF NOT EXISTS (
    SELECT FROM audit.dedup d JOIN audit.entries e ON e.idx = d.idx AND e.organization_id = platform
    WHERE d.event_id = state.verified_event_id AND e.event_id = state.verified_event_id
      AND e.producer = 'audit' AND e.action = 'audit.archive.verify' AND e.result = 'OK'
      AND e.target = 'shards/' || number) THEN
    RAISE EXCEPTION 'shard %: not detached: the log has no event of its verification', number USING ERRCODE = 'RC003';
  END IF;
  IF to_regclass(format('audit.entries_s%s', number)) IS NULL THEN
    RAISE EXCEPTION 'shard %: not detached: it has no partition', number USING ERRCODE = 'RC003';
  END IF;
  IF NOT mighty THEN  -- But for this count.
    EXECUTE format('ALTER TABLE audit.entries_s%s NO FORCE ROW LEVEL SECURITY', number);
    EXECUTE format('ALTER TABLE audit.payloads_s%s NO FORCE ROW LEVEL SECURITY', number);
  END IF;
  EXECUTE format('SELECT count(*) FROM audit.entries_s%s', number) INTO entries;
  EXECUTE format('SELECT count(*) FROM audit.payloads_s%s', number) INTO payloads;
  IF NOT mighty THEN
    EXECUTE format('ALTER TABLE audit.entries_s%s FORCE ROW LEVEL SECURITY', number);
    EXECUTE format('ALTER TABLE audit.payloads_s%s FORCE ROW LEVEL SECURITY', number);
  END IF;
  IF entries <> closed THEN
    RAISE EXCEPTION 'shard %: not detached: the partition has % entries, the shard %', number, entries, closed
      USING ERRCODE = 'RC003';
  END IF;
  IF NOT mighty THEN
    IF current_setting('recoup.unread_receipts', true) IS DISTINCT FROM 'given-up' THEN
      RAISE EXCEPTION 'shard %: not detached: audit_owner can''t see which receipts were never read as final', number
        USING ERRCODE = 'RC003';
    END IF;
  ELSIF to_regclass('actions.final_receipts') IS NOT NULL
      AND current_setting('recoup.unread_receipts', true) IS DISTINCT FROM 'given-up' THEN
    -- One of which an event was erased can't be read as final any more.
    EXECUTE format('SELECT count(*) FROM actions.receipts r WHERE NOT EXISTS (SELECT FROM actions.final_receipts f'
      ' WHERE f.organization_id = r.organization_id AND f.receipt_id = r.receipt_id)'
      ' AND EXISTS (SELECT FROM audit.dedup d WHERE d.event_id = ANY(r.event_ids) AND d.idx >> 40 = %1$s)'
      ' AND NOT EXISTS (SELECT FROM audit.dedup d JOIN audit.payloads p ON p.idx = d.idx'
      '   AND p.organization_id = r.organization_id JOIN audit.erased_keys k ON k.key_id = p.key_id'
      '   WHERE d.event_id = ANY(r.event_ids))', number) INTO unread;
  END IF;
  IF unread > 0 THEN
    RAISE EXCEPTION 'shard %: not detached: % receipts have events in it and were never read as final; have them read first',
      number, unread USING ERRCODE = 'RC003';
  END IF;
  -- The seal is lifted for this transaction alone. Nothing else runs in it.
  IF mighty THEN
    PERFORM set_config('event_triggers', 'off', true);
  END IF;
  EXECUTE format('ALTER TABLE audit.entries DETACH PARTITION audit.entries_s%s', number);
  EXECUTE format('ALTER TABLE audit.payloads DETACH PARTITION audit.payloads_s%s', number);
  EXECUTE format('GRANT SELECT ON audit.entries_s%1$s, audit.payloads_s%1$s TO audit_api', number);
  IF mighty THEN
    PERFORM set_config('event_triggers', 'on', true);
  END IF;
  UPDATE audit.archive SET detached_at = now() WHERE shard = number;
  -- RFC 8785: the names in order, and no space between. Last of all, because it locks the counter.
  INSERT INTO audit.outbox_counters AS c (organization_id, value) VALUES (platform, 1)
    ON CONFLICT (organization_id) DO UPDATE SET value = c.value + 1 RETURNING c.value INTO counted;
  INSERT INTO audit.outbox (organization_id, event_id, counter, action, payload, occurred_at)
  SELECT platform, made, counted, 'audit.shard.detach', convert_to(format(
    '{"action":"audit.shard.detach","actor":"process:operator","authority":"system","event_id":"%s","metadata":'
    '{"detached_at":"%s+00:00","entries":"%s","location":%s,"origin":%s,"payloads":"%s","root":"%s"},'
    '"occurred_at":"%sZ","organization_id":"%s","request_id":"","responsible_person":"","result":"OK","role":"SYSTEM",'
    '"target":"shards/%s","trace_id":"","v":1}',
    made, moment, entries, to_json(state.location), to_json(s.origin), payloads, encode(signed_root, 'hex'),
    moment, platform, number), 'UTF8'), now() FROM audit.shards s WHERE s.shard = number;
  RAISE NOTICE 'shard %: detached audit.entries_s% (% entries, archived at %, read back at %) and audit.payloads_s% '
    '(% payloads, which aren''t in the archive: dump before you drop). Nothing was dropped.',
    number, number, entries, state.location, state.verified_at, number, payloads;
END
$body$;
