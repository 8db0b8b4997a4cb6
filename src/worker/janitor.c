/*-------------------------------------------------------------------------
 *
 * janitor.c
 *	  The janitor: a background worker that does what can wait.
 *
 *	  launcher ──> janitor:	for each cache, until there is nothing to do:
 *								take events up into the reverse index
 *								remove those that are old and not needed
 *								remove pins that count no more, now and then
 *								look who holds how much, more seldom
 *							write what waits for narinfo.divergence
 *							remove, now and then, what is left of uploads
 *							remove files that no narinfo names any more
 *							have the sites worker started, if there are others
 *							wait, longer each time that nothing was found
 *
 * It looks at the end of each event log, one index lookup a cache, rather than
 * be told: events also come by replication, which tells nobody.  Each batch
 * is a transaction of its own, and given up when the janitor is told to go.
 * Where the extension is not there it waits for it.  An error ends it; the
 * launcher starts it again, later and later.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/node.h"
#include "cache/policy.h"
#include "cache/referrer.h"
#include "cache/retention.h"
#include "compat.h"
#include "nar/removal.h"
#include "nar/store.h"
#include "graph/root.h"
#include "graph/usage.h"
#include "worker/worker.h"

#define BATCH		20000		/* events a transaction */
#define CUT_BATCH	1000		/* the same, removing them: replicas wait */
#define SWEEP_PAUSE 600			/* s between looks for unfinished uploads */
#define SWEEP_AGE	3600		/* s since one was written to */
#define WAIT_MIN	1000		/* ms */
#define WAIT_MAX	5000		/* ms */

/*
 * Of this transaction; NIL where the extension is not there.  While a dump is
 * being restored, or a mirror filled, events may come before their rows, so
 * they wait.
 */
static List *
read_caches(MemoryContext context)
{
	List	   *names = NIL;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (cache_catalog_hold() != NULL && !node_is_restoring() &&
		node_is_consistent())
	{
		if (SPI_connect() != SPI_OK_CONNECT ||
			SPI_execute("SELECT narinfo.event_caches()", true, 0) !=
			SPI_OK_SELECT)
			elog(ERROR, "could not read narinfo.event");
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			names = lappend(names, SPI_getvalue(SPI_tuptable->vals[i],
												SPI_tuptable->tupdesc, 1));
			MemoryContextSwitchTo(old);
		}
		SPI_finish();
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return names;
}

/* One batch of one cache; how many events it had. */
static int64
follow(const char *cache)
{
	int64		n = 0;

	StartTransactionCommand();
	if (cache_catalog_hold() != NULL)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		n = referrer_follow(cache, BATCH);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	return n;
}

/* The same of removing; how many went.  Mirrors are sent what is removed. */
static int64
cut(const char *cache)
{
	int64		n = 0;

	StartTransactionCommand();
	if (cache_catalog_hold() != NULL && node_state() != NODE_MIRROR &&
		node_state() != NODE_CLOSED)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		n = retention_follow(cache, CUT_BATCH);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	return n;
}

/* The same of pins, where we may publish. */
static int64
prune(const char *cache)
{
	int64		n = 0;

	/* what has expired by now() */
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (cache_catalog_hold() != NULL && node_state() == NODE_PRIMARY)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		n = root_prune(cache);
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
	return n;
}

/*
 * The same of who holds how much.  Sources of roots may fail, which must keep
 * nothing else from being done: it is logged, unless somebody has locked
 * something, and tried again.
 */
static void
sample(const char *cache)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (cache_catalog_hold() != NULL && !RecoveryInProgress())
		{
			PushActiveSnapshot(GetTransactionSnapshot());
			(void) usage_follow(cache);
			PopActiveSnapshot();
		}
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			EmitErrorReport();
		worker_forget_error(context);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

static void
write_divergence(void)
{
	StartTransactionCommand();
	if (cache_catalog_hold() != NULL)
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		divergence_write_waiting();
		PopActiveSnapshot();
	}
	CommitTransactionCommand();
}

/*
 * As long as there are whole batches of it.  What is less comes with the next
 * turn: each taking up leaves dead rows, which stay as long as somebody has an
 * old snapshot, and readers look at what was not taken up yet.
 */
static bool
repeat(int64 (*step) (const char *cache), const char *cache, int64 batch)
{
	bool		busy = false;
	int64		n;

	do
	{
		n = step(cache);
		busy |= n > 0;
		worker_interrupts();
	} while (n >= batch);
	return busy;
}

static void
sweep_uploads(void)
{
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (now < next)
		return;
	next = TimestampTzPlusMilliseconds(now, SWEEP_PAUSE * 1000);
	StartTransactionCommand();
	store_sweep(worker_is_living, SWEEP_AGE);
	CommitTransactionCommand();
}

/* Has the worker of sites started, once others know this server. */
static void
start_sites_worker(void)
{
	bool		named;

	StartTransactionCommand();
	named = cache_catalog_hold() != NULL && node_is_named();
	CommitTransactionCommand();
	if (!named ||
		pg_atomic_exchange_u32(&worker_shared->sites_wanted, 1) != 0)
		return;
	pg_atomic_fetch_add_u32(&worker_shared->kicks, 1);
	worker_wake(pg_atomic_read_u32(&worker_shared->launcher_pid));
}

/* Whether there was anything to do. */
static bool
work(MemoryContext context)
{
	List	   *caches;
	ListCell   *cell;
	bool		busy = false;
	bool		prunes = root_prune_is_due();
	bool		samples = usage_is_due();

	start_sites_worker();
	caches = read_caches(context);
	foreach(cell, caches)
	{
		const char *cache = lfirst(cell);

		busy |= repeat(follow, cache, BATCH);
		busy |= repeat(cut, cache, CUT_BATCH);
		if (prunes)
			(void) repeat(prune, cache, 1);
		if (samples)
			sample(cache);
	}
	if (caches != NIL)
		write_divergence();
	sweep_uploads();
	if (caches != NIL)
		busy |= removal_work();
	return busy;
}

/* The same; what somebody has locked is left for the next turn. */
static bool
try_work(MemoryContext context)
{
	volatile bool busy = false;

	PG_TRY();
	{
		busy = work(context);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		worker_forget_error(context);
	}
	PG_END_TRY();
	return busy;
}

static long
take_turn(MemoryContext context)
{
	static long wait = WAIT_MIN;

	wait = try_work(context) ? WAIT_MIN : Min(wait * 2, WAIT_MAX);
	return wait;
}

void
pg_narinfo_janitor_main(Datum arg)
{
	(void) arg;
	worker_take_turns("janitor", compat_wait_event("PgNarinfoJanitor"),
					  PGINVALID_SOCKET, take_turn);
}
