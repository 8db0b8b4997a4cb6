/*-------------------------------------------------------------------------
 *
 * removal_run.h
 *	  A run of the removal of files, and what it reads and writes of tables.
 *
 * Everything here is inside a transaction, and done with the rights of the
 * extension's owner.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_NAR_REMOVAL_RUN_H
#define NARINFO_NAR_REMOVAL_RUN_H

#include "postgres.h"

#include "nodes/pg_list.h"
#include "storage/itemptr.h"

#include "cache/cache.h"
#include "nar/removal.h"

/* Files of one run: some 250 bytes of memory each. */
#define RUN_MAX 100000

/* The last event of a cache that was taken into account. */
typedef struct SeenEvent
{
	const char *cache;
	int64		seq;
} SeenEvent;

typedef struct RemovalRun
{
	MemoryContext context;
	TimestampTz cutoff;			/* due is what is queued since before */
	DueFile    *files;			/* from 1 to n, by cache and path */
	ItemPointerData *entries;	/* rows of the queue, in the same order */
	uint32		n;
	uint32		next;			/* that was not looked at yet */
	bool		full;			/* there may be more that are due */
	bool		stuck;			/* somebody writes narinfos for long */
	DueNames   *names;
	List	   *caches;			/* their names, once each */
	List	   *seen;			/* of SeenEvent */
	int64		removed;
	int64		removed_bytes;

	/* the directory of the file at hand */
	int			parent;			/* -1: none */
	const char *parent_cache;
	const char *parent_path;	/* begins with it */
	size_t		parent_len;
	bool		parent_changed; /* and has to be synced */
} RemovalRun;

/* ---- removal.c ---- */

extern void removal_close_parent(RemovalRun *run);

/* ---- removal_table.c ---- */

/* Queries as the owner of the extension, with the latest snapshot. */
typedef struct RemovalAccess
{
	CacheUser	user;
	int			guc_level;
} RemovalAccess;

extern void removal_access_begin(RemovalAccess *access);
extern void removal_access_end(const RemovalAccess *access);

/* In between; the result is SPI's. */
extern void removal_execute(const char *query, int nargs, Oid *types,
							Datum *values, bool read_only);

/* Loads what is due and strikes out what is named; false if nothing is due. */
extern bool removal_load(RemovalRun *run);

/* Strikes out those of these files that are queued with a later time, too. */
extern void removal_look_at_queue(RemovalRun *run, uint32 first, uint32 end);

/* The same, and of all files what was named since. */
extern void removal_look_again(RemovalRun *run, uint32 first, uint32 end);

/* What became of these files: the queue, HASH.ls, and figures. */
extern void removal_settle(RemovalRun *run, uint32 first, uint32 end);

/*
 * Who writes narinfos now, of those that an earlier call named (NULL:
 * whoever); palloc'd, NULL: nobody.
 */
extern char *removal_writers(RemovalRun *run, const char *among);

/* Narinfos removed before this time leave trash; how many did. */
extern uint64 removal_empty_trash(TimestampTz before, int max);

/* ---- removal_file.c ---- */

/* Closes a directory; what was changed in it is on disk then. */
extern void removal_end_parent(int parent, bool changed);

/* Removes HASH.ls of a cache, unless it is younger. */
extern void removal_unlink_listing(const char *cache, const uint8 *hash,
								   TimestampTz modified_before);

#endif							/* NARINFO_NAR_REMOVAL_RUN_H */
