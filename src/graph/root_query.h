/*-------------------------------------------------------------------------
 *
 * root_query.h
 *	  Queries on the tables of roots, and lists of store hashes.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_GRAPH_ROOT_QUERY_H
#define NARINFO_GRAPH_ROOT_QUERY_H

#include "postgres.h"

#include "executor/spi.h"

#include "base/store_path.h"
#include "cache/cache.h"

/*
 * Between root_begin() and root_end() SPI is connected, the user is the owner
 * of the extension's tables, and search_path is pg_catalog, narinfo, pg_temp,
 * whatever the session has set.  An error in between puts all of that back.
 */
typedef struct RootSession
{
	CacheUser	user;
	int			guc_level;
} RootSession;

extern RootSession root_begin(void);
extern void root_end(RootSession session);

/* Sets search_path as above until AtEOXact_GUC() of the level it returns. */
extern int	root_search_path(void);

/*
 * A query, prepared once a session.  "types" has a letter for each argument:
 *	  t text		b boolean	i integer	l bigint
 *	  z timestamptz	v interval	p store_path
 *	  T, I, H, P	arrays of text, integer, store_hash, store_path
 */
typedef struct RootQuery
{
	const char *sql;
	const char *types;
	SPIPlanPtr	plan;			/* NULL at first */
	Oid			planned_for;	/* store_path, when it was prepared */
} RootQuery;

/*
 * Runs it, between root_begin() and root_end(), with the active snapshot.  Its
 * result is in SPI_tuptable and SPI_processed; "nulls" may be NULL.
 */
extern void root_read(RootQuery *query, Datum *values, const char *nulls);

/* The same of one that changes rows, with the latest snapshot. */
extern void root_change(RootQuery *query, Datum *values, const char *nulls);

/* The same of one that reads with the latest snapshot. */
extern void root_read_latest(RootQuery *query, Datum *values,
							 const char *nulls);

/* A column of a row of the last result, from 1 on; *isnull may be NULL. */
extern Datum root_value(uint64 row, int column, bool *isnull);

/* The same as text, palloc'd; NULL for NULL. */
extern char *root_text(uint64 row, int column);

/*
 * Takes a lock that keeps others from pinning and unpinning under a name until
 * the end of the transaction; false when it was not to be waited for.  Who
 * has locked many names of a cache has them all.
 */
#define ROOT_NAMES_MAX 200		/* that one transaction should lock */

extern bool root_lock_name(const char *cache, const char *name, bool wait);

/* Removes the pins of a name that count no more; how many. */
extern int64 root_prune_name(const char *cache, const char *name);

/*
 * ---- lists of store hashes ----
 *
 * Made in the current memory context, and freed with it.
 */
typedef struct HashList
{
	uint8	   *hashes;			/* n of STORE_HASH_LEN bytes */
	uint64		n;
	uint64		max;
} HashList;

extern void hash_list_init(HashList *list);
extern void hash_list_add(HashList *list, const uint8 *hash);

/* Sorts it, and keeps each once. */
extern void hash_list_sort(HashList *list);

static inline const uint8 *
hash_list_get(const HashList *list, uint64 i)
{
	return list->hashes + i * STORE_HASH_LEN;
}

/* ---- sources (root_source.c) ---- */

/* A row of narinfo.root_source. */
typedef struct RootSource
{
	char	   *cache;
	char	   *name;
	char	   *kind;
	char	   *query;			/* NULL: none */
	char	   *owner;
} RootSource;

/*
 * The store hashes that a source names now, as the active snapshot has it,
 * sorted and each once.  SPI is not connected.  Raises ERRCODE_NARINFO_ROOTS.
 */
extern void root_source_run(const RootSource *source, HashList *list);

/* The sources of a cache, in the order of their names; how many. */
extern int	root_source_read(const char *cache, RootSource **sources);

extern void root_source_init(void);

/* ---- rules for the gate (root_rule.c) ---- */

extern void root_rule_init(void);

#endif							/* NARINFO_GRAPH_ROOT_QUERY_H */
