--
-- The gate that every change of a cache passes, and the events it leaves.
--
CREATE TYPE event_kind AS ENUM ('publish', 'replace', 'retract',
	'create_cache', 'alter_cache', 'drop_cache', 'trust_key', 'untrust_key',
	'create_token', 'revoke_token', 'pin', 'unpin', 'add_root_source',
	'drop_root_source', 'set_quota', 'drop_quota');

COMMENT ON TYPE event_kind IS
'what an event did to its cache: publish, replace and retract are about a path, pin and unpin about a path as a root, the others about the cache itself, its keys, tokens, sources of roots and quotas';

CREATE TABLE event (
	cache text COLLATE "C" NOT NULL,
	seq bigint NOT NULL,
	epoch integer NOT NULL,
	at timestamptz NOT NULL,
	kind event_kind NOT NULL,
	hash store_hash,
	name text,
	lsn pg_lsn NOT NULL,
	digest bytea NOT NULL,
	PRIMARY KEY (cache, seq),
	CONSTRAINT event_seq_valid CHECK (seq > 0),
	CONSTRAINT event_digest_valid CHECK (octet_length(digest) = 16)
);

COMMENT ON TABLE event IS
'every change of every cache, numbered without a gap in the order of the commits; written by the gate alone';
COMMENT ON COLUMN event.cache IS 'name of the cache';
COMMENT ON COLUMN event.seq IS 'number of the event in its cache, 1 for the first';
COMMENT ON COLUMN event.epoch IS
'grows whenever another server begins to publish';
COMMENT ON COLUMN event.at IS 'when it was written, just before its commit';
COMMENT ON COLUMN event.kind IS 'what happened';
COMMENT ON COLUMN event.hash IS 'the path that it is about, if it is about one';
COMMENT ON COLUMN event.name IS 'the public key, the owner of the quota, or the name of the token, pin or source of roots, that it is about, if it is about one';
COMMENT ON COLUMN event.lsn IS
'position in the write-ahead log of the server whose epoch it is, when it was written, within its transaction: who has flushed all up to the end of that transaction''s commit record has the event';
COMMENT ON COLUMN event.digest IS
'digest of all that is in the cache after this event, see cache_digest()';

CREATE FUNCTION event_caches() RETURNS SETOF text
	LANGUAGE sql STABLE PARALLEL SAFE
	ROWS 10
BEGIN ATOMIC
	WITH RECURSIVE found (cache) AS (
		(SELECT e.cache FROM event AS e ORDER BY e.cache LIMIT 1)
		UNION ALL
		SELECT (SELECT e.cache FROM event AS e WHERE e.cache > f.cache
			ORDER BY e.cache LIMIT 1)
		FROM found AS f WHERE f.cache IS NOT NULL)
	SELECT f.cache FROM found AS f WHERE f.cache IS NOT NULL;
END;

COMMENT ON FUNCTION event_caches() IS
'the caches that have events, those that were dropped included; an index lookup each';

CREATE FUNCTION last_events() RETURNS SETOF event
	LANGUAGE sql STABLE PARALLEL SAFE
	ROWS 10
BEGIN ATOMIC
	SELECT l.* FROM event_caches() AS k CROSS JOIN LATERAL (
		SELECT e.* FROM event AS e WHERE e.cache = k
		ORDER BY e.cache DESC, e.seq DESC LIMIT 1) AS l;
END;

COMMENT ON FUNCTION last_events() IS
'the last event of each cache; an index lookup each';

CREATE FUNCTION event_refuse() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION event_refuse() IS
'trigger that lets nobody write events by hand';

CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON event
	FOR EACH STATEMENT EXECUTE FUNCTION event_refuse();

CREATE FUNCTION event_check_applied() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION event_check_applied() IS
'trigger that stops replication at a gap in the numbers, and at an event of an epoch that is over';

CREATE TRIGGER check_applied BEFORE INSERT ON event
	FOR EACH ROW EXECUTE FUNCTION event_check_applied();

ALTER TABLE event ENABLE REPLICA TRIGGER check_applied;

-- The gated tables; their canonical columns stand in src/cache/row.c.
CREATE FUNCTION gate_collect() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION gate_collect() IS
'trigger that keeps what a statement changed for the gate';

CREATE FUNCTION gate_refuse_truncate() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION gate_refuse_truncate() IS
'trigger that refuses TRUNCATE, which would leave no events';

CREATE FUNCTION gate_table(gated regclass) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('CREATE TRIGGER gate_insert AFTER INSERT ON %s
		REFERENCING NEW TABLE AS new_rows
		FOR EACH STATEMENT EXECUTE FUNCTION narinfo.gate_collect()', gated);
	EXECUTE format('CREATE TRIGGER gate_update AFTER UPDATE ON %s
		REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
		FOR EACH STATEMENT EXECUTE FUNCTION narinfo.gate_collect()', gated);
	EXECUTE format('CREATE TRIGGER gate_delete AFTER DELETE ON %s
		REFERENCING OLD TABLE AS old_rows
		FOR EACH STATEMENT EXECUTE FUNCTION narinfo.gate_collect()', gated);
	EXECUTE format('CREATE TRIGGER gate_truncate BEFORE TRUNCATE ON %s
		FOR EACH STATEMENT EXECUTE FUNCTION narinfo.gate_refuse_truncate()',
		gated);
END
$$;

COMMENT ON FUNCTION gate_table(regclass) IS
'makes the triggers of a gated table; the script of the extension calls it';

REVOKE ALL ON FUNCTION gate_table(regclass) FROM PUBLIC;

SELECT gate_table(t) FROM unnest(ARRAY['valid_path', 'cache', 'key', 'token']
	::regclass[]) AS t;

-- Digests
CREATE FUNCTION row_digest(record) RETURNS bytea
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION row_digest(record) IS
'16 bytes: XXH3-128 of the canonical bytes of a row of a gated table';

CREATE FUNCTION digest_xor(bytea, bytea) RETURNS bytea
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION digest_xor(bytea, bytea) IS
'the XOR of two digests';

CREATE AGGREGATE sum_digest (bytea) (
	SFUNC = digest_xor,
	STYPE = bytea,
	COMBINEFUNC = digest_xor,
	PARALLEL = safe
);

COMMENT ON AGGREGATE sum_digest(bytea) IS
'the XOR of digests: the same in any order';

CREATE FUNCTION cache_digest(cache text DEFAULT default_cache()) RETURNS bytea
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION cache_digest(text) IS
'digest of all that is in a cache, computed from its rows; equal to that of its last event, and on every site that has this event';

-- Publishing
CREATE FUNCTION publish(info narinfo, cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION publish(narinfo, text) IS
'makes a path valid in a cache, or gives it this narinfo; whether that changed anything';

CREATE FUNCTION publish_many(infos narinfo[],
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION publish_many(narinfo[], text) IS
'publishes narinfos, in whatever order they come; how many paths it changed';

CREATE FUNCTION touch(hashes store_hash[],
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION touch(store_hash[], text) IS
'notes that somebody counts on these paths, as publishing them again would; how many of them are valid';

CREATE FUNCTION last_event(cache text DEFAULT default_cache()) RETURNS bigint
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
	SELECT coalesce((SELECT e.seq FROM event AS e
		WHERE e.cache = last_event.cache
		ORDER BY e.cache DESC, e.seq DESC LIMIT 1), 0);
END;

COMMENT ON FUNCTION last_event(text) IS
'number of the last event of a cache, 0 before the first';

CREATE FUNCTION changes(after bigint, max_rows integer DEFAULT 1000,
		cache text DEFAULT default_cache())
	RETURNS TABLE (seq bigint, epoch integer, at timestamptz, kind event_kind,
		hash store_hash, name text, digest bytea, info narinfo)
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	ROWS 1000;

COMMENT ON FUNCTION changes(bigint, integer, text) IS
'the events of a cache behind a number, with the narinfo that each path has now: NULL where it is not valid any more, as a later event tells; fails with NI004 when the next event is not kept any more';

CREATE FUNCTION cut_events(older_than interval, max_events bigint,
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION cut_events(interval, bigint, text) IS
'removes so many of the oldest events of a cache, as the janitor does by pg_narinfo.event_retention: none that the reverse index has not seen, nor that a logical replication slot of this database has not confirmed, nor the last one; how many it removed';

REVOKE ALL ON FUNCTION changes(bigint, integer, text),
	cut_events(interval, bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION publish(narinfo, text), publish_many(narinfo[], text),
	touch(store_hash[], text) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('event', '');
