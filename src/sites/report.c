/*-------------------------------------------------------------------------
 *
 * report.c
 *	  A mirror tells its upstream of itself and of the sites below it, and is
 *	  told of all others.
 *
 * The connection stays open from one time to the next.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "sites/local.h"
#include "sites/remote.h"
#include "sites/sites.h"

static MemoryContext report_context = NULL;
static Remote *report_remote = NULL;
static char *report_conninfo = NULL;

void
sites_report_end(void)
{
	report_remote = NULL;
	report_conninfo = NULL;
	if (report_context != NULL)
		MemoryContextReset(report_context);
}

static void
connect_upstream(const char *conninfo)
{
	if (report_remote != NULL && remote_is_open(report_remote) &&
		strcmp(report_conninfo, conninfo) == 0)
		return;
	if (report_context == NULL)
		report_context = AllocSetContextCreate(TopMemoryContext,
											   "narinfo site report",
											   ALLOCSET_SMALL_SIZES);
	sites_report_end();
	report_conninfo = MemoryContextStrdup(report_context, conninfo);
	report_remote = remote_connect(report_context, conninfo, false);
}

/* NULL when this is no mirror. */
static char *
compose(void)
{
	local_sql("SELECT narinfo.site_refresh()", 0, NULL);
	return local_ask("SELECT jsonb_build_object('site', n.site, "
					 "'system_identifier', n.system_identifier, "
					 "'joined', m.joined, "
					 "'sites', (SELECT jsonb_agg(to_jsonb(s)) "
					 "FROM narinfo.site AS s WHERE s.name IN "
					 "(SELECT narinfo.site_below())), "
					 "'caches', (SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') "
					 "FROM narinfo.site_cache AS c WHERE c.site IN "
					 "(SELECT narinfo.site_below()))) "
					 "FROM narinfo.node AS n, narinfo.mirror_state AS m "
					 "WHERE n.role = 'mirror'", 0, NULL);
}

static void
take(const char *reply)
{
	local_sql("SELECT narinfo.site_take(t.r->'sites', "
			  "coalesce(t.r->'caches', '[]'), narinfo.site_name()) "
			  "FROM (SELECT $1::jsonb) AS t (r)", 1, &reply);
	/* sites that have left */
	local_sql("WITH known AS (SELECT s->>'name' AS name "
			  "FROM jsonb_array_elements($1::jsonb->'sites') AS s "
			  "UNION SELECT narinfo.site_below()), "
			  "gone AS (DELETE FROM narinfo.site_cache AS c "
			  "WHERE c.site NOT IN (SELECT k.name FROM known AS k)) "
			  "DELETE FROM narinfo.site AS s "
			  "WHERE s.name NOT IN (SELECT k.name FROM known AS k)",
			  1, &reply);
	local_sql("UPDATE narinfo.mirror_state SET report_error = NULL, "
			  "reported = clock_timestamp() WHERE report_error IS NOT NULL "
			  "OR coalesce(reported, '-infinity') < "
			  "clock_timestamp() - interval '5 s'", 0, NULL);
}

void
sites_report(void)
{
	const char *report = compose();
	char	   *conninfo = report ? local_conninfo() : NULL;
	char	   *reply;

	local_commit();
	if (conninfo == NULL)
		return;
	connect_upstream(conninfo);
	reply = remote_ask(report_remote,
					   "SELECT narinfo.site_report($1::jsonb)", 1, &report);
	take(reply);
	local_commit();
}
