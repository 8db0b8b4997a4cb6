--
-- Pressure: what is done when mirrors have more write-ahead log kept than
-- there is room for; src/sites/pressure.c says how.
--
CREATE FUNCTION pressure_admit() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION pressure_admit() IS
'trigger that delays, or refuses with NI014, changes that would need write-ahead log there is no room for';

-- Others are few, and may have to be made just then.
CREATE TRIGGER pressure BEFORE INSERT OR UPDATE OR DELETE ON valid_path
	FOR EACH STATEMENT EXECUTE FUNCTION pressure_admit();
CREATE TRIGGER pressure BEFORE INSERT OR UPDATE OR DELETE ON root
	FOR EACH STATEMENT EXECUTE FUNCTION pressure_admit();

CREATE FUNCTION pressure_status(OUT level text, OUT since timestamptz,
		OUT reason text, OUT measured timestamptz, OUT free bigint,
		OUT site text, OUT slot text, OUT retained_wal bigint,
		OUT behind bigint, OUT other_slot text, OUT other_retained_wal bigint,
		OUT delay_ms integer, OUT delayed bigint, OUT refused bigint,
		OUT dropped bigint)
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL SAFE;

COMMENT ON FUNCTION pressure_status() IS
'what stat_pressure shows, in one row';

CREATE VIEW stat_pressure AS
	SELECT p.level, p.since, p.reason, p.measured, p.free, p.site, p.slot,
		p.retained_wal, p.behind, p.other_slot, p.other_retained_wal,
		p.delay_ms, p.delayed, p.refused, p.dropped
	FROM pressure_status() AS p;

COMMENT ON VIEW stat_pressure IS
'whether publishing is delayed or refused since write-ahead log is kept for mirrors, in one row';
COMMENT ON COLUMN stat_pressure.level IS
'none; delay, of what is published; refuse, nothing is published; drop, slots are dropped as well';
COMMENT ON COLUMN stat_pressure.since IS 'since when it is so';
COMMENT ON COLUMN stat_pressure.reason IS
'why, in words; why nothing is watched, where measured is NULL';
COMMENT ON COLUMN stat_pressure.measured IS
'when the numbers were taken, every second; NULL: nothing is watched';
COMMENT ON COLUMN stat_pressure.free IS
'bytes for which pg_wal has room: free on its file system, and in segments that are there to be filled';
COMMENT ON COLUMN stat_pressure.site IS
'the mirror of this site for which most is kept; NULL: it has none';
COMMENT ON COLUMN stat_pressure.slot IS 'its replication slot';
COMMENT ON COLUMN stat_pressure.retained_wal IS
'bytes of write-ahead log that are kept for it';
COMMENT ON COLUMN stat_pressure.behind IS
'bytes of write-ahead log that it has not confirmed';
COMMENT ON COLUMN stat_pressure.other_slot IS
'the slot of nobody that pg_narinfo knows for which most is kept: it is never dropped; NULL: there is none';
COMMENT ON COLUMN stat_pressure.other_retained_wal IS
'bytes of write-ahead log that are kept for that';
COMMENT ON COLUMN stat_pressure.delay_ms IS
'how long each transaction is delayed that publishes, in milliseconds';
COMMENT ON COLUMN stat_pressure.delayed IS
'transactions that were delayed since the server was started';
COMMENT ON COLUMN stat_pressure.refused IS
'statements, and requests, that were refused since the server was started';
COMMENT ON COLUMN stat_pressure.dropped IS
'slots that were dropped since the server was started';

-- ---- dropping slots

CREATE FUNCTION site_votes(site text) RETURNS boolean
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (SELECT l.joined FROM narinfo.site_link AS l
			WHERE l.site = site_votes.site)
		AND EXISTS (
			WITH RECURSIVE down (name, n) AS (
				SELECT site_votes.site COLLATE "C", 1
				UNION
				SELECT s.name, d.n + 1 FROM down AS d
				JOIN narinfo.site AS s ON s.upstream = d.name
				WHERE d.n < 100)
			SELECT FROM down AS d JOIN narinfo.site_cache AS c
				ON c.site = d.name WHERE c.vote);
END
$$;

COMMENT ON FUNCTION site_votes(text) IS
'whether a mirror of this site, or one below it, has a vote for a cache';

CREATE FUNCTION site_slots() RETURNS TABLE (site text, slot name,
		active_pid integer, restart_lsn pg_lsn)
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- those of an initial copy end with the identifier of who copies
	RETURN QUERY SELECT l.site, r.slot_name, r.active_pid, r.restart_lsn
		FROM narinfo.site_link AS l JOIN pg_replication_slots AS r
		ON r.database = current_database() AND (r.slot_name = l.slot
			OR r.slot_name ~ format('^pg_[0-9]+_sync_[0-9]+_%s$',
				l.system_identifier));
END
$$;

COMMENT ON FUNCTION site_slots() IS
'the replication slots of the mirrors of this site, those of an initial copy included';

CREATE FUNCTION site_mark_dropped(voters boolean, at_least bigint,
		situation text)
	RETURNS TABLE (site text, slot name, retained bigint)
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	here pg_lsn := pg_current_wal_insert_lsn();
	chosen record;
BEGIN
	WITH held AS (
		SELECT s.site, s.slot, s.restart_lsn,
			voters OR NOT narinfo.site_votes(s.site) AS may_go
		FROM narinfo.site_slots() AS s WHERE s.restart_lsn IS NOT NULL),
	-- what stays kept when all have gone that may
	others AS (
		SELECT min(r.restart_lsn) AS lsn FROM pg_replication_slots AS r
		WHERE r.slot_name NOT IN (SELECT h.slot FROM held AS h
			WHERE h.may_go))
	SELECT h.site, min(h.restart_lsn) AS lsn INTO chosen
		FROM held AS h, others AS o WHERE h.may_go
		GROUP BY h.site, o.lsn
		HAVING coalesce(o.lsn, here) - min(h.restart_lsn) >= at_least
		ORDER BY min(h.restart_lsn), h.site LIMIT 1;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	UPDATE narinfo.site_link AS l SET dropped = format('%s since it kept %s: %s',
			date_trunc('second', clock_timestamp()),
			pg_size_pretty(here - chosen.lsn), situation)
		WHERE l.site = chosen.site;
	RETURN QUERY SELECT l.site, l.slot, (here - chosen.lsn)::bigint
		FROM narinfo.site_link AS l WHERE l.site = chosen.site;
END
$$;

COMMENT ON FUNCTION site_mark_dropped(boolean, bigint, text) IS
'chooses, among mirrors without a vote or among all, the one that has most write-ahead log kept, if its going would give back at least so many bytes, and notes in site_link why its slot is to be dropped; no row if there is none';

CREATE FUNCTION site_drop_marked() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	s record;
BEGIN
	-- whoever reads it connects again, so that may take more than one try
	FOR try IN 1..20 LOOP
		FOR s IN SELECT t.slot, t.active_pid FROM narinfo.site_slots() AS t
			JOIN narinfo.site_link AS l ON l.site = t.site
			WHERE l.dropped IS NOT NULL
		LOOP
			IF s.active_pid IS NOT NULL THEN
				PERFORM pg_terminate_backend(s.active_pid, 1000);
			END IF;
			BEGIN
				PERFORM pg_drop_replication_slot(s.slot);
			EXCEPTION WHEN object_in_use OR undefined_object THEN
				NULL;
			END;
		END LOOP;
		IF NOT EXISTS (SELECT FROM narinfo.site_slots() AS t
			JOIN narinfo.site_link AS l ON l.site = t.site
			WHERE l.dropped IS NOT NULL)
		THEN
			RETURN true;
		END IF;
	END LOOP;
	RETURN false;
END
$$;

COMMENT ON FUNCTION site_drop_marked() IS
'drops the slots of mirrors that site_mark_dropped() has chosen, ending who reads them; whether none is left';

REVOKE ALL ON FUNCTION pressure_admit(), pressure_status(), site_votes(text),
	site_slots(), site_mark_dropped(boolean, bigint, text),
	site_drop_marked() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pressure_status()
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT SELECT ON stat_pressure
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
