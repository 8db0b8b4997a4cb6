/*-------------------------------------------------------------------------
 *
 * copies.h
 *	  How many other sites have an event on disk: counting them, and waiting
 *	  until there are enough.
 *
 *	  copies_find		an event		-> a position in this server's log
 *	  copies_count		a position		-> how many sites have confirmed it
 *	  copies_watch		tells whoever polls what we wait for
 *	  copies_sleep		until a slot has passed that, or it is time to look
 *
 * The position of an event is at or behind the end of its transaction's
 * commit record, so a mirror of this site whose slot has confirmed it has
 * applied the transaction and flushed it.  Sites further below tell by their
 * reports which event they have.  This server itself is no copy.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_COPIES_H
#define NARINFO_SITES_COPIES_H

#include "postgres.h"

#include "access/xlogdefs.h"

#include "cache/cache.h"

/* ---- counting (copies.c) ---- */

typedef struct CopiesTarget
{
	char		cache[CACHE_NAME_MAX + 1];
	int64		seq;			/* of the event; 0: before the first */
	XLogRecPtr	lsn;			/* who has confirmed this has the event */
} CopiesTarget;

/*
 * Fills in a target for an event that the active snapshot sees; 0: the last
 * one of the cache that it sees.
 */
extern void copies_find(const char *cache, int64 seq, CopiesTarget *target);

/*
 * How many other sites have the event, of how many that have a vote for its
 * cache now.  In a transaction, with a snapshot of its own.
 */
extern int	copies_count(const CopiesTarget *target, int *voters);

/* Follows commits of this process; called once by sites_init(). */
extern void copies_init(void);

/* ---- waiting (copies_wait.c) ---- */

/*
 * What this process waits for is told to whoever polls the slots, until
 * copies_unwatch().  To be called before the first look.
 */
extern void copies_watch(XLogRecPtr lsn);
extern void copies_unwatch(void);

/*
 * Sleeps until a slot may have passed what we watch, our latch was set, or ms
 * have passed; outside of a transaction's snapshot.  Can be interrupted.
 */
extern void copies_sleep(long ms);

/*
 * Another site has told what it has: whoever waits looks again.  The slots do
 * not show that.
 */
extern void copies_look_again(void);

/*
 * For a process that waits for many things at once, and has a loop of its
 * own: has a slot passed this position since the last copies_read_slots(),
 * or has a site told something?  To be called again and again, COPIES_PAUSE
 * apart.
 */
#define COPIES_PAUSE 1			/* ms */

extern void copies_read_slots(void);
extern bool copies_passed(XLogRecPtr lsn);

/*
 * The end of the commit record of a transaction that has published, as long
 * as it is remembered: that of the last ones of all processes, or of this
 * process where there is no shared memory.  InvalidXLogRecPtr if it is not.
 */
extern void copies_remember_commit(TransactionId xid, XLogRecPtr end);
extern XLogRecPtr copies_recall_commit(TransactionId xid);

/*
 * This process wants its latch set when replication has applied events, or
 * no more; it is one a server, and known by its pid.
 */
extern void copies_follow(bool wanted);
extern void copies_wake_follower(void);

/* Were some applied since that process has asked last? */
extern bool copies_applied(void);

/* Shared memory; called once by sites_init(). */
extern void copies_wait_init(void);

#endif							/* NARINFO_SITES_COPIES_H */
