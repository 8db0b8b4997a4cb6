/*-------------------------------------------------------------------------
 *
 * start.c
 *	  The part of narinfo.start() that is about identity: a database that was
 *	  restored, or that is a copy of another one's, is looked at and becomes
 *	  one that publishes.
 *
 *	  lock out who else restores or makes an identity
 *	  each cache:	numbers without a gap up to the last
 *					digest of the rows = digest of the last event
 *					closure, where the cache requires it
 *	  after a restore:	triggers as they have to be, reverse index anew
 *	  the row of narinfo.node, with an epoch that no event has yet
 *
 * Everything that is wrong with numbers and digests is told at once, and
 * nothing is mended: rows that do not fit their events are not what the
 * clients and mirrors of this history have.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/gate.h"
#include "cache/identity.h"
#include "cache/node.h"
#include "cache/referrer.h"
#include "cache/row.h"

/*-------------------------------------------------------------------------
 * Looking
 *-------------------------------------------------------------------------
 */

/*
 * One row a cache: its name, what is wrong with it or NULL, its highest epoch
 * and its last number.  Numbers need not begin with 1, since old events may
 * have been cut.  LIMIT has events looked up one by one, and not all hashed.
 * Between the two parts stands where caches are named.
 */
static const char query_begin[] =
"SELECT n.name, CASE "
"WHEN s.last IS NULL THEN 'it has rows, but no events' "
"WHEN s.last - s.first + 1 <> s.n THEN format("
"'of its events %s to %s only %s are there', s.first, s.last, s.n) "
"WHEN e.epoch <> s.epoch THEN format("
"'event %s, the last, has epoch %s, and another one %s', s.last, e.epoch, s.epoch) "
"WHEN e.digest <> r.digest THEN format("
"'its rows have digest %s, and event %s, the last, has %s', r.digest, s.last, e.digest) "
"END, s.epoch, s.last "
"FROM (";

static const char query_end[] =
") AS n "
"LEFT JOIN (SELECT cache, min(seq) AS first, max(seq) AS last, "
"count(*) AS n, max(epoch) AS epoch FROM narinfo.event GROUP BY cache) AS s "
"ON s.cache = n.name "
"LEFT JOIN LATERAL (SELECT x.epoch, x.digest FROM narinfo.event AS x "
"WHERE x.cache = n.name AND x.seq = s.last LIMIT 1) AS e ON true "
"CROSS JOIN LATERAL narinfo.cache_digest(n.name) AS r (digest) "
"ORDER BY n.name";

typedef struct Looked
{
	List	   *caches;			/* names */
	int32		epoch;			/* the highest of any event */
	StringInfoData problems;	/* a line each */
} Looked;

static void
look_at_row(HeapTuple row, TupleDesc desc, Looked *looked)
{
	char	   *name = SPI_getvalue(row, desc, 1);
	char	   *problem = SPI_getvalue(row, desc, 2);
	bool		isnull;
	Datum		epoch = SPI_getbinval(row, desc, 3, &isnull);

	if (problem)
		appendStringInfo(&looked->problems, "%sCache \"%s\": %s.",
						 looked->problems.len > 0 ? "\n" : "", name, problem);
	if (!isnull)
		looked->epoch = Max(looked->epoch, DatumGetInt32(epoch));
	looked->caches = lappend(looked->caches, name);
}

/* As event_caches(), of a gated table: it may have millions of rows. */
static void
append_names(StringInfo query, const char *table, const char *column)
{
	appendStringInfo(query,
					 "SELECT name FROM (WITH RECURSIVE n (name) AS ("
					 "SELECT min(t.%2$s) FROM narinfo.%1$s AS t UNION ALL "
					 "SELECT (SELECT min(t.%2$s) FROM narinfo.%1$s AS t "
					 "WHERE t.%2$s > n.name) FROM n WHERE n.name IS NOT NULL) "
					 "SELECT name FROM n WHERE name IS NOT NULL) AS one",
					 table, column);
}

char *
identity_integrity_query(void)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, query_begin);
	appendStringInfoString(&query,
						   "SELECT narinfo.event_caches() AS name");
	for (int i = 0; i < gated_tables_count; i++)
	{
		appendStringInfoString(&query, " UNION ");
		append_names(&query, gated_tables[i].name,
					 gated_tables[i].cache_column);
	}
	appendStringInfoString(&query, query_end);
	return query.data;
}

/* The snapshot is the active one; SPI is connected, and keeps the result. */
static void
look_at_caches(Looked *looked)
{
	memset(looked, 0, sizeof(Looked));
	initStringInfo(&looked->problems);
	if (SPI_execute(identity_integrity_query(), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the events");
	for (uint64 i = 0; i < SPI_processed; i++)
		look_at_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, looked);
	if (looked->problems.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("what is in this database is not what its events tell of"),
				 errdetail("%s", looked->problems.data),
				 errhint("Restore a whole dump into a new database.")));
}

static void
check_closures(const List *caches)
{
	const ListCell *cell;

	foreach(cell, caches)
	{
		CacheInfo	info;

		if (cache_get(lfirst(cell), &info) && info.require_closure)
			closure_check_all(lfirst(cell));
	}
}

/*-------------------------------------------------------------------------
 * After a restore
 *-------------------------------------------------------------------------
 */

/*
 * pg_restore --disable-triggers enables all of them when it has ended, those
 * that are to fire always, or in replicas alone, as if they were ordinary.
 */
static void
mend_triggers(void)
{
	SPITupleTable *found;
	uint64		n;

	if (SPI_execute("SELECT format('ALTER TABLE %s ENABLE %s TRIGGER %I', "
					"t.tgrelid::regclass, f.enable, t.tgname) "
					"FROM pg_trigger AS t JOIN (VALUES "
					"('narinfo.cache_changed()'::regprocedure, 'ALWAYS', 'A'), "
					"('narinfo.event_check_applied()', 'REPLICA', 'R')) "
					"AS f (oid, enable, enabled) ON f.oid = t.tgfoid "
					"WHERE t.tgenabled <> f.enabled::\"char\"",
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_trigger");
	found = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		if (SPI_execute(SPI_getvalue(found->vals[i], found->tupdesc, 1),
						false, 0) != SPI_OK_UTILITY)
			elog(ERROR, "could not alter a trigger");
	}
}

/* Where triggers did not fire, nobody was told of rows of these. */
static void
tell_processes(void)
{
	Oid			schema = get_rel_namespace(cache_catalog()->node_rel);

	for (int i = 0; i < gated_tables_count; i++)
	{
		Oid			rel = get_relname_relid(gated_tables[i].name, schema);

		if (OidIsValid(rel))
			CacheInvalidateRelcacheByRelid(rel);
	}
	CommandCounterIncrement();
}

/*
 * The reverse index is not in a dump, and events may have come before their
 * rows did.
 */
static void
rebuild_referrers(const List *caches)
{
	const ListCell *cell;

	foreach(cell, caches)
		referrer_rebuild(lfirst(cell));
}

/*-------------------------------------------------------------------------
 * The row
 *-------------------------------------------------------------------------
 */

void
identity_write(int32 epoch)
{
	Oid			types[] = {INT8OID, INT4OID, OIDOID, INT4OID};
	Datum		values[] = {
		Int64GetDatum((int64) GetSystemIdentifier()),
		Int32GetDatum((int32) GetWALInsertionTimeLine()),
		ObjectIdGetDatum(MyDatabaseId), Int32GetDatum(epoch)
	};
	CacheUser	user = cache_become_owner();

	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args("INSERT INTO narinfo.node AS n "
							  "VALUES ($1, $2, $3, 'primary', $4, "
							  "pg_catalog.clock_timestamp()) "
							  "ON CONFLICT ((true)) DO UPDATE "
							  "SET system_identifier = $1, timeline = $2, "
							  "database = $3, role = 'primary', epoch = $4, "
							  "since = excluded.since, consistent = true, "
							  "bound = false, closed = NULL, "
							  "closed_for = NULL, closed_epoch = NULL",
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_INSERT)
		elog(ERROR, "could not write narinfo.node");
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	PopActiveSnapshot();
	CommandCounterIncrement();
	cache_become_user(user);
}

void
identity_write_mirror(int32 epoch, const char *site)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(site);
	CacheUser	user;

	identity_write(epoch);
	user = cache_become_owner();
	if (SPI_execute_with_args("UPDATE narinfo.node SET role = 'mirror', "
							  "site = $1, consistent = false",
							  1, &type, &value, NULL, false,
							  0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write narinfo.node");
	CommandCounterIncrement();
	cache_become_user(user);
}

static void
take_identity(NodeState state)
{
	CacheUser	user = cache_become_owner();
	Looked		looked;

	if (state == NODE_RESTORING)
		tell_processes();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	look_at_caches(&looked);
	check_closures(looked.caches);
	if (state == NODE_RESTORING)
	{
		mend_triggers();
		rebuild_referrers(looked.caches);
	}
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	PopActiveSnapshot();
	cache_become_user(user);
	/* nor one that was promised to somebody */
	identity_write(Max(Max(looked.epoch, node_epoch()),
					   identity_known()->promised) + 1);
}

bool
node_start(void)
{
	NodeState	state;

	if (cache_catalog() == NULL)
		return false;
	if (RecoveryInProgress())
		return identity_known()->there;
	state = node_state();
	if (state == NODE_RESTORING || state == NODE_FENCED)
	{
		identity_forbid_dump("narinfo.start() cannot run");
		identity_lock(true);
		state = node_state();
	}
	if (state == NODE_RESTORING || state == NODE_FENCED)
		take_identity(state);
	return state != NODE_NEW;
}
