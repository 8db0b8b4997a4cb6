/*-------------------------------------------------------------------------
 *
 * pressure_room.c
 *	  Making room for write-ahead log: what nobody needs any more is given back
 *	  without delay, and in the end slots are dropped.
 *
 * A slot's restart_lsn moves only with records of running transactions, which
 * PostgreSQL writes every 15 seconds, and not at all while nothing is written;
 * and segments go at a checkpoint.  So a mirror that has caught up would hold
 * up publishing for minutes: under pressure both are asked for here.
 *
 * A slot is dropped in two steps, since no transaction takes that back:
 *
 *	  site_link.dropped says why; commit; then the slot goes
 *
 * and a site that was marked and still has its slot, as after a crash, loses
 * it in the next turn.  The row stays, so that the site is told.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/bgwriter.h"
#include "storage/standby.h"
#include "utils/timestamp.h"

#include "sites/local.h"
#include "sites/pressure.h"

#define PAUSE_MIN	2000		/* ms between checkpoints that we ask for */
#define PAUSE_MAX	300000

/* A slot stays that would not give back this part of the limits. */
#define LEAST_PART	8

/* There may be slots to drop of sites that are marked. */
static bool unfinished = true;

/*-------------------------------------------------------------------------
 * What nobody needs
 *-------------------------------------------------------------------------
 */

/*
 * When the last checkpoint has not given anything back, as when an archiver
 * has to come first, the next one comes later.
 */
static void
ask_for_checkpoint(const PressureMeasure *measure)
{
	static TimestampTz next = 0;
	static int	pause = PAUSE_MIN;
	static uint64 last = 0;

	if (measure->removable < 2 * (uint64) wal_segment_size)
	{
		pause = PAUSE_MIN;
		last = 0;
		return;
	}
	if (measure->at < next)
		return;
	pause = last != 0 && measure->removable >= last ?
		Min(pause * 2, PAUSE_MAX) : PAUSE_MIN;
	last = measure->removable;
	next = TimestampTzPlusMilliseconds(measure->at, pause);
	RequestCheckpoint(CHECKPOINT_FORCE | CHECKPOINT_IMMEDIATE);
}

void
pressure_give_back(const PressureMeasure *measure)
{
	if (measure->active &&
		measure->retained > measure->behind + wal_segment_size)
		(void) LogStandbySnapshot();
	ask_for_checkpoint(measure);
}

/*-------------------------------------------------------------------------
 * Slots
 *-------------------------------------------------------------------------
 */

static char *
least_gain(void)
{
	int			limit = pressure_reserve > 0 ? pressure_reserve :
	pressure_max_retained;
	uint64		least = ((uint64) limit << 20) / LEAST_PART;

	return psprintf(UINT64_FORMAT, Max(least, (uint64) wal_segment_size));
}

/* One site more is marked. */
static bool
mark(bool voters, const char *situation)
{
	const char *params[] = {
		voters ? "true" : "false", least_gain(), situation
	};

	if (local_sql("SELECT m.site, m.slot, m.retained, "
				  "pg_size_pretty(m.retained) FROM narinfo.site_mark_dropped("
				  "$1::boolean, $2::bigint, $3) AS m", 3, params) == 0)
		return false;
	ereport(WARNING,
			(errmsg("slot \"%s\" of site \"%s\", which %s, is dropped",
					local_value(0, 1), local_value(0, 0),
					voters ? "may have a vote" : "has no vote"),
			 errdetail("It keeps %s (%s bytes): %s.", local_value(0, 3),
					   local_value(0, 2), situation),
			 errhint("There: CALL narinfo.repoint() with its conninfo of this site, or, if that finds events gone, CALL narinfo.join_site().")));
	return true;
}

bool
pressure_drop_slot(const char *situation)
{
	bool		marked = false;

	if (pressure_drops == PRESSURE_DROPS_NONE || !local_begin())
		return false;
	marked = mark(false, situation) ||
		(pressure_drops == PRESSURE_DROPS_ALL && mark(true, situation));
	local_end();
	if (!marked)
		return false;
	unfinished = true;
	pressure_finish_drops();
	/* so that the next look finds whether that was enough */
	RequestCheckpoint(CHECKPOINT_FORCE | CHECKPOINT_IMMEDIATE |
					  CHECKPOINT_WAIT);
	return true;
}

void
pressure_finish_drops(void)
{
	if (!unfinished || !local_begin())
		return;
	unfinished = !local_is("SELECT narinfo.site_drop_marked()", 0, NULL);
	local_end();
}
