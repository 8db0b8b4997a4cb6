-- The queue of files: what enters it, and with which time; no file is there.
SET search_path = narinfo, public;
\set VERBOSITY terse
-- a narinfo of path number n, with these URLs
CREATE FUNCTION pg_temp.made(n int, VARIADIC urls text[]) RETURNS narinfo
	LANGUAGE sql AS $$
	SELECT format(E'StorePath: /%s/store/%s-p%s\n%sNarHash: sha256:%s\nNarSize: 9\nReferences: \n%s',
		CASE WHEN cardinality(urls) > 1 THEN 'gnu' ELSE 'nix' END,
		lpad(n::text, 32, '0'), n,
		(SELECT string_agg(format(E'URL: %s\nCompression: none\nFileSize: %s\n',
			u, 10 * i), '' ORDER BY i)
			FROM unnest(urls) WITH ORDINALITY AS x (u, i)),
		repeat('0', 52),
		CASE WHEN cardinality(urls) > 1
			THEN E'Signature: 1;host;KA==\n' ELSE '' END)::narinfo
$$;
BEGIN;
SELECT create_cache('a', require_closure => false),
	create_cache('g', '/gnu/store');
SELECT publish(pg_temp.made(1, 'nar/1.nar'), 'a'),
	publish(pg_temp.made(2, 'nar/%32+2.nar'), 'a'),
	publish(pg_temp.made(3, 'nar/3?3.nar'), 'a'),
	publish(pg_temp.made(4, 'https://example.org/nar/4.nar'), 'a'),
	publish(pg_temp.made(5, 'nar/../5.nar'), 'a'),
	publish(pg_temp.made(6, 'nar/.incoming/6.nar'), 'a'),
	publish(pg_temp.made(7, 'nar/6.nar'), 'a'),
	publish(pg_temp.made(8, 'nar/gzip/8', 'nar/lzip/8'), 'g');
SELECT count(*) FROM file_removal;
-- nothing that could lead elsewhere enters it
DELETE FROM valid_path WHERE cache IN ('a', 'g') AND hash <> '00000000000000000000000000000007';
SELECT cache, path, hash, bytes, since BETWEEN now() AND clock_timestamp() AS now
	FROM file_removal ORDER BY 1, 2;
DELETE FROM file_removal;
-- another URL, and the same one with another signature
UPDATE valid_path SET info = pg_temp.made(7, 'nar/7.nar') WHERE cache = 'a';
UPDATE valid_path SET info = (rtrim(info::text, E'\n') || E'\nSig: k:' || repeat('A', 86) || E'==\n')::narinfo
	WHERE cache = 'a';
SELECT path, bytes FROM file_removal;
-- trash: from when on it was there; but a later time is not made earlier
SELECT retract(ARRAY[store_path(info)], false, 'a') FROM valid_path WHERE cache = 'a';
UPDATE trash SET removed = now() - interval '9 days' WHERE cache = 'a';
DELETE FROM file_removal WHERE path = 'nar/6.nar';
UPDATE file_removal SET since = now() - interval '10 days';
DELETE FROM trash WHERE cache = 'a';
SELECT path, now() - since AS age FROM file_removal;
SELECT publish(pg_temp.made(7, 'nar/7.nar'), 'a');
DELETE FROM valid_path WHERE cache = 'a';
SELECT path, since >= now() AS now FROM file_removal;
UPDATE file_removal SET since = now() - interval '40 days';
SELECT cache, queued, queued_bytes, due, next_due < now() AS past, removed FROM stat_files;
ROLLBACK;
-- where replication applies changes, no other trigger fires
BEGIN;
SELECT create_cache('a'), publish(pg_temp.made(1, 'nar/1.nar'), 'a');
SET LOCAL session_replication_role = replica;
DELETE FROM valid_path WHERE cache = 'a';
SELECT cache, path, bytes FROM file_removal;
ROLLBACK;
-- drop_cache queues what was in the cache
BEGIN;
SELECT create_cache('a'), publish(pg_temp.made(1, 'nar/1.nar'), 'a');
SELECT drop_cache('a');
SELECT cache, path, bytes FROM file_removal;
ROLLBACK;
-- without a root, nothing is removed or checked
SELECT current_setting('pg_narinfo.file_root') = '' AS no_root;
CALL remove_files();
SELECT check_files();
SELECT stored_size('nar/x', 'none');
SELECT mend_files('{unheard-of}');
SELECT mend_files(cache => 'main');
-- a trigger function
CREATE TEMP TABLE t (i int);
CREATE TRIGGER q BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION removal_queue();
INSERT INTO t VALUES (1);
