--
-- The reverse index, and taking paths out
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
CREATE VIEW log AS
	SELECT cache, seq, kind, left(hash::text, 1) AS path, epoch FROM event
	ORDER BY cache, seq;
-- the last event has the digest of what is there, and no number is left out
CREATE FUNCTION pg_temp.sound(cache text DEFAULT 'main') RETURNS boolean
	LANGUAGE sql AS $$
	SELECT max(seq) - min(seq) + 1 = count(*)
		AND (array_agg(digest ORDER BY seq DESC))[1] = cache_digest($1)
	FROM event AS e WHERE e.cache = $1 $$;


-- the same from the rows alone, for every path: what is answered wrongly
CREATE FUNCTION pg_temp.wrong(cache text DEFAULT 'main') RETURNS bigint
	LANGUAGE sql AS $$
	SELECT count(*) FROM (SELECT DISTINCT ref FROM valid_path AS v,
			unnest(ref_hashes(v.info)) AS ref WHERE v.cache = $1) AS refs,
		LATERAL (SELECT array_agg(store_path(w.info) ORDER BY store_path(w.info))
			FROM valid_path AS w WHERE w.cache = $1 AND w.hash <> ref
				AND ref = ANY (ref_hashes(w.info))) AS truth (paths)
	WHERE paths IS DISTINCT FROM
		(SELECT array_agg(r ORDER BY r) FROM referrers_of(ARRAY[ref], $1) AS r) $$;
CREATE FUNCTION pg_temp.path(c text) RETURNS store_path LANGUAGE sql AS
	$$ SELECT store_path(pg_temp.made(c)) $$;

-- nothing in the index: the events alone
SELECT publish_many(ARRAY[pg_temp.made('a', 'a'), pg_temp.made('b', 'a'),
	pg_temp.made('c', 'ab'), pg_temp.made('d', 'c'), pg_temp.made('f', 'gf'),
	pg_temp.made('g', 'f')]);
SELECT store_name(r) FROM referrers(pg_temp.path('a')) AS r;
SELECT store_name(r) FROM referrers(pg_temp.path('f')) AS r;
SELECT count(*) FROM referrers(pg_temp.path('z'));
SELECT pg_temp.wrong();

-- half of it, all of it, and what comes behind
SELECT referrers_follow(3), pg_temp.wrong();
SELECT referrers_follow(100), referrers_follow(100), pg_temp.wrong();
SELECT seq = last_event() AS complete FROM referrer_state;
SELECT publish(pg_temp.made('h', 'a')), publish(pg_temp.made('b', '', E'X: y\n'));
SELECT store_name(r) FROM referrers(pg_temp.path('a')) AS r;
SELECT pg_temp.wrong();

-- one's own transaction is seen, once it is past the gate
SELECT referrers_follow(100), pg_temp.wrong();
CALL rebuild_referrers();
SELECT seq = last_event() AS complete FROM referrer_state;
SELECT pg_temp.wrong();

-- taking out: what is not there is passed over, what is referred to is not
SELECT retract(ARRAY[pg_temp.path('z'), NULL]), retract('{}');
SELECT retract(ARRAY[pg_temp.path('d')]);
\set VERBOSITY terse
SELECT retract(ARRAY[pg_temp.path('a')]);
SELECT retract(ARRAY[pg_temp.path('f')]);
\set VERBOSITY default
SELECT retract(ARRAY[pg_temp.path('f'), pg_temp.path('g')]);
SELECT retract(ARRAY[pg_temp.path('b')], true);
SELECT publish(pg_temp.made('b'));
SELECT retract(ARRAY[pg_temp.path('b'), pg_temp.path('a')], true);
SELECT left(hash::text, 1) AS path, info = pg_temp.made('f', 'gf') AS f, by = current_user AS me
	FROM trash ORDER BY 1, 2;
SELECT seq, kind, path FROM log WHERE seq > 7;
SELECT pg_temp.sound(), pg_temp.wrong(), count(*) FROM valid_path;

-- many batches, whose runs are merged; paths that come and go
SELECT create_cache('many', require_closure => false);
CREATE FUNCTION pg_temp.numbered(i integer, refs integer[], more text DEFAULT '')
	RETURNS narinfo LANGUAGE sql AS $$
	SELECT format(E'StorePath: /nix/store/%s-%s\nURL: nar/%s\nNarHash: sha256:%s\nNarSize: 5\n'
		'References: %s\n%s', translate(md5(i::text), 'e', 'z'), i, i, repeat('0', 52),
		(SELECT string_agg(translate(md5(r::text), 'e', 'z') || '-' || r, ' ') FROM unnest(refs) AS r),
		more)::narinfo $$;
DO $$
BEGIN
	FOR batch IN 0..99 LOOP
		PERFORM publish_many(ARRAY(SELECT pg_temp.numbered(i,
				CASE WHEN i > 0 THEN ARRAY(SELECT DISTINCT n FROM unnest(
					ARRAY[0, i / 2, i * 7 % i, i]) AS n) END)
			FROM generate_series(batch * 20, batch * 20 + 19) AS i), 'many');
		COMMIT;
		IF batch % 10 = 5 THEN
			PERFORM retract(ARRAY[store_path(pg_temp.numbered(batch * 20, NULL))], true, 'many');
		ELSIF batch % 10 = 7 THEN
			UPDATE valid_path SET info = pg_temp.numbered(batch * 20 + 3, '{1}')
			WHERE cache = 'many' AND hash = store_hash(pg_temp.numbered(batch * 20 + 3, NULL));
		END IF;
		COMMIT;
		PERFORM referrers_follow(19, 'many');
		COMMIT;
	END LOOP;
END
$$;
SELECT level, count(*) FROM referrer_run WHERE cache = 'many' GROUP BY 1 ORDER BY 1;
SELECT seq < last_event('many') AS behind FROM referrer_state WHERE cache = 'many';
SELECT pg_temp.wrong('many'), pg_temp.sound('many');
SELECT referrers_follow(100000, 'many') > 0, pg_temp.wrong('many');
SELECT count(*) > 1500 FROM referrers(store_path(pg_temp.numbered(0, NULL)), 'many');
CALL rebuild_referrers('many');
SELECT pg_temp.wrong('many'), count(*) FROM referrer_run WHERE cache = 'many';

-- rights
CREATE ROLE regress_narinfo_user;
GRANT narinfo_reader TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
SELECT count(*) FROM referrers('/nix/store/ar3jxf1l9gnghmbkmfc1x3pr7j6198mx-a');
SELECT retract('{}');
SELECT referrers_follow(1);
CALL rebuild_referrers();
SELECT referrers_rebuild('main');
RESET ROLE;
DROP ROLE regress_narinfo_user;
DROP VIEW log;
SELECT drop_cache('many'), drop_cache('main');

DO $$
BEGIN
	PERFORM narinfo.start();
EXCEPTION WHEN object_not_in_prerequisite_state THEN
	NULL;
END
$$;
