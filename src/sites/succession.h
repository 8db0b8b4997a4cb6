/*-------------------------------------------------------------------------
 *
 * succession.h
 *	  Who publishes next: see promise.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_SUCCESSION_H
#define NARINFO_SITES_SUCCESSION_H

#include "postgres.h"

#include "sites/remote.h"

/*
 * One at a time: promote(), switchover(), rejoin(), and the worker that goes
 * on with what they have begun.  Held through commits.  False when another
 * process is at it.
 */
extern bool succession_lock(void);
extern void succession_unlock(void);

/* Does the work of a procedure with it, or raises an error that names it. */
extern void succession_call(const char *procedure, void (*work) (void *arg),
							void *arg);

/*
 * Makes this mirror the primary of this epoch, in the transaction at hand,
 * which has to commit at once: the subscription's position is gone whatever
 * becomes of it.  "bound": by a promise to itself; else by none.
 */
extern void succession_take(const char *epoch, bool bound);

/* What another site has said of itself, see site_look(); palloc'd. */
typedef struct Look
{
	char	   *site;
	char	   *state;
	char	   *instance;
	int			epoch;
	int			promised;
	char	   *promised_to;
	bool		bound;
	char	   *closed;			/* or NULL */
	bool		joined;
} Look;

/*
 * Connects and asks: the connection, or NULL, with the reason in *problem.
 * Takes its rows of site and site_cache, when it is the one that we asked
 * for; commits.  "site" NULL: whoever answers.
 */
extern Remote *succession_look(MemoryContext context, const char *site,
							   const char *conninfo, int patience,
							   Look *look, char **problem);

/* The same question over a connection that is there. */
extern bool succession_look_again(Remote *remote, Look *look,
								  char **problem);

/*
 * A question whose failure is no error here: its first value, palloc'd, or
 * NULL, with the reason in *problem, which is NULL else.
 */
extern char *succession_try(Remote *remote, const char *query, int nparams,
							const char *const *params, char **problem);

/* The worker: asks other sites, when that is due, and judges what they say. */
extern void succession_watch(MemoryContext context);

/* The worker: follows whoever is the primary now. */
extern void succession_follow(MemoryContext context);

/* Has this site answered when it was asked last, and what were we bound by? */
extern bool watch_has_answered(const char *site);
extern int	watch_bound_before(void);

/* Behind closing this primary: waits until all who were inside are done. */
extern void switchover_drain(void);

/*
 * The worker: goes on with a switchover that nobody goes on with.  "site" is
 * the one that is to publish, in this epoch.
 */
extern void switchover_resolve(MemoryContext context, const char *site,
							   const char *epoch);

#endif							/* NARINFO_SITES_SUCCESSION_H */
