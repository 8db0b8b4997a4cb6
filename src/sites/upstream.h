/*-------------------------------------------------------------------------
 *
 * upstream.h
 *	  The site that this one mirrors, or is to mirror: connecting, looking
 *	  whether it can be, being admitted, and its slot for us.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_UPSTREAM_H
#define NARINFO_SITES_UPSTREAM_H

#include "postgres.h"

#include "sites/remote.h"

typedef struct Upstream
{
	MemoryContext context;
	const char *conninfo;
	const char *site;			/* our name */
	const char *caches;			/* text[] as text, or NULL: all */
	const char *own_conninfo;	/* or NULL */
	const char *url;			/* or NULL */
	int			patience;		/* ms for each query; 0: no limit */
	Remote	   *remote;

	/* what it has told */
	char	   *name;
	char	   *epoch;
	char	   *slot;
	char	   *publication;
	bool		primary;
} Upstream;

/*
 * Connects, and looks at versions and settings of both sides.  Everything that
 * has to be changed is told in one error, each with the statement that does
 * it.
 */
extern void upstream_connect(Upstream *upstream);

/*
 * Has it note us as a mirror.  Raises an error when it cannot be mirrored, or
 * mirrors us.
 */
extern void upstream_admit(Upstream *upstream);

/* Makes our slot there unless there is one. */
extern void upstream_make_slot(Upstream *upstream);

/* Is there one? */
extern bool upstream_has_slot(Upstream *upstream);

/*
 * Has it forget us, with our slot; waits until that is not used any more.
 * With a connection of its own when the other one is not good any more.
 */
extern void upstream_dismiss(Upstream *upstream);

/* The same when an error is being handled: whatever goes wrong is logged. */
extern void upstream_try_dismiss(Upstream *upstream);

/*
 * CREATE SUBSCRIPTION to it, not enabled; with the initial copy, or from
 * where the slot is.  Commits nothing.
 */
extern void upstream_subscribe(const Upstream *upstream, bool copy);

/* DROP SUBSCRIPTION, if there is one; its slot stays.  Commits nothing. */
extern void upstream_unsubscribe(void);

/* The new subscription, from where its slot is, in place of the old one. */
extern void upstream_resubscribe(const Upstream *upstream);

#endif							/* NARINFO_SITES_UPSTREAM_H */
