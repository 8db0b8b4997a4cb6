/*-------------------------------------------------------------------------
 *
 * removal_names.c
 *	  Which files the narinfos name.
 *
 * There is no index of URLs: it would cost every publish for the sake of a
 * question that is asked about many files at once.  So those are taken into a
 * hash table, and all narinfos are looked at once.
 *
 * They are looked up by the last name of their path.  Where that is the same
 * but the cache or the path is not, the files themselves are compared: a
 * link, or one directory with two names, may make two paths lead to one file.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "http/path.h"
#include "nar/removal.h"
#include "nar/store.h"
#include "nar/temp.h"
#include "types/types.h"

/* Columns of valid_path and of trash alike. */
#define COLUMN_CACHE	1
#define COLUMN_HASH		2
#define COLUMN_INFO		3

/*-------------------------------------------------------------------------
 * URLs
 *-------------------------------------------------------------------------
 */

/*
 * More lenient than what may be pushed (nar_url_path): files that were put
 * there by other means are served, too.
 */
static char *
decode_path(Span url)
{
	char	   *path;
	size_t		len;

	if (url.len > 3 * STORE_FILE_PATH_MAX)
		return NULL;
	path = palloc(url.len + 1);
	if (!http_percent_decode(url, path, &len))
		return NULL;
	path[len] = '\0';
	if (len > STORE_FILE_PATH_MAX || strlen(path) != len ||
		strncmp(path, "nar/", 4) != 0 || path[len - 1] == '/' ||
		strstr(path, "/.") != NULL || strstr(path, "//") != NULL ||
		!pg_verifymbstr(path, (int) len, true))
		return NULL;
	return path;
}

int
removal_names_of_url(Span url, char *names[REMOVAL_NAMES_MAX])
{
	const char *query = memchr(url.data, '?', url.len);
	int			n = 0;

	names[n] = decode_path(url);
	n += names[n] != NULL;
	if (query == NULL)
		return n;
	names[n] = decode_path(span_of(url.data, query - url.data));
	n += names[n] != NULL;
	return n;
}

Span
removal_text_of(const struct varlena *info)
{
	static char *text = NULL;
	static size_t size = 0;
	const uint8 *packed = NARINFO_PACKED(info);
	size_t		packed_len = NARINFO_PACKED_LEN(info);
	size_t		len = packed_check(packed, packed_len) ?
		packed_text_len(packed) : 0;

	if (size < len)
	{
		if (text)
			pfree(text);
		size = 0;
		text = NULL;
		text = MemoryContextAlloc(TopMemoryContext, Max(len, 4096));
		size = Max(len, 4096);
	}
	if (len == 0 || !packed_to_text(packed, packed_len, text))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo")));
	return span_of(text, len);
}

/*-------------------------------------------------------------------------
 * All narinfos
 *-------------------------------------------------------------------------
 */

static void
visit_table(Oid table, bool valid, HolderVisitor visit, void *arg)
{
	Relation	rel = table_open(table, AccessShareLock);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo holder",
												  ALLOCSET_DEFAULT_SIZES);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		bool		isnull;
		Datum		cache = slot_getattr(slot, COLUMN_CACHE, &isnull);
		Datum		hash = slot_getattr(slot, COLUMN_HASH, &isnull);
		Datum		info = slot_getattr(slot, COLUMN_INFO, &isnull);

		CHECK_FOR_INTERRUPTS();
		visit(arg, TextDatumGetCString(cache), DatumGetStoreHash(hash),
			  PG_DETOAST_DATUM_PACKED(info), valid);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	table_close(rel, AccessShareLock);
}

void
removal_visit_holders(HolderVisitor visit, void *arg)
{
	Oid			valid_path = cache_catalog()->valid_path_rel;
	Oid			trash = get_relname_relid("trash",
										  get_rel_namespace(valid_path));

	if (!OidIsValid(trash))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the tables of pg_narinfo are not complete")));
	visit_table(valid_path, true, visit, arg);
	visit_table(trash, false, visit, arg);
}

/*-------------------------------------------------------------------------
 * Files by their names
 *-------------------------------------------------------------------------
 */

typedef struct NameEntry
{
	const char *name;			/* the last of a path */
	uint32		first;			/* number of a file */
	uint32		hash;
	char		status;
} NameEntry;

/* Whoever publishes chooses the names, so they are hashed with a seed. */
static uint64 seed = 0;

static uint32
hash_name(const char *name)
{
	return (uint32) hash_bytes_extended((const unsigned char *) name,
										(int) strlen(name), seed);
}

#define SH_PREFIX nametable
#define SH_ELEMENT_TYPE NameEntry
#define SH_KEY_TYPE const char *
#define SH_KEY name
#define SH_HASH_KEY(table, key) hash_name(key)
#define SH_EQUAL(table, a, b) (strcmp((a), (b)) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct DueNames
{
	DueFile    *files;
	nametable_hash *table;
};

DueNames *
due_names_build(DueFile *files, uint32 n, MemoryContext context)
{
	DueNames   *names = MemoryContextAllocZero(context, sizeof(DueNames));

	if (seed == 0)
		seed = pg_prng_uint64(&pg_global_prng_state) | 1;
	names->files = files;
	names->table = nametable_create(context, n, NULL);
	for (uint32 i = 1; i <= n; i++)
	{
		bool		found;
		NameEntry  *entry = nametable_insert(names->table,
											 temp_name(files[i].path),
											 &found);

		files[i].next = found ? entry->first : 0;
		entry->first = i;
	}
	return names;
}

/* Does this other path lead to the same file? */
static bool
same_file(DueFile *file, const char *cache, const char *path)
{
	struct stat st;

	if (!file->looked)
	{
		if (!removal_stat(file->cache, file->path, &st))
			return false;
		file->looked = true;
		file->device = st.st_dev;
		file->inode = st.st_ino;
	}
	return removal_stat(cache, path, &st) &&
		file->device == (uint64) st.st_dev &&
		file->inode == (uint64) st.st_ino;
}

static void
strike_path(DueNames *names, const char *cache, const char *path)
{
	NameEntry  *entry = nametable_lookup(names->table, temp_name(path));

	for (uint32 i = entry ? entry->first : 0; i != 0;
		 i = names->files[i].next)
	{
		DueFile    *file = &names->files[i];

		if (file->state != REMOVAL_WAITING &&
			file->state != REMOVAL_NAMED_ELSEWHERE &&
			file->state != REMOVAL_HIDDEN)
			continue;
		if (strcmp(file->cache, cache) == 0 && strcmp(file->path, path) == 0)
			file->state = REMOVAL_NAMED;
		else if (file->state == REMOVAL_WAITING &&
				 same_file(file, cache, path))
			file->state = REMOVAL_NAMED_ELSEWHERE;
	}
}

void
due_names_strike(DueNames *names, const char *cache,
				 const struct varlena *info)
{
	Span		rest = removal_text_of(info);
	Span		name;
	Span		value;

	while (narinfo_next_field(&rest, &name, &value))
	{
		char	   *paths[REMOVAL_NAMES_MAX];
		int			n;

		if (!span_is(name, "URL"))
			continue;
		n = removal_names_of_url(value, paths);
		for (int i = 0; i < n; i++)
			strike_path(names, cache, paths[i]);
	}
}
