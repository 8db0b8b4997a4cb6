/*-------------------------------------------------------------------------
 *
 * event.c
 *	  Reading the end of a cache's event log, and writing behind it.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/event.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "replication/worker_internal.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/errors.h"
#include "cache/node.h"
#include "cache/row.h"
#include "compat.h"

PG_FUNCTION_INFO_V1(event_refuse);
PG_FUNCTION_INFO_V1(event_check_applied);

bool		event_taking_rows = false;
bool		event_written = false;
bool		event_applied = false;

/* Rows that go in together. */
#define BATCH 200

static const char *const kind_labels[EVENT_KINDS] = {
	[EVENT_PUBLISH] = "publish",
	[EVENT_REPLACE] = "replace",
	[EVENT_RETRACT] = "retract",
	[EVENT_CREATE_CACHE] = "create_cache",
	[EVENT_ALTER_CACHE] = "alter_cache",
	[EVENT_DROP_CACHE] = "drop_cache",
	[EVENT_TRUST_KEY] = "trust_key",
	[EVENT_UNTRUST_KEY] = "untrust_key",
	[EVENT_CREATE_TOKEN] = "create_token",
	[EVENT_REVOKE_TOKEN] = "revoke_token",
	[EVENT_PIN] = "pin",
	[EVENT_UNPIN] = "unpin",
	[EVENT_ADD_ROOT_SOURCE] = "add_root_source",
	[EVENT_DROP_ROOT_SOURCE] = "drop_root_source",
	[EVENT_SET_QUOTA] = "set_quota",
	[EVENT_DROP_QUOTA] = "drop_quota"
};

char *
event_kind_label(Oid value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	char	   *label;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for enum value %u", value);
	label = pstrdup(NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel));
	ReleaseSysCache(tuple);
	return label;
}

static const CacheCatalog *
require_catalog(void)
{
	const CacheCatalog *catalog = cache_catalog();

	if (catalog == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the tables of pg_narinfo are not complete")));
	return catalog;
}

/*-------------------------------------------------------------------------
 * Reading
 *-------------------------------------------------------------------------
 */

void
event_read_position(TupleTableSlot *slot, EventPosition *position)
{
	bool		isnull;
	Datum		digest;
	bytea	   *bytes;

	position->seq = DatumGetInt64(slot_getattr(slot, EVENT_COLUMN_SEQ + 1,
											   &isnull));
	position->epoch = DatumGetInt32(slot_getattr(slot, EVENT_COLUMN_EPOCH + 1,
												 &isnull));
	digest = slot_getattr(slot, EVENT_COLUMN_DIGEST + 1, &isnull);
	bytes = isnull ? NULL : DatumGetByteaPP(digest);
	if (bytes == NULL || VARSIZE_ANY_EXHDR(bytes) != DIGEST_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("event " INT64_FORMAT " has no digest",
						position->seq)));
	memcpy(position->digest, VARDATA_ANY(bytes), DIGEST_LEN);
}

struct EventScan
{
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	IndexScanDesc scan;
	ScanKeyData keys[2];
};

EventScan *
event_scan_begin(const char *cache, int64 after)
{
	const CacheCatalog *catalog = require_catalog();
	EventScan  *scan = palloc(sizeof(EventScan));

	scan->rel = table_open(catalog->event_rel, AccessShareLock);
	scan->index = index_open(catalog->event_pkey, AccessShareLock);
	scan->slot = table_slot_create(scan->rel, NULL);
	ScanKeyEntryInitialize(&scan->keys[0], 0, 1, BTEqualStrategyNumber,
						   TEXTOID, C_COLLATION_OID, F_TEXTEQ,
						   CStringGetTextDatum(cache));
	ScanKeyEntryInitialize(&scan->keys[1], 0, 2, BTGreaterStrategyNumber,
						   INT8OID, InvalidOid, F_INT8GT,
						   Int64GetDatum(after));
	scan->scan = compat_index_beginscan(scan->rel, scan->index,
										GetActiveSnapshot(), 2);
	index_rescan(scan->scan, scan->keys, 2, NULL, 0);
	return scan;
}

TupleTableSlot *
event_scan_next(EventScan *scan, ScanDirection direction)
{
	return index_getnext_slot(scan->scan, direction, scan->slot) ?
		scan->slot : NULL;
}

void
event_scan_end(EventScan *scan)
{
	index_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	index_close(scan->index, AccessShareLock);
	table_close(scan->rel, AccessShareLock);
	pfree(scan);
}

void
event_read_last(const char *cache, EventPosition *position)
{
	EventScan  *scan = event_scan_begin(cache, 0);
	TupleTableSlot *slot = event_scan_next(scan, BackwardScanDirection);

	memset(position, 0, sizeof(EventPosition));
	position->epoch = 1;
	if (slot != NULL)
		event_read_position(slot, position);
	event_scan_end(scan);
}

int64
event_first_seq(const char *cache)
{
	EventScan  *scan = event_scan_begin(cache, 0);
	TupleTableSlot *slot = event_scan_next(scan, ForwardScanDirection);
	int64		seq = 0;
	bool		isnull;

	if (slot != NULL)
		seq = DatumGetInt64(slot_getattr(slot, EVENT_COLUMN_SEQ + 1,
										 &isnull));
	event_scan_end(scan);
	return seq;
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

struct EventWriter
{
	Relation	rel;
	CatalogIndexState indexes;
	Oid			kinds[EVENT_KINDS]; /* InvalidOid: not looked up yet */
	Datum		cache;
	EventPosition last;
	Datum		at;
	TupleTableSlot *slots[BATCH];
	int			nslots;			/* made */
	int			nrows;			/* waiting */
	MemoryContext batch_context;
};

EventWriter *
event_writer_begin(const char *cache, const EventPosition *last)
{
	EventWriter *writer = palloc0(sizeof(EventWriter));

	event_written = true;
	writer->rel = table_open(require_catalog()->event_rel, RowExclusiveLock);
	writer->indexes = CatalogOpenIndexes(writer->rel);
	writer->cache = CStringGetTextDatum(cache);
	writer->last = *last;
	writer->at = TimestampTzGetDatum(GetCurrentTimestamp());
	writer->batch_context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo events",
												  ALLOCSET_DEFAULT_SIZES);
	return writer;
}

static Oid
kind_value(EventWriter *writer, EventKind kind)
{
	if (!OidIsValid(writer->kinds[kind]))
	{
		Oid			type = TupleDescAttr(RelationGetDescr(writer->rel),
										 EVENT_COLUMN_KIND)->atttypid;

		writer->kinds[kind] =
			GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
							ObjectIdGetDatum(type),
							CStringGetDatum(kind_labels[kind]));
		if (!OidIsValid(writer->kinds[kind]))
			elog(ERROR, "event_kind has no value \"%s\"", kind_labels[kind]);
	}
	return writer->kinds[kind];
}

/*
 * The system catalogs' way of inserting rows: it knows plain indexes only,
 * which ours are, and fires nothing.
 */
static void
flush(EventWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->batch_context);

	CatalogTuplesMultiInsertWithInfo(writer->rel, writer->slots,
									 writer->nrows, writer->indexes);
	MemoryContextSwitchTo(old);
	for (int i = 0; i < writer->nrows; i++)
		ExecClearTuple(writer->slots[i]);
	MemoryContextReset(writer->batch_context);
	writer->nrows = 0;
}

static Datum
digest_datum(EventWriter *writer, const uint8 *digest)
{
	bytea	   *value = MemoryContextAlloc(writer->batch_context,
										   VARHDRSZ + DIGEST_LEN);

	SET_VARSIZE(value, VARHDRSZ + DIGEST_LEN);
	memcpy(VARDATA(value), digest, DIGEST_LEN);
	return PointerGetDatum(value);
}

int64
event_write(EventWriter *writer, EventKind kind, const uint8 *hash,
			const char *name, const uint8 *digest)
{
	TupleTableSlot *slot;

	if (writer->nrows == BATCH)
		flush(writer);
	if (writer->nrows == writer->nslots)
		writer->slots[writer->nslots++] =
			MakeSingleTupleTableSlot(RelationGetDescr(writer->rel),
									 &TTSOpsHeapTuple);
	slot = writer->slots[writer->nrows++];
	ExecClearTuple(slot);
	memset(slot->tts_isnull, false, sizeof(bool) * EVENT_COLUMNS);
	slot->tts_values[EVENT_COLUMN_CACHE] = writer->cache;
	slot->tts_values[EVENT_COLUMN_SEQ] = Int64GetDatum(++writer->last.seq);
	slot->tts_values[EVENT_COLUMN_EPOCH] = Int32GetDatum(writer->last.epoch);
	slot->tts_values[EVENT_COLUMN_AT] = writer->at;
	slot->tts_values[EVENT_COLUMN_KIND] =
		ObjectIdGetDatum(kind_value(writer, kind));
	slot->tts_values[EVENT_COLUMN_HASH] = PointerGetDatum(hash);
	slot->tts_isnull[EVENT_COLUMN_HASH] = hash == NULL;
	slot->tts_isnull[EVENT_COLUMN_NAME] = name == NULL;
	if (name)
	{
		MemoryContext old = MemoryContextSwitchTo(writer->batch_context);

		slot->tts_values[EVENT_COLUMN_NAME] = CStringGetTextDatum(name);
		MemoryContextSwitchTo(old);
	}
	slot->tts_values[EVENT_COLUMN_LSN] = LSNGetDatum(GetXLogInsertRecPtr());
	slot->tts_values[EVENT_COLUMN_DIGEST] = digest_datum(writer, digest);
	ExecStoreVirtualTuple(slot);
	return writer->last.seq;
}

void
event_writer_end(EventWriter *writer)
{
	if (writer->nrows > 0)
		flush(writer);
	for (int i = 0; i < writer->nslots; i++)
		ExecDropSingleTupleTableSlot(writer->slots[i]);
	MemoryContextDelete(writer->batch_context);
	CatalogCloseIndexes(writer->indexes);
	table_close(writer->rel, NoLock);
	pfree(writer);
}

/*-------------------------------------------------------------------------
 * Guards of the table
 *-------------------------------------------------------------------------
 */

/* A statement trigger: nobody writes events, but who restores a dump. */
Datum
event_refuse(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("event_refuse() is a trigger function")));
	if (node_takes_dump())
		return PointerGetDatum(NULL);
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("events are written by the gate alone"),
			 errdetail("Each is the number of a change of a cache."),
			 errhint("A dump can be restored into a database that has no history of its own.")));
}

/*
 * Whoever writes in an epoch that is over is not the primary any more; and a
 * copy of a mirror must not read on in that one's place.
 */
static void
check_epoch(const char *cache, const EventPosition *last,
			const EventPosition *next)
{
	int32		least = Max(last->epoch, node_least_epoch());
	NodeState	state = node_state();

	if (state == NODE_PRIMARY || state == NODE_CLOSED || state == NODE_FENCED)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("this server takes no events by replication"),
				 errdetail("It is %s, and no mirror.",
						   state == NODE_FENCED ? "fenced" : "a primary")));
	if (next->epoch < least)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_FENCED),
				 errmsg("event " INT64_FORMAT " of cache \"%s\" has epoch %d, "
						"which is over", next->seq, cache, next->epoch),
				 errdetail("This site has events of epoch %d, or has promised to follow it.",
						   least)));
}

/*
 * What replication applies must follow what is here: a row trigger that fires
 * in replicas only.  The first event of a cache may have any number, since a
 * site may join when older ones are gone; the initial copy of the table comes
 * in any order, and is looked at when it has ended.
 */
Datum
event_check_applied(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleTableSlot *slot;
	EventPosition last;
	EventPosition next;
	char	   *cache;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("event_check_applied() is a trigger function")));
	if (event_taking_rows ||
		(MyLogicalRepWorker != NULL && am_tablesync_worker()))
		return PointerGetDatum(trigger->tg_trigtuple);
	slot = trigger->tg_trigslot;
	cache = TextDatumGetCString(slot_getattr(slot, EVENT_COLUMN_CACHE + 1,
											 &isnull));
	event_read_position(slot, &next);
	PushActiveSnapshot(GetLatestSnapshot());
	event_read_last(cache, &last);
	PopActiveSnapshot();
	check_epoch(cache, &last, &next);
	if (last.seq != 0 && next.seq != last.seq + 1)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_BEHIND),
				 errmsg("event " INT64_FORMAT " cannot follow event "
						INT64_FORMAT " in cache \"%s\"",
						next.seq, last.seq, cache),
				 errdetail("Their epochs are %d and %d.",
						   next.epoch, last.epoch)));
	event_applied = true;
	return PointerGetDatum(trigger->tg_trigtuple);
}
