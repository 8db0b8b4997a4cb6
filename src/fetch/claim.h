/*-------------------------------------------------------------------------
 *
 * claim.h
 *	  Who fetches which file: one process of the server each, and the others
 *	  see in shared memory how far it is.
 *
 *						claim_take
 *							|
 *		  CLAIM_MINE		|		CLAIM_SHARED, CLAIM_FAILED_LATELY, _FULL
 *			|
 *		ASKING ---> COMING ---> GOOD ---> KEPT		in its place
 *			^		  |			 |
 *			+---------+			 +------> UNKEPT	it could not be stored
 *		a new round	  |
 *					  +-----------------> FAILED
 *
 * A file without FileHash goes from COMING to KEPT or FAILED.
 *
 * KEPT, UNKEPT and FAILED are the end.  They stay to be seen for a moment; a
 * failure for FAILED_MEMORY, so that not everybody who asks asks the sources.
 * When its process leaves, a claim is there no more; after a crash the memory
 * is made anew.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_FETCH_CLAIM_H
#define NARINFO_FETCH_CLAIM_H

#include "postgres.h"

#include "storage/lwlock.h"

#include "cache/cache.h"
#include "nar/store.h"

#define CLAIMS_MAX 256			/* of pg_narinfo.max_fetches */

typedef enum ClaimState
{
	CLAIM_FREE,
	CLAIM_ASKING,				/* nothing has come yet */
	CLAIM_COMING,				/* "there" bytes of the temporary file */
	CLAIM_GOOD,					/* all of it is there, and right */
	CLAIM_KEPT,
	CLAIM_UNKEPT,
	CLAIM_FAILED
} ClaimState;

/* What others see. */
typedef struct ClaimLook
{
	ClaimState	state;
	uint32		round;			/* grows when it begins anew: what was sent
								 * before was wrong */
	bool		has_size;
	uint64		size;
	uint64		there;
	StoreTemp	temp;
} ClaimLook;

typedef struct ClaimRef
{
	uint32		slot;
	uint64		number;			/* never given twice while the server runs */
} ClaimRef;

typedef enum ClaimResult
{
	CLAIM_MINE,
	CLAIM_SHARED,				/* somebody is at it */
	CLAIM_FAILED_LATELY,
	CLAIM_FULL					/* as many run as may */
} ClaimResult;

extern Size claim_shmem_size(void);

/* In the startup hook of shared memory, as ShmemInitStruct is called. */
extern void claim_shmem_init(LWLock *lock, bool found);

/* "path" is relative to the directory of the cache; "max" run at most. */
extern ClaimResult claim_take(const char *cache, const char *path, int max,
							  ClaimRef *ref);

/* False if it is there no more.  Our latch is set when it changes. */
extern bool claim_look(const ClaimRef *ref, ClaimLook *look);

/* For its owner.  "wake" tells whether the others are to look. */
extern void claim_set(const ClaimRef *ref, const ClaimLook *look, bool wake);

/* This process leaves: its claims are there no more. */
extern void claim_leave(void);

/* How many run now. */
extern int	claim_running(void);

/* ---- figures since the server was started ---- */

typedef enum FetchFigure
{
	FETCH_BEGUN,
	FETCH_KEPT,					/* stored in their place */
	FETCH_FAILED,				/* no source had the right file */
	FETCH_WRONG,				/* files with another hash */
	FETCH_BYTES,				/* that sources have sent */
	FETCH_REDIRECTED,			/* replies of 302 */
	FETCH_REFUSED,				/* requests that waited for others in vain */
	FETCH_FIGURES
} FetchFigure;

extern void fetch_count(FetchFigure figure, uint64 n);
extern uint64 fetch_figure(FetchFigure figure);

#endif							/* NARINFO_FETCH_CLAIM_H */
