/*-------------------------------------------------------------------------
 *
 * control.c
 *	  narinfo.stop(), narinfo.start() and narinfo.stat_workers.
 *
 * A worker is connected to the database that it serves, so the database
 * cannot be dropped, renamed or used as a template until it has left.  That
 * it is to stay away is kept in shared memory: it holds until start(), or
 * until the server is restarted.
 *
 * start() is also what lets a database publish that was restored from a dump,
 * or is a copy; that needs no workers.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "cache/node.h"
#include "compat.h"
#include "worker/worker.h"

#define STOP_PATIENCE	10000	/* ms; workers leave after 2 s at most */
#define STOP_LOOK		20		/* ms */

#define STAT_COLUMNS	13		/* of stat_workers */

PG_FUNCTION_INFO_V1(narinfo_stop);
PG_FUNCTION_INFO_V1(narinfo_start);
PG_FUNCTION_INFO_V1(narinfo_stat_workers);

static bool
check_preloaded(int elevel)
{
	if (worker_shared == NULL)
		ereport(elevel,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_narinfo has no workers in this server"),
				 errhint("Add pg_narinfo to \"shared_preload_libraries\" "
						 "and restart the server.")));
	return worker_shared != NULL;
}

static bool
check_database(int elevel)
{
	char	   *name = get_database_name(MyDatabaseId);
	bool		served = strcmp(name, worker_database) == 0;

	if (!served)
		ereport(elevel,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the workers do not serve database \"%s\"", name),
				 errdetail("They serve \"%s\".", worker_database),
				 errhint("Connect to that one, or set "
						 "\"pg_narinfo.database\" and restart the "
						 "server.")));
	return served;
}

static void
wake_launcher(void)
{
	pg_atomic_fetch_add_u32(&worker_shared->kicks, 1);
	worker_wake(pg_atomic_read_u32(&worker_shared->launcher_pid));
}

static bool
any_worker(void)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->slots[i].used) != 0)
			return true;
	}
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->writers[i].used) != 0)
			return true;
	}
	return false;
}

/* stop(): returns when no worker is left. */
Datum
narinfo_stop(PG_FUNCTION_ARGS)
{
	TimestampTz start = GetCurrentTimestamp();
	uint32		wait_event;

	(void) check_preloaded(ERROR);
	(void) check_database(ERROR);
	wait_event = compat_wait_event("PgNarinfoStop");

	pg_atomic_write_u32(&worker_shared->stopped, 1);
	wake_launcher();

	while (any_worker())
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(),
									   STOP_PATIENCE))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("the workers have been told to leave, but some "
							"are still there"),
					 errhint("See narinfo.stat_workers.")));
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 STOP_LOOK, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	PG_RETURN_VOID();
}

/*
 * start(): looks at what was restored, if anything was; then returns at once,
 * and the launcher does the rest.  Where there is nobody to serve, that is no
 * error if the database can publish.
 */
Datum
narinfo_start(PG_FUNCTION_ARGS)
{
	int			elevel = node_start() ? NOTICE : ERROR;

	if (!check_preloaded(elevel) || !check_database(elevel))
		PG_RETURN_VOID();

	pg_atomic_write_u32(&worker_shared->stopped, 0);
	wake_launcher();
	PG_RETURN_VOID();
}

/* ---- stat_workers ---- */

static const char *
state_name(uint32 state)
{
	switch (state)
	{
		case WORKER_RUNNING:
			return "serving";
		case WORKER_LEAVING:
			return "leaving";
		default:
			return "starting";
	}
}

static void
put_launcher(ReturnSetInfo *rsinfo)
{
	Datum		values[STAT_COLUMNS] = {0};
	bool		nulls[STAT_COLUMNS];
	uint32		pid = pg_atomic_read_u32(&worker_shared->launcher_pid);
	char		detail[WORKER_DETAIL_MAX];

	LWLockAcquire(worker_lock, LW_SHARED);
	strlcpy(detail, worker_shared->detail, sizeof(detail));
	LWLockRelease(worker_lock);

	memset(nulls, true, sizeof(nulls));
	values[0] = Int32GetDatum((int32) pid);
	nulls[0] = (pid == 0);
	values[1] = CStringGetTextDatum("launcher");
	nulls[1] = false;
	values[2] = CStringGetTextDatum(detail[0] == '\0' ? "working" : detail);
	nulls[2] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_worker(ReturnSetInfo *rsinfo, WorkerSlot *slot)
{
	Datum		values[STAT_COLUMNS] = {0};
	bool		nulls[STAT_COLUMNS] = {0};
	uint32		pid = pg_atomic_read_u32(&slot->pid);
	uint32		state = pid == 0 ? WORKER_STARTING :
		pg_atomic_read_u32(&slot->state);

	values[0] = Int32GetDatum((int32) pid);
	nulls[0] = (pid == 0);
	values[1] = CStringGetTextDatum("http");
	values[2] = CStringGetTextDatum(state_name(state));
	values[3] = TimestampTzGetDatum((TimestampTz)
									pg_atomic_read_u64(&slot->started));
	nulls[3] = (pid == 0);
	values[4] = Int32GetDatum((int32) pg_atomic_read_u32(&slot->connections));
	values[5] = Int64GetDatum(pg_atomic_read_u64(&slot->connections_accepted));
	values[6] = Int64GetDatum(pg_atomic_read_u64(&slot->connections_refused));
	values[7] = Int64GetDatum(pg_atomic_read_u64(&slot->requests));
	values[8] = Int64GetDatum(pg_atomic_read_u64(&slot->bad_requests));
	values[9] = Int64GetDatum(pg_atomic_read_u64(&slot->bytes_sent));
	values[10] = Int64GetDatum(pg_atomic_read_u64(&slot->auth_failures));
	nulls[11] = nulls[12] = true;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
put_writer(ReturnSetInfo *rsinfo, WriterSlot *slot)
{
	Datum		values[STAT_COLUMNS] = {0};
	bool		nulls[STAT_COLUMNS];
	uint32		pid = pg_atomic_read_u32(&slot->pid);
	uint32		state = pid == 0 ? WORKER_STARTING :
		pg_atomic_read_u32(&slot->state);

	memset(nulls, true, sizeof(nulls));
	values[0] = Int32GetDatum((int32) pid);
	nulls[0] = (pid == 0);
	values[1] = CStringGetTextDatum("writer");
	nulls[1] = false;
	values[2] = CStringGetTextDatum(state_name(state));
	nulls[2] = false;
	values[3] = TimestampTzGetDatum((TimestampTz)
									pg_atomic_read_u64(&slot->started));
	nulls[3] = (pid == 0);
	values[11] = Int64GetDatum(pg_atomic_read_u64(&slot->jobs));
	values[12] = Int64GetDatum(pg_atomic_read_u64(&slot->jobs_refused));
	nulls[11] = nulls[12] = false;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* One row for the launcher, and one for each worker; none without them. */
Datum
narinfo_stat_workers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	if (worker_shared == NULL)
		return (Datum) 0;

	put_launcher(rsinfo);
	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->slots[i].used) != 0)
			put_worker(rsinfo, &worker_shared->slots[i]);
	}
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->writers[i].used) != 0)
			put_writer(rsinfo, &worker_shared->writers[i]);
	}
	return (Datum) 0;
}
