/*-------------------------------------------------------------------------
 *
 * offered.h
 *	  What the paths that the transaction at hand publishes are like, taken
 *	  together: gathered while their statements have them at hand, so that
 *	  the gate need not read each row again while it has the cache's lock.
 *
 * It is of all that was offered, what a savepoint took back or a later
 * statement removed included.  So it can show that all is well, and never
 * that something is wrong: for that the rows have to be read (rules.c).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_OFFERED_H
#define NARINFO_CACHE_OFFERED_H

#include "postgres.h"

#include "cache/hashset.h"

typedef struct Offered
{
	struct Offered *next;
	uint32		cache;			/* see change_cache() */
	hashset_hash *refs;			/* all that they refer to, but themselves */
	char		store_dir[STORE_DIR_MAX + 1];	/* of the first */
	bool		mixed;			/* another one has another, or is damaged */
	int			signatures;		/* each has at least so many that count, by */
	uint64		keys;			/* these keys, see key_generation() */
} Offered;

/* One more; "context" is where it is kept as long as the transaction. */
extern void offered_add(MemoryContext context, uint32 cache,
						const struct varlena *info);

/* NULL: nothing was. */
extern const Offered *offered_find(uint32 cache);

/* What has been gathered so far has been judged, or went with its context. */
extern void offered_forget(void);

#endif							/* NARINFO_CACHE_OFFERED_H */
