--
-- Durability by choice: how many other sites have what was published.
--
CREATE FUNCTION copy_voters(cache text DEFAULT default_cache())
	RETURNS TABLE (site text, slot name, seq bigint, files bigint)
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	ROWS 4
BEGIN ATOMIC
	SELECT s.name, l.slot, CASE WHEN l.site IS NULL THEN c.seq END,
		CASE WHEN k.copies_include_files THEN c.files END
	FROM node AS n
		JOIN site AS s ON s.name IS DISTINCT FROM n.site
		JOIN site_cache AS c ON c.site = s.name
		LEFT JOIN site_link AS l ON l.site = s.name
		LEFT JOIN cache AS k ON k.name = c.cache
	WHERE n.role = 'primary' AND s.role = 'mirror'
		AND c.cache = copy_voters.cache
		AND c.vote AND c.problem IS NULL
		AND (c.files IS NOT NULL OR k.copies_include_files IS NOT TRUE)
		AND s.epoch <= n.epoch AND s.promised <= n.epoch
		AND c.epoch <= n.epoch
		AND CASE WHEN l.site IS NULL
			-- what it tells is a part of our history
			THEN EXISTS (SELECT FROM event AS e
				WHERE e.cache = c.cache AND e.seq = c.seq
					AND e.epoch = c.epoch AND e.digest = c.digest)
			ELSE l.joined AND l.problem IS NULL AND l.dropped IS NULL
				AND s.system_identifier = l.system_identifier
				AND (l.caches IS NULL OR c.cache = ANY (l.caches)) END;
END;

COMMENT ON FUNCTION copy_voters(text) IS
'at the primary: the other sites whose copies of a cache count now. A mirror of this site is known by its slot, and one further below by the number of the event that it has reported to have on disk; with copies_include_files it has none beyond files, else that is NULL';

CREATE PROCEDURE wait_copies(seq bigint, copies integer DEFAULT 1,
		wait_at_most interval DEFAULT '10 s',
		INOUT confirmed integer DEFAULT NULL,
		cache text DEFAULT default_cache())
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE wait_copies(bigint, integer, interval, integer, text) IS
'at the primary, after a commit: waits until so many other sites have the event of this number on disk, or until the time is up (NULL: without an end), and returns how many have it; that is no error, and it can be called again. Outside of a transaction block, holding neither locks nor a snapshot while it waits; fails with NI004 when there is no such event, with NI010 on a mirror';

CREATE FUNCTION copies_told() RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION copies_told() IS
'has whoever waits for copies look again when this transaction has committed, as site_report() does';

REVOKE ALL ON FUNCTION copy_voters(text), copies_told() FROM PUBLIC;
REVOKE ALL ON PROCEDURE wait_copies(bigint, integer, interval, integer, text)
	FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE
	wait_copies(bigint, integer, interval, integer, text)
	TO narinfo_publisher, narinfo_admin;

-- ---- what is shown only with enough copies

CREATE FUNCTION site_watermark(cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
	SELECT c.watermark FROM site AS s JOIN site_cache AS c ON c.site = s.name
	WHERE s.role = 'primary' AND c.cache = site_watermark.cache
	ORDER BY s.epoch DESC LIMIT 1;
END;

COMMENT ON FUNCTION site_watermark(text) IS
'number of the event up to which HTTP shows a cache that has visible_copies, as far as this site has heard; NULL: all of it';

CREATE FUNCTION site_advance(cache text, seq bigint) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE narinfo.site_cache AS c SET watermark = site_advance.seq
		WHERE c.site = narinfo.site_name() AND c.cache = site_advance.cache
			AND c.watermark < site_advance.seq;
	RETURN FOUND;
END
$$;

COMMENT ON FUNCTION site_advance(text, bigint) IS
'at the primary: the watermark of a cache, unless it is there already; whether that changed it';

CREATE FUNCTION site_begin_watermarks() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- what was seen before is seen on; a new primary goes on with what the
	-- last one had told
	UPDATE narinfo.site_cache AS c SET watermark = coalesce(
			(SELECT least(max(o.watermark), c.seq)
			FROM narinfo.site_cache AS o
			WHERE o.cache = c.cache AND o.site <> c.site), c.seq)
		FROM narinfo.cache AS k
		WHERE c.site = narinfo.site_name() AND k.name = c.cache
			AND k.visible_copies > 0 AND c.watermark IS NULL;
	UPDATE narinfo.site_cache AS c SET watermark = NULL
		WHERE c.site = narinfo.site_name() AND c.watermark IS NOT NULL
			AND NOT EXISTS (SELECT FROM narinfo.cache AS k
				WHERE k.name = c.cache AND k.visible_copies > 0);
END
$$;

COMMENT ON FUNCTION site_begin_watermarks() IS
'at the primary: gives caches that have visible_copies a watermark, and takes it from others';

REVOKE ALL ON FUNCTION site_advance(text, bigint), site_begin_watermarks()
	FROM PUBLIC;

-- ---- what operators see

CREATE FUNCTION site_confirmed("position" pg_lsn,
		cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	last bigint := narinfo.last_event(cache);
	low bigint;
	high bigint := last;
	middle bigint;
	own integer := (SELECT n.epoch FROM narinfo.node AS n);
	e record;
BEGIN
	-- asked after the snapshot was taken that has the last event
	IF pg_is_in_recovery() OR "position" >= pg_current_wal_flush_lsn() THEN
		RETURN last;
	END IF;
	low := (SELECT min(x.seq) - 1 FROM narinfo.event AS x
		WHERE x.cache = site_confirmed.cache);
	-- of this epoch they are in the order of the log
	WHILE low < high LOOP
		middle := (low + high + 1) / 2;
		SELECT x.epoch, x.lsn INTO e FROM narinfo.event AS x
			WHERE x.cache = site_confirmed.cache AND x.seq = middle;
		IF e.epoch < own OR e.lsn <= "position" THEN
			low := middle;
		ELSE
			high := middle - 1;
		END IF;
	END LOOP;
	-- of its transaction nothing is known
	RETURN coalesce((SELECT x.seq FROM narinfo.event AS x
		WHERE x.cache = site_confirmed.cache AND x.seq <= low
			AND (x.epoch < own OR x.xmin <> (SELECT y.xmin
				FROM narinfo.event AS y WHERE y.cache = site_confirmed.cache
					AND y.seq = low))
		ORDER BY x.seq DESC LIMIT 1), 0);
END
$$;

COMMENT ON FUNCTION site_confirmed(pg_lsn, text) IS
'at the primary: number of the last event of a cache that a mirror has on disk whose slot has confirmed this position';

CREATE VIEW stat_copies AS
	SELECT s.name AS site, c.cache, v.site IS NOT NULL AS counts,
		f.confirmed, greatest(last_event(c.cache) - f.confirmed, 0) AS behind,
		site_watermark(c.cache) AS watermark,
		CASE WHEN v.site IS NOT NULL
			THEN CASE WHEN v.files IS NOT NULL THEN c.files_problem END
			WHEN n.role <> 'primary' THEN 'this site is a mirror: ask the primary'
			WHEN l.problem IS NOT NULL THEN l.problem
			WHEN c.problem IS NOT NULL THEN 'it is not equal: ' || c.problem
			WHEN NOT l.joined THEN 'it is joining, or being pointed here'
			WHEN s.promised > n.epoch
			THEN format('it has promised to follow epoch %s', s.promised)
			WHEN NOT c.vote THEN 'it has not proved that it is equal'
			WHEN k.copies_include_files AND c.files IS NULL
			THEN coalesce(c.files_problem, 'it has not told which files it has')
			ELSE 'what it tells is no part of the history here' END AS reason
	FROM node AS n
		JOIN site AS s ON s.name IS DISTINCT FROM n.site
		JOIN site_cache AS c ON c.site = s.name
		LEFT JOIN site_link AS l ON l.site = s.name
		LEFT JOIN pg_catalog.pg_replication_slots AS r
			ON r.slot_name = l.slot
		LEFT JOIN LATERAL copy_voters(c.cache) AS v ON v.site = s.name
		LEFT JOIN cache AS k ON k.name = c.cache
		CROSS JOIN LATERAL (SELECT least(CASE WHEN l.site IS NULL
			OR n.role <> 'primary' THEN c.seq
			ELSE site_confirmed(r.confirmed_flush_lsn, c.cache) END,
			CASE WHEN k.copies_include_files THEN coalesce(c.files, 0) END))
			AS f (confirmed);

COMMENT ON VIEW stat_copies IS
'at the primary: what each other site has of each of its caches on disk, and whether it counts as a copy';
COMMENT ON COLUMN stat_copies.site IS 'name of the site';
COMMENT ON COLUMN stat_copies.cache IS 'name of the cache';
COMMENT ON COLUMN stat_copies.counts IS
'whether wait_copies() and push_copies count what it has';
COMMENT ON COLUMN stat_copies.confirmed IS
'number of the last event that it has on disk, with copies_include_files also with its files: of mirrors of this site as of now, of others, and of files, as they last reported';
COMMENT ON COLUMN stat_copies.behind IS
'how many events this site has beyond that';
COMMENT ON COLUMN stat_copies.watermark IS
'number of the event up to which HTTP shows the cache; NULL: all of it';
COMMENT ON COLUMN stat_copies.reason IS
'why it does not count, or which file keeps it from having more';

GRANT EXECUTE ON FUNCTION copy_voters(text)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT SELECT ON stat_copies
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
