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

typedef struct Identity
{
	bool		there;			/* false: no row, all else is 0 */
	bool		primary;
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

/* Raises an error, "WHAT in the transaction that restores a dump". */
extern void identity_forbid_dump(const char *what);

#endif							/* NARINFO_CACHE_IDENTITY_H */
