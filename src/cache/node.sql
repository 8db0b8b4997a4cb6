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
	consistent boolean NOT NULL DEFAULT true,
	promised_to text COLLATE "C",
	bound boolean NOT NULL DEFAULT false,
	closed text,
	closed_for text COLLATE "C",
	closed_epoch integer,
	CONSTRAINT node_closed_valid CHECK (closed IN ('switchover', 'promise',
		'epoch', 'behind', 'clone'))
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
'the highest epoch that this site has ever promised to somebody; it promises none twice; 0: none';
COMMENT ON COLUMN node.consistent IS
'whether its caches are whole: false while a mirror is filled for the first time; until then nothing is served';

COMMENT ON COLUMN node.promised_to IS
'name of the site that this epoch was promised to';
COMMENT ON COLUMN node.bound IS
'whether the promise binds: until that site publishes in the epoch, or has given it up, no event of a lower one is applied';
COMMENT ON COLUMN node.closed IS
'why a primary does not publish: switchover, to another site; promise, given to one; epoch, of another primary, that is higher; behind, what mirrors of it have; clone, of a server that answers under its name; NULL: it does';
COMMENT ON COLUMN node.closed_for IS 'the site that it is closed for';
COMMENT ON COLUMN node.closed_epoch IS
'epoch in which that site publishes, or is to';

-- Every process remembers the row.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON node
	FOR EACH ROW EXECUTE FUNCTION cache_changed();

ALTER TABLE node ENABLE ALWAYS TRIGGER changed;

CREATE FUNCTION node_state() RETURNS text
	AS 'MODULE_PATHNAME', 'narinfo_node_state'
	LANGUAGE C STABLE PARALLEL RESTRICTED;

COMMENT ON FUNCTION node_state() IS
'what this server does in this database: primary; closed, a primary that does not publish, see node.closed; mirror; standby, in recovery; new, empty; restoring and fenced, both until start() has checked it';
