/*-------------------------------------------------------------------------
 *
 * verify.c
 *	  Whether a site is equal: verify_site(), and the proof that joining, a
 *	  schedule and repairing ask for.
 *
 * A mirror proves itself alone: the digest of its rows is that of its last
 * event, at whatever number it is.  Only when that fails is the upstream
 * asked, for the rows; and, when it can be reached, whether it has the same
 * digest at that number.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/identity.h"
#include "cache/node.h"
#include "sites/compare.h"
#include "sites/local.h"
#include "sites/remote.h"
#include "sites/sites.h"

PG_FUNCTION_INFO_V1(verify_site);

/*-------------------------------------------------------------------------
 * The proof
 *-------------------------------------------------------------------------
 */

/* One statement, so one snapshot: number, digest and rows belong together. */
uint64
sites_prove(void)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfo(&query,
					 "INSERT INTO narinfo.site_cache AS c (site, cache, seq, "
					 "epoch, digest, at, proof_seq, proof_at, problem, vote) "
					 "SELECT narinfo.site_name(), q.name, coalesce(e.seq, 0), "
					 "coalesce(e.epoch, 1), "
					 "coalesce(e.digest, decode(repeat('00', 16), 'hex')), "
					 "coalesce(e.at, clock_timestamp()), "
					 "coalesce(e.seq, 0), clock_timestamp(), q.problem, "
					 "q.problem IS NULL AND n.role = 'mirror' AND NOT EXISTS "
					 "(SELECT FROM narinfo.mirror_state AS m "
					 "WHERE m.error_code = 'NI004') "
					 "FROM (%s) AS q (name, problem, epoch, last) "
					 "CROSS JOIN narinfo.node AS n "
					 "LEFT JOIN LATERAL (SELECT x.* FROM narinfo.event AS x "
					 "WHERE x.cache = q.name AND x.seq = q.last LIMIT 1) "
					 "AS e ON true "
					 "ON CONFLICT (site, cache) DO UPDATE SET "
					 "(seq, epoch, digest, at, proof_seq, proof_at, problem, "
					 "vote) = (excluded.seq, excluded.epoch, excluded.digest, "
					 "excluded.at, excluded.proof_seq, excluded.proof_at, "
					 "excluded.problem, excluded.vote)",
					 identity_integrity_query());
	local_sql(query.data, 0, NULL);
	return local_sql("SELECT FROM narinfo.site_cache AS c "
					 "WHERE c.site = narinfo.site_name() "
					 "AND c.problem IS NOT NULL", 0, NULL);
}

char *
sites_problems(void)
{
	return local_ask("SELECT string_agg(format('Cache \"%s\": %s.', c.cache, "
					 "c.problem), E'\\n' ORDER BY c.cache) "
					 "FROM narinfo.site_cache AS c "
					 "WHERE c.site = narinfo.site_name() "
					 "AND c.problem IS NOT NULL", 0, NULL);
}

void
sites_compare_history(Remote *remote, const char *name)
{
	const char *ours[] = {
		local_ask("SELECT coalesce(jsonb_agg(jsonb_build_object("
				  "'cache', c.cache, 'seq', c.seq, 'digest', c.digest)), '[]') "
				  "FROM narinfo.site_cache AS c "
				  "WHERE c.site = narinfo.site_name()", 0, NULL)
	};
	const char *params[2];

	local_commit();
	params[0] = remote_ask(remote,
						   "SELECT jsonb_object_agg(o.cache, o.seq) "
						   "FROM jsonb_to_recordset($1::jsonb) "
						   "AS o (cache text, seq bigint, digest bytea) "
						   "JOIN narinfo.event AS e ON e.cache = o.cache "
						   "AND e.seq = o.seq WHERE e.digest <> o.digest",
						   1, ours);
	if (params[0] == NULL)
		return;
	params[1] = name;
	local_sql("UPDATE narinfo.site_cache AS c SET vote = false, problem = "
			  "format('site %s has another digest at event %s', $2, t.value) "
			  "FROM jsonb_each_text($1::jsonb) AS t "
			  "WHERE c.site = narinfo.site_name() AND c.cache = t.key",
			  2, params);
	local_commit();
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_UNEQUAL),
			 errmsg("site \"%s\" has another history than this one", name),
			 errdetail("%s", sites_problems())));
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

/*
 * The upstream, or NULL with a warning when it cannot be reached: what was
 * found here stands without it.
 */
static Remote *
connect_upstream(MemoryContext context)
{
	MemoryContext old = CurrentMemoryContext;
	char	   *conninfo = local_conninfo();
	Remote	   *volatile remote = NULL;

	local_commit();
	if (conninfo == NULL)
		return NULL;
	PG_TRY();
	{
		remote = remote_connect(context, conninfo, false);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) !=
			ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION))
			PG_RE_THROW();
		FlushErrorState();
		ereport(WARNING,
				(errmsg("the upstream cannot be asked now: %s",
						error->message)));
	}
	PG_END_TRY();
	return remote;
}

/* Names the rows that differ. */
static void
name_differences(MemoryContext context)
{
	Remote	   *remote = connect_upstream(context);

	if (remote == NULL)
		return;
	compare_all(remote);
	remote_close(remote);
}

static void
compare_with_upstream(MemoryContext context)
{
	char	   *name = local_ask("SELECT m.upstream "
								 "FROM narinfo.mirror_state AS m", 0, NULL);
	Remote	   *remote;

	if (name == NULL)
		return;
	remote = connect_upstream(context);
	if (remote == NULL)
		return;
	sites_compare_history(remote, name);
	remote_close(remote);
}

void
sites_verify(MemoryContext context)
{
	uint64		wrong = sites_prove();
	char	   *problems = sites_problems();

	local_commit();
	if (wrong == 0)
	{
		local_sql("DELETE FROM narinfo.site_difference", 0, NULL);
		local_commit();
		compare_with_upstream(context);
		return;
	}
	name_differences(context);
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_UNEQUAL),
			 errmsg("this site is not equal to what its events tell of"),
			 errdetail("%s", problems),
			 errhint("The rows stand in narinfo.site_difference, if the upstream could be asked. CALL narinfo.repair_site() mends them.")));
}

/* verify_site() */
Datum
verify_site(PG_FUNCTION_ARGS)
{
	MemoryContext context = local_procedure(fcinfo, "verify_site");

	if (!local_is("SELECT EXISTS (SELECT FROM narinfo.node)", 0, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is nothing to verify"),
				 errdetail("This database has no identity yet.")));
	sites_verify(context);
	local_procedure_end(context);
	PG_RETURN_VOID();
}
