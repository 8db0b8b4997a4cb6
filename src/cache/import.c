/*-------------------------------------------------------------------------
 *
 * import.c
 *	  CALL import_cache(directory, cache).
 *
 *	  1. Reading: every file of the directory, in the order the system gives
 *		 them, except those whose path is valid already.  Good narinfos are
 *		 kept in the graph's temporary file, bad ones become rows of
 *		 import_error.
 *	  2. What is referred to and has no file is looked up in the cache.
 *	  3. Writing: references before referrers, in batches that each commit and
 *		 leave whole closures only.
 *
 * Killed at any point, it is called again and goes on: what has been
 * committed is valid, and is not even read again.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/import.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "cache/progress.h"
#include "cache/transfer.h"

PG_FUNCTION_INFO_V1(import_cache);

/*
 * Rows a transaction.  Larger ones are no faster, and hold up what is
 * replicated behind them.
 */
#define BATCH 1000

typedef struct Import
{
	MemoryContext context;		/* for the whole import */
	MemoryContext batch_context;	/* for one batch */
	char	   *directory_name;
	CacheInfo	cache;
	ImportDirectory *directory;
	ImportGraph *graph;

	/* rows that wait to be inserted, in batch_context */
	Datum	   *hashes;
	Datum	   *infos;
	int			nrows;
	int			max_rows;
	Datum	   *errors[4];		/* file, line, field, message */
	bool	   *error_nulls[4];
	int			nerrors;
	int			max_errors;

	SPIPlanPtr	find_plan;
	SPIPlanPtr	insert_plan;
	SPIPlanPtr	error_plan;

	int64		files;			/* seen */
	int64		unchanged;		/* valid before */
	int64		left_out;
	int64		kept;			/* read and good */
	int64		written;		/* of those, visited */
	int64		imported;		/* of those, inserted */
} Import;

/*-------------------------------------------------------------------------
 * Rows
 *-------------------------------------------------------------------------
 */

static void
prepare_plans(Import *import)
{
	const CacheCatalog *catalog = cache_catalog();
	Oid			find_types[] = {TEXTOID, catalog->store_hash_array_type};
	Oid			insert_types[] = {
		TEXTOID, catalog->store_hash_array_type, catalog->narinfo_array_type
	};
	Oid			error_types[] = {
		TEXTOID, TEXTOID, TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID,
		TEXTARRAYOID
	};

	import->find_plan = transfer_prepare(
				"SELECT hash FROM narinfo.valid_path "
				"WHERE cache = $1 AND hash OPERATOR(narinfo.=) ANY ($2)",
				lengthof(find_types), find_types);
	import->insert_plan = transfer_prepare(
				"INSERT INTO narinfo.valid_path (cache, hash, info) "
				"SELECT $1, t.hash, t.info "
				"FROM ROWS FROM (pg_catalog.unnest($2), "
				"pg_catalog.unnest($3)) AS t (hash, info) "
				"ORDER BY t.hash USING OPERATOR(narinfo.<) "
				"ON CONFLICT DO NOTHING",
				lengthof(insert_types), insert_types);
	import->error_plan = transfer_prepare(
				"INSERT INTO narinfo.import_error "
				"(cache, directory, file, line, field, message) "
				"SELECT $1, $2, t.* "
				"FROM ROWS FROM (pg_catalog.unnest($3), "
				"pg_catalog.unnest($4), pg_catalog.unnest($5), "
				"pg_catalog.unnest($6)) AS t",
				lengthof(error_types), error_types);
}

static Datum
store_hash_array(Datum *hashes, int n)
{
	Oid			type = cache_catalog()->store_hash_type;

	return PointerGetDatum(construct_array(hashes, n, type, STORE_HASH_LEN,
										   false, TYPALIGN_CHAR));
}

static void
insert_rows(Import *import)
{
	Datum		values[3];

	if (import->nrows == 0)
		return;
	values[0] = CStringGetTextDatum(import->cache.name);
	values[1] = store_hash_array(import->hashes, import->nrows);
	values[2] = PointerGetDatum(construct_array(import->infos, import->nrows,
												cache_catalog()->narinfo_type,
												-1, false, TYPALIGN_INT));
	transfer_execute(import->insert_plan, values, false);
	import->imported += SPI_processed;
}

static Datum
error_array(Import *import, int column, Oid type)
{
	int			dims = import->nerrors;
	int			lower = 1;

	return PointerGetDatum(construct_md_array(import->errors[column],
											  import->error_nulls[column],
											  1, &dims, &lower, type,
											  type == INT4OID ? 4 : -1,
											  type == INT4OID, TYPALIGN_INT));
}

static void
insert_errors(Import *import)
{
	Datum		values[6];
	CacheUser	user;

	if (import->nerrors == 0)
		return;
	values[0] = CStringGetTextDatum(import->cache.name);
	values[1] = CStringGetTextDatum(import->directory_name);
	values[2] = error_array(import, 0, TEXTOID);
	values[3] = error_array(import, 1, INT4OID);
	values[4] = error_array(import, 2, TEXTOID);
	values[5] = error_array(import, 3, TEXTOID);
	user = cache_become_owner();
	transfer_execute(import->error_plan, values, false);
	cache_become_user(user);
}

/* Empty the arrays of rows; their memory went with the batch's context. */
static void
begin_batch(Import *import)
{
	MemoryContextReset(import->batch_context);
	import->nrows = import->max_rows = 0;
	import->hashes = import->infos = NULL;
	import->nerrors = import->max_errors = 0;
}

/* Insert what waits, commit, and say how far we are. */
static void
end_batch(Import *import, ProgressPhase phase)
{
	MemoryContext old = MemoryContextSwitchTo(import->batch_context);

	insert_rows(import);
	insert_errors(import);
	MemoryContextSwitchTo(old);
	SPI_commit();
	begin_batch(import);
	if (phase == PROGRESS_READING)
		progress_report(phase, import->files, 0, 0, import->unchanged,
						import->left_out);
	else
		progress_report(phase, import->written, import->kept,
						import->imported, import->unchanged,
						import->left_out);
	CHECK_FOR_INTERRUPTS();
}

/* Both take what was palloc'd in the batch's context. */

static void
add_row(Import *import, const uint8 *hash, struct varlena *info)
{
	if (import->nrows == import->max_rows)
	{
		Size		size;

		import->max_rows = import->max_rows ? import->max_rows * 2 : BATCH;
		size = sizeof(Datum) * (Size) import->max_rows;
		import->hashes = import->hashes ?
			repalloc(import->hashes, size) : palloc(size);
		import->infos = import->infos ?
			repalloc(import->infos, size) : palloc(size);
	}
	import->hashes[import->nrows] = PointerGetDatum(hash);
	import->infos[import->nrows++] = PointerGetDatum(info);
}

static void
add_error(Import *import, char *file, const ParseError *error)
{
	int			n = import->nerrors;

	if (n == import->max_errors)
	{
		import->max_errors = n ? n * 2 : BATCH;
		for (int i = 0; i < 4; i++)
		{
			Size		size = sizeof(Datum) * (Size) import->max_errors;

			import->errors[i] = n ? repalloc(import->errors[i], size) :
				palloc(size);
			import->error_nulls[i] = n ?
				repalloc(import->error_nulls[i], size) : palloc(size);
		}
	}
	/* a name may be any bytes, what is stored is text */
	if (!pg_verifymbstr(file, (int) strlen(file), true))
	{
		for (char *c = file; *c; c++)
			*c = IS_HIGHBIT_SET(*c) ? '?' : *c;
	}
	import->errors[0][n] = CStringGetTextDatum(file);
	import->errors[1][n] = Int32GetDatum((int32) error->line);
	import->errors[2][n] = CStringGetTextDatum(error->field);
	import->errors[3][n] = CStringGetTextDatum(error->message);
	import->error_nulls[0][n] = false;
	import->error_nulls[1][n] = error->line == 0;
	import->error_nulls[2][n] = error->field[0] == '\0';
	import->error_nulls[3][n] = false;
	import->nerrors++;
	import->left_out++;
}

/*-------------------------------------------------------------------------
 * Reading
 *-------------------------------------------------------------------------
 */

/* Mark those of these nodes that are valid in the cache. */
static void
mark_valid(Import *import, Datum *hashes, int n)
{
	Datum		values[2];

	if (n == 0)
		return;
	values[0] = CStringGetTextDatum(import->cache.name);
	values[1] = store_hash_array(hashes, n);
	transfer_execute(import->find_plan, values, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		Datum		hash = SPI_getbinval(SPI_tuptable->vals[i],
										 SPI_tuptable->tupdesc, 1, &isnull);

		import_graph_node(import->graph, DatumGetStoreHash(hash))->state =
			IMPORT_VALID;
	}
	SPI_freetuptable(SPI_tuptable);
}

/* guix publish has the same narinfo once a compression. */
static bool
is_same(Import *import, const ImportNode *node, const struct varlena *info)
{
	struct varlena *first = import_graph_get(import->graph, node);

	return VARSIZE(first) == VARSIZE(info) &&
		memcmp(first, info, VARSIZE(info)) == 0;
}

static void
read_one(Import *import, const ImportFile *file)
{
	ParseError	error;
	ImportNode *node = NULL;
	struct varlena *info;

	if (file->good_name)
	{
		node = import_graph_node(import->graph, file->hash);
		if (node->state == IMPORT_VALID)
		{
			import->unchanged++;
			return;
		}
	}
	info = import_read(import->directory, file, import->cache.store_dir,
					   &error);
	if (info == NULL)
	{
		add_error(import, import_file_path(file), &error);
		/* a good file of the same path may have been there before */
		if (node && node->state == IMPORT_UNKNOWN)
			node->state = IMPORT_LEFT_OUT;
	}
	else if (node->state != IMPORT_READ)
	{
		import_graph_add(import->graph, node, info);
		node->layout = (uint8) file->layout;
		import->kept++;
	}
	else if (!is_same(import, node, info))
	{
		parse_error(&error, "another file has another narinfo of this path");
		add_error(import, import_file_path(file), &error);
	}
}

/* A few files: look up which are valid already, then read the others. */
static bool
read_some(Import *import)
{
	ImportFile	files[BATCH];
	Datum		hashes[BATCH];
	int			nfiles = 0;
	int			nhashes = 0;
	MemoryContext old = MemoryContextSwitchTo(import->batch_context);

	while (nfiles < BATCH && import_next(import->directory, &files[nfiles]))
	{
		if (files[nfiles].good_name)
			hashes[nhashes++] = PointerGetDatum(files[nfiles].hash);
		nfiles++;
	}
	mark_valid(import, hashes, nhashes);
	for (int i = 0; i < nfiles; i++)
	{
		CHECK_FOR_INTERRUPTS();
		import->files++;
		read_one(import, &files[i]);
	}
	MemoryContextSwitchTo(old);
	end_batch(import, PROGRESS_READING);
	return nfiles == BATCH;
}

/* References without a file: in the cache, or nowhere. */
static void
find_references(Import *import)
{
	ImportCursor *cursor = import_graph_scan(import->graph);
	ImportNode *nodes[BATCH];
	Datum		hashes[BATCH];
	int			n;

	do
	{
		MemoryContext old;

		n = 0;
		while (n < BATCH &&
			   (nodes[n] = import_graph_scan_next(cursor,
												  IMPORT_UNKNOWN)) != NULL)
		{
			hashes[n] = PointerGetDatum(nodes[n]->hash);
			n++;
		}
		old = MemoryContextSwitchTo(import->batch_context);
		mark_valid(import, hashes, n);
		MemoryContextSwitchTo(old);
		for (int i = 0; i < n; i++)
		{
			if (nodes[i]->state == IMPORT_UNKNOWN)
				nodes[i]->state = IMPORT_NOWHERE;
		}
		end_batch(import, PROGRESS_READING);
	} while (n == BATCH);
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

/* Which reference is to blame, and on which line it stands. */
static void
describe_bad(Import *import, const struct varlena *info, ParseError *error)
{
	const ImportNode *blame = import_graph_blame(import->graph, info);
	char		hash[STORE_HASH_TEXT_LEN];
	size_t		len;
	char	   *text = narinfo_to_text(info, &len);
	Narinfo		parsed;
	ParseError	ignored;

	if (blame == NULL)
		parse_error(error,
					"it is in a circle of references with a path that is left out");
	else
	{
		store_hash_encode(blame->hash, hash);
		parse_error(error, blame->state == IMPORT_NOWHERE ?
					"reference %.*s is neither in the cache nor in the directory" :
					"reference %.*s is left out", STORE_HASH_TEXT_LEN, hash);
	}
	if (narinfo_parse(text, len, &parsed, &ignored))
		error->line = parsed.refs_line;
	strlcpy(error->field, "References", sizeof(error->field));
}

static void
leave_out(Import *import, ImportNode *node)
{
	struct varlena *info = import_graph_get(import->graph, node);
	ParseError	error;

	describe_bad(import, info, &error);
	add_error(import, import_path_of(node->layout, info), &error);
}

static void
visit(void *arg, ImportNode **component, int n, bool bad)
{
	Import	   *import = arg;
	MemoryContext old = MemoryContextSwitchTo(import->batch_context);

	for (int i = 0; i < n; i++)
	{
		if (bad)
			leave_out(import, component[i]);
		else
			add_row(import, component[i]->hash,
					import_graph_get(import->graph, component[i]));
		import->written++;
	}
	/* only now, that each is blamed on what lies outside */
	for (int i = 0; i < n; i++)
		component[i]->state = bad ? IMPORT_LEFT_OUT : IMPORT_VALID;
	MemoryContextSwitchTo(old);
	if (import->nrows + import->nerrors >= BATCH)
		end_batch(import, PROGRESS_WRITING);
}

/*-------------------------------------------------------------------------
 * The procedure
 *-------------------------------------------------------------------------
 */

static void
forget_errors(Import *import)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	CacheUser	user;

	values[0] = CStringGetTextDatum(import->cache.name);
	values[1] = CStringGetTextDatum(import->directory_name);
	user = cache_become_owner();
	if (SPI_execute_with_args("DELETE FROM narinfo.import_error "
							  "WHERE cache = $1 AND directory = $2",
							  lengthof(types), types, values, NULL, false,
							  0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete the errors of the last import");
	cache_become_user(user);
}

static void
run_import(Import *import)
{
	prepare_plans(import);
	forget_errors(import);
	cache_ensure_row(import->cache.name);
	end_batch(import, PROGRESS_READING);

	while (read_some(import))
		;
	find_references(import);
	import_graph_walk(import->graph, import->cache.require_closure, visit,
					  import);
	end_batch(import, PROGRESS_WRITING);

	SPI_freeplan(import->find_plan);
	SPI_freeplan(import->insert_plan);
	SPI_freeplan(import->error_plan);
}

Datum
import_cache(PG_FUNCTION_ARGS)
{
	Import		import = {0};
	TransferArguments arguments;

	transfer_begin(fcinfo, "import_cache", ROLE_PG_READ_SERVER_FILES,
				   true, &arguments);
	import.context = arguments.context;
	import.batch_context = AllocSetContextCreate(import.context,
												 "narinfo import batch",
												 ALLOCSET_DEFAULT_SIZES);
	import.directory_name = arguments.directory;
	import.cache = arguments.cache;
	import.directory = import_open(arguments.directory, import.context);
	import.graph = import_graph_create(import.context);
	progress_start(PROGRESS_IMPORT, cache_catalog()->valid_path_rel);

	run_import(&import);

	progress_end();
	ereport(NOTICE,
			(errmsg("imported " INT64_FORMAT " narinfos into cache \"%s\", "
					INT64_FORMAT " were valid before, " INT64_FORMAT
					" files left out",
					import.imported, import.cache.name, import.unchanged,
					import.left_out),
			 import.left_out > 0 ?
			 errhint("See narinfo.import_error for why.") : 0));
	transfer_end(&arguments);
	PG_RETURN_VOID();
}
