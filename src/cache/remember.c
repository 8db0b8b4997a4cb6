/*-------------------------------------------------------------------------
 *
 * remember.c
 *	  Small tables that each process keeps in memory; see remember.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/remember.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

static void
forget(Datum arg, Oid relid)
{
	Remembered *rows = (Remembered *) DatumGetPointer(arg);

	if (relid == InvalidOid || relid == rows->rel)
		rows->valid = false;
}

static void
start(Remembered *rows, Oid relid)
{
	if (!rows->registered)
	{
		CacheRegisterRelcacheCallback(forget, PointerGetDatum(rows));
		rows->registered = true;
	}
	if (rows->context)
		MemoryContextReset(rows->context);
	else
		rows->context = AllocSetContextCreate(TopMemoryContext,
											  "narinfo remembered rows",
											  ALLOCSET_SMALL_SIZES);
	rows->start(rows->context);
	rows->rel = relid;
	rows->valid = true;
	rows->generation++;
}

/*
 * With a snapshot of its own, taken when the invalidations so far have been
 * processed: an older one could miss a change whose invalidation we have
 * already had, and be remembered for ever.  A catalog snapshot, since a
 * parallel query may take no other.
 */
static void
read_rows(Remembered *rows, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetCatalogSnapshot(relid));
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);

	start(rows, relid);
	PG_TRY();
	{
		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			CHECK_FOR_INTERRUPTS();
			rows->read_row(slot, rows->context);
		}
	}
	PG_CATCH();
	{
		rows->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

void
remember_rows(Remembered *rows)
{
	Oid			schema = get_namespace_oid("narinfo", true);
	Oid			relid = OidIsValid(schema) ?
		get_relname_relid(rows->table, schema) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table narinfo.%s does not exist", rows->table)));
	if (!rows->valid || rows->rel != relid)
		read_rows(rows, relid);
}
