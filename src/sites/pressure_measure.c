/*-------------------------------------------------------------------------
 *
 * pressure_measure.c
 *	  How much write-ahead log is kept, for whom, and how much more there is
 *	  room for.
 *
 *	  pg_wal, by number of segment:
 *
 *		  restart_lsn of a slot				  position
 *			   |								 |
 *	  [removable] [ kept for slots, or by settings ] [ to be filled ]
 *
 * What is to be filled is space that is there already: PostgreSQL renames old
 * segments to new ones, up to max_wal_size, instead of removing them.
 *
 * No transaction is needed: slots are read where they are, in shared memory,
 * and those of mirrors are told from others by their names.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/statvfs.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/lwlock.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "sites/local.h"
#include "sites/pressure.h"

const char *
pressure_site(const char *slot)
{
	return slot + strlen(SITE_SLOT_PREFIX);
}

/*-------------------------------------------------------------------------
 * Slots
 *-------------------------------------------------------------------------
 */

/* What we want to know of a slot, copied. */
typedef struct Slot
{
	NameData	name;
	Oid			database;
	XLogRecPtr	restart;
	XLogRecPtr	confirmed;
	bool		active;
} Slot;

static bool
read_slot(ReplicationSlot *slot, Slot *copy)
{
	if (!slot->in_use)
		return false;
	SpinLockAcquire(&slot->mutex);
	copy->name = slot->data.name;
	copy->database = slot->data.database;
	copy->restart = slot->data.restart_lsn;
	copy->confirmed = slot->data.confirmed_flush;
	copy->active = slot->active_pid != 0;
	SpinLockRelease(&slot->mutex);
	return copy->restart != InvalidXLogRecPtr;
}

static bool
is_of_mirror(const Slot *slot)
{
	return slot->database == MyDatabaseId &&
		strncmp(NameStr(slot->name), SITE_SLOT_PREFIX,
				strlen(SITE_SLOT_PREFIX)) == 0;
}

static uint64
distance(XLogRecPtr from, XLogRecPtr to)
{
	return from < to ? to - from : 0;
}

/*
 * Is it for this slot, rather than for the worst one so far?  Segments count,
 * since these are what is kept; restart_lsn of a mirror that follows moves now
 * and then only, so of those that need the same one it is who is away.
 */
static bool
is_worse(const PressureMeasure *measure, const Slot *slot)
{
	XLogSegNo	segment;
	XLogSegNo	worst;

	if (measure->mirrors == 0)
		return true;
	XLByteToSeg(slot->restart, segment, wal_segment_size);
	XLByteToSeg(measure->position - measure->retained, worst,
				wal_segment_size);
	if (segment != worst)
		return segment < worst;
	if (slot->active != measure->active)
		return !slot->active;
	return distance(slot->confirmed, measure->position) > measure->behind;
}

static void
take_slot(PressureMeasure *measure, const Slot *slot)
{
	uint64		retained = distance(slot->restart, measure->position);

	if (is_of_mirror(slot))
	{
		bool		worse = is_worse(measure, slot);

		measure->mirrors++;
		if (!worse)
			return;
		strlcpy(measure->slot, NameStr(slot->name), NAMEDATALEN);
		measure->retained = retained;
		measure->behind = distance(slot->confirmed, measure->position);
		measure->active = slot->active;
	}
	else if (retained > measure->other_retained)
	{
		strlcpy(measure->other_slot, NameStr(slot->name), NAMEDATALEN);
		measure->other_retained = retained;
	}
}

static void
measure_slots(PressureMeasure *measure)
{
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		Slot		slot;

		if (read_slot(&ReplicationSlotCtl->replication_slots[i], &slot))
			take_slot(measure, &slot);
	}
	LWLockRelease(ReplicationSlotControlLock);
}

/*-------------------------------------------------------------------------
 * Files
 *-------------------------------------------------------------------------
 */

/* The first segment that anybody needs. */
static XLogSegNo
first_needed(const PressureMeasure *measure)
{
	uint64		kept = Max(Max(measure->retained, measure->other_retained),
						   (uint64) wal_keep_size_mb * 1024 * 1024);
	XLogSegNo	segment;

	XLByteToSeg(distance(kept, measure->position), segment,
				wal_segment_size);
	return segment;
}

static void
measure_files(PressureMeasure *measure)
{
	XLogSegNo	needed = first_needed(measure);
	XLogSegNo	here;
	DIR		   *directory = AllocateDir(XLOGDIR);
	struct dirent *entry;

	XLByteToSeg(measure->position, here, wal_segment_size);
	while ((entry = ReadDir(directory, XLOGDIR)) != NULL)
	{
		TimeLineID	timeline;
		XLogSegNo	segment;

		if (!IsXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &timeline, &segment,
						 wal_segment_size);
		if (segment > here)
			measure->free += wal_segment_size;
		else if (segment < needed)
			measure->removable += wal_segment_size;
	}
	FreeDir(directory);
}

/* pg_wal may be a symbolic link: it is followed. */
static void
measure_disk(PressureMeasure *measure)
{
	struct statvfs fs;

	if (statvfs(XLOGDIR, &fs) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not tell the free space of \"%s\": %m",
						XLOGDIR)));
	measure->free = (uint64) fs.f_bavail * fs.f_frsize;
}

void
pressure_measure(PressureMeasure *measure)
{
	memset(measure, 0, sizeof(PressureMeasure));
	measure->at = GetCurrentTimestamp();
	measure->position = GetXLogInsertRecPtr();
	measure_slots(measure);
	measure_disk(measure);
	measure_files(measure);
}
