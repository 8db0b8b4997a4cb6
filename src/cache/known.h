/*-------------------------------------------------------------------------
 *
 * known.h
 *	  Paths that this session knows to be valid in a cache, from one
 *	  transaction to the next: what was published refers to few others again
 *	  and again, and a session that publishes much refers to what it has
 *	  published itself.
 *
 * What is known is true of one event's number.  The gate comes with the lock
 * and the last number: the events in between tell what is not valid any more,
 * and a digest that differs, that it is not the same history.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_KNOWN_H
#define NARINFO_CACHE_KNOWN_H

#include "postgres.h"

#include "cache/event.h"

typedef struct KnownPaths KnownPaths;

/*
 * With the lock of the cache, whose last event this is.  Who publishes many
 * paths may remember as many as maintenance_work_mem has room for, others a
 * few thousand.
 */
extern KnownPaths *known_begin(const char *cache, const EventPosition *last,
							   bool many);

extern bool known_has(KnownPaths *known, const uint8 *hash);
extern void known_add(KnownPaths *known, const uint8 *hash);
extern void known_remove(KnownPaths *known, const uint8 *hash);

/* It is now true of this event, if the transaction commits. */
extern void known_end(KnownPaths *known, const EventPosition *last);

/* Called at the transaction's end. */
extern void known_end_transaction(bool committed);

#endif							/* NARINFO_CACHE_KNOWN_H */
