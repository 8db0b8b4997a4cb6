/*-------------------------------------------------------------------------
 *
 * compare.h
 *	  Rows of this site against those of another one: see compare.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_COMPARE_H
#define NARINFO_SITES_COMPARE_H

#include "postgres.h"

#include "sites/remote.h"

/* The tables whose rows are in a digest, but for valid_path. */
typedef struct SmallTable
{
	const char *name;
	const char *cache_column;
	const char *key;			/* an expression over its row t: a text */
} SmallTable;

extern const SmallTable small_tables[];
extern const int small_tables_count;

/*
 * Finds the rows of a cache that differ, but for those that events are
 * changing just then, and writes them to site_difference in place of what
 * stood there.  The transaction of the other side, repeatable read, stays
 * open: remote_query(COMMIT) ends it.  Commits on this side.
 */
extern void compare_cache(Remote *remote, const char *cache);

/* The same of all caches that have a problem, with nothing left open. */
extern void compare_all(Remote *remote);

/* Their names, palloc'd; how many. */
extern uint64 compare_problem_caches(char ***caches);

/* verify_site() within a procedure; raises ERRCODE_NARINFO_UNEQUAL. */
extern void sites_verify(MemoryContext context);

#endif							/* NARINFO_SITES_COMPARE_H */
