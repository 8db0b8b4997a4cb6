--
-- Questions to the graph of a cache
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;

-- a narinfo with this first character of its hash, this name, these references
CREATE FUNCTION pg_temp.made(c text, refs text DEFAULT '', name text DEFAULT NULL,
		file_size text DEFAULT '3', nar_size text DEFAULT '5')
	RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%sr3jxf1l9gnghmbkmfc1x3pr7j6198mx-%s\n'
		'URL: nar/%s.nar\n%sNarHash: sha256:%s\nNarSize: %s\nReferences: %s\n',
		c, coalesce(name, c), c, 'FileSize: ' || file_size || E'\n', repeat('0', 51) || c, nar_size,
		(SELECT string_agg(r || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || r, ' ')
			FROM regexp_split_to_table(refs, '') AS r WHERE r <> ''))::narinfo $$;
CREATE FUNCTION pg_temp.path(c text, name text DEFAULT NULL) RETURNS store_path LANGUAGE sql AS
	$$ SELECT store_path(pg_temp.made(c, name => name)) $$;
CREATE FUNCTION pg_temp.paths(cs text) RETURNS store_path[] LANGUAGE sql AS
	$$ SELECT array_agg(pg_temp.path(c) ORDER BY i)
		FROM regexp_split_to_table(cs, '') WITH ORDINALITY AS t (c, i) $$;

-- main: d -> c -> b, a; b -> a; all but b refer to themselves; f and g stand alone
SELECT publish_many(ARRAY[pg_temp.made('a', 'a'), pg_temp.made('b', 'a', file_size => NULL),
	pg_temp.made('c', 'bca', nar_size => '18446744073709551615'),
	pg_temp.made('d', 'dc'), pg_temp.made('f'), pg_temp.made('g', 'f')]);

-- find
SELECT path, nar_size, file_size, refs, registered = now() AS now
FROM unnest(ARRAY['cr3jxf1l9gnghmbkmfc1x3pr7j6198mx', 'br3jxf1l9gnghmbkmfc1x3pr7j6198mx-b',
	'/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a',
	'/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a/bin/x', 'fr3jxf1l9gnghmbkmfc1x3pr7j6198mx-f/',
	-- and what is not there
	'zr3jxf1l9gnghmbkmfc1x3pr7j6198mx', 'ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-b',
	'/gnu/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a', NULL]) WITH ORDINALITY AS w (what, i),
	find(what) ORDER BY i;
SELECT locate(what, 'main') FROM unnest(ARRAY['cr3jxf1l9gnghmbkmfc1x3pr7j6198mx',
	'cr3jxf1l9gnghmbkmfc1x3pr7j6198mx-x.y', '/a b/c/cr3jxf1l9gnghmbkmfc1x3pr7j6198mx',
	'/gnu/store/cr3jxf1l9gnghmbkmfc1x3pr7j6198mx-x//y/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-x']) AS what
WHERE what !~ ' ';
SELECT * FROM find('hello');
SELECT * FROM find('');
SELECT * FROM find('/');
SELECT * FROM find('er3jxf1l9gnghmbkmfc1x3pr7j6198mx');
SELECT * FROM find('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx');
SELECT * FROM find('/nix/store/er3jxf1l9gnghmbkmfc1x3pr7j6198mx-a/bin/x');
SELECT * FROM find('a/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT * FROM find('//ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT * FROM find('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a', 'nowhere');

-- closures, along the references and against them
SELECT * FROM closure(pg_temp.path('d'));
SELECT * FROM closure(pg_temp.path('f'));
SELECT count(*) FROM closure(pg_temp.path('z'));
SELECT count(*) FROM closure(pg_temp.path('a', 'other'));
SELECT count(*) FROM closure('/gnu/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT count(*) FROM closure(NULL);
SELECT path, depth FROM closures(pg_temp.paths('gbzd') || NULL || pg_temp.paths('d'));
SELECT count(*) FROM closures('{}');
SELECT path, depth FROM referrer_closure(pg_temp.path('a')) ORDER BY depth, path;
SELECT path, depth FROM referrer_closure(pg_temp.path('d'));
SELECT count(*) FROM referrer_closure(pg_temp.path('z'));
SELECT * FROM missing();
SELECT * FROM closure(pg_temp.path('a'), 'nowhere');
SELECT * FROM closures('{}', 'nowhere');
SELECT * FROM referrers(pg_temp.path('a'), 'nowhere');
SELECT * FROM referrer_closure(pg_temp.path('a'), 'nowhere');
SELECT * FROM missing('nowhere');

-- why
SELECT * FROM why_depends(pg_temp.path('d'), pg_temp.path('a'));
SELECT * FROM why_depends(pg_temp.path('d'), pg_temp.path('d'));
SELECT * FROM why_depends(pg_temp.path('f'), pg_temp.path('f'));
SELECT * FROM why_depends(pg_temp.path('a'), pg_temp.path('d'));
SELECT * FROM why_depends(pg_temp.path('z'), pg_temp.path('d'));
SELECT * FROM why_depends(pg_temp.path('d'), pg_temp.path('a', 'other'));
SELECT * FROM why_depends(pg_temp.path('d'), pg_temp.path('a'), 'nowhere');

-- why something stays: the nearest root
SELECT * FROM why_alive(pg_temp.path('a'));
SELECT pin('top', pg_temp.path('d')), pin('self', pg_temp.path('f'));
SELECT * FROM why_alive(pg_temp.path('a'));
SELECT * FROM why_alive(pg_temp.path('d'));
SELECT * FROM why_alive(pg_temp.path('g'));
SELECT pin('middle', pg_temp.path('b')), pin('wanted', pg_temp.path('z'), wanted => true);
SELECT * FROM why_alive(pg_temp.path('a'));
SELECT pin('all of it', pg_temp.path('a'));
SELECT * FROM why_alive(pg_temp.path('a'));
SELECT * FROM why_alive(pg_temp.path('z'));
SELECT * FROM why_alive(pg_temp.path('a'), 'nowhere');
CREATE TABLE public.deployed AS SELECT 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx' AS path;
SELECT add_root_source('deployed', 'SELECT path FROM public.deployed');
SELECT * FROM why_alive(pg_temp.path('g'));
DROP TABLE public.deployed;
\set VERBOSITY terse
SELECT * FROM why_alive(pg_temp.path('g'));
\set VERBOSITY default
SELECT drop_root_source('deployed');

-- in order
SELECT position, path FROM dependency_order(pg_temp.paths('dgabf'));
SELECT position, path FROM dependency_order(pg_temp.paths('dada') || NULL);
SELECT count(*) FROM dependency_order('{}');
SELECT * FROM dependency_order(pg_temp.paths('dza'));
SELECT * FROM dependency_order('{}', 'nowhere');

-- packages, as nix has them
SELECT n, package_name(p), package_version(p)
FROM unnest(ARRAY['hello-2.12.1', 'glibc-2.39-52-bin', 'gcc-13.2.0-lib32', 'gcc-13.2.0-lib16',
	'perl5.38.2-HTTP-Cookies-6.01', 'source', 'etc-fstab', 'diamond-top', 'bash-5.2p26-man',
	'a-1-', 'a-', '-a', '-1', 'linux-6.6.30-Modules', 'x-doc-man']) AS n,
	LATERAL (SELECT ('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || n)::store_path) AS t (p);

-- differences
SELECT create_cache('two');
SELECT publish_many(ARRAY[pg_temp.made('a', name => 'libc-1'),
	pg_temp.made('b', name => 'libc-2', nar_size => '50', file_size => NULL),
	pg_temp.made('c', name => 'libc-2-dev'), pg_temp.made('d', name => 'same-1'),
	pg_temp.made('f', name => 'gone-1-doc', nar_size => '7', file_size => '6'),
	pg_temp.made('g', name => 'new'), pg_temp.made('h', 'adfhc', name => 'tool-1'),
	pg_temp.made('i', 'bdgc', name => 'tool-1')], 'two');
SELECT * FROM difference(pg_temp.path('h', 'tool-1'), pg_temp.path('i', 'tool-1'), 'two');
SELECT * FROM compare_closures(pg_temp.path('h', 'tool-1'), pg_temp.path('i', 'tool-1'), 'two')
ORDER BY path;
SELECT count(*) FROM difference(pg_temp.path('h', 'tool-1'), pg_temp.path('h', 'tool-1'), 'two');
SELECT count(*) FROM difference(pg_temp.path('h', 'tool-1'), pg_temp.path('h', 'tool-2'), 'two');
SELECT count(*) FROM difference(pg_temp.path('z'), pg_temp.path('h', 'tool-1'), 'two');
SELECT count(*) FROM difference(pg_temp.path('a'), pg_temp.path('b'), 'nowhere');

-- cycles and gaps: a <-> b, c -> d -> f -> c, f -> a, g -> c, y -> z, and x is
-- wanted by a and g; nothing ends in them
SELECT create_cache('loose');
SELECT publish_many(ARRAY[pg_temp.made('a', 'bx'), pg_temp.made('b', 'ab')], 'loose');
SELECT alter_cache('loose', require_closure => false);
SELECT publish_many(ARRAY[pg_temp.made('a', 'bx'), pg_temp.made('b', 'ab'),
	pg_temp.made('c', 'd'), pg_temp.made('d', 'f'), pg_temp.made('f', 'ca'),
	pg_temp.made('g', 'xcg'), pg_temp.made('y', 'z')], 'loose');
SELECT path, depth FROM closure(pg_temp.path('g'), 'loose');
SELECT path, depth FROM closure(pg_temp.path('b'), 'loose');
SELECT path, depth FROM referrer_closure(pg_temp.path('a'), 'loose') ORDER BY depth, path;
SELECT path, depth FROM referrer_closure(pg_temp.path('d'), 'loose') ORDER BY depth, path;
SELECT path, depth FROM referrer_closure(pg_temp.path('x'), 'loose') ORDER BY depth, path;
SELECT * FROM missing('loose') ORDER BY reference, wanted_by;
SELECT reference, array_agg(store_name(wanted_by) ORDER BY wanted_by) FROM missing('loose') GROUP BY 1 ORDER BY 1;
SELECT * FROM why_depends(pg_temp.path('d'), pg_temp.path('b'), 'loose');
SELECT * FROM why_depends(pg_temp.path('b'), pg_temp.path('d'), 'loose');
SELECT * FROM why_depends(pg_temp.path('g'), pg_temp.path('x'), 'loose');
SELECT * FROM why_alive(pg_temp.path('b'), 'loose');
SELECT pin('top', pg_temp.path('g'), cache => 'loose');
SELECT * FROM why_alive(pg_temp.path('b'), 'loose');
SELECT * FROM why_alive(pg_temp.path('y'), 'loose');
-- one cycle together, behind the other that it needs
SELECT position, path FROM dependency_order(pg_temp.paths('gfydbca'), 'loose');
SELECT position, path FROM dependency_order(pg_temp.paths('abcdf'), 'loose');
SELECT position, path FROM dependency_order(pg_temp.paths('dga'), 'loose');
SELECT name, before, after, cardinality(added) AS added, cardinality(dropped) AS dropped, nar_bytes
FROM difference(pg_temp.path('g'), pg_temp.path('a'), 'loose');

-- a chain as long as no recursion would go, and a cycle of all of it
CREATE FUNCTION pg_temp.numbered(i integer, refs integer[]) RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%s-%s\nURL: nar/%s\nNarHash: sha256:%s\nNarSize: 5\n'
		'References: %s\n', translate(md5(i::text), 'e', 'z'), i, i, repeat('0', 52),
		(SELECT string_agg(translate(md5(r::text), 'e', 'z') || '-' || r, ' ') FROM unnest(refs) AS r))::narinfo $$;
SELECT create_cache('long', require_closure => false);
SELECT publish_many(ARRAY(SELECT pg_temp.numbered(i, ARRAY[i + 1]) FROM generate_series(1, 20000) AS i), 'long');
SELECT count(*), max(depth) FROM closure(store_path(pg_temp.numbered(1, NULL)), 'long');
SELECT * FROM missing('long');
SELECT count(*), count(*) FILTER (WHERE store_name(path)::int + position = 20001) AS right
FROM dependency_order(ARRAY(SELECT store_path(info) FROM valid_path WHERE cache = 'long'), 'long');
SELECT publish(pg_temp.numbered(20001, ARRAY[1]), 'long');
SELECT count(*), max(depth) FROM closure(store_path(pg_temp.numbered(7, NULL)), 'long');
SELECT count(*) FROM missing('long');
SELECT count(*), max(position), bool_and(store_name(path)::int = position) AS "as given"
FROM dependency_order(ARRAY(SELECT store_path(pg_temp.numbered(i, NULL))
	FROM generate_series(1, 20001) AS i), 'long');
SELECT count(*), max(step) FROM why_depends(store_path(pg_temp.numbered(2, NULL)),
	store_path(pg_temp.numbered(1, NULL)), 'long');

-- in parallel workers, and as a reader; nobody else
BEGIN;
SET LOCAL parallel_setup_cost = 0;
SET LOCAL parallel_tuple_cost = 0;
SET LOCAL min_parallel_table_scan_size = 0;
SET LOCAL enable_indexscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL enable_indexonlyscan = off;
SELECT sum(n), max(depth) FROM (SELECT count(*) AS n, max(depth) AS depth
	FROM valid_path AS v, closure(store_path(v.info), 'main') AS c WHERE v.cache = 'main' GROUP BY v.hash) AS t;
ROLLBACK;
CREATE ROLE regress_narinfo_user;
GRANT USAGE ON SCHEMA narinfo TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT * FROM narinfo.closure('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
RESET ROLE;
REVOKE USAGE ON SCHEMA narinfo FROM regress_narinfo_user;
GRANT narinfo_reader TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT count(*) FROM find('ar3jxf1l9gnghmbkmfc1x3pr7j6198mx');
SELECT (SELECT count(*) FROM closure(p)), (SELECT count(*) FROM closures(ARRAY[p])),
	(SELECT count(*) FROM referrers(p)), (SELECT count(*) FROM referrer_closure(p)),
	(SELECT count(*) FROM missing()), (SELECT count(*) FROM why_depends(p, p)),
	(SELECT count(*) FROM why_alive(p)), (SELECT count(*) FROM difference(p, p)), (SELECT count(*) FROM dependency_order(ARRAY[p]))
FROM store_path('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a') AS p;
RESET ROLE;
DROP ROLE regress_narinfo_user;
SELECT drop_cache('two'), drop_cache('loose'), drop_cache('long'), drop_cache('main');
