/*-------------------------------------------------------------------------
 *
 * promise.c
 *	  Promises, and taking over: what makes sure that only one site publishes.
 *
 * Every event has the epoch of the primary that wrote it, and no two
 * primaries ever have the same one, nor does an acknowledged event get lost,
 * because of promises.  A mirror that is to be the primary in epoch E asks
 * all others:
 *
 *	 candidate						voter
 *	 --------------------------------------------------------------------
 *	 node: promised E, bound,
 *	 its own subscription stopped
 *				site_promise(E) ->
 *									node: promised E, bound; subscription
 *									disabled; both durable
 *			   site_positions(E) ->
 *									NULL until nothing is applied any more,
 *									then its numbers
 *	 enough promises, and nobody
 *	 has more than we: one
 *	 transaction makes us the
 *	 primary, if we are still
 *	 bound by E to ourselves
 *									hears of it, and follows: repoint()'s
 *									way, with the same proof
 *
 * "promised" only grows: an epoch is promised once, and the next candidate
 * takes a higher one than anybody has promised.  "bound" says that the promise
 * still counts: nothing of a lower epoch is applied, by the trigger of event
 * too.  A candidate that fails, or whose server has crashed on the way, never
 * takes E any more: it is bound by it no longer, or has promised a higher one.
 * So a voter may be free again as soon as the candidate says that it is not
 * bound by E, without being a primary in it, and goes on in the old epoch with
 * what it had missed.  The candidate tells the voters when it can, and they
 * ask, until it answers, when it cannot.  If it is gone for good, another
 * promote(), with a higher epoch, or release_promise() leads out.
 *
 * A primary that hears of a promise is closed until that is given up, and one
 * that hears of a higher epoch for good: see site_judge().
 *
 * Enough are max(m - k + 1, m / 2 + 1) of the m mirrors that vote: what k of
 * them have is then known to one of those who promised, and no two candidates
 * get so many for one epoch.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cache/errors.h"
#include "cache/gate.h"
#include "cache/node.h"
#include "sites/local.h"
#include "sites/succession.h"
#include "sites/upstream.h"

PG_FUNCTION_INFO_V1(site_subscription);
PG_FUNCTION_INFO_V1(site_pass_cache);
PG_FUNCTION_INFO_V1(site_take_over);

#define LOCK_CLASS 0x4e50		/* see gate_lock_cache() */

/*-------------------------------------------------------------------------
 * One at a time
 *-------------------------------------------------------------------------
 */

static void
make_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, 0, LOCK_CLASS);
}

bool
succession_lock(void)
{
	LOCKTAG		tag;

	make_tag(&tag);
	return LockAcquire(&tag, ExclusiveLock, true, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

void
succession_unlock(void)
{
	LOCKTAG		tag;

	make_tag(&tag);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

static void
lock_for(const char *procedure)
{
	/* the worker has it for moments */
	for (int tries = 0; tries < 100; tries++)
	{
		if (succession_lock())
			return;
		local_commit();
		local_sleep(50);
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("%s cannot run while another call, or the worker of sites, changes who publishes",
					procedure)));
}

void
succession_call(const char *procedure, void (*work) (void *arg), void *arg)
{
	lock_for(procedure);
	PG_TRY();
	{
		work(arg);
	}
	PG_FINALLY();
	{
		succession_unlock();
	}
	PG_END_TRY();
}

/*-------------------------------------------------------------------------
 * What the functions in SQL cannot do
 *-------------------------------------------------------------------------
 */

static void
connect_spi(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
}

/* site_subscription(enable boolean) -> void */
Datum
site_subscription(PG_FUNCTION_ARGS)
{
	bool		enable = PG_GETARG_BOOL(0);

	ForceSyncCommit();
	connect_spi();
	if (local_conninfo() != NULL &&
		(!enable || !local_is("SELECT m.paused OR m.error IS NOT NULL "
							  "FROM narinfo.mirror_state AS m", 0, NULL)))
		local_alter(psprintf("ALTER SUBSCRIPTION " SITE_SUBSCRIPTION " %s",
							 enable ? "ENABLE" : "DISABLE"));
	SPI_finish();
	PG_RETURN_VOID();
}

/* site_pass_cache(cache text) -> void */
Datum
site_pass_cache(PG_FUNCTION_ARGS)
{
	char	   *cache = text_to_cstring(PG_GETARG_TEXT_PP(0));

	gate_lock_cache(cache);
	gate_unlock_cache(cache);
	PG_RETURN_VOID();
}

/*-------------------------------------------------------------------------
 * Taking over
 *-------------------------------------------------------------------------
 */

void
succession_take(const char *epoch, bool bound)
{
	const char *params[] = {epoch, bound ? "t" : "f", local_conninfo()};

	ForceSyncCommit();
	/* before site_refresh() has it shared */
	local_sql("SELECT FROM narinfo.node FOR UPDATE", 0, NULL);
	/* what mirror_state knows of us stays in our row of site */
	local_sql("SELECT narinfo.site_refresh()", 0, NULL);
	local_sql("UPDATE narinfo.site AS s SET conninfo = $1 "
			  "FROM narinfo.mirror_state AS m "
			  "WHERE s.name = m.upstream AND s.conninfo IS NULL", 1,
			  params + 2);
	if (local_sql("UPDATE narinfo.node SET role = 'primary', "
				  "epoch = $1::int, promised = $1::int, promised_to = site, "
				  "bound = false, since = clock_timestamp() "
				  "WHERE role = 'mirror' AND consistent AND epoch < $1::int "
				  "AND CASE WHEN $2::boolean THEN bound AND "
				  "promised = $1::int AND promised_to = site "
				  "ELSE NOT bound AND promised < $1::int END", 2, params) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("this site cannot be the primary in epoch %s any more",
						epoch),
				 errdetail("It has promised another one, or that it never will.")));
	local_sql("DELETE FROM narinfo.mirror_state", 0, NULL);
	local_sql("UPDATE narinfo.site_cache SET vote = false, target = 0, "
			  "target_at = NULL WHERE site = narinfo.site_name()", 0, NULL);
	local_sql("SELECT narinfo.site_refresh()", 0, NULL);
	upstream_unsubscribe();
}

static void
check_heir(void)
{
	if (node_state() != NODE_MIRROR ||
		!local_is("SELECT m.joined AND m.caches IS NULL "
				  "FROM narinfo.mirror_state AS m", 0, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this site is no mirror of all caches that has joined")));
	if (local_is("SELECT EXISTS (SELECT FROM narinfo.site_cache AS c "
				 "WHERE c.site = narinfo.site_name() "
				 "AND c.problem IS NOT NULL)", 0, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_UNEQUAL),
				 errmsg("this site is not equal to what its events tell of")));
}

/* site_take_over(epoch integer, numbers jsonb) -> void */
Datum
site_take_over(PG_FUNCTION_ARGS)
{
	char	   *epoch = psprintf("%d", PG_GETARG_INT32(0));
	char	   *numbers = local_argument(fcinfo, 1);
	const char *params[] = {epoch, numbers};

	connect_spi();
	/* asked again by who did not hear the answer */
	if (!local_is("SELECT n.role = 'primary' AND n.epoch = $1::int "
				  "FROM narinfo.node AS n", 1, params))
	{
		check_heir();
		if (!local_is("SELECT narinfo.site_numbers() = $1::jsonb", 1,
					  params + 1))
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_BEHIND),
					 errmsg("this site does not have exactly what the primary has"),
					 errdetail("It has %s, and the primary %s.",
							   local_ask("SELECT narinfo.site_numbers()", 0,
										 NULL), numbers)));
		succession_take(epoch, false);
	}
	SPI_finish();
	PG_RETURN_VOID();
}
