/*-------------------------------------------------------------------------
 *
 * watch.c
 *	  Asking other sites who they are: what tells a primary that it is none any
 *	  more, and a mirror whose upstream is gone whom to follow.
 *
 *	  a primary			asks all sites whose conninfo is known, itself too:
 *						a copy of it finds another one there
 *	  a mirror			hears of others in what its upstream replies; asks all
 *						of them only while it is bound by a promise, or cannot
 *						report
 *
 * Whoever does not answer soon is passed over, and asked again the next time.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/node.h"
#include "sites/asked.h"
#include "sites/local.h"
#include "sites/sites.h"
#include "sites/succession.h"

#define PATIENCE 2000			/* ms to connect, and for the answer */
#define PAUSE_MIN 500			/* ms between two times, at least */
#define PAUSE_INTERVALS 2		/* ... so many site_intervals */

/* Of the last time, in a context of its own. */
static MemoryContext answered_context = NULL;
static List *answered = NIL;	/* names */
static int	bound_before = 0;	/* the epoch we were bound by then; 0: none */

/*-------------------------------------------------------------------------
 * One site
 *-------------------------------------------------------------------------
 */

/* Outside of all local work: nothing of ours has to be undone. */
static char *
take_error(MemoryContext context)
{
	ErrorData  *error;
	char	   *message;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	/* to be cancelled is no trouble of the other side's */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		PG_RE_THROW();
	FlushErrorState();
	message = pstrdup(error->message ? error->message : "?");
	FreeErrorData(error);
	return message;
}

char *
succession_try(Remote *remote, const char *query, int nparams,
			   const char *const *params, char **problem)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *volatile value = NULL;

	*problem = NULL;
	PG_TRY();
	{
		value = remote_ask(remote, query, nparams, params);
	}
	PG_CATCH();
	{
		*problem = take_error(context);
	}
	PG_END_TRY();
	return value;
}

static Remote *
try_connect(MemoryContext context, const char *conninfo, int patience,
			char **problem)
{
	MemoryContext current = CurrentMemoryContext;
	Remote	   *volatile remote = NULL;

	*problem = NULL;
	PG_TRY();
	{
		remote = remote_connect_within(context, conninfo, patience);
	}
	PG_CATCH();
	{
		*problem = take_error(current);
		remote = NULL;
	}
	PG_END_TRY();
	return remote;
}

static void
read_look(const char *json, Look *look)
{
	local_sql("SELECT t.r->>'site', t.r->>'state', t.r->>'instance', "
			  "t.r->>'epoch', t.r->>'promised', t.r->>'promised_to', "
			  "t.r->>'bound', t.r->>'closed', t.r->>'joined' "
			  "FROM (SELECT $1::jsonb) AS t (r)", 1, &json);
	look->site = local_value(0, 0);
	look->state = local_value(0, 1);
	look->instance = local_value(0, 2);
	look->epoch = pg_strtoint32(local_value(0, 3));
	look->promised = pg_strtoint32(local_value(0, 4));
	look->promised_to = local_value(0, 5);
	look->bound = local_value(0, 6)[0] == 't';
	look->closed = local_value(0, 7);
	look->joined = local_value(0, 8)[0] == 't';
}

static bool
look_at(Remote *remote, const char *site, Look *look, char **problem)
{
	char	   *json = succession_try(remote, "SELECT narinfo.site_look()", 0,
									  NULL, problem);

	if (*problem)
		return false;
	if (json == NULL)
	{
		*problem = "it has no identity";
		return false;
	}
	read_look(json, look);
	if (site && strcmp(look->site, site) != 0)
	{
		local_commit();
		*problem = psprintf("site \"%s\" answers there", look->site);
		return false;
	}
	/* our own row is ours to write */
	local_sql("SELECT narinfo.site_listen(t.r->'sites', t.r->'caches') "
			  "FROM (SELECT $1::jsonb) AS t (r)", 1,
			  (const char *[]) {json});
	local_commit();
	return true;
}

bool
succession_look_again(Remote *remote, Look *look, char **problem)
{
	return look_at(remote, look->site, look, problem);
}

Remote *
succession_look(MemoryContext context, const char *site,
				const char *conninfo, int patience, Look *look,
				char **problem)
{
	Remote	   *remote;

	local_commit();
	remote = try_connect(context, conninfo, patience, problem);
	if (remote == NULL)
		return NULL;
	if (look_at(remote, site, look, problem))
		return remote;
	remote_close(remote);
	return NULL;
}

/*-------------------------------------------------------------------------
 * All that are to be asked
 *-------------------------------------------------------------------------
 */

bool
watch_has_answered(const char *site)
{
	ListCell   *cell;

	foreach(cell, answered)
	{
		if (strcmp(lfirst(cell), site) == 0)
			return true;
	}
	return false;
}

int
watch_bound_before(void)
{
	return bound_before;
}

static void
note_answer(const char *site)
{
	MemoryContext old = MemoryContextSwitchTo(answered_context);

	answered = lappend(answered, pstrdup(site));
	MemoryContextSwitchTo(old);
}

static void
forget_answers(void)
{
	if (answered_context == NULL)
		answered_context = AllocSetContextCreate(TopMemoryContext,
												 "narinfo sites asked",
												 ALLOCSET_SMALL_SIZES);
	answered = NIL;
	MemoryContextReset(answered_context);
}

/* Who answers at our own address is we, or we are a copy. */
static void
check_own(const char *site, const Look *look)
{
	const char *params[] = {site, look->instance};

	local_sql("SELECT narinfo.site_close('clone', $1, n.epoch) "
			  "FROM narinfo.node AS n "
			  "WHERE narinfo.site_instance() <> $2", 2, params);
	local_commit();
}

static void
ask(MemoryContext context, const char *site, const char *conninfo, bool own)
{
	Look		look;
	char	   *problem;
	Remote	   *remote = succession_look(context, site, conninfo, PATIENCE,
										 &look, &problem);

	if (remote == NULL)
	{
		elog(DEBUG1, "site \"%s\" could not be asked: %s", site, problem);
		return;
	}
	remote_close(remote);
	if (own)
		check_own(site, &look);
	else
		note_answer(site);
}

static char *
answered_array(void)
{
	ListCell   *cell;
	StringInfoData array;

	initStringInfo(&array);
	/* names of sites need no quotes */
	foreach(cell, answered)
		appendStringInfo(&array, "%s%s", array.len > 0 ? "," : "",
						 (char *) lfirst(cell));
	return psprintf("{%s}", array.data);
}

static bool
is_due(void)
{
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now < next)
		return false;
	next = TimestampTzPlusMilliseconds(now, Max(PAUSE_MIN, PAUSE_INTERVALS *
												 sites_interval));
	return true;
}

void
succession_watch(MemoryContext context)
{
	char	  **names;
	char	  **conninfos;
	uint64		n;
	char	   *own;
	const char *params[1];

	if (!is_due())
		return;
	forget_answers();
	bound_before = pg_strtoint32(local_ask("SELECT CASE WHEN n.bound "
										   "THEN n.promised ELSE 0 END "
										   "FROM narinfo.node AS n", 0, NULL));
	own = local_ask("SELECT narinfo.site_name()", 0, NULL);
	n = local_sql("SELECT s.name, s.conninfo FROM narinfo.site AS s "
				  "CROSS JOIN narinfo.node AS n "
				  "LEFT JOIN narinfo.mirror_state AS m ON true "
				  "WHERE s.conninfo IS NOT NULL AND (n.role = 'primary' "
				  "OR s.name <> n.site AND (n.bound "
				  "OR m.report_error IS NOT NULL))", 0, NULL);
	names = palloc(sizeof(char *) * (n + 1));
	conninfos = palloc(sizeof(char *) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		names[i] = local_value(i, 0);
		conninfos[i] = local_value(i, 1);
	}
	local_commit();
	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ask(context, names[i], conninfos[i], strcmp(names[i], own) == 0);
	}
	if (n == 0)
	{
		asked_note();
		return;
	}
	params[0] = answered_array();
	local_sql("SELECT narinfo.site_judge($1::text[])", 1, params);
	local_commit();
	asked_note();
}
