/*-------------------------------------------------------------------------
 *
 * follow.h
 *	  What a follower of a cache reads: its events, with the narinfos.
 *
 * A follower keeps the number of the last event that it has seen, and asks
 * for those behind it.  With each comes the narinfo that the path has now,
 * which may be newer than the event, or be gone; later events tell then.  So
 * whoever has read up to the last event has what the cache has.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_FOLLOW_H
#define NARINFO_CACHE_FOLLOW_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/store_path.h"

/* What is kept of a cache's events; both 0 if there is none. */
typedef struct FollowRange
{
	int64		first;
	int64		last;
} FollowRange;

extern void follow_range(const char *cache, FollowRange *range);

/* Has nothing behind this number been cut away? */
static inline bool
follow_may_resume(const FollowRange *range, int64 after)
{
	return range->first == 0 || after >= range->first - 1;
}

typedef struct FollowEvent
{
	int64		seq;
	int32		epoch;
	TimestampTz at;
	Oid			kind;			/* a value of the enum event_kind */
	const char *label;			/* the same as text */
	const uint8 *hash;			/* NULL: it is about no path */
	const char *name;			/* NULL: it is about no key */
	const uint8 *digest;		/* DIGEST_LEN bytes */
	const struct varlena *info; /* NULL: it is not valid now, or no path */
} FollowEvent;

/*
 * The events behind a number, in their order, as the active snapshot sees
 * them.  What an event points to lives until the next one.
 */
typedef struct Follower Follower;

extern Follower *follow_begin(const char *cache, int64 after);
extern bool follow_next(Follower *follower, FollowEvent *event);
extern void follow_end(Follower *follower);

#endif							/* NARINFO_CACHE_FOLLOW_H */
