/*-------------------------------------------------------------------------
 *
 * local.c
 *	  SQL on this side, as the procedures and the worker of sites need it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/local.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "cache/transfer.h"
#include "compat.h"
#include "sites/sites.h"

#define PARAMS_MAX 12

#define WORKER_LOCK_TIMEOUT "900ms" /* less than deadlock_timeout */

bool		local_altering = false;

static CacheUser worker_user;
static bool in_worker = false;

/* Until the end of the transaction. */
static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* Texts have one form, and names one meaning. */
static void
set_all_local(void)
{
	set_local("search_path", "pg_catalog, pg_temp");
	set_local("datestyle", "ISO, YMD");
	set_local("intervalstyle", "postgres");
	set_local("timezone", "UTC");
	set_local("bytea_output", "hex");
	/* what it would gain it costs many times over */
	set_local("jit", "off");
}

void
local_as_replica(void)
{
	set_local("session_replication_role", "replica");
}

MemoryContext
local_procedure(FunctionCallInfo fcinfo, const char *name)
{
	MemoryContext context;

	procedure_check_block(fcinfo, name);
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", name),
				 errdetail("Only superusers may make, change and drop subscriptions.")));
	/* the portal's memory is what survives a commit */
	context = AllocSetContextCreate(PortalContext, "narinfo sites",
									ALLOCSET_DEFAULT_SIZES);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	MemoryContextSwitchTo(context);
	set_all_local();
	return context;
}

void
local_procedure_end(MemoryContext context)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	MemoryContextDelete(context);
}

void
local_commit(void)
{
	MemoryContext old = CurrentMemoryContext;

	if (in_worker)
	{
		local_end();
		if (!local_begin())
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("the tables of pg_narinfo are not complete")));
		return;
	}
	SPI_commit();
	MemoryContextSwitchTo(old);
	set_all_local();
}

bool
local_begin(void)
{
	MemoryContext old = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (cache_catalog() == NULL)
	{
		CommitTransactionCommand();
		MemoryContextSwitchTo(old);
		return false;
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	in_worker = true;
	worker_user = cache_become_owner();
	set_all_local();
	/* who reports to us, or asks, holds rows of site for moments */
	set_local("lock_timeout", WORKER_LOCK_TIMEOUT);
	MemoryContextSwitchTo(old);
	return true;
}

void
local_end(void)
{
	MemoryContext old = CurrentMemoryContext;

	cache_become_user(worker_user);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	CommitTransactionCommand();
	in_worker = false;
	MemoryContextSwitchTo(old);
}

uint64
local_sql(const char *query, int nparams, const char *const *params)
{
	MemoryContext old = CurrentMemoryContext;
	Oid			types[PARAMS_MAX];
	Datum		values[PARAMS_MAX];
	char		nulls[PARAMS_MAX];
	int			result;

	Assert(nparams <= PARAMS_MAX);
	if (SPI_tuptable)
		SPI_freetuptable(SPI_tuptable);
	SPI_tuptable = NULL;
	for (int i = 0; i < nparams; i++)
	{
		types[i] = TEXTOID;
		nulls[i] = params[i] ? ' ' : 'n';
		values[i] = params[i] ? CStringGetTextDatum(params[i]) : (Datum) 0;
	}
	/* a procedure has its portal; the worker must hold none while it waits */
	if (in_worker)
		PushActiveSnapshot(GetTransactionSnapshot());
	result = SPI_execute_with_args(query, nparams, types, values, nulls,
								   false, 0);
	if (in_worker)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\"", query);
	return SPI_processed;
}

char *
local_value(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						column + 1);
}

char *
local_ask(const char *query, int nparams, const char *const *params)
{
	return local_sql(query, nparams, params) == 0 ? NULL : local_value(0, 0);
}

bool
local_is(const char *query, int nparams, const char *const *params)
{
	char	   *value = local_ask(query, nparams, params);

	return value != NULL && value[0] == 't';
}

char *
local_argument(FunctionCallInfo fcinfo, int number)
{
	Oid			type;
	Oid			output;
	bool		varlena;

	if (number >= PG_NARGS() || PG_ARGISNULL(number))
		return NULL;
	type = get_fn_expr_argtype(fcinfo->flinfo, number);
	if (type == TEXTOID)
		return text_to_cstring(PG_GETARG_TEXT_PP(number));
	getTypeOutputInfo(OidIsValid(type) ? type : TEXTARRAYOID, &output,
					  &varlena);
	return OidOutputFunctionCall(output, PG_GETARG_DATUM(number));
}

void
local_sleep(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
					 WL_EXIT_ON_PM_DEATH, ms,
					 compat_wait_event("PgNarinfoSite"));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*-------------------------------------------------------------------------
 * The subscription
 *-------------------------------------------------------------------------
 */

char *
local_conninfo(void)
{
	return local_ask("SELECT s.subconninfo FROM pg_subscription AS s "
					 "WHERE s.oid = " OUR_SUBSCRIPTION, 0, NULL);
}

void
local_alter(const char *statement)
{
	local_altering = true;
	PG_TRY();
	{
		local_sql(statement, 0, NULL);
	}
	PG_FINALLY();
	{
		local_altering = false;
	}
	PG_END_TRY();
}

void
local_enable(void)
{
	local_sql("UPDATE narinfo.mirror_state SET paused = false, "
			  "error_code = NULL, error = NULL, error_at = NULL "
			  "WHERE paused OR error IS NOT NULL OR error_code IS NOT NULL",
			  0, NULL);
	sites_forget_error();
	local_alter("ALTER SUBSCRIPTION " SITE_SUBSCRIPTION " ENABLE");
}

void
local_disable(void)
{
	if (local_conninfo() == NULL)
		return;
	/* the worker of sites is not to enable it while this call goes on */
	local_sql("UPDATE narinfo.mirror_state SET busy_pid = a.pid, "
			  "busy_since = a.query_start FROM pg_stat_activity AS a "
			  "WHERE a.pid = pg_backend_pid()", 0, NULL);
	local_alter("ALTER SUBSCRIPTION " SITE_SUBSCRIPTION " DISABLE");
	local_commit();
	while (local_is("SELECT EXISTS (SELECT FROM pg_stat_subscription AS p "
					"WHERE p.pid IS NOT NULL AND p.subid = " OUR_SUBSCRIPTION
					")", 0, NULL))
	{
		local_commit();
		local_sleep(20);
	}
	local_commit();
}
