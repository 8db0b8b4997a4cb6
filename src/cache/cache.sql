--
-- Caches, and the paths that are valid in them.
--
-- The script inserts no row: rows on both sides would break the initial copy
-- of a replica, and restores.
--
CREATE TYPE visibility AS ENUM ('public', 'private');

COMMENT ON TYPE visibility IS
'who may read a cache: everybody, or the holders of a token';

CREATE TYPE divergence_action AS ENUM ('refuse', 'keep', 'replace');

COMMENT ON TYPE divergence_action IS
'what a cache does with a narinfo of a path that is valid with another NarHash';

CREATE FUNCTION is_cache_name(text) RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION is_cache_name(text) IS
'whether a cache may be called so: 1 to 63 of [a-z0-9_-], the first and the last of [a-z0-9], and not the beginning of another URL';

CREATE FUNCTION default_cache() RETURNS text
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE PARALLEL SAFE;

COMMENT ON FUNCTION default_cache() IS
'the cache that is meant when none is named: the setting pg_narinfo.cache';

CREATE TABLE cache (
	name text COLLATE "C" PRIMARY KEY,
	store_dir text NOT NULL DEFAULT '/nix/store',
	priority integer NOT NULL DEFAULT 40,
	want_mass_query boolean NOT NULL DEFAULT true,
	visibility visibility NOT NULL DEFAULT 'public',
	require_closure boolean NOT NULL DEFAULT true,
	min_signatures integer NOT NULL DEFAULT 0,
	on_divergence divergence_action NOT NULL DEFAULT 'refuse',
	filter text,
	hook text,
	CONSTRAINT cache_name_valid CHECK (is_cache_name(name)),
	CONSTRAINT cache_store_dir_valid CHECK (is_store_dir(store_dir)),
	CONSTRAINT cache_priority_valid CHECK (priority >= 0),
	CONSTRAINT cache_min_signatures_valid CHECK (min_signatures >= 0),
	CONSTRAINT cache_filter_valid CHECK (octet_length(filter) BETWEEN 1 AND 255),
	CONSTRAINT cache_hook_valid CHECK (octet_length(hook) BETWEEN 1 AND 255)
);

COMMENT ON TABLE cache IS
'binary caches of this database; "main" is there without its row, with the defaults, and gets it by the first write';
COMMENT ON COLUMN cache.name IS
'1 to 63 of [a-z0-9_-]; first part of the URLs of every cache but the default one';
COMMENT ON COLUMN cache.store_dir IS
'directory of the store paths in it';
COMMENT ON COLUMN cache.priority IS
'Priority of nix-cache-info: nix asks caches with a lower number first';
COMMENT ON COLUMN cache.want_mass_query IS
'WantMassQuery of nix-cache-info: whether nix may ask for many paths at once';
COMMENT ON COLUMN cache.visibility IS
'who may read it';
COMMENT ON COLUMN cache.require_closure IS
'whether a path may be valid only while all its references are';
COMMENT ON COLUMN cache.min_signatures IS
'how many of the trusted keys must have signed what is published';
COMMENT ON COLUMN cache.on_divergence IS
'what to do with another NarHash of a valid path: refuse it, keep the first, or replace it';
COMMENT ON COLUMN cache.filter IS
'name of a function (narinfo, text) that returns whether a narinfo may enter this cache';
COMMENT ON COLUMN cache.hook IS
'name of a function (text, bigint, bigint) that is called with the cache and the first and last number of the events of a transaction, before it commits';

-- No foreign key to cache, no edge table: see the design of the gate.
CREATE TABLE valid_path (
	cache text COLLATE "C" NOT NULL DEFAULT default_cache(),
	hash store_hash NOT NULL,
	info narinfo NOT NULL,
	registered timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (cache, hash),
	CONSTRAINT valid_path_hash_matches CHECK (hash = store_hash(info))
);

COMMENT ON TABLE valid_path IS
'the narinfos of each cache, one a store path';
COMMENT ON COLUMN valid_path.cache IS
'name of the cache';
COMMENT ON COLUMN valid_path.hash IS
'hash part of the store path; filled in from info when it is left out';
COMMENT ON COLUMN valid_path.info IS
'the narinfo';
COMMENT ON COLUMN valid_path.registered IS
'when the path became valid in this cache';

CREATE FUNCTION valid_path_fill_hash() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION valid_path_fill_hash() IS
'trigger that fills in valid_path.hash from info';

CREATE TRIGGER fill_hash BEFORE INSERT ON valid_path
	FOR EACH ROW EXECUTE FUNCTION valid_path_fill_hash();

-- Every process remembers the rows of cache; this tells them to forget.  It
-- also fires where a change is replicated.
CREATE FUNCTION cache_changed() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION cache_changed() IS
'trigger that makes every process read the rows of cache again';

CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON cache
	FOR EACH ROW EXECUTE FUNCTION cache_changed();

ALTER TABLE cache ENABLE ALWAYS TRIGGER changed;

-- import and export
CREATE TABLE import_error (
	cache text COLLATE "C" NOT NULL,
	directory text NOT NULL,
	file text NOT NULL,
	line integer,
	field text,
	message text NOT NULL,
	at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE import_error IS
'files that the last import_cache of each directory left out, and why';
COMMENT ON COLUMN import_error.cache IS
'name of the cache';
COMMENT ON COLUMN import_error.directory IS
'directory that was imported';
COMMENT ON COLUMN import_error.file IS
'file, relative to the directory';
COMMENT ON COLUMN import_error.line IS
'line of the file, 1 for the first, where one is to blame';
COMMENT ON COLUMN import_error.field IS
'field of the narinfo, where one is to blame';
COMMENT ON COLUMN import_error.message IS
'what is wrong';
COMMENT ON COLUMN import_error.at IS
'when it was found';

CREATE INDEX import_error_directory ON import_error (cache, directory);

CREATE PROCEDURE import_cache(directory text, cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE import_cache(text, text) IS
'reads every narinfo of a directory on the server, in the layout of Nix (HASH.narinfo) or guix publish (COMPRESSION/HASH-NAME.narinfo), into a cache; commits on its way, and is called again to go on; needs pg_read_server_files, and INSERT and SELECT on valid_path';

CREATE PROCEDURE export_cache(directory text, cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE export_cache(text, text) IS
'writes every narinfo of a cache, as of one moment, to HASH.narinfo in a directory on the server, byte for byte, and its nix-cache-info; files that are right already are left alone; needs pg_write_server_files, and SELECT on valid_path';

REVOKE ALL ON PROCEDURE import_cache(text, text), export_cache(text, text)
	FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE import_cache(text, text) TO pg_read_server_files;
GRANT EXECUTE ON PROCEDURE export_cache(text, text) TO pg_write_server_files;
GRANT SELECT ON import_error TO pg_read_server_files;

-- The parameters are those of src/cache/progress.c, one higher.
CREATE VIEW stat_progress AS
	SELECT p.pid,
		a.usename,
		CASE p.param11 WHEN 1 THEN 'import_cache' WHEN 2 THEN 'export_cache'
			END AS command,
		CASE p.param12 WHEN 1 THEN 'reading' WHEN 2 THEN 'writing' END
			AS phase,
		p.param13 AS done,
		nullif(p.param14, 0) AS total,
		p.param3 AS narinfos,
		p.param15 AS unchanged,
		p.param4 AS left_out,
		a.query_start AS started,
		a.query
	FROM pg_catalog.pg_stat_get_progress_info('COPY') AS p
		LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
	WHERE p.relid = 'valid_path'::regclass AND p.param11 > 0;

COMMENT ON VIEW stat_progress IS
'procedures that run now: what they do and how far they are';
COMMENT ON COLUMN stat_progress.pid IS 'process';
COMMENT ON COLUMN stat_progress.usename IS 'user';
COMMENT ON COLUMN stat_progress.command IS 'import_cache or export_cache';
COMMENT ON COLUMN stat_progress.phase IS 'reading files, or writing narinfos';
COMMENT ON COLUMN stat_progress.done IS 'files read, or narinfos written, in this phase';
COMMENT ON COLUMN stat_progress.total IS 'of how many, where that is known';
COMMENT ON COLUMN stat_progress.narinfos IS 'narinfos that went in or out';
COMMENT ON COLUMN stat_progress.unchanged IS 'narinfos that were there already';
COMMENT ON COLUMN stat_progress.left_out IS 'files that were left out, see import_error';
COMMENT ON COLUMN stat_progress.started IS 'when it was called';
COMMENT ON COLUMN stat_progress.query IS 'the call';

SELECT pg_catalog.pg_extension_config_dump('cache', '');
SELECT pg_catalog.pg_extension_config_dump('valid_path', '');
