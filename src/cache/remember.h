/*-------------------------------------------------------------------------
 *
 * remember.h
 *	  A small table of schema narinfo that each process reads at once, and
 *	  keeps until it changes.
 *
 * A trigger on the table (cache_changed) says by an invalidation of its
 * relcache entry that it has changed.  Invalidations are sent when the change
 * commits, and reach hot standbys too.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_REMEMBER_H
#define NARINFO_CACHE_REMEMBER_H

#include "postgres.h"

#include "executor/tuptable.h"

/* The caller fills in the first three; the rest is zero at first. */
typedef struct Remembered
{
	const char *table;
	void		(*start) (MemoryContext context);	/* there are no rows */
	void		(*read_row) (TupleTableSlot *slot, MemoryContext context);
	MemoryContext context;		/* of what these make; reset before "start" */
	Oid			rel;
	bool		valid;
	bool		registered;
	uint64		generation;		/* how often they were read */
} Remembered;

/*
 * Reads the rows unless they are known.  In a transaction; raises
 * ERRCODE_UNDEFINED_TABLE.  What was read stays until the next call.
 */
extern void remember_rows(Remembered *rows);

#endif							/* NARINFO_CACHE_REMEMBER_H */
