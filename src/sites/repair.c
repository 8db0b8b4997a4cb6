/*-------------------------------------------------------------------------
 *
 * repair.c
 *	  repair_site(): makes the rows of a mirror that are not what another site
 *	  has be so.
 *
 * The subscription stops, so that the mirror stands still at its number.  The
 * other site may be ahead: rows that events have changed since are left to
 * these events, and the others are at its snapshot what they were at our
 * number.  So each cache is compared (compare.c), the rows that differ are
 * fetched within the same snapshot and written as replication writes them, and
 * the reverse index, which no event tells of this, is made anew.  Then the
 * subscription goes on and the site proves itself; what an event had left
 * damaged is found then, and mended in another round.
 *
 * An error leaves rows as they are, or some of them mended, and the
 * subscription goes on: the worker of sites sees to it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "cache/errors.h"
#include "cache/node.h"
#include "cache/referrer.h"
#include "sites/compare.h"
#include "sites/local.h"
#include "sites/remote.h"
#include "sites/rows.h"
#include "sites/sites.h"

PG_FUNCTION_INFO_V1(repair_site);

#define BATCH	"1000"			/* rows that are fetched together */
#define ROUNDS	3

static const SmallTable paths_table = {"valid_path", "cache", "t.hash::text"};

/*-------------------------------------------------------------------------
 * Rows
 *-------------------------------------------------------------------------
 */

/* The next keys that differ, as a text[]; NULL when there are none. */
static const char *
next_keys(const char *cache, const SmallTable *table)
{
	const char *params[] = {cache, table->name};

	return local_ask("SELECT array_agg(d.key)::text FROM (SELECT d.key "
					 "FROM narinfo.site_difference AS d WHERE d.cache = $1 "
					 "AND d.table_name = $2 LIMIT " BATCH ") AS d",
					 2, params);
}

/* What the other site has of these rows takes the place of ours. */
static void
mend_rows(Remote *remote, const char *cache, const SmallTable *table,
		  const char *keys)
{
	const char *params[] = {cache, keys};
	const char *rows = rows_fetch(remote, table->name,
								  psprintf("t.%s = $1 AND %s = "
										   "ANY ($2::text[])",
										   table->cache_column, table->key),
								  2, params);
	const char *insert = rows_insert_query(table->name, rows);

	local_as_replica();
	local_sql(psprintf("DELETE FROM narinfo.%s AS t WHERE t.%s = $1 "
					   "AND %s = ANY " LOCAL_ARRAY("$2", "text[]"),
					   table->name, table->cache_column, table->key), 2,
			  params);
	if (insert)
		local_sql(insert, 1, &rows);
	local_sql(psprintf("DELETE FROM narinfo.site_difference AS d "
					   "WHERE d.cache = $1 AND d.table_name = '%s' "
					   "AND d.key = ANY " LOCAL_ARRAY("$2", "text[]"),
					   table->name), 2, params);
	local_commit();
}

static uint64
mend_table(Remote *remote, const char *cache, const SmallTable *table)
{
	const char *params[] = {cache, table->name};
	uint64		n = local_sql("SELECT FROM narinfo.site_difference AS d "
							  "WHERE d.cache = $1 AND d.table_name = $2", 2,
							  params);
	const char *keys;

	while ((keys = next_keys(cache, table)) != NULL)
	{
		local_commit();
		mend_rows(remote, cache, table, keys);
	}
	local_commit();
	return n;
}

/* How many rows differed. */
static uint64
mend_cache(Remote *remote, const char *cache)
{
	uint64		n;

	compare_cache(remote, cache);
	n = mend_table(remote, cache, &paths_table);
	for (int i = 0; i < small_tables_count; i++)
		n += mend_table(remote, cache, &small_tables[i]);
	(void) remote_query(remote, "COMMIT", 0, NULL);
	if (n == 0)
		return 0;
	PushActiveSnapshot(GetLatestSnapshot());
	referrer_rebuild(cache);
	PopActiveSnapshot();
	local_commit();
	return n;
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

static char *
conninfo_of(const char *site)
{
	char	   *conninfo;

	if (site == NULL || local_is("SELECT m.upstream = $1 "
								 "FROM narinfo.mirror_state AS m", 1, &site))
		return local_conninfo();
	conninfo = local_ask("SELECT s.conninfo FROM narinfo.site AS s "
						 "WHERE s.name = $1", 1, &site);
	if (conninfo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("how site \"%s\" is connected to is not known", site),
				 errhint("Set pg_narinfo.site_conninfo there, or name the site that this one follows.")));
	return conninfo;
}

static uint64
mend_all(Remote *remote)
{
	char	  **caches;
	uint64		n = compare_problem_caches(&caches);
	uint64		rows = 0;

	local_disable();
	for (uint64 i = 0; i < n; i++)
		rows += mend_cache(remote, caches[i]);
	local_enable();
	local_commit();
	return rows;
}

static void
repair(MemoryContext context, const char *conninfo)
{
	Remote	   *remote;
	uint64		rows = 0;
	uint64		wrong = sites_prove();

	local_commit();
	if (wrong > 0)
	{
		remote = remote_connect(context, conninfo, false);
		for (int round = 0; round < ROUNDS && wrong > 0; round++)
		{
			rows += mend_all(remote);
			wrong = sites_prove();
			local_commit();
		}
		remote_close(remote);
	}
	if (wrong > 0)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_UNEQUAL),
				 errmsg("this site is still not equal to what its events tell of"),
				 errdetail("%s", sites_problems()),
				 errhint("If its events are damaged, or its rows cannot be told apart: CALL narinfo.leave_site(), and join again with an empty database.")));
	ereport(NOTICE,
			(errmsg(UINT64_FORMAT " rows were mended, and this site is equal",
					rows)));
}

/* repair_site(from_site) */
Datum
repair_site(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "repair_site");
	char	   *site = local_argument(fcinfo, 0);
	char	   *conninfo;

	if (node_state() != NODE_MIRROR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("only a mirror can be made equal to another site")));
	conninfo = conninfo_of(site);
	if (conninfo == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this mirror has no subscription")));
	repair(context, conninfo);
	sites_report();
	sites_report_end();
	local_procedure_end(context);
	PG_RETURN_VOID();
}
