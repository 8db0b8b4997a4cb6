--
-- Caches and valid paths: the tables
--
SET search_path = narinfo, public;

\set info 'StorePath: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\nURL: nar/x.nar\nNarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nNarSize: 5\n'

-- the script inserts no row
SELECT count(*) FROM cache;
SELECT count(*) FROM valid_path;

-- names
SELECT name, is_cache_name(name)
FROM (VALUES ('main'), ('a'), ('0'), ('a-b_c'), ('a--b'), ('nixos-23-11'),
	(''), ('A'), ('-a'), ('a-'), ('_a'),
	('a_'), ('a.b'), ('a/b'), ('a b'), ('..'), ('a%20'), (E'a\n'), ('nar'),
	('log'), ('nix-cache-info'), ('realisations'), ('debuginfo'), ('health'),
	('metrics'), ('api'), ('changes'), ('narinfo'), ('nars'), (NULL)
) AS t (name);
SELECT is_cache_name(repeat('a', 63)), is_cache_name(repeat('a', 64)),
	is_cache_name(E'\303\244');
INSERT INTO cache (name) VALUES ('No');
INSERT INTO cache (name) VALUES ('nar');
INSERT INTO cache (name) VALUES (NULL);

-- what a new cache is
INSERT INTO cache (name) VALUES ('plain') RETURNING *;
INSERT INTO cache (name) VALUES ('plain');
INSERT INTO cache VALUES
	('guix', '/gnu/store', 0, false, 'private', false) RETURNING *;
INSERT INTO cache (name, store_dir) VALUES ('bad', '/nix/store/');
INSERT INTO cache (name, store_dir) VALUES ('bad', 'nix/store');
INSERT INTO cache (name, store_dir) VALUES ('bad', '/');
INSERT INTO cache (name, priority) VALUES ('bad', -1);
INSERT INTO cache (name, visibility) VALUES ('bad', 'secret');
INSERT INTO cache (name, require_closure) VALUES ('bad', NULL);
UPDATE cache SET name = 'log' WHERE name = 'plain';
UPDATE cache SET priority = 30, visibility = 'private' WHERE name = 'plain'
	RETURNING *;
SELECT enum_range(NULL::visibility);

-- the cache that is meant
SELECT default_cache();
SHOW pg_narinfo.cache;
SET pg_narinfo.cache = 'plain';
SELECT default_cache();
SET pg_narinfo.cache = 'No Name';
SET pg_narinfo.cache = 'nar';
SET pg_narinfo.cache = '';
SELECT default_cache();

-- valid paths: the hash is that of the narinfo, and may be left out; the
-- details of errors have the time in them
\set VERBOSITY terse
INSERT INTO valid_path (info) VALUES (:'info')
	RETURNING cache, hash, store_path(info), registered = now() AS now;
RESET pg_narinfo.cache;
INSERT INTO valid_path (info) VALUES (:'info') RETURNING cache, hash;
INSERT INTO valid_path (info) VALUES (:'info');
INSERT INTO valid_path (cache, hash, info)
	VALUES ('guix', 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx', :'info')
	RETURNING cache, hash;
INSERT INTO valid_path (cache, hash, info)
	VALUES ('other', 'hr3jxf1l9gnghmbkmfc1x3pr7j6198mx', :'info')
	RETURNING cache, hash;
UPDATE valid_path SET hash = 'hr3jxf1l9gnghmbkmfc1x3pr7j6198mx';
UPDATE valid_path
	SET info = replace(info::text, '/gr3j', '/hr3j')::narinfo;
UPDATE valid_path SET info = (info::text || E'X: y\n')::narinfo
	WHERE cache = 'plain' RETURNING cache, hash;
INSERT INTO valid_path (hash) VALUES ('gr3jxf1l9gnghmbkmfc1x3pr7j6198mx');
INSERT INTO valid_path (info) VALUES (NULL);
INSERT INTO valid_path (cache, info) VALUES (NULL, :'info');
INSERT INTO valid_path (info) VALUES ('nonsense');

\set VERBOSITY default

-- many in one statement, by COPY too
INSERT INTO cache (name) VALUES ('many'), ('copied');
INSERT INTO valid_path (cache, info)
	SELECT 'many', replace(:'info', 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx',
		translate(md5(i::text), 'e', 'z'))::narinfo
	FROM generate_series(1, 1000) AS i;
COPY valid_path (cache, info) FROM STDIN;
copied	StorePath: /nix/store/gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-a\nURL: nar/x.nar\nNarHash: sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\nNarSize: 5\n
\.
SELECT cache, count(*), bool_and(hash = store_hash(info)) AS right
FROM valid_path GROUP BY cache ORDER BY cache;

-- a path is found by its key
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT info FROM valid_path
	WHERE cache = 'main' AND hash = 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx';
RESET enable_seqscan;
RESET enable_bitmapscan;

-- the trigger functions are nothing to call
SELECT valid_path_fill_hash();
SELECT cache_changed();

-- procedures: not in a transaction, not with anything
CREATE ROLE regress_narinfo_nobody;
BEGIN;
CALL import_cache('/nonexistent');
ROLLBACK;
CALL import_cache('relative/path');
CALL import_cache('/nonexistent');
CALL import_cache('/nonexistent', 'unknown');
CALL import_cache(NULL);
CALL import_cache('/nonexistent', NULL);
CALL export_cache('relative/path');
CALL export_cache('/nonexistent/directory');
CALL export_cache('/nonexistent', 'unknown');
CALL export_cache(NULL);
SET ROLE regress_narinfo_nobody;
CALL narinfo.import_cache('/nonexistent');
SELECT count(*) FROM narinfo.valid_path;
RESET ROLE;
-- with what is needed to call them, but no right to files
GRANT USAGE ON SCHEMA narinfo TO regress_narinfo_nobody;
GRANT EXECUTE ON PROCEDURE import_cache(text, text), export_cache(text, text)
	TO regress_narinfo_nobody;
SET ROLE regress_narinfo_nobody;
CALL import_cache('/nonexistent');
CALL export_cache('/nonexistent');
SELECT count(*) FROM valid_path;
RESET ROLE;
REVOKE EXECUTE ON PROCEDURE import_cache(text, text), export_cache(text, text)
	FROM regress_narinfo_nobody;
SET ROLE regress_narinfo_nobody;
CALL import_cache('/nonexistent');
CALL export_cache('/nonexistent');
RESET ROLE;
-- rights to files bring those to the procedures, and none to the rows
GRANT pg_read_server_files, pg_write_server_files TO regress_narinfo_nobody;
SET ROLE regress_narinfo_nobody;
CALL import_cache('/nonexistent');
CALL export_cache('/nonexistent/directory');
SELECT count(*) FROM valid_path;
INSERT INTO import_error (cache, directory, file, message)
	VALUES ('main', '/', 'x', 'x');
RESET ROLE;
REVOKE ALL ON SCHEMA narinfo FROM regress_narinfo_nobody;
DROP ROLE regress_narinfo_nobody;

-- nothing runs, nothing went wrong so far
SELECT * FROM stat_progress;
SELECT count(*) FROM import_error;

DELETE FROM valid_path;
DELETE FROM cache;

-- rows are dumped, with all their columns
SELECT unnest(extconfig)::regclass, unnest(extcondition) AS condition
FROM pg_extension WHERE extname = 'pg_narinfo' ORDER BY 1;
