/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  Reading all rows of a cache; see rows.h.
 *
 *	  much of the table	 ->	 all of it, as it lies: through a ring of a few
 *							 buffers when it is large, which stay in the
 *							 processor's cache and put nobody else's out
 *	  little of it		 ->	 a query, for the planner to find the rows
 *
 * The planner's own choice for the first is a bitmap of the index, which reads
 * the same pages, and later: through all of shared_buffers.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/rows.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "tcop/dest.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "types/types.h"

/* So much of the table is read as a whole. */
#define MUCH 0.1

/* Columns of narinfo.valid_path, from 1. */
#define COLUMN_CACHE		1
#define COLUMN_HASH			2
#define COLUMN_INFO			3
#define COLUMN_REGISTERED	4

/* Of a row that is prefetched: its key and some ten references. */
#define PREFETCHED	320
#define CACHE_LINE	64

typedef struct Visit
{
	DestReceiver receiver;		/* first: what the executor knows */
	RowVisitor	visit;
	void	   *arg;
	MemoryContext context;
} Visit;

static void
visit_values(Visit *visit, Datum hash, Datum info, Datum when)
{
	MemoryContext old = MemoryContextSwitchTo(visit->context);

	visit->visit(visit->arg, DatumGetStoreHash(hash),
				 PG_DETOAST_DATUM_PACKED(info), DatumGetTimestampTz(when));
	MemoryContextSwitchTo(old);
	MemoryContextReset(visit->context);
}

/*-------------------------------------------------------------------------
 * As they lie
 *-------------------------------------------------------------------------
 */

static bool
is_of(Datum datum, const char *cache, size_t len)
{
	struct varlena *name = (struct varlena *) DatumGetPointer(datum);

	/* no name of a cache is long enough to be stored elsewhere */
	return !(VARATT_IS_EXTENDED(name) && !VARATT_IS_SHORT(name)) &&
		VARSIZE_ANY_EXHDR(name) == len &&
		memcmp(VARDATA_ANY(name), cache, len) == 0;
}

/*
 * Memory answers far slower than we read: what will be read of a page's rows,
 * their beginnings and their ends, is asked for when the first of them comes.
 * The page is pinned; a line pointer that changes meanwhile is a bad guess.
 */
static void
prefetch_page(TupleTableSlot *slot, Buffer *latest)
{
	Buffer		buffer;
	Page		page;

	if (!TTS_IS_BUFFERTUPLE(slot))
		return;
	buffer = ((BufferHeapTupleTableSlot *) slot)->buffer;
	if (buffer == *latest)
		return;
	*latest = buffer;
	page = BufferGetPage(buffer);
	for (OffsetNumber i = FirstOffsetNumber; i <= PageGetMaxOffsetNumber(page);
		 i++)
	{
		ItemId		item = PageGetItemId(page, i);
		Size		len = ItemIdGetLength(item);
		const char *row = (const char *) page + ItemIdGetOffset(item);

		for (Size at = 0; at < Min(len, PREFETCHED); at += CACHE_LINE)
			__builtin_prefetch(row + at);
		if (len > PREFETCHED)
			__builtin_prefetch(row + len - 1);
	}
}

static void
visit_table(Visit *visit, const char *cache)
{
	Relation	rel = table_open(cache_catalog()->valid_path_rel,
								 AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	size_t		len = strlen(cache);
	Buffer		latest = InvalidBuffer;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		prefetch_page(slot, &latest);
		slot_getsomeattrs(slot, COLUMN_REGISTERED);
		if (is_of(slot->tts_values[COLUMN_CACHE - 1], cache, len))
			visit_values(visit, slot->tts_values[COLUMN_HASH - 1],
						 slot->tts_values[COLUMN_INFO - 1],
						 slot->tts_values[COLUMN_REGISTERED - 1]);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/*-------------------------------------------------------------------------
 * By a query
 *-------------------------------------------------------------------------
 */

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	slot_getallattrs(slot);
	visit_values((Visit *) self, slot->tts_values[0], slot->tts_values[1],
				 slot->tts_values[2]);
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

/* Rows come straight from the executor: SPI would copy them all first. */
static void
visit_query(Visit *visit, const char *cache)
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

	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_TABLE, "valid_path");
	visiting.context = AllocSetContextCreate(CurrentMemoryContext,
											 "narinfo graph row",
											 ALLOCSET_DEFAULT_SIZES);
	if (share >= MUCH)
		visit_table(&visiting, cache);
	else
		visit_query(&visiting, cache);
	MemoryContextDelete(visiting.context);
}
