/*-------------------------------------------------------------------------
 *
 * claim.c
 *	  Who fetches which file.  See claim.h.
 *
 *	  FetchShared | Claim * CLAIMS_MAX
 *
 * There are few, and they are looked at only for files that are missing, so
 * they are simply looked through, under one lock, for moments.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "fetch/claim.h"

#define FAILED_MEMORY	2000	/* ms */
#define ENDED_MEMORY	1000	/* ms for others to see how it ended */
#define WATCHERS_MAX	64

typedef struct Claim
{
	uint64		number;
	uint32		owner;			/* pid */
	TimestampTz ended;
	ClaimLook	look;
	uint32		nwatchers;
	uint32		watchers[WATCHERS_MAX]; /* pids that look at it; who finds no
										 * room looks by itself */
	char		cache[CACHE_NAME_MAX + 1];
	char		path[STORE_FILE_PATH_MAX + 1];
} Claim;

typedef struct FetchShared
{
	pg_atomic_uint64 figures[FETCH_FIGURES];
	uint64		next_number;
	Claim		claims[CLAIMS_MAX];
} FetchShared;

static FetchShared *shared = NULL;
static LWLock *claim_lock = NULL;

Size
claim_shmem_size(void)
{
	return MAXALIGN(sizeof(FetchShared));
}

void
claim_shmem_init(LWLock *lock, bool found)
{
	bool		found_shared;

	claim_lock = lock;
	shared = ShmemInitStruct("pg_narinfo fetch", claim_shmem_size(),
							 &found_shared);
	if (found)
		return;
	memset(shared, 0, sizeof(FetchShared));
	for (int i = 0; i < FETCH_FIGURES; i++)
		pg_atomic_init_u64(&shared->figures[i], 0);
	shared->next_number = 1;
}

/* ---- finding; the lock is held ---- */

static bool
has_ended(const Claim *claim)
{
	return claim->look.state >= CLAIM_KEPT;
}

static bool
is_over(const Claim *claim, TimestampTz now)
{
	if (claim->look.state == CLAIM_FREE)
		return true;
	return has_ended(claim) &&
		TimestampDifferenceExceeds(claim->ended, now,
								   claim->look.state == CLAIM_FAILED ?
								   FAILED_MEMORY : ENDED_MEMORY);
}

/*
 * That of a file which runs, or has failed lately.  *room is one that can be
 * had, or NULL.
 */
static Claim *
find(const char *cache, const char *path, TimestampTz now, Claim **room,
	 int *running)
{
	Claim	   *found = NULL;

	*room = NULL;
	*running = 0;
	for (int i = 0; i < CLAIMS_MAX; i++)
	{
		Claim	   *claim = &shared->claims[i];

		if (is_over(claim, now))
		{
			*room = claim;
			continue;
		}
		*running += has_ended(claim) ? 0 : 1;
		if ((!has_ended(claim) || claim->look.state == CLAIM_FAILED) &&
			strcmp(claim->path, path) == 0 &&
			strcmp(claim->cache, cache) == 0)
			found = claim;
	}
	return found;
}

static void
make_ref(const Claim *claim, ClaimRef *ref)
{
	ref->slot = (uint32) (claim - shared->claims);
	ref->number = claim->number;
}

static void
begin(Claim *claim, const char *cache, const char *path)
{
	memset(claim, 0, sizeof(*claim));
	claim->number = shared->next_number++;
	claim->owner = (uint32) MyProcPid;
	claim->look.state = CLAIM_ASKING;
	strlcpy(claim->cache, cache, sizeof(claim->cache));
	strlcpy(claim->path, path, sizeof(claim->path));
}

ClaimResult
claim_take(const char *cache, const char *path, int max, ClaimRef *ref)
{
	TimestampTz now = GetCurrentTimestamp();
	ClaimResult result = CLAIM_FULL;
	Claim	   *claim;
	Claim	   *room;
	int			running;

	LWLockAcquire(claim_lock, LW_EXCLUSIVE);
	claim = find(cache, path, now, &room, &running);
	if (claim != NULL)
		result = has_ended(claim) ? CLAIM_FAILED_LATELY : CLAIM_SHARED;
	else if (room != NULL && running < max)
	{
		claim = room;
		begin(claim, cache, path);
		result = CLAIM_MINE;
	}
	if (claim != NULL)
		make_ref(claim, ref);
	LWLockRelease(claim_lock);
	return result;
}

/* ---- looking ---- */

static void
watch(Claim *claim)
{
	for (uint32 i = 0; i < claim->nwatchers; i++)
	{
		if (claim->watchers[i] == (uint32) MyProcPid)
			return;
	}
	if (claim->nwatchers < WATCHERS_MAX)
		claim->watchers[claim->nwatchers++] = (uint32) MyProcPid;
}

bool
claim_look(const ClaimRef *ref, ClaimLook *look)
{
	Claim	   *claim = &shared->claims[ref->slot];
	bool		found;

	LWLockAcquire(claim_lock, LW_EXCLUSIVE);
	found = claim->look.state != CLAIM_FREE && claim->number == ref->number;
	if (found)
	{
		*look = claim->look;
		if (claim->owner != (uint32) MyProcPid)
			watch(claim);
	}
	LWLockRelease(claim_lock);
	return found;
}

static void
wake(const uint32 *pids, uint32 n)
{
	for (uint32 i = 0; i < n; i++)
	{
		PGPROC	   *proc = BackendPidGetProc((int) pids[i]);

		if (proc != NULL)
			SetLatch(&proc->procLatch);
	}
}

void
claim_set(const ClaimRef *ref, const ClaimLook *look, bool wake_others)
{
	Claim	   *claim = &shared->claims[ref->slot];
	uint32		pids[WATCHERS_MAX];
	uint32		n = 0;

	LWLockAcquire(claim_lock, LW_EXCLUSIVE);
	if (claim->number == ref->number && claim->owner == (uint32) MyProcPid)
	{
		claim->look = *look;
		if (has_ended(claim))
			claim->ended = GetCurrentTimestamp();
		n = claim->nwatchers;
		memcpy(pids, claim->watchers, n * sizeof(uint32));
	}
	LWLockRelease(claim_lock);
	if (wake_others)
		wake(pids, n);
}

void
claim_leave(void)
{
	uint32		pids[WATCHERS_MAX];
	uint32		n = 0;

	if (shared == NULL)
		return;
	LWLockAcquire(claim_lock, LW_EXCLUSIVE);
	for (int i = 0; i < CLAIMS_MAX; i++)
	{
		Claim	   *claim = &shared->claims[i];

		if (claim->owner != (uint32) MyProcPid ||
			claim->look.state == CLAIM_FREE || has_ended(claim))
			continue;
		claim->look.state = CLAIM_FREE;
		for (uint32 j = 0; j < claim->nwatchers && n < WATCHERS_MAX; j++)
			pids[n++] = claim->watchers[j];
	}
	LWLockRelease(claim_lock);
	wake(pids, n);
}

int
claim_running(void)
{
	int			running = 0;

	if (shared == NULL)
		return 0;
	LWLockAcquire(claim_lock, LW_SHARED);
	for (int i = 0; i < CLAIMS_MAX; i++)
	{
		const Claim *claim = &shared->claims[i];

		running += claim->look.state != CLAIM_FREE && !has_ended(claim);
	}
	LWLockRelease(claim_lock);
	return running;
}

/* ---- figures ---- */

void
fetch_count(FetchFigure figure, uint64 n)
{
	if (shared != NULL)
		pg_atomic_fetch_add_u64(&shared->figures[figure], (int64) n);
}

uint64
fetch_figure(FetchFigure figure)
{
	return shared != NULL ? pg_atomic_read_u64(&shared->figures[figure]) : 0;
}
