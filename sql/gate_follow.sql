--
-- What a follower reads, and how long events are kept
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;

-- where there is a janitor, it must not be quicker than we are
DO $$
BEGIN
	PERFORM narinfo.stop();
	WHILE EXISTS (SELECT FROM pg_stat_activity
		WHERE backend_type = 'pg_narinfo janitor' AND datname = current_database())
	LOOP
		PERFORM pg_sleep(0.02), pg_stat_clear_snapshot();
	END LOOP;
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	NULL;
END
$$;

-- a narinfo with this first character of its hash, these references, a line
CREATE FUNCTION pg_temp.made(c text, refs text DEFAULT '', more text DEFAULT '')
	RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%sr3jxf1l9gnghmbkmfc1x3pr7j6198mx-%s\n'
		'URL: nar/%s.nar\nNarHash: sha256:%s\nNarSize: 5\nReferences: %s\n%s', c, c,
		c, repeat('0', 51) || c,
		(SELECT string_agg(r || 'r3jxf1l9gnghmbkmfc1x3pr7j6198mx-' || r, ' ')
			FROM regexp_split_to_table(refs, '') AS r WHERE r <> ''),
		more)::narinfo $$;

SELECT publish_many(ARRAY[pg_temp.made('a'), pg_temp.made('b', 'a')]);
SELECT publish(pg_temp.made('a', '', E'X: y\n'));
SELECT trust_key('cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=');
SELECT retract(ARRAY[store_path(pg_temp.made('b'))]);
SELECT publish(pg_temp.made('c'));
SELECT alter_cache('main', priority => 3);

-- every event, with the narinfo that the path has now
SELECT seq, epoch, kind, left(hash::text, 1) AS path, name,
		info = pg_temp.made('a', '', E'X: y\n') AS a, info = pg_temp.made('c') AS c
	FROM changes(0);
SELECT bool_and(c.digest = e.digest AND c.at = e.at) FROM changes(0) AS c
	JOIN event AS e USING (seq);

-- from any number on, in steps of any size, and nothing behind the last one
SELECT a, m, count(*), min(seq), max(seq)
	FROM unnest('{0,3,7,8,100,9223372036854775807}'::bigint[]) AS a,
		unnest('{1,3,1000,2147483647}'::integer[]) AS m,
		LATERAL changes(a, m) GROUP BY 1, 2 ORDER BY 1, 2;
-- a follower that takes two at a time ends up with what is there
CREATE TABLE copy (hash store_hash PRIMARY KEY, info narinfo);
DO $$
DECLARE
	seen bigint := 0;
	e record;
	n integer;
BEGIN
	LOOP
		n := 0;
		FOR e IN SELECT * FROM changes(seen, 2) LOOP
			n := n + 1;
			seen := e.seq;
			IF e.hash IS NOT NULL THEN
				DELETE FROM copy WHERE hash = e.hash;
				INSERT INTO copy SELECT e.hash, e.info WHERE e.info IS NOT NULL;
			END IF;
		END LOOP;
		EXIT WHEN n = 0;
	END LOOP;
END
$$;
SELECT count(*), bool_and(c.info = v.info) FROM copy AS c
	FULL JOIN valid_path AS v USING (hash);
DROP TABLE copy;
SELECT count(*) FROM changes(NULL);
SELECT count(*) FROM changes(0, 1, 'unknown');
SELECT changes(-1);
SELECT changes(0, 0);

-- removing: none that the reverse index has not seen, nor the last one
SELECT cut_events('0', 100), last_event();
SELECT referrers_follow(3) > 0, cut_events('0', 100);
SELECT min(seq), max(seq), count(*) FROM event;
SELECT referrers_follow(100) > 0, cut_events('1 hour', 100), cut_events('0', 2);
SELECT min(seq), max(seq), count(*) FROM event;

-- behind what is kept one may go on, before it not
SELECT seq, kind FROM changes(5);
SELECT count(*) FROM changes(8) AS a, changes(100) AS b;
\set VERBOSITY sqlstate
SELECT changes(4);
\set VERBOSITY default
SELECT changes(4);
SELECT changes(0, 1);

SELECT cut_events('0', 100), cut_events('0', 100), last_event();
SELECT seq, kind, digest = cache_digest() AS digest FROM event;
SELECT publish(pg_temp.made('d')), publish(pg_temp.made('d'));
SELECT seq, kind FROM changes(8);
SELECT store_name(r) FROM referrers('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a') AS r;
CALL rebuild_referrers();
SELECT cut_events('0', 100);
SELECT seq FROM event;
-- of no cache, of one that is gone
SELECT cut_events('0', 100, 'unknown');
SELECT create_cache('gone'), referrers_follow(100, 'gone');
SELECT drop_cache('gone'), referrers_follow(100, 'gone');
SELECT cut_events('0', 100, 'gone'), last_event('gone');
SELECT seq, kind FROM changes(1, 10, 'gone');

-- rights
CREATE ROLE regress_narinfo_user;
GRANT USAGE ON SCHEMA narinfo TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT count(*) FROM changes(100);
RESET ROLE;
GRANT narinfo_admin TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT count(*) FROM changes(100);
SELECT cut_events('0', 1);
RESET ROLE;
REVOKE USAGE ON SCHEMA narinfo FROM regress_narinfo_user;
DROP ROLE regress_narinfo_user;
SELECT drop_cache('main');

-- the first key makes the row of main, as the first path does
SELECT last_event() AS dropped
\gset
SELECT trust_key('cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=');
SELECT kind, digest = cache_digest() AS digest FROM changes(:dropped);
SELECT drop_cache('main');

DO $$
BEGIN
	PERFORM narinfo.start();
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	NULL;
END
$$;
