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

#define REPORT_PATIENCE 15000	/* ms: to connect, and for the answer */

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
	report_remote = remote_connect_within(report_context, conninfo,
										  REPORT_PATIENCE);
}

/* NULL when this is no mirror. */
static char *
compose(void)
{
	local_sql("SELECT narinfo.site_refresh()", 0, NULL);
	return local_ask("SELECT jsonb_build_object('site', n.site, "
					 "'system_identifier', n.system_identifier, "
					 "'at', statement_timestamp(), "
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

/*
 * The upstream has heard of more from us than we have: we were restored from
 * a backup, and what the slot would send does not follow what is here.
 */
static void
stop_if_lost(const char *reply)
{
	/* rejoin() may be about to change both; it is over then */
	local_sql("SELECT FROM narinfo.mirror_state FOR UPDATE", 0, NULL);
	if (local_conninfo() == NULL ||
		local_sql("UPDATE narinfo.mirror_state SET error_code = 'NI004', "
				  "error = format('it was restored from a backup, since it "
				  "had event %s of cache %s before: CALL narinfo.rejoin(), "
				  "with how the primary is connected to', "
				  "l.r->>'seq', l.r->>'cache'), "
				  "error_at = clock_timestamp() "
				  "FROM (SELECT $1::jsonb->'lost') AS l (r) "
				  "WHERE (l.r->>'seq')::bigint > "
				  "narinfo.last_event(l.r->>'cache')", 1, &reply) == 0)
		return;
	local_sql("UPDATE narinfo.site_cache SET vote = false "
			  "WHERE site = narinfo.site_name()", 0, NULL);
	local_alter("ALTER SUBSCRIPTION " SITE_SUBSCRIPTION " DISABLE");
}

static void
take(const char *reply)
{
	local_sql("SELECT narinfo.site_listen(t.r->'sites', "
			  "coalesce(nullif(t.r->'caches', 'null'), '[]')) "
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
	/* while it joins, its slot may not be made yet */
	local_sql("UPDATE narinfo.mirror_state SET slot_problem = "
			  "$1::jsonb->>'slot_problem' WHERE joined AND slot_problem "
			  "IS DISTINCT FROM $1::jsonb->>'slot_problem'", 1, &reply);
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
	stop_if_lost(reply);
	local_commit();
}
