--
-- Who holds how much of a cache, and for how long.
--
-- The samples are this site's own: neither replicated nor dumped.
--
CREATE TABLE usage_sample (
	cache text COLLATE "C" NOT NULL,
	owner text COLLATE "C" NOT NULL,
	environment text COLLATE "C" NOT NULL,
	nar_bytes numeric NOT NULL,
	byte_days numeric NOT NULL,
	since timestamptz NOT NULL,
	sampled timestamptz NOT NULL,
	PRIMARY KEY (cache, owner, environment)
);

COMMENT ON TABLE usage_sample IS
'what each owner held when it was looked at last, on this site, and how long since when; stat_usage shows it';
COMMENT ON COLUMN usage_sample.cache IS 'name of the cache';
COMMENT ON COLUMN usage_sample.owner IS 'owner of the roots';
COMMENT ON COLUMN usage_sample.environment IS
'environment of the roots; empty: none';
COMMENT ON COLUMN usage_sample.nar_bytes IS
'bytes (NarSize) that they held at the last sample';
COMMENT ON COLUMN usage_sample.byte_days IS
'bytes times days, from "since" to the last sample';
COMMENT ON COLUMN usage_sample.since IS
'the first sample, or the last reset_usage()';
COMMENT ON COLUMN usage_sample.sampled IS 'the last sample';

CREATE FUNCTION usage(cache text DEFAULT default_cache(),
		OUT owner text, OUT environment text, OUT roots bigint,
		OUT paths bigint, OUT nar_bytes numeric, OUT file_bytes numeric,
		OUT shared_nar_bytes numeric, OUT shared_file_bytes numeric,
		OUT only_nar_bytes numeric, OUT only_file_bytes numeric)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'narinfo_usage'
	LANGUAGE C STABLE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	COST 100000 ROWS 10;

COMMENT ON FUNCTION usage(text) IS
'what the roots of each owner and environment hold of a cache now, each path once; reads the whole cache, whose graph it has in memory meanwhile; fails with NI007 when a source of roots does';

CREATE FUNCTION sample_usage(cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n bigint;
	moment timestamptz;
BEGIN
	LOCK TABLE narinfo.usage_sample IN SHARE ROW EXCLUSIVE MODE;
	moment := clock_timestamp();
	MERGE INTO narinfo.usage_sample AS s
	USING (SELECT coalesce(u.owner, o.owner) AS owner,
			coalesce(u.environment, o.environment) AS environment,
			coalesce(u.nar_bytes, 0) AS nar_bytes
		FROM (SELECT w.owner, coalesce(w.environment, '') AS environment,
				w.nar_bytes FROM narinfo.usage(sample_usage.cache) AS w) AS u
			FULL JOIN (SELECT t.owner, t.environment
				FROM narinfo.usage_sample AS t
				WHERE t.cache = sample_usage.cache) AS o
				USING (owner, environment)) AS v
	ON s.cache = sample_usage.cache AND s.owner = v.owner
		AND s.environment = v.environment
	WHEN MATCHED THEN UPDATE SET nar_bytes = v.nar_bytes,
		byte_days = s.byte_days + round(s.nar_bytes
			* extract(epoch FROM moment - s.sampled) / 86400, 6),
		sampled = moment
	WHEN NOT MATCHED THEN INSERT (cache, owner, environment, nar_bytes,
			byte_days, since, sampled)
		VALUES (sample_usage.cache, v.owner, v.environment, v.nar_bytes, 0,
			moment, moment);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;

COMMENT ON FUNCTION sample_usage(text) IS
'looks at what each owner holds, as the janitor does by pg_narinfo.usage_interval; how many there are';

CREATE FUNCTION reset_usage(owner text DEFAULT NULL,
		environment text DEFAULT NULL, cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n bigint;
	moment timestamptz;
BEGIN
	LOCK TABLE narinfo.usage_sample IN SHARE ROW EXCLUSIVE MODE;
	moment := clock_timestamp();
	DELETE FROM narinfo.usage_sample AS s
		WHERE s.cache = reset_usage.cache AND s.nar_bytes = 0
			AND coalesce(s.owner = reset_usage.owner, true)
			AND coalesce(s.environment = reset_usage.environment, true);
	UPDATE narinfo.usage_sample AS s
		SET byte_days = 0, since = moment, sampled = moment
		WHERE s.cache = reset_usage.cache
			AND coalesce(s.owner = reset_usage.owner, true)
			AND coalesce(s.environment = reset_usage.environment, true);
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;

COMMENT ON FUNCTION reset_usage(text, text, text) IS
'counts byte-days from now on, of an owner (NULL: all) in an environment (NULL: all, '''': none); how many of them hold something';

CREATE VIEW stat_usage AS
	WITH held AS (
		SELECT c.cache, u.owner, coalesce(u.environment, '') AS environment,
			u.roots, u.paths, u.nar_bytes, u.file_bytes, u.shared_nar_bytes,
			u.shared_file_bytes, u.only_nar_bytes, u.only_file_bytes
		FROM (SELECT r.cache FROM root AS r
				UNION SELECT s.cache FROM root_source AS s) AS c
			CROSS JOIN LATERAL usage(c.cache) AS u)
	SELECT cache, owner, nullif(environment, '') AS environment,
		coalesce(h.roots, 0) AS roots,
		coalesce(h.paths, 0) AS paths,
		coalesce(h.nar_bytes, 0) AS nar_bytes,
		coalesce(h.file_bytes, 0) AS file_bytes,
		coalesce(h.shared_nar_bytes, 0) AS shared_nar_bytes,
		coalesce(h.shared_file_bytes, 0) AS shared_file_bytes,
		coalesce(h.only_nar_bytes, 0) AS only_nar_bytes,
		coalesce(h.only_file_bytes, 0) AS only_file_bytes,
		s.byte_days + round(s.nar_bytes
			* extract(epoch FROM clock_timestamp() - s.sampled) / 86400, 6)
			AS byte_days,
		s.since, s.sampled
	FROM held AS h FULL JOIN usage_sample AS s
		USING (cache, owner, environment);

COMMENT ON VIEW stat_usage IS
'what the roots of each owner and environment hold, each path once; reads each cache that has roots; fails with NI007 when a source of roots does';
COMMENT ON COLUMN stat_usage.cache IS 'name of the cache';
COMMENT ON COLUMN stat_usage.owner IS 'owner of the pins and sources';
COMMENT ON COLUMN stat_usage.environment IS 'what they are wanted for';
COMMENT ON COLUMN stat_usage.roots IS
'roots, whether their paths are valid or not; those of two names count twice';
COMMENT ON COLUMN stat_usage.paths IS 'valid paths that they need';
COMMENT ON COLUMN stat_usage.nar_bytes IS 'NarSize of these, bytes';
COMMENT ON COLUMN stat_usage.file_bytes IS
'FileSize of these, bytes, where their narinfos have one';
COMMENT ON COLUMN stat_usage.shared_nar_bytes IS
'of nar_bytes: what others hold, too';
COMMENT ON COLUMN stat_usage.shared_file_bytes IS
'of file_bytes: what others hold, too';
COMMENT ON COLUMN stat_usage.only_nar_bytes IS
'of nar_bytes: what nobody else holds, and would be free without these roots';
COMMENT ON COLUMN stat_usage.only_file_bytes IS
'of file_bytes: what nobody else holds';
COMMENT ON COLUMN stat_usage.byte_days IS
'bytes (NarSize) times days that were held since "since": each sample''s until the next one; NULL before the first';
COMMENT ON COLUMN stat_usage.since IS 'since when byte_days counts';
COMMENT ON COLUMN stat_usage.sampled IS 'the last sample';

REVOKE ALL ON FUNCTION usage(text), sample_usage(text),
	reset_usage(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION usage(text)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION sample_usage(text), reset_usage(text, text, text)
	TO narinfo_admin;
GRANT SELECT ON usage_sample, stat_usage
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
