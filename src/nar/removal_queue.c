/*-------------------------------------------------------------------------
 *
 * removal_queue.c
 *	  What leaves valid_path and trash goes into the queue of files.
 *
 * A row trigger that fires always: replication's apply fires no statement
 * triggers, and a mirror has files of its own.  It costs what is removed or
 * replaced, and nothing what is published.  The event log, which has no URLs,
 * could not tell which files a row had that is gone.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "nar/removal.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(removal_queue);

/* Columns of valid_path and of trash; the last is trash's alone. */
#define COLUMN_CACHE	1
#define COLUMN_HASH		2
#define COLUMN_INFO		3

#define PATHS_MAX (REMOVAL_NAMES_MAX * NARINFO_URLS_MAX)

typedef struct QueuedPath
{
	char	   *path;
	int64		bytes;			/* -1: not known */
} QueuedPath;

/* The files that a narinfo names. */
static int
paths_of(Datum info, QueuedPath paths[PATHS_MAX])
{
	size_t		len;
	char	   *text = narinfo_try_text(PG_DETOAST_DATUM_PACKED(info), &len);
	Narinfo		parsed;
	ParseError	error;
	int			n = 0;

	/* damaged: it must be possible to remove it */
	if (text == NULL || !narinfo_parse(text, len, &parsed, &error))
		return 0;
	for (int i = 0; i < parsed.nurls; i++)
	{
		const NarinfoUrl *url = &parsed.urls[i];
		char	   *names[REMOVAL_NAMES_MAX];
		int			nnames = removal_names_of_url(url->url, names);

		for (int j = 0; j < nnames; j++)
		{
			paths[n].path = names[j];
			paths[n++].bytes = url->has_file_size &&
				url->file_size <= PG_INT64_MAX ? (int64) url->file_size : -1;
		}
	}
	return n;
}

static bool
is_among(const char *path, const QueuedPath *paths, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(paths[i].path, path) == 0)
			return true;
	}
	return false;
}

/*
 * The query has no operator that another search_path could mean otherwise.
 */
static SPIPlanPtr
insert_plan(void)
{
	static SPIPlanPtr plan = NULL;
	static Oid	hash_type = InvalidOid;
	Oid			types[] = {
		TEXTOID, TEXTOID, cache_catalog()->store_hash_type, INT8OID,
		TIMESTAMPTZOID
	};

	/* the extension may have been made anew */
	if (plan != NULL && hash_type == types[2])
		return plan;
	if (plan != NULL)
		SPI_freeplan(plan);
	plan = SPI_prepare("INSERT INTO narinfo.file_removal AS q "
					   "(cache, path, hash, bytes, since) "
					   "VALUES ($1, $2, $3, $4, $5) "
					   "ON CONFLICT (cache, path, hash) DO UPDATE SET "
					   "since = GREATEST(q.since, excluded.since), "
					   "bytes = COALESCE(excluded.bytes, q.bytes)",
					   lengthof(types), types);
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare to queue files");
	hash_type = types[2];
	return plan;
}

static void
queue(Datum cache, Datum hash, Datum since, const QueuedPath *paths, int n)
{
	CacheUser	user = cache_become_owner();
	Datum		values[5] = {cache, (Datum) 0, hash, (Datum) 0, since};
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};
	SPIPlanPtr	plan;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	/* an isolation level that others' changes of the queue would fail */
	PushActiveSnapshot(GetLatestSnapshot());
	plan = insert_plan();
	for (int i = 0; i < n; i++)
	{
		values[1] = CStringGetTextDatum(paths[i].path);
		values[3] = Int64GetDatum(paths[i].bytes);
		nulls[3] = paths[i].bytes < 0 ? 'n' : ' ';
		if (SPI_execute_snapshot(plan, values, nulls, GetActiveSnapshot(),
								 InvalidSnapshot, false, false, 0) < 0)
			elog(ERROR, "could not queue a file");
	}
	PopActiveSnapshot();
	SPI_finish();
	cache_become_user(user);
}

/*
 * From when on the grace counts: for what was valid, now; for what was in
 * trash, from when it was put there.
 */
static Datum
since_when(HeapTuple row, TupleDesc desc)
{
	int			column = SPI_fnumber(desc, "removed");
	bool		isnull;

	if (column <= 0)
		return TimestampTzGetDatum(GetCurrentTimestamp());
	return heap_getattr(row, column, desc, &isnull);
}

/* AFTER UPDATE OR DELETE, for each row of valid_path and of trash */
Datum
removal_queue(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	QueuedPath	paths[PATHS_MAX];
	QueuedPath	kept[PATHS_MAX];
	int			npaths;
	int			nkept = 0;
	int			n = 0;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("removal_queue() is a trigger function for rows that go")));
	row = trigger->tg_trigtuple;
	desc = RelationGetDescr(trigger->tg_relation);
	npaths = paths_of(heap_getattr(row, COLUMN_INFO, desc, &isnull), paths);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		nkept = paths_of(heap_getattr(trigger->tg_newtuple, COLUMN_INFO, desc,
									  &isnull), kept);
	for (int i = 0; i < npaths; i++)
	{
		if (!is_among(paths[i].path, kept, nkept) &&
			!is_among(paths[i].path, paths, n))
			paths[n++] = paths[i];
	}
	if (n > 0)
		queue(heap_getattr(row, COLUMN_CACHE, desc, &isnull),
			  heap_getattr(row, COLUMN_HASH, desc, &isnull),
			  since_when(row, desc), paths, n);
	return PointerGetDatum(NULL);
}
