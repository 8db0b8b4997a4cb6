--
-- The reverse index, and what needs it: taking paths out of a cache.
--
-- Its tables are this site's own: neither replicated nor dumped.
--
CREATE TABLE referrer_state (
	cache text COLLATE "C" PRIMARY KEY,
	seq bigint NOT NULL
);

COMMENT ON TABLE referrer_state IS
'how far the reverse index of each cache has come; readers add what is behind';
COMMENT ON COLUMN referrer_state.cache IS 'name of the cache';
COMMENT ON COLUMN referrer_state.seq IS 'number of the last event that is in';

CREATE TABLE referrer_run (
	cache text COLLATE "C" NOT NULL,
	run bigint NOT NULL,
	level integer NOT NULL,
	edges bigint NOT NULL,
	PRIMARY KEY (cache, run)
);

COMMENT ON TABLE referrer_run IS
'the sorted runs that make up the reverse index of each cache';
COMMENT ON COLUMN referrer_run.cache IS 'name of the cache';
COMMENT ON COLUMN referrer_run.run IS 'number of the run';
COMMENT ON COLUMN referrer_run.level IS
'how often its edges were merged; eight runs of a level become one of the next';
COMMENT ON COLUMN referrer_run.edges IS 'references in it';

CREATE TABLE referrer_page (
	cache text COLLATE "C" NOT NULL,
	run bigint NOT NULL,
	first store_hash NOT NULL,
	part integer NOT NULL,
	data bytea NOT NULL,
	PRIMARY KEY (cache, run, first, part)
);

-- a page fills a block as it is
ALTER TABLE referrer_page ALTER COLUMN data SET STORAGE PLAIN;

COMMENT ON TABLE referrer_page IS
'pages of the runs; src/cache/referrer.h draws them';
COMMENT ON COLUMN referrer_page.cache IS 'name of the cache';
COMMENT ON COLUMN referrer_page.run IS 'the run that it belongs to';
COMMENT ON COLUMN referrer_page.first IS 'first path in it that is referred to';
COMMENT ON COLUMN referrer_page.part IS 'number of the page in its run';
COMMENT ON COLUMN referrer_page.data IS 'who refers to which path';

CREATE FUNCTION referrers_of(hashes store_hash[],
		cache text DEFAULT default_cache())
	RETURNS SETOF store_path
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	ROWS 100;

COMMENT ON FUNCTION referrers_of(store_hash[], text) IS
'the valid paths that refer to any of these, themselves aside';

CREATE FUNCTION referrers(path store_path, cache text DEFAULT default_cache())
	RETURNS SETOF store_path
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
	ROWS 100
BEGIN ATOMIC
	SELECT r FROM referrers_of(ARRAY[store_hash(path)], cache) AS r ORDER BY r;
END;

COMMENT ON FUNCTION referrers(store_path, text) IS
'the valid paths that refer to a path, itself aside';

CREATE FUNCTION referrers_follow(max_events bigint,
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION referrers_follow(bigint, text) IS
'takes so many events up into the reverse index, as the janitor does; how many there were';

CREATE FUNCTION referrers_rebuild(cache text) RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION referrers_rebuild(text) IS
'what rebuild_referrers() calls';

CREATE PROCEDURE rebuild_referrers(cache text DEFAULT default_cache())
	LANGUAGE sql
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'SELECT narinfo.referrers_rebuild($1)';

COMMENT ON PROCEDURE rebuild_referrers(text) IS
'makes the reverse index of a cache anew from its paths';

-- Taking out
CREATE TABLE trash (
	cache text COLLATE "C" NOT NULL,
	hash store_hash NOT NULL,
	info narinfo NOT NULL,
	removed timestamptz NOT NULL,
	by text NOT NULL,
	PRIMARY KEY (cache, hash, removed)
);

COMMENT ON TABLE trash IS
'narinfos that retract() and gc_run() have taken out of a cache';
COMMENT ON COLUMN trash.cache IS 'name of the cache';
COMMENT ON COLUMN trash.hash IS 'hash part of the path';
COMMENT ON COLUMN trash.info IS 'the narinfo as it was';
COMMENT ON COLUMN trash.removed IS 'when it was taken out';
COMMENT ON COLUMN trash.by IS 'the user who did';

CREATE FUNCTION outer_user() RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE PARALLEL SAFE;

COMMENT ON FUNCTION outer_user() IS
'the user who calls, also within functions that have their owner''s rights';

CREATE FUNCTION trash_paths(gone store_hash[], cache text,
		OUT removed bigint, OUT nar_bytes bigint, OUT file_bytes bigint)
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	WITH removed AS (
		DELETE FROM narinfo.valid_path AS v
		WHERE v.cache = trash_paths.cache
			AND v.hash OPERATOR(narinfo.=) ANY (gone)
		RETURNING v.hash, v.info),
	kept AS (
		INSERT INTO narinfo.trash (cache, hash, info, removed, by)
		SELECT trash_paths.cache, r.hash, r.info, clock_timestamp(),
			narinfo.outer_user() FROM removed AS r
		RETURNING narinfo.nar_size(info) AS nar,
			narinfo.file_size(info) AS file)
	SELECT count(*), least(coalesce(sum(k.nar), 0), 9223372036854775807),
		least(coalesce(sum(coalesce(k.file, k.nar)), 0), 9223372036854775807)
	INTO trash_paths.removed, nar_bytes, file_bytes FROM kept AS k;
END
$$;

COMMENT ON FUNCTION trash_paths(store_hash[], text) IS
'what retract() and gc_run() call, with their rights: moves paths from a cache into trash; how many there were, and their bytes (NarSize; FileSize, or NarSize where there is none)';

CREATE FUNCTION retract(paths store_path[],
		with_referrers boolean DEFAULT false,
		cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gone narinfo.store_hash[] :=
		ARRAY(SELECT DISTINCT narinfo.store_hash(p) FROM unnest(paths) AS p
			WHERE p IS NOT NULL);
	next narinfo.store_hash[] := gone;
BEGIN
	WHILE with_referrers AND cardinality(next) > 0 LOOP
		next := ARRAY(SELECT narinfo.store_hash(r)
			FROM narinfo.referrers_of(next, retract.cache) AS r
			EXCEPT SELECT unnest(gone));
		gone := gone || next;
	END LOOP;
	-- in one order, so that two of these cannot wait for each other
	PERFORM FROM narinfo.valid_path AS v
		WHERE v.cache = retract.cache AND v.hash OPERATOR(narinfo.=) ANY (gone)
		ORDER BY v.hash USING OPERATOR(narinfo.<) FOR UPDATE;
	RETURN removed FROM narinfo.trash_paths(gone, retract.cache);
END
$$;

COMMENT ON FUNCTION retract(store_path[], boolean, text) IS
'takes paths out of a cache, into trash, with all that refers to them if that is wanted; without, it is refused at commit when something would. How many it took out';

REVOKE ALL ON FUNCTION retract(store_path[], boolean, text),
	trash_paths(store_hash[], text),
	referrers_of(store_hash[], text), referrers(store_path, text),
	referrers_follow(bigint, text), referrers_rebuild(text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE rebuild_referrers(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION referrers_of(store_hash[], text),
	referrers(store_path, text)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION retract(store_path[], boolean, text)
	TO narinfo_admin;
GRANT EXECUTE ON PROCEDURE rebuild_referrers(text) TO narinfo_admin;
GRANT SELECT ON trash, referrer_state, referrer_run
	TO narinfo_reader, narinfo_publisher, narinfo_admin;

SELECT pg_catalog.pg_extension_config_dump('trash', '');
