/*-------------------------------------------------------------------------
 *
 * writer_publish.c
 *	  Transactions of the writer worker, and what their errors mean to those
 *	  who pushed.
 *
 * Narinfos go in by narinfo.publish_many(), as anybody's do, so the gate has
 * its say at the commit.  Those that wait are joined: then many share one
 * fsync and one turn at the cache's lock.  If that fails, because of one of
 * them perhaps, each is tried alone.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "cache/errors.h"
#include "cache/gate.h"
#include "types/types.h"
#include "worker/writer.h"

void
held_answer(HeldJob *held, int status, const char *format,...)
{
	va_list		args;

	held->result.status = status;
	va_start(args, format);
	vsnprintf(held->result.reason, JOB_REASON_MAX, format, args);
	va_end(args);
	held->state = HELD_DONE;
}

/* ---- errors ---- */

static bool
in_class(int code, int class_code)
{
	return ERRCODE_TO_CATEGORY(code) == ERRCODE_TO_CATEGORY(class_code);
}

/* The client can do better, the server can later, or somebody has to look. */
static int
status_of(int code)
{
	if (code == ERRCODE_NARINFO_BEHIND || code == ERRCODE_NARINFO_FENCED ||
		code == ERRCODE_NARINFO_SWITCHING || code == ERRCODE_NARINFO_OVERLOAD)
		return 503;
	if (in_class(code, ERRCODE_NARINFO_REFUSED) ||
		in_class(code, ERRCODE_RAISE_EXCEPTION))	/* a filter's or hook's */
		return 403;
	if (code == ERRCODE_UNDEFINED_OBJECT)	/* the cache was dropped */
		return 404;
	if (code == ERRCODE_DISK_FULL)
		return 507;
	if (in_class(code, ERRCODE_DATA_EXCEPTION) ||
		in_class(code, ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION) ||
		code == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		return 400;
	if (in_class(code, ERRCODE_INSUFFICIENT_RESOURCES) ||
		in_class(code, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE) ||
		in_class(code, ERRCODE_OPERATOR_INTERVENTION) ||
		in_class(code, ERRCODE_TRANSACTION_ROLLBACK) ||
		in_class(code, ERRCODE_INVALID_TRANSACTION_STATE) ||
		in_class(code, ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION) ||
		code == ERRCODE_INVALID_SCHEMA_NAME)
		return 503;
	return 500;
}

void
writer_job_failed(HeldJob *held)
{
	ErrorData  *error;
	int			status;
	bool		told;			/* to the client */

	HOLD_INTERRUPTS();
	status = status_of(geterrcode());
	told = status < 500 || status == 507 ||
		geterrcode() == ERRCODE_NARINFO_OVERLOAD;
	if (status >= 500 && (!told || status == 507))
		EmitErrorReport();
	disable_all_timeouts(false);
	QueryCancelPending = false;
	if (held != NULL)
	{
		MemoryContextSwitchTo(held->context);
		error = CopyErrorData();
		if (!told)
			held_answer(held, status, status == 503 ?
						"the database cannot answer now" : "internal error");
		else
			held_answer(held, status, "%s%s%s", error->message,
						error->detail ? "\n" : "",
						error->detail ? error->detail : "");
	}
	AbortOutOfAnyTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
}

/* ---- one transaction ---- */

/* Of the cache of the jobs at hand, when they were published. */
static CachePolicies policies;

static void
begin(void)
{
	pgstat_report_activity(STATE_RUNNING, "publishing what was uploaded");
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (cache_catalog() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension pg_narinfo is not in this database")));
}

/* What was valid before. */
static void
look(HeldJob **jobs, int n)
{
	ValidPathScan *scan = valid_path_begin();

	for (int i = 0; i < n; i++)
	{
		HeldJob    *held = jobs[i];

		if (held->job.kind == JOB_PUBLISH)
			held->existed =
				valid_path_find(scan, held->job.cache,
								packed_store_hash(NARINFO_PACKED(held->info)))
				!= NULL;
	}
	valid_path_end(scan);
}

static void
touch_paths(HeldJob **jobs, int n)
{
	Datum	   *hashes = palloc(sizeof(Datum) * JOB_PATHS_MAX);

	for (int i = 0; i < n; i++)
	{
		int			nhashes = (int) (jobs[i]->text_len / STORE_HASH_LEN);

		if (jobs[i]->job.kind != JOB_TOUCH)
			continue;
		for (int j = 0; j < nhashes; j++)
			hashes[j] = PointerGetDatum(jobs[i]->text + j * STORE_HASH_LEN);
		(void) gate_touch_valid(jobs[i]->job.cache, hashes, nhashes);
	}
}

static void
publish_infos(HeldJob **jobs, int n)
{
	const CacheCatalog *catalog = cache_catalog();
	Datum	   *infos = palloc(sizeof(Datum) * n);
	int			ninfos = 0;
	Oid			types[] = {catalog->narinfo_array_type, TEXTOID};
	Datum		values[2];

	for (int i = 0; i < n; i++)
	{
		if (jobs[i]->job.kind == JOB_PUBLISH)
			infos[ninfos++] = PointerGetDatum(jobs[i]->info);
	}
	if (ninfos == 0)
		return;
	values[0] = PointerGetDatum(construct_array(infos, ninfos,
												catalog->narinfo_type, -1,
												false, TYPALIGN_INT));
	values[1] = CStringGetTextDatum(jobs[0]->job.cache);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args("SELECT narinfo.publish_many($1, $2)",
							  lengthof(types), types, values, NULL,
							  false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not call narinfo.publish_many()");
	SPI_finish();
}

/* False, with nothing done, when it failed; a single job has its answer. */
static bool
try_publish(HeldJob **jobs, int n)
{
	volatile bool done = false;

	PG_TRY();
	{
		begin();
		look(jobs, n);
		touch_paths(jobs, n);
		publish_infos(jobs, n);
		(void) cache_get_policies(jobs[0]->job.cache, &policies);
		PopActiveSnapshot();
		CommitTransactionCommand();
		done = true;
	}
	PG_CATCH();
	{
		writer_job_failed(n == 1 ? jobs[0] : NULL);
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_IDLE, NULL);
	return done;
}

void
writer_publish(HeldJob **jobs, int n)
{
	if (try_publish(jobs, n))
	{
		for (int i = 0; i < n; i++)
		{
			held_answer(jobs[i], jobs[i]->existed ? 200 : 201,
						jobs[i]->existed ? "it was there" : "published");
			writer_copies_ask(jobs[i], &policies);
		}
	}
	else if (n > 1)
	{
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			writer_publish(&jobs[i], 1);
		}
	}
}
