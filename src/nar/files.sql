--
-- Comparing the files of this site with its narinfos, and mending.
--
-- The table is this site's own: neither replicated nor dumped.
--
CREATE TYPE file_problem_kind AS ENUM ('unreferenced', 'missing', 'size');

COMMENT ON TYPE file_problem_kind IS
'what check_files() finds: unreferenced, a file that no narinfo names; missing, a narinfo whose file is not there; size, one whose file has another size';

CREATE TABLE file_problem (
	cache text COLLATE "C" NOT NULL,
	kind file_problem_kind NOT NULL,
	hash store_hash,
	path text COLLATE "C" NOT NULL,
	bytes bigint,
	expected bigint,
	modified timestamptz,
	found timestamptz NOT NULL
);

CREATE INDEX file_problem_kind ON file_problem (cache, kind);

COMMENT ON TABLE file_problem IS
'what the last check_files() of each cache has found on this site';
COMMENT ON COLUMN file_problem.cache IS 'name of the cache';
COMMENT ON COLUMN file_problem.kind IS 'what is wrong';
COMMENT ON COLUMN file_problem.hash IS
'the valid path; NULL for a file that none names';
COMMENT ON COLUMN file_problem.path IS
'the file, relative to the directory of its cache; a URL as it is written, if that is none of a file below nar/';
COMMENT ON COLUMN file_problem.bytes IS
'size of the file, NULL if it is not there';
COMMENT ON COLUMN file_problem.expected IS
'FileSize of the narinfo, NULL if it has none';
COMMENT ON COLUMN file_problem.modified IS
'of an unreferenced file, when it was modified: a young one may belong to a push that is on its way';
COMMENT ON COLUMN file_problem.found IS 'when it was found';

CREATE FUNCTION check_files(cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	COST 1000000;

COMMENT ON FUNCTION check_files(text) IS
'compares the files below nar/ of a cache on this site with all narinfos, by name and size, into file_problem, instead of what was there of this cache; how many problems there are. It changes nothing else. Takes long: see stat_progress; at most 110 bytes of memory a file. Files that are queued for their removal, that narinfos in trash name, or whose names begin with a dot are no problem';

CREATE FUNCTION stored_size(path text, cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED
	COST 1000;

COMMENT ON FUNCTION stored_size(text, text) IS
'bytes of a file below nar/ of a cache on this site, by its path relative to the directory of the cache; NULL if there is none';

CREATE FUNCTION mend_files(
		kinds file_problem_kind[] DEFAULT '{unreferenced}',
		with_referrers boolean DEFAULT false,
		cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	mended bigint := 0;
	n bigint;
BEGIN
	IF 'unreferenced' = ANY (kinds) THEN
		INSERT INTO narinfo.file_removal (cache, path, bytes, since)
			SELECT p.cache, p.path, p.bytes, clock_timestamp()
			FROM narinfo.file_problem AS p
			WHERE p.cache = mend_files.cache AND p.kind = 'unreferenced'
			ON CONFLICT DO NOTHING;
		GET DIAGNOSTICS mended = ROW_COUNT;
	END IF;
	IF 'missing' = ANY (kinds) OR 'size' = ANY (kinds) THEN
		-- what is still so
		SELECT narinfo.retract(array_agg(narinfo.store_path(v.info)),
				with_referrers, mend_files.cache)
			INTO n
			FROM narinfo.valid_path AS v
			WHERE v.cache = mend_files.cache
				AND v.hash OPERATOR(narinfo.=) ANY (ARRAY(
					SELECT p.hash FROM narinfo.file_problem AS p
					WHERE p.cache = mend_files.cache
						AND p.kind = ANY (kinds)
						AND p.kind IN ('missing', 'size')
						AND (narinfo.stored_size(p.path, p.cache) IS NULL
							OR narinfo.stored_size(p.path, p.cache)
								<> p.expected)));
		mended := mended + coalesce(n, 0);
	END IF;
	DELETE FROM narinfo.file_problem AS p
		WHERE p.cache = mend_files.cache AND p.kind = ANY (kinds);
	RETURN mended;
END
$$;

COMMENT ON FUNCTION mend_files(file_problem_kind[], boolean, text) IS
'mends what check_files() has found, of these kinds: unreferenced, the files are queued for their removal, pg_narinfo.file_grace from now; missing and size, where it is still so, the narinfos are retracted (with_referrers: with all that refers to them; else that is refused when something would). How many files were queued and narinfos retracted';

REVOKE ALL ON FUNCTION check_files(text), stored_size(text, text),
	mend_files(file_problem_kind[], boolean, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION check_files(text), stored_size(text, text),
	mend_files(file_problem_kind[], boolean, text) TO narinfo_admin;
GRANT SELECT ON file_problem
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
