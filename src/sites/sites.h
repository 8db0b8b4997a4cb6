/*-------------------------------------------------------------------------
 *
 * sites.h
 *	  Sites: what other rooms, and the parts of this one, know of it.
 *
 * A copy of an event counts when a site with a vote for its cache has
 * confirmed it: site_cache.vote says so for every site that is known, and
 * site_link names the slot of those that are mirrors of this site, whose
 * confirmed_flush_lsn is their position in this site's log.  Of those further
 * below, site_cache.seq is what they have on disk: copies.h.  Where a cache
 * has copies_include_files, neither counts beyond site_cache.files, up to
 * which the files are there, too: worker/sites_files.c.  node.promised is for
 * promotion, site_cache.watermark for what is shown only with enough copies:
 * watermark.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_SITES_H
#define NARINFO_SITES_SITES_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* Settings, hooks and shared memory; called once by _PG_init. */
extern void sites_init(void);

/*
 * What the worker of sites does again and again, outside of a transaction:
 * enables the subscription again where an error has passed, tells the
 * upstream of this site, proves that it is equal when that is due, forgets
 * mirrors that did not come to the end of join_site(), and follows the
 * watermarks.  Tells ms until the next turn.  False when this server is the
 * only one.  "context" is reset afterwards, or on error, by the
 * caller, who then calls sites_turn_failed().
 */
extern bool sites_turn(MemoryContext context, long *pause);

/* Notes the message of an error; closes what is open. */
extern void sites_turn_failed(const char *message);

/*
 * Has the next turn tell the upstream of this site, whatever the interval;
 * ms until that turn is to be, so that not all is spent in telling; -1: there
 * is nothing new to tell.
 */
extern void sites_tell(void);
extern long sites_tell_pause(void);

/* ms between two of these turns. */
extern int	sites_interval;

/*
 * ---- for GET /health, within a transaction and a snapshot ----
 *
 * Appends the JSON; whether a client should be sent here.
 */
extern bool sites_health(StringInfo json);

/*
 * ---- among the parts of this room ----
 *
 * Compares what is here with the digests, writes the result to site_cache,
 * with the vote of a mirror; how many caches are not equal.  In the
 * transaction at hand.
 */
extern uint64 sites_prove(void);

/* What that has found, a line each. */
extern char *sites_problems(void);

/*
 * Raises ERRCODE_NARINFO_UNEQUAL, and takes the vote back, when the other site
 * has other digests at our numbers.  Commits.
 */
struct Remote;
extern void sites_compare_history(struct Remote *remote, const char *name);

/* Tells the upstream of this site, and takes what it tells of others. */
extern void sites_report(void);

/* Closes what that keeps open. */
extern void sites_report_end(void);

/*
 * Enables the subscription again if it is due: see resume.c.  While joining,
 * the procedure does it.
 */
extern void sites_resume(bool joining);

/* The last error is no reason any more. */
extern void sites_forget_error(void);

/* What stops a change at a mirror is told by this, see node.h. */
extern const char *sites_mirror_detail(void);

/* Settings, in seconds. */
extern int	sites_verify_interval;

/*
 * The last error that a process of replication has logged in this database,
 * since the server was started; false if there is none.
 */
typedef struct ReplicationError
{
	int			code;			/* SQLSTATE, packed */
	int64		at;				/* TimestampTz */
	char		message[256];
} ReplicationError;

extern bool sites_last_error(ReplicationError *error);

/* Does this error pass by itself? */
extern bool sites_error_passes(int code);

#endif							/* NARINFO_SITES_SITES_H */
