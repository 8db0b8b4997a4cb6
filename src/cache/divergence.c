/*-------------------------------------------------------------------------
 *
 * divergence.c
 *	  The same path with another NarHash: what the cache wants done, and the
 *	  rows of narinfo.divergence.
 *
 * A row about what was kept or replaced is part of the transaction.  That
 * about a refusal has to survive it: it waits in memory, and the next
 * transaction that passes the gate of this database writes it, or the janitor
 * when none comes.  Where the library is preloaded the memory is shared by
 * all processes, else it is the session's own.
 *
 * What is guaranteed: every refusal is in the server's log at once.  The row
 * follows unless the server stops before, or more refusals than WAITING_MAX
 * come while nobody can write; those in excess are in the log alone, which
 * says so.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/policy.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/hash.h"
#include "cache/errors.h"
#include "types/types.h"

#define WAITING_MAX 256
#define SHARED_NAME "pg_narinfo divergence"

/* One refusal, without a pointer. */
typedef struct Waiting
{
	Oid			database;
	char		cache[CACHE_NAME_MAX + 1];
	uint8		hash[STORE_HASH_LEN];
	TimestampTz at;
	char		who[NAMEDATALEN];
	char		old_nar_hash[HASH_TEXT_MAX + 1];
	char		new_nar_hash[HASH_TEXT_MAX + 1];
} Waiting;

typedef struct WaitingList
{
	pg_atomic_uint32 n;			/* changed under the lock alone */
	Waiting		rows[WAITING_MAX];
} WaitingList;

static WaitingList own_list;	/* where there is no shared memory */
static WaitingList *list = &own_list;
static LWLock *lock = NULL;

/* Rows that this transaction has written; back again if it fails. */
static Waiting *written = NULL;
static int	nwritten = 0;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/*-------------------------------------------------------------------------
 * The list
 *-------------------------------------------------------------------------
 */

static void
acquire(void)
{
	if (lock)
		LWLockAcquire(lock, LW_EXCLUSIVE);
}

static void
release(void)
{
	if (lock)
		LWLockRelease(lock);
}

static bool
append(const Waiting *rows, int n)
{
	uint32		used;
	bool		fits;

	acquire();
	used = pg_atomic_read_u32(&list->n);
	fits = used + n <= WAITING_MAX;
	if (fits)
	{
		memcpy(&list->rows[used], rows, sizeof(Waiting) * n);
		pg_atomic_write_u32(&list->n, used + n);
	}
	release();
	return fits;
}

/* Takes those of this database off the list. */
static int
take(Waiting *rows)
{
	uint32		used;
	uint32		kept = 0;
	int			n = 0;

	acquire();
	used = pg_atomic_read_u32(&list->n);
	for (uint32 i = 0; i < used; i++)
	{
		if (list->rows[i].database == MyDatabaseId)
			rows[n++] = list->rows[i];
		else
			list->rows[kept++] = list->rows[i];
	}
	pg_atomic_write_u32(&list->n, kept);
	release();
	return n;
}

static void
shared_request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(WaitingList)));
	RequestNamedLWLockTranche(SHARED_NAME, 1);
}

static void
shared_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	list = ShmemInitStruct(SHARED_NAME, sizeof(WaitingList), &found);
	lock = &GetNamedLWLockTranche(SHARED_NAME)->lock;
	if (!found)
		pg_atomic_init_u32(&list->n, 0);
	LWLockRelease(AddinShmemInitLock);
}

void
divergence_init(void)
{
	pg_atomic_init_u32(&own_list.n, 0);
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

/*-------------------------------------------------------------------------
 * Rows
 *-------------------------------------------------------------------------
 */

static struct varlena *
nar_hash_of(const struct varlena *info)
{
	return (struct varlena *)
		DatumGetPointer(DirectFunctionCall1(narinfo_nar_hash,
											PointerGetDatum(info)));
}

bool
same_nar_hash(const struct varlena *a, const struct varlena *b)
{
	struct varlena *hash_a = nar_hash_of(a);
	struct varlena *hash_b = nar_hash_of(b);

	return VARSIZE_ANY(hash_a) == VARSIZE_ANY(hash_b) &&
		memcmp(hash_a, hash_b, VARSIZE_ANY(hash_a)) == 0;
}

static void
print_nar_hash(const struct varlena *info, char text[HASH_TEXT_MAX + 1])
{
	Datum		out = DirectFunctionCall1(nar_hash_out,
										  PointerGetDatum(nar_hash_of(info)));

	strlcpy(text, DatumGetCString(out), HASH_TEXT_MAX + 1);
}

static void
fill_row(Waiting *row, const char *cache, const struct varlena *there,
		 const struct varlena *offered)
{
	memset(row, 0, sizeof(Waiting));
	row->database = MyDatabaseId;
	strlcpy(row->cache, cache, sizeof(row->cache));
	memcpy(row->hash, packed_store_hash(NARINFO_PACKED(offered)),
		   STORE_HASH_LEN);
	row->at = GetCurrentTimestamp();
	/* the one who calls a function that has its owner's rights */
	strlcpy(row->who, GetUserNameFromId(GetOuterUserId(), false),
			sizeof(row->who));
	print_nar_hash(there, row->old_nar_hash);
	print_nar_hash(offered, row->new_nar_hash);
}

static void
insert_row(const Waiting *row, const char *action)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			types[] = {
		TEXTOID, catalog->store_hash_type, TIMESTAMPTZOID, TEXTOID, TEXTOID,
		TEXTOID, TEXTOID
	};
	Datum		values[] = {
		CStringGetTextDatum(row->cache), PointerGetDatum(row->hash),
		TimestampTzGetDatum(row->at), CStringGetTextDatum(row->who),
		CStringGetTextDatum(row->old_nar_hash),
		CStringGetTextDatum(row->new_nar_hash), CStringGetTextDatum(action)
	};
	CacheUser	user = cache_become_owner();

	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute_with_args("INSERT INTO narinfo.divergence "
							  "SELECT $1, $2, $3, $4, $5::narinfo.nar_hash, "
							  "$6::narinfo.nar_hash, "
							  "$7::narinfo.divergence_action",
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_INSERT ||
		SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not insert into narinfo.divergence");
	cache_become_user(user);
}

static void
log_row(const Waiting *row, bool waits)
{
	char		hash[STORE_HASH_TEXT_LEN];

	store_hash_encode(row->hash, hash);
	ereport(LOG,
			(errmsg("cache \"%s\" refused another NarHash of %.*s from \"%s\"",
					row->cache, STORE_HASH_TEXT_LEN, hash, row->who),
			 errdetail("It is valid with %s, offered was %s.",
					   row->old_nar_hash, row->new_nar_hash),
			 waits ? 0 :
			 errhint("narinfo.divergence will not have it: too many wait.")));
}

void
divergence_note(const char *cache, const struct varlena *there,
				const struct varlena *offered, DivergenceAction action)
{
	Waiting		row;

	fill_row(&row, cache, there, offered);
	if (action == DIVERGENCE_REFUSE)
		log_row(&row, append(&row, 1));
	else
		insert_row(&row, action == DIVERGENCE_KEEP ? "keep" : "replace");
}

bool
divergence_decide(const char *cache, const struct varlena *there,
				  const struct varlena *offered)
{
	CachePolicies policies;

	(void) cache_get_policies(cache, &policies);
	divergence_note(cache, there, offered, policies.on_divergence);
	if (policies.on_divergence == DIVERGENCE_REFUSE)
		ereport(ERROR,
				(errcode(ERRCODE_NARINFO_DIVERGENT),
				 errmsg("path is valid in cache \"%s\" with another NarHash",
						cache),
				 errhint("The cache's on_divergence says what to do; narinfo.divergence has both hashes.")));
	return policies.on_divergence == DIVERGENCE_REPLACE;
}

void
divergence_write_waiting(void)
{
	if (pg_atomic_read_u32(&list->n) == 0)
		return;
	if (written == NULL)
		written = MemoryContextAlloc(TopMemoryContext,
									 sizeof(Waiting) * WAITING_MAX);
	if (nwritten > 0)
		return;					/* once a transaction */
	nwritten = take(written);
	for (int i = 0; i < nwritten; i++)
		insert_row(&written[i], "refuse");
}

void
divergence_end(bool committed)
{
	if (nwritten > 0 && !committed)
		(void) append(written, nwritten);
	nwritten = 0;
}
