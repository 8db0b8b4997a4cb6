/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Reading all rows of a cache; see rows.h.
 *
 *	  much of the table	 ->	 all of it, as it lies: through a ring of a few
 *							 buffers when it is large, which put nobody else's
 *							 out; by a parallel worker, while we take them up
 *	  little of it		 ->	 what the planner finds best
 *
 * The planner's own choice for the first is a bitmap of the index, which reads
 * the same pages, and later: through all of shared_buffers.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/rows.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "optimizer/cost.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "types/types.h"

/* So much of the table is read as a whole. */
#define MUCH 0.1

typedef struct Visit
{
	DestReceiver receiver;		/* first: what the executor knows */
	RowVisitor	visit;
	void	   *arg;
	MemoryContext context;
} Visit;

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Visit	   *visit = (Visit *) self;
	MemoryContext old = MemoryContextSwitchTo(visit->context);

	CHECK_FOR_INTERRUPTS();
	slot_getallattrs(slot);
	visit->visit(visit->arg, DatumGetStoreHash(slot->tts_values[0]),
				 PG_DETOAST_DATUM_PACKED(slot->tts_values[1]),
				 DatumGetTimestampTz(slot->tts_values[2]));
	MemoryContextSwitchTo(old);
	MemoryContextReset(visit->context);
	return true;
}

static void
start_rows(DestReceiver *self, int operation, TupleDesc desc)
{
	(void) self;
	(void) operation;
	(void) desc;
}

static void
end_rows(DestReceiver *self)
{
	(void) self;
}

static void
set_for_now(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * One worker reads faster than its rows can be taken up, so another one would
 * only be in the way; whoever wants none has max_parallel_workers_per_gather.
 */
static void
plan_for_much(void)
{
	set_for_now("enable_indexscan", "off");
	set_for_now("enable_bitmapscan", "off");
	set_for_now("jit", "off");
	set_for_now("parallel_setup_cost", "0");
	set_for_now("parallel_tuple_cost", "0");
	if (max_parallel_workers_per_gather > 1)
		set_for_now("max_parallel_workers_per_gather", "1");
}

/* Rows come straight from the executor: SPI would copy them all first. */
static void
run_query(Visit *visit, const char *cache)
{
	ParamListInfo params = makeParamList(1);
	SPIExecuteOptions options = {0};

	params->params[0].value = CStringGetTextDatum(cache);
	params->params[0].isnull = false;
	params->params[0].pflags = PARAM_FLAG_CONST;
	params->params[0].ptype = TEXTOID;
	visit->receiver.receiveSlot = receive_row;
	visit->receiver.rStartup = start_rows;
	visit->receiver.rShutdown = end_rows;
	visit->receiver.rDestroy = end_rows;
	/* what SPI takes for a receiver that is not its own */
	visit->receiver.mydest = DestTuplestore;
	options.params = params;
	options.read_only = true;	/* by the active snapshot */
	options.dest = &visit->receiver;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_extended("SELECT hash, info, registered "
							 "FROM narinfo.valid_path "
							 "WHERE cache OPERATOR(pg_catalog.=) $1",
							 &options) != SPI_OK_SELECT)
		elog(ERROR, "could not read narinfo.valid_path");
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
}

void
rows_visit(const char *cache, double share, RowVisitor visit, void *arg)
{
	Oid			rel = cache_catalog()->valid_path_rel;
	Visit		visiting = {.visit = visit, .arg = arg};
	AclResult	allowed = pg_class_aclcheck(rel, GetUserId(), ACL_SELECT);
	int			level;

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_TABLE, "valid_path");
	visiting.context = AllocSetContextCreate(CurrentMemoryContext,
											 "narinfo graph row",
											 ALLOCSET_DEFAULT_SIZES);
	level = NewGUCNestLevel();
	if (share >= MUCH)
		plan_for_much();
	run_query(&visiting, cache);
	AtEOXact_GUC(true, level);
	MemoryContextDelete(visiting.context);
}
