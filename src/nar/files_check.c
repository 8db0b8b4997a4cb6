/*-------------------------------------------------------------------------
 *
 * files_check.c
 *	  check_files(cache), and stored_size(path, cache); see files_check.h.
 *
 * The first walk comes before the snapshot, so a file whose narinfo the
 * snapshot has may only be missed if it came in between: what seems to be
 * missing is looked for once more.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "cache/progress.h"
#include "nar/files_check.h"
#include "nar/removal_run.h"
#include "types/operators.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(check_files);
PG_FUNCTION_INFO_V1(stored_size);

#define LOCK_CLASS 0x4e43		/* see gate_lock_cache() */

#define REPORT_EACH 1000		/* things looked at, between reports */

static const char *const kind_labels[] = {
	[FILE_UNREFERENCED] = "unreferenced",
	[FILE_MISSING] = "missing",
	[FILE_SIZE] = "size"
};

typedef struct Checking
{
	CacheInfo	cache;
	FileTable  *table;
	SPIPlanPtr	insert;
	MemoryContext row_context;
	ProgressPhase phase;
	int64		done;			/* in this phase */
	int64		total;			/* 0: not known */
	int64		narinfos;
	int64		problems;
} Checking;

/* One row of file_problem. */
typedef struct Problem
{
	FileProblemKind kind;
	const uint8 *hash;			/* NULL: none */
	const char *path;
	int64		bytes;			/* -1: there is no file */
	int64		expected;		/* -1: nothing is */
	const struct stat *st;		/* NULL: not known */
} Problem;

/*-------------------------------------------------------------------------
 * Results
 *-------------------------------------------------------------------------
 */

static void
report(Checking *check)
{
	progress_report(check->phase, check->done, check->total, check->narinfos,
					0, check->problems);
}

static void
count(Checking *check)
{
	if (++check->done % REPORT_EACH == 0)
		report(check);
}

static void
begin_phase(Checking *check, ProgressPhase phase, int64 total)
{
	check->phase = phase;
	check->done = 0;
	check->total = total;
	report(check);
}

/*
 * The name of a file that is no text in this encoding is shown with escapes;
 * no narinfo can name it.
 */
static Datum
printable(const char *path)
{
	StringInfoData escaped;

	if (pg_verifymbstr(path, (int) strlen(path), true))
		return CStringGetTextDatum(path);
	initStringInfo(&escaped);
	for (const char *c = path; *c != '\0'; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			appendStringInfo(&escaped, "%%%02X", (unsigned char) *c);
		else
			appendStringInfoChar(&escaped, *c);
	}
	return CStringGetTextDatum(escaped.data);
}

/* What is queued for its removal already is no problem. */
static void
add_problem(Checking *check, const Problem *problem)
{
	Oid			types[] = {
		TEXTOID, TEXTOID, cache_catalog()->store_hash_type, TEXTOID, INT8OID,
		INT8OID, FLOAT8OID
	};
	MemoryContext old = MemoryContextSwitchTo(check->row_context);
	Datum		values[] = {
		CStringGetTextDatum(check->cache.name),
		CStringGetTextDatum(kind_labels[problem->kind]),
		PointerGetDatum(problem->hash), printable(problem->path),
		Int64GetDatum(problem->bytes), Int64GetDatum(problem->expected),
		Float8GetDatum(problem->st ? (double) problem->st->st_mtime : 0)
	};
	char		nulls[] = {
		' ', ' ', problem->hash ? ' ' : 'n', ' ',
		problem->bytes < 0 ? 'n' : ' ', problem->expected < 0 ? 'n' : ' ',
		problem->st ? ' ' : 'n', '\0'
	};

	if (check->insert == NULL)
		check->insert =
			SPI_prepare("INSERT INTO narinfo.file_problem "
						"(cache, kind, hash, path, bytes, expected, "
						"modified, found) "
						"SELECT $1, $2::narinfo.file_problem_kind, "
						"$3, $4, $5, $6, to_timestamp($7), clock_timestamp() "
						"WHERE $2 <> 'unreferenced' OR NOT EXISTS ("
						"SELECT FROM narinfo.file_removal AS q "
						"WHERE q.cache = $1 AND q.path = $4)",
						lengthof(types), types);
	if (check->insert == NULL ||
		SPI_execute_plan(check->insert, values, nulls, false,
						 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write into narinfo.file_problem");
	check->problems += (int64) SPI_processed;
	MemoryContextSwitchTo(old);
	MemoryContextReset(check->row_context);
}

/*-------------------------------------------------------------------------
 * Files
 *-------------------------------------------------------------------------
 */

static void
add_file(void *arg, const char *path, const struct stat *st)
{
	Checking   *check = arg;

	(void) file_table_add(check->table, path, (int64) st->st_size);
	count(check);
}

/* One that came after the first walk is somebody's who is about to publish. */
static void
look_at_file(void *arg, const char *path, const struct stat *st)
{
	Checking   *check = arg;
	FileEntry  *entry = file_table_find(check->table, path);
	Problem		problem = {
		.kind = FILE_UNREFERENCED, .path = path,
		.bytes = (int64) st->st_size, .expected = -1, .st = st
	};

	count(check);
	if (entry != NULL && !entry->named)
		add_problem(check, &problem);
}

/*-------------------------------------------------------------------------
 * Narinfos
 *-------------------------------------------------------------------------
 */

/* Is the path of another cache the same file as that of this cache? */
static bool
is_shared(const Checking *check, const char *cache, const char *path)
{
	struct stat ours;
	struct stat theirs;

	return removal_stat(check->cache.name, path, &ours) &&
		removal_stat(cache, path, &theirs) &&
		ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/* One URL of a valid path of this cache; "names" are where its file may be. */
static void
check_url(Checking *check, const uint8 *hash, const NarinfoUrl *url,
		  char **names, int n)
{
	Problem		problem = {
		.kind = FILE_MISSING, .hash = hash, .bytes = -1,
		.path = n > 0 ? names[0] : pnstrdup(url->url.data, url->url.len),
		.expected = url->has_file_size && url->file_size <= PG_INT64_MAX ?
		(int64) url->file_size : -1
	};

	for (int i = 0; i < n && problem.bytes < 0; i++)
	{
		FileEntry  *entry = file_table_find(check->table, names[i]);

		problem.bytes = entry ? entry->bytes :
			files_size(check->cache.name, names[i]);
		if (problem.bytes >= 0)
			problem.path = names[i];
	}
	if (problem.bytes >= 0)
	{
		if (problem.expected < 0 || problem.bytes == problem.expected)
			return;
		problem.kind = FILE_SIZE;
	}
	add_problem(check, &problem);
}

static void
look_at_holder(void *arg, const char *cache, const uint8 *hash,
			   const struct varlena *info, bool valid)
{
	Checking   *check = arg;
	bool		ours = strcmp(cache, check->cache.name) == 0;
	Span		text = removal_text_of(info);
	Narinfo		parsed;
	ParseError	error;

	count(check);
	if (!narinfo_parse(text.data, text.len, &parsed, &error))
		return;
	for (int i = 0; i < parsed.nurls; i++)
	{
		char	   *names[REMOVAL_NAMES_MAX];
		int			n = removal_names_of_url(parsed.urls[i].url, names);

		for (int j = 0; j < n; j++)
		{
			FileEntry  *entry = file_table_find(check->table, names[j]);

			if (entry != NULL && !entry->named &&
				(ours || is_shared(check, cache, names[j])))
				entry->named = true;
		}
		if (ours && valid)
			check_url(check, hash, &parsed.urls[i], names, n);
	}
	check->narinfos += ours && valid;
}

/*-------------------------------------------------------------------------
 * All together
 *-------------------------------------------------------------------------
 */

/* One check of a cache at a time: its results take the place of the last. */
static void
lock_check(const char *cache)
{
	uint64		hash = hash_bytes_xxh3(cache, strlen(cache), 0);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static void
forget_problems(const char *cache)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(cache)};

	removal_execute("DELETE FROM narinfo.file_problem WHERE cache = $1", 1,
					types, values, false);
}

static void
run_check(Checking *check)
{
	RemovalAccess access;

	begin_phase(check, PROGRESS_FILES, 0);
	files_walk(check->cache.name, add_file, check);
	removal_access_begin(&access);
	forget_problems(check->cache.name);
	begin_phase(check, PROGRESS_NARINFOS, 0);
	removal_visit_holders(look_at_holder, check);
	begin_phase(check, PROGRESS_FILES,
				(int64) file_table_count(check->table));
	files_walk(check->cache.name, look_at_file, check);
	removal_access_end(&access);
}

static void
require_root(void)
{
	if (!removal_root_ready())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_narinfo.file_root is not set, or empty, or not there")));
}

/* check_files(cache text) -> bigint */
Datum
check_files(PG_FUNCTION_ARGS)
{
	Checking	check = {0};
	MemoryContext context;

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(0)), &check.cache);
	require_root();
	lock_check(check.cache.name);
	context = AllocSetContextCreate(CurrentMemoryContext,
									"narinfo check of files",
									ALLOCSET_DEFAULT_SIZES);
	check.table = file_table_create(context);
	check.row_context = AllocSetContextCreate(context, "narinfo problem",
											  ALLOCSET_DEFAULT_SIZES);
	progress_start(PROGRESS_CHECK_FILES, cache_catalog()->valid_path_rel);
	run_check(&check);
	progress_end();
	MemoryContextDelete(context);
	PG_RETURN_INT64(check.problems);
}

/* stored_size(path text, cache text) -> bigint */
Datum
stored_size(PG_FUNCTION_ARGS)
{
	CacheInfo	cache;
	int64		bytes;

	cache_require(text_to_cstring(PG_GETARG_TEXT_PP(1)), &cache);
	require_root();
	bytes = files_size(cache.name, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (bytes < 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(bytes);
}
