/*-------------------------------------------------------------------------
 *
 * identity.h
 *	  The row of narinfo.node: what node.c and start.c share.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_IDENTITY_H
#define NARINFO_CACHE_IDENTITY_H

#include "postgres.h"

#include "access/xlogdefs.h"

#define SITE_NAME_MAX 50

typedef struct Identity
{
	bool		there;			/* false: no row, all else is 0 */
	bool		primary;
	bool		consistent;
	bool		named;			/* other sites know it */
	bool		closed;			/* a primary that does not publish */
	bool		switching;		/* ... since another one is to do so */
	char		closed_for[SITE_NAME_MAX + 1];
	bool		bound;			/* by this promise */
	int32		promised;
	int32		epoch;
	uint64		system_identifier;
	TimeLineID	timeline;
	Oid			database;
} Identity;

/* As it is remembered; read again when it has changed. */
extern const Identity *identity_known(void);

/*
 * Until the end of the transaction: exclusive for who makes or changes the
 * row, shared for who restores while there is none.
 */
extern void identity_lock(bool exclusive);

/* Makes this server the one of the row, with this epoch. */
extern void identity_write(int32 epoch);

/*
 * The same of an empty database that is to be a mirror, of this name; it is
 * not consistent yet.
 */
extern void identity_write_mirror(int32 epoch, const char *site);

/*
 * A query that looks whether numbers and rows are as the events say: a row
 * (name, problem or NULL, highest epoch, last number) for each cache.
 */
extern char *identity_integrity_query(void);

/* Raises an error, "WHAT in the transaction that restores a dump". */
extern void identity_forbid_dump(const char *what);

#endif							/* NARINFO_CACHE_IDENTITY_H */
