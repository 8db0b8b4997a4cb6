--
-- From a file to the narinfo that names it, where that is wanted.
--
CREATE FUNCTION file_key(info narinfo, cache text) RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION file_key(narinfo, text) IS
'what the index valid_path_file is over: a hash of a cache and of the path of the file that the (first) URL names; 0 if that is no file below nar/';

CREATE FUNCTION index_files() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF EXISTS (SELECT FROM pg_index
			WHERE indexrelid = to_regclass('narinfo.valid_path_file')
				AND indisvalid)
	THEN
		RETURN false;
	END IF;
	-- what a CREATE INDEX CONCURRENTLY has left
	IF to_regclass('narinfo.valid_path_file') IS NOT NULL THEN
		DROP INDEX narinfo.valid_path_file;
	END IF;
	CREATE INDEX valid_path_file
		ON narinfo.valid_path (narinfo.file_key(info, cache));
	RETURN true;
END
$$;

COMMENT ON FUNCTION index_files() IS
'makes the index valid_path_file on this site, by which files that are missing are looked up (pg_narinfo.missing_files); false if it is there. Nobody can publish meanwhile: CREATE INDEX CONCURRENTLY valid_path_file ON narinfo.valid_path (narinfo.file_key(info, cache)), by hand, lets them. A dump does not have it';

REVOKE ALL ON FUNCTION index_files() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION index_files() TO narinfo_admin;
