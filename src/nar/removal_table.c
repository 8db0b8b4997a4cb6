/*-------------------------------------------------------------------------
 *
 * removal_table.c
 *	  What a run of the removal of files reads and writes of tables.
 *
 * All of it is done as the owner of the extension, under a search_path of
 * ours, and with the latest snapshot whatever the isolation level.
 *
 * Rows of the queue that somebody else has locked are passed over: he is
 * about to queue the file again.  So we wait for nobody, while those who
 * remove narinfos may wait for one step.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "nar/removal_run.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/event.h"
#include "nar/temp.h"
#include "types/types.h"

#define FETCH 1000				/* rows of a cursor at once */

/*-------------------------------------------------------------------------
 * Queries
 *-------------------------------------------------------------------------
 */

static const char *const plan_settings[] = {
	"enable_seqscan", "enable_hashjoin", "enable_mergejoin"
};

void
removal_access_begin(RemovalAccess *access)
{
	access->user = cache_become_owner();
	access->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	/* a queue of millions may not have been analyzed: each lookup by index */
	for (size_t i = 0; i < lengthof(plan_settings); i++)
		(void) set_config_option(plan_settings[i], "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
								 false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	PushActiveSnapshot(GetLatestSnapshot());
}

void
removal_access_end(const RemovalAccess *access)
{
	PopActiveSnapshot();
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "could not disconnect from SPI");
	AtEOXact_GUC(true, access->guc_level);
	cache_become_user(access->user);
}

void
removal_execute(const char *query, int nargs, Oid *types, Datum *values,
				bool read_only)
{
	SPIPlanPtr	plan = SPI_prepare(query, nargs, types);

	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetActiveSnapshot(),
							 InvalidSnapshot, read_only, true, 0) < 0)
		elog(ERROR, "could not execute \"%s\"", query);
}

static Datum
value_of(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row],
									  SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? (Datum) 0 : value;
}

static Datum
text_array(Datum *texts, int n)
{
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* The name of a cache, which lives as long as the run. */
static const char *
intern(RemovalRun *run, const char *cache)
{
	MemoryContext old;
	ListCell   *cell;
	char	   *name;

	foreach(cell, run->caches)
	{
		if (strcmp(lfirst(cell), cache) == 0)
			return lfirst(cell);
	}
	old = MemoryContextSwitchTo(run->context);
	name = pstrdup(cache);
	run->caches = lappend(run->caches, name);
	MemoryContextSwitchTo(old);
	return name;
}

/*-------------------------------------------------------------------------
 * What is due
 *-------------------------------------------------------------------------
 */

static int
compare_files(const void *a, const void *b)
{
	const DueFile *one = a;
	const DueFile *other = b;
	int			cmp = strcmp(one->cache, other->cache);

	return cmp != 0 ? cmp : strcmp(one->path, other->path);
}

/* Several narinfos may have named one file. */
static void
sort_files(RemovalRun *run, const ItemPointerData *entries)
{
	uint32		n = 0;

	qsort(run->files + 1, run->n, sizeof(DueFile), compare_files);
	for (uint32 i = 1; i <= run->n; i++)
	{
		run->entries[i - 1] = entries[run->files[i].first_entry];
		if (n == 0 || compare_files(&run->files[n], &run->files[i]) != 0)
		{
			run->files[++n] = run->files[i];
			run->files[n].first_entry = i - 1;
			run->files[n].nentries = 0;
		}
		run->files[n].nentries++;
	}
	run->n = n;
}

static void
load_files(RemovalRun *run)
{
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(run->cutoff)};
	ItemPointerData *entries;

	removal_execute("SELECT q.cache, q.path, q.ctid "
					"FROM narinfo.file_removal AS q WHERE q.since <= $1 "
					"ORDER BY q.since LIMIT " CppAsString2(RUN_MAX),
					lengthof(types), types, values, true);
	run->n = (uint32) SPI_processed;
	run->full = SPI_processed == RUN_MAX;
	run->files = MemoryContextAllocZero(run->context,
										sizeof(DueFile) * (run->n + 1));
	run->entries = MemoryContextAlloc(run->context,
									  sizeof(ItemPointerData) * (run->n + 1));
	entries = palloc(sizeof(ItemPointerData) * (run->n + 1));
	for (uint32 i = 0; i < run->n; i++)
	{
		DueFile    *file = &run->files[i + 1];
		char	   *path = TextDatumGetCString(value_of(i, 2));

		file->cache = intern(run, TextDatumGetCString(value_of(i, 1)));
		file->path = MemoryContextStrdup(run->context, path);
		file->first_entry = i;
		entries[i] = *(ItemPointer) DatumGetPointer(value_of(i, 3));
		pfree(path);
	}
	SPI_freetuptable(SPI_tuptable);
	sort_files(run, entries);
	pfree(entries);
}

/*-------------------------------------------------------------------------
 * Who names them
 *-------------------------------------------------------------------------
 */

static void
read_last_events(void)
{
	removal_execute("SELECT e.cache, e.seq FROM narinfo.last_events() AS e",
					0, NULL, NULL, true);
}

static SeenEvent *
seen_event(RemovalRun *run, const char *cache)
{
	MemoryContext old;
	ListCell   *cell;
	SeenEvent  *seen;

	cache = intern(run, cache);
	foreach(cell, run->seen)
	{
		seen = lfirst(cell);
		if (seen->cache == cache)
			return seen;
	}
	old = MemoryContextSwitchTo(run->context);
	seen = palloc0(sizeof(SeenEvent));
	seen->cache = cache;
	run->seen = lappend(run->seen, seen);
	MemoryContextSwitchTo(old);
	return seen;
}

static void
strike_holder(void *arg, const char *cache, const uint8 *hash,
			  const struct varlena *info, bool valid)
{
	RemovalRun *run = arg;

	(void) hash;
	(void) valid;
	due_names_strike(run->names, cache, info);
}

bool
removal_load(RemovalRun *run)
{
	RemovalAccess access;

	removal_access_begin(&access);
	load_files(run);
	if (run->n > 0)
	{
		run->names = due_names_build(run->files, run->n, run->context);
		read_last_events();
		for (uint64 i = 0; i < SPI_processed; i++)
			seen_event(run, TextDatumGetCString(value_of(i, 1)))->seq =
				DatumGetInt64(value_of(i, 2));
		removal_visit_holders(strike_holder, run);
	}
	removal_access_end(&access);
	return run->n > 0;
}

/* What was published behind one number, up to another, and is valid. */
static void
strike_published(RemovalRun *run, SeenEvent *seen, int64 last)
{
	Oid			types[] = {TEXTOID, INT8OID, INT8OID};
	Datum		values[] = {
		CStringGetTextDatum(seen->cache), Int64GetDatum(seen->seq),
		Int64GetDatum(last)
	};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "narinfo published",
												  ALLOCSET_DEFAULT_SIZES);
	Portal		cursor =
	SPI_cursor_open_with_args(NULL, "SELECT v.info FROM ("
							  "SELECT DISTINCT hash FROM narinfo.event "
							  "WHERE cache = $1 AND seq > $2 AND seq <= $3 "
							  "AND kind IN ('publish', 'replace')) AS e "
							  "JOIN narinfo.valid_path AS v "
							  "ON v.cache = $1 "
							  "AND v.hash OPERATOR(narinfo.=) e.hash",
							  lengthof(types), types, values, NULL, true, 0);

	do
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(cursor, true, FETCH);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(context);

			due_names_strike(run->names, seen->cache,
							 PG_DETOAST_DATUM_PACKED(value_of(i, 1)));
			MemoryContextSwitchTo(old);
			MemoryContextReset(context);
		}
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(cursor);
	MemoryContextDelete(context);
	seen->seq = last;
}

/* Nothing is known of what the events were that are not kept any more. */
static void
spare_all(RemovalRun *run)
{
	for (uint32 i = 1; i <= run->n; i++)
	{
		if (run->files[i].state == REMOVAL_WAITING ||
			run->files[i].state == REMOVAL_HIDDEN)
			run->files[i].state = REMOVAL_LATER;
	}
}

static void
look_at_events(RemovalRun *run)
{
	SPITupleTable *rows;
	uint64		n;

	read_last_events();
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		char	   *cache = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);
		int64		last = DatumGetInt64(SPI_getbinval(rows->vals[i],
													   rows->tupdesc, 2,
													   &isnull));
		SeenEvent  *seen = seen_event(run, cache);

		if (last == seen->seq)
			continue;
		if (last < seen->seq || event_first_seq(cache) > seen->seq + 1)
			spare_all(run);
		else
			strike_published(run, seen, last);
	}
	SPI_freetuptable(rows);
}

/*-------------------------------------------------------------------------
 * Who has queued them again
 *-------------------------------------------------------------------------
 */

/*
 * It was named in between, or is by a path whose narinfo went later.
 */
static void
look_at_queue(RemovalRun *run, uint32 first, uint32 end)
{
	Oid			types[] = {TEXTARRAYOID, TEXTARRAYOID};
	Datum		values[2];
	Datum	   *caches = palloc(sizeof(Datum) * (end - first));
	Datum	   *paths = palloc(sizeof(Datum) * (end - first));

	for (uint32 i = first; i < end; i++)
	{
		caches[i - first] = CStringGetTextDatum(run->files[i].cache);
		paths[i - first] = CStringGetTextDatum(run->files[i].path);
	}
	values[0] = text_array(caches, (int) (end - first));
	values[1] = text_array(paths, (int) (end - first));
	removal_execute("SELECT u.n, (SELECT max(q.since) "
					"FROM narinfo.file_removal AS q "
					"WHERE q.cache = u.cache AND q.path = u.path) "
					"FROM unnest($1, $2) WITH ORDINALITY AS u (cache, path, n)",
					lengthof(types), types, values, true);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		uint32		number = (uint32) DatumGetInt64(value_of(i, 1)) - 1;
		DueFile    *file = &run->files[first + number];
		TimestampTz since = DatumGetTimestampTz(value_of(i, 2));

		if (since <= run->cutoff || (file->state != REMOVAL_WAITING &&
									 file->state != REMOVAL_HIDDEN))
			continue;
		file->state = REMOVAL_LATER;
		file->later = since;
	}
	SPI_freetuptable(SPI_tuptable);
}

void
removal_look_at_queue(RemovalRun *run, uint32 first, uint32 end)
{
	RemovalAccess access;

	removal_access_begin(&access);
	look_at_queue(run, first, end);
	removal_access_end(&access);
}

void
removal_look_again(RemovalRun *run, uint32 first, uint32 end)
{
	RemovalAccess access;

	removal_access_begin(&access);
	look_at_events(run);
	look_at_queue(run, first, end);
	removal_access_end(&access);
}

char *
removal_writers(RemovalRun *run, const char *among)
{
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {OIDOID, OIDOID, TEXTOID};
	Datum		values[3];
	RemovalAccess access;
	char	   *writers;

	(void) run;
	removal_access_begin(&access);
	values[0] = ObjectIdGetDatum(MyDatabaseId);
	values[1] = ObjectIdGetDatum(cache_catalog()->valid_path_rel);
	values[2] = CStringGetTextDatum(among ? among : "");
	removal_execute("SELECT string_agg(DISTINCT l.virtualtransaction, ' ') "
			"FROM pg_locks AS l WHERE l.locktype = 'relation' "
			"AND l.database = $1 AND l.relation = $2 "
			"AND l.mode = 'RowExclusiveLock' AND l.granted "
			"AND l.pid <> pg_backend_pid() AND ($3 = '' OR "
			"l.virtualtransaction = ANY (string_to_array($3, ' ')))",
			lengthof(types), types, values, true);
	writers = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (writers != NULL)
		writers = MemoryContextStrdup(context, writers);
	removal_access_end(&access);
	return writers;
}

/*-------------------------------------------------------------------------
 * What became of them
 *-------------------------------------------------------------------------
 */

/* Those of the files whose state is one of these (a bit each). */
#define STATE(state) (1U << (state))

/* The entries of a file that was loaded, as a tid[]'s elements. */
static int
take_entries(RemovalRun *run, const DueFile *file, Datum *tids, int n)
{
	for (uint32 i = 0; i < file->nentries; i++)
		tids[n++] = PointerGetDatum(&run->entries[file->first_entry + i]);
	return n;
}

static Datum
tid_array(Datum *tids, int n)
{
	return PointerGetDatum(construct_array(tids, n, TIDOID,
										   sizeof(ItemPointerData), false,
										   TYPALIGN_SHORT));
}

/*
 * $1 are entries as they were loaded, which are no more what was changed
 * since; $2 is the time before which they are due.
 */
#define ENTRIES "ctid = ANY (ARRAY(SELECT q.ctid " \
	"FROM narinfo.file_removal AS q WHERE q.ctid = ANY ($1) " \
	"AND q.since <= $2 FOR UPDATE SKIP LOCKED))"

/* Their entries go; and the listings of paths that are gone for good. */
static void
forget_files(RemovalRun *run, uint32 first, uint32 end)
{
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZOID};
	Datum		values[2];
	Datum	   *tids;
	int			n = 0;
	uint32		max = 0;

	for (uint32 i = first; i < end; i++)
		max += run->files[i].nentries;
	tids = palloc(sizeof(Datum) * (max + 1));
	for (uint32 i = first; i < end; i++)
	{
		if (STATE(run->files[i].state) &
			(STATE(REMOVAL_NAMED) | STATE(REMOVAL_REMOVED) |
			 STATE(REMOVAL_ABSENT)))
			n = take_entries(run, &run->files[i], tids, n);
	}
	if (n == 0)
		return;
	values[0] = tid_array(tids, n);
	values[1] = TimestampTzGetDatum(run->cutoff);
	removal_execute("WITH gone AS (DELETE FROM narinfo.file_removal "
					"WHERE " ENTRIES " RETURNING cache, hash) "
					"SELECT g.cache, g.hash FROM gone AS g "
					"WHERE g.hash IS NOT NULL AND NOT EXISTS ("
					"SELECT FROM narinfo.valid_path AS v "
					"WHERE v.cache = g.cache "
					"AND v.hash OPERATOR(narinfo.=) g.hash) AND NOT EXISTS ("
					"SELECT FROM narinfo.trash AS t WHERE t.cache = g.cache "
					"AND t.hash OPERATOR(narinfo.=) g.hash)",
					lengthof(types), types, values, false);
	for (uint64 i = 0; i < SPI_processed; i++)
		removal_unlink_listing(TextDatumGetCString(value_of(i, 1)),
							   DatumGetStoreHash(value_of(i, 2)),
							   run->cutoff);
	SPI_freetuptable(SPI_tuptable);
}

/* From when on the grace counts of a file that stays in the queue. */
static bool
counts_from(const DueFile *file, TimestampTz *since)
{
	switch ((RemovalState) file->state)
	{
		case REMOVAL_YOUNG:
			*since = file->modified;
			return true;
		case REMOVAL_LATER:
			*since = file->later;
			return file->later != 0;
		case REMOVAL_NAMED_ELSEWHERE:
		case REMOVAL_TROUBLE:
			*since = GetCurrentTimestamp();
			return true;
		default:
			return false;
	}
}

/* Those that stay, though no narinfo of their own names them. */
static void
postpone_files(RemovalRun *run, uint32 first, uint32 end)
{
	Oid			types[] = {TIDARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID};

	for (uint32 i = first; i < end; i++)
	{
		const DueFile *file = &run->files[i];
		Datum	   *tids;
		Datum		values[3];
		TimestampTz since;

		if (!counts_from(file, &since))
			continue;
		tids = palloc(sizeof(Datum) * file->nentries);
		values[0] = tid_array(tids, take_entries(run, file, tids, 0));
		values[1] = TimestampTzGetDatum(run->cutoff);
		values[2] = TimestampTzGetDatum(since);
		removal_execute("UPDATE narinfo.file_removal SET since = $3 "
						"WHERE " ENTRIES, lengthof(types), types, values,
						false);
	}
}

typedef struct Figures
{
	const char *cache;
	int64		files;
	int64		bytes;
	int64		kept;
	int64		absent;
} Figures;

static void
add_figures(const Figures *figures)
{
	Oid			types[] = {TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID};
	Datum		values[] = {
		CStringGetTextDatum(figures->cache), Int64GetDatum(figures->files),
		Int64GetDatum(figures->bytes), Int64GetDatum(figures->kept),
		Int64GetDatum(figures->absent)
	};

	removal_execute("INSERT INTO narinfo.file_removed AS r "
			"(cache, files, bytes, kept, absent, last) "
			"VALUES ($1, $2, $3, $4, $5, clock_timestamp()) "
			"ON CONFLICT (cache) DO UPDATE SET files = r.files + $2, "
			"bytes = r.bytes + $3, kept = r.kept + $4, "
			"absent = r.absent + $5, last = excluded.last",
			lengthof(types), types, values, false);
}

static void
count_file(Figures *figures, const DueFile *file)
{
	switch ((RemovalState) file->state)
	{
		case REMOVAL_REMOVED:
			figures->files++;
			figures->bytes += file->bytes;
			break;
		case REMOVAL_ABSENT:
			figures->absent++;
			break;
		case REMOVAL_NAMED:
		case REMOVAL_NAMED_ELSEWHERE:
		case REMOVAL_YOUNG:
			figures->kept++;
			break;
		case REMOVAL_WAITING:
		case REMOVAL_HIDDEN:
		case REMOVAL_LATER:
		case REMOVAL_TROUBLE:
			break;
	}
}

/* The files are in the order of their caches. */
static void
count_files(RemovalRun *run, uint32 first, uint32 end)
{
	Figures		figures = {0};

	for (uint32 i = first; i < end; i++)
	{
		const DueFile *file = &run->files[i];

		if (figures.cache != file->cache)
		{
			if (figures.cache != NULL)
				add_figures(&figures);
			memset(&figures, 0, sizeof(figures));
			figures.cache = file->cache;
		}
		count_file(&figures, file);
		if (file->state == REMOVAL_REMOVED)
		{
			run->removed++;
			run->removed_bytes += file->bytes;
		}
	}
	if (figures.cache != NULL)
		add_figures(&figures);
}

void
removal_settle(RemovalRun *run, uint32 first, uint32 end)
{
	RemovalAccess access;

	removal_access_begin(&access);
	forget_files(run, first, end);
	postpone_files(run, first, end);
	count_files(run, first, end);
	removal_access_end(&access);
}

/*-------------------------------------------------------------------------
 * Trash
 *-------------------------------------------------------------------------
 */

uint64
removal_empty_trash(TimestampTz before, int max)
{
	Oid			types[] = {TIMESTAMPTZOID, INT4OID};
	Datum		values[] = {TimestampTzGetDatum(before), Int32GetDatum(max)};
	RemovalAccess access;
	uint64		n;

	removal_access_begin(&access);
	removal_execute("DELETE FROM narinfo.trash WHERE ctid = ANY (ARRAY("
			"SELECT t.ctid FROM narinfo.trash AS t WHERE t.removed <= $1 "
			"ORDER BY t.removed LIMIT $2 FOR UPDATE SKIP LOCKED))",
			lengthof(types), types, values, false);
	n = SPI_processed;
	removal_access_end(&access);
	return n;
}
