/*-------------------------------------------------------------------------
 *
 * referrer_run.c
 *	  Runs of the reverse index: writing, merging and reading their pages.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "cache/referrer.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "cache/cache.h"
#include "types/types.h"

#define PAGE_VERSION	1
#define PAGE_MAX		7900	/* bytes: a row fills a block */
#define GROUP_HEADER	(STORE_HASH_LEN + 2)

/* Rows fetched at once of each run that is merged. */
#define FETCH 16

static void
execute(const char *query, int nargs, Oid *types, Datum *values, int expected)
{
	MemoryContext old = CurrentMemoryContext;
	int			result = SPI_execute_with_args(query, nargs, types, values,
											   NULL, false, 0);

	MemoryContextSwitchTo(old);
	if (result != expected)
		elog(ERROR, "\"%s\" failed: %s", query,
			 SPI_result_code_string(result));
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

struct RunWriter
{
	Datum		cache;
	int64		run;
	int			level;
	int64		edges;
	int32		part;			/* pages written so far */
	SPIPlanPtr	insert;
	Edge		last;
	uint8	   *group;			/* open group in the page; NULL: none */
	size_t		len;			/* of the page */
	union
	{
		struct varlena header;
		uint8		bytes[VARHDRSZ + PAGE_MAX];
	}			page;
};

static uint8 *
page_bytes(RunWriter *writer)
{
	return writer->page.bytes + VARHDRSZ;
}

RunWriter *
run_writer_begin(const char *cache, int level)
{
	RunWriter  *writer = palloc0(sizeof(RunWriter));
	Oid			types[] = {
		TEXTOID, INT8OID, cache_catalog()->store_hash_type, INT4OID, BYTEAOID
	};
	Oid			max_types[] = {TEXTOID};
	bool		isnull;

	writer->cache = CStringGetTextDatum(cache);
	writer->level = level;
	execute("SELECT coalesce(max(run), 0) + 1 FROM narinfo.referrer_run "
			"WHERE cache = $1", 1, max_types, &writer->cache, SPI_OK_SELECT);
	writer->run = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));
	SPI_freetuptable(SPI_tuptable);
	writer->insert = SPI_prepare("INSERT INTO narinfo.referrer_page "
								 "(cache, run, first, part, data) "
								 "VALUES ($1, $2, $3, $4, $5)",
								 lengthof(types), types);
	if (writer->insert == NULL)
		elog(ERROR, "could not prepare to insert pages");
	return writer;
}

static void
flush_page(RunWriter *writer)
{
	MemoryContext old = CurrentMemoryContext;
	Datum		values[5];
	int			result;

	if (writer->len == 0)
		return;
	SET_VARSIZE(&writer->page.header, VARHDRSZ + writer->len);
	values[0] = writer->cache;
	values[1] = Int64GetDatum(writer->run);
	values[2] = PointerGetDatum(page_bytes(writer) + 1);
	values[3] = Int32GetDatum(writer->part++);
	values[4] = PointerGetDatum(&writer->page.header);
	result = SPI_execute_plan(writer->insert, values, NULL, false, 0);
	MemoryContextSwitchTo(old);
	if (result != SPI_OK_INSERT)
		elog(ERROR, "could not insert a page");
	writer->len = 0;
	writer->group = NULL;
}

void
run_writer_add(RunWriter *writer, const Edge *edge)
{
	bool		same_group;
	uint16		n = 0;

	if (writer->edges > 0 && memcmp(edge, &writer->last, sizeof(Edge)) == 0)
		return;
	same_group = writer->group != NULL &&
		memcmp(writer->group, edge->ref, STORE_HASH_LEN) == 0;
	if (writer->len + STORE_HASH_LEN + (same_group ? 0 : GROUP_HEADER) >
		PAGE_MAX)
	{
		flush_page(writer);
		same_group = false;
	}
	if (writer->len == 0)
		page_bytes(writer)[writer->len++] = PAGE_VERSION;
	if (!same_group)
	{
		writer->group = page_bytes(writer) + writer->len;
		memcpy(writer->group, edge->ref, STORE_HASH_LEN);
		writer->len += GROUP_HEADER;
	}
	else
		n = (uint16) (writer->group[STORE_HASH_LEN] |
					  writer->group[STORE_HASH_LEN + 1] << 8);
	n++;
	writer->group[STORE_HASH_LEN] = (uint8) n;
	writer->group[STORE_HASH_LEN + 1] = (uint8) (n >> 8);
	memcpy(page_bytes(writer) + writer->len, edge->referrer, STORE_HASH_LEN);
	writer->len += STORE_HASH_LEN;
	writer->last = *edge;
	writer->edges++;
}

void
run_writer_end(RunWriter *writer)
{
	Oid			types[] = {TEXTOID, INT8OID, INT4OID, INT8OID};
	Datum		values[] = {
		writer->cache, Int64GetDatum(writer->run),
		Int32GetDatum(writer->level), Int64GetDatum(writer->edges)
	};

	flush_page(writer);
	if (writer->edges > 0)
		execute("INSERT INTO narinfo.referrer_run (cache, run, level, edges) "
				"VALUES ($1, $2, $3, $4)", lengthof(types), types, values,
				SPI_OK_INSERT);
	SPI_freeplan(writer->insert);
	pfree(writer);
}

/*-------------------------------------------------------------------------
 * Pages
 *-------------------------------------------------------------------------
 */

/* Where one is in a page. */
typedef struct PagePosition
{
	const uint8 *next;
	const uint8 *end;
	const uint8 *ref;			/* of the group at hand */
	uint32		left;			/* referrers of it */
} PagePosition;

static void
page_open(PagePosition *position, const uint8 *page, size_t len)
{
	if (len < 1 || page[0] != PAGE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged page of the reverse index"),
				 errhint("CALL narinfo.rebuild_referrers() makes it anew.")));
	position->next = page + 1;
	position->end = page + len;
	position->left = 0;
}

/* The referrers of the group at hand are skipped. */
static bool
page_next_group(PagePosition *position)
{
	position->next += (size_t) position->left * STORE_HASH_LEN;
	if (position->end - position->next < GROUP_HEADER)
		return false;
	position->ref = position->next;
	position->left = position->next[STORE_HASH_LEN] |
		(uint32) position->next[STORE_HASH_LEN + 1] << 8;
	position->next += GROUP_HEADER;
	position->left = Min(position->left,
						 (uint32) ((position->end - position->next) /
								   STORE_HASH_LEN));
	return true;
}

static const uint8 *
page_next_referrer(PagePosition *position)
{
	const uint8 *referrer = position->next;

	position->next += STORE_HASH_LEN;
	position->left--;
	return referrer;
}

void
page_visit(const uint8 *page, size_t len, const uint8 *ref, PageVisitor visit,
		   void *arg)
{
	PagePosition position;

	page_open(&position, page, len);
	while (page_next_group(&position))
	{
		int			cmp = memcmp(position.ref, ref, STORE_HASH_LEN);

		if (cmp > 0)
			break;
		while (cmp == 0 && position.left > 0)
			visit(arg, page_next_referrer(&position));
	}
}

/*-------------------------------------------------------------------------
 * Merging
 *-------------------------------------------------------------------------
 */

typedef struct RunReader
{
	Portal		cursor;
	SPITupleTable *rows;
	uint64		nrows;
	uint64		row;			/* the next one */
	PagePosition position;
	Edge		edge;			/* the one at hand */
	bool		done;
} RunReader;

static bool
next_page(RunReader *reader)
{
	bool		isnull;
	bytea	   *page;

	if (reader->row == reader->nrows)
	{
		if (reader->rows)
			SPI_freetuptable(reader->rows);
		SPI_cursor_fetch(reader->cursor, true, FETCH);
		reader->rows = SPI_tuptable;
		reader->nrows = SPI_processed;
		reader->row = 0;
		if (reader->nrows == 0)
			return false;
	}
	page = DatumGetByteaPP(SPI_getbinval(reader->rows->vals[reader->row++],
										 reader->rows->tupdesc, 1, &isnull));
	page_open(&reader->position, (const uint8 *) VARDATA_ANY(page),
			  VARSIZE_ANY_EXHDR(page));
	return true;
}

static void
next_edge(RunReader *reader)
{
	while (reader->position.left == 0)
	{
		if (reader->position.next != NULL &&
			page_next_group(&reader->position))
			memcpy(reader->edge.ref, reader->position.ref, STORE_HASH_LEN);
		else if (!next_page(reader))
		{
			reader->done = true;
			return;
		}
	}
	memcpy(reader->edge.referrer, page_next_referrer(&reader->position),
		   STORE_HASH_LEN);
}

static void
open_run(RunReader *reader, Datum cache, int64 run)
{
	Oid			types[] = {TEXTOID, INT8OID};
	Datum		values[] = {cache, Int64GetDatum(run)};

	memset(reader, 0, sizeof(RunReader));
	reader->cursor =
		SPI_cursor_open_with_args(NULL,
								  "SELECT data FROM narinfo.referrer_page "
								  "WHERE cache = $1 AND run = $2 "
								  "ORDER BY cache, run, first, part",
								  lengthof(types), types, values, NULL, false,
								  0);
	next_edge(reader);
}

static void
delete_run(Datum cache, int64 run)
{
	Oid			types[] = {TEXTOID, INT8OID};
	Datum		values[] = {cache, Int64GetDatum(run)};

	execute("DELETE FROM narinfo.referrer_page "
			"WHERE cache = $1 AND run = $2", 2, types, values, SPI_OK_DELETE);
	execute("DELETE FROM narinfo.referrer_run "
			"WHERE cache = $1 AND run = $2", 2, types, values, SPI_OK_DELETE);
}

static void
merge_runs(const char *cache, int level, const int64 *runs, int n)
{
	Datum		name = CStringGetTextDatum(cache);
	RunReader  *readers = palloc(sizeof(RunReader) * n);
	RunWriter  *writer = run_writer_begin(cache, level + 1);

	for (int i = 0; i < n; i++)
		open_run(&readers[i], name, runs[i]);
	for (;;)
	{
		RunReader  *least = NULL;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
		{
			if (!readers[i].done &&
				(least == NULL || memcmp(&readers[i].edge, &least->edge,
										 sizeof(Edge)) < 0))
				least = &readers[i];
		}
		if (least == NULL)
			break;
		run_writer_add(writer, &least->edge);
		next_edge(least);
	}
	for (int i = 0; i < n; i++)
	{
		SPI_cursor_close(readers[i].cursor);
		delete_run(name, runs[i]);
	}
	run_writer_end(writer);
	pfree(readers);
}

void
run_merge(const char *cache)
{
	Oid			types[] = {TEXTOID};
	Datum		values[] = {CStringGetTextDatum(cache)};

	for (;;)
	{
		int64	   *runs;
		int			n;
		int			level = 0;

		execute("SELECT run, level FROM narinfo.referrer_run WHERE cache = $1 "
				"AND level = (SELECT min(level) FROM (SELECT level "
				"FROM narinfo.referrer_run WHERE cache = $1 GROUP BY level "
				"HAVING count(*) >= " CppAsString2(REFERRER_FANOUT) ") AS l)",
				lengthof(types), types, values, SPI_OK_SELECT);
		n = (int) SPI_processed;
		if (n == 0)
			break;
		runs = palloc(sizeof(int64) * n);
		for (int i = 0; i < n; i++)
		{
			bool		isnull;
			HeapTuple	row = SPI_tuptable->vals[i];

			runs[i] = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc,
												  1, &isnull));
			level = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc,
												2, &isnull));
		}
		SPI_freetuptable(SPI_tuptable);
		merge_runs(cache, level, runs, n);
		pfree(runs);
	}
	SPI_freetuptable(SPI_tuptable);
}
