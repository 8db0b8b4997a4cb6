/*-------------------------------------------------------------------------
 *
 * cache.h
 *	  Caches, and the paths that are valid in them, as C reads them.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_CACHE_H
#define NARINFO_CACHE_CACHE_H

#include "postgres.h"

#include "base/store_path.h"

#define CACHE_NAME_MAX 63		/* bytes */
#define CACHE_MAIN "main"		/* implied: it is there without its row */

typedef struct CacheInfo
{
	char		name[CACHE_NAME_MAX + 1];
	uint32		number;			/* stands for the name in this process: no
								 * other name ever has it */
	char		store_dir[STORE_DIR_MAX + 1];
	int32		priority;
	bool		want_mass_query;
	bool		is_private;
	bool		require_closure;
	bool		implied;		/* main, without its row */
	int32		visible_copies; /* see sites/visible.h */
} CacheInfo;

/* In the order of the enum divergence_action. */
typedef enum DivergenceAction
{
	DIVERGENCE_REFUSE,
	DIVERGENCE_KEEP,
	DIVERGENCE_REPLACE
} DivergenceAction;

#define CACHE_FUNCTION_MAX 255	/* bytes */
#define SECRET_NAME_MAX 128		/* bytes; a file is called so */

/* What the gate asks of what enters, and who pushes is promised. */
typedef struct CachePolicies
{
	int32		min_signatures;
	DivergenceAction on_divergence;
	char		filter[CACHE_FUNCTION_MAX + 1]; /* "": none */
	char		hook[CACHE_FUNCTION_MAX + 1];
	char		sign_with[SECRET_NAME_MAX + 1]; /* a secret key; "": none */
	int32		push_copies;	/* what a PUT waits for, */
	int64		push_wait;		/* ms at most, */
	bool		refuse_late;	/* and how it is answered then */
} CachePolicies;

/*
 * OIDs of what the extension made in this database, looked up by name in
 * schema narinfo and remembered until one of them changes.
 */
typedef struct CacheCatalog
{
	Oid			cache_rel;
	Oid			valid_path_rel;
	Oid			valid_path_pkey;
	Oid			event_rel;
	Oid			event_pkey;
	Oid			node_rel;
	Oid			narinfo_type;
	Oid			narinfo_array_type;
	Oid			store_hash_type;
	Oid			store_hash_array_type;
	Oid			store_path_type;
	Oid			store_path_array_type;
} CacheCatalog;

/* GUC pg_narinfo.cache; called once by _PG_init. */
extern void cache_init(void);

/* The value of pg_narinfo.cache. */
extern char *cache_default_name;

/*
 * Inside a transaction.  NULL when the extension is not there, or one of its
 * tables is missing or renamed.
 */
extern const CacheCatalog *cache_catalog(void);

/*
 * The same for workers: the extension is not dropped before the end of this
 * transaction.  Waits for who is about to drop it (lock_timeout holds).
 */
extern const CacheCatalog *cache_catalog_hold(void);

/*
 * The cache of this name; false if there is none.  Needs a transaction and a
 * snapshot.  Remembered by each process until a row of narinfo.cache
 * changes, so it costs a hash lookup.  "main" is always found as long as the
 * extension is there.
 */
extern bool cache_get(const char *name, CacheInfo *info);

/* The same, or an error that names the cache (ERRCODE_UNDEFINED_OBJECT). */
extern void cache_require(const char *name, CacheInfo *info);

/* The policies of a cache; false if there is no such cache. */
extern bool cache_get_policies(const char *name, CachePolicies *policies);

/* The text of its nix-cache-info, palloc'd. */
extern char *cache_nix_cache_info(const CacheInfo *info);

/*
 * Makes the row of "main", which is implied, before the first write to it;
 * other names are left alone.  SPI must be connected.
 */
extern void cache_ensure_row(const char *name);

/*
 * Rows that we write for the user's sake, and not at the user's word, are
 * written with the rights of the extension's owner.  Give the result of the
 * first to the second; an error in between restores the user by itself.
 */
typedef struct CacheUser
{
	Oid			id;
	int			context;
} CacheUser;

extern CacheUser cache_become_owner(void);
extern void cache_become_user(CacheUser user);

/*
 * May a cache be called so?  A name is the first part of a cache's URLs, so
 * the beginnings of other URLs are none.
 */
extern bool cache_name_check(const char *name, size_t len);

/*
 * Lookups in valid_path that share the opening of the table and its index
 * and one snapshot: begin, find as often as wanted, end; all in one
 * transaction.  valid_path_begin() returns NULL if the table is not there.
 * On error, the transaction's end cleans up.
 */
typedef struct ValidPathScan ValidPathScan;

extern ValidPathScan *valid_path_begin(void);

/*
 * The narinfo of (cache, hash), detoasted; NULL if there is none.  It may lie
 * in a page that the scan has pinned: it lives until the next find or the end.
 */
extern struct varlena *valid_path_find(ValidPathScan *scan, const char *cache,
									   const uint8 hash[STORE_HASH_LEN]);

/*
 * The same for a process that is asked again and again: with what
 * lookup_memory.h remembers.  "completions" is the snapXactCompletionCount of
 * the active snapshot, which only the one that GetTransactionSnapshot() gave
 * out tells, and no copy of it; 0: not known.
 */
extern struct varlena *valid_path_find_again(ValidPathScan *scan,
											 const CacheInfo *cache,
											 const uint8 hash[STORE_HASH_LEN],
											 uint64 completions);
extern void valid_path_end(ValidPathScan *scan);

/*
 * Every path of a cache as the active snapshot has it, in the order of the
 * hashes.  What is handed out, and what the visitor allocates, lives for one
 * call.
 */
typedef void (*ValidPathVisitor) (void *arg, const uint8 *hash,
								  const struct varlena *info);

extern void valid_path_each(const char *cache, ValidPathVisitor visit,
							void *arg);

/* The narinfo of its first path, palloc'd; NULL if it has none. */
extern struct varlena *valid_path_first(const char *cache);

#endif							/* NARINFO_CACHE_CACHE_H */
