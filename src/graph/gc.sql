--
-- Collection: what may go, and taking it out.
--
-- Its tables are this site's own, neither replicated nor dumped: a plan is of
-- one moment of one server.
--
CREATE TYPE gc_state AS ENUM ('planned', 'running', 'done', 'replaced');

COMMENT ON TYPE gc_state IS
'what became of a plan: nothing yet; gc_run() has begun, and goes on when it is called again; it was carried out; another one took its place';

CREATE TYPE gc_reason AS ENUM ('root', 'young', 'needed_by_young',
	'over_max_bytes', 'unreachable');

COMMENT ON TYPE gc_reason IS
'why a path stays, or goes: a root needs it; it was published, replaced or touched of late; such a one needs it; it would have been more than max_bytes; nothing needs it, and it goes';

CREATE TABLE gc_plan (
	plan bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	cache text COLLATE "C" NOT NULL,
	at timestamptz NOT NULL,
	seq bigint NOT NULL,
	older_than interval NOT NULL,
	max_bytes bigint,
	max_fraction double precision NOT NULL,
	state gc_state NOT NULL DEFAULT 'planned',
	paths bigint NOT NULL DEFAULT 0,
	edges bigint NOT NULL DEFAULT 0,
	dangling bigint NOT NULL DEFAULT 0,
	roots bigint NOT NULL DEFAULT 0,
	valid_roots bigint NOT NULL DEFAULT 0,
	planned bigint NOT NULL DEFAULT 0,
	memory bigint NOT NULL DEFAULT 0,
	load_ms double precision NOT NULL DEFAULT 0,
	mark_ms double precision NOT NULL DEFAULT 0,
	next_place bigint NOT NULL DEFAULT 1,
	checked_seq bigint NOT NULL,
	removed bigint NOT NULL DEFAULT 0,
	removed_nar_bytes bigint NOT NULL DEFAULT 0,
	removed_file_bytes bigint NOT NULL DEFAULT 0,
	spared bigint NOT NULL DEFAULT 0,
	gone bigint NOT NULL DEFAULT 0,
	finished timestamptz
) WITH (fillfactor = 50);

COMMENT ON TABLE gc_plan IS
'plans of collections on this site, one a row, and how far gc_run() has carried them out';
COMMENT ON SEQUENCE gc_plan_plan_seq IS 'numbers of the plans of this site';
COMMENT ON COLUMN gc_plan.plan IS 'number of the plan';
COMMENT ON COLUMN gc_plan.cache IS 'name of the cache';
COMMENT ON COLUMN gc_plan.at IS 'the moment that it is of';
COMMENT ON COLUMN gc_plan.seq IS 'last event of the cache at that moment';
COMMENT ON COLUMN gc_plan.older_than IS
'what was published, replaced or touched within this time before stays, with all that it needs';
COMMENT ON COLUMN gc_plan.max_bytes IS
'bytes of files that it frees at most; NULL: no limit';
COMMENT ON COLUMN gc_plan.max_fraction IS
'share of the paths of the cache that may go';
COMMENT ON COLUMN gc_plan.state IS 'what became of it';
COMMENT ON COLUMN gc_plan.paths IS 'valid paths at that moment';
COMMENT ON COLUMN gc_plan.edges IS
'their references, those to themselves aside';
COMMENT ON COLUMN gc_plan.dangling IS
'references to what is not valid, which only a cache without require_closure has';
COMMENT ON COLUMN gc_plan.roots IS
'roots that the pins and sources named, each as often as it was named';
COMMENT ON COLUMN gc_plan.valid_roots IS 'those that were valid';
COMMENT ON COLUMN gc_plan.planned IS 'paths that are to go';
COMMENT ON COLUMN gc_plan.memory IS 'bytes that marking took at most';
COMMENT ON COLUMN gc_plan.load_ms IS 'milliseconds that reading the graph took';
COMMENT ON COLUMN gc_plan.mark_ms IS 'milliseconds that marking took, the roots included';
COMMENT ON COLUMN gc_plan.next_place IS 'where gc_run() goes on';
COMMENT ON COLUMN gc_plan.checked_seq IS
'last event that gc_run() has looked at';
COMMENT ON COLUMN gc_plan.removed IS 'paths that gc_run() has removed';
COMMENT ON COLUMN gc_plan.removed_nar_bytes IS 'their NarSize together';
COMMENT ON COLUMN gc_plan.removed_file_bytes IS
'their FileSize together, NarSize where there is none';
COMMENT ON COLUMN gc_plan.spared IS
'planned paths that came alive before they would have gone';
COMMENT ON COLUMN gc_plan.gone IS 'planned paths that somebody else has removed';
COMMENT ON COLUMN gc_plan.finished IS 'when it had been carried out';

CREATE TABLE gc_plan_reason (
	plan bigint NOT NULL,
	reason gc_reason NOT NULL,
	paths bigint NOT NULL,
	nar_bytes bigint NOT NULL,
	file_bytes bigint NOT NULL,
	PRIMARY KEY (plan, reason)
);

COMMENT ON TABLE gc_plan_reason IS
'how much goes and stays by each plan, and why; gc_report() shows it';
COMMENT ON COLUMN gc_plan_reason.plan IS 'the plan';
COMMENT ON COLUMN gc_plan_reason.reason IS 'why';
COMMENT ON COLUMN gc_plan_reason.paths IS 'how many paths';
COMMENT ON COLUMN gc_plan_reason.nar_bytes IS 'their NarSize together';
COMMENT ON COLUMN gc_plan_reason.file_bytes IS
'their FileSize together, NarSize where there is none';

CREATE TABLE gc_plan_path (
	plan bigint NOT NULL,
	place bigint NOT NULL,
	hash store_hash NOT NULL,
	with_next boolean NOT NULL,
	spared boolean NOT NULL DEFAULT false,
	PRIMARY KEY (plan, place)
);

COMMENT ON TABLE gc_plan_path IS
'the paths that go by the last plan of each cache, referrers first';
COMMENT ON COLUMN gc_plan_path.plan IS 'the plan';
COMMENT ON COLUMN gc_plan_path.place IS 'in which order they go, from 1 on';
COMMENT ON COLUMN gc_plan_path.hash IS 'hash part of the path';
COMMENT ON COLUMN gc_plan_path.with_next IS
'whether it can only go together with the next: they are of one cycle';
COMMENT ON COLUMN gc_plan_path.spared IS
'whether it came alive since the plan was made';

CREATE FUNCTION gc_estimate(cache text DEFAULT default_cache(),
		OUT paths bigint, OUT refs bigint, OUT bytes bigint)
	AS 'MODULE_PATHNAME'
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED;

COMMENT ON FUNCTION gc_estimate(text) IS
'about how many paths and references a cache has, by the statistics of the tables, and the bytes of memory that gc_plan() takes for them';

CREATE FUNCTION gc_plan(
		older_than interval DEFAULT '1 day',
		max_bytes bigint DEFAULT NULL,
		max_fraction double precision DEFAULT 0.1,
		share double precision DEFAULT 0.05,
		cache text DEFAULT default_cache())
	RETURNS bigint
	AS 'MODULE_PATHNAME'
	LANGUAGE C VOLATILE PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION gc_plan(interval, bigint, double precision, double precision, text) IS
'finds what no root of a cache needs, nor anything that was published, replaced or touched within older_than, and stores it as a plan, whose number it returns: all of it, or the longest unused as far as their files have at most max_bytes. Refused without any root (NI008), when a source of roots fails (NI007), and when more than max_fraction of the paths would go (NI009). While others write it works for a share of the time only';

CREATE FUNCTION gc_report(plan bigint)
	RETURNS TABLE (item text, goes boolean, paths bigint, nar_bytes bigint,
		file_bytes bigint, note text)
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	p narinfo.gc_plan;
BEGIN
	SELECT g.* INTO p FROM narinfo.gc_plan AS g
		WHERE g.plan = gc_report.plan;
	IF NOT FOUND THEN
		RAISE undefined_object USING
			MESSAGE = format('there is no plan %s', plan);
	END IF;
	RETURN QUERY SELECT r.reason::text, r.reason::text = 'unreachable',
		r.paths, r.nar_bytes, r.file_bytes,
		CASE r.reason::text
			WHEN 'root' THEN format('needed by %s roots', p.valid_roots)
			WHEN 'young' THEN format('used within %s before %s',
				p.older_than, p.at)
			WHEN 'needed_by_young' THEN 'needed by these'
			WHEN 'over_max_bytes' THEN coalesce('not within '
				|| p.max_bytes || ' bytes', 'there is no max_bytes')
			ELSE 'needed by nothing' END
		FROM narinfo.gc_plan_reason AS r WHERE r.plan = p.plan
		ORDER BY r.reason;
	RETURN QUERY SELECT 'marking', NULL::boolean, p.paths, NULL::bigint,
		NULL::bigint,
		format('%s references; %s bytes of memory, %s a path and 4 a reference; read in %s ms, marked in %s ms',
			p.edges, p.memory, CASE WHEN p.paths > 0
				THEN round((p.memory - 4 * p.edges)::numeric / p.paths, 1)
				ELSE 0 END,
			round(p.load_ms::numeric, 1), round(p.mark_ms::numeric, 1));
	RETURN QUERY SELECT 'removed', true, p.removed, p.removed_nar_bytes,
		p.removed_file_bytes, p.state::text
		WHERE p.state::text IN ('running', 'done');
	RETURN QUERY SELECT 'spared', false, p.spared, NULL::bigint, NULL::bigint,
		'came alive since' WHERE p.state::text IN ('running', 'done');
	RETURN QUERY SELECT 'gone', true, p.gone, NULL::bigint, NULL::bigint,
		'removed by others' WHERE p.state::text IN ('running', 'done');
END
$$;

COMMENT ON FUNCTION gc_report(bigint) IS
'what goes and what stays by a plan, and why: for each gc_reason the paths, their NarSize together, and their FileSize (NarSize where there is none); then what marking took, and what gc_run() has removed, spared and found gone';

CREATE PROCEDURE gc_run(plan bigint, batch integer DEFAULT 500,
		share double precision DEFAULT 0.2)
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE gc_run(bigint, integer, double precision) IS
'removes the paths of a plan into trash, but for what came alive since: what has been published, touched or made a root, and what that needs. In transactions of at most batch paths, referrers first, and working for a share of the time only; commits on its way, and is called again to go on. Refused like gc_plan() when there is no root now, or a source fails';

CREATE FUNCTION undelete(paths store_path[],
		cache text DEFAULT default_cache())
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	next narinfo.store_path[] := ARRAY(SELECT DISTINCT p
		FROM unnest(paths) AS p WHERE p IS NOT NULL);
	found narinfo.narinfo[] := '{}';
	hashes narinfo.store_hash[] := '{}';
	infos narinfo.narinfo[];
	nowhere narinfo.store_path[];
	strict_refs boolean;
	n bigint;
BEGIN
	SELECT coalesce((SELECT c.require_closure FROM narinfo.cache AS c
		WHERE c.name = undelete.cache), true) INTO strict_refs;
	LOOP
		next := ARRAY(SELECT p FROM unnest(next) AS p
			WHERE NOT EXISTS (SELECT FROM narinfo.valid_path AS v
				WHERE v.cache = undelete.cache
				AND v.hash OPERATOR(narinfo.=) narinfo.store_hash(p)));
		EXIT WHEN cardinality(next) = 0;
		-- what was taken out last, of each
		infos := ARRAY(SELECT (SELECT t.info FROM narinfo.trash AS t
				WHERE t.cache = undelete.cache
				AND t.hash OPERATOR(narinfo.=) narinfo.store_hash(p)
				ORDER BY t.removed DESC LIMIT 1)
			FROM unnest(next) WITH ORDINALITY AS u (p, number)
			ORDER BY number);
		nowhere := ARRAY(SELECT p
			FROM ROWS FROM (unnest(next), unnest(infos)) AS u (p, i)
			WHERE i IS NULL ORDER BY p);
		IF cardinality(nowhere) > 0
			AND (strict_refs OR cardinality(hashes) = 0) THEN
			RAISE undefined_object USING
				MESSAGE = format('%s is neither valid in cache "%s" nor in its trash',
					nowhere[1], undelete.cache),
				DETAIL = CASE WHEN cardinality(hashes) > 0
					THEN 'Something that was to come back needs it.'
					ELSE 'It was asked for.' END,
				HINT = 'Publish it, and try again.';
		END IF;
		infos := ARRAY(SELECT i FROM unnest(infos) AS i WHERE i IS NOT NULL);
		found := found || infos;
		hashes := hashes
			|| ARRAY(SELECT narinfo.store_hash(i) FROM unnest(infos) AS i);
		next := ARRAY(SELECT DISTINCT r
			FROM unnest(infos) AS i, unnest(narinfo.refs(i)) AS r
			WHERE NOT narinfo.store_hash(r) OPERATOR(narinfo.=) ANY (hashes));
	END LOOP;
	n := narinfo.publish_many(found, undelete.cache);
	DELETE FROM narinfo.trash AS t WHERE t.cache = undelete.cache
		AND t.hash OPERATOR(narinfo.=) ANY (hashes);
	RETURN n;
END
$$;

COMMENT ON FUNCTION undelete(store_path[], text) IS
'publishes paths again that lie in trash, as they were, with what they need and is there too; how many came back. Fails when one of these is nowhere';

REVOKE ALL ON FUNCTION gc_estimate(text),
	gc_plan(interval, bigint, double precision, double precision,
		text), gc_report(bigint),
	undelete(store_path[], text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE gc_run(bigint, integer, double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gc_estimate(text), gc_report(bigint)
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
GRANT EXECUTE ON FUNCTION gc_plan(interval, bigint, double precision, double precision,
		text),
	undelete(store_path[], text) TO narinfo_admin;
GRANT EXECUTE ON PROCEDURE gc_run(bigint, integer, double precision)
	TO narinfo_admin;
GRANT SELECT ON gc_plan, gc_plan_reason, gc_plan_path
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
