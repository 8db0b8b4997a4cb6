--
-- store_path: DIRECTORY/HASH-NAME, ordered by hash, then name
--
SET search_path = narinfo, public;

CREATE TEMP TABLE good (path store_path);
INSERT INTO good VALUES
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/gnu/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-hello-2.12.1'),
	('/opt/odd+dir/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-+._?=-9Z'),
	('/s/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-.a'),
	('/s/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-..a'),
	('/s/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-...'),
	('/s/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx--');
SELECT store_hash(path), store_dir(path), store_name(path), base_name(path),
	path
FROM good;
-- the longest
SELECT length(path::text), length(store_name(path)), length(store_dir(path))
FROM (SELECT ('/' || repeat('d', 254)
	|| '/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || repeat('n', 211))::store_path
	AS path) AS longest;

CREATE FUNCTION pg_temp.refused(value text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
	RETURN format('accepted: %s', value::narinfo.store_path);
EXCEPTION WHEN OTHERS THEN
	RETURN format('%s %s', SQLSTATE, SQLERRM);
END
$$;

SELECT replace(replace(replace(value, 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx',
	'HASH'), repeat('n', 212), 'n*212'), E'\303\244', 'UMLAUT') AS value,
	pg_temp.refused(value)
FROM (VALUES (''), ('/'), ('gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix//store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/./store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/../store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mxa-a'),
	('/nix/store/er3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/GR3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a/b'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a/'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a b'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a!b'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a' || E'\303\244'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a' || chr(10)),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-.'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-..'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-.-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-..-a'),
	('/nix store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || repeat('n', 212))
) AS t (value);
SELECT pg_temp.refused('/' || repeat('d', 255)
	|| '/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-n');
SELECT store_path '/nix/store/nonsense';

-- directories
SELECT dir, is_store_dir(dir)
FROM (VALUES ('/nix/store'), ('/gnu/store'), ('/s'), ('/'), (''), ('s'),
	('/nix/store/'), ('//s'), ('/s/..'), ('/s/.'), ('/s/...'), ('/a b'),
	('/a' || chr(10)), (NULL)) AS t (dir);
SELECT is_store_dir(E'/\303\244'), is_store_dir('/' || repeat('d', 254)),
	is_store_dir('/' || repeat('d', 255));

-- operators: hash, then name, then directory
SELECT row_number() OVER () AS row, a < b AS lt, a <= b AS le, a = b AS eq,
	a <> b AS ne, a >= b AS ge, a > b AS gt, store_path_cmp(a, b) AS cmp
FROM (VALUES
	(store_path '/nix/store/0r3jxf1l9gnghmbkmfc1x3pr7j6198mx-b',
	 store_path '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
	 '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-b',
	 '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
	 '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-aa'),
	('/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
	 '/gnu/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/a/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
	 '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'),
	('/a/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-b',
	 '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a')
) AS t (a, b);

-- casts
SELECT '/nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a'::text::store_path::text;
CREATE TEMP TABLE assigned (t text, h store_hash);
INSERT INTO assigned
	SELECT path, path FROM good WHERE store_dir(path) = '/gnu/store';
SELECT * FROM assigned;

-- many: of each hash four, that differ in name or directory
CREATE TABLE store_paths AS
	SELECT i, ((ARRAY['/nix/store', '/gnu/store', '/a', '/zz'])[1 + i % 4]
		|| '/' || translate(md5((i / 4)::text), 'e', 'z') || '-'
		|| (ARRAY['a', 'a', 'a-1', 'B'])[1 + i / 2 % 4])::store_path AS path
	FROM generate_series(0, 19999) AS i;
INSERT INTO store_paths SELECT i + 20000, path FROM store_paths
	WHERE i < 5000;
ANALYZE store_paths;

SELECT count(*), count(DISTINCT path), count(DISTINCT path::text),
	count(DISTINCT store_hash(path))
FROM store_paths;

SET work_mem = '64kB';
SELECT array_agg(i ORDER BY path, i)
	= array_agg(i ORDER BY store_hash(path)::text COLLATE "C",
		store_name(path) COLLATE "C", store_dir(path) COLLATE "C", i)
	AS sorted,
	array_agg(i ORDER BY path DESC, i)
	= array_agg(i ORDER BY store_hash(path)::text COLLATE "C" DESC,
		store_name(path) COLLATE "C" DESC,
		store_dir(path) COLLATE "C" DESC, i) AS backwards
FROM store_paths;
RESET work_mem;

SELECT count(*) AS wrong FROM store_paths
WHERE store_path_hash(path)::bigint & 4294967295
	<> store_path_hash_extended(path, 0) & 4294967295
	OR store_path_hash_extended(path, 1) = store_path_hash_extended(path, 0);
SELECT count(DISTINCT store_path_hash_extended(path, 0)) AS without,
	count(DISTINCT store_path_hash_extended(path, -7)) AS seeded
FROM store_paths;

-- indexes
CREATE INDEX store_paths_btree ON store_paths (path);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT i FROM store_paths
	WHERE path = ('/nix/store/' || translate(md5('2'), 'e', 'z') || '-a')
		::store_path;
SELECT i, store_name(path) FROM store_paths
	WHERE path = ('/nix/store/' || translate(md5('2'), 'e', 'z') || '-a')
		::store_path
	ORDER BY i;
DROP INDEX store_paths_btree;
CREATE INDEX store_paths_hash ON store_paths USING hash (path);
EXPLAIN (COSTS OFF) SELECT i FROM store_paths
	WHERE path = ('/nix/store/' || translate(md5('2'), 'e', 'z') || '-a')
		::store_path;
SELECT i FROM store_paths
	WHERE path = ('/nix/store/' || translate(md5('2'), 'e', 'z') || '-a')
		::store_path
	ORDER BY i;
DROP INDEX store_paths_hash;
RESET enable_seqscan;
RESET enable_bitmapscan;

SET enable_nestloop = off;
SET enable_mergejoin = off;
EXPLAIN (COSTS OFF) SELECT count(*)
	FROM store_paths AS a JOIN store_paths AS b USING (path);
SELECT count(*) FROM store_paths AS a JOIN store_paths AS b USING (path);
SET enable_hashjoin = off;
SET enable_mergejoin = on;
SELECT count(*) FROM store_paths AS a JOIN store_paths AS b USING (path);
RESET enable_hashjoin;
RESET enable_nestloop;

-- binary: the text
SELECT convert_from(store_path_send(path), 'UTF8') = path::text AS text
FROM good;
CREATE TABLE store_paths_again (LIKE store_paths);
\copy store_paths to program 'cat >"$PG_ABS_BUILDDIR/results/store_path.bin"' with (format binary)
\copy store_paths_again from program 'cat "$PG_ABS_BUILDDIR/results/store_path.bin"' with (format binary)
SELECT count(*), count(*) FILTER (WHERE a.path = b.path
	AND a.path::text = b.path::text) AS same
FROM store_paths AS a JOIN store_paths_again AS b USING (i);
DROP TABLE store_paths_again, store_paths;
