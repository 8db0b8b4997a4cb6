/*-------------------------------------------------------------------------
 *
 * row.c
 *	  The gated tables, and the canonical bytes of their rows; see row.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/row.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "cache/cache.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(row_digest);
PG_FUNCTION_INFO_V1(digest_xor);
PG_FUNCTION_INFO_V1(cache_digest);

#define CANONICAL_VERSION 1

const GatedTable gated_tables[] = {
	[GATED_VALID_PATH] = {
		.name = "valid_path", .tag = 1,
		.cache_column = "cache", .hash_column = "hash", .info_column = "info",
		.added = EVENT_PUBLISH, .changed = EVENT_REPLACE,
		.removed = EVENT_RETRACT,
		.columns = {"cache", "hash", "info", "registered"}
	},
	[GATED_CACHE] = {
		.name = "cache", .tag = 2,
		.cache_column = "name",
		.added = EVENT_CREATE_CACHE, .changed = EVENT_ALTER_CACHE,
		.removed = EVENT_DROP_CACHE,
		.columns = {"name", "store_dir", "priority", "want_mass_query",
			"visibility", "require_closure", "min_signatures",
			"on_divergence", "filter", "hook", "sign_with", "push_copies",
		"push_wait", "push_when_late", "visible_copies",
		"copies_include_files"}
	},
	[GATED_KEY] = {
		.name = "key", .tag = 3,
		.cache_column = "cache", .name_column = "public_key",
		.added = EVENT_TRUST_KEY, .changed = EVENT_TRUST_KEY,
		.removed = EVENT_UNTRUST_KEY,
		.columns = {"cache", "public_key", "kind", "name", "added",
		"may_push"}
	},
	[GATED_TOKEN] = {
		.name = "token", .tag = 4,
		.cache_column = "cache", .name_column = "name",
		.added = EVENT_CREATE_TOKEN, .changed = EVENT_CREATE_TOKEN,
		.removed = EVENT_REVOKE_TOKEN,
		.columns = {"cache", "name", "rights", "secret_hash", "created",
		"expires"}
	},
	[GATED_ROOT] = {
		.name = "root", .tag = 5,
		.cache_column = "cache", .hash_column = "path",
		.name_column = "name", .part_column = "generation",
		.added = EVENT_PIN, .changed = EVENT_PIN, .removed = EVENT_UNPIN,
		.columns = {"cache", "name", "generation", "path", "owner",
			"environment", "pinned_at", "expires", "wanted", "keep_last",
		"keep_for"}
	},
	[GATED_ROOT_SOURCE] = {
		.name = "root_source", .tag = 6,
		.cache_column = "cache", .name_column = "name",
		.added = EVENT_ADD_ROOT_SOURCE, .changed = EVENT_ADD_ROOT_SOURCE,
		.removed = EVENT_DROP_ROOT_SOURCE,
		.columns = {"cache", "name", "kind", "query", "owner", "environment",
		"added"}
	},
	[GATED_QUOTA] = {
		.name = "quota", .tag = 7,
		.cache_column = "cache", .name_column = "owner",
		.more_column = "environment",
		.added = EVENT_SET_QUOTA, .changed = EVENT_SET_QUOTA,
		.removed = EVENT_DROP_QUOTA,
		.columns = {"cache", "owner", "environment", "max_bytes"}
	}
};

const int	gated_tables_count = lengthof(gated_tables);

int
gated_table_find(const char *name)
{
	for (int i = 0; i < gated_tables_count; i++)
	{
		if (strcmp(gated_tables[i].name, name) == 0)
			return i;
	}
	return -1;
}

static AttrNumber
find_column(TupleDesc desc, const GatedTable *table, const char *name)
{
	if (name == NULL)
		return 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped &&
			strcmp(NameStr(column->attname), name) == 0)
			return column->attnum;
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("narinfo.%s has no column \"%s\"", table->name, name)));
}

void
row_reader_init(RowReader *reader, const GatedTable *table, TupleDesc desc)
{
	reader->table = table;
	reader->cache_number = find_column(desc, table, table->cache_column);
	reader->hash_number = find_column(desc, table, table->hash_column);
	reader->info_number = find_column(desc, table, table->info_column);
	reader->name_number = find_column(desc, table, table->name_column);
	reader->more_number = find_column(desc, table, table->more_column);
	reader->part_number = find_column(desc, table, table->part_column);
	reader->ncolumns = 0;
	while (reader->ncolumns < ROW_COLUMNS_MAX &&
		   table->columns[reader->ncolumns] != NULL)
	{
		AttrNumber	number = find_column(desc, table,
										 table->columns[reader->ncolumns]);

		reader->numbers[reader->ncolumns] = number;
		reader->types[reader->ncolumns++] =
			TupleDescAttr(desc, number - 1)->atttypid;
	}
	initStringInfo(&reader->bytes);
}

/*-------------------------------------------------------------------------
 * Canonical bytes
 *-------------------------------------------------------------------------
 */

static void
add_u32(StringInfo bytes, uint32 value)
{
	uint8		le[4];

	for (int i = 0; i < 4; i++)
		le[i] = (uint8) (value >> (8 * i));
	appendBinaryStringInfo(bytes, (const char *) le, sizeof(le));
}

static void
add_u64(StringInfo bytes, uint64 value)
{
	add_u32(bytes, (uint32) value);
	add_u32(bytes, (uint32) (value >> 32));
}

static void
add_run(StringInfo bytes, const char *data, size_t len)
{
	add_u32(bytes, (uint32) len);
	appendBinaryStringInfo(bytes, data, (int) len);
}

static void
add_varlena(StringInfo bytes, Datum value)
{
	struct varlena *data = PG_DETOAST_DATUM_PACKED(value);

	add_run(bytes, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data));
}

/*
 * A damaged one can still be removed, and counts as what it is: the digest
 * then tells that it was damaged.
 */
static void
add_narinfo(StringInfo bytes, Datum value)
{
	struct varlena *info = PG_DETOAST_DATUM_PACKED(value);
	const uint8 *packed = NARINFO_PACKED(info);
	size_t		packed_len = NARINFO_PACKED_LEN(info);
	size_t		len = 0;
	char	   *text = NULL;

	if (packed_check(packed, packed_len))
	{
		len = packed_text_len(packed);
		text = palloc(len);
	}
	if (text && packed_to_text(packed, packed_len, text))
		add_run(bytes, text, len);
	else
		add_run(bytes, (const char *) packed, packed_len);
}

static void
add_path(StringInfo bytes, Datum value)
{
	StorePath	path = store_path_parts(PG_DETOAST_DATUM_PACKED(value));
	size_t		len = store_path_len(&path);

	add_u32(bytes, (uint32) len);
	enlargeStringInfo(bytes, (int) len);
	store_path_print(&path, bytes->data + bytes->len);
	bytes->len += (int) len;
}

static void
add_interval(StringInfo bytes, const Interval *interval)
{
	add_u64(bytes, (uint64) interval->time);
	add_u32(bytes, (uint32) interval->day);
	add_u32(bytes, (uint32) interval->month);
}

static void
add_texts(StringInfo bytes, Datum value)
{
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, &nulls, &n);
	add_u32(bytes, (uint32) n);
	for (int i = 0; i < n; i++)
	{
		appendStringInfoChar(bytes, nulls[i] ? 0 : 1);
		if (!nulls[i])
			add_varlena(bytes, elements[i]);
	}
}

static void
add_label(StringInfo bytes, Oid value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, ObjectIdGetDatum(value));
	Form_pg_enum form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for enum value %u", value);
	form = (Form_pg_enum) GETSTRUCT(tuple);
	add_run(bytes, NameStr(form->enumlabel), strlen(NameStr(form->enumlabel)));
	ReleaseSysCache(tuple);
}

static void
add_value(StringInfo bytes, Oid type, Datum value)
{
	const CacheCatalog *catalog = cache_catalog();

	if (type == TEXTOID || type == BYTEAOID)
		add_varlena(bytes, value);
	else if (type == TEXTARRAYOID)
		add_texts(bytes, value);
	else if (type == BOOLOID)
		appendStringInfoChar(bytes, DatumGetBool(value) ? 1 : 0);
	else if (type == INT4OID)
		add_u32(bytes, (uint32) DatumGetInt32(value));
	else if (type == INT8OID || type == TIMESTAMPTZOID)
		add_u64(bytes, (uint64) DatumGetInt64(value));
	else if (type == INTERVALOID)
		add_interval(bytes, DatumGetIntervalP(value));
	else if (catalog != NULL && type == catalog->narinfo_type)
		add_narinfo(bytes, value);
	else if (catalog != NULL && type == catalog->store_path_type)
		add_path(bytes, value);
	else if (catalog != NULL && type == catalog->store_hash_type)
		appendBinaryStringInfo(bytes, (const char *) DatumGetStoreHash(value),
							   STORE_HASH_LEN);
	else if (type_is_enum(type))
		add_label(bytes, DatumGetObjectId(value));
	else
		elog(ERROR, "type %u has no canonical form", type);
}

void
row_digest_of(RowReader *reader, TupleTableSlot *slot, RowDigest *digest)
{
	StringInfo	bytes = &reader->bytes;
	XXH128_canonical_t canonical;

	resetStringInfo(bytes);
	appendStringInfoChar(bytes, CANONICAL_VERSION);
	appendStringInfoChar(bytes, (char) reader->table->tag);
	for (int i = 0; i < reader->ncolumns; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(slot, reader->numbers[i], &isnull);

		appendStringInfoChar(bytes, isnull ? 0 : 1);
		if (!isnull)
			add_value(bytes, reader->types[i], value);
	}
	XXH128_canonicalFromHash(&canonical,
							 XXH3_128bits(bytes->data, bytes->len));
	memcpy(digest->bytes, canonical.digest, DIGEST_LEN);
}

/*-------------------------------------------------------------------------
 * The same from SQL
 *-------------------------------------------------------------------------
 */

/* What row_digest() keeps from call to call of one query. */
typedef struct RowDigestState
{
	Oid			type;
	int32		typmod;
	MemoryContext row_context;
	TupleTableSlot *slot;
	RowReader	reader;
} RowDigestState;

static RowDigestState *
row_digest_state(FunctionCallInfo fcinfo, HeapTupleHeader row)
{
	RowDigestState *state = fcinfo->flinfo->fn_extra;
	Oid			type = HeapTupleHeaderGetTypeId(row);
	int32		typmod = HeapTupleHeaderGetTypMod(row);
	MemoryContext old;
	TupleDesc	desc;
	const char *name;
	int			table;

	if (state && state->type == type && state->typmod == typmod)
		return state;
	name = get_rel_name(get_typ_typrelid(type));
	table = name ? gated_table_find(name) : -1;
	if (table < 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("this is no row of a table that is in a cache's digest")));
	old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	state = palloc(sizeof(RowDigestState));
	state->type = type;
	state->typmod = typmod;
	desc = lookup_rowtype_tupdesc_copy(type, typmod);
	state->row_context = AllocSetContextCreate(CurrentMemoryContext,
											   "narinfo row digest",
											   ALLOCSET_DEFAULT_SIZES);
	state->slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	row_reader_init(&state->reader, &gated_tables[table], desc);
	fcinfo->flinfo->fn_extra = state;
	MemoryContextSwitchTo(old);
	return state;
}

/* row_digest(record) -> bytea */
Datum
row_digest(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row = PG_GETARG_HEAPTUPLEHEADER(0);
	RowDigestState *state = row_digest_state(fcinfo, row);
	HeapTupleData tuple = {0};
	RowDigest	digest;
	MemoryContext old;
	bytea	   *result;

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_data = row;
	ExecStoreHeapTuple(&tuple, state->slot, false);
	old = MemoryContextSwitchTo(state->row_context);
	row_digest_of(&state->reader, state->slot, &digest);
	MemoryContextSwitchTo(old);
	MemoryContextReset(state->row_context);
	ExecClearTuple(state->slot);

	result = palloc(VARHDRSZ + DIGEST_LEN);
	SET_VARSIZE(result, VARHDRSZ + DIGEST_LEN);
	memcpy(VARDATA(result), digest.bytes, DIGEST_LEN);
	PG_RETURN_BYTEA_P(result);
}

/*
 * digest_xor(bytea, bytea) -> bytea: the transition of the aggregate
 * sum_digest, and how two of its states become one.
 */
Datum
digest_xor(PG_FUNCTION_ARGS)
{
	bytea	   *a = PG_GETARG_BYTEA_PP(0);
	bytea	   *b = PG_GETARG_BYTEA_PP(1);
	bytea	   *sum = a;

	if (VARSIZE_ANY_EXHDR(a) != DIGEST_LEN ||
		VARSIZE_ANY_EXHDR(b) != DIGEST_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a digest has %d bytes", DIGEST_LEN)));
	if (!AggCheckCallContext(fcinfo, NULL))
	{
		sum = palloc(VARSIZE_ANY(a));
		memcpy(sum, a, VARSIZE_ANY(a));
	}
	digest_add((RowDigest *) VARDATA_ANY(sum),
			   (const RowDigest *) VARDATA_ANY(b));
	PG_RETURN_BYTEA_P(sum);
}

/* One query over all gated tables; its argument is the name of the cache. */
static char *
digest_query(void)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfoString(&query, "SELECT narinfo.sum_digest(d) FROM (");
	for (int i = 0; i < gated_tables_count; i++)
		appendStringInfo(&query,
						 "%sSELECT narinfo.row_digest(t) AS d "
						 "FROM narinfo.%s AS t "
						 "WHERE t.%s OPERATOR(pg_catalog.=) $1",
						 i > 0 ? " UNION ALL " : "", gated_tables[i].name,
						 gated_tables[i].cache_column);
	appendStringInfoString(&query, ") AS rows");
	return query.data;
}

/* cache_digest(cache text) -> bytea, with the rights of the one who asks */
Datum
cache_digest(PG_FUNCTION_ARGS)
{
	Oid			type = TEXTOID;
	Datum		name = PG_GETARG_DATUM(0);
	RowDigest	digest = {{0}};
	bytea	   *result;
	SPIPlanPtr	plan;
	Datum		sum;
	bool		isnull;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	plan = SPI_prepare_cursor(digest_query(), 1, &type,
							  CURSOR_OPT_PARALLEL_OK);
	if (plan == NULL ||
		SPI_execute_plan(plan, &name, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the rows of a cache");
	sum = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
						&isnull);
	if (!isnull)
		memcpy(digest.bytes, VARDATA_ANY(DatumGetByteaPP(sum)), DIGEST_LEN);
	SPI_finish();
	result = palloc(VARHDRSZ + DIGEST_LEN);
	SET_VARSIZE(result, VARHDRSZ + DIGEST_LEN);
	memcpy(VARDATA(result), digest.bytes, DIGEST_LEN);
	PG_RETURN_BYTEA_P(result);
}
