/*-------------------------------------------------------------------------
 *
 * usage.h
 *	  Sampling who holds how much, for the janitor.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_USAGE_H
#define NARINFO_GRAPH_USAGE_H

#include "postgres.h"

/* The setting pg_narinfo.usage_interval; called once by _PG_init. */
extern void usage_init(void);

/* Is it time to ask usage_follow()?  It is now and then, in this process. */
extern bool usage_is_due(void);

/*
 * Samples a cache if pg_narinfo.usage_interval has passed since that was done;
 * whether it did.  With the rights of the tables' owner.  Fails like
 * root_visit() when a source of roots does.
 */
extern bool usage_follow(const char *cache);

#endif							/* NARINFO_GRAPH_USAGE_H */
