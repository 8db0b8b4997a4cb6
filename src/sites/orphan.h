/*-------------------------------------------------------------------------
 *
 * orphan.h
 *	  Events that the primary's history does not have: see orphan.c.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_SITES_ORPHAN_H
#define NARINFO_SITES_ORPHAN_H

#include "postgres.h"

#include "sites/remote.h"

/* Does any wait to be published again?  Commits. */
extern bool orphan_waits(void);

/* Raises an error if our role there may not publish. */
extern void orphan_check_rights(Remote *remote);

/*
 * Publishes those that wait, at the primary, and says what became of them;
 * what it refuses waits on, with its reason.  Commits.
 */
extern void orphan_republish(Remote *remote, const char *primary);

#endif							/* NARINFO_SITES_ORPHAN_H */
