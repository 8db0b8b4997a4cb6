/*-------------------------------------------------------------------------
 *
 * leave.c
 *	  leave_site(): makes a mirror one no longer.
 *
 * The subscription is stopped, then the upstream forgets us and drops the
 * slot, then the subscription goes.  Interrupted anywhere, it is called again:
 * to be forgotten twice is no error.  What is here stays; it is another's
 * history, so it is served as it is and nothing is published before
 * narinfo.start() has begun another epoch.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "cache/node.h"
#include "sites/local.h"
#include "sites/sites.h"
#include "sites/upstream.h"

PG_FUNCTION_INFO_V1(leave_site);

static void
check_mirror(void)
{
	char	   *mirrors;

	if (node_state() != NODE_MIRROR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server is no mirror")));
	mirrors = local_ask("SELECT string_agg(l.site, ', ') "
						"FROM narinfo.site_link AS l", 0, NULL);
	if (mirrors)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("other sites mirror this one: %s", mirrors),
				 errhint("Let them follow another site first: CALL narinfo.repoint() there.")));
}

/*
 * The identity of nobody, which start() makes this server's.  Its name stays:
 * when it becomes the primary because the old one is gone, others know it by
 * that, and their mirror_state tells whom they follow.
 */
static void
forget(void)
{
	upstream_unsubscribe();
	local_sql("DELETE FROM narinfo.mirror_state", 0, NULL);
	local_sql("DELETE FROM narinfo.site", 0, NULL);
	local_sql("DELETE FROM narinfo.site_cache", 0, NULL);
	local_sql("DELETE FROM narinfo.site_difference", 0, NULL);
	local_sql("UPDATE narinfo.node SET role = 'primary', "
			  "system_identifier = 0", 0, NULL);
	local_commit();
}

/* leave_site(force) */
Datum
leave_site(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "leave_site");
	bool		force = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);
	Upstream	upstream = {.context = context};

	check_mirror();
	upstream.conninfo = local_conninfo();
	upstream.site = local_ask("SELECT n.site FROM narinfo.node AS n", 0,
							  NULL);
	local_commit();
	local_disable();
	if (upstream.conninfo == NULL)
		ereport(WARNING,
				(errmsg("this mirror has no subscription to leave"),
				 errhint("There: SELECT narinfo.dismiss_site('%s')",
						 upstream.site)));
	else if (force)
		upstream_try_dismiss(&upstream);
	else
		upstream_dismiss(&upstream);
	forget();
	ereport(NOTICE,
			(errmsg("site \"%s\" is no mirror any more", upstream.site),
			 errdetail("It has what it had, and serves it."),
			 errhint("To publish here, with a history of its own: SELECT narinfo.start()")));
	local_procedure_end(context);
	PG_RETURN_VOID();
}
