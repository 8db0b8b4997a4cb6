/*-------------------------------------------------------------------------
 *
 * fetch.h
 *	  Outgoing HTTP: files that this site has not, and others have.
 *
 *	  source.c		where to ask: narinfo.file_source
 *	  order.c		in which order
 *	  probe.c		who has it?								HEAD
 *	  fetch.c		one file, from one source after another, into a temporary
 *					file; its hash is that of the narinfo, or nothing is kept
 *	  claim.c		one fetch a file and site, however many ask (claim.h)
 *	  exchange.c, loop.c	libcurl (exchange.h)
 *
 * All runs in the loop of the process that calls: it waits for fetch_fd() and
 * fetch_timeout(), and calls fetch_poll().
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_FETCH_FETCH_H
#define NARINFO_FETCH_FETCH_H

#include "postgres.h"

#include "nodes/pg_list.h"

#include "base/hash.h"
#include "cache/cache.h"
#include "fetch/claim.h"
#include "nar/check.h"
#include "nar/store.h"

/* Says that a request is from a site, and which: its system identifier. */
#define FETCH_SITE_HEADER "Narinfo-Site"

extern uint64 fetch_site_number(void);

extern int	fetch_patience;		/* GUC pg_narinfo.fetch_timeout, ms */
extern int	fetch_max;			/* GUC pg_narinfo.max_fetches */

/* Defines the room's settings; called once by _PG_init. */
extern void fetch_init(void);

/* ---- where to ask (source.c) ---- */

typedef struct FetchSource
{
	char	   *base;			/* URL, without '/' at its end, of what is like
								 * the directory of the cache */
	char	   *token;			/* that it wants to see, or NULL */
} FetchSource;

/*
 * The sources of the files of a cache, FetchSource, in the order in which
 * they are to be asked; palloc'd.  A private cache has those alone for which
 * there is a token.  Needs a transaction and a snapshot.
 */
extern List *fetch_sources(const CacheInfo *cache);

/* The same, with a site behind them that serves the cache below its URL. */
extern List *fetch_add_site(List *sources, const char *url,
							const CacheInfo *cache);

/* ---- who has it? (probe.c) ---- */

/*
 * Asks the sources in turn for a file by HEAD, "url" being relative to their
 * bases, and calls "done" once: with the URL, if one has it, and has said its
 * size ("has_size": that it has to have), or NULL.  False when it could not
 * begin; "done" is not called then.
 */
typedef void (*ProbeDone) (void *arg, const char *found, uint64 size);

extern bool probe_begin(List *sources, const char *url, bool has_size,
						uint64 size, ProbeDone done, void *arg);

/* ---- a file (fetch.c) ---- */

typedef struct FetchFile
{
	const char *cache;
	const char *path;			/* relative to the directory of the cache */
	const char *url;			/* relative to the base of a source */
	bool		has_size;
	uint64		size;			/* bytes, FileSize */
	uint64		max_size;		/* if that is not known */
	bool		has_hash;
	Digest		hash;			/* FileHash */
	NarExpectation expect;		/* what a file without FileHash is compared
								 * with when it is stored */
} FetchFile;

/*
 * The file is whole, and right if it has a FileHash; else that is still to be
 * seen.  It is to be brought to its place.  fetch_kept() has to be called with
 * the claim, now or later; the temporary file is the caller's.
 */
typedef void (*FetchGood) (const FetchFile *file, const StoreTemp *temp,
						   const ClaimRef *claim);

/*
 * Begins to fetch a file that this process has claimed.  False, or an error,
 * when it cannot: then the claim has ended.  All is copied.
 */
extern bool fetch_begin(const FetchFile *file, List *sources,
						const ClaimRef *claim, FetchGood good);

/* What came of FetchGood. */
extern void fetch_kept(const ClaimRef *claim, bool kept);

/* The process ends: what is unfinished is removed. */
extern void fetch_leave(void);

/* ---- the loop (loop.c) ---- */

extern int	fetch_fd(void);		/* readable when there is something to do */
extern long fetch_timeout(void);	/* ms; -1: none */
extern void fetch_poll(void);	/* raises no error */

/* ---- within this room ---- */

/*
 * A copy of such a list, those that did not answer lately at its end; and it
 * is noted that one did not (order.c).
 */
extern void fetch_note_down(const FetchSource *source);
extern FetchSource *fetch_copy_sources(List *list, int *n);

/* Tells the others how far it is (fetch.c). */
extern void fetch_tell(void);

#endif							/* NARINFO_FETCH_FETCH_H */
