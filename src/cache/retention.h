/*-------------------------------------------------------------------------
 *
 * retention.h
 *	  How long events are kept.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_RETENTION_H
#define NARINFO_CACHE_RETENTION_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* GUC pg_narinfo.event_retention; called once by cache_init(). */
extern void retention_init(void);

/*
 * Removes at most so many of the oldest events of a cache, those written
 * before this time, but none that somebody still needs; see retention.c.
 * Returns how many.  Waits for nobody: 0 also while another session does it.
 */
extern int64 retention_cut(const char *cache, TimestampTz before,
						   int64 max_events);

/* The same by the setting: 0 where events are kept for ever. */
extern int64 retention_follow(const char *cache, int64 max_events);

#endif							/* NARINFO_CACHE_RETENTION_H */
