/*-------------------------------------------------------------------------
 *
 * watermark.h
 *	  Up to which event enough other sites have everything of a cache.
 *
 * For caches with visible_copies: the primary finds the number out, and it
 * stands in its row of site_cache, which every site is told.  It never
 * decreases within an epoch.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_WATERMARK_H
#define NARINFO_SITES_WATERMARK_H

#include "postgres.h"

#include "sites/copies.h"

#define WATERMARK_NONE (-1)		/* nothing is to be hidden */

/* Of a cache, as the active snapshot has it. */
extern int64 watermark_of(const char *cache);

/*
 * So many other sites have the cache's events up to this one: if they are
 * enough, that is the new watermark.  At the primary, in a transaction.
 */
extern void watermark_note(const char *cache, int64 seq, int copies);

/*
 * The same by looking at each cache: what the worker of sites does at the
 * primary; in a transaction of local.h, which it commits.  Returns ms until
 * it is to do so again, -1 if no cache needs it.
 */
extern long watermark_turn(void);

#endif							/* NARINFO_SITES_WATERMARK_H */
