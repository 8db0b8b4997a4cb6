--
-- Questions to the graph of a cache.
--
-- What is written in C reads valid_path whoever calls, so it is granted like
-- the table.  Whoever asks the reverse index becomes its owner for that, so
-- operators must be PostgreSQL's own: hence search_path.
--
CREATE FUNCTION locate(what text, cache text,
		OUT hash store_hash, OUT path store_path)
	AS 'MODULE_PATHNAME', 'graph_locate'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION locate(text, text) IS
'what a text means in a cache: a hash part alone, or a path, when the text is HASH-NAME, or a path in a store or below one; fails when it is neither';

CREATE FUNCTION find(what text, cache text DEFAULT default_cache())
	RETURNS TABLE (path store_path, nar_size bigint, file_size bigint,
		refs integer, registered timestamptz)
	LANGUAGE sql STABLE PARALLEL SAFE
	ROWS 1
BEGIN ATOMIC
	SELECT store_path(v.info),
		least(nar_size(v.info), 9223372036854775807)::bigint,
		CASE WHEN file_size(v.info) IS NOT NULL
			THEN least(file_size(v.info), 9223372036854775807) END::bigint,
		cardinality(ref_hashes(v.info)), v.registered
	FROM locate(find.what, find.cache) AS l, valid_path AS v
	WHERE v.cache = find.cache AND v.hash = l.hash
		AND (l.path IS NULL OR store_path(v.info) = l.path);
END;

COMMENT ON FUNCTION find(text, text) IS
'the valid path that is meant by a hash part, by HASH-NAME, or by a path such as /nix/store/HASH-NAME/bin/x: its sizes in bytes, how many references it has, and since when it is valid; no row if it is not. Fails with 22P02 when the text can be no path';

CREATE FUNCTION closure(path store_path, cache text DEFAULT default_cache())
	RETURNS TABLE (path store_path, depth integer, nar_size bigint,
		file_size bigint)
	AS 'MODULE_PATHNAME', 'graph_closure'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 1000 ROWS 200;

COMMENT ON FUNCTION closure(store_path, text) IS
'all that a path needs, nearest first: itself at depth 0, what it refers to at depth 1, and so on; sizes in bytes. What is not valid is left out, so there is no row if the path itself is not';

CREATE FUNCTION closures(paths store_path[],
		cache text DEFAULT default_cache())
	RETURNS TABLE (path store_path, depth integer, nar_size bigint,
		file_size bigint)
	AS 'MODULE_PATHNAME', 'graph_closures'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 1000 ROWS 1000;

COMMENT ON FUNCTION closures(store_path[], text) IS
'all that any of these paths needs, each once, with its least depth; see closure()';

CREATE FUNCTION referrer_closure(path store_path,
		cache text DEFAULT default_cache())
	RETURNS TABLE (path store_path, depth integer, nar_size bigint,
		file_size bigint)
	AS 'MODULE_PATHNAME', 'graph_referrer_closure'
	LANGUAGE C STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	COST 10000 ROWS 1000;

COMMENT ON FUNCTION referrer_closure(store_path, text) IS
'all valid paths that need a path, nearest first: itself, if it is valid, at depth 0, what refers to it at depth 1, and so on; sizes in bytes';

CREATE FUNCTION missing(cache text DEFAULT default_cache())
	RETURNS TABLE (reference store_path, wanted_by store_path)
	AS 'MODULE_PATHNAME', 'graph_missing'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 1000000 ROWS 100;

COMMENT ON FUNCTION missing(text) IS
'the references of valid paths that are not valid themselves, a row for each path that has one; reads the whole cache, with 24 to 50 bytes of memory a path';

CREATE FUNCTION why_depends(a store_path, b store_path,
		cache text DEFAULT default_cache())
	RETURNS TABLE (step integer, path store_path)
	AS 'MODULE_PATHNAME', 'graph_why_depends'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 1000 ROWS 5;

COMMENT ON FUNCTION why_depends(store_path, store_path, text) IS
'why a needs b: a shortest chain of references, from a (step 0) to b; no row if it does not need it. Fails with NI004 when a or b is not valid';

CREATE FUNCTION why_alive(path store_path,
		cache text DEFAULT default_cache())
	RETURNS TABLE (root text, step integer, path store_path)
	AS 'MODULE_PATHNAME', 'graph_why_alive'
	LANGUAGE C STABLE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	COST 10000 ROWS 5;

COMMENT ON FUNCTION why_alive(store_path, text) IS
'why a path stays: a shortest chain of references from a root (step 0) to it, with the name of the pin or source that has this root; no row if nothing keeps it. Fails with NI004 when the path is not valid, with NI007 when a source of roots fails';

CREATE FUNCTION dependency_order(paths store_path[],
		cache text DEFAULT default_cache())
	RETURNS TABLE ("position" integer, path store_path)
	AS 'MODULE_PATHNAME', 'graph_dependency_order'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 1000 ROWS 100;

COMMENT ON FUNCTION dependency_order(store_path[], text) IS
'these paths, each once, numbered from 1, each behind all those of them that it needs, also by way of others; the members of a cycle one after the other. Fails with NI004 when one is not valid';

-- Differences
CREATE FUNCTION package_name(store_path) RETURNS text
	AS 'MODULE_PATHNAME', 'graph_package_name'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION package_name(store_path) IS
'the name of a path''s package as nix store diff-closures has it: without the output at the end ([a-z]+, lib32 or lib64), up to the first dash that no letter follows';

CREATE FUNCTION package_version(store_path) RETURNS text
	AS 'MODULE_PATHNAME', 'graph_package_version'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION package_version(store_path) IS
'what stands behind the package_name() of a path and before its output; empty if there is none';

CREATE FUNCTION compare_closures(a store_path, b store_path,
		cache text DEFAULT default_cache())
	RETURNS TABLE (path store_path, before boolean, after boolean,
		nar_size bigint, file_size bigint)
	AS 'MODULE_PATHNAME', 'graph_compare_closures'
	LANGUAGE C STABLE STRICT PARALLEL SAFE
	COST 2000 ROWS 300;

COMMENT ON FUNCTION compare_closures(store_path, store_path, text) IS
'the closures of a and b together, each path once: whether it is in that of a (before), in that of b (after), or both; sizes in bytes. Fails with NI004 when a or b is not valid';

CREATE FUNCTION difference(a store_path, b store_path,
		cache text DEFAULT default_cache())
	RETURNS TABLE (name text, before text[], after text[],
		added store_path[], dropped store_path[], nar_bytes bigint,
		file_bytes bigint)
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	COST 3000 ROWS 50
BEGIN ATOMIC
	SELECT package_name(c.path) COLLATE "C",
		coalesce(array_agg(DISTINCT package_version(c.path) COLLATE "C")
			FILTER (WHERE c.before), '{}'),
		coalesce(array_agg(DISTINCT package_version(c.path) COLLATE "C")
			FILTER (WHERE c.after), '{}'),
		coalesce(array_agg(c.path ORDER BY c.path)
			FILTER (WHERE NOT c.before), '{}'),
		coalesce(array_agg(c.path ORDER BY c.path)
			FILTER (WHERE NOT c.after), '{}'),
		coalesce(sum(c.nar_size) FILTER (WHERE NOT c.before), 0)::bigint
			- coalesce(sum(c.nar_size) FILTER (WHERE NOT c.after), 0)::bigint,
		coalesce(sum(c.file_size) FILTER (WHERE NOT c.before), 0)::bigint
			- coalesce(sum(c.file_size) FILTER (WHERE NOT c.after), 0)::bigint
	FROM compare_closures(difference.a, difference.b, difference.cache) AS c
	GROUP BY package_name(c.path) COLLATE "C"
	HAVING bool_or(c.before <> c.after)
	ORDER BY package_name(c.path) COLLATE "C";
END;

COMMENT ON FUNCTION difference(store_path, store_path, text) IS
'what the closure of b adds and drops against that of a, by package_name(): the versions in either closure, the paths added and dropped, and how many bytes of NARs and of files it has more (FileSize where it is known). Fails with NI004 when a or b is not valid';

REVOKE ALL ON FUNCTION closure(store_path, text),
	closures(store_path[], text), referrer_closure(store_path, text),
	missing(text), why_depends(store_path, store_path, text),
	why_alive(store_path, text), dependency_order(store_path[], text),
	compare_closures(store_path, store_path, text),
	difference(store_path, store_path, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION closure(store_path, text),
	closures(store_path[], text), referrer_closure(store_path, text),
	missing(text), why_depends(store_path, store_path, text),
	why_alive(store_path, text), dependency_order(store_path[], text),
	compare_closures(store_path, store_path, text),
	difference(store_path, store_path, text)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
