--
-- Collection: plans, what they say, and carrying them out
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;
SET intervalstyle = postgres;
\set SHOW_CONTEXT never

-- a narinfo with this first character of its hash, and these references
CREATE FUNCTION made(c text, refs text DEFAULT '', size int DEFAULT 100)
	RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%sr3jxf1l9gnghmbkmfc1x3pr7j6198mx-%s\n'
		'URL: nar/%s.nar\nFileSize: %s\nNarHash: sha256:%s\nNarSize: 1000\n'
		'References: %s\n', c, c, c, size, repeat('0', 51) || c,
		(SELECT string_agg(r || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || r, ' ')
			FROM regexp_split_to_table(refs, '') AS r WHERE r <> ''))::narinfo $$;
CREATE FUNCTION at(c text) RETURNS store_path LANGUAGE sql AS
	$$ SELECT store_path(made(c)) $$;
CREATE FUNCTION valid(cache text DEFAULT 'main') RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(left(hash::text, 1), '' ORDER BY hash) FROM valid_path
	WHERE valid_path.cache = valid.cache $$;
CREATE FUNCTION planned(plan bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(left(hash::text, 1) || CASE WHEN with_next THEN '+' ELSE '' END
			|| CASE WHEN spared THEN '!' ELSE '' END, ' ' ORDER BY place)
	FROM gc_plan_path AS p WHERE p.plan = planned.plan $$;
CREATE FUNCTION sound() RETURNS boolean LANGUAGE sql AS $$
	SELECT max(seq) - min(seq) + 1 = count(*)
		AND (array_agg(digest ORDER BY seq DESC))[1] = cache_digest('main')
	FROM event WHERE cache = 'main' $$;
-- nothing was published of late, as far as collection knows
CREATE FUNCTION age(c text, days int) RETURNS void LANGUAGE sql AS $$
	UPDATE valid_path SET registered = now() - days * interval '1 day'
	WHERE hash = store_hash(at(c)) $$;

-- a needs b and c, b needs c; d needs c and f; x and y need each other, y z
SELECT publish_many(ARRAY[made('a', 'abc'), made('b', 'c'), made('c', 'c'),
	made('d', 'cf'), made('f'), made('x', 'y'), made('y', 'xz'), made('z'),
	made('g', 'x')]);

-- what is refused
SELECT gc_plan();
\set VERBOSITY sqlstate
SELECT gc_plan();
\set VERBOSITY default
SELECT pin('top', at('q'), wanted => true);
SELECT gc_plan();
SELECT pin('top', at('a'));
SELECT gc_plan();
SELECT gc_plan('0');
\set VERBOSITY sqlstate
SELECT gc_plan('0');
\set VERBOSITY default
SELECT gc_plan('-1 day');
SELECT gc_plan(NULL);
SELECT gc_plan(share => NULL);
SELECT gc_plan(share => 0);
SELECT gc_plan('0', max_fraction => 2);
SELECT gc_plan('0', max_fraction => 'NaN');
SELECT gc_plan('0', max_bytes => -1);
SELECT gc_plan(cache => 'nix');
CREATE TABLE public.app (path text);
SELECT add_root_source('app', 'SELECT path FROM public.app');
INSERT INTO app VALUES ('nonsense');
SELECT gc_plan('0', max_fraction => 1);
SELECT drop_root_source('app');
TRUNCATE app;
CALL gc_run(4711);
CALL gc_run(NULL);
CALL gc_run(1, batch => 0);
CALL gc_run(1, share => 0);
SELECT * FROM gc_report(4711);
SELECT undelete(ARRAY[at('q')]);
SELECT valid(), sound();

-- all that nothing needs, referrers first; a cycle stays together
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT item, goes, paths, nar_bytes, file_bytes, CASE WHEN item <> 'marking'
	THEN regexp_replace(note, 'before .*', 'before') END AS note
FROM gc_report(:plan);
SELECT state, paths, edges, dangling, roots, valid_roots, planned, removed
FROM gc_plan WHERE plan = :plan;

-- by default what is young stays
SELECT gc_plan() AS plan \gset
SELECT item, paths FROM gc_report(:plan) WHERE goes IS NOT NULL;
-- what became young long ago does not, and what it needed neither
SELECT age(c, 3) FROM unnest('{a,b,c,d,f,x,y,z,g}'::text[]) AS c;
SELECT gc_plan(max_fraction => 1) AS plan \gset
-- (that was a change of each row, so an event, so they are young)
SELECT item, paths FROM gc_report(:plan) WHERE goes IS NOT NULL;

-- a plan that another one took the place of
CALL gc_run(:plan - 1);

-- at most so many bytes, the longest unused first: d goes before g, and f
-- with it, though g is older than f
SELECT age('d', 9), age('g', 8), age('f', 1), age('x', 7), age('y', 7), age('z', 10);
SELECT gc_plan('0', max_bytes => 150, max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT gc_plan('0', max_bytes => 250, max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT gc_plan('0', max_bytes => 300, max_fraction => 1) AS plan \gset
SELECT planned(:plan);
-- a cycle goes whole, or not at all
SELECT gc_plan('0', max_bytes => 499, max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT gc_plan('0', max_bytes => 500, max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT item, paths, file_bytes FROM gc_report(:plan) WHERE goes IS NOT NULL;
-- the fraction is of what is planned
SELECT gc_plan('0', max_bytes => 150, max_fraction => 0.2);
SELECT planned(max(plan)) FROM gc_plan;

-- carried out, one at a time; two of a cycle in one transaction
SELECT last_event() AS before \gset
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
CALL gc_run(:plan, batch => 1, share => 1);
SELECT valid(), sound();
SELECT kind, count(*) FROM event WHERE seq > :before GROUP BY 1;
SELECT item, goes, paths, nar_bytes, file_bytes FROM gc_report(:plan)
WHERE item IN ('unreachable', 'removed', 'spared', 'gone');
SELECT left(hash::text, 1) AS path, by = current_user AS by FROM trash ORDER BY 1;
CALL gc_run(:plan);
SELECT gc_plan('0', max_fraction => 0) AS plan \gset
CALL gc_run(:plan);

-- back again
SELECT undelete(ARRAY[at('g')]);
SELECT valid(), sound(), (SELECT count(*) FROM trash) AS trash;
SELECT undelete(ARRAY[at('g'), at('a'), NULL, at('d'), at('d')]);
SELECT valid(), sound(), (SELECT count(*) FROM trash) AS trash;
-- one that needs something that is nowhere
SELECT retract(ARRAY[at('d')], true), retract(ARRAY[at('f')]);
DELETE FROM trash WHERE hash = store_hash(at('f'));
SELECT undelete(ARRAY[at('d')]);
SELECT publish(made('f'));
SELECT undelete(ARRAY[at('d')]);
SELECT valid(), sound();

-- what comes alive between plan and run is spared with what it needs
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT publish(made('n', 'd'));
CALL gc_run(:plan, share => 1);
SELECT planned(:plan), valid(), sound();
SELECT retract(ARRAY[at('n')]);
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT touch(ARRAY[store_hash(at('d'))]);
CALL gc_run(:plan, share => 1);
SELECT planned(:plan), valid();
TRUNCATE touched;
SELECT undelete(ARRAY[at('g')]);
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT pin('more', at('y'));
CALL gc_run(:plan, share => 1);
SELECT planned(:plan), valid();
SELECT unpin('more') > 0;
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT add_root_source('app', 'SELECT path FROM public.app');
INSERT INTO app VALUES (at('z'));
CALL gc_run(:plan, share => 1);
SELECT planned(:plan), valid();
TRUNCATE app;

-- others have taken some, or replaced them
SELECT undelete(ARRAY[at('d'), at('g')]);
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT planned(:plan);
SELECT retract(ARRAY[at('g')]);
SELECT publish(made('d', 'c', 200));
CALL gc_run(:plan, share => 1);
SELECT planned(:plan), valid();
SELECT item, paths FROM gc_report(:plan) WHERE item IN ('removed', 'spared', 'gone');

-- roots went away, or a source fails now
SELECT undelete(ARRAY[at('g')]);
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
INSERT INTO app VALUES ('nonsense');
CALL gc_run(:plan);
SELECT drop_root_source('app');
DELETE FROM root;
CALL gc_run(:plan);
SELECT pin('top', at('a'));
BEGIN;
CALL gc_run(:plan);
ROLLBACK;
CALL gc_run(:plan, share => 1);
SELECT valid(), sound();

-- events that are not kept any more
SELECT undelete(ARRAY[at('g')]);
SELECT gc_plan('0', max_fraction => 1) AS plan \gset
SELECT publish(made('n', 'c')), publish(made('m', 'g'));
CALL rebuild_referrers();
SELECT cut_events('0', 1000) > 0;
CALL gc_run(:plan);

-- replaced within older_than is young, though it was registered long ago
SET session_replication_role = replica;
UPDATE valid_path SET registered = now() - interval '9 days';
RESET session_replication_role;
SELECT publish(made('n', 'c', 5));
SELECT gc_plan('1 hour', max_fraction => 1) AS plan \gset
SELECT item, paths FROM gc_report(:plan) WHERE goes IS NOT NULL;

-- another cache is another world; its references need not be there
SELECT create_cache('loose', require_closure => false);
SELECT publish_many(ARRAY[made('a', 'bq'), made('b'), made('h', 'a')], 'loose');
SELECT pin('top', at('a'), cache => 'loose');
SELECT gc_plan('0', max_fraction => 0.5, cache => 'loose') AS plan \gset
SELECT planned(:plan), dangling FROM gc_plan WHERE plan = :plan;
CALL gc_run(:plan);
SELECT valid('loose'), valid();
SELECT undelete(ARRAY[at('h')], 'loose');
SELECT valid('loose');

-- the memory is promised: 60 bytes a path and 4 a reference
SELECT create_cache('many');
WITH p AS (SELECT n, translate(md5(n::text), 'e', 'z') AS h
	FROM generate_series(0, 19999) AS n)
SELECT publish_many(array_agg(format(E'StorePath: /nix/store/%1$s-%2$s\n'
	'URL: nar/%1$s\nNarHash: sha256:0%3$s\nNarSize: 1\nReferences: %4$s\n', h, n,
	substr(h || h, 1, 51), (SELECT string_agg(translate(md5(m::text), 'e', 'z')
		|| '-' || m, ' ') FROM generate_series(greatest(n - 6, 0), n - 1) AS m)
	)::narinfo), 'many') FROM p;
SELECT pin('top', ('/nix/store/' || translate(md5('9999'), 'e', 'z') || '-9999')::store_path,
	cache => 'many');
SELECT gc_plan('0', max_fraction => 0.5, cache => 'many') AS plan \gset
SELECT paths, edges, planned, memory <= 60 * paths + 4 * edges AS kept
FROM gc_plan WHERE plan = :plan;
SELECT paths, note ~ '^\d+ references; \d+ bytes of memory, 5\d\.\d a path and 4 a reference; read in [\d.]+ ms, marked in [\d.]+ ms$' AS told
FROM gc_report(:plan) WHERE item = 'marking';
SELECT gc_plan('0', max_bytes => 1, max_fraction => 0.5, cache => 'many') AS plan \gset
SELECT planned, memory <= 60 * paths + 4 * edges AS kept
FROM gc_plan WHERE plan = :plan;
SET pg_narinfo.graph_memory = '1MB';
\set VERBOSITY sqlstate
SELECT gc_plan('0', cache => 'many');
RESET pg_narinfo.graph_memory;

-- who may
SET ROLE narinfo_reader;
SELECT count(*) > 0 FROM gc_plan;
SELECT paths > 0 FROM gc_estimate('many');
SELECT gc_plan();
CALL gc_run(1);
SELECT undelete('{}');
RESET ROLE;
GRANT narinfo_admin TO narinfo_reader;
SET ROLE narinfo_reader;
SELECT gc_plan('0', max_fraction => 0.6, cache => 'many') AS plan \gset
\set VERBOSITY default
CALL gc_run(:plan, batch => 5000, share => 1);
RESET ROLE;
REVOKE narinfo_admin FROM narinfo_reader;
SELECT count(*), min(by) FROM trash WHERE cache = 'many' GROUP BY cache;
SET client_min_messages = warning;
DROP TABLE app;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
