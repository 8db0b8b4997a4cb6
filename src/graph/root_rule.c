/*-------------------------------------------------------------------------
 *
 * root_rule.c
 *	  What has to be true of pins when a transaction commits: their paths are
 *	  valid, or they are wanted, and nobody's pins hold more than the quota.
 *
 * The gate asks, with the lock of the cache and a fresh snapshot, whoever has
 * written the rows and how.  So two pins at once are judged one after the
 * other, and neither can slip through by what the other has not committed.
 *
 * What pins hold is the union of their closures, walked by index lookups: a
 * pin whose owner or environment has a quota costs one a path that they hold.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/root_query.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cache/errors.h"
#include "cache/gate.h"
#include "cache/hashset.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(set_quota);

/* The rows that a transaction leaves, by their keys. */
#define CHANGED_ROWS \
	"unnest($2, $3, $4) AS c (name, generation, hash) " \
	"JOIN narinfo.root AS r ON r.cache = $1 AND r.name = c.name " \
	"AND r.generation = c.generation AND store_hash(r.path) = c.hash "

static RootQuery wrong_query = {
	.sql = "SELECT r.name, r.path::text, store_path(v.info)::text "
	"FROM " CHANGED_ROWS
	"LEFT JOIN narinfo.valid_path AS v ON v.cache = $1 AND v.hash = c.hash "
	"WHERE CASE WHEN v.hash IS NULL THEN NOT r.wanted "
	"ELSE store_path(v.info) <> r.path END LIMIT 1",
	.types = "tTIH"
};

static RootQuery quotas_query = {
	.sql = "SELECT q.owner, q.environment, q.max_bytes "
	"FROM narinfo.quota AS q WHERE q.cache = $1 AND EXISTS (SELECT FROM "
	CHANGED_ROWS "WHERE (q.owner = '' OR q.owner = r.owner) "
	"AND (q.environment = '' OR q.environment = r.environment)) "
	"ORDER BY q.owner, q.environment",
	.types = "tTIH"
};

/* Of no names but those that have such pins: generations are a name's. */
static RootQuery held_query = {
	.sql = "SELECT store_hash(s.path) FROM narinfo.root_status AS s "
	"WHERE s.cache = $1 AND s.name = ANY (ARRAY(SELECT r.name "
	"FROM narinfo.root AS r WHERE r.cache = $1 AND ($2 = '' OR r.owner = $2) "
	"AND ($3 = '' OR r.environment = $3) GROUP BY r.name)) "
	"AND s.counts AND ($2 = '' OR s.owner = $2) "
	"AND ($3 = '' OR s.environment = $3)",
	.types = "ttt"
};

static RootQuery left_query = {
	.sql = "SELECT 'pins' FROM narinfo.root WHERE cache = $1 "
	"UNION ALL SELECT 'sources of roots' FROM narinfo.root_source "
	"WHERE cache = $1 UNION ALL SELECT 'quotas' FROM narinfo.quota "
	"WHERE cache = $1 LIMIT 1",
	.types = "t"
};

static RootQuery any_quota_query = {
	.sql = "SELECT FROM narinfo.quota WHERE cache = $1 LIMIT 1",
	.types = "t"
};

static RootQuery set_query = {
	.sql = "INSERT INTO narinfo.quota AS q (cache, owner, environment, "
	"max_bytes) VALUES ($1, $2, $3, $4) ON CONFLICT (cache, owner, environment) "
	"DO UPDATE SET max_bytes = excluded.max_bytes "
	"WHERE q.max_bytes <> excluded.max_bytes",
	.types = "tttl"
};

static RootQuery remove_query = {
	.sql = "DELETE FROM narinfo.quota "
	"WHERE cache = $1 AND owner = $2 AND environment = $3",
	.types = "ttt"
};

/*-------------------------------------------------------------------------
 * What was pinned
 *-------------------------------------------------------------------------
 */

static bool
is_pin(const Change *change)
{
	return change->table == GATED_ROOT && (change->flags & CHANGE_HAS_NEW) &&
		!(change->flags & CHANGE_TOUCH);
}

static Datum
make_array(Datum *elements, int n, Oid type, int len, char align)
{
	return PointerGetDatum(construct_array(elements, n, type, len,
										   len == sizeof(int32), align));
}

/* The arguments of queries that have CHANGED_ROWS. */
static void
changed_rows(const CacheChanges *cache, uint64 npins, Datum values[4])
{
	Size		size = sizeof(Datum) * (Size) npins;
	Datum	   *names = palloc_extended(size, MCXT_ALLOC_HUGE);
	Datum	   *generations = palloc_extended(size, MCXT_ALLOC_HUGE);
	Datum	   *hashes = palloc_extended(size, MCXT_ALLOC_HUGE);
	int			n = 0;

	for (uint64 i = 0; i < cache->n; i++)
	{
		const Change *change = &cache->changes[i];

		CHECK_FOR_INTERRUPTS();
		if (!is_pin(change))
			continue;
		names[n] = CStringGetTextDatum(change_name(change->name));
		generations[n] = Int32GetDatum((int32) change->part);
		hashes[n++] = PointerGetDatum(change->key);
	}
	values[0] = CStringGetTextDatum(cache->name);
	values[1] = make_array(names, n, TEXTOID, -1, TYPALIGN_INT);
	values[2] = make_array(generations, n, INT4OID, sizeof(int32),
						   TYPALIGN_INT);
	values[3] = make_array(hashes, n, cache_catalog()->store_hash_type,
						   STORE_HASH_LEN, TYPALIGN_CHAR);
}

static void
check_paths(const CacheChanges *cache, Datum *values)
{
	char	   *other;

	root_read(&wrong_query, values, NULL);
	if (SPI_processed == 0)
		return;
	other = root_text(0, 3);
	ereport(ERROR,
			(errcode(ERRCODE_NARINFO_BEHIND),
			 errmsg("%s is not valid in cache \"%s\", so it cannot be pinned",
					root_text(0, 2), cache->name),
			 other ? errdetail("The cache has %s.", other) : 0,
			 other ? 0 :
			 errhint("Publish it first, or pin it with wanted => true.")));
}

/*-------------------------------------------------------------------------
 * What pins hold
 *-------------------------------------------------------------------------
 */

/* Adds the path and what it refers to; its bytes, 0 when it is not there. */
static uint64
hold(ValidPathScan *scan, const char *cache, const uint8 *hash,
	 hashset_hash * seen, HashList *queue)
{
	struct varlena *info = valid_path_find(scan, cache, hash);
	const uint8 *packed;

	if (info == NULL)
		return 0;
	packed = NARINFO_PACKED(info);
	if (!packed_check(packed, NARINFO_PACKED_LEN(info)))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	for (uint32 i = 0; i < packed_nrefs(packed); i++)
	{
		const uint8 *ref = packed_ref(packed, i);

		if (has_hash(seen, ref))
			continue;
		add_hash(seen, ref);
		hash_list_add(queue, ref);
	}
	return packed_nar_size(packed);
}

/* The bytes of these and of all that they need, each path once. */
static uint64
closure_bytes(const char *cache, HashList *roots)
{
	ValidPathScan *scan = valid_path_begin();
	hashset_hash *seen = hashset_create(CurrentMemoryContext, 1024, NULL);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "narinfo held path",
													  ALLOCSET_DEFAULT_SIZES);
	uint64		bytes = 0;

	for (uint64 i = 0; i < roots->n; i++)
		add_hash(seen, hash_list_get(roots, i));
	/* it grows while it is walked */
	for (uint64 i = 0; i < roots->n; i++)
	{
		uint8		hash[STORE_HASH_LEN];
		MemoryContext old = MemoryContextSwitchTo(row_context);

		CHECK_FOR_INTERRUPTS();
		memcpy(hash, hash_list_get(roots, i), STORE_HASH_LEN);
		bytes += hold(scan, cache, hash, seen, roots);
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
	}
	MemoryContextDelete(row_context);
	hashset_destroy(seen);
	valid_path_end(scan);
	return bytes;
}

/* "alice", "alice" in "production", … */
static char *
describe_holder(const char *owner, const char *environment)
{
	const char *who = owner[0] == '\0' ? "all owners" :
	psprintf("\"%s\"", owner);

	return environment[0] == '\0' ? pstrdup(who) :
		psprintf("%s in environment \"%s\"", who, environment);
}

static void
check_quota(const char *cache, const char *owner, const char *environment,
			int64 max_bytes)
{
	Datum		values[3];
	HashList	held;
	uint64		bytes;

	values[0] = CStringGetTextDatum(cache);
	values[1] = CStringGetTextDatum(owner);
	values[2] = CStringGetTextDatum(environment);
	root_read(&held_query, values, NULL);
	hash_list_init(&held);
	for (uint64 i = 0; i < SPI_processed; i++)
		hash_list_add(&held, DatumGetStoreHash(root_value(i, 1, NULL)));
	SPI_freetuptable(SPI_tuptable);
	hash_list_sort(&held);
	bytes = closure_bytes(cache, &held);
	if (bytes > (uint64) max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_QUOTA),
				 errmsg("pins of %s would hold more than the quota in cache \"%s\"",
						describe_holder(owner, environment), cache),
				 errdetail("They would hold " UINT64_FORMAT
						   " bytes, and may hold " INT64_FORMAT ".",
						   bytes, max_bytes)));
	pfree(held.hashes);
}

static void
check_quotas(const CacheChanges *cache, Datum *values)
{
	SPITupleTable *quotas;
	uint64		n;

	root_read(&any_quota_query, values, NULL);
	if (SPI_processed == 0)
		return;
	root_read(&quotas_query, values, NULL);
	quotas = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		max = SPI_getbinval(quotas->vals[i], quotas->tupdesc, 3,
										&isnull);

		check_quota(cache->name,
					SPI_getvalue(quotas->vals[i], quotas->tupdesc, 1),
					SPI_getvalue(quotas->vals[i], quotas->tupdesc, 2),
					DatumGetInt64(max));
	}
}

/*-------------------------------------------------------------------------
 * The gate
 *-------------------------------------------------------------------------
 */

static void
check_dropped(const CacheChanges *cache)
{
	Datum		value = CStringGetTextDatum(cache->name);
	RootSession session = root_begin();

	root_read(&left_query, &value, NULL);
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cache \"%s\" still has %s", cache->name,
						root_text(0, 1)),
				 errhint("narinfo.drop_cache() removes them too.")));
	root_end(session);
}

static void
check_roots(const CacheChanges *cache)
{
	Datum		values[4];
	RootSession session;
	uint64		npins = 0;

	if (cache->n > 0 && cache->changes[0].table == GATED_CACHE &&
		!(cache->changes[0].flags & CHANGE_HAS_NEW))
		check_dropped(cache);
	for (uint64 i = 0; i < cache->n; i++)
		npins += is_pin(&cache->changes[i]);
	if (npins == 0)
		return;
	session = root_begin();
	changed_rows(cache, npins, values);
	check_paths(cache, values);
	check_quotas(cache, values);
	root_end(session);
}

/*-------------------------------------------------------------------------
 * Quotas from SQL
 *-------------------------------------------------------------------------
 */

/*
 * set_quota(owner text, environment text, max_bytes bigint, cache text)
 * -> boolean
 */
Datum
set_quota(PG_FUNCTION_ARGS)
{
	Datum		empty = CStringGetTextDatum("");
	Datum		values[4];
	CacheInfo	cache;
	RootSession session;
	bool		changed;

	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("cache of a quota must not be NULL")));
	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(3)), &cache);
	values[0] = CStringGetTextDatum(cache.name);
	values[1] = PG_ARGISNULL(0) ? empty : PG_GETARG_DATUM(0);
	values[2] = PG_ARGISNULL(1) ? empty : PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	session = root_begin();
	root_change(PG_ARGISNULL(2) ? &remove_query : &set_query, values, NULL);
	changed = SPI_processed > 0;
	root_end(session);
	PG_RETURN_BOOL(changed);
}

void
root_rule_init(void)
{
	rules_add(check_roots);
}
