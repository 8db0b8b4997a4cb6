/*-------------------------------------------------------------------------
 *
 * referrer.h
 *	  Who refers to a path: the reverse index of each cache.
 *
 * It is this site's own, follows the event log in batches (the janitor calls
 * referrer_follow) and need not be complete: readers look at the events that
 * it has not seen as well, and at each path they find.  So it holds all edges
 * of what is valid and was published up to one number, and perhaps more that
 * are gone; neither replacing nor removing a path touches it.
 *
 * Edges come in batches and are kept as sorted runs in pages, a row of
 * narinfo.referrer_page each, because a row an edge would cost several times
 * the load itself.  When REFERRER_FANOUT runs of one level are there, they
 * become one of the next.  A page:
 *
 *	 bytes
 *	   1	version, 1
 *	 then groups, in the order of the paths referred to:
 *	  20	store hash referred to
 *	   2	number of referrers n, little-endian
 *	 20*n	their store hashes, in order
 *
 * A group that is cut by the end of a page goes on in the next one.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_REFERRER_H
#define NARINFO_CACHE_REFERRER_H

#include "postgres.h"

#include "base/store_path.h"

#define REFERRER_FANOUT 8

/* One edge; sorted by memcmp. */
typedef struct Edge
{
	uint8		ref[STORE_HASH_LEN];
	uint8		referrer[STORE_HASH_LEN];
} Edge;

/* "info" lives for the call. */
typedef void (*ReferrerVisitor) (void *arg, const uint8 *ref,
								 const struct varlena *info);

/*
 * Visits every valid path that refers to one of these, itself aside, once for
 * each that it refers to, in no order; as the active snapshot sees the cache.
 */
extern void referrer_visit(const char *cache, const uint8 **hashes, uint64 n,
						   ReferrerVisitor visit, void *arg);

/*
 * Takes up at most so many events into the index; returns how many there
 * were.  Waits for nobody: 0 also while another session does the same.
 */
extern int64 referrer_follow(const char *cache, int64 max_events);

/* The number up to which the index goes, 0 if there is none. */
extern int64 referrer_seq(const char *cache);

/* Makes the index of a cache anew, with the rights of its tables' owner. */
extern void referrer_rebuild(const char *cache);

/* ---- runs and pages (referrer_run.c); SPI is connected ---- */

/* Writes edges, sorted and each once, as a new run of this level. */
typedef struct RunWriter RunWriter;

extern RunWriter *run_writer_begin(const char *cache, int level);
extern void run_writer_add(RunWriter *writer, const Edge *edge);
extern void run_writer_end(RunWriter *writer);

/* Merges runs until each level has less than REFERRER_FANOUT. */
extern void run_merge(const char *cache);

/* Calls back with every referrer that the page has of this path. */
typedef void (*PageVisitor) (void *arg, const uint8 *referrer);

extern void page_visit(const uint8 *page, size_t len, const uint8 *ref,
					   PageVisitor visit, void *arg);

#endif							/* NARINFO_CACHE_REFERRER_H */
