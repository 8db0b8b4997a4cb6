/*-------------------------------------------------------------------------
 *
 * policy.h
 *	  What a cache may ask of narinfos beyond being well-formed.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_CACHE_POLICY_H
#define NARINFO_CACHE_POLICY_H

#include "postgres.h"

#include "cache/cache.h"

/*
 * The policies of one cache, looked up once for many narinfos.  Raises an
 * error where the filter is not there any more: nothing enters unfiltered.
 */
typedef struct PolicyCheck PolicyCheck;

extern PolicyCheck *policy_begin(const char *cache);

/* Raises ERRCODE_NARINFO_REFUSED. */
extern void policy_check(PolicyCheck *check, const struct varlena *info);

/*
 * How many of the keys that the cache trusts have signed it; "wanted" will do.
 * A key counts once, however often and by whatever names it has signed.
 */
extern int	policy_count_signatures(const char *cache,
									const struct varlena *info, int wanted);

/* HASH-NAME, for messages, palloc'd. */
extern char *policy_name_of(const struct varlena *info);

/* Calls the cache's hook, if it has one; it may do what it likes. */
extern void policy_call_hook(const char *cache, int64 first, int64 last);

/*
 * ---- what comes unsigned (sign_policy.c) ----
 *
 * What is to be stored of a narinfo that is offered to a cache: it, or with
 * the cache's signature, then palloc'd, or "there" itself if that says so
 * already.  "there" is what the cache has for the path, or NULL.  Raises
 * ERRCODE_NARINFO_REFUSED, or what is wrong with the key.
 */
extern struct varlena *policy_sign(const char *cache,
								   struct varlena *offered,
								   struct varlena *there);

/*
 * ---- divergence (divergence.c) ----
 *
 * Notes that a narinfo with another NarHash was offered for a valid path.
 * What was refused is noted although the transaction fails, see there.
 */
extern void divergence_note(const char *cache, const struct varlena *there,
							const struct varlena *offered,
							DivergenceAction action);

/* Notes it and does what the cache wants: raises ERRCODE_NARINFO_DIVERGENT,
 * or returns whether the new one takes the place of the old. */
extern bool divergence_decide(const char *cache, const struct varlena *there,
							  const struct varlena *offered);

/* Do the two have the same NarHash? */
extern bool same_nar_hash(const struct varlena *a, const struct varlena *b);

/* Writes the rows of those that were refused, if any wait. */
extern void divergence_write_waiting(void);

/* At the end of the transaction that did so. */
extern void divergence_end(bool committed);

extern void divergence_init(void);

#endif							/* NARINFO_CACHE_POLICY_H */
