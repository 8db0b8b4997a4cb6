/*-------------------------------------------------------------------------
 *
 * change.h
 *	  What the transaction at hand has changed in gated tables so far: a log
 *	  in the backend's memory, to which triggers append and which the gate
 *	  reads once, before the transaction commits.
 *
 * A rollback to a savepoint cuts the log back to where the savepoint was.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_CHANGE_H
#define NARINFO_CACHE_CHANGE_H

#include "postgres.h"

#include "cache/row.h"

#define CHANGE_HAS_OLD	0x01	/* there was such a row before */
#define CHANGE_HAS_NEW	0x02	/* there is such a row after */
#define CHANGE_TOUCH	0x04	/* it was published as it was: no change */
#define CHANGE_RECHECK	0x08	/* the whole cache must have its closure now */
#define CHANGE_OTHER	0x10	/* it has another NarHash */

/*
 * One change of one row, 72 bytes.  "key" is the row's store hash, or the
 * first bytes of a digest of what else its key is; zeros for the cache itself.
 * Where a hash is not all of the key, "name" and "part" are the rest.
 */
typedef struct Change
{
	uint32		cache;			/* see change_cache_name() */
	uint32		name;			/* see change_name(); 0: none */
	uint32		part;			/* 0: none */
	uint32		order;			/* its number among those of its row */
	uint8		table;			/* see row.h */
	uint8		flags;			/* CHANGE_* */
	uint8		pad[2];
	uint8		key[STORE_HASH_LEN];
	RowDigest	old_digest;		/* with CHANGE_HAS_OLD */
	RowDigest	new_digest;		/* with CHANGE_HAS_NEW */
} Change;

/* Are these of the same row, when they are of the same table? */
static inline bool
change_same_key(const Change *a, const Change *b)
{
	return a->cache == b->cache && a->name == b->name && a->part == b->part &&
		memcmp(a->key, b->key, sizeof(a->key)) == 0;
}

/* Numbers of names; the same name has the same number. */
extern uint32 change_cache(const char *name, size_t len);
extern uint32 change_name_number(const char *name, size_t len);

extern const char *change_cache_name(uint32 cache);
extern const char *change_name(uint32 name);	/* NULL for 0 */

/* Room for one more, which the caller fills in but for "order". */
extern Change *change_append(void);

extern uint64 change_count(void);

/* The log as it is; valid until the next append. */
extern Change *change_all(void);

/* Memory that lives as long as the log. */
extern MemoryContext change_context(void);

/* Forgets the changes, but not the names. */
extern void change_clear(void);

/* At the end of a subtransaction of this level, and of the transaction. */
extern void change_subcommit(int level);
extern void change_subabort(int level);
extern void change_forget(void);

#endif							/* NARINFO_CACHE_CHANGE_H */
