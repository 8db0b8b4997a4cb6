/*-------------------------------------------------------------------------
 *
 * watermark.c
 *	  Up to which event enough other sites have everything of a cache.
 *
 * Whenever a cache has events beyond its watermark, its last one is taken as
 * the next goal, with its position in the log (copies.h).  When enough sites
 * have confirmed that, it is the watermark, and the next goal is taken.  So it
 * follows publishing that never rests, one confirmation behind.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/watermark.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "cache/node.h"
#include "sites/local.h"

#define GOAL_PAUSE	50			/* ms, while a goal is not reached */
#define IDLE_PAUSE	100			/* ms, while there is none */

#define GOALS_MAX	64			/* further caches take turns */

/* Of this process; what is reached, or of no cache, is seq 0. */
static CopiesTarget goals[GOALS_MAX];

/*-------------------------------------------------------------------------
 * Reading
 *-------------------------------------------------------------------------
 */

/*
 * With the owner's rights, in the snapshot at hand.  False if there is no
 * row, or NULL.
 */
static bool
ask_number(SPIPlanPtr *plan, const char *query, const char *cache,
		   int64 *number)
{
	CacheUser	user = cache_become_owner();
	Oid			type = TEXTOID;
	Datum		name = CStringGetTextDatum(cache);
	bool		isnull = true;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (*plan == NULL)
	{
		*plan = SPI_prepare(query, 1, &type);
		if (*plan == NULL || SPI_keepplan(*plan) != 0)
			elog(ERROR, "could not prepare \"%s\"", query);
	}
	if (SPI_execute_plan(*plan, &name, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not execute \"%s\"", query);
	if (SPI_processed > 0)
		*number = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
											  SPI_tuptable->tupdesc, 1,
											  &isnull));
	SPI_finish();
	cache_become_user(user);
	return !isnull;
}

int64
watermark_of(const char *cache)
{
	static SPIPlanPtr plan = NULL;
	int64		seq = 0;

	return ask_number(&plan, "SELECT narinfo.site_watermark($1)", cache,
					  &seq) ? seq : WATERMARK_NONE;
}

/*-------------------------------------------------------------------------
 * Writing
 *-------------------------------------------------------------------------
 */

void
watermark_note(const char *cache, int64 seq, int copies)
{
	CacheInfo	info;
	CacheUser	user;
	Oid			types[] = {TEXTOID, INT8OID};
	Datum		values[] = {CStringGetTextDatum(cache), Int64GetDatum(seq)};

	if (!cache_get(cache, &info) || info.visible_copies == 0 ||
		copies < info.visible_copies || node_state() != NODE_PRIMARY)
		return;
	user = cache_become_owner();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args("SELECT narinfo.site_advance($1, $2)", 2, types,
							  values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not advance a watermark");
	SPI_finish();
	cache_become_user(user);
}

/*-------------------------------------------------------------------------
 * The worker's turn
 *-------------------------------------------------------------------------
 */

/* The goal of a cache, or a free one; NULL if there is no room. */
static CopiesTarget *
find_goal(const char *cache)
{
	CopiesTarget *free = NULL;

	for (int i = 0; i < GOALS_MAX; i++)
	{
		if (goals[i].seq == 0)
			free = &goals[i];
		else if (strcmp(goals[i].cache, cache) == 0)
			return &goals[i];
	}
	return free;
}

/* Whether there is something to wait for. */
static bool
follow(const char *cache, int64 watermark)
{
	CopiesTarget *goal = find_goal(cache);
	int			voters;

	if (goal == NULL)
		return true;
	PushActiveSnapshot(GetLatestSnapshot());
	if (goal->seq <= watermark)
		copies_find(cache, 0, goal);
	if (goal->seq > watermark)
	{
		watermark_note(cache, goal->seq, copies_count(goal, &voters));
		PopActiveSnapshot();
		return true;
	}
	PopActiveSnapshot();
	goal->seq = 0;
	return false;
}

/* As of a new primary, which takes up what the last one had told. */
static uint64
ask_caches(void)
{
	local_sql("SELECT narinfo.site_begin_watermarks()", 0, NULL);
	return local_sql("SELECT c.cache, c.watermark "
					 "FROM narinfo.site_cache AS c "
					 "JOIN narinfo.cache AS k ON k.name = c.cache "
					 "WHERE c.site = narinfo.site_name() "
					 "AND k.visible_copies > 0 "
					 "AND c.watermark IS NOT NULL", 0, NULL);
}

long
watermark_turn(void)
{
	uint64		n;
	char	  **names;
	int64	   *watermarks;
	bool		waits = false;

	if (node_state() != NODE_PRIMARY)
	{
		memset(goals, 0, sizeof(goals));
		return -1;
	}
	n = ask_caches();
	names = palloc(sizeof(char *) * (n + 1));
	watermarks = palloc(sizeof(int64) * (n + 1));
	for (uint64 i = 0; i < n; i++)
	{
		names[i] = local_value(i, 0);
		watermarks[i] = pg_strtoint64(local_value(i, 1));
	}
	for (uint64 i = 0; i < n; i++)
	{
		waits |= follow(names[i], watermarks[i]);
		local_commit();
	}
	if (n == 0)
		return -1;
	return waits ? GOAL_PAUSE : IDLE_PAUSE;
}
