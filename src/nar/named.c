/*-------------------------------------------------------------------------
 *
 * named.c
 *	  Which narinfo names a file.
 *
 * The URL of a narinfo of Nix says nothing of its path, so it takes an index
 * to get from a file to its narinfo.  It is over 64 bits made of the cache
 * and the (first) path; what it finds is compared.  It would cost every
 * publish something, so it is made only where it is wanted, by
 * narinfo.index_files() or by hand.
 *
 * The further URLs that Guix's narinfos may have are not in it: their files
 * have the hash part of the path in their names.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "cache/cache.h"
#include "compat.h"
#include "nar/named.h"
#include "nar/removal.h"
#include "nar/root.h"
#include "nar/temp.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(file_key);

#define INDEX_NAME "valid_path_file"

/* Columns of valid_path. */
#define COLUMN_CACHE	1
#define COLUMN_INFO		3

/* ---- what a narinfo names ---- */

/* False when it is damaged. */
static bool
read_narinfo(const struct varlena *info, Narinfo *narinfo)
{
	const uint8 *packed = NARINFO_PACKED(info);
	size_t		packed_len = NARINFO_PACKED_LEN(info);
	ParseError	error;
	size_t		len;
	char	   *text;

	if (!packed_check(packed, packed_len))
		return false;
	len = packed_text_len(packed);
	text = palloc(len + 1);
	return packed_to_text(packed, packed_len, text) &&
		narinfo_parse(text, len, narinfo, &error);
}

static bool
names(Span url, const char *path)
{
	char	   *paths[REMOVAL_NAMES_MAX];
	int			n = removal_names_of_url(url, paths);
	bool		found = false;

	for (int i = 0; i < n; i++)
	{
		found |= strcmp(paths[i], path) == 0;
		pfree(paths[i]);
	}
	return found;
}

/* What is not compressed is the NAR itself. */
static void
describe(NamedFile *file)
{
	const NarExpectation *expect = &file->expect;
	bool		is_nar = strcmp(expect->compression, "none") == 0;

	file->has_size = expect->has_file_size;
	file->size = expect->file_size;
	file->has_hash = expect->has_file_hash;
	file->hash = expect->file_hash;
	if (is_nar && !file->has_size && expect->has_nar_size)
	{
		file->has_size = true;
		file->size = expect->nar_size;
	}
	if (is_nar && !file->has_hash && expect->has_nar_hash)
	{
		file->has_hash = true;
		file->hash = expect->nar_hash;
	}
}

static void
read_file(const Narinfo *narinfo, int number, NamedFile *file)
{
	Span		url = narinfo->urls[number].url;

	file->path = NULL;
	file->url = pnstrdup(url.data, url.len);
	nar_check_expect(narinfo, number, &file->expect);
	describe(file);
}

bool
named_by(const struct varlena *info, const char *path, NamedFile *file)
{
	Narinfo		narinfo;

	if (!read_narinfo(info, &narinfo))
		return false;
	for (int i = 0; i < narinfo.nurls; i++)
	{
		if (!names(narinfo.urls[i].url, path))
			continue;
		read_file(&narinfo, i, file);
		return true;
	}
	return false;
}

List *
named_files(const struct varlena *info)
{
	Narinfo		narinfo;
	List	   *files = NIL;

	if (!read_narinfo(info, &narinfo))
		return NIL;
	for (int i = 0; i < narinfo.nurls; i++)
	{
		char	   *path = nar_url_path(narinfo.urls[i].url);
		NamedFile  *file;

		if (path == NULL)
			continue;
		file = palloc(sizeof(NamedFile));
		read_file(&narinfo, i, file);
		file->path = path;
		files = lappend(files, file);
	}
	return files;
}

bool
named_store_hash(const char *path, uint8 hash[STORE_HASH_LEN])
{
	const char *name = temp_name(path);

	return strlen(name) > STORE_HASH_TEXT_LEN &&
		name[STORE_HASH_TEXT_LEN] == '-' && store_hash_decode(name, hash);
}

/* ---- the index ---- */

static int64
make_key(const char *cache, size_t cache_len, const char *path)
{
	XXH64_hash_t seed = XXH3_64bits(cache, cache_len);

	return (int64) XXH3_64bits_withSeed(path, strlen(path), seed);
}

/*
 * file_key(narinfo, text): what is in the index.  One that is damaged, or
 * names no file below nar/, has the key 0, and no error: a row has to come
 * and go whatever is in it.
 */
Datum
file_key(PG_FUNCTION_ARGS)
{
	struct varlena *info = PG_GETARG_VARLENA_PP(0);
	text	   *cache = PG_GETARG_TEXT_PP(1);
	char	   *paths[REMOVAL_NAMES_MAX];
	Narinfo		narinfo;

	if (!read_narinfo(info, &narinfo) ||
		removal_names_of_url(narinfo.urls[0].url, paths) == 0)
		PG_RETURN_INT64(0);
	PG_RETURN_INT64(make_key(VARDATA_ANY(cache), VARSIZE_ANY_EXHDR(cache),
							 paths[0]));
}

/* The index, open; NULL if there is none that can be used. */
static Relation
open_index(Relation table)
{
	Oid			oid = get_relname_relid(INDEX_NAME,
										RelationGetNamespace(table));
	Relation	index;

	if (!OidIsValid(oid) || get_rel_relkind(oid) != RELKIND_INDEX)
		return NULL;
	index = index_open(oid, AccessShareLock);
	if (index->rd_index->indrelid == RelationGetRelid(table) &&
		index->rd_index->indisvalid && index->rd_opcintype[0] == INT8OID)
		return index;
	index_close(index, AccessShareLock);
	return NULL;
}

/* Is the row in the slot of this cache, and names it this file? */
static bool
is_wanted(TupleTableSlot *slot, const char *cache, const char *path,
		  NamedFile *file)
{
	bool		isnull;
	Datum		datum = slot_getattr(slot, COLUMN_CACHE, &isnull);

	if (strcmp(TextDatumGetCString(datum), cache) != 0)
		return false;
	datum = slot_getattr(slot, COLUMN_INFO, &isnull);
	return named_by(PG_DETOAST_DATUM_PACKED(datum), path, file);
}

static NamedResult
search(Relation table, Relation index, const char *cache, const char *path,
	   NamedFile *file)
{
	NamedResult result = NAMED_ABSENT;
	TupleTableSlot *slot = table_slot_create(table, NULL);
	IndexScanDesc scan = compat_index_beginscan(table, index,
												GetActiveSnapshot(), 1);
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ,
				Int64GetDatum(make_key(cache, strlen(cache), path)));
	index_rescan(scan, &key, 1, NULL, 0);
	while (result == NAMED_ABSENT &&
		   index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_wanted(slot, cache, path, file))
			result = NAMED_FOUND;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return result;
}

NamedResult
named_find(const char *cache, const char *path, NamedFile *file)
{
	const CacheCatalog *catalog = cache_catalog();
	NamedResult result = NAMED_NO_INDEX;
	Relation	table;
	Relation	index;

	if (catalog == NULL)
		return NAMED_ABSENT;
	table = table_open(catalog->valid_path_rel, AccessShareLock);
	index = open_index(table);
	if (index != NULL)
	{
		result = search(table, index, cache, path, file);
		index_close(index, AccessShareLock);
	}
	table_close(table, AccessShareLock);
	return result;
}
