--
-- Where files are asked for that are missing on this site.
--
-- Each site's own, so not replicated; dumped, since somebody has said it.
--
CREATE TABLE file_source (
	cache text COLLATE "C",
	url text COLLATE "C" NOT NULL,
	"position" integer NOT NULL DEFAULT 100,
	CONSTRAINT file_source_unique UNIQUE NULLS NOT DISTINCT (cache, url),
	CONSTRAINT file_source_cache_valid CHECK (is_cache_name(cache)),
	CONSTRAINT file_source_url_valid CHECK (octet_length(url) <= 1000 AND url
		~ '^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(/[A-Za-z0-9._~!$&''()*+,;=:@%/-]*)?$')
);

COMMENT ON TABLE file_source IS
'where this site asks for files that valid narinfos name and it has not (pg_narinfo.missing_files): other sites, or any server with the files of a cache';
COMMENT ON COLUMN file_source.cache IS
'name of the cache; NULL: of all, "main" at the URL itself and the others below it, each in a directory of its name';
COMMENT ON COLUMN file_source.url IS
'below which the files are as in the cache, nar/ and so on; http or https, without user, password, query and fragment';
COMMENT ON COLUMN file_source."position" IS
'those with a lower one are asked first';

SELECT pg_catalog.pg_extension_config_dump('file_source', '');

CREATE FUNCTION add_file_source(
		url text,
		"position" integer DEFAULT 100,
		cache text DEFAULT default_cache())
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF cache <> 'main'
		AND NOT EXISTS (SELECT FROM narinfo.cache AS c
			WHERE c.name = add_file_source.cache)
	THEN
		RAISE undefined_object USING
			MESSAGE = format('cache "%s" does not exist', cache);
	END IF;
	UPDATE narinfo.file_source AS s SET "position" = add_file_source."position"
		WHERE s.url = add_file_source.url
			AND s.cache IS NOT DISTINCT FROM add_file_source.cache
			AND s."position" <> add_file_source."position";
	IF FOUND THEN
		RETURN true;
	END IF;
	INSERT INTO narinfo.file_source (cache, url, "position")
		VALUES (add_file_source.cache, add_file_source.url,
			add_file_source."position")
		ON CONFLICT DO NOTHING;
	RETURN FOUND;
END
$$;

COMMENT ON FUNCTION add_file_source(text, integer, text) IS
'adds a source of files that are missing here, or gives it another position; whether that changed anything. A cache of NULL means all caches, see file_source.cache. index_files() has to be called once';

CREATE FUNCTION drop_file_source(
		url text,
		cache text DEFAULT default_cache())
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM narinfo.file_source AS s
		WHERE s.url = drop_file_source.url
			AND s.cache IS NOT DISTINCT FROM drop_file_source.cache;
	RETURN FOUND;
END
$$;

COMMENT ON FUNCTION drop_file_source(text, text) IS
'removes a source of files; false if there is none';

CREATE FUNCTION fetch_status(
		OUT running integer,
		OUT begun bigint,
		OUT kept bigint,
		OUT failed bigint,
		OUT wrong bigint,
		OUT bytes bigint,
		OUT redirected bigint,
		OUT refused bigint)
	RETURNS record
	AS 'MODULE_PATHNAME', 'narinfo_fetch_status'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION fetch_status() IS
'what stat_fetch shows';

CREATE VIEW stat_fetch AS
	SELECT running, begun, kept, failed, wrong, bytes, redirected, refused
	FROM fetch_status();

COMMENT ON VIEW stat_fetch IS
'files that were missing on this site, in one row, since the server was started';
COMMENT ON COLUMN stat_fetch.running IS 'files that are being fetched now';
COMMENT ON COLUMN stat_fetch.begun IS 'files that it has begun to fetch';
COMMENT ON COLUMN stat_fetch.kept IS
'of these, those that are stored in their place';
COMMENT ON COLUMN stat_fetch.failed IS
'of these, those that no source had whole and right';
COMMENT ON COLUMN stat_fetch.wrong IS
'files with another hash than the narinfo has, that sources sent; none was kept';
COMMENT ON COLUMN stat_fetch.bytes IS 'bytes of files that sources have sent';
COMMENT ON COLUMN stat_fetch.redirected IS
'requests that were sent to another site, by 302';
COMMENT ON COLUMN stat_fetch.refused IS
'requests that were answered 503, since as many files were being fetched as may be';

REVOKE ALL ON FUNCTION add_file_source(text, integer, text),
	drop_file_source(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION add_file_source(text, integer, text),
	drop_file_source(text, text) TO narinfo_admin;
GRANT SELECT ON file_source, stat_fetch
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
