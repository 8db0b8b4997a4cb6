/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  The process that stores and publishes what HTTP workers received.
 *
 *	  HTTP workers --- queue ---> writer
 *									|
 *		  take what waits, HELD_MAX at most
 *									|
 *		  each alone (writer_job.c): files are fsynced and renamed, narinfos
 *		  are read and checked
 *									|
 *		  their NARs are looked into by processes of their own (nar/check.h),
 *		  CHECKS_MAX at a time; meanwhile we go on
 *									|
 *		  each cache's narinfos in one transaction (writer_publish.c)
 *									|
 *		  if the cache wants copies: kept aside until other sites have it
 *		  (writer_copies.c); meanwhile we go on
 *									|
 *		  answer: the HTTP worker's latch is set
 *									|
 *		  wait for the latch, or a check
 *
 * What takes long is done here, so that no HTTP worker ever waits for a lock,
 * a disk or a decompressor.  Nothing is answered before it is durable.
 *
 * An error costs the job that it came from.  When the process itself has to
 * go, what it holds waits in the queue again, for another writer or for the
 * next one; each job can be done twice, since it looks what is there.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "nar/root.h"
#include "sites/pressure.h"
#include "worker/worker.h"
#include "worker/writer.h"

/* So many publishes share a transaction, at most. */
#define HELD_MAX		64

/* They take a processor each. */
#define CHECKS_MAX		2

/* A client waits meanwhile; longer, and it had better come again. */
#define LOCK_PATIENCE	"10s"

#define UPKEEP_INTERVAL 1000	/* ms between statistics */

static WriterSlot *slot = NULL;
static HeldJob *held[HELD_MAX];
static int	nheld = 0;
static ResourceOwner owner = NULL;	/* of hashes outside of transactions */
static TimestampTz publish_at = 0;	/* while what is ready is delayed */

static void
writer_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	pg_atomic_write_u32(&slot->pid, 0);
	queue_put_back();
	worker_wake(pg_atomic_read_u32(&worker_shared->launcher_pid));
}

static void
writer_start(int number)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	slot = &worker_shared->writers[number];
	pg_atomic_write_u32(&slot->state, WORKER_STARTING);
	pg_atomic_write_u64(&slot->started, (uint64) GetCurrentTimestamp());

	BackgroundWorkerInitializeConnection(worker_database, worker_role, 0);
	before_shmem_exit(writer_exit, (Datum) 0);
	pg_atomic_write_u32(&slot->pid, (uint32) MyProcPid);

	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", LOCK_PATIENCE, PGC_SUSET, PGC_S_OVERRIDE);
	owner = ResourceOwnerCreate(NULL, "pg_narinfo writer");
	pressure_waits_itself = true;
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* ---- jobs ---- */

static bool
take(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext,
												  "pg_narinfo job",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	HeldJob    *job = palloc0(sizeof(HeldJob));
	bool		taken;

	job->context = context;
	taken = queue_take(&job->ticket, &job->job, &job->text, &job->tries);
	job->text_len = job->job.text_len;
	MemoryContextSwitchTo(old);
	if (taken)
		held[nheld++] = job;
	else
		MemoryContextDelete(context);
	return taken;
}

/* Does something to a job; an error is its answer. */
static void
do_to(HeldJob *job, void (*what) (HeldJob *))
{
	MemoryContext old = MemoryContextSwitchTo(job->context);

	CurrentResourceOwner = owner;
	PG_TRY();
	{
		what(job);
	}
	PG_CATCH();
	{
		writer_job_failed(job);
	}
	PG_END_TRY();
	CurrentResourceOwner = NULL;
	MemoryContextSwitchTo(old);
}

/* Takes up what the checks have found, and starts others. */
static void
check_some(void)
{
	int			running = 0;

	for (int i = 0; i < nheld; i++)
	{
		if (held[i]->check != NULL)
			do_to(held[i], writer_check_poll);
		running += held[i]->check != NULL ? 1 : 0;
	}
	for (int i = 0; i < nheld && running < CHECKS_MAX; i++)
	{
		if (held[i]->state != HELD_UNCHECKED || held[i]->check != NULL)
			continue;
		do_to(held[i], writer_check_start);
		running += held[i]->check != NULL ? 1 : 0;
	}
}

static void
answer(HeldJob *job)
{
	if (job->job.kind != JOB_TOUCH)
		store_discard(job->job.cache, &job->job.temp);
	pg_atomic_fetch_add_u64(&slot->jobs, 1);
	if (job->result.status >= 400)
		pg_atomic_fetch_add_u64(&slot->jobs_refused, 1);
	queue_answer(&job->ticket, &job->result);
	MemoryContextDelete(job->context);
}

/* Answers what is done, and keeps the rest. */
static void
answer_done(void)
{
	int			kept = 0;

	for (int i = 0; i < nheld; i++)
	{
		if (held[i]->state == HELD_DONE)
			answer(held[i]);
		else if (held[i]->state == HELD_COPIES)
			writer_copies_keep(held[i]);
		else
			held[kept++] = held[i];
	}
	nheld = kept;
}

static bool
publishes(const HeldJob *job)
{
	return job->state == HELD_READY && job->job.kind == JOB_PUBLISH;
}

/*
 * Each transaction that publishes waits as long as pressure.h says, before it
 * is one; what comes meanwhile goes along, and what only touches goes on.
 */
static bool
is_delayed(void)
{
	bool		any = false;

	for (int i = 0; i < nheld && !any; i++)
		any = publishes(held[i]);
	if (!any)
		return false;
	if (publish_at == 0)
		publish_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												 pressure_begin_delay());
	if (GetCurrentTimestamp() < publish_at)
		return true;
	publish_at = 0;
	return false;
}

/* All that are ready and of the cache of the first one. */
static bool
publish_some(void)
{
	HeldJob    *ready[HELD_MAX];
	int			n = 0;
	bool		delayed = is_delayed();

	for (int i = 0; i < nheld; i++)
	{
		if (held[i]->state == HELD_READY &&
			!(delayed && publishes(held[i])) &&
			(n == 0 ||
			 strcmp(held[i]->job.cache, ready[0]->job.cache) == 0))
			ready[n++] = held[i];
	}
	if (n == 0)
		return false;
	writer_publish(ready, n);
	return true;
}

/* False when nothing was there to be done. */
static bool
work(void)
{
	bool		busy = false;

	while (nheld < HELD_MAX && take())
	{
		busy = true;
		do_to(held[nheld - 1], writer_prepare);
		if (held[nheld - 1]->state == HELD_DONE)
			answer_done();
		worker_interrupts();
	}
	check_some();
	answer_done();
	while (publish_some())
	{
		busy = true;
		answer_done();
		writer_copies_look(answer);
		worker_interrupts();
	}
	writer_copies_look(answer);
	return busy;
}

/* ---- the loop ---- */

static void
wait_for_work(uint32 wait_event)
{
	WaitEventSet *set = compat_create_wait_event_set(2 + CHECKS_MAX);
	WaitEvent	occurred;
	long		pause = writer_copies_pause();
	long		timeout = pause < 0 ? UPKEEP_INTERVAL : pause;

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < nheld; i++)
	{
		long		left;

		if (held[i]->check == NULL)
			continue;
		AddWaitEventToSet(set, WL_SOCKET_READABLE,
						  nar_check_socket(held[i]->check), NULL, NULL);
		left = nar_check_timeout(held[i]->check);
		timeout = (left < 0) ? timeout : Min(timeout, left);
	}
	if (publish_at != 0)
		timeout = Min(timeout,
					  TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
													  publish_at));
	(void) WaitEventSetWait(set, timeout, &occurred, 1, wait_event);
	FreeWaitEventSet(set);
	ResetLatch(MyLatch);
}

static void
between(void)
{
	static TimestampTz next_upkeep = 0;
	TimestampTz now = GetCurrentTimestamp();

	worker_interrupts();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		nar_root_reload();
	}
	if (now >= next_upkeep)
	{
		pgstat_report_stat(false);
		next_upkeep = TimestampTzPlusMilliseconds(now, UPKEEP_INTERVAL);
	}
}

static void
sweep_after_start(void)
{
	uint32		due = 1;

	if (!pg_atomic_compare_exchange_u32(&worker_shared->sweep_due, &due, 0))
		return;
	PG_TRY();
	{
		store_sweep(worker_is_living, 0);
	}
	PG_CATCH();
	{
		writer_job_failed(NULL);
	}
	PG_END_TRY();
}

void
pg_narinfo_writer_main(Datum arg)
{
	uint32		wait_event;

	writer_start(DatumGetInt32(arg));
	wait_event = compat_wait_event("PgNarinfoWriter");
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext,
												"pg_narinfo writer",
												ALLOCSET_SMALL_SIZES));
	sweep_after_start();
	pg_atomic_write_u32(&slot->state, WORKER_RUNNING);

	while (!ShutdownRequestPending)
	{
		/* to wait for a lock is given up, but to be idle is no error */
		pqsignal(SIGTERM, die);
		between();
		if (work())
			continue;
		pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
		worker_interrupts();
		wait_for_work(wait_event);
	}
	proc_exit(0);
}
