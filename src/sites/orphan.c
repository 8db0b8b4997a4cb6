/*-------------------------------------------------------------------------
 *
 * orphan.c
 *	  Publishes that were lost with an old primary are published again.
 *
 * In the order of their numbers, and many together; if that fails, one by
 * one, again and again while any succeeds, for one may refer to another.
 * Interrupted between the two servers, one is published twice, which changes
 * nothing.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/orphan.h"

#include "miscadmin.h"
#include "utils/builtins.h"

#include "cache/errors.h"
#include "sites/local.h"
#include "sites/succession.h"

#define BATCH "500"

/* Those that can be: narinfos are there. */
#define WAITING \
	"o.state = 'waiting' AND o.kind IN ('publish', 'replace') " \
	"AND o.info IS NOT NULL"

bool
orphan_waits(void)
{
	bool		waits =
	local_is("SELECT EXISTS (SELECT FROM narinfo.orphan AS o "
			 "WHERE " WAITING ")", 0, NULL);

	local_commit();
	return waits;
}

void
orphan_check_rights(Remote *remote)
{
	(void) remote_query(remote, "SELECT has_function_privilege("
						"'narinfo.publish_many(narinfo.narinfo[], text)', "
						"'execute'), quote_ident(current_user)", 0, NULL);
	if (remote_value(remote, 0, 0)[0] != 't')
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not publish at the primary",
						remote_value(remote, 0, 1)),
				 errdetail("What was published here, and is not there, is to be published again."),
				 errhint("There: GRANT narinfo_publisher TO %s",
						 remote_value(remote, 0, 1))));
}

static void
mark(const char *orphans)
{
	local_sql("UPDATE narinfo.orphan AS o SET state = 'republished', "
			  "settled = clock_timestamp(), problem = NULL "
			  "WHERE o.orphan = ANY " LOCAL_ARRAY("$1", "bigint[]"), 1,
			  &orphans);
	local_commit();
}

/* The next ones behind a number, of one cache; false at the end. */
static bool
next_batch(const char *after, char **last, char **orphans, char **infos,
		   char **cache)
{
	if (local_sql("SELECT max(b.orphan), array_agg(b.orphan)::text, "
				  "array_agg(b.info ORDER BY b.seq)::text, min(b.cache) "
				  "FROM (SELECT o.* FROM narinfo.orphan AS o "
				  "WHERE " WAITING " AND o.orphan > $1::bigint "
				  "AND o.cache = (SELECT p.cache FROM narinfo.orphan AS p "
				  "WHERE p.orphan = (SELECT min(o.orphan) "
				  "FROM narinfo.orphan AS o WHERE " WAITING
				  " AND o.orphan > $1::bigint)) "
				  "ORDER BY o.orphan LIMIT " BATCH ") AS b", 1, &after) == 0 ||
		local_value(0, 0) == NULL)
	{
		local_commit();
		return false;
	}
	*last = local_value(0, 0);
	*orphans = local_value(0, 1);
	*infos = local_value(0, 2);
	*cache = local_value(0, 3);
	local_commit();
	return true;
}

static bool
publish(Remote *remote, const char *infos, const char *cache, char **problem)
{
	const char *params[] = {infos, cache};

	(void) succession_try(remote, "SELECT narinfo.publish_many("
						  "$1::narinfo.narinfo[], $2)", 2, params, problem);
	if (*problem && !remote_is_open(remote))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("publishing again was interrupted: %s", *problem),
				 errhint("Call rejoin() again: it goes on.")));
	return *problem == NULL;
}

static void
publish_together(Remote *remote)
{
	char	   *after = "0";
	char	   *orphans;
	char	   *infos;
	char	   *cache;
	char	   *problem;

	while (next_batch(after, &after, &orphans, &infos, &cache))
	{
		CHECK_FOR_INTERRUPTS();
		if (publish(remote, infos, cache, &problem))
			mark(orphans);
	}
}

static bool
publish_one(Remote *remote, const char *orphan)
{
	const char *params[] = {orphan, NULL};
	char	   *infos;
	char	   *cache;
	char	   *problem;

	local_sql("SELECT ARRAY[o.info]::text, o.cache FROM narinfo.orphan AS o "
			  "WHERE o.orphan = $1::bigint", 1, params);
	infos = local_value(0, 0);
	cache = local_value(0, 1);
	local_commit();
	if (publish(remote, infos, cache, &problem))
	{
		mark(psprintf("{%s}", orphan));
		return true;
	}
	params[1] = problem;
	local_sql("UPDATE narinfo.orphan SET problem = $2 "
			  "WHERE orphan = $1::bigint", 2, params);
	local_commit();
	return false;
}

/* How many could be. */
static int64
publish_singly(Remote *remote)
{
	uint64		n = local_sql("SELECT o.orphan FROM narinfo.orphan AS o "
							  "WHERE " WAITING " ORDER BY o.orphan", 0, NULL);
	char	  **orphans = palloc(sizeof(char *) * (n + 1));
	int64		done = 0;

	for (uint64 i = 0; i < n; i++)
		orphans[i] = local_value(i, 0);
	local_commit();
	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		done += publish_one(remote, orphans[i]);
	}
	return done;
}

void
orphan_republish(Remote *remote, const char *primary)
{
	publish_together(remote);
	while (publish_singly(remote) > 0)
		;
	local_sql("SELECT count(*) FILTER (WHERE o.state = 'republished'), "
			  "count(*) FILTER (WHERE o.state = 'waiting'), count(*) "
			  "FROM narinfo.orphan AS o", 0, NULL);
	if (strcmp(local_value(0, 2), "0") != 0)
		ereport(NOTICE,
				errmsg("%s orphans were published again at site \"%s\", and %s wait for somebody",
						local_value(0, 0), primary, local_value(0, 1)),
				errhint("SELECT * FROM narinfo.orphan WHERE state = 'waiting'; when they are seen to: SELECT narinfo.settle_orphans()"));
	local_commit();
}
