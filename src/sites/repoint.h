/*-------------------------------------------------------------------------
 *
 * repoint.h
 *	  Following another site without a new copy: see repoint.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_REPOINT_H
#define NARINFO_SITES_REPOINT_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "sites/upstream.h"

typedef struct Repoint Repoint;

struct Repoint
{
	Upstream	upstream;		/* the new one */
	const char *ours;			/* {cache: number up to which we are equal} */
	List	   *statements;		/* what brings us up to the slot */

	/*
	 * Whoever has events that the new one does not have looks for the fork
	 * himself, sets "ours", and has them taken away here, in the snapshot of
	 * the slot; NULL: our history has to be the beginning of the other's.
	 */
	void		(*forked) (Repoint *repoint);
	void	   *arg;
};

/* A statement for the transaction that changes over. */
extern void repoint_keep(Repoint *repoint, const char *query, int nparams,
						 const char *a, const char *b, const char *c);

/* For "forked": these paths (a store_hash[] as text), as they are there. */
extern void repoint_fetch_paths(Repoint *repoint, const char *cache,
								const char *hashes);

/* All rows of the other tables of a cache; and those of valid_path. */
extern void repoint_fetch_others(Repoint *repoint, const char *cache);
extern void repoint_fetch_all_paths(Repoint *repoint, const char *cache);
extern void repoint_fetch_trash(Repoint *repoint, const char *cache);

/*
 * Goes over to the new upstream, which has admitted us; an error takes what
 * it has made for us along.
 */
extern void repoint_move(Repoint *repoint);

/* Has the old upstream forget us, or warns that it cannot be told. */
extern void repoint_leave_old(MemoryContext context, const char *conninfo,
							  const char *site);

/* Proves this site, and reports. */
extern void repoint_prove(void);

/* Why our history is not the beginning of the other's; NULL: it is. */
extern char *repoint_fork(Remote *remote);

/*
 * repoint() for the worker, and at the end of switchover(): also of a primary
 * that is closed and has nothing that the other one does not have.  The name
 * of the site that is followed now.
 */
extern char *repoint_follow(MemoryContext context, const char *conninfo);

#endif							/* NARINFO_SITES_REPOINT_H */
