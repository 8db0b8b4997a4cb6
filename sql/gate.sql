--
-- The gate: events, digest, closures
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;

-- a narinfo with this first character of its hash, these references, a line
CREATE FUNCTION pg_temp.made(c text, refs text DEFAULT '', more text DEFAULT '')
	RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%sr3jxf1l9gnghmbkmfc1x3pr7j6198mx-%s\n'
		'URL: nar/%s.nar\nNarHash: sha256:%s\nNarSize: 5\nReferences: %s\n%s', c, c,
		c, repeat('0', 51) || c,
		(SELECT string_agg(r || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || r, ' ')
			FROM regexp_split_to_table(refs, '') AS r WHERE r <> ''),
		more)::narinfo $$;
CREATE VIEW log AS
	SELECT cache, seq, kind, left(hash::text, 1) AS path, epoch FROM event
	ORDER BY cache, seq;
-- the last event has the digest of what is there, and no number is left out
CREATE FUNCTION pg_temp.sound(cache text DEFAULT 'main') RETURNS boolean
	LANGUAGE sql AS $$
	SELECT max(seq) - min(seq) + 1 = count(*)
		AND (array_agg(digest ORDER BY seq DESC))[1] = cache_digest($1)
	FROM event AS e WHERE e.cache = $1 $$;

-- the first write makes the row of main
SELECT last_event(), cache_digest();
SELECT publish(pg_temp.made('a'));
SELECT * FROM log;
SELECT pg_temp.sound();

-- the same again is no change; with one more line it is
SELECT publish(pg_temp.made('a')), last_event();
SELECT publish(pg_temp.made('a', '', E'Deriver: unknown-deriver\n'));
SELECT publish(pg_temp.made('a', '', E'X: y\n'));
SELECT seq, kind, path FROM log WHERE seq > 2;
SELECT pg_temp.sound();

-- closures: refused without, a batch in any order, circles and oneself
SELECT publish(pg_temp.made('b', 'c'));
BEGIN;
SELECT publish(pg_temp.made('b', 'c'));
SELECT publish(pg_temp.made('c', 'a'));
COMMIT;
SELECT publish_many(ARRAY[pg_temp.made('d', 'dg'), pg_temp.made('f', 'gd'),
	pg_temp.made('g', 'f'), pg_temp.made('a', '', E'X: y\n'),
	pg_temp.made('g', 'f')]);
SELECT publish_many(ARRAY[pg_temp.made('g', 'f'),
	pg_temp.made('g', 'f', E'X: y\n')]);
SELECT publish_many(ARRAY[pg_temp.made('g'), NULL]);
SELECT publish_many('{}');
SELECT publish_many(ARRAY[pg_temp.made('h'), pg_temp.made('i', 'z')]);
DELETE FROM valid_path WHERE left(hash::text, 1) = 'a';
UPDATE valid_path SET info = pg_temp.made('a', 'z')
	WHERE left(hash::text, 1) = 'a';
DELETE FROM valid_path WHERE left(hash::text, 1) IN ('b', 'c');
SELECT seq, kind, path FROM log WHERE seq > 3;
SELECT pg_temp.sound();

-- savepoints
BEGIN;
SELECT publish(pg_temp.made('h'));
SAVEPOINT one;
SELECT publish(pg_temp.made('i', 'z'));
SAVEPOINT two;
SELECT publish(pg_temp.made('j', 'z'));
RELEASE two;
ROLLBACK TO one;
SAVEPOINT three;
SELECT publish(pg_temp.made('k', 'h'));
RELEASE three;
RELEASE one;
SAVEPOINT four;
DELETE FROM valid_path WHERE left(hash::text, 1) = 'h';
ROLLBACK TO four;
COMMIT;
SELECT seq, kind, path FROM log WHERE seq > 10;
SELECT pg_temp.sound();

-- what comes and goes, or is as before, is no event
BEGIN;
SELECT publish(pg_temp.made('l'));
DELETE FROM valid_path WHERE left(hash::text, 1) = 'l';
DELETE FROM valid_path WHERE left(hash::text, 1) = 'k' RETURNING registered AS was
\gset
INSERT INTO valid_path (info, registered) VALUES (pg_temp.made('k', 'h'), :'was');
UPDATE cache SET priority = priority;
COMMIT;
BEGIN;
SELECT publish(pg_temp.made('l'));
ROLLBACK;
SELECT last_event(), pg_temp.sound();

-- each statement does the same
INSERT INTO valid_path (info) SELECT pg_temp.made(c)
	FROM unnest('{m,n}'::text[]) AS c;
INSERT INTO valid_path (info) VALUES (pg_temp.made('m', '', E'X: y\n')),
		(pg_temp.made('p'))
	ON CONFLICT (cache, hash) DO UPDATE SET info = excluded.info;
UPDATE valid_path SET registered = '2020-01-01'
	WHERE left(hash::text, 1) = 'n';
DELETE FROM valid_path WHERE left(hash::text, 1) IN ('m', 'n', 'p');
SELECT seq, kind, path FROM log WHERE seq > 12;
SELECT pg_temp.sound();

-- refused: another NarHash, another key, all at once, by hand, in two phases
SELECT publish(replace(pg_temp.made('a')::text, '00a', '0ba')::narinfo);
UPDATE valid_path SET cache = 'x' WHERE left(hash::text, 1) = 'k';
UPDATE cache SET name = 'x';
TRUNCATE valid_path;
TRUNCATE cache;
TRUNCATE event;
DELETE FROM event;
UPDATE event SET seq = seq + 100;
INSERT INTO event SELECT * FROM event;
SELECT publish(NULL), publish(pg_temp.made('a'), NULL), publish_many(NULL);
SELECT last_event() = (SELECT max(seq) FROM event), pg_temp.sound();

-- caches: none that is not there, none of another directory
SELECT publish(pg_temp.made('a'), 'other');
INSERT INTO valid_path (cache, info) VALUES ('other', pg_temp.made('a'));
BEGIN;
INSERT INTO valid_path (cache, info) VALUES ('other', pg_temp.made('a'));
INSERT INTO cache (name) VALUES ('other');
COMMIT;
INSERT INTO cache (name, store_dir, require_closure)
	VALUES ('gnu', '/gnu/store', false);
SELECT publish(pg_temp.made('a'), 'gnu');
SELECT publish(replace(pg_temp.made('a', 'z')::text, '/nix/', '/gnu/')::narinfo,
	'gnu');
UPDATE cache SET store_dir = '/nix/store' WHERE name = 'gnu';
UPDATE cache SET require_closure = true WHERE name = 'gnu';
UPDATE cache SET priority = 3 WHERE name = 'gnu';
DELETE FROM cache WHERE name = 'gnu';
BEGIN;
DELETE FROM cache WHERE name = 'gnu';
DELETE FROM valid_path WHERE cache = 'gnu';
COMMIT;
SELECT * FROM log WHERE cache <> 'main';
SELECT cache_digest('gnu'), pg_temp.sound('gnu'), pg_temp.sound('other');
INSERT INTO cache (name) VALUES ('gnu');
SELECT last_event('gnu'), pg_temp.sound('gnu');

-- what a follower reads
SELECT seq, kind, left(hash::text, 1) AS path, name, url(info)
	FROM changes(0, 4);
SELECT seq, kind, left(hash::text, 1) AS path, url(info) FROM changes(4, 100)
	WHERE kind <> 'retract';
SELECT count(*) FROM changes(1000);
SELECT count(*) FROM changes(0, 1, 'unknown');

-- digests
SELECT row_digest(c) = row_digest(d), row_digest(c) = row_digest(e)
	FROM cache AS c, cache AS d, cache AS e
	WHERE (c.name, d.name, e.name) = ('main', 'main', 'gnu');
SELECT row_digest(e) FROM event AS e LIMIT 1;
SELECT row_digest(ROW(1, 2));
SELECT digest_xor('\x01', '\x02');
-- canonical bytes do not change from version to version
SET timezone = 'Europe/Berlin';
BEGIN;
INSERT INTO cache (name) VALUES ('fixed');
INSERT INTO valid_path VALUES ('fixed', store_hash(pg_temp.made('a')),
	pg_temp.made('a'), '2020-01-01 00:00Z');
SELECT row_digest(c) FROM cache AS c WHERE name = 'fixed';
SELECT row_digest(v) FROM valid_path AS v WHERE cache = 'fixed';
ROLLBACK;
RESET timezone;

-- rights: who may only read cannot publish
CREATE ROLE regress_narinfo_reader;
GRANT USAGE ON SCHEMA narinfo TO regress_narinfo_reader;
SET ROLE regress_narinfo_reader;
SELECT publish('a'::text::narinfo, 'b') FROM pg_class WHERE false;
SELECT publish_many('{}');
INSERT INTO event DEFAULT VALUES;
RESET ROLE;
REVOKE ALL ON SCHEMA narinfo FROM regress_narinfo_reader;
DROP ROLE regress_narinfo_reader;

-- trigger functions are nothing to call
SELECT event_refuse();
SELECT event_check_applied();
SELECT gate_collect();
SELECT gate_refuse_truncate();

DROP VIEW log;
DELETE FROM valid_path;
DELETE FROM cache WHERE name <> 'main';
