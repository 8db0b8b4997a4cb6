--
-- Who holds how much of a cache, and for how long
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;

CREATE FUNCTION pg_temp.path(i int) RETURNS store_path LANGUAGE sql
	RETURN format('/nix/store/%s-p%s', lpad(i::text, 32, '0'), i)::store_path;
-- of i bytes, packed in half of them; each third has no FileSize
CREATE FUNCTION pg_temp.made(i int, refs int[]) RETURNS narinfo LANGUAGE sql
	RETURN format(E'StorePath: %s\nURL: nar/%s\n%sNarHash: sha256:%s\nNarSize: %s\n'
		'References: %s\n', pg_temp.path(i), i,
		CASE WHEN i % 3 > 0 THEN format(E'FileSize: %s\n', i / 2 + 1) END,
		repeat('0', 52), i, (SELECT string_agg(base_name(pg_temp.path(r)), ' ')
			FROM unnest(refs) AS r))::narinfo;
-- 400 paths, each of which needs itself and at most two others
SELECT publish_many(array_agg(pg_temp.made(i,
	ARRAY(SELECT DISTINCT r FROM unnest(ARRAY[i, i / 2, i - 1 - i % 17]) AS r
		WHERE r > 0))))
FROM generate_series(1, 400) AS i;

-- nobody holds anything
SELECT * FROM usage();
SELECT * FROM stat_usage;
SELECT sample_usage(), reset_usage();

-- twelve owners, more than a byte has marks; some with environments
SELECT count(pin('pin ' || i, pg_temp.path(i * 7919 % 400 + 1),
	owner => 'owner ' || i % 12,
	environment => CASE WHEN i % 4 = 0 THEN 'environment ' || i % 3 END))
FROM generate_series(1, 40) AS i;
SELECT pin('wanted', pg_temp.path(1000), owner => 'waits', wanted => true);
SELECT add_root_source('source', format('SELECT %L', pg_temp.path(400)));
UPDATE root_source SET owner = session_user, environment = 'source';

-- the same by a query
CREATE VIEW public.counted AS
	WITH RECURSIVE held (owner, environment, hash) AS (
		SELECT owner, environment, hash FROM roots WHERE cache = 'main'
		UNION
		SELECT h.owner, h.environment, r
		FROM held AS h JOIN valid_path AS v
				ON v.cache = 'main' AND v.hash = h.hash
			CROSS JOIN unnest(ref_hashes(v.info)) AS r),
	alone AS (
		SELECT hash FROM held GROUP BY hash HAVING count(*) = 1)
	SELECT owner, environment,
		(SELECT count(*) FROM roots AS r WHERE r.cache = 'main'
			AND r.owner = h.owner
			AND r.environment IS NOT DISTINCT FROM h.environment) AS roots,
		count(v.hash) AS paths, coalesce(sum(nar_size(info)), 0) AS nar_bytes,
		coalesce(sum(file_size(info)), 0) AS file_bytes,
		coalesce(sum(nar_size(info)) FILTER (WHERE a.hash IS NULL), 0) AS shared_nar_bytes,
		coalesce(sum(file_size(info)) FILTER (WHERE a.hash IS NULL), 0) AS shared_file_bytes,
		coalesce(sum(nar_size(info)) FILTER (WHERE a.hash IS NOT NULL), 0) AS only_nar_bytes,
		coalesce(sum(file_size(info)) FILTER (WHERE a.hash IS NOT NULL), 0) AS only_file_bytes
	FROM held AS h
		LEFT JOIN valid_path AS v ON v.cache = 'main' AND v.hash = h.hash
		LEFT JOIN alone AS a ON a.hash = h.hash
	GROUP BY 1, 2;
SELECT count(*), sum(paths) > 100 AS many,
	count(*) FILTER (WHERE shared_nar_bytes > 0) > 8 AS shared,
	count(*) FILTER (WHERE only_nar_bytes > 0) > 8 AS alone
FROM usage();
SELECT count(*) FROM (SELECT * FROM usage() EXCEPT ALL SELECT * FROM counted) AS d;
SELECT count(*) FROM (SELECT * FROM counted EXCEPT ALL SELECT * FROM usage()) AS d;
SELECT owner, roots, paths, nar_bytes FROM usage() WHERE owner = 'waits';
SELECT environment, roots, paths > 1 AS paths FROM usage()
WHERE owner = session_user;
SELECT count(*) FROM stat_usage WHERE byte_days IS NOT NULL;

-- byte-days: what was there at a sample counts until the next
DELETE FROM root;
DELETE FROM root_source;
SELECT pin('x', pg_temp.path(1), owner => 'team'),
	pin('y', pg_temp.path(3), owner => 'other', environment => 'e');
SELECT owner, environment, paths, nar_bytes, only_nar_bytes, byte_days FROM stat_usage;
SELECT sample_usage();
SELECT owner, nar_bytes, byte_days FROM usage_sample ORDER BY owner;
UPDATE usage_sample SET since = since - interval '10 days',
	sampled = sampled - interval '10 days';
SELECT owner, environment, round(byte_days, 2), now() - since > interval '10 days' AS since
FROM stat_usage ORDER BY owner;
SELECT pin('x', pg_temp.path(2), owner => 'team'), unpin('y');
SELECT sample_usage();
UPDATE usage_sample SET sampled = sampled - interval '1 day';
SELECT owner, environment, paths, nar_bytes, round(byte_days, 2) AS byte_days
FROM stat_usage ORDER BY owner;
SELECT reset_usage('team');
SELECT owner, round(byte_days, 2) AS byte_days, now() - since < interval '1 day' AS since
FROM stat_usage ORDER BY owner;
SELECT reset_usage(environment => ''), reset_usage(environment => 'e'),
	reset_usage('nobody');
SELECT owner, round(byte_days, 2) AS byte_days FROM stat_usage;
SELECT last_event() AS before \gset
SELECT sample_usage();
SELECT last_event() - :before AS events;

-- a source that fails
\set SHOW_CONTEXT never
SELECT add_root_source('fails', 'SELECT path FROM narinfo.root');
UPDATE root_source SET query = 'SELECT 1';
SELECT * FROM stat_usage;
SELECT sample_usage();
SELECT drop_root_source('fails');
SELECT * FROM usage('nope');

-- who may
CREATE ROLE usage_reader IN ROLE narinfo_reader;
SET ROLE usage_reader;
SELECT count(*) FROM stat_usage;
SELECT sample_usage();
SELECT reset_usage();
RESET ROLE;
DROP ROLE usage_reader;

-- it goes with its cache
SELECT create_cache('gone');
INSERT INTO valid_path (cache, info)
SELECT 'gone', info FROM valid_path WHERE hash = store_hash(pg_temp.path(1));
SELECT pin('x', pg_temp.path(1), cache => 'gone'), sample_usage('gone');
SELECT drop_cache('gone');
SELECT count(*) FROM usage_sample WHERE cache = 'gone';
DROP VIEW public.counted;
