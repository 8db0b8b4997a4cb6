--
-- Roots: pins, their generations, sources, quotas
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;

-- a path with this first character of its hash
CREATE FUNCTION pg_temp.path(c text, name text DEFAULT NULL) RETURNS store_path
	LANGUAGE sql AS $$
	SELECT ('/nix/store/' || c || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-'
		|| coalesce(name, c))::store_path $$;
CREATE FUNCTION pg_temp.paths(chars text) RETURNS store_path[]
	LANGUAGE sql AS $$
	SELECT array_agg(pg_temp.path(c)) FROM regexp_split_to_table(chars, '') AS c $$;
-- its narinfo, with these references and another line, of 100 bytes
CREATE FUNCTION pg_temp.made(c text, refs text DEFAULT '', more text DEFAULT '')
	RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: %s\n'
		'URL: nar/%s.nar\nNarHash: sha256:%s\nNarSize: 100\nReferences: %s\n%s',
		pg_temp.path(c), c, repeat('0', 51) || c,
		(SELECT string_agg(r || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || r, ' ')
			FROM regexp_split_to_table(refs, '') AS r WHERE r <> ''),
		more)::narinfo $$;
CREATE FUNCTION pg_temp.sound(cache text DEFAULT 'main') RETURNS boolean
	LANGUAGE sql AS $$
	SELECT max(seq) - min(seq) + 1 = count(*)
		AND (array_agg(digest ORDER BY seq DESC))[1] = cache_digest($1)
	FROM event AS e WHERE e.cache = $1 $$;
-- who pins, without the user's name, which is not the same everywhere
CREATE VIEW pins AS
	SELECT name, generation AS g, left(hash::text, 1) AS path,
		nullif(owner, session_user) AS owner, environment
	FROM roots WHERE cache = 'main' AND kind = 'pin'
	ORDER BY name COLLATE "C", generation, hash;

SELECT publish_many(ARRAY[pg_temp.made('a'), pg_temp.made('b', 'a'),
	pg_temp.made('c', 'ab'), pg_temp.made('d', 'd'), pg_temp.made('f')]);
SELECT last_event() AS before \gset

-- a name, and its generations; the same paths again are no change
SELECT pin('web', pg_temp.path('b'));
SELECT pin('web', pg_temp.path('b'));
SELECT pin('web', paths => pg_temp.paths('cd'));
SELECT pin('web', pg_temp.path('d'), paths => pg_temp.paths('cdc'));
SELECT pin('web', pg_temp.path('b'));
SELECT * FROM pins;
SELECT seq - :before AS n, kind, left(hash::text, 1) AS path, name FROM event
	WHERE seq > :before ORDER BY seq;
SELECT pg_temp.sound();

-- its attributes are those of the last call
SELECT last_event() AS before \gset
SELECT pin('web', pg_temp.path('b'), environment => 'production',
	owner => 'team');
SELECT pin('web', pg_temp.path('b'), environment => 'production',
	owner => 'team');
SELECT * FROM pins WHERE g = 3;
SELECT kind, name, last_event() - :before AS n FROM event WHERE seq > :before;
SELECT pg_temp.sound();

-- none of these
SELECT pin('web', pg_temp.path('g'));
SELECT pin('web', paths => pg_temp.paths('ag'));
SELECT pin('web', pg_temp.path('a', 'other'));
SELECT pin('web', pg_temp.path('a', 'other'), wanted => true);
SELECT pin('web', paths => ARRAY[pg_temp.path('g'), pg_temp.path('g', 'other')],
	wanted => true);
SELECT pin('web', '/gnu/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT pin('web');
SELECT pin('web', paths => '{}');
SELECT pin('web', paths => ARRAY[NULL]::store_path[]);
SELECT pin(NULL, pg_temp.path('a'));
SELECT pin('web', pg_temp.path('a'), cache => NULL);
SELECT pin('web', pg_temp.path('a'), cache => 'nope');
SELECT pin('web', pg_temp.path('a'), expires => now() - interval '1 s');
SELECT unpin(NULL);
SELECT unpin('web', cache => 'nope');
\set VERBOSITY terse
SELECT pin('', pg_temp.path('a'));
SELECT pin(E'a\nb', pg_temp.path('a'));
SELECT pin('web', pg_temp.path('a'), owner => '');
SELECT pin('web', pg_temp.path('a'), environment => '');
SELECT pin('web', pg_temp.path('a'), keep_last => 0);
SELECT pin('web', pg_temp.path('a'), keep_for => '-1 day');
SELECT pin('web', pg_temp.path('a'), keep_for => '100000 years');
\set VERBOSITY sqlstate
SELECT pin('web', pg_temp.path('g'));
\set VERBOSITY default

-- unpin: one path, one generation, all
SELECT unpin('web', path => pg_temp.path('c'));
SELECT unpin('web', 1);
SELECT unpin('web', 1);
SELECT * FROM pins;
SELECT unpin('web'), unpin('web'), unpin('none');
SELECT * FROM pins;
SELECT pg_temp.sound();

-- the last so many
SELECT pin('last', pg_temp.path('a'));
SELECT pin('last', pg_temp.path('b'));
SELECT pin('last', pg_temp.path('c'));
SELECT pin('last', pg_temp.path('d'), keep_last => 2);
SELECT * FROM pins;
-- the rule is that of the newest
SELECT pin('last', pg_temp.path('f'));
SELECT * FROM pins;
SELECT pin('last', pg_temp.path('f'), keep_last => 1);
SELECT * FROM pins;
SELECT unpin('last');

-- those that are younger, or the last so many: time is made by hand
SELECT pin('young', pg_temp.path(c)) FROM unnest('{a,b,c,d}'::text[]) AS c;
UPDATE root SET pinned_at = now() - (5 - generation) * interval '1 day'
	WHERE name = 'young';
SELECT * FROM pins;
UPDATE root SET keep_for = '60 hours' WHERE name = 'young' AND generation = 4;
SELECT * FROM pins;
UPDATE root SET keep_last = 3 WHERE name = 'young' AND generation = 4;
SELECT * FROM pins;
SELECT count(*) FROM root;
SELECT root_prune(), root_prune();
SELECT count(*) FROM root;
SELECT pg_temp.sound();
-- what has expired counts no more, the newest one too
UPDATE root SET expires = now() WHERE name = 'young' AND generation = 4;
SELECT * FROM pins;
SELECT name, generation, counts FROM root_status ORDER BY generation;
SELECT pin('soon', pg_temp.path('a'), expires => now() + interval '1 hour');
SELECT root_prune();
SELECT * FROM pins;
-- until it is pinned again
UPDATE root SET expires = now() WHERE name = 'soon';
SELECT * FROM pins WHERE name = 'soon';
SELECT pin('soon', pg_temp.path('a'));
SELECT * FROM pins WHERE name = 'soon';
SELECT unpin('soon'), unpin('young');

-- what is wanted, and not there
SELECT pin('next', paths => pg_temp.paths('ah'), wanted => true);
SELECT name, generation, left(path::text, 12) AS path, wanted FROM root_missing;
SELECT * FROM pins;
SELECT publish(pg_temp.made('h', 'b'));
SELECT name FROM root_missing;
-- what was taken out although it was pinned
SELECT pin('firm', pg_temp.path('d'));
SELECT retract(ARRAY[pg_temp.path('d'), pg_temp.path('h')]);
SELECT name, left(path::text, 12) AS path, wanted FROM root_missing
	ORDER BY name;
SELECT publish_many(ARRAY[pg_temp.made('d', 'd'), pg_temp.made('h')]);
SELECT unpin('next'), unpin('firm');

-- lists of a release
SELECT pin_file('release', E'\n' || string_agg(p::text, E'\n\n') || E'\n')
FROM unnest(pg_temp.paths('abba')) AS p;
SELECT * FROM pins;
SELECT pin_file('release', string_agg(p::text, E'\n'))
FROM unnest(pg_temp.paths('ba')) AS p;
SELECT pin_file('release', pg_temp.path('a') || E'\n\nhello\n' || pg_temp.path('b') || E'\n?');
SELECT pin_file('release', pg_temp.path('a') || E'\r\n');
SELECT pin_file('release', E'\n\n');
SELECT pin_file('release', NULL);
SELECT pin_file('release', pg_temp.path('g')::text);
SELECT pin_file('release', pg_temp.path('g')::text, wanted => true, keep_last => 1,
	environment => 'x', expires => 'infinity');
SELECT name, generation, left(path::text, 12) AS path, environment, expires,
	wanted, keep_last FROM root;
SELECT unpin('release');

-- by hand: the same rules
SELECT last_event() AS before \gset
INSERT INTO root (name, path) VALUES ('hand', pg_temp.path('a')),
	('hand', pg_temp.path('b')), ('other', pg_temp.path('b'));
INSERT INTO root (name, path) VALUES ('hand', pg_temp.path('g'));
INSERT INTO root (name, path) VALUES ('hand', pg_temp.path('c', 'x'));
INSERT INTO root (name, path, wanted) VALUES ('hand', pg_temp.path('g'), true);
INSERT INTO root (name, path, cache) VALUES ('hand', pg_temp.path('a'), 'nope');
UPDATE root SET wanted = false WHERE path = pg_temp.path('g');
\set VERBOSITY terse
UPDATE root SET generation = 2 WHERE name = 'hand';
UPDATE root SET name = 'x' WHERE name = 'hand';
UPDATE root SET path = pg_temp.path('c') WHERE path = pg_temp.path('g');
INSERT INTO root (name, path, wanted) VALUES ('hand', pg_temp.path('a', 'x'), true);
TRUNCATE root;
TRUNCATE root_source, quota;
\set VERBOSITY default
DELETE FROM root WHERE name = 'hand' AND path = pg_temp.path('b');
BEGIN;
INSERT INTO root (name, path) VALUES ('short', pg_temp.path('a'));
DELETE FROM root WHERE name = 'short';
SAVEPOINT s;
INSERT INTO root (name, path) VALUES ('short', pg_temp.path('b'));
ROLLBACK TO s;
COMMIT;
SELECT seq - :before AS n, kind, left(hash::text, 1) AS path, name FROM event
	WHERE seq > :before ORDER BY seq;
SELECT pg_temp.sound();
-- one path in two generations, and under two names, at once
SELECT last_event() AS before \gset
INSERT INTO root (name, generation, path) VALUES ('twice', 1, pg_temp.path('a')),
	('twice', 2, pg_temp.path('a')), ('thrice', 2, pg_temp.path('a'));
SELECT pg_temp.sound(), last_event() - :before AS n;
DELETE FROM root;
SELECT pg_temp.sound();

-- sources: what a query returns
CREATE TABLE public.build (id int, out text);
INSERT INTO public.build VALUES (1, pg_temp.path('b')), (2, pg_temp.path('c')),
	(3, 'gr3jxf1l9gnghmbkmfc1x3pr7j6198mx-gone'),
	(4, 'dr3jxf1l9gnghmbkmfc1x3pr7j6198mx'), (5, pg_temp.path('b'));
SELECT last_event() AS before \gset
SELECT add_root_source('builds', 'SELECT out FROM public.build', environment => 'ci');
SELECT add_root_source('hashes', $$SELECT 'ar3jxf1l9gnghmbkmfc1x3pr7j6198mx'::store_hash$$);
CREATE FUNCTION public.current() RETURNS SETOF narinfo.store_path LANGUAGE sql
	AS $$ SELECT out::narinfo.store_path FROM public.build WHERE id < 2 $$;
SELECT add_root_source('function', 'SELECT * FROM public.current()');
SELECT name, kind, environment, generation, left(hash::text, 1) AS hash, left(path::text, 12) AS path
FROM roots ORDER BY name, hash;
SELECT kind, name FROM event WHERE seq > :before ORDER BY seq;
SELECT pg_temp.sound();
SELECT drop_root_source('hashes'), drop_root_source('hashes');
SELECT drop_root_source('function');
SELECT drop_root_source('function', 'nope');
SELECT add_root_source('builds', 'SELECT out FROM public.build');
-- predicates
SELECT publish(pg_temp.made('j', '', E'CA: fixed:r:sha256:' || repeat('0', 52) || E'\n'));
SELECT add_root_source('ca', kind => 'content_addressed');
SELECT add_root_source('like', '_', 'like');
SELECT add_root_source('regex', '^[ab]$', 'regex');
SELECT add_root_source('none', '^r3', 'regex');
SELECT name, kind, string_agg(left(hash::text, 1), '' ORDER BY hash) FROM roots
GROUP BY 1, 2 ORDER BY 1;
-- as those who collect see them: pins first
SELECT pin(n, paths => pg_temp.paths('ca')) FROM unnest('{z,y}'::text[]) AS n;
SELECT pin('y', pg_temp.path('g'), wanted => true, keep_last => 1);
SELECT name, string_agg(left(hash::text, 1), '' ORDER BY hash) FROM root_hashes()
	WITH ORDINALITY AS r (hash, name, n) GROUP BY name ORDER BY min(n);
SELECT count(*) FROM (SELECT hash, name FROM root_hashes()
	EXCEPT ALL SELECT hash, name FROM roots) AS d;
SELECT unpin('y'), unpin('z');
SELECT drop_root_source(name) FROM root_source WHERE kind <> 'query';
SELECT pg_temp.sound();
-- one that fails is named
INSERT INTO public.build VALUES (6, 'nonsense');
SELECT count(*) FROM roots;
UPDATE public.build SET out = NULL WHERE id = 6;
SELECT count(*) FROM roots;
DROP TABLE public.build CASCADE;
SELECT count(*) FROM roots;
\set VERBOSITY sqlstate
SELECT * FROM root_source_hashes('builds');
\set VERBOSITY default
SELECT drop_root_source('builds');
SELECT * FROM root_source_hashes('builds');
-- none of these
SELECT add_root_source('x', 'SELECT');
SELECT add_root_source('x', 'SELECT 1');
SELECT add_root_source('x', 'SELECT NULL::text');
SELECT add_root_source('x', $$SELECT 'a'::text, 'b'::text$$);
SELECT add_root_source('x', 'nonsense');
SELECT add_root_source('x', 'SELECT path FROM root; SELECT path FROM root');
SELECT add_root_source('x', 'DELETE FROM root RETURNING path');
SELECT add_root_source('x', 'ROLLBACK');
SELECT add_root_source('x', 'SELECT r.path FROM narinfo.roots AS r');
SELECT add_root_source('x', NULL);
SELECT add_root_source('x', NULL, 'like');
SELECT add_root_source('x', 'y', 'content_addressed');
SELECT add_root_source('x', '[', 'regex');
SELECT add_root_source(NULL, 'SELECT path FROM root');
SELECT add_root_source('x', 'SELECT path FROM root', cache => 'nope');
-- it only reads, whatever it calls, and cannot become somebody else
CREATE TABLE public.trace (t text);
CREATE FUNCTION public.writes() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO public.trace VALUES ('was here'); RETURN NULL; END $$;
SELECT add_root_source('x', 'SELECT public.writes()');
CREATE FUNCTION public.writes_more() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM set_config('transaction_read_only', 'off', true);
		INSERT INTO public.trace VALUES ('was here');
		RETURN NULL;
	END $$;
SELECT add_root_source('x', 'SELECT public.writes_more()');
SELECT add_root_source('x', $$SELECT set_config('role', 'none', false)$$);
SELECT add_root_source('x', $$SELECT set_config('search_path', 'public', false) WHERE false$$);
SHOW search_path;
SELECT count(*) FROM public.trace;
-- nor does it last
SET pg_narinfo.root_source_timeout = '50ms';
SELECT add_root_source('slow', 'SELECT path FROM narinfo.root, pg_sleep(1000)');
CREATE FUNCTION public.stubborn() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM pg_sleep(1000);
	EXCEPTION WHEN query_canceled THEN
		RETURN 'ar3jxf1l9gnghmbkmfc1x3pr7j6198mx';
	END $$;
SELECT add_root_source('slow', 'SELECT public.stubborn()');
RESET pg_narinfo.root_source_timeout;
SET statement_timeout = '50ms';
SELECT add_root_source('slow', 'SELECT path FROM narinfo.root, pg_sleep(1000)');
RESET statement_timeout;
SELECT count(*) FROM root_source WHERE name = 'slow';
DROP TABLE public.trace;
DROP FUNCTION public.writes(), public.writes_more(), public.stubborn();
DELETE FROM root_source;

-- quotas: of owner and environment, each path once
SELECT set_quota('team', NULL, 250), set_quota('team', NULL, 250);
SELECT pin('one', pg_temp.path('b'), owner => 'team');
SELECT pin('again', pg_temp.path('a'), owner => 'team');
SELECT pin('two', pg_temp.path('c'), owner => 'team');
\set VERBOSITY sqlstate
SELECT pin('two', pg_temp.path('c'), owner => 'team');
\set VERBOSITY default
SELECT pin('two', pg_temp.path('c'));
SELECT pin('two', pg_temp.path('c'), owner => 'team');
UPDATE root SET owner = 'team' WHERE name = 'two';
INSERT INTO root (name, path, owner) VALUES ('three', pg_temp.path('f'), 'team');
-- what takes the place of another, and what expires, count no more
SELECT pin('one', pg_temp.path('f'), owner => 'team', keep_last => 1);
SELECT unpin('again');
SELECT pin('one', pg_temp.path('b'), owner => 'team');
SELECT pin('one', pg_temp.path('b'), owner => 'team', keep_last => 1);
-- what is not there has no bytes, yet
SELECT pin('next', pg_temp.path('g'), owner => 'team', wanted => true);
-- by environment, for all
SELECT set_quota(NULL, 'small', 100);
SELECT pin('small', pg_temp.path('a'), environment => 'small');
SELECT pin('small2', pg_temp.path('f'), owner => 'team2', environment => 'small');
SELECT pin('small2', pg_temp.path('f'), owner => 'team2', environment => 'large');
SELECT set_quota('team2', 'large', 100), set_quota(NULL, 'small', 200);
SELECT pin('small3', pg_temp.path('d'), owner => 'team2', environment => 'large');
SELECT pin('small3', pg_temp.path('d'), owner => 'team2', environment => 'small');
SELECT pin('small3', pg_temp.path('d'), environment => 'large');
SELECT owner, environment, max_bytes FROM quota ORDER BY 1, 2;
SELECT set_quota('team', NULL, NULL), set_quota('team', NULL, NULL);
SELECT pin('two', pg_temp.path('c'), owner => 'team');
\set VERBOSITY terse
SELECT set_quota('team', NULL, -1);
SELECT set_quota('team', NULL, 1, 'nope');
SELECT set_quota('team', NULL, 1, NULL);
\set VERBOSITY default
SELECT kind, name, count(*) FROM event WHERE kind >= 'set_quota' GROUP BY 1, 2
	ORDER BY 1, 2;
SELECT pg_temp.sound();
DELETE FROM quota;
DELETE FROM root;

-- who may
CREATE ROLE root_reader IN ROLE narinfo_reader;
CREATE ROLE root_team;
CREATE ROLE root_alice IN ROLE narinfo_publisher, root_team;
CREATE ROLE root_bob IN ROLE narinfo_publisher;
CREATE ROLE root_admin IN ROLE narinfo_admin;
SET ROLE root_reader;
SELECT count(*) FROM roots;
SELECT count(*) FROM root_missing, root_status, root_source, quota;
SELECT cache_digest() IS NOT NULL AS digest;
SELECT pin('x', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT unpin('x');
SELECT add_root_source('x', 'SELECT path FROM root');
SELECT set_quota('x', NULL, 1);
INSERT INTO root (name, path) VALUES ('x', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SET ROLE root_alice;
SELECT pin('alice', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT pin('team', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a', owner => 'root_team');
SELECT pin('bob', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a', owner => 'root_bob');
SELECT pin('none', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a', owner => 'anybody');
SELECT add_root_source('x', 'SELECT path FROM root');
SET ROLE root_bob;
SELECT pin('alice', '/nix/store/br3jxf1l9gnghmbkmfc1x3pr7j6198mx-b');
SELECT unpin('alice');
SELECT unpin('team');
SET ROLE root_admin;
SELECT pin('free', '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a', owner => 'anybody');
SELECT unpin('team');
SELECT name, owner FROM root ORDER BY name;
-- a source has the rights of the one who added it, and no others
SELECT add_root_source('who', $$SELECT '/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-'
	|| current_user || '-' || session_user = current_user$$);
SELECT add_root_source('key', 'SELECT rolpassword FROM pg_authid');
SELECT add_root_source('mine', $$SELECT CASE current_user WHEN 'root_admin'
	THEN 'ar3jxf1l9gnghmbkmfc1x3pr7j6198mx' END$$);
SELECT owner FROM root_source;
RESET ROLE;
SELECT count(*) FROM root_source_hashes('mine');
SET ROLE root_reader;
SELECT count(*) FROM root_source_hashes('mine');
RESET ROLE;
-- a role that is not there any more has no rights
ALTER ROLE root_admin RENAME TO root_former;
SELECT count(*) FROM root_source_hashes('mine');
ALTER ROLE root_former RENAME TO root_admin;
DROP ROLE root_reader, root_alice, root_bob, root_admin, root_team;

-- a cache goes with its roots
SELECT create_cache('gone');
SELECT publish(pg_temp.made('a'), 'gone');
SELECT pin('x', pg_temp.path('a'), cache => 'gone');
SELECT add_root_source('x', 'SELECT path FROM narinfo.root', cache => 'gone');
SELECT set_quota('x', NULL, 1, 'gone');
BEGIN;
DELETE FROM valid_path WHERE cache = 'gone';
DELETE FROM cache WHERE name = 'gone';
COMMIT;
SELECT drop_cache('gone');
SELECT count(*) FROM root WHERE cache = 'gone';
SELECT pg_temp.sound('gone'), cache_digest('gone');
DROP VIEW pins;
