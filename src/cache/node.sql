--
-- Who this server is.  Neither dumped nor replicated: src/cache/node.c says
-- what follows from its row, and from there being none.
--
CREATE TYPE node_role AS ENUM ('primary', 'mirror');

COMMENT ON TYPE node_role IS
'what a server is among the sites of its caches: primary publishes, a mirror has what the primary published';

CREATE TABLE node (
	system_identifier bigint NOT NULL,
	timeline integer NOT NULL,
	database oid NOT NULL,
	role node_role NOT NULL,
	epoch integer NOT NULL,
	since timestamptz NOT NULL,
	site text COLLATE "C",
	promised integer NOT NULL DEFAULT 0,
	consistent boolean NOT NULL DEFAULT true
);

CREATE UNIQUE INDEX node_one_row ON node ((true));

COMMENT ON TABLE node IS
'who this server is: one row, or none in a database that is empty, or was restored from a dump and not yet started';
COMMENT ON COLUMN node.system_identifier IS
'of the server, as pg_control_system() has it';
COMMENT ON COLUMN node.timeline IS
'of its write-ahead log: another one after it was promoted or restored from a base backup';
COMMENT ON COLUMN node.database IS
'OID of the database: another one in a copy of it';
COMMENT ON COLUMN node.role IS 'whether it publishes';
COMMENT ON COLUMN node.epoch IS
'epoch of the events that it writes; of a mirror, that of the site that it follows when it began to';
COMMENT ON COLUMN node.since IS 'when it began to be this';
COMMENT ON COLUMN node.site IS
'name of this site, once others know it; NULL: it is alone';
COMMENT ON COLUMN node.promised IS
'the highest epoch that this site has promised to follow: it applies no event of a lower one; 0: none';
COMMENT ON COLUMN node.consistent IS
'whether its caches are whole: false while a mirror is filled for the first time; until then nothing is served';

-- Every process remembers the row.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON node
	FOR EACH ROW EXECUTE FUNCTION cache_changed();

ALTER TABLE node ENABLE ALWAYS TRIGGER changed;

CREATE FUNCTION node_state() RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_node_state'
	LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION node_state() IS
'what this server does in this database: primary; mirror; standby, in recovery; new, empty; restoring and fenced, both until start() has checked it';
