/*-------------------------------------------------------------------------
 *
 * collect.c
 *	  Triggers of the gated tables: what a statement did goes into the
 *	  transaction's log (change.h), for the gate to judge at the end.
 *
 * They fire once a statement and read its transition tables.  In the apply of
 * replication they do not fire: what comes from there has passed the gate of
 * the site where it was published.  So have the rows of a dump (node.c).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "cache/change.h"
#include "cache/errors.h"
#include "cache/gate.h"
#include "cache/node.h"
#include "cache/offered.h"
#include "cache/policy.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(gate_collect);
PG_FUNCTION_INFO_V1(gate_refuse_truncate);

/* Rows after which their memory is given back. */
#define RESET_AFTER 64

/* One transition table. */
typedef struct Rows
{
	Tuplestorestate *store;		/* NULL: there is none */
	int			pointer;
	TupleTableSlot *slot;
} Rows;

/* One call of the trigger. */
typedef struct Collecting
{
	const char *trigger_table;
	int			table;
	RowReader	reader;
	Rows		old_rows;
	Rows		new_rows;
} Collecting;

static void
open_rows(Rows *rows, Tuplestorestate *store, TupleDesc desc)
{
	rows->store = store;
	if (store == NULL)
		return;
	rows->slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	rows->pointer = tuplestore_alloc_read_pointer(store, EXEC_FLAG_REWIND);
	tuplestore_select_read_pointer(store, rows->pointer);
	tuplestore_rescan(store);
}

static bool
next_row(Rows *rows)
{
	if (rows->store == NULL)
		return false;
	tuplestore_select_read_pointer(rows->store, rows->pointer);
	return tuplestore_gettupleslot(rows->store, true, false, rows->slot);
}

static void
close_rows(Rows *rows)
{
	if (rows->store)
		ExecDropSingleTupleTableSlot(rows->slot);
}

/*-------------------------------------------------------------------------
 * Keys
 *-------------------------------------------------------------------------
 */

static Datum
get_value(TupleTableSlot *slot, AttrNumber number)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, number, &isnull);

	if (isnull)
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("a key of a gated table is null")));
	return value;
}

/* A text of the row, and the bytes of its length. */
static const char *
get_text(TupleTableSlot *slot, AttrNumber number, size_t *len)
{
	struct varlena *text = PG_DETOAST_DATUM_PACKED(get_value(slot, number));

	*len = VARSIZE_ANY_EXHDR(text);
	return VARDATA_ANY(text);
}

/* Keys that are no store hash: the beginning of a digest of their parts. */
static void
make_key(const RowReader *reader, TupleTableSlot *slot, Change *change)
{
	XXH128_canonical_t canonical;
	XXH128_hash_t hash = {0, 0};
	AttrNumber	numbers[] = {reader->name_number, reader->more_number};

	for (size_t i = 0; i < lengthof(numbers); i++)
	{
		Datum		value;
		size_t		len;
		const char *text;

		if (numbers[i] == 0)
			continue;
		/* the second part may be an enum: its value is as good as its label */
		value = get_value(slot, numbers[i]);
		if (TupleDescAttr(slot->tts_tupleDescriptor,
						  numbers[i] - 1)->attbyval)
		{
			hash = XXH3_128bits_withSeed(&value, sizeof(value),
										 hash.low64);
			continue;
		}
		text = get_text(slot, numbers[i], &len);
		hash = XXH3_128bits_withSeed(text, len, hash.low64);
		if (i == 0)
			change->name = change_name_number(text, len);
	}
	XXH128_canonicalFromHash(&canonical, hash);
	memcpy(change->key, canonical.digest, sizeof(canonical.digest));
}

/* Of a column that is a store_hash, or a store_path. */
static void
copy_hash(TupleTableSlot *slot, AttrNumber number, uint8 *hash)
{
	Datum		value = get_value(slot, number);
	Oid			type = TupleDescAttr(slot->tts_tupleDescriptor,
									 number - 1)->atttypid;
	StorePath	path;

	if (type != cache_catalog()->store_path_type)
	{
		memcpy(hash, DatumGetStoreHash(value), STORE_HASH_LEN);
		return;
	}
	path = store_path_parts(PG_DETOAST_DATUM_PACKED(value));
	memcpy(hash, path.hash, STORE_HASH_LEN);
}

static void
fill_key(Collecting *collecting, TupleTableSlot *slot, Change *change)
{
	const RowReader *reader = &collecting->reader;
	size_t		len;
	const char *text = get_text(slot, reader->cache_number, &len);

	change->table = (uint8) collecting->table;
	change->cache = change_cache(text, len);
	if (reader->hash_number == 0)
	{
		if (reader->name_number != 0)
			make_key(reader, slot, change);
		return;
	}
	copy_hash(slot, reader->hash_number, change->key);
	if (reader->part_number == 0)
		return;
	text = get_text(slot, reader->name_number, &len);
	change->name = change_name_number(text, len);
	change->part = (uint32) DatumGetInt32(get_value(slot,
													reader->part_number));
}

/*-------------------------------------------------------------------------
 * Rows
 *-------------------------------------------------------------------------
 */

/*
 * Another NarHash of a path that is valid: as the cache wants it.  To keep the
 * first is nothing that a trigger could do for the statement.
 */
static void
check_nar_hash(Collecting *collecting, Change *change)
{
	AttrNumber	number = collecting->reader.info_number;
	const char *cache = change_cache_name(change->cache);
	Datum		old_info = get_value(collecting->old_rows.slot, number);
	Datum		new_info = get_value(collecting->new_rows.slot, number);
	struct varlena *old = PG_DETOAST_DATUM_PACKED(old_info);
	struct varlena *new = PG_DETOAST_DATUM_PACKED(new_info);

	if (same_nar_hash(old, new))
		return;
	change->flags |= CHANGE_OTHER;
	if (!divergence_decide(cache, old, new))
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_DIVERGENT),
				 errmsg("cache \"%s\" keeps the first NarHash of a path",
						cache)));
}

static bool
requires_closure(TupleTableSlot *slot)
{
	int			number = SPI_fnumber(slot->tts_tupleDescriptor,
									 "require_closure");

	return DatumGetBool(get_value(slot, (AttrNumber) number));
}

/* An UPDATE hands out old and new rows in the same order. */
static void
check_update(Collecting *collecting, Change *change)
{
	TupleTableSlot *old_slot = collecting->old_rows.slot;
	Change		old = {0};

	fill_key(collecting, old_slot, &old);
	if (!change_same_key(&old, change))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the key of a row in narinfo.%s cannot be changed",
						collecting->trigger_table),
				 errhint("Delete the row and insert another one.")));
	if (collecting->table == GATED_VALID_PATH)
		check_nar_hash(collecting, change);
	if (collecting->table == GATED_CACHE && !requires_closure(old_slot) &&
		requires_closure(collecting->new_rows.slot))
		change->flags |= CHANGE_RECHECK;
}

/* It has the row at hand that the gate would have to look for. */
static void
offer(Collecting *collecting, const Change *change)
{
	Datum		info = get_value(collecting->new_rows.slot,
								 collecting->reader.info_number);

	offered_add(change_context(), change->cache,
				PG_DETOAST_DATUM_PACKED(info));
}

static void
collect_row(Collecting *collecting, bool has_old, bool has_new)
{
	TupleTableSlot *old_slot = collecting->old_rows.slot;
	TupleTableSlot *new_slot = collecting->new_rows.slot;
	Change		change = {0};

	fill_key(collecting, has_new ? new_slot : old_slot, &change);
	if (has_old)
	{
		change.flags |= CHANGE_HAS_OLD;
		row_digest_of(&collecting->reader, old_slot, &change.old_digest);
	}
	if (has_new)
	{
		change.flags |= CHANGE_HAS_NEW;
		row_digest_of(&collecting->reader, new_slot, &change.new_digest);
	}
	if (has_old && has_new)
		check_update(collecting, &change);
	if (has_new && collecting->table == GATED_VALID_PATH)
		offer(collecting, &change);
	*change_append() = change;
}

static void
collect_rows(Collecting *collecting)
{
	MemoryContext row_context =
	AllocSetContextCreate(CurrentMemoryContext, "narinfo changed row",
						  ALLOCSET_DEFAULT_SIZES);
	uint64		n = 0;

	for (;;)
	{
		/* rows that come from disk live until the next, in our context */
		bool		has_old = next_row(&collecting->old_rows);
		bool		has_new = next_row(&collecting->new_rows);
		MemoryContext old;

		if (!has_old && !has_new)
			break;
		old = MemoryContextSwitchTo(row_context);
		collect_row(collecting, has_old, has_new);
		MemoryContextSwitchTo(old);
		if (++n % RESET_AFTER == 0)
		{
			CHECK_FOR_INTERRUPTS();
			MemoryContextReset(row_context);
		}
	}
	MemoryContextDelete(row_context);
}

static TriggerData *
get_trigger_data(FunctionCallInfo fcinfo, const char *name)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("%s() is a trigger function", name)));
	return (TriggerData *) fcinfo->context;
}

Datum
gate_collect(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = get_trigger_data(fcinfo, "gate_collect");
	Collecting	collecting = {0};
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	if (node_takes_dump())
		return PointerGetDatum(NULL);
	node_check_fence();
	collecting.trigger_table = RelationGetRelationName(trigger->tg_relation);
	collecting.table = gated_table_find(collecting.trigger_table);
	if (collecting.table < 0)
		elog(ERROR, "table \"%s\" is not gated", collecting.trigger_table);
	row_reader_init(&collecting.reader, &gated_tables[collecting.table],
					desc);
	open_rows(&collecting.old_rows, trigger->tg_oldtable, desc);
	open_rows(&collecting.new_rows, trigger->tg_newtable, desc);
	collect_rows(&collecting);
	close_rows(&collecting.old_rows);
	close_rows(&collecting.new_rows);
	return PointerGetDatum(NULL);
}

Datum
gate_refuse_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = get_trigger_data(fcinfo, "gate_refuse_truncate");

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("narinfo.%s cannot be truncated",
					RelationGetRelationName(trigger->tg_relation)),
			 errdetail("Each row that goes is an event of its cache."),
			 errhint("Use DELETE, or narinfo.drop_cache().")));
}
