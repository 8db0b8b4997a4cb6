/*-------------------------------------------------------------------------
 *
 * sites.c
 *	  The room's settings, what its worker does in a turn, and health.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/sites.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/node.h"
#include "sites/asked.h"
#include "sites/copies.h"
#include "sites/local.h"
#include "sites/pressure.h"
#include "sites/resume.h"
#include "sites/succession.h"
#include "sites/watermark.h"

#define DAY (24 * 60 * 60)		/* seconds */

#define TELL_PAUSE 20			/* ms between two reports, at least */
#define FORGET_PAUSE 10000		/* ms between looks for idle mirrors */

int			sites_interval = 2000;
int			sites_verify_interval = DAY;

static char *site_name = NULL;
static char *site_conninfo = NULL;
static char *site_url = NULL;
static int	join_patience = 600;
static int	max_lag = 300;

static void
define_names(void)
{
	DefineCustomStringVariable("pg_narinfo.site", "Name of this site.",
							   "Empty: what join_site() says; primary for "
							   "the first one.",
							   &site_name, "", PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("pg_narinfo.site_conninfo",
							   "How other sites connect to this one.",
							   "Without a password. Empty: as join_site() "
							   "was told.",
							   &site_conninfo, "", PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("pg_narinfo.site_url",
							   "URL at which clients find this site.",
							   "Empty: as join_site() was told.",
							   &site_url, "", PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
}

void
sites_init(void)
{
	define_names();
	DefineCustomIntVariable("pg_narinfo.site_interval",
							"Time between reports of a mirror to its "
							"upstream.", NULL,
							&sites_interval, 2000, 100, 3600 * 1000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.verify_interval",
							"Time after which a mirror proves again that it "
							"is equal.", "0 is never.",
							&sites_verify_interval, DAY, 0, 365 * DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_lag",
							"Lag beyond which no client should be sent to a "
							"mirror.", "0 is no limit.",
							&max_lag, 300, 0, 365 * DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.join_patience",
							"Time after which a mirror is forgotten that "
							"has begun to join and is not seen any more.",
							NULL, &join_patience, 600, 1, 365 * DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	node_mirror_detail = sites_mirror_detail;
	asked_init();
	pressure_init();
	resume_init();
	copies_init();
	copies_wait_init();
}

/*-------------------------------------------------------------------------
 * The worker's turn
 *-------------------------------------------------------------------------
 */

/* Proves that this mirror is equal, if the last proof is too old. */
static void
verify_if_due(void)
{
	const char *params[] = {psprintf("%d", sites_verify_interval)};

	if (sites_verify_interval == 0 ||
		!local_is("SELECT EXISTS (SELECT FROM narinfo.mirror_state AS m, "
				  "narinfo.site_cache AS c WHERE m.joined "
				  "AND c.site = narinfo.site_name() AND (c.proof_at IS NULL "
				  "OR NOT c.vote AND c.problem IS NULL AND m.error IS NULL "
				  "OR clock_timestamp() - c.proof_at > make_interval("
				  "secs => $1::int)))", 1, params))
		return;
	if (sites_prove() > 0)
		ereport(WARNING,
				(errmsg("this site is not equal to what its events tell of"),
				 errdetail("%s", sites_problems()),
				 errhint("CALL narinfo.verify_site() names the rows, CALL narinfo.repair_site() mends them.")));
	local_commit();
}

static void
forget_idle(void)
{
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now < next)
		return;
	next = TimestampTzPlusMilliseconds(now, FORGET_PAUSE);
	local_sql("SELECT narinfo.site_forget_idle()", 0, NULL);
	local_commit();
}

static bool to_tell = false;	/* sites_tell() was called */
static TimestampTz told = 0;	/* when we have reported last */

void
sites_tell(void)
{
	to_tell = true;
}

long
sites_tell_pause(void)
{
	TimestampTz next = TimestampTzPlusMilliseconds(told, TELL_PAUSE);

	if (!to_tell)
		return -1;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);
}

static void
report(void)
{
	told = GetCurrentTimestamp();
	sites_report();
}

/* What is owed every pg_narinfo.site_interval. */
static void
take_full_turn(MemoryContext context)
{
	sites_resume(false);
	local_commit();
	succession_watch(context);
	succession_follow(context);
	verify_if_due();
	forget_idle();
	report();
}

bool
sites_turn(MemoryContext context, long *pause)
{
	static TimestampTz last = 0;
	TimestampTz next;
	long		watermark;
	bool		tell = to_tell;

	to_tell = false;
	MemoryContextSwitchTo(context);
	if (!local_begin())
		return false;
	if (!local_is("SELECT EXISTS (SELECT FROM narinfo.node AS n "
				  "WHERE n.site IS NOT NULL)", 0, NULL) ||
		node_state() == NODE_FENCED)
	{
		local_end();
		return false;
	}
	if (last == 0 || TimestampDifferenceExceeds(last, GetCurrentTimestamp(),
												sites_interval))
	{
		take_full_turn(context);
		last = GetCurrentTimestamp();
	}
	else if (tell)
		report();
	watermark = watermark_turn();
	local_end();
	next = TimestampTzPlusMilliseconds(last, sites_interval);
	*pause = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);
	if (watermark >= 0)
		*pause = Min(*pause, watermark);
	return true;
}

void
sites_turn_failed(const char *message)
{
	sites_report_end();
	if (!local_begin())
		return;
	local_sql("UPDATE narinfo.mirror_state SET report_error = $1 "
			  "WHERE report_error IS DISTINCT FROM $1", 1, &message);
	local_end();
}

/*-------------------------------------------------------------------------
 * Health
 *-------------------------------------------------------------------------
 */

bool
sites_health(StringInfo json)
{
	CacheUser	user = cache_become_owner();
	MemoryContext old = CurrentMemoryContext;
	char	   *text;
	bool		healthy;

	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute("SELECT h, h OPERATOR(pg_catalog.->>) 'status' "
					"FROM narinfo.site_health() AS h", false,
					1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not tell the health of this site");
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	healthy = strcmp(text, "ok") == 0;
	text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	MemoryContextSwitchTo(old);
	appendStringInfo(json, "%s\n", text);
	SPI_finish();
	cache_become_user(user);
	return healthy;
}
