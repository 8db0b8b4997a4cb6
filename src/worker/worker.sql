--
-- Workers: who they are in the database, and how they are told to leave it.
--
-- The role is a cluster's, not the database's: DROP EXTENSION leaves it, and
-- a second database finds it there.
--
DO $$
DECLARE
	worker text := current_setting('pg_narinfo.role');
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = worker)
	THEN
		EXECUTE format('CREATE ROLE %I LOGIN', worker);
		EXECUTE format('COMMENT ON ROLE %I IS %L', worker,
			'the workers of pg_narinfo; it has no password and needs none');
	END IF;
	EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I',
		current_database(), worker);
	EXECUTE format('GRANT USAGE ON SCHEMA narinfo TO %I', worker);
	EXECUTE format('GRANT SELECT ON narinfo.cache, narinfo.valid_path,
		narinfo.event, narinfo.key, narinfo.token TO %I', worker);
	EXECUTE format('GRANT EXECUTE ON FUNCTION
		narinfo.publish_many(narinfo.narinfo[], text) TO %I', worker);
END
$$;

CREATE FUNCTION stop() RETURNS void
	AS 'MODULE_PATHNAME', 'narinfo_stop'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION stop() IS
'make the workers leave this database and stay away until start() is called or the server is restarted; needed before DROP DATABASE';

REVOKE ALL ON FUNCTION stop() FROM PUBLIC;

CREATE FUNCTION start() RETURNS void
	AS 'MODULE_PATHNAME', 'narinfo_start'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION start() IS
'let the workers serve this database, now rather than when they would try next; before, what was restored from a dump, or is a copy of another server, is checked against its events, and may publish from then on';

REVOKE ALL ON FUNCTION start() FROM PUBLIC;

CREATE FUNCTION worker_status(
		OUT pid integer,
		OUT kind text,
		OUT state text,
		OUT started timestamptz,
		OUT connections integer,
		OUT connections_accepted bigint,
		OUT connections_refused bigint,
		OUT requests bigint,
		OUT bad_requests bigint,
		OUT bytes_sent bigint,
		OUT auth_failures bigint,
		OUT jobs bigint,
		OUT jobs_refused bigint)
	RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'narinfo_stat_workers'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE
	ROWS 10;

COMMENT ON FUNCTION worker_status() IS
'what stat_workers shows';

CREATE VIEW stat_workers AS
	SELECT pid, kind, state, started, connections, connections_accepted,
		connections_refused, requests, bad_requests, bytes_sent,
		auth_failures, jobs, jobs_refused
	FROM worker_status();

COMMENT ON VIEW stat_workers IS
'the processes of pg_narinfo in this server, with figures since each was started; the launcher''s state says why HTTP is not served, if it is not';
COMMENT ON COLUMN stat_workers.pid IS
'process id, as in pg_stat_activity; NULL while it is being started';
COMMENT ON COLUMN stat_workers.kind IS
'launcher, which starts the others, http, or writer, which publishes and stores what is uploaded';
COMMENT ON COLUMN stat_workers.state IS
'starting, serving or leaving; of the launcher: working, or what keeps it from starting workers';
COMMENT ON COLUMN stat_workers.started IS
'when the process was started';
COMMENT ON COLUMN stat_workers.connections IS
'HTTP connections that are open now';
COMMENT ON COLUMN stat_workers.connections_accepted IS
'HTTP connections that were accepted';
COMMENT ON COLUMN stat_workers.connections_refused IS
'HTTP connections that were over a limit';
COMMENT ON COLUMN stat_workers.requests IS
'HTTP requests that came in';
COMMENT ON COLUMN stat_workers.bad_requests IS
'HTTP requests that were malformed or over a limit';
COMMENT ON COLUMN stat_workers.bytes_sent IS
'bytes of HTTP replies that were sent';
COMMENT ON COLUMN stat_workers.auth_failures IS
'wrong tokens and proofs of keys that were shown to it';
COMMENT ON COLUMN stat_workers.jobs IS
'of a writer: uploads that it has finished, whatever came of them';
COMMENT ON COLUMN stat_workers.jobs_refused IS
'of a writer: those that were refused or failed';
