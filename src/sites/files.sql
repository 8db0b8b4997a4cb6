--
-- How far a mirror has the files of what was published, for caches with
-- copies_include_files.
--
CREATE FUNCTION site_file_caches()
	RETURNS TABLE (cache text, files bigint, problem text, last bigint,
		since timestamptz)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.cache, c.files, c.files_problem, narinfo.last_event(c.cache),
		n.since
	FROM narinfo.node AS n
		JOIN narinfo.mirror_state AS m ON m.joined
		JOIN narinfo.site_cache AS c ON c.site = n.site
		JOIN narinfo.cache AS k ON k.name = c.cache
	WHERE n.role = 'mirror' AND n.consistent AND k.copies_include_files
	ORDER BY c.cache;
$$;

COMMENT ON FUNCTION site_file_caches() IS
'at a mirror: the caches whose files it has to have, how far it has, what hinders it, and their last events; of a history that it follows since then';

CREATE FUNCTION site_file_sources()
	RETURNS TABLE (url text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.url FROM narinfo.site AS s, narinfo.node AS n
		LEFT JOIN narinfo.mirror_state AS m ON true
	WHERE s.name <> n.site AND s.url IS NOT NULL
	ORDER BY s.name IS NOT DISTINCT FROM m.upstream DESC,
		s.role = 'primary' DESC, s.name;
$$;

COMMENT ON FUNCTION site_file_sources() IS
'URLs of the other sites, the upstream first: who may have a file that is not in any file_source';

CREATE FUNCTION site_note_files(cache text, files bigint, problem text,
		since timestamptz)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- whoever takes events away changes this row, and our number, as well
	PERFORM FROM narinfo.node AS n
		WHERE n.role = 'mirror' AND n.since = site_note_files.since FOR SHARE;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	UPDATE narinfo.site_cache AS c SET files = site_note_files.files,
			files_problem = site_note_files.problem
		WHERE c.site = narinfo.site_name() AND c.cache = site_note_files.cache;
	RETURN FOUND;
END
$$;

COMMENT ON FUNCTION site_note_files(text, bigint, text, timestamptz) IS
'at a mirror: up to which event it has the files of a cache, and what hinders it; false, and nothing, if it has another history by now than since then';

REVOKE ALL ON FUNCTION site_file_caches(), site_file_sources(),
	site_note_files(text, bigint, text, timestamptz) FROM PUBLIC;
