--
-- Who this server is: new databases, restored ones, copies
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;
\set SHOW_CONTEXT never

-- a narinfo with this first character of its hash, and these references
CREATE FUNCTION pg_temp.made(c text, refs text DEFAULT '') RETURNS text
	LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%sr3jxf1l9gnghmbkmfc1x3pr7j6198mx-%s\n'
		'URL: nar/%s.nar\nNarHash: sha256:%s\nNarSize: 5\nReferences: %s\n', c, c,
		c, repeat('0', 51) || c,
		(SELECT string_agg(r || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || r, ' ')
			FROM regexp_split_to_table(refs, '') AS r WHERE r <> '')) $$;

-- a new database has no identity, and start() gives it none
SELECT node_state(), count(*) FROM node;
SELECT start();
SELECT node_state(), count(*) FROM node;

-- what fails leaves it new, the first write that commits makes the row
SELECT publish(pg_temp.made('a', 'b')::narinfo);
SELECT node_state(), count(*) FROM node;
SET ROLE narinfo_publisher;
SELECT publish(pg_temp.made('b')::narinfo);
RESET ROLE;
SELECT publish(pg_temp.made('a', 'b')::narinfo);
SELECT node_state(), role, epoch,
	system_identifier = s.system_identifier AS same_system,
	timeline = c.timeline_id AS same_timeline,
	database = d.oid AS same_database
FROM node AS n (system, timeline, database, role, epoch, since),
	pg_control_system() AS s, pg_control_checkpoint() AS c, pg_database AS d
WHERE d.datname = current_database() AND n.system = s.system_identifier;
INSERT INTO node SELECT * FROM node;
SELECT start();
SELECT node_state(), epoch FROM node;

-- a copy: another timeline, another database
UPDATE node SET timeline = timeline + 1;
SELECT node_state();
SELECT publish(pg_temp.made('c')::narinfo);
\set VERBOSITY sqlstate
SELECT publish(pg_temp.made('c')::narinfo);
INSERT INTO valid_path (info) VALUES (pg_temp.made('c')::narinfo);
SELECT publish(pg_temp.made('a', 'b')::narinfo);
DELETE FROM valid_path;
UPDATE cache SET priority = 1;
\set VERBOSITY default
SELECT last_event(), count(*) FROM valid_path;
SELECT start();
SELECT node_state(), epoch FROM node;
SELECT publish(pg_temp.made('c', 'a')::narinfo);
SELECT seq, epoch FROM event ORDER BY seq;
UPDATE node SET database = 1;
SELECT node_state();
SELECT start(), start();
SELECT node_state(), epoch FROM node;
UPDATE node SET role = 'mirror';
SELECT node_state();
SELECT publish(pg_temp.made('d')::narinfo);
UPDATE node SET role = 'primary';

-- a database that has a history takes no dump
SET pg_narinfo.restore = on;
INSERT INTO event SELECT * FROM event;
INSERT INTO valid_path (info) VALUES (pg_temp.made('d')::narinfo);
RESET pg_narinfo.restore;

-- what a dump has
CREATE TABLE public.kept AS
	SELECT 'cache' AS name, to_jsonb(c) AS row FROM cache AS c
	UNION ALL SELECT 'valid_path', to_jsonb(v) FROM valid_path AS v
	UNION ALL SELECT 'event', to_jsonb(e) FROM event AS e;
CREATE FUNCTION public.load(name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('INSERT INTO narinfo.%1$I SELECT (jsonb_populate_record('
		'NULL::narinfo.%1$I, k.row)).* FROM public.kept AS k '
		'WHERE k.name = %1$L', name);
END $$;
DROP EXTENSION pg_narinfo;
CREATE EXTENSION pg_narinfo;

-- it is known by what pg_dump sets, or said; tables in any order, none
-- published
SET check_function_bodies = off;
SELECT pg_catalog.set_config('search_path', '', false);
SELECT public.load('valid_path');
RESET check_function_bodies;
SET search_path = narinfo, public;
SELECT node_state(), last_event();
SELECT publish(pg_temp.made('d')::narinfo);
INSERT INTO cache VALUES ('other');
SET pg_narinfo.restore = off;
SELECT load('event');
SET pg_narinfo.restore = on;
SELECT load('event');
RESET pg_narinfo.restore;
SELECT node_state(), last_event();

-- half of it is not enough
\set VERBOSITY terse
SELECT start();
SELECT node_state(), count(*) FROM node;
SET pg_narinfo.restore = on;
SELECT load('cache');
BEGIN;
DELETE FROM event WHERE seq = 2;
COMMIT;
SELECT start();
\set VERBOSITY default
BEGIN;
INSERT INTO event SELECT (jsonb_populate_record(NULL::event, row)).*
	FROM kept WHERE name = 'event' AND row ->> 'seq' = '2';
SELECT start();
ROLLBACK;
BEGIN;
INSERT INTO event SELECT (jsonb_populate_record(NULL::event, row)).*
	FROM kept WHERE name = 'event' AND row ->> 'seq' = '2';
SELECT publish(pg_temp.made('d')::narinfo);
RESET pg_narinfo.restore;
SELECT publish(pg_temp.made('f')::narinfo);
COMMIT;
SET pg_narinfo.restore = on;
INSERT INTO event SELECT (jsonb_populate_record(NULL::event, row)).*
	FROM kept WHERE name = 'event' AND row ->> 'seq' = '2';
RESET pg_narinfo.restore;

-- all of it is
SELECT count(*) FROM referrers('/nix/store/br3jxf1l9gnghmbkmfc1x3pr7j6198mx-b');
SELECT start();
SELECT node_state(), epoch FROM node;
SELECT seq, edges FROM referrer_state JOIN referrer_run USING (cache);
SELECT publish(pg_temp.made('d')::narinfo);
SELECT seq, epoch, kind, digest = cache_digest() AS last FROM event ORDER BY seq;
SELECT referrers('/nix/store/br3jxf1l9gnghmbkmfc1x3pr7j6198mx-b');

-- triggers that pg_restore --disable-triggers has enabled as it likes
DROP EXTENSION pg_narinfo;
CREATE EXTENSION pg_narinfo;
ALTER TABLE cache DISABLE TRIGGER ALL;
ALTER TABLE event DISABLE TRIGGER ALL;
SELECT load('cache');
SELECT load('event');
ALTER TABLE cache ENABLE TRIGGER ALL;
ALTER TABLE event ENABLE TRIGGER ALL;
SET pg_narinfo.restore = on;
SELECT load('valid_path');
RESET pg_narinfo.restore;
SELECT node_state();
SELECT start();
SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger
	WHERE tgname IN ('changed', 'check_applied') ORDER BY 1, 2;

-- a load of rows that are no dump's, into a new database
DROP EXTENSION pg_narinfo;
CREATE EXTENSION pg_narinfo;
SET pg_narinfo.restore = off;
SET check_function_bodies = off;
SELECT pg_catalog.set_config('search_path', '', false);
SELECT public.load('valid_path');
SET search_path = narinfo, public;
SELECT node_state(), last_event();
RESET check_function_bodies;
RESET pg_narinfo.restore;
DROP FUNCTION load(text);
DROP TABLE kept;
