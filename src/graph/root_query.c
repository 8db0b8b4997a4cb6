/*-------------------------------------------------------------------------
 *
 * root_query.c
 *	  Queries on the tables of roots, and lists of store hashes; see
 *	  root_query.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "graph/root_query.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "types/operators.h"

#define LOCK_CLASS 0x4e55		/* see gate_lock_cache() */

#define LOCKED_NAMES_MAX 256

#define ARGUMENTS_MAX 12

/*-------------------------------------------------------------------------
 * Rights and names
 *-------------------------------------------------------------------------
 */

int
root_search_path(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, narinfo, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return level;
}

RootSession
root_begin(void)
{
	RootSession session;

	if (cache_catalog() == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the tables of pg_narinfo are not complete")));
	session.user = cache_become_owner();
	session.guc_level = root_search_path();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	return session;
}

void
root_end(RootSession session)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	AtEOXact_GUC(true, session.guc_level);
	cache_become_user(session.user);
}

/*
 * How many names this transaction has locked.  Beyond LOCKED_NAMES_MAX it
 * locks all of the cache instead, since the server has room for so many locks
 * only.
 */
static bool
has_many_names(void)
{
	static TimestampTz transaction = 0;
	static int	n = 0;
	TimestampTz this = GetCurrentTransactionStartTimestamp();

	if (transaction != this)
		n = 0;
	transaction = this;
	return n++ >= LOCKED_NAMES_MAX;
}

static bool
lock(uint64 hash, LOCKMODE mode, bool wait)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_CLASS);
	return LockAcquire(&tag, mode, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

bool
root_lock_name(const char *cache, const char *name, bool wait)
{
	uint64		all = hash_bytes_xxh3(cache, strlen(cache), 0);

	if (has_many_names())
		return lock(all, ExclusiveLock, wait);
	return lock(all, ShareLock, wait) &&
		lock(hash_bytes_xxh3(name, strlen(name), all), ExclusiveLock, wait);
}

/*-------------------------------------------------------------------------
 * Queries
 *-------------------------------------------------------------------------
 */

static Oid
type_of(char letter)
{
	const CacheCatalog *catalog = cache_catalog();

	switch (letter)
	{
		case 't':
			return TEXTOID;
		case 'b':
			return BOOLOID;
		case 'i':
			return INT4OID;
		case 'l':
			return INT8OID;
		case 'z':
			return TIMESTAMPTZOID;
		case 'v':
			return INTERVALOID;
		case 'p':
			return catalog->store_path_type;
		case 'T':
			return TEXTARRAYOID;
		case 'I':
			return INT4ARRAYOID;
		case 'H':
			return catalog->store_hash_array_type;
		case 'P':
			return catalog->store_path_array_type;
		default:
			elog(ERROR, "no type has the letter %c", letter);
	}
}

/* The types are others when the extension was made again. */
static void
prepare(RootQuery *query)
{
	Oid			types[ARGUMENTS_MAX];
	int			n = (int) strlen(query->types);
	Oid			type = cache_catalog()->store_path_type;

	if (query->plan != NULL && query->planned_for == type)
		return;
	if (query->plan != NULL)
		SPI_freeplan(query->plan);
	query->plan = NULL;
	Assert(n <= ARGUMENTS_MAX);
	for (int i = 0; i < n; i++)
		types[i] = type_of(query->types[i]);
	/* arrays may have few elements or very many, which is worth a plan */
	query->plan = SPI_prepare_cursor(query->sql, n, types,
									 strpbrk(query->types, "TIHP") ?
									 CURSOR_OPT_CUSTOM_PLAN : 0);
	if (query->plan == NULL || SPI_keepplan(query->plan) != 0)
		elog(ERROR, "could not prepare \"%s\"", query->sql);
	query->planned_for = type;
}

static void
execute(RootQuery *query, Datum *values, const char *nulls, Snapshot snapshot,
		bool read_only)
{
	prepare(query);
	if (SPI_execute_snapshot(query->plan, values, nulls, snapshot,
							 InvalidSnapshot, read_only, true, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", query->sql);
}

void
root_read(RootQuery *query, Datum *values, const char *nulls)
{
	execute(query, values, nulls, GetActiveSnapshot(), true);
}

void
root_read_latest(RootQuery *query, Datum *values, const char *nulls)
{
	execute(query, values, nulls, GetLatestSnapshot(), true);
}

/* What it changed is to be seen by what comes next. */
void
root_change(RootQuery *query, Datum *values, const char *nulls)
{
	execute(query, values, nulls, GetLatestSnapshot(), false);
	CommandCounterIncrement();
}

Datum
root_value(uint64 row, int column, bool *isnull)
{
	bool		ignored;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull ? isnull : &ignored);
}

char *
root_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						column);
}

/*-------------------------------------------------------------------------
 * Lists of store hashes
 *-------------------------------------------------------------------------
 */

void
hash_list_init(HashList *list)
{
	list->n = 0;
	list->max = 64;
	list->hashes = palloc(list->max * STORE_HASH_LEN);
}

void
hash_list_add(HashList *list, const uint8 *hash)
{
	if (list->n == list->max)
	{
		list->max *= 2;
		list->hashes = repalloc_huge(list->hashes,
									 list->max * STORE_HASH_LEN);
	}
	memcpy(list->hashes + list->n++ * STORE_HASH_LEN, hash, STORE_HASH_LEN);
}

static int
compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, STORE_HASH_LEN);
}

void
hash_list_sort(HashList *list)
{
	uint64		kept = 0;

	qsort(list->hashes, list->n, STORE_HASH_LEN, compare_hashes);
	for (uint64 i = 0; i < list->n; i++)
	{
		const uint8 *hash = hash_list_get(list, i);

		if (kept == 0 ||
			memcmp(hash, hash_list_get(list, kept - 1), STORE_HASH_LEN) != 0)
			memmove(list->hashes + kept++ * STORE_HASH_LEN, hash,
					STORE_HASH_LEN);
	}
	list->n = kept;
}
