/*-------------------------------------------------------------------------
 *
 * remote.h
 *	  Asking another site: libpq, with waits that can be interrupted.
 *
 * Nothing here needs a transaction, and callers should have none that holds a
 * snapshot or a lock while they wait.  Errors of the connection have SQLSTATE
 * class 08; errors that the other side reports keep theirs.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_REMOTE_H
#define NARINFO_SITES_REMOTE_H

#include "postgres.h"

typedef struct Remote Remote;

/*
 * Raises ERRCODE_INVALID_PARAMETER_VALUE when it cannot be read, or has a
 * password: that would stand in catalogs and logs.
 */
extern void remote_check_conninfo(const char *conninfo);

/*
 * The connection belongs to the memory context, and is closed with it.  For
 * replication it takes commands of the replication protocol, and queries
 * without parameters.
 */
extern Remote *remote_connect(MemoryContext context, const char *conninfo,
							  bool replication);

/* The same for queries, with so many ms to connect and for each query. */
extern Remote *remote_connect_within(MemoryContext context,
									 const char *conninfo, int ms);

/* ms for each query from now on; 0: no limit, as at the beginning. */
extern void remote_set_patience(Remote *remote, int ms);

extern void remote_close(Remote *remote);

/* Has the other side stop what it is doing for us, if it is. */
extern void remote_cancel(Remote *remote);

/* Is it still good, as far as is known? */
extern bool remote_is_open(Remote *remote);

/*
 * One statement; "params" are texts, and NULLs.  How many rows it returned;
 * they are there until the next query.
 */
extern int	remote_query(Remote *remote, const char *query, int nparams,
						 const char *const *params);

/* A value of the last result as text; NULL. */
extern const char *remote_value(Remote *remote, int row, int column);

/* The same of the first row, palloc'd, NULL also when there is none. */
extern char *remote_ask(Remote *remote, const char *query, int nparams,
						const char *const *params);

#endif							/* NARINFO_SITES_REMOTE_H */
