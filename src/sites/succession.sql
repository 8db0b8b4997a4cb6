--
-- Who publishes next: what the sites ask each other when one of them is to
-- become the primary instead of another.  src/sites/promise.c has the design.
--
CREATE TABLE orphan (
	orphan bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	cache text COLLATE "C" NOT NULL,
	seq bigint NOT NULL,
	epoch integer NOT NULL,
	at timestamptz NOT NULL,
	kind event_kind NOT NULL,
	hash store_hash,
	name text,
	lsn pg_lsn NOT NULL,
	digest bytea NOT NULL,
	info narinfo,
	found timestamptz NOT NULL DEFAULT clock_timestamp(),
	reason text NOT NULL,
	state text NOT NULL DEFAULT 'waiting',
	settled timestamptz,
	problem text,
	CONSTRAINT orphan_state_valid CHECK (state IN ('waiting', 'republished',
		'dropped'))
);

COMMENT ON TABLE orphan IS
'events of this server that the history of the primary does not have, since it went on without them; rejoin() moves them here';
COMMENT ON COLUMN orphan.orphan IS 'number of this row';
COMMENT ON COLUMN orphan.cache IS 'name of the cache';
COMMENT ON COLUMN orphan.seq IS
'number that the event had here; the primary has given it to another one';
COMMENT ON COLUMN orphan.epoch IS 'its epoch';
COMMENT ON COLUMN orphan.at IS 'when it was written';
COMMENT ON COLUMN orphan.kind IS 'what had happened';
COMMENT ON COLUMN orphan.hash IS 'the path that it is about, or NULL';
COMMENT ON COLUMN orphan.name IS
'the public key, token, pin or whatever else it is about, or NULL';
COMMENT ON COLUMN orphan.lsn IS
'position in the write-ahead log of this server when it was written';
COMMENT ON COLUMN orphan.digest IS 'digest of the cache after it, here';
COMMENT ON COLUMN orphan.info IS
'the narinfo, if it is about a path that was valid here at the end';
COMMENT ON COLUMN orphan.found IS 'when it was moved here';
COMMENT ON COLUMN orphan.reason IS 'why';
COMMENT ON COLUMN orphan.state IS
'waiting; republished, at the primary; or dropped, by settle_orphans()';
COMMENT ON COLUMN orphan.settled IS 'when it ceased to wait';
COMMENT ON COLUMN orphan.problem IS
'why the primary refused it when it was published again';

COMMENT ON SEQUENCE orphan_orphan_seq IS 'numbers of orphans';

CREATE INDEX orphan_waiting ON orphan (cache, seq) WHERE state = 'waiting';

CREATE FUNCTION settle_orphans(orphans bigint[] DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n bigint;
BEGIN
	UPDATE narinfo.orphan AS o
		SET state = 'dropped', settled = clock_timestamp()
		WHERE o.state = 'waiting'
			AND (orphans IS NULL OR o.orphan = ANY (orphans));
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END
$$;

COMMENT ON FUNCTION settle_orphans(bigint[]) IS
'marks orphans that wait, those with these numbers or all, as dropped: somebody has looked at them, and has done at the primary what was to be done again; how many';

-- ---- what a site tells who asks

CREATE FUNCTION site_numbers() RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL SAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_object_agg(e.cache, jsonb_build_object('seq', e.seq,
			'epoch', e.epoch, 'digest', encode(e.digest, 'hex'))), '{}')
		FROM narinfo.last_events() AS e;
$$;

COMMENT ON FUNCTION site_numbers() IS
'the last event of each cache: {cache: {seq, epoch, digest}}';

CREATE FUNCTION site_instance() RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT md5(concat_ws(' ', pg_postmaster_start_time(),
		current_setting('data_directory'), current_setting('port'),
		current_database()));
$$;

COMMENT ON FUNCTION site_instance() IS
'another text for every server that runs: a copy of one is not taken for it';

CREATE FUNCTION site_look() RETURNS jsonb
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT pg_is_in_recovery() THEN
		PERFORM narinfo.site_refresh();
	END IF;
	RETURN (SELECT jsonb_build_object('site', narinfo.site_name(),
			'state', narinfo.node_state(),
			'instance', narinfo.site_instance(), 'epoch', n.epoch,
			'promised', n.promised, 'promised_to', n.promised_to,
			'bound', n.bound, 'closed', n.closed,
			'closed_for', n.closed_for,
			'upstream', (SELECT m.upstream FROM narinfo.mirror_state AS m),
			'joined', coalesce((SELECT m.joined
				FROM narinfo.mirror_state AS m), false),
			'sites', (SELECT coalesce(jsonb_agg(to_jsonb(s)), '[]')
				FROM narinfo.site AS s WHERE s.name = narinfo.site_name()),
			'caches', (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]')
				FROM narinfo.site_cache AS c
				WHERE c.site = narinfo.site_name()))
		FROM narinfo.node AS n);
END
$$;

COMMENT ON FUNCTION site_look() IS
'who this server is and what it has promised, with its rows of site and site_cache; NULL where it has no identity';

CREATE FUNCTION site_less(sites jsonb, caches jsonb, OUT site text,
		OUT cache text, OUT told bigint, OUT seq bigint)
	RETURNS SETOF record
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT c.site, c.cache, t.seq, c.seq
		FROM jsonb_to_recordset(caches) AS t (site text, cache text, seq bigint)
			JOIN narinfo.site_cache AS c USING (site, cache)
			JOIN narinfo.site AS s ON s.name = c.site
		WHERE t.seq < c.seq AND NOT EXISTS (
			SELECT FROM jsonb_to_recordset(sites)
				AS o (name text, since timestamptz)
			WHERE o.name = c.site
				AND o.since > coalesce(s.since, '-infinity'));
$$;

COMMENT ON FUNCTION site_less(jsonb, jsonb) IS
'those of these rows of site_cache that say of a site that it has less than it had, with both numbers, told and seq: it was restored from an older copy, unless it has become another mirror, or primary, since, as these rows of site tell';

CREATE FUNCTION site_listen(sites jsonb, caches jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- it has become a mirror anew: what it reported until then was of before
	UPDATE narinfo.site_link AS l SET problem = NULL
		FROM jsonb_to_recordset(sites) AS o (name text, since timestamptz)
			JOIN narinfo.site AS s ON s.name = o.name
		WHERE l.site = o.name AND l.problem IS NOT NULL
			AND o.since > s.since;
	PERFORM narinfo.site_take(sites, (SELECT coalesce(jsonb_agg(t.r), '[]')
			FROM jsonb_array_elements(caches) AS t (r)
			WHERE (t.r->>'site', t.r->>'cache') NOT IN (
				SELECT s.site, s.cache
				FROM narinfo.site_less(sites, caches) AS s)),
		narinfo.site_name());
	DELETE FROM narinfo.site_cache AS c
		USING jsonb_array_elements(sites) AS s (r)
		WHERE c.site = s.r->>'name' AND c.site <> narinfo.site_name()
			AND NOT EXISTS (SELECT FROM jsonb_array_elements(caches) AS t (r)
				WHERE t.r->>'site' = c.site AND t.r->>'cache' = c.cache);
END
$$;

COMMENT ON FUNCTION site_listen(jsonb, jsonb) IS
'takes all that is told of these sites: rows of site, and all of their rows of site_cache';

-- ---- promises

CREATE FUNCTION site_subscription(enable boolean) RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION site_subscription(boolean) IS
'enables the subscription of this mirror, unless somebody or an error of the data has stopped it, or disables it; nothing where there is none';

CREATE FUNCTION site_promise(epoch integer, candidate text) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n narinfo.node;
	state text := narinfo.node_state();
BEGIN
	SELECT * INTO n FROM narinfo.node FOR UPDATE;
	IF state <> 'mirror' OR NOT n.consistent THEN
		RETURN jsonb_build_object('refused', format('it is %s',
			CASE WHEN state = 'mirror' THEN 'being filled' ELSE state END));
	END IF;
	IF site_promise.epoch <= n.epoch THEN
		RETURN jsonb_build_object('refused', format('it follows epoch %s',
			n.epoch));
	END IF;
	IF site_promise.epoch < n.promised OR site_promise.epoch = n.promised
			AND NOT (n.bound AND n.promised_to = candidate) THEN
		RETURN jsonb_build_object('refused', format(
			'it has promised epoch %s to site "%s"', n.promised,
			n.promised_to));
	END IF;
	UPDATE narinfo.node AS o SET promised = site_promise.epoch,
		promised_to = candidate, bound = true;
	PERFORM narinfo.site_subscription(false);
	RETURN '{}';
END
$$;

COMMENT ON FUNCTION site_promise(integer, text) IS
'has this mirror promise an epoch to a site that would be the primary, once and for ever, and stops its subscription; the reply has refused, a reason, if it does not';

CREATE FUNCTION site_positions(epoch integer, candidate text) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM narinfo.node AS n WHERE n.bound
			AND n.promised = site_positions.epoch
			AND n.promised_to = candidate) THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('site "%s" is not bound to epoch %s of site "%s"',
				narinfo.site_name(), epoch, candidate);
	END IF;
	IF EXISTS (SELECT FROM pg_stat_subscription AS s
			JOIN pg_subscription AS t ON t.oid = s.subid
			WHERE s.pid IS NOT NULL AND t.subname = 'narinfo'
				AND t.subdbid = (SELECT d.oid FROM pg_database AS d
				WHERE d.datname = current_database())) THEN
		RETURN NULL;
	END IF;
	RETURN narinfo.site_numbers();
END
$$;

COMMENT ON FUNCTION site_positions(integer, text) IS
'what a mirror that is bound by this promise has, see site_numbers(); NULL while something may still be applied';

CREATE FUNCTION site_release(epoch integer, candidate text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE narinfo.node AS n SET bound = false WHERE n.bound
		AND n.promised = site_release.epoch AND n.promised_to = candidate;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM narinfo.site_subscription(true);
	RETURN true;
END
$$;

COMMENT ON FUNCTION site_release(integer, text) IS
'frees this mirror from a promise that the candidate has given up: it goes on as before, and promises this epoch to nobody any more; whether it was bound by it';

CREATE FUNCTION release_promise() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n narinfo.node;
BEGIN
	SELECT * INTO n FROM narinfo.node FOR UPDATE;
	RETURN n.bound AND narinfo.site_release(n.promised, n.promised_to);
END
$$;

COMMENT ON FUNCTION release_promise() IS
'what an administrator calls at a mirror that is bound by a promise to a site that is gone for good and has never published in that epoch: the mirror follows its upstream again; whether it was bound';

CREATE FUNCTION site_burn(epoch integer) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n narinfo.node;
BEGIN
	SELECT * INTO n FROM narinfo.node FOR UPDATE;
	IF n.epoch >= site_burn.epoch THEN
		RETURN false;
	END IF;
	UPDATE narinfo.node AS o SET promised = site_burn.epoch,
			promised_to = NULL, bound = false
		WHERE o.promised < site_burn.epoch;
	RETURN true;
END
$$;

COMMENT ON FUNCTION site_burn(integer) IS
'has this site never take over in this epoch; false if it has already';

-- ---- taking over

CREATE FUNCTION site_take_over(epoch integer, numbers jsonb) RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION site_take_over(integer, jsonb) IS
'what switchover() asks of the new primary: it publishes in this epoch from the commit on, if it has exactly these numbers, see site_numbers()';

CREATE FUNCTION site_pass_cache(cache text) RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION site_pass_cache(text) IS
'waits until whoever is committing a change of the cache has done so';

CREATE FUNCTION site_close(why text, site text, epoch integer)
	RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE narinfo.node AS n
		SET closed = why, closed_for = site_close.site,
			closed_epoch = site_close.epoch
		WHERE n.role = 'primary' AND (n.closed IS NULL
			OR why = 'epoch' AND (n.closed IN ('promise', 'behind', 'clone')
			OR n.closed = 'switchover' AND n.closed_for <> site_close.site));
	IF FOUND THEN
		RAISE LOG 'this server does not publish any more, because of site "%" (%, epoch %)',
			site, why, epoch;
	END IF;
	RETURN FOUND;
END
$$;

COMMENT ON FUNCTION site_close(text, text, integer) IS
'has this primary not publish any more: see node.closed; false if it did not';

CREATE FUNCTION site_judge(asked text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n narinfo.node;
	own text := narinfo.site_name();
	other record;
BEGIN
	SELECT * INTO n FROM narinfo.node;
	IF n.role IS DISTINCT FROM 'primary'
			OR narinfo.node_state() NOT IN ('primary', 'closed') THEN
		RETURN;
	END IF;
	SELECT s.name, s.epoch INTO other FROM narinfo.site AS s
		WHERE s.name <> own AND s.epoch > n.epoch
		ORDER BY s.role, s.epoch DESC LIMIT 1;
	IF FOUND THEN
		PERFORM narinfo.site_close('epoch', other.name, other.epoch);
		RETURN;
	END IF;
	SELECT coalesce(s.promised_to, s.name) AS name, s.promised INTO other
		FROM narinfo.site AS s WHERE s.name <> own AND s.promised > n.epoch
		ORDER BY s.promised DESC LIMIT 1;
	IF FOUND THEN
		PERFORM narinfo.site_close('promise', other.name, other.promised);
		RETURN;
	END IF;
	-- whoever mirrors us cannot have more that we have written; what is just
	-- being committed it may have before we see it
	FOR other IN SELECT c.site, c.cache, c.seq FROM narinfo.site_cache AS c
			JOIN narinfo.site AS s ON s.name = c.site
			WHERE s.name <> own AND s.upstream IS NOT NULL
				AND s.epoch = n.epoch AND c.epoch = n.epoch
				AND c.seq > narinfo.last_event(c.cache)
	LOOP
		PERFORM narinfo.site_pass_cache(other.cache);
		IF other.seq > narinfo.last_event(other.cache) THEN
			PERFORM narinfo.site_close('behind', other.site, n.epoch);
		END IF;
	END LOOP;
	-- a promise that was given up; who has it has just said so
	UPDATE narinfo.node AS o
		SET closed = NULL, closed_for = NULL, closed_epoch = NULL
		WHERE o.closed = 'promise' AND o.closed_for = ANY (asked);
	IF FOUND THEN
		RAISE LOG 'this server publishes again: site "%" has given up epoch %',
			n.closed_for, n.closed_epoch;
	END IF;
END
$$;

COMMENT ON FUNCTION site_judge(text[]) IS
'closes this primary if what it has heard of others says that it must not publish; opens it when the site that a promise was given to, one of those that were just asked, has given it up';

CREATE FUNCTION site_hear(sites jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM narinfo.site_take(sites, '[]', narinfo.site_name());
	PERFORM narinfo.site_judge('{}');
END
$$;

COMMENT ON FUNCTION site_hear(jsonb) IS
'what who has become the primary tells of itself at once: rows of site';

CREATE FUNCTION reopen_site() RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	result integer;
BEGIN
	IF narinfo.node_state() NOT IN ('primary', 'closed') THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('this server is %s, and was not the primary',
				narinfo.node_state()),
			HINT = 'CALL narinfo.promote() makes a mirror the primary.';
	END IF;
	UPDATE narinfo.node AS n SET closed = NULL, closed_for = NULL,
			closed_epoch = NULL, since = clock_timestamp(),
			(epoch, promised) = (SELECT max(e) + 1, max(e) + 1
				FROM (VALUES (n.epoch), (n.promised),
					(coalesce(n.closed_epoch, 0)),
					((SELECT max(greatest(s.epoch, s.promised))
						FROM narinfo.site AS s))) AS v (e)),
			promised_to = n.site, bound = false
		RETURNING n.epoch INTO result;
	RETURN result;
END
$$;

COMMENT ON FUNCTION reopen_site() IS
'what an administrator calls at a server that was the primary and is closed, or at one of two that publish, when it is the one that shall publish: it does so in a new epoch, which is returned, and all others follow it or have to rejoin; whatever another one has published meanwhile is not in its history';

CREATE FUNCTION site_unlink(site text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	taken name;
BEGIN
	SELECT l.slot INTO taken FROM narinfo.site_link AS l
		WHERE l.site = site_unlink.site FOR UPDATE;
	RETURN NOT EXISTS (SELECT FROM pg_replication_slots AS r
			WHERE r.slot_name = taken AND r.active)
		AND narinfo.site_drop_link(site);
END
$$;

COMMENT ON FUNCTION site_unlink(text) IS
'drops the slot of a site that does not mirror this one any more; false while it is in use, or when there is none';

CREATE FUNCTION site_least_copies() RETURNS integer
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(min(c.n), 1) FROM (
		SELECT (to_jsonb(k)->>'push_copies')::integer AS n
		FROM narinfo.cache AS k) AS c WHERE c.n >= 1;
$$;

COMMENT ON FUNCTION site_least_copies() IS
'the least number of copies, 1 or more, with which anything was acknowledged, as the caches are set now: what promote() counts with';

-- ---- the calls

CREATE PROCEDURE promote(accept_loss boolean DEFAULT false)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE promote(boolean) IS
'makes this mirror the primary when the old one is lost: enough other mirrors have to promise to follow, and none of them to have more; else it is refused, saying what would be lost, unless that is accepted. The others follow by themselves';

CREATE PROCEDURE switchover(to_site text)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE switchover(text) IS
'has another site, a mirror of all caches, publish instead of this one, the primary, which becomes its mirror: changes are refused for moments, and nothing is lost. The others follow by themselves. Called again to go on';

CREATE PROCEDURE rejoin(conninfo text)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE rejoin(text) IS
'has an old primary that returns, one that was restored from a backup, or a mirror whose history is another than the primary''s follow it: events that the primary does not have go to orphan, its rows become what the primary has, and the publishes among these events are published again. Called again to go on';

-- ---- rights

REVOKE ALL ON PROCEDURE promote(boolean), switchover(text),
	rejoin(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION settle_orphans(bigint[]), site_numbers(),
	site_instance(), site_less(jsonb, jsonb),
	site_listen(jsonb, jsonb), site_look(), site_subscription(boolean),
	site_promise(integer, text), site_positions(integer, text),
	site_release(integer, text), release_promise(), site_burn(integer),
	site_take_over(integer, jsonb), site_pass_cache(text), site_hear(jsonb),
	site_close(text, text, integer), site_judge(text[]), reopen_site(),
	site_unlink(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION site_numbers(), site_look(),
	site_promise(integer, text), site_positions(integer, text),
	site_release(integer, text), site_burn(integer),
	site_take_over(integer, jsonb), site_hear(jsonb) TO narinfo_site;
GRANT EXECUTE ON FUNCTION settle_orphans(bigint[]), release_promise(),
	reopen_site() TO narinfo_admin;
GRANT SELECT ON orphan TO narinfo_reader, narinfo_publisher, narinfo_admin;
