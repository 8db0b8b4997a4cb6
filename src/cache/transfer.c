/*-------------------------------------------------------------------------
 *
 * transfer.c
 *	  How import_cache, export_cache and checkpoint_cache begin and end, and
 *	  what those that move many narinfos share.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/transfer.h"

#include <unistd.h>

#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"

void
procedure_check_block(FunctionCallInfo fcinfo, const char *procedure)
{
	bool		atomic = !fcinfo->context ||
		!IsA(fcinfo->context, CallContext) ||
		castNode(CallContext, fcinfo->context)->atomic;

	if (atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot run inside a transaction block",
						procedure),
				 errdetail("It commits on its way.")));
}

static void
check_role(const char *procedure, Oid role)
{
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", procedure),
				 errdetail("Only roles with privileges of \"%s\" may use it.",
						   GetUserNameFromId(role, false))));
}

void
transfer_begin(FunctionCallInfo fcinfo, const char *procedure, Oid role,
			   bool commits, TransferArguments *arguments)
{
	char	   *cache;

	if (commits)
		procedure_check_block(fcinfo, procedure);
	check_role(procedure, role);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s wants a directory and a cache, not NULL",
						procedure)));

	/* the portal's memory is what survives a commit */
	arguments->context = AllocSetContextCreate(PortalContext,
											   "narinfo transfer",
											   ALLOCSET_DEFAULT_SIZES);
	arguments->directory =
		MemoryContextStrdup(arguments->context,
							text_to_cstring(PG_GETARG_TEXT_PP(0)));
	cache = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (!is_absolute_path(arguments->directory))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("directory \"%s\" is not an absolute path",
						arguments->directory)));
	if (SPI_connect_ext(commits ? SPI_OPT_NONATOMIC : 0) != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	cache_require(cache, &arguments->cache);
}

void
transfer_end(TransferArguments *arguments)
{
	MemoryContextDelete(arguments->context);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
}

SPIPlanPtr
transfer_prepare(const char *query, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(query, nargs, types);

	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", query);
	return plan;
}

void
transfer_execute(SPIPlanPtr plan, Datum *values, bool read_only)
{
	MemoryContext old = CurrentMemoryContext;
	int			result = SPI_execute_plan(plan, values, NULL, read_only, 0);

	MemoryContextSwitchTo(old);
	if (result < 0)
		elog(ERROR, "SPI_execute_plan failed: %s",
			 SPI_result_code_string(result));
}

bool
transfer_write(int fd, const char *bytes, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = write(fd, bytes, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			return false;
		}
		bytes += n;
		len -= (size_t) n;
	}
	return true;
}
