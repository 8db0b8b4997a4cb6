--
-- The gate: policies of caches, divergence, touched paths, roles
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


-- making, altering and dropping is said once, and is an event once
SELECT create_cache('a'), create_cache('a'), last_event('a');
SELECT create_cache('a', priority => 3);
SELECT alter_cache('a', priority => 3), alter_cache('a', priority => 3);
SELECT alter_cache('a'), last_event('a');
SELECT alter_cache('b', priority => 3);
SELECT alter_cache('main', priority => 3), alter_cache('main', priority => 40);
SELECT publish(pg_temp.made('x'), 'a'), publish(pg_temp.made('y', 'x'), 'a');
SELECT drop_cache('a'), drop_cache('a');
SELECT count(*) FROM valid_path;
SELECT * FROM log;
SELECT pg_temp.sound(), pg_temp.sound('a');

-- another NarHash
CREATE FUNCTION pg_temp.other(c text) RETURNS narinfo LANGUAGE sql AS $$
	SELECT replace(pg_temp.made(c)::text, '000' || c, '00g' || c)::narinfo $$;
CREATE FUNCTION pg_temp.diverged() RETURNS TABLE (cache text, path text,
		who text, old text, new text, action text) LANGUAGE sql AS $$
	SELECT cache, left(hash::text, 1), who = current_user, right(old_nar_hash::text, 3),
		right(new_nar_hash::text, 3), action FROM divergence ORDER BY at $$;
SELECT create_cache('keeps', on_divergence => 'keep'),
	create_cache('replaces', on_divergence => 'replace');
SELECT c, publish(pg_temp.made('a'), c) FROM unnest('{main,keeps,replaces}'::text[]) AS c;
SELECT publish(pg_temp.other('a'));
UPDATE valid_path SET info = pg_temp.other('a') WHERE cache = 'main';
SELECT publish(pg_temp.other('a'), 'keeps');
UPDATE valid_path SET info = pg_temp.other('a') WHERE cache = 'keeps';
SELECT publish(pg_temp.other('a'), 'replaces');
BEGIN;
SELECT publish_many(ARRAY[pg_temp.made('b'), pg_temp.made('a')], 'replaces');
ROLLBACK;
-- the next to pass the gate has written those that were refused
SELECT publish(pg_temp.made('c'));
SELECT * FROM pg_temp.diverged() ORDER BY 1, 4, 5;
SELECT pg_temp.sound(), pg_temp.sound('keeps'), pg_temp.sound('replaces');

-- touched: what was published as it is
SELECT last_event() AS last
\gset
SELECT cache, left(hash::text, 1) AS path FROM touched ORDER BY 1, 2;
-- a row is renewed when it is 10 seconds old
UPDATE touched SET at = at - interval '1 min' WHERE cache = 'keeps';
SELECT max(at) AS before FROM touched WHERE cache = 'keeps'
\gset
SELECT publish(pg_temp.made('c')), publish(pg_temp.made('a'), 'keeps'), last_event('keeps');
UPDATE valid_path SET info = info WHERE cache = 'replaces';
SELECT cache, left(hash::text, 1) AS path, at > :'before' AS later
	FROM touched ORDER BY 1, 2;
SELECT ctid AS before FROM touched WHERE cache = 'keeps' AND at > :'before'
\gset
SELECT publish(pg_temp.made('a'), 'keeps');
SELECT count(*) FROM touched WHERE cache = 'keeps' AND ctid = :'before';
-- or what somebody counts on
DELETE FROM touched;
SELECT touch(ARRAY[store_hash(pg_temp.made('c')), (repeat('z', 31) || '0')::store_hash,
	store_hash(pg_temp.made('a'))]), last_event() - :last AS events;
SELECT touch(ARRAY[store_hash(pg_temp.made('a'))], 'keeps'), touch('{}');
SELECT touch(ARRAY[NULL]::store_hash[]);
SELECT touch('{}', 'nowhere');
SELECT cache, left(hash::text, 1) AS path FROM touched ORDER BY 1, 2;

-- keys: what is trusted is said once, and is an event once
\set nixos 'cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY='
SELECT create_cache('signed', require_closure => false);
SELECT trust_key(:'nixos', 'signed'), trust_key(:'nixos', 'signed');
SELECT untrust_key(:'nixos', 'signed'), untrust_key(:'nixos', 'signed');
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('signed', 'nix', 'cache.nixos.org-1', :'nixos');
UPDATE key SET added = added - interval '1 day' WHERE cache = 'signed';
BEGIN;
SELECT untrust_key(:'nixos', 'signed'), trust_key(:'nixos', 'signed');
DELETE FROM key WHERE cache = 'signed';
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('signed', 'nix', 'cache.nixos.org-1', :'nixos');
COMMIT;
SELECT seq, kind, name FROM event WHERE cache = 'signed' ORDER BY seq;
SELECT pg_temp.sound('signed');
-- what is not a new key, or not of a cache, is refused
UPDATE key SET cache = 'main' WHERE cache = 'signed';
TRUNCATE key;
INSERT INTO key (cache, kind, name, public_key)
	VALUES ('nowhere', 'nix', 'cache.nixos.org-1', :'nixos');
DELETE FROM cache WHERE name = 'signed';

-- signatures by so many of the trusted keys; a key counts once
\set hello 'StorePath: /nix/store/n5glp21rsz314qssw9fbvfswgy3kc68f-hello-2.12.1\nURL: nar/1lid9xrpirkzcpqsxfq02qwiq0yd70chfl860wzsqd1739ih0nri.nar.xz\nCompression: xz\nFileHash: sha256:1lid9xrpirkzcpqsxfq02qwiq0yd70chfl860wzsqd1739ih0nri\nFileSize: 50160\nNarHash: sha256:07kc6swib31psygpmwi8952lvywlpqn474059yxl7grwsvr6k0fj\nNarSize: 226552\nReferences: n5glp21rsz314qssw9fbvfswgy3kc68f-hello-2.12.1 qdcbgcj27x2kpxj2sf9yfvva7qsgg64g-glibc-2.38-77\nDeriver: 1zpqmcicrg8smi9jlqv6dmd7v20d2fsn-hello-2.12.1.drv\nSig: cache.nixos.org-1:MadTCU1OSFCGUw4aqCKpLCZJpqBc7AbLvO7wgdlls0eq1DwaSnF/82SZE+wJGEiwlHbnZR+14daSaec0W3XoBQ==\n'
SELECT alter_cache('signed', min_signatures => 1);
SELECT publish(pg_temp.made('d'), 'signed');
SELECT publish(replace(:'hello', 'NarSize: ', 'NarSize: 1')::narinfo, 'signed');
INSERT INTO valid_path (cache, info) VALUES ('signed', replace(:'hello', 'org-1:', 'org-2:')::narinfo);
SELECT publish(:'hello', 'signed'), publish(:'hello', 'signed');
UPDATE valid_path SET info = regexp_replace(info::text, 'Sig: [^\n]*\n', '')::narinfo
	WHERE cache = 'signed';
SELECT alter_cache('signed', min_signatures => 2);
SELECT trust_key('again-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=', 'signed');
UPDATE valid_path SET info = (info::text || regexp_replace(info::text, '.*Sig: ', 'Sig: ')
	|| regexp_replace(info::text, '.*Sig: cache.nixos.org-1', 'Sig: again-1'))::narinfo
	WHERE cache = 'signed';
SELECT alter_cache('signed', min_signatures => -1);
BEGIN;
SELECT untrust_key(:'nixos', 'signed'), alter_cache('signed', min_signatures => 1);
UPDATE valid_path SET info = regexp_replace(info::text, 'Sig: cache.nixos.org-1', 'Sig: nobody')::narinfo
	WHERE cache = 'signed';
COMMIT;
SELECT pg_temp.sound('signed'), drop_cache('signed');
SELECT count(*) FROM key;
SELECT digest FROM event WHERE cache = 'signed' ORDER BY seq DESC LIMIT 1;

-- a filter: it returns false, or raises what it likes; so may NULL not pass
CREATE FUNCTION public.no_d(i narinfo, cache text) RETURNS boolean
	LANGUAGE plpgsql AS $$ BEGIN
	IF store_name(store_path(i)) = 'q' THEN
		RAISE 'no q in %', cache;
	END IF;
	RETURN nullif(store_name(store_path(i)) <> 'd',
		store_name(store_path(i)) = 'f');
	END $$ SET search_path = narinfo;
SELECT alter_cache('main', filter => 'public.no_d');
SELECT filter FROM cache WHERE name = 'main';
SELECT publish(pg_temp.made('d'));
SELECT publish_many(ARRAY[pg_temp.made('g'), pg_temp.made('q')]);
INSERT INTO valid_path (info) VALUES (pg_temp.made('f'));
SELECT publish(pg_temp.made('g')), publish(pg_temp.made('d'), 'keeps');
DROP FUNCTION public.no_d(narinfo, text);
SELECT publish(pg_temp.made('h'));
SELECT alter_cache('main', filter => '');
SELECT publish(pg_temp.made('h'));
SELECT alter_cache('main', filter => 'nothing');
SELECT alter_cache('main', hook => 'pg_catalog.length');

-- a hook: sees what was published, may publish itself, and defer
CREATE FUNCTION public.no_boolean(narinfo, text) RETURNS text LANGUAGE sql AS 'SELECT $2';
SELECT alter_cache('main', filter => 'public.no_boolean');
DROP FUNCTION public.no_boolean(narinfo, text);
CREATE TABLE public.told (cache text, first bigint, last bigint, paths bigint,
	CONSTRAINT told_once UNIQUE (cache, first) DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION public.hook(cache text, first bigint, last bigint)
	RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	INSERT INTO public.told SELECT $1, $2, $3, count(*)
		FROM narinfo.valid_path AS v WHERE v.cache = $1;
	IF cache = 'main' THEN
		PERFORM narinfo.publish(v.info, 'copy') FROM narinfo.valid_path AS v
			JOIN narinfo.event AS e ON e.cache = v.cache AND e.hash = v.hash
			WHERE e.cache = $1 AND seq BETWEEN first AND last;
	END IF;
	END $$;
SELECT create_cache('copy', hook => 'public.hook');
SELECT alter_cache('main', hook => 'public.hook');
SELECT publish_many(ARRAY[pg_temp.made('i'), pg_temp.made('j')]);
SELECT * FROM public.told;
SELECT pg_temp.sound(), pg_temp.sound('copy');
-- what it defers is checked, and fails all
INSERT INTO public.told SELECT 'main', last_event() + 1;
SELECT publish(pg_temp.made('k'));
SELECT last_event() = max(first) - 1 FROM public.told WHERE cache = 'main';
SELECT alter_cache('main', hook => ''), alter_cache('copy', hook => '');
DROP FUNCTION public.hook(text, bigint, bigint);
DROP TABLE public.told;

-- what everybody may call that is not stable, and write; what publishers may
SELECT p.oid::regprocedure FROM pg_proc AS p
	WHERE p.pronamespace = 'narinfo'::regnamespace AND p.provolatile = 'v'
		AND p.prorettype <> 'trigger'::regtype
		AND has_function_privilege('public', p.oid, 'EXECUTE')
	ORDER BY 1;
SELECT c.oid::regclass, r.role FROM pg_class AS c,
		unnest('{public,narinfo_reader,narinfo_publisher,narinfo_worker}'::name[]) AS r (role)
	WHERE c.relnamespace = 'narinfo'::regnamespace AND c.relkind IN ('r', 'v', 'S')
		AND has_table_privilege(r.role, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
	ORDER BY 1, 2;
SELECT p.oid::regprocedure FROM pg_proc AS p
	WHERE p.pronamespace = 'narinfo'::regnamespace
		AND has_function_privilege('narinfo_publisher', p.oid, 'EXECUTE')
		AND NOT has_function_privilege('public', p.oid, 'EXECUTE')
	ORDER BY p.oid::regprocedure::text COLLATE "C";
-- roles: readers read, publishers publish, admins do the rest; a function is
-- registered by who owns it
CREATE FUNCTION public.all_pass(narinfo, text) RETURNS boolean
	LANGUAGE sql AS 'SELECT true';
CREATE ROLE regress_narinfo_user;
GRANT narinfo_reader TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT last_event('keeps'), count(*) FROM changes(0, 10, 'keeps');
SELECT publish(info) FROM valid_path;
SELECT drop_cache('keeps');
RESET ROLE;
GRANT narinfo_publisher TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT publish(info, 'copy') FROM valid_path WHERE cache = 'main' AND hash::text LIKE 'c%';
SELECT publish(replace(info::text, repeat('0', 51), '0' || repeat('1', 50))::narinfo)
	FROM valid_path WHERE cache = 'main' AND hash::text LIKE 'c%';
DELETE FROM valid_path;
DELETE FROM event;
SELECT drop_cache('keeps');
RESET ROLE;
GRANT narinfo_admin TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT drop_cache('keeps');
SELECT alter_cache('main', filter => 'public.all_pass');
RESET ROLE;
ALTER FUNCTION public.all_pass(narinfo, text) OWNER TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT alter_cache('main', filter => 'public.all_pass');
RESET ROLE;
SELECT alter_cache('main', filter => '');
SELECT who, cache FROM divergence WHERE who <> current_user;
DROP FUNCTION public.all_pass(narinfo, text);
DROP ROLE regress_narinfo_user;
SELECT pg_temp.sound(), pg_temp.sound('copy');

SELECT drop_cache(name) FROM cache;
SELECT * FROM cache;
DROP VIEW log;
