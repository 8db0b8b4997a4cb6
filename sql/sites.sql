--
-- Sites: what needs no second server
--
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
RESET client_min_messages;
SET search_path = narinfo, public;
\set SHOW_CONTEXT never
-- a server alone
SELECT site_name(), node_state();
SELECT count(*) FROM stat_sites;
SELECT dismiss_site('oslo');
SELECT site_bucket(repeat('z', 32)::store_hash, b)
	FROM unnest(ARRAY[0, 1, 8, 16]) AS b;
SELECT site_bucket(repeat('0', 32)::store_hash, 16);
SELECT site_bucket(repeat('z', 32)::store_hash, 17);
-- what is refused before anybody is asked
CALL join_site('host=/nowhere password=x', 'oslo');
CALL join_site('nonsense', 'oslo');
CALL join_site('host=/nowhere', 'Oslo');
CALL join_site(NULL, 'oslo');
CALL join_site('host=/nowhere', 'oslo', conninfo => 'password=x');
BEGIN;
CALL join_site('host=/nowhere', 'oslo');
ROLLBACK;
CALL leave_site();
CALL repoint('host=/nowhere');
CALL repair_site();
CALL verify_site();
CREATE ROLE regress_narinfo_user;
GRANT narinfo_admin TO regress_narinfo_user;
SET ROLE regress_narinfo_user;
CALL leave_site();
SELECT count(*) FROM stat_sites;
SELECT site_health()->'status', site_reason() IS NULL;
RESET ROLE;
-- with an identity: rows against digests
SELECT publish(E'StorePath: /nix/store/00000000000000000000000000000001-p\nURL: nar/x\nNarHash: sha256:0000000000000000000000000000000000000000000000000000\nNarSize: 9\n');
CALL verify_site();
BEGIN;
SET LOCAL session_replication_role = replica;
DELETE FROM valid_path;
COMMIT;
\set VERBOSITY terse
CALL verify_site();
\set VERBOSITY default
SELECT cache, seq, problem IS NOT NULL AS wrong, vote FROM site_cache;
CALL join_site('host=/nowhere', 'oslo');
-- events are for mirrors, without gaps, and of no epoch that is over
SET session_replication_role = replica;
INSERT INTO event SELECT cache, seq + 1, epoch, at, kind, hash, name, lsn, digest FROM event WHERE seq = 2;
UPDATE node SET role = 'mirror';
INSERT INTO event SELECT cache, 9, epoch, at, kind, hash, name, lsn, digest FROM event WHERE seq = 2;
UPDATE node SET promised = 3, bound = true;
INSERT INTO event SELECT cache, 3, epoch, at, kind, hash, name, lsn, digest FROM event WHERE seq = 2;
UPDATE node SET bound = false;
BEGIN;
INSERT INTO event SELECT cache, 3, epoch, at, kind, hash, name, lsn, digest FROM event WHERE seq = 2;
SELECT last_event();
ROLLBACK;
RESET session_replication_role;
-- a mirror
DELETE FROM trash;
DROP EXTENSION pg_narinfo CASCADE;
SELECT create_cache('x');
UPDATE node SET role = 'primary';
DROP ROLE regress_narinfo_user;
SET client_min_messages = warning;
DROP EXTENSION pg_narinfo CASCADE;
CREATE EXTENSION pg_narinfo;
