--
-- Roots: the paths that somebody wants to stay, with all that they need.
--
CREATE TABLE root (
	cache text COLLATE "C" NOT NULL DEFAULT default_cache(),
	name text COLLATE "C" NOT NULL,
	generation integer NOT NULL DEFAULT 1,
	path store_path NOT NULL,
	owner text COLLATE "C" NOT NULL DEFAULT outer_user(),
	environment text COLLATE "C",
	pinned_at timestamptz NOT NULL DEFAULT now(),
	expires timestamptz,
	wanted boolean NOT NULL DEFAULT false,
	keep_last integer,
	keep_for interval,
	PRIMARY KEY (cache, name, generation, path),
	CONSTRAINT root_name_valid CHECK (octet_length(name) BETWEEN 1 AND 255
		AND name !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT root_generation_valid CHECK (generation > 0),
	CONSTRAINT root_owner_valid CHECK (octet_length(owner) BETWEEN 1 AND 128
		AND owner !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT root_environment_valid CHECK
		(octet_length(environment) BETWEEN 1 AND 128
		AND environment !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT root_keep_last_valid CHECK (keep_last > 0),
	CONSTRAINT root_keep_for_valid CHECK
		(keep_for > '0' AND keep_for <= '1000 years')
);

COMMENT ON TABLE root IS
'pins: paths that are to stay, with all that they need, in generations under a name; root_status tells which of them count';
COMMENT ON COLUMN root.cache IS 'name of the cache';
COMMENT ON COLUMN root.name IS
'what was pinned, 1 to 255 bytes, such as a branch, a release or a machine';
COMMENT ON COLUMN root.generation IS
'number of the generation under this name: one more than the newest that was there';
COMMENT ON COLUMN root.path IS 'the path; a generation may have several';
COMMENT ON COLUMN root.owner IS
'who wants it: a role, or whatever name an administrator gives; quotas and usage are told by it';
COMMENT ON COLUMN root.environment IS
'what it is wanted for, such as production; NULL: not said';
COMMENT ON COLUMN root.pinned_at IS 'when the generation was made';
COMMENT ON COLUMN root.expires IS
'from when on it counts no more; NULL: never';
COMMENT ON COLUMN root.wanted IS
'whether the pin may stand while the path is not valid; it counts when it comes';
COMMENT ON COLUMN root.keep_last IS
'of the newest generation: the last so many of this name stay';
COMMENT ON COLUMN root.keep_for IS
'of the newest generation: those that are younger than this stay';

-- A cache has one path of a hash; also how a root is found by its hash.
CREATE UNIQUE INDEX root_hash
	ON root (cache, store_hash(path), name, generation);

CREATE TYPE root_source_kind AS ENUM ('query', 'content_addressed', 'like',
	'regex');

COMMENT ON TYPE root_source_kind IS
'where roots come from: a query of the application; all valid paths that are content-addressed; those whose name (without the hash) is LIKE a pattern, or matches a regular expression';

CREATE TABLE root_source (
	cache text COLLATE "C" NOT NULL DEFAULT default_cache(),
	name text COLLATE "C" NOT NULL,
	kind root_source_kind NOT NULL DEFAULT 'query',
	query text,
	owner text COLLATE "C" NOT NULL DEFAULT outer_user(),
	environment text COLLATE "C",
	added timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (cache, name),
	CONSTRAINT root_source_name_valid CHECK
		(octet_length(name) BETWEEN 1 AND 255
		AND name !~ '[\x01-\x1f\x7f]'),
	CONSTRAINT root_source_query_valid CHECK
		((kind = 'content_addressed') = (query IS NULL)),
	CONSTRAINT root_source_environment_valid CHECK
		(octet_length(environment) BETWEEN 1 AND 128
		AND environment !~ '[\x01-\x1f\x7f]')
);

COMMENT ON TABLE root_source IS
'where further roots come from: queries of the application, and predicates over the valid paths; asked whenever roots are';
COMMENT ON COLUMN root_source.cache IS 'name of the cache';
COMMENT ON COLUMN root_source.name IS 'what it is called, 1 to 255 bytes';
COMMENT ON COLUMN root_source.kind IS 'query, or which predicate';
COMMENT ON COLUMN root_source.query IS
'the query, the LIKE pattern or the regular expression; NULL for content_addressed';
COMMENT ON COLUMN root_source.owner IS
'the role that added it, with whose rights a query runs';
COMMENT ON COLUMN root_source.environment IS
'what its roots are wanted for; NULL: not said';
COMMENT ON COLUMN root_source.added IS 'when it was added';

CREATE TABLE quota (
	cache text COLLATE "C" NOT NULL DEFAULT default_cache(),
	owner text COLLATE "C" NOT NULL,
	environment text COLLATE "C" NOT NULL,
	max_bytes bigint NOT NULL,
	PRIMARY KEY (cache, owner, environment),
	CONSTRAINT quota_max_bytes_valid CHECK (max_bytes >= 0)
);

COMMENT ON TABLE quota IS
'how much pins may hold';
COMMENT ON COLUMN quota.cache IS 'name of the cache';
COMMENT ON COLUMN quota.owner IS 'owner of the pins; empty: whoever it is';
COMMENT ON COLUMN quota.environment IS
'environment of the pins; empty: whichever it is';
COMMENT ON COLUMN quota.max_bytes IS
'at most so many bytes (NarSize) may the pins need that count, each path once';

SELECT gate_table(t)
FROM unnest(ARRAY['root', 'root_source', 'quota']::regclass[]) AS t;

SELECT pg_catalog.pg_extension_config_dump('root', '');
SELECT pg_catalog.pg_extension_config_dump('root_source', '');
SELECT pg_catalog.pg_extension_config_dump('quota', '');

-- ---- what counts: src/graph/root.c reads this view

CREATE VIEW root_status AS
	SELECT g.cache, g.name, g.generation, g.path, g.owner, g.environment,
		g.pinned_at, g.expires, g.wanted, g.keep_last, g.keep_for,
		(g.expires IS NULL OR g.expires > now())
			AND (g.rank = 1
				OR (g.rule_last IS NULL AND g.rule_for IS NULL)
				OR (g.rule_last IS NOT NULL AND g.rank <= g.rule_last)
				OR (g.rule_for IS NOT NULL
					AND g.made_at > now() - g.rule_for)) AS counts
	FROM (SELECT r.*,
			-- of the generation: rows with the same number
			max(r.pinned_at) OVER (PARTITION BY r.cache, r.name
				ORDER BY r.generation DESC
				RANGE BETWEEN CURRENT ROW AND CURRENT ROW) AS made_at,
			dense_rank() OVER (PARTITION BY r.cache, r.name
				ORDER BY r.generation DESC) AS rank,
			first_value(r.keep_last) OVER newest AS rule_last,
			first_value(r.keep_for) OVER newest AS rule_for
		FROM root AS r
		WINDOW newest AS (PARTITION BY r.cache, r.name
			ORDER BY r.generation DESC, r.path)) AS g;

COMMENT ON VIEW root_status IS
'every pin, and whether it counts: it has not expired, and it is of the newest generation of its name or of one that stays by the rule of the newest (keep_last, keep_for; without a rule all stay)';
COMMENT ON COLUMN root_status.cache IS 'name of the cache';
COMMENT ON COLUMN root_status.name IS 'what was pinned';
COMMENT ON COLUMN root_status.generation IS 'number of the generation';
COMMENT ON COLUMN root_status.path IS 'the path';
COMMENT ON COLUMN root_status.owner IS 'who wants it';
COMMENT ON COLUMN root_status.environment IS 'what it is wanted for';
COMMENT ON COLUMN root_status.pinned_at IS 'when the generation was made';
COMMENT ON COLUMN root_status.expires IS 'from when on it counts no more';
COMMENT ON COLUMN root_status.wanted IS
'whether the pin may stand while the path is not valid';
COMMENT ON COLUMN root_status.keep_last IS
'how many generations stay, when this is the newest';
COMMENT ON COLUMN root_status.keep_for IS
'how long generations stay, when this is the newest';
COMMENT ON COLUMN root_status.counts IS
'whether it is a root; if not it will be removed';

CREATE VIEW root_missing AS
	SELECT s.cache, s.name, s.generation, s.path, s.owner, s.environment,
		s.wanted, s.pinned_at
	FROM root_status AS s
	WHERE s.counts AND NOT EXISTS (SELECT FROM valid_path AS v
		WHERE v.cache = s.cache AND v.hash = store_hash(s.path));

COMMENT ON VIEW root_missing IS
'pins that count and whose path is not valid: those that are wanted, and those whose path was taken out';
COMMENT ON COLUMN root_missing.cache IS 'name of the cache';
COMMENT ON COLUMN root_missing.name IS 'what was pinned';
COMMENT ON COLUMN root_missing.generation IS 'number of the generation';
COMMENT ON COLUMN root_missing.path IS 'the path';
COMMENT ON COLUMN root_missing.owner IS 'who wants it';
COMMENT ON COLUMN root_missing.environment IS 'what it is wanted for';
COMMENT ON COLUMN root_missing.wanted IS
'whether it was pinned as wanted; if not it was valid once, and was taken out';
COMMENT ON COLUMN root_missing.pinned_at IS 'when it was pinned';

CREATE FUNCTION root_source_hashes(name text,
		cache text DEFAULT default_cache())
	RETURNS SETOF store_hash
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	COST 10000 ROWS 1000;

COMMENT ON FUNCTION root_source_hashes(text, text) IS
'the hash parts of the paths that a source of roots names now, in their order, each once; fails with NI007 when the source does';

CREATE VIEW roots AS
	SELECT s.cache, s.name, 'pin' AS kind, s.owner, s.environment,
		s.generation, store_hash(s.path) AS hash, s.path
	FROM root_status AS s
	WHERE s.counts
	UNION ALL
	SELECT s.cache, s.name, s.kind::text, s.owner, s.environment,
		NULL, h.hash, store_path(v.info)
	FROM root_source AS s
		CROSS JOIN LATERAL root_source_hashes(s.name, s.cache) AS h (hash)
		LEFT JOIN valid_path AS v ON v.cache = s.cache AND v.hash = h.hash;

COMMENT ON VIEW roots IS
'all that is a root now: the pins that count, and what each source names; fails with NI007 when a source does';
COMMENT ON COLUMN roots.cache IS 'name of the cache';
COMMENT ON COLUMN roots.name IS 'name of the pin or source';
COMMENT ON COLUMN roots.kind IS 'pin, or the kind of the source';
COMMENT ON COLUMN roots.owner IS 'who wants it, or has added the source';
COMMENT ON COLUMN roots.environment IS 'what it is wanted for';
COMMENT ON COLUMN roots.generation IS 'generation of a pin';
COMMENT ON COLUMN roots.hash IS 'hash part of the path';
COMMENT ON COLUMN roots.path IS
'the path; NULL where a source names what is not valid';

CREATE FUNCTION root_hashes(cache text DEFAULT default_cache(),
		OUT hash store_hash, OUT name text)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	COST 10000 ROWS 1000;

COMMENT ON FUNCTION root_hashes(text) IS
'the hash part of each root of a cache with the name of the pin or source, in their order, as collecting takes them; fails with NI007 when a source does';

-- ---- pins: src/graph/root_pin.c

CREATE FUNCTION pin(
		name text,
		path store_path DEFAULT NULL,
		owner text DEFAULT outer_user(),
		environment text DEFAULT NULL,
		expires timestamptz DEFAULT NULL,
		wanted boolean DEFAULT false,
		keep_last integer DEFAULT NULL,
		keep_for interval DEFAULT NULL,
		paths store_path[] DEFAULT NULL,
		cache text DEFAULT default_cache())
	RETURNS integer
	AS 'MODULE_PATHNAME', 'root_pin'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION pin(text, store_path, text, text, timestamptz, boolean, integer, interval, store_path[], text) IS
'makes a path, or several, the newest generation of a name, or gives the newest these attributes when it has exactly these paths; its number. A path that is not valid is refused with NI004, unless it may be wanted. All generations stay, unless keep_last or keep_for says which; an expired one does not';

CREATE FUNCTION pin_file(
		name text,
		file_text text,
		owner text DEFAULT outer_user(),
		environment text DEFAULT NULL,
		expires timestamptz DEFAULT NULL,
		wanted boolean DEFAULT false,
		keep_last integer DEFAULT NULL,
		keep_for interval DEFAULT NULL,
		cache text DEFAULT default_cache())
	RETURNS integer
	AS 'MODULE_PATHNAME', 'root_pin_file'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION pin_file(text, text, text, text, timestamptz, boolean, integer, interval, text) IS
'pins the paths of a text as one generation: one full store path a line, such as the store-paths of a release; empty lines are passed over';

CREATE FUNCTION unpin(
		name text,
		generation integer DEFAULT NULL,
		path store_path DEFAULT NULL,
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'root_unpin'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION unpin(text, integer, store_path, text) IS
'removes the pins of a name: all, or those of one generation, or of one path, or both; how many rows of root';

-- ---- sources: src/graph/root_source.c

CREATE FUNCTION add_root_source(
		name text,
		query text DEFAULT NULL,
		kind root_source_kind DEFAULT 'query',
		environment text DEFAULT NULL,
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION add_root_source(text, text, root_source_kind, text, text) IS
'makes what a query returns roots of a cache: one column of store_path, store_hash, or text of either or of a base name. It runs with the rights of the role that adds it, read-only, with search_path pg_catalog, narinfo. With another kind, query is a pattern, or NULL. It is asked at once; how many roots it has now';

CREATE FUNCTION drop_root_source(name text,
		cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION drop_root_source(text, text) IS
'removes a source of roots; false if there is none of this name';

CREATE FUNCTION root_prune(cache text DEFAULT default_cache()) RETURNS bigint
	AS 'MODULE_PATHNAME', 'root_prune_cache'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION root_prune(text) IS
'removes the pins that count no more, as the janitor does, of 200 names at most; how many';

-- ---- quotas: src/graph/root_rule.c

CREATE FUNCTION set_quota(owner text, environment text, max_bytes bigint,
		cache text DEFAULT default_cache())
	RETURNS boolean
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION set_quota(text, text, bigint, text) IS
'how many bytes (NarSize) may be held by the pins of an owner (NULL: of all) in an environment (NULL: in all), each path counted once; a pin beyond that is refused with NI006. NULL bytes: no quota. Whether that changed anything';

REVOKE ALL ON FUNCTION
	pin(text, store_path, text, text, timestamptz, boolean, integer, interval, store_path[], text),
	pin_file(text, text, text, text, timestamptz, boolean, integer, interval, text),
	unpin(text, integer, store_path, text),
	add_root_source(text, text, root_source_kind, text, text),
	drop_root_source(text, text), root_source_hashes(text, text),
	root_hashes(text), root_prune(text), set_quota(text, text, bigint, text)
	FROM PUBLIC;
GRANT SELECT ON root, root_source, quota, root_status, root_missing, roots
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION root_source_hashes(text, text), root_hashes(text)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION
	pin(text, store_path, text, text, timestamptz, boolean, integer, interval, store_path[], text),
	pin_file(text, text, text, text, timestamptz, boolean, integer, interval, text),
	unpin(text, integer, store_path, text)
	TO narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION
	add_root_source(text, text, root_source_kind, text, text),
	drop_root_source(text, text), root_prune(text),
	set_quota(text, text, bigint, text)
	TO narinfo_admin;
