--
-- Files whose narinfos are gone, until they go, too.
--
-- The tables are this site's own: neither replicated nor dumped.
-- src/nar/removal.h says how files are removed.
--
CREATE TABLE file_removal (
	cache text COLLATE "C" NOT NULL,
	path text COLLATE "C" NOT NULL,
	hash store_hash,
	bytes bigint,
	since timestamptz NOT NULL,
	UNIQUE NULLS NOT DISTINCT (cache, path, hash)
);

CREATE INDEX file_removal_since ON file_removal (since);

COMMENT ON TABLE file_removal IS
'files of this site that a narinfo has named which is gone; they are removed when nobody names them any more, pg_narinfo.file_grace after that. An entry that is deleted leaves its file in place';
COMMENT ON COLUMN file_removal.cache IS 'name of the cache';
COMMENT ON COLUMN file_removal.path IS
'the file, relative to the directory of its cache';
COMMENT ON COLUMN file_removal.hash IS
'the path whose narinfo named it; its HASH.ls goes with the entry. NULL: nobody did, see mend_files()';
COMMENT ON COLUMN file_removal.bytes IS
'size of the file as the narinfo had it, NULL if that did not say';
COMMENT ON COLUMN file_removal.since IS
'from when on the grace counts: when its narinfo was removed, or, if that is later, when the file was last pushed or asked for by somebody who may push';

CREATE TABLE file_removed (
	cache text COLLATE "C" PRIMARY KEY,
	files bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	kept bigint NOT NULL DEFAULT 0,
	absent bigint NOT NULL DEFAULT 0,
	last timestamptz NOT NULL
);

COMMENT ON TABLE file_removed IS
'what became of the entries of file_removal on this site';
COMMENT ON COLUMN file_removed.cache IS 'name of the cache';
COMMENT ON COLUMN file_removed.files IS 'files that were removed';
COMMENT ON COLUMN file_removed.bytes IS 'bytes of these';
COMMENT ON COLUMN file_removed.kept IS
'files that were due and stayed, since they were named, or young';
COMMENT ON COLUMN file_removed.absent IS
'files that were due and were not there';
COMMENT ON COLUMN file_removed.last IS 'when one of this cache was last due';

CREATE FUNCTION removal_queue() RETURNS trigger
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON FUNCTION removal_queue() IS
'trigger that puts the files of a narinfo which goes into file_removal';

CREATE TRIGGER removal_queue AFTER UPDATE OR DELETE ON valid_path
	FOR EACH ROW EXECUTE FUNCTION removal_queue();
CREATE TRIGGER removal_queue AFTER UPDATE OR DELETE ON trash
	FOR EACH ROW EXECUTE FUNCTION removal_queue();

-- where rows are applied by replication, too
ALTER TABLE valid_path ENABLE ALWAYS TRIGGER removal_queue;
ALTER TABLE trash ENABLE ALWAYS TRIGGER removal_queue;

-- for those that leave it
CREATE INDEX trash_removed ON trash (removed);

CREATE PROCEDURE remove_files()
	AS 'MODULE_PATHNAME'
	LANGUAGE C;

COMMENT ON PROCEDURE remove_files() IS
'does now what the janitor does every pg_narinfo.file_removal_pause: narinfos whose pg_narinfo.trash_grace is over leave trash (on the primary), and the files that are due are removed, of every cache. Commits on its way, and is called again to go on; reads all narinfos once for each 100000 files';

CREATE VIEW stat_files AS
	SELECT cache,
		coalesce(q.queued, 0) AS queued,
		coalesce(q.queued_bytes, 0) AS queued_bytes,
		coalesce(q.due, 0) AS due,
		q.next_due,
		coalesce(r.files, 0) AS removed,
		coalesce(r.bytes, 0) AS removed_bytes,
		coalesce(r.kept, 0) AS kept,
		coalesce(r.absent, 0) AS absent,
		r.last
	FROM (
		SELECT f.cache, count(*) AS queued, sum(f.bytes) AS queued_bytes,
			count(*) FILTER (WHERE g.grace >= '0'
				AND f.since + g.grace <= now()) AS due,
			CASE WHEN min(g.grace) >= '0' THEN min(f.since) + min(g.grace)
				END AS next_due
		FROM file_removal AS f,
			(SELECT current_setting('pg_narinfo.file_grace')::interval
				AS grace) AS g
		GROUP BY f.cache) AS q
	FULL JOIN file_removed AS r USING (cache);

COMMENT ON VIEW stat_files IS
'files of this site that wait for their removal, and what was removed, per cache';
COMMENT ON COLUMN stat_files.cache IS 'name of the cache';
COMMENT ON COLUMN stat_files.queued IS 'entries of file_removal';
COMMENT ON COLUMN stat_files.queued_bytes IS
'bytes of these, as their narinfos had it';
COMMENT ON COLUMN stat_files.due IS
'of these, those whose grace is over: to be looked at in the next run';
COMMENT ON COLUMN stat_files.next_due IS
'when the first of them is due; NULL: never, with pg_narinfo.file_grace = -1';
COMMENT ON COLUMN stat_files.removed IS 'files that were removed';
COMMENT ON COLUMN stat_files.removed_bytes IS 'bytes of these';
COMMENT ON COLUMN stat_files.kept IS
'files that were due and stayed, since they were named, or young';
COMMENT ON COLUMN stat_files.absent IS
'files that were due and were not there';
COMMENT ON COLUMN stat_files.last IS 'when one of this cache was last due';

REVOKE ALL ON PROCEDURE remove_files() FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE remove_files() TO narinfo_admin;
GRANT SELECT ON file_removal, file_removed, stat_files
	TO narinfo_reader, narinfo_publisher, narinfo_admin;
