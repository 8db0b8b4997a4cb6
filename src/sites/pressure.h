/*-------------------------------------------------------------------------
 *
 * pressure.h
 *	  What is done when mirrors have more write-ahead log kept than there is
 *	  room for: delay, refuse, drop slots; see pressure.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_PRESSURE_H
#define NARINFO_SITES_PRESSURE_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "datatype/timestamp.h"

/* In the order in which they are taken, each in addition to those before. */
typedef enum PressureLevel
{
	PRESSURE_NONE,
	PRESSURE_DELAY,
	PRESSURE_REFUSE,
	PRESSURE_DROP
} PressureLevel;

/* ms from one measurement to the next. */
#define PRESSURE_INTERVAL 1000

/*
 * For the worker of sites, every PRESSURE_INTERVAL, outside of a transaction:
 * measures, and does what that asks for.  "context" is the caller's to reset.
 */
extern void pressure_turn(MemoryContext context);

/*
 * Begins a delay: how many ms the caller, who has nothing locked, should wait
 * before it publishes.  Such a process sets pressure_waits_itself, and is not
 * delayed within its transactions.
 */
extern int	pressure_begin_delay(void);
extern bool pressure_waits_itself;

/*
 * Why nothing is published now, palloc'd, or NULL; counted as a refusal.  And
 * after how many seconds one may try again; 0: nothing is refused.
 */
extern char *pressure_refusal(void);
extern int	pressure_retry_after(void);

/* ---- among the parts of this room: settings and shared memory ---- */

extern void pressure_init(void);
extern Size pressure_shmem_size(void);
extern void pressure_shmem_init(bool found);

extern int	pressure_reserve;	/* GUC pg_narinfo.wal_reserve, MB */
extern int	pressure_max_retained;	/* GUC pg_narinfo.max_retained_wal, MB */

typedef enum PressureDrops
{
	PRESSURE_DROPS_NONE,
	PRESSURE_DROPS_NON_VOTERS,
	PRESSURE_DROPS_ALL
} PressureDrops;

extern int	pressure_drops;		/* GUC pg_narinfo.drop_slots */

/* ---- pressure_measure.c ---- */

/* Sizes in bytes. */
typedef struct PressureMeasure
{
	TimestampTz at;
	XLogRecPtr	position;		/* where write-ahead log is written */
	uint64		free;			/* that it can take: on the file system, and
								 * files that wait to be filled */
	uint64		removable;		/* that a checkpoint can give back */

	/* of the mirrors of this site: the one that has the most kept */
	int			mirrors;		/* slots of theirs */
	char		slot[NAMEDATALEN];
	uint64		retained;
	uint64		behind;			/* what it has not confirmed */
	bool		active;

	/* and of all other slots */
	char		other_slot[NAMEDATALEN];
	uint64		other_retained;
} PressureMeasure;

extern void pressure_measure(PressureMeasure *measure);

/* The site whose slot is called so. */
extern const char *pressure_site(const char *slot);

/* ---- pressure_room.c ---- */

/*
 * Has what nobody needs any more given back.
 */
extern void pressure_give_back(const PressureMeasure *measure);

/*
 * Drops a slot, if one may go and that would give back something; whether it
 * has.  "situation" says why, and stands in the log and in site_link.
 */
extern bool pressure_drop_slot(const char *situation);

/* Goes on with what that could not finish. */
extern void pressure_finish_drops(void);

#endif							/* NARINFO_SITES_PRESSURE_H */
