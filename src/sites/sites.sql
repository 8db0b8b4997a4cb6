--
-- Sites: servers that have the same caches, by logical replication.
--
-- One site is the primary, which publishes; the others are mirrors, of it or
-- of another mirror, so that they make up a tree.  What is in the caches comes
-- down by a subscription of each mirror to its upstream.  What the sites tell
-- of themselves, their rows of site and site_cache, goes another way: each
-- mirror reports its own rows and those of the sites below it to its upstream,
-- and gets all others in return, so it costs no slot.
--
CREATE TABLE site (
	name text COLLATE "C" PRIMARY KEY,
	role node_role NOT NULL,
	upstream text COLLATE "C",
	caches text[],
	system_identifier bigint NOT NULL,
	database text NOT NULL,
	version text NOT NULL,
	epoch integer NOT NULL,
	promised integer NOT NULL,
	conninfo text,
	url text,
	reason text,
	reported timestamptz NOT NULL,
	promised_to text COLLATE "C",
	since timestamptz,
	CONSTRAINT site_name_valid CHECK (name ~ '^[a-z][a-z0-9_]{0,49}$')
) WITH (fillfactor = 50);

COMMENT ON TABLE site IS
'the sites, as each tells of itself: a site writes its own row alone, and its mirrors have it reported';
COMMENT ON COLUMN site.name IS
'name of the site: a letter, then up to 49 of [a-z0-9_]';
COMMENT ON COLUMN site.role IS
'primary: it publishes; whoever does not, for whatever reason, is a mirror';
COMMENT ON COLUMN site.upstream IS
'the site that it mirrors; NULL: none, as of the primary';
COMMENT ON COLUMN site.caches IS
'the caches that it takes; NULL: all. Who takes some only cannot be promoted';
COMMENT ON COLUMN site.system_identifier IS
'of its server, as pg_control_system() has it';
COMMENT ON COLUMN site.database IS 'name of its database';
COMMENT ON COLUMN site.version IS 'version of the extension there';
COMMENT ON COLUMN site.epoch IS
'epoch that it writes, or applies, events of';
COMMENT ON COLUMN site.promised IS
'an epoch that it has promised to follow and waits for, see node.bound; 0: none';
COMMENT ON COLUMN site.promised_to IS 'the site that it has promised that to';
COMMENT ON COLUMN site.since IS
'when it began to be what it is, see node.since: only then it may have come to have less than before';
COMMENT ON COLUMN site.conninfo IS
'how the other sites connect to it, without a password; NULL: not said';
COMMENT ON COLUMN site.url IS
'URL at which clients and other sites find it; NULL: not said';
COMMENT ON COLUMN site.reason IS
'why no client should be sent there; NULL: one may';
COMMENT ON COLUMN site.reported IS 'when it told this, by its own clock';

CREATE TABLE site_cache (
	site text COLLATE "C" NOT NULL,
	cache text COLLATE "C" NOT NULL,
	seq bigint NOT NULL,
	epoch integer NOT NULL,
	digest bytea NOT NULL,
	at timestamptz NOT NULL,
	target bigint NOT NULL DEFAULT 0,
	target_at timestamptz,
	proof_seq bigint,
	proof_at timestamptz,
	problem text,
	vote boolean NOT NULL DEFAULT false,
	watermark bigint,
	files bigint,
	files_problem text,
	PRIMARY KEY (site, cache)
) WITH (fillfactor = 50);

COMMENT ON TABLE site_cache IS
'how far each site is with each cache, as it tells itself';
COMMENT ON COLUMN site_cache.site IS 'name of the site';
COMMENT ON COLUMN site_cache.cache IS 'name of the cache';
COMMENT ON COLUMN site_cache.seq IS 'number of its last event there';
COMMENT ON COLUMN site_cache.epoch IS 'epoch of that event';
COMMENT ON COLUMN site_cache.digest IS 'digest of the cache after that event';
COMMENT ON COLUMN site_cache.at IS 'when that event was written, by the primary''s clock';
COMMENT ON COLUMN site_cache.target IS
'a number that the primary had reached at target_at, the last one that this site looks out for';
COMMENT ON COLUMN site_cache.target_at IS
'when it learned of that number; while seq is less, it lags since then';
COMMENT ON COLUMN site_cache.proof_seq IS
'number at which its rows were last compared with the digest';
COMMENT ON COLUMN site_cache.proof_at IS 'when that was';
COMMENT ON COLUMN site_cache.problem IS
'what was wrong then; NULL: it was proved that the cache is equal';
COMMENT ON COLUMN site_cache.vote IS
'whether what this site has confirmed counts as a copy: it has proved itself, in its epoch';
COMMENT ON COLUMN site_cache.watermark IS
'of the primary: the number up to which enough sites have everything; NULL: not told';
COMMENT ON COLUMN site_cache.files IS
'of a mirror, where the cache has copies_include_files: number of the event up to which it has the file of every path that is valid; NULL: not known';
COMMENT ON COLUMN site_cache.files_problem IS
'what keeps that number from growing, in words; NULL: nothing';

-- ---- what is a site's own: neither replicated nor dumped

CREATE TABLE site_link (
	site text COLLATE "C" PRIMARY KEY,
	slot name NOT NULL,
	publication name NOT NULL,
	caches text[],
	system_identifier bigint NOT NULL,
	joined boolean NOT NULL DEFAULT false,
	since timestamptz NOT NULL,
	seen timestamptz NOT NULL,
	told timestamptz,
	problem text,
	dropped text,
	less timestamptz
);

COMMENT ON TABLE site_link IS
'mirrors of this site: each has a slot here, and a publication';
COMMENT ON COLUMN site_link.site IS 'name of the mirror';
COMMENT ON COLUMN site_link.slot IS 'its replication slot';
COMMENT ON COLUMN site_link.publication IS 'what it subscribes to';
COMMENT ON COLUMN site_link.caches IS 'the caches in that; NULL: all';
COMMENT ON COLUMN site_link.system_identifier IS 'of its server';
COMMENT ON COLUMN site_link.joined IS
'whether it has everything; until then it is forgotten, with its slot, when nothing is seen of it for pg_narinfo.join_patience';
COMMENT ON COLUMN site_link.since IS 'when it came';
COMMENT ON COLUMN site_link.seen IS 'when it was last seen';
COMMENT ON COLUMN site_link.told IS 'when it last reported, by its own clock';
COMMENT ON COLUMN site_link.problem IS
'why what its slot has confirmed counts no more, until it joins or is pointed here again; NULL: it counts';
COMMENT ON COLUMN site_link.dropped IS
'when and why its slot was dropped, to make room for write-ahead log: it has to join again; NULL: it was not';
COMMENT ON COLUMN site_link.less IS 'when it first reported to have less than it had told; NULL: it does not';

CREATE TABLE mirror_state (
	upstream text COLLATE "C" NOT NULL,
	caches text[],
	conninfo text,
	url text,
	joined boolean NOT NULL DEFAULT false,
	paused boolean NOT NULL DEFAULT false,
	error_code text,
	error text,
	error_at timestamptz,
	busy_pid integer,
	busy_since timestamptz,
	reported timestamptz,
	report_error text,
	direct boolean NOT NULL DEFAULT false,
	forked text,
	slot_problem text
);

CREATE UNIQUE INDEX mirror_state_one_row ON mirror_state ((true));

COMMENT ON TABLE mirror_state IS
'of a mirror: what it follows, in one row; how it connects to that stands in its subscription, narinfo, alone';
COMMENT ON COLUMN mirror_state.upstream IS 'name of the site that it follows';
COMMENT ON COLUMN mirror_state.caches IS 'the caches that it takes; NULL: all';
COMMENT ON COLUMN mirror_state.conninfo IS
'how others connect to this site, as join_site was told';
COMMENT ON COLUMN mirror_state.url IS
'where clients find this site, as join_site was told';
COMMENT ON COLUMN mirror_state.joined IS
'whether join_site has come to its end';
COMMENT ON COLUMN mirror_state.paused IS
'whether somebody has disabled the subscription by hand';
COMMENT ON COLUMN mirror_state.error_code IS
'SQLSTATE of the error that has stopped the subscription, if that was for the data''s sake: it does not resume by itself';
COMMENT ON COLUMN mirror_state.error IS 'that error';
COMMENT ON COLUMN mirror_state.error_at IS 'when it came';
COMMENT ON COLUMN mirror_state.busy_pid IS
'process of a call that has disabled the subscription, and enables it again';
COMMENT ON COLUMN mirror_state.busy_since IS 'when that call began';
COMMENT ON COLUMN mirror_state.reported IS
'when the upstream was last told of this site';
COMMENT ON COLUMN mirror_state.report_error IS
'why that failed the last time; NULL: it did not';
COMMENT ON COLUMN mirror_state.direct IS
'whether the upstream was the primary when this site began to follow it: then it follows whoever becomes the primary next';
COMMENT ON COLUMN mirror_state.forked IS
'why this site cannot follow the primary, which does not have all of its events; NULL: nothing is known against it';
COMMENT ON COLUMN mirror_state.slot_problem IS
'what became of the slot of this site there, when it cannot go on from it; NULL: nothing';

CREATE TABLE site_difference (
	cache text COLLATE "C" NOT NULL,
	table_name text COLLATE "C" NOT NULL,
	key text NOT NULL,
	kind text NOT NULL,
	found timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE site_difference IS
'rows of this site that are not what the compared site has, as verify_site() found them; repair_site() mends them';
COMMENT ON COLUMN site_difference.cache IS 'name of the cache';
COMMENT ON COLUMN site_difference.table_name IS 'the table';
COMMENT ON COLUMN site_difference.key IS
'the row: the hash part of a path, or the key';
COMMENT ON COLUMN site_difference.kind IS
'missing here, extra here, or different';
COMMENT ON COLUMN site_difference.found IS 'when that was found';

-- ---- names

CREATE FUNCTION site_name() RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN coalesce((SELECT n.site FROM narinfo.node AS n),
		nullif(current_setting('pg_narinfo.site', true), ''), 'primary');
END
$$;

COMMENT ON FUNCTION site_name() IS
'name of this site: as the others know it, else the setting pg_narinfo.site, else primary';

CREATE FUNCTION site_tables() RETURNS text[]
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT ARRAY['cache', 'valid_path', 'key', 'token', 'root',
		'root_source', 'quota', 'trash', 'event'];
END;

COMMENT ON FUNCTION site_tables() IS
'the tables whose rows are replicated';

CREATE FUNCTION site_primary() RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
	SELECT s.name FROM site AS s WHERE s.role = 'primary'
		ORDER BY s.epoch DESC, s.name LIMIT 1;
END;

COMMENT ON FUNCTION site_primary() IS
'name of the site that publishes, as far as this one has heard; NULL: of none';

-- ---- what a mirror asks of its upstream

CREATE FUNCTION site_claim() RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION site_claim() IS
'gives an empty database its identity, as the first write does; fails where nothing may be published';

CREATE FUNCTION site_asked() RETURNS void
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION site_asked() IS
'notes that since this server was started all sites that it knows have been asked who publishes; until then it does not';

CREATE FUNCTION site_publish_tables(publication text, caches text[])
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	tables text;
	list text := (SELECT string_agg(quote_literal(c), ', ')
		FROM unnest(caches) AS c);
BEGIN
	IF (SELECT count(*) FROM pg_publication_tables AS p
			WHERE p.pubname = publication AND p.schemaname = 'narinfo')
			= cardinality(narinfo.site_tables()) THEN
		RETURN;
	END IF;
	SELECT string_agg(CASE WHEN list IS NULL
			THEN format('narinfo.%I', t)
			ELSE format('narinfo.%I WHERE (%s IN (%s))', t,
				CASE t WHEN 'cache' THEN 'name' ELSE 'cache' END, list) END,
		', ')
		INTO tables FROM unnest(narinfo.site_tables()) AS t;
	IF EXISTS (SELECT FROM pg_publication AS p WHERE p.pubname = publication)
	THEN
		EXECUTE format('ALTER PUBLICATION %I SET TABLE %s', publication,
			tables);
	ELSE
		EXECUTE format('CREATE PUBLICATION %I FOR TABLE %s
			WITH (publish = ''insert, update, delete'')', publication, tables);
	END IF;
END
$$;

COMMENT ON FUNCTION site_publish_tables(text, text[]) IS
'makes a publication of the replicated tables, of these caches alone unless they are NULL';

CREATE FUNCTION site_admit(request jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	site text := request->>'site';
	wanted text[] := (SELECT array_agg(c ORDER BY c)
		FROM jsonb_array_elements_text(nullif(request->'caches', 'null')) AS c);
	state text := narinfo.node_state();
	own text;
	mine text[];
	link narinfo.site_link;
BEGIN
	IF state = 'new' THEN
		PERFORM narinfo.site_claim();
		state := narinfo.node_state();
	END IF;
	IF state NOT IN ('primary', 'mirror')
			OR NOT (SELECT n.consistent FROM narinfo.node AS n) THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('site "%s" cannot be mirrored now',
				narinfo.site_name()),
			DETAIL = format('It is %s.', CASE WHEN state = 'mirror'
				THEN 'a mirror that is being filled' ELSE state END);
	END IF;
	LOCK TABLE narinfo.site_link IN SHARE ROW EXCLUSIVE MODE;
	IF (request->>'epoch')::integer
			> (SELECT n.epoch FROM narinfo.node AS n) THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('site "%s" cannot be mirrored by one of a later epoch',
				narinfo.site_name()),
			DETAIL = format('Site "%s" has epoch %s, and this one %s.', site,
				request->>'epoch', (SELECT n.epoch FROM narinfo.node AS n));
	END IF;
	own := narinfo.site_name();
	IF own !~ '^[a-z][a-z0-9_]{0,49}$' THEN
		RAISE invalid_name USING
			MESSAGE = format('"%s" is no name for a site', own),
			DETAIL = 'A name is a letter of [a-z], then up to 49 of [a-z0-9_].',
			HINT = 'Set pg_narinfo.site there.';
	END IF;
	UPDATE narinfo.node AS n SET site = own WHERE n.site IS NULL;
	IF FOUND THEN
		-- until now it knew none
		PERFORM narinfo.site_asked();
	END IF;
	IF own = site THEN
		RAISE duplicate_object USING
			MESSAGE = format('site "%s" cannot mirror itself', own),
			HINT = 'Give the new site another name.';
	END IF;
	SELECT l.* INTO link FROM narinfo.site_link AS l
		WHERE l.site = request->>'site';
	IF FOUND AND link.joined AND link.system_identifier <>
			(request->>'system_identifier')::bigint
		OR EXISTS (SELECT FROM narinfo.site AS s
			WHERE s.name = request->>'site' AND s.system_identifier
				<> (request->>'system_identifier')::bigint) THEN
		RAISE duplicate_object USING
			MESSAGE = format('there is another site "%s"', site),
			HINT = format('Give the new site another name, or, if the old one is gone for good: SELECT narinfo.dismiss_site(%L)', site);
	END IF;
	mine := (SELECT m.caches FROM narinfo.mirror_state AS m);
	wanted := coalesce(wanted, mine);
	IF NOT wanted <@ mine THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('site "%s" does not have all of these caches', own),
			DETAIL = format('It has %s.', array_to_string(mine, ', '));
	END IF;
	IF link.caches IS DISTINCT FROM wanted THEN
		EXECUTE format('DROP PUBLICATION IF EXISTS %I', 'narinfo_' || site);
	END IF;
	-- what it has confirmed counts again when it has everything
	IF link.dropped IS NOT NULL THEN
		DELETE FROM narinfo.site_cache AS c WHERE c.site = link.site;
	END IF;
	INSERT INTO narinfo.site_link AS l
		VALUES (site, 'narinfo_' || site,
			CASE WHEN wanted IS NULL THEN 'narinfo' ELSE 'narinfo_' || site END,
			wanted, (request->>'system_identifier')::bigint, false,
			clock_timestamp(), clock_timestamp())
		ON CONFLICT ON CONSTRAINT site_link_pkey DO UPDATE
		SET publication = excluded.publication, caches = excluded.caches,
			system_identifier = excluded.system_identifier,
			-- its slot says nothing until it has everything, and reports
			joined = false, problem = NULL, told = NULL, dropped = NULL,
			seen = excluded.seen
		RETURNING l.* INTO link;
	PERFORM narinfo.site_publish_tables(link.publication, wanted);
	RETURN jsonb_build_object('site', own, 'role', state,
		'epoch', (SELECT n.epoch FROM narinfo.node AS n),
		'slot', link.slot, 'publication', link.publication,
		'caches', to_jsonb(wanted), 'above', (
			WITH RECURSIVE up (name, n) AS (
				SELECT own COLLATE "C", 1
				UNION ALL
				SELECT s.upstream, u.n + 1 FROM up AS u
				JOIN narinfo.site AS s ON s.name = u.name
				WHERE s.upstream IS NOT NULL AND u.n < 100)
			SELECT jsonb_agg(u.name) FROM up AS u));
END
$$;

COMMENT ON FUNCTION site_admit(jsonb) IS
'what join_site() and repoint() ask of the upstream: notes the mirror in site_link and makes its publication';

CREATE FUNCTION site_drop_link(site text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	link narinfo.site_link;
BEGIN
	SELECT l.* INTO link FROM narinfo.site_link AS l
		WHERE l.site = site_drop_link.site FOR UPDATE;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM pg_drop_replication_slot(r.slot_name)
		FROM pg_replication_slots AS r
		WHERE r.slot_name = link.slot AND r.database = current_database();
	DELETE FROM narinfo.site_link AS l WHERE l.site = site_drop_link.site;
	IF NOT EXISTS (SELECT FROM narinfo.site_link AS l
			WHERE l.publication = link.publication) THEN
		EXECUTE format('DROP PUBLICATION IF EXISTS %I', link.publication);
	END IF;
	RETURN true;
END
$$;

COMMENT ON FUNCTION site_drop_link(text) IS
'drops the slot of a mirror of this site, with its row of site_link and, after the last one, the publication; fails while the slot is in use, false if there was none';

CREATE FUNCTION dismiss_site(site text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	linked boolean := narinfo.site_drop_link(dismiss_site.site);
BEGIN
	IF linked THEN
		DELETE FROM narinfo.site_cache AS c WHERE c.site = dismiss_site.site;
	END IF;
	DELETE FROM narinfo.site AS s WHERE s.name = dismiss_site.site
		AND s.name <> narinfo.site_name();
	RETURN linked;
END
$$;

COMMENT ON FUNCTION dismiss_site(text) IS
'forgets a mirror of this site, with its slot and its publication; what leave_site() asks of the upstream, and what an administrator does when a mirror is gone for good. Fails while the mirror is connected; false if there was none';

CREATE FUNCTION site_slot_problem(site text) RETURNS text
	LANGUAGE plpgsql STABLE STRICT PARALLEL RESTRICTED
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (SELECT CASE
			WHEN l.dropped IS NOT NULL
			THEN format('its slot was dropped: it has to join again (%s)',
				l.dropped)
			WHEN r.slot_name IS NULL
			THEN 'its slot is gone: it has to join again'
			WHEN r.wal_status = 'lost'
			THEN 'its slot has lost what it needs: it has to join again' END
		FROM narinfo.site_link AS l LEFT JOIN pg_replication_slots AS r
			ON r.slot_name = l.slot
		WHERE l.site = site_slot_problem.site);
END
$$;

COMMENT ON FUNCTION site_slot_problem(text) IS
'why a mirror of this site cannot go on from its slot, in words; NULL: it can';

CREATE FUNCTION site_report(report jsonb) RETURNS jsonb
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	told text[] := ARRAY(SELECT s->>'name'
		FROM jsonb_array_elements(report->'sites') AS s);
	lost jsonb := (SELECT to_jsonb(s)
		FROM narinfo.site_less(report->'sites', report->'caches') AS s
		WHERE s.site = report->>'site' LIMIT 1);
BEGIN
	-- of what it has less its slot knows nothing; but we may have asked it
	-- while the report was on its way, so it takes two
	UPDATE narinfo.site_link AS l SET
			problem = CASE WHEN lost IS NOT NULL AND l.problem IS NULL
					AND (report->>'at')::timestamptz > l.less + interval '1 s'
				THEN format('it has event %s of cache %s, and had event %s: it is an older copy of itself',
					lost->>'told', lost->>'cache', lost->>'seq')
				ELSE l.problem END,
			less = CASE WHEN lost IS NOT NULL THEN coalesce(l.less,
				(report->>'at')::timestamptz) END
		WHERE l.site = report->>'site'
			AND (lost IS NOT NULL OR l.less IS NOT NULL);
	-- of one that has not come to the end, its slot tells: site_forget_idle()
	UPDATE narinfo.site_link AS l SET
			seen = CASE WHEN l.joined OR (report->>'joined')::boolean
				THEN clock_timestamp() ELSE l.seen END,
			joined = l.joined OR (report->>'joined')::boolean,
			told = greatest(l.told, (report->>'at')::timestamptz)
		WHERE l.site = report->>'site' AND l.system_identifier =
			(report->>'system_identifier')::bigint;
	IF NOT FOUND THEN
		RAISE object_not_in_prerequisite_state USING
			MESSAGE = format('site "%s" is no mirror of site "%s"',
				report->>'site', narinfo.site_name()),
			HINT = 'It was dismissed: let it leave, and join again.';
	END IF;
	PERFORM narinfo.site_listen(report->'sites', report->'caches');
	IF lost IS NOT NULL THEN
		-- until it tells of as much as before
		UPDATE narinfo.site_cache AS c SET vote = false
			WHERE c.site = report->>'site' AND c.vote;
	END IF;
	-- sites below it that it does not know any more have left
	WITH RECURSIVE down (name, n) AS (
			SELECT s.name, 1 FROM narinfo.site AS s
			WHERE s.upstream = report->>'site'
			UNION
			SELECT s.name, d.n + 1 FROM down AS d
			JOIN narinfo.site AS s ON s.upstream = d.name WHERE d.n < 100),
		gone AS (DELETE FROM narinfo.site AS s
			WHERE s.name IN (SELECT d.name FROM down AS d)
				AND s.name <> ALL (told) AND s.name <> narinfo.site_name()
				AND s.name NOT IN (SELECT l.site FROM narinfo.site_link AS l)
			RETURNING s.name)
	DELETE FROM narinfo.site_cache AS c
		WHERE c.site IN (SELECT g.name FROM gone AS g);
	PERFORM narinfo.site_judge('{}');
	PERFORM narinfo.site_refresh();
	PERFORM narinfo.copies_told();
	RETURN jsonb_build_object('site', narinfo.site_name(), 'lost', lost,
		'slot_problem', narinfo.site_slot_problem(report->>'site'),
		-- of itself in any case: who was its upstream until now takes it for
		-- one of those below
		'sites', (SELECT jsonb_agg(to_jsonb(s)) FROM narinfo.site AS s
			WHERE s.name <> ALL (told) OR s.name = narinfo.site_name()),
		'caches', (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]')
			FROM narinfo.site_cache AS c
			WHERE c.site <> ALL (told) OR c.site = narinfo.site_name()));
END
$$;

COMMENT ON FUNCTION site_report(jsonb) IS
'takes the rows of site and site_cache of a mirror and of the sites below it, and returns those of all others, and its own';

CREATE FUNCTION site_take_rows(table_name text, key text[], rows jsonb,
		but_not text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- a site of another version may have others
	columns text[] := ARRAY(SELECT a.attname FROM pg_attribute AS a
		WHERE a.attrelid = format('narinfo.%I', table_name)::regclass
			AND a.attnum > 0 AND NOT a.attisdropped AND rows->0 ? a.attname
		ORDER BY a.attnum);
BEGIN
	IF columns = '{}' THEN
		RETURN;
	END IF;
	EXECUTE (SELECT format('INSERT INTO narinfo.%1$I AS s (%2$s)
			SELECT %2$s FROM jsonb_populate_recordset(NULL::narinfo.%1$I, $1)
				AS t WHERE t.%3$I <> $2
			ON CONFLICT (%4$s) DO UPDATE SET (%2$s) = ROW (%5$s)
			WHERE (%6$s) IS DISTINCT FROM (%5$s)', table_name,
			string_agg(quote_ident(c), ', ' ORDER BY n), key[1],
			array_to_string(key, ', '),
			string_agg('excluded.' || quote_ident(c), ', ' ORDER BY n),
			string_agg('s.' || quote_ident(c), ', ' ORDER BY n))
		FROM unnest(columns) WITH ORDINALITY AS u (c, n))
		USING rows, but_not;
END
$$;

COMMENT ON FUNCTION site_take_rows(text, text[], jsonb, text) IS
'writes rows of site or site_cache, by their key, in the columns that they have, but none of one site';

CREATE FUNCTION site_take(sites jsonb, caches jsonb, but_not text)
	RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM narinfo.site_take_rows('site', ARRAY['name'], sites, but_not);
	PERFORM narinfo.site_take_rows('site_cache', ARRAY['site', 'cache'],
		caches, but_not);
END
$$;

COMMENT ON FUNCTION site_take(jsonb, jsonb, text) IS
'writes rows that other sites have told, but none of one of them';

CREATE FUNCTION site_below() RETURNS SETOF text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN QUERY WITH RECURSIVE down (name, n) AS (
		SELECT narinfo.site_name() COLLATE "C", 1
		UNION
		SELECT s.name, d.n + 1 FROM down AS d
		JOIN narinfo.site AS s ON s.upstream = d.name WHERE d.n < 100)
	SELECT DISTINCT d.name FROM down AS d;
END
$$;

COMMENT ON FUNCTION site_below() IS
'names of this site and of those that have what they have by way of it';
