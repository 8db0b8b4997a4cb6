/*-------------------------------------------------------------------------
 *
 * node.h
 *	  Who this server is, and whether it may publish: see node.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_NODE_H
#define NARINFO_CACHE_NODE_H

#include "postgres.h"

typedef enum NodeState
{
	NODE_NEW,					/* empty: gets an identity by a write */
	NODE_RESTORING,				/* rows, but no identity: until start() */
	NODE_FENCED,				/* another one's identity: until start() */
	NODE_STANDBY,				/* in recovery */
	NODE_MIRROR,
	NODE_CLOSED,				/* a primary that does not publish */
	NODE_PRIMARY				/* publishes */
} NodeState;

/* Setting pg_narinfo.restore; called once by _PG_init. */
extern void node_init(void);

/*
 * Inside a transaction, where the extension is.  Rows of the transaction
 * itself do not count as rows of the database.
 */
extern NodeState node_state(void);

/* node_state() == NODE_RESTORING; costs nothing where there is an identity. */
extern bool node_is_restoring(void);

/*
 * For the triggers of gated tables: are the rows that this session writes
 * those of a dump, to be taken as they come?  Raises an error where they
 * cannot be.  What it says is checked again by node_before_commit().
 */
extern bool node_takes_dump(void);

/* Raises the error where it is clear that the gate will. */
extern void node_check_fence(void);

/* At the end of each transaction: before it commits, and after. */
extern void node_before_commit(void);
extern void node_forget_transaction(void);

/*
 * For the gate, before it takes the lock of a cache: returns if this server
 * may publish, having given an empty database its identity; else raises
 * ERRCODE_NARINFO_FENCED, ERRCODE_NARINFO_MIRROR or ERRCODE_NARINFO_SWITCHING.
 */
extern void node_require_publishing(void);

/*
 * The same behind the lock: whoever has closed this server since then waits
 * for those who have a lock, or is seen now.
 */
extern void node_still_publishing(void);

/* Is it closed until another site publishes, so that one may try again? */
extern bool node_is_switching(void);

/* The epoch of what this server publishes. */
extern int32 node_epoch(void);

/*
 * No event of a lower epoch is applied here any more: its own, or one that
 * this site is bound to by a promise.
 */
extern int32 node_least_epoch(void);

/* Do other sites know this server? */
extern bool node_is_named(void);

/* false while a mirror is filled for the first time. */
extern bool node_is_consistent(void);

/*
 * What is said to who would change a mirror: the DETAIL of the error, palloc'd
 * or constant.  The room that knows of sites sets it.
 */
extern const char *(*node_mirror_detail) (void);

/*
 * Called where others know this server, before it publishes: waits until it is
 * known whether it may still do so, or raises an error.  Of the same room.
 */
extern void (*node_before_publishing) (void);

/*
 * The part of narinfo.start() that is about identity: checks what was
 * restored, or is fenced, and lets it publish, or raises an error.  Returns
 * whether the database has an identity now.
 */
extern bool node_start(void);

#endif							/* NARINFO_CACHE_NODE_H */
