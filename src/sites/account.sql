--
-- What a site tells of itself, to others and to operators, the calls that make
-- it a mirror, and who may do what of this room.
--
CREATE FUNCTION site_reason() RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	state text := narinfo.node_state();
	o narinfo.node;
	m narinfo.mirror_state;
	enabled boolean;
	found text;
	late record;
BEGIN
	IF state IN ('restoring', 'fenced') THEN
		RETURN CASE state WHEN 'fenced'
			THEN 'it is fenced, until narinfo.start()'
			ELSE 'a dump is being restored, until narinfo.start()' END;
	END IF;
	IF NOT (SELECT n.consistent FROM narinfo.node AS n) THEN
		RETURN 'it is being filled';
	END IF;
	SELECT * INTO o FROM narinfo.node;
	IF state = 'closed' THEN
		RETURN CASE o.closed
			WHEN 'switchover' THEN format('it does not publish, so that site "%s" can: CALL narinfo.switchover(%L) goes on with that', o.closed_for, o.closed_for)
			WHEN 'promise' THEN format('it does not publish while site "%s" may become the primary: CALL narinfo.promote() there, or, if that is gone for good, SELECT narinfo.reopen_site() here', o.closed_for)
			WHEN 'epoch' THEN format('site "%s" publishes instead, in epoch %s: CALL narinfo.rejoin(), with how that is connected to', o.closed_for, o.closed_epoch)
			WHEN 'behind' THEN format('its mirror "%s" has events that it does not have, as if it were restored from a backup: CALL narinfo.promote() there, and narinfo.rejoin() here', o.closed_for)
			ELSE format('another server answers as site "%s": this one is a copy of it', o.closed_for) END;
	END IF;
	SELECT s.name INTO found FROM narinfo.site AS s
		WHERE state = 'primary' AND s.role = 'primary'
			AND s.name <> narinfo.site_name() AND s.epoch = o.epoch LIMIT 1;
	IF found IS NOT NULL THEN
		RETURN format('site "%s" publishes, too, in the same epoch, %s: SELECT narinfo.reopen_site() at the one that is to go on, then CALL narinfo.rejoin() at the other', found, o.epoch);
	END IF;
	IF state <> 'mirror' THEN
		RETURN NULL;
	END IF;
	SELECT string_agg(format('cache %s at event %s: %s', c.cache, c.proof_seq,
			c.problem), '; ' ORDER BY c.cache)
		INTO found FROM narinfo.site_cache AS c
		WHERE c.site = narinfo.site_name() AND c.problem IS NOT NULL;
	IF found IS NOT NULL THEN
		RETURN 'it is not equal: ' || found;
	END IF;
	SELECT * INTO m FROM narinfo.mirror_state;
	SELECT s.subenabled INTO enabled FROM pg_subscription AS s
		WHERE s.subname = 'narinfo' AND s.subdbid =
			(SELECT d.oid FROM pg_database AS d
			WHERE d.datname = current_database());
	IF enabled IS NULL THEN
		RETURN 'it has no subscription';
	END IF;
	IF m.forked IS NOT NULL THEN
		RETURN m.forked;
	END IF;
	IF o.bound THEN
		RETURN format('it waits for site "%s" to be the primary, in epoch %s: CALL narinfo.promote() there', o.promised_to, o.promised);
	END IF;
	IF m.slot_problem IS NOT NULL THEN
		RETURN format('site "%s" says: %s', m.upstream, m.slot_problem);
	END IF;
	IF NOT enabled AND m.paused THEN
		RETURN 'somebody has disabled its subscription';
	END IF;
	IF NOT enabled AND m.error IS NOT NULL THEN
		RETURN format('an error has stopped its subscription: %s (%s)',
			m.error, m.error_code);
	END IF;
	SELECT c.cache, c.target - c.seq AS n, c.target_at INTO late
		FROM narinfo.site_cache AS c
		WHERE c.site = narinfo.site_name() AND c.seq < c.target
			AND clock_timestamp() - c.target_at >
				current_setting('pg_narinfo.max_lag')::interval
			AND current_setting('pg_narinfo.max_lag') <> '0'
		ORDER BY c.target_at LIMIT 1;
	IF late.cache IS NOT NULL THEN
		RETURN format('cache %s lags by %s events since %s', late.cache,
			late.n, date_trunc('second', late.target_at));
	END IF;
	RETURN NULL;
END
$$;

COMMENT ON FUNCTION site_reason() IS
'why no client should be sent to this site, in words; NULL: one may';

CREATE FUNCTION site_refresh() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	own text := narinfo.site_name();
	m narinfo.mirror_state;
BEGIN
	-- whoever takes events away, with what we say of them, changes this row
	-- as well: it is over then, or waits for us
	PERFORM FROM narinfo.node AS n WHERE n.site IS NOT NULL FOR SHARE;
	-- one that is alone has nobody to tell
	IF NOT FOUND THEN
		RETURN;
	END IF;
	SELECT * INTO m FROM narinfo.mirror_state;
	-- what came into being since this mirror joined was equal from the first
	INSERT INTO narinfo.site_cache AS c (site, cache, seq, epoch, digest, at,
			proof_seq, proof_at, vote)
		SELECT own, e.cache, e.seq, e.epoch, e.digest, e.at,
			CASE WHEN f.whole THEN 0 END,
			CASE WHEN f.whole THEN clock_timestamp() END,
			coalesce(f.whole, false)
		FROM narinfo.last_events() AS e
		CROSS JOIN LATERAL (SELECT m.joined AND EXISTS (
			SELECT FROM narinfo.event AS l
			WHERE l.cache = e.cache AND l.seq = 1)) AS f (whole)
		ON CONFLICT (site, cache) DO UPDATE
		SET seq = excluded.seq, epoch = excluded.epoch,
			digest = excluded.digest, at = excluded.at
		-- another session may have seen more than this one's snapshot
		WHERE (c.epoch, c.seq) < (excluded.epoch, excluded.seq)
			OR c.epoch = excluded.epoch AND c.seq = excluded.seq
				AND c.digest <> excluded.digest;
	-- a number of the primary's to look out for, when the last was reached
	UPDATE narinfo.site_cache AS c
		SET target = p.seq, target_at = clock_timestamp()
		FROM narinfo.site_cache AS p, narinfo.site AS s
		WHERE c.site = own AND m.upstream IS NOT NULL
			AND s.name = narinfo.site_primary() AND s.name <> own
			AND p.site = s.name AND p.cache = c.cache
			AND c.seq >= c.target AND p.seq > c.target;
	INSERT INTO narinfo.site AS s
		SELECT own, CASE narinfo.node_state() WHEN 'primary' THEN 'primary'
				ELSE 'mirror' END::narinfo.node_role,
			m.upstream, m.caches, n.system_identifier,
			current_database(), x.extversion, n.epoch,
			CASE WHEN n.bound THEN n.promised ELSE 0 END,
			-- what join_site() was told stays when it is no mirror any more
			coalesce(m.conninfo, nullif(current_setting(
				'pg_narinfo.site_conninfo', true), ''), o.conninfo),
			coalesce(m.url, nullif(current_setting('pg_narinfo.site_url',
				true), ''), o.url),
			narinfo.site_reason(), clock_timestamp(),
			CASE WHEN n.bound THEN n.promised_to END, n.since
		FROM narinfo.node AS n CROSS JOIN pg_extension AS x
			LEFT JOIN narinfo.site AS o ON o.name = own
		WHERE x.extname = 'pg_narinfo'
		ON CONFLICT (name) DO UPDATE
		SET (role, upstream, caches, system_identifier, database, version,
				epoch, promised, conninfo, url, reason, reported, promised_to,
				since)
			= (excluded.role, excluded.upstream, excluded.caches,
				excluded.system_identifier, excluded.database,
				excluded.version, excluded.epoch, excluded.promised,
				excluded.conninfo, excluded.url, excluded.reason,
				excluded.reported, excluded.promised_to, excluded.since)
		-- when nothing is new, now and then does
		WHERE s.reported < excluded.reported - interval '5 s'
			OR (s.role, s.upstream, s.caches, s.system_identifier, s.database,
				s.version, s.epoch, s.promised, s.conninfo, s.url, s.reason,
				s.promised_to, s.since)
			IS DISTINCT FROM (excluded.role, excluded.upstream,
				excluded.caches, excluded.system_identifier,
				excluded.database, excluded.version, excluded.epoch,
				excluded.promised, excluded.conninfo, excluded.url,
				excluded.reason, excluded.promised_to, excluded.since);
END
$$;

COMMENT ON FUNCTION site_refresh() IS
'writes this site''s own rows of site and site_cache';

CREATE FUNCTION site_forget_idle() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gone text;
	n bigint := 0;
BEGIN
	UPDATE narinfo.site_link AS l SET seen = clock_timestamp()
		FROM pg_replication_slots AS r
		WHERE r.slot_name = l.slot AND r.active AND NOT l.joined;
	FOR gone IN SELECT l.site FROM narinfo.site_link AS l
		WHERE NOT l.joined AND clock_timestamp() - l.seen >
			current_setting('pg_narinfo.join_patience')::interval
	LOOP
		RAISE LOG 'site "%" has not come to the end of join_site: its slot is dropped',
			gone;
		PERFORM narinfo.dismiss_site(gone);
		n := n + 1;
	END LOOP;
	RETURN n;
END
$$;

COMMENT ON FUNCTION site_forget_idle() IS
'dismisses mirrors that have begun to join and were not seen for pg_narinfo.join_patience; how many';

CREATE FUNCTION site_health() RETURNS jsonb
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	reason text := narinfo.site_reason();
BEGIN
	RETURN jsonb_build_object(
		'status', CASE WHEN reason IS NULL THEN 'ok' ELSE 'unhealthy' END,
		'state', narinfo.node_state(), 'site', narinfo.site_name(),
		'upstream', (SELECT m.upstream FROM narinfo.mirror_state AS m),
		'reasons', CASE WHEN reason IS NULL THEN '[]'::jsonb
			ELSE jsonb_build_array(reason) END)
		-- whoever only reads may be sent here all the same
		|| coalesce((SELECT jsonb_build_object('pressure', p.level,
				'pressure_reason', p.reason)
			FROM narinfo.pressure_status() AS p WHERE p.level <> 'none'), '{}');
END
$$;

COMMENT ON FUNCTION site_health() IS
'what GET /health answers on a site that others know';

CREATE VIEW stat_sites AS
	SELECT s.name AS site, c.cache, s.role, s.upstream, s.epoch, c.seq,
		greatest(p.seq - c.seq, 0) AS lag_events,
		CASE WHEN r.slot_name IS NOT NULL AND NOT pg_is_in_recovery()
			THEN greatest(pg_current_wal_lsn() - r.confirmed_flush_lsn, 0)
			END AS lag_bytes,
		CASE WHEN s.role = 'primary' THEN 0
			WHEN c.seq < c.target THEN extract(epoch FROM
				clock_timestamp() - c.target_at)::float8
			ELSE 0 END AS lag_seconds,
		r.slot_name AS slot,
		CASE WHEN l.site IS NULL THEN NULL
			WHEN r.slot_name IS NULL THEN 'missing'
			WHEN r.wal_status = 'lost' THEN 'lost'
			WHEN r.active THEN 'active' ELSE 'idle' END AS slot_state,
		CASE WHEN r.slot_name IS NOT NULL AND NOT pg_is_in_recovery()
			THEN greatest(pg_current_wal_lsn() - r.restart_lsn, 0)
			END AS retained_wal,
		c.proof_seq, c.proof_at AS last_proof,
		coalesce(c.vote, false) AND (l.site IS NULL OR l.joined
			AND l.problem IS NULL AND l.dropped IS NULL) AS vote,
		s.reported,
		coalesce(site_slot_problem(s.name), l.problem || ': it has to join again',
			s.reason, CASE WHEN s.name <> site_name()
				AND clock_timestamp() - s.reported > '1 minute'
			THEN format('nothing was heard of it since %s',
				date_trunc('second', s.reported)) END) AS reason
	FROM site AS s
		LEFT JOIN site_cache AS c ON c.site = s.name
		LEFT JOIN site_link AS l ON l.site = s.name
		LEFT JOIN pg_catalog.pg_replication_slots AS r
			ON r.slot_name = l.slot
		LEFT JOIN site_cache AS p ON p.cache = c.cache
			AND p.site = site_primary();

COMMENT ON VIEW stat_sites IS
'every site and each of its caches, as far as this site has heard: its own rows and its slots are of now, those of others as they last reported';
COMMENT ON COLUMN stat_sites.site IS 'name of the site';
COMMENT ON COLUMN stat_sites.cache IS
'name of the cache; NULL: it has none with events';
COMMENT ON COLUMN stat_sites.role IS 'primary or mirror';
COMMENT ON COLUMN stat_sites.upstream IS 'the site that it mirrors';
COMMENT ON COLUMN stat_sites.epoch IS 'epoch of its events';
COMMENT ON COLUMN stat_sites.seq IS 'number of the last event that it has';
COMMENT ON COLUMN stat_sites.lag_events IS
'how many events the primary has beyond that';
COMMENT ON COLUMN stat_sites.lag_bytes IS
'bytes of write-ahead log of this site that it has not confirmed; NULL where it has no slot here';
COMMENT ON COLUMN stat_sites.lag_seconds IS
'for how long it has not reached a number of the primary that it knows of';
COMMENT ON COLUMN stat_sites.slot IS 'its replication slot here';
COMMENT ON COLUMN stat_sites.slot_state IS
'active, idle (it is not connected), lost, or missing; NULL where it has none here';
COMMENT ON COLUMN stat_sites.retained_wal IS
'bytes of write-ahead log that are kept here for that slot';
COMMENT ON COLUMN stat_sites.proof_seq IS
'number of the event at which it last compared itself with the digest';
COMMENT ON COLUMN stat_sites.last_proof IS 'when that was';
COMMENT ON COLUMN stat_sites.vote IS
'whether what it has confirmed counts as a copy';
COMMENT ON COLUMN stat_sites.reported IS 'when it last told of itself';
COMMENT ON COLUMN stat_sites.reason IS
'what is wrong, in words; NULL: clients may be sent there';

-- ---- being a mirror

CREATE FUNCTION site_bucket(hash store_hash, bits integer) RETURNS integer
	AS 'MODULE_PATHNAME'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION site_bucket(store_hash, integer) IS
'the first 0 to 16 bits of a hash part: which bucket it is in when two sites compare theirs';

CREATE PROCEDURE join_site(primary_conninfo text, site text,
		caches text[] DEFAULT NULL, conninfo text DEFAULT NULL,
		url text DEFAULT NULL)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE join_site(text, text, text[], text, text) IS
'makes this server a mirror, of this name, of the site that primary_conninfo leads to, the primary or another mirror: of all its caches, or of some, and then it cannot be promoted; conninfo and url tell the others where this site is. No connection string may have a password. Commits on its way, and is called again to go on';

CREATE PROCEDURE leave_site(force boolean DEFAULT false)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE leave_site(boolean) IS
'makes this mirror one no longer: subscription here and slot at the upstream go, what it has stays, and it publishes when narinfo.start() was called. With force also when the upstream cannot be told, which keeps the slot until dismiss_site() is called there';

CREATE PROCEDURE repoint(conninfo text)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE repoint(text) IS
'makes this mirror follow another site, without a new copy: what it does not have yet is fetched, exactly as of the moment from which the new slot goes on';

CREATE PROCEDURE verify_site()
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE verify_site() IS
'compares the rows of every cache with the digest of its last event; on a mirror also that digest with the upstream''s. What is not equal loses its vote, its rows are compared with the upstream''s and named in site_difference, and the call fails with NI011';

CREATE PROCEDURE repair_site(from_site text DEFAULT NULL)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE repair_site(text) IS
'makes the rows of this mirror that are not those of another site (the upstream when none is named) be so, then proves itself anew';

CREATE FUNCTION site_guard() RETURNS event_trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION site_guard() IS
'event trigger that refuses DROP EXTENSION on a site that others know, to upgrade it before its mirrors, and whatever would let the subscription confirm what is not on disk; notes who disables it by hand';

CREATE EVENT TRIGGER narinfo_site_guard ON ddl_command_start
	WHEN TAG IN ('DROP EXTENSION', 'ALTER EXTENSION', 'ALTER SUBSCRIPTION')
	EXECUTE FUNCTION site_guard();

-- ---- rights

REVOKE ALL ON PROCEDURE join_site(text, text, text[], text, text),
	leave_site(boolean), repoint(text), verify_site(), repair_site(text)
	FROM PUBLIC;

-- trash is no gated table, and comes to mirrors by replication alone
CREATE FUNCTION mirror_refuse() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION mirror_refuse() IS
'trigger that refuses changes where this server is a mirror, or fenced';

CREATE TRIGGER mirror_refuse BEFORE INSERT OR UPDATE OR DELETE ON trash
	FOR EACH STATEMENT EXECUTE FUNCTION mirror_refuse();

DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles
			WHERE rolname = 'narinfo_site') THEN
		CREATE ROLE narinfo_site NOLOGIN;
		COMMENT ON ROLE narinfo_site IS
		'to be granted to the roles as which mirrors connect: they read what is replicated, and report';
	END IF;
END
$$;

REVOKE ALL ON FUNCTION site_admit(jsonb), site_report(jsonb),
	dismiss_site(text), site_drop_link(text), site_refresh(), site_claim(), site_forget_idle(),
	site_reason(), site_health(), site_guard(), site_asked(),
	site_take(jsonb, jsonb, text), site_publish_tables(text, text[]),
	site_take_rows(text, text[], jsonb, text)
	FROM PUBLIC;
GRANT USAGE ON SCHEMA narinfo TO narinfo_site;
GRANT SELECT ON cache, valid_path, key, token, root, root_source, quota,
	trash, event, node TO narinfo_site;
GRANT EXECUTE ON FUNCTION site_admit(jsonb), site_report(jsonb),
	dismiss_site(text) TO narinfo_site;
GRANT EXECUTE ON FUNCTION dismiss_site(text), site_reason(), site_health()
	TO narinfo_admin;
GRANT SELECT ON site, site_cache, site_link, mirror_state, site_difference,
	stat_sites TO narinfo_reader, narinfo_publisher, narinfo_admin;

SELECT pg_catalog.pg_extension_config_dump('site', '');
SELECT pg_catalog.pg_extension_config_dump('site_cache', '');
