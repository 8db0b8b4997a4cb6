/*-------------------------------------------------------------------------
 *
 * copies_wait.c
 *	  Waiting until replication slots have passed a position.
 *
 * Nothing tells when a mirror confirms something, so the slots are looked at
 * every COPIES_PAUSE, by one of those who wait, for all of them:
 *
 *	  waiter	notes its pid and position, looks
 *		|
 *		+-- nobody polls: it does, until its own time has come; then it wakes
 *		|	another one, who polls on
 *		+-- somebody polls: it sleeps until it is woken, or has to look
 *
 *	  poller	reads all slots, wakes those whose position one has passed
 *				since it was last read
 *
 * So many who wait cost no more than one, and nothing is done when nobody
 * waits.  Where the positions were last read stands in shared memory, so that
 * nothing is missed between one poller and the next.  Without that memory, or
 * when all places are taken, a waiter polls for itself.
 *
 * What sites tell of their files, and those further below of their events, is
 * in no slot: "told" grows with each report that has committed, and is looked
 * at as a slot is.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "sites/copies.h"

#include "miscadmin.h"
#include "replication/slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"

#define PLACES 256

#define COMMITS 4096

typedef struct Place
{
	int			pid;			/* 0: free */
	XLogRecPtr	lsn;
} Place;

/* One whose number is another one's modulo COMMITS takes its place. */
typedef struct Commit
{
	TransactionId xid;
	XLogRecPtr	end;
} Commit;

/* Followed by "read", one for each replication slot of the server. */
typedef struct Shared
{
	slock_t		mutex;
	int			poller;			/* pid; 0: nobody polls */
	int			used;			/* no place from here on is taken */
	int			follower;		/* pid that wants to know of applied events */
	bool		applied;		/* some were since it has asked */
	uint64		told;			/* reports of other sites so far */
	uint64		told_read;		/* as "read" */
	Place		places[PLACES];
	slock_t		commits_mutex;
	Commit		commits[COMMITS];
	XLogRecPtr	read[FLEXIBLE_ARRAY_MEMBER];
} Shared;

static Shared *shared = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* Of this process. */
static int	my_place = -1;
static XLogRecPtr my_lsn = InvalidXLogRecPtr;
static XLogRecPtr *before = NULL;	/* slots as read last, and now */
static XLogRecPtr *now = NULL;
static uint64 told_before = 0;	/* shared->told, the same */
static uint64 told_now = 0;

/*-------------------------------------------------------------------------
 * Memory
 *-------------------------------------------------------------------------
 */

static Size
shared_size(void)
{
	return MAXALIGN(add_size(offsetof(Shared, read),
							 mul_size(sizeof(XLogRecPtr),
									  max_replication_slots)));
}

static void
request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(shared_size());
}

static void
startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("pg_narinfo copies", shared_size(), &found);
	if (!found)
	{
		memset(shared, 0, shared_size());
		SpinLockInit(&shared->mutex);
		SpinLockInit(&shared->commits_mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
copies_wait_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/*-------------------------------------------------------------------------
 * Commits
 *-------------------------------------------------------------------------
 */

static Commit last_commit;		/* of this process */

void
copies_remember_commit(TransactionId xid, XLogRecPtr end)
{
	last_commit = (Commit) {xid, end};
	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->commits_mutex);
	shared->commits[xid % COMMITS] = last_commit;
	SpinLockRelease(&shared->commits_mutex);
}

XLogRecPtr
copies_recall_commit(TransactionId xid)
{
	Commit		commit = last_commit;

	if (shared != NULL)
	{
		SpinLockAcquire(&shared->commits_mutex);
		commit = shared->commits[xid % COMMITS];
		SpinLockRelease(&shared->commits_mutex);
	}
	return TransactionIdIsValid(xid) && commit.xid == xid ? commit.end :
		InvalidXLogRecPtr;
}

/*-------------------------------------------------------------------------
 * Slots
 *-------------------------------------------------------------------------
 */

static void
read_slots(XLogRecPtr *positions)
{
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
	{
		ReplicationSlot *slot = &ReplicationSlotCtl->replication_slots[i];

		positions[i] = InvalidXLogRecPtr;
		if (!slot->in_use)
			continue;
		SpinLockAcquire(&slot->mutex);
		positions[i] = slot->data.confirmed_flush;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(ReplicationSlotControlLock);
}

static bool
passed(const XLogRecPtr *from, const XLogRecPtr *to, XLogRecPtr lsn)
{
	for (int i = 0; i < max_replication_slots; i++)
	{
		if (from[i] < lsn && to[i] >= lsn)
			return true;
	}
	return false;
}

static void
have_room(void)
{
	Size		size = sizeof(XLogRecPtr) * Max(max_replication_slots, 1);

	if (before == NULL)
		before = MemoryContextAllocZero(TopMemoryContext, size);
	if (now == NULL)
		now = MemoryContextAllocZero(TopMemoryContext, size);
}

static uint64
read_told(void)
{
	uint64		told = 0;

	if (shared == NULL)
		return 0;
	SpinLockAcquire(&shared->mutex);
	told = shared->told;
	SpinLockRelease(&shared->mutex);
	return told;
}

void
copies_read_slots(void)
{
	XLogRecPtr *last = before;

	have_room();
	last = before;
	before = now;
	now = last;
	/* first what was told: what comes behind is seen the next time */
	told_before = told_now;
	told_now = read_told();
	read_slots(now);
}

bool
copies_passed(XLogRecPtr lsn)
{
	return before != NULL &&
		(told_before != told_now || passed(before, now, lsn));
}

/*-------------------------------------------------------------------------
 * Places
 *-------------------------------------------------------------------------
 */

static void
wake(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
copies_unwatch(void)
{
	int			next = 0;

	my_lsn = InvalidXLogRecPtr;
	if (my_place < 0)
		return;
	SpinLockAcquire(&shared->mutex);
	shared->places[my_place].pid = 0;
	while (shared->used > 0 && shared->places[shared->used - 1].pid == 0)
		shared->used--;
	if (shared->poller == MyProcPid)
	{
		shared->poller = 0;
		for (int i = 0; i < shared->used && next == 0; i++)
			next = shared->places[i].pid;
	}
	SpinLockRelease(&shared->mutex);
	my_place = -1;
	if (next != 0)
		wake(next);
}

static void
leave(int code, Datum arg)
{
	(void) code;
	(void) arg;
	copies_unwatch();
}

void
copies_watch(XLogRecPtr lsn)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(leave, (Datum) 0);
	registered = true;
	have_room();
	copies_unwatch();
	my_lsn = lsn;
	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	for (int i = 0; i < PLACES && my_place < 0; i++)
	{
		if (shared->places[i].pid == 0)
			my_place = i;
	}
	if (my_place >= 0)
	{
		shared->places[my_place] = (Place) {MyProcPid, lsn};
		shared->used = Max(shared->used, my_place + 1);
	}
	SpinLockRelease(&shared->mutex);
}

/*-------------------------------------------------------------------------
 * Polling
 *-------------------------------------------------------------------------
 */

/* Are we to poll?  For all, or, when there is no place for us, for us. */
static bool
am_poller(void)
{
	bool		mine;

	if (my_place < 0)
		return true;
	SpinLockAcquire(&shared->mutex);
	if (shared->poller == 0)
		shared->poller = MyProcPid;
	mine = shared->poller == MyProcPid;
	SpinLockRelease(&shared->mutex);
	return mine;
}

/* Reads the slots, and wakes who waited for that; is it also our turn? */
static bool
poll_for_all(void)
{
	Size		size = sizeof(XLogRecPtr) * max_replication_slots;
	int			pids[PLACES];
	int			n = 0;
	bool		mine = false;
	bool		told = read_told() != shared->told_read;

	read_slots(now);
	if (!told && memcmp(now, shared->read, size) == 0)
		return false;
	SpinLockAcquire(&shared->mutex);
	shared->told_read = shared->told;
	for (int i = 0; i < shared->used; i++)
	{
		if (shared->places[i].pid == 0 ||
			!(told || passed(shared->read, now, shared->places[i].lsn)))
			continue;
		if (i == my_place)
			mine = true;
		else
			pids[n++] = shared->places[i].pid;
	}
	memcpy(shared->read, now, size);
	SpinLockRelease(&shared->mutex);
	for (int i = 0; i < n; i++)
		wake(pids[i]);
	return mine;
}

static bool
poll_slots(void)
{
	if (my_place >= 0)
		return poll_for_all();
	copies_read_slots();
	return copies_passed(my_lsn);
}

void
copies_look_again(void)
{
	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	shared->told++;
	SpinLockRelease(&shared->mutex);
}

static bool
wait_latch(long ms)
{
	int			events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
								   WL_EXIT_ON_PM_DEATH, ms,
								   compat_wait_event("PgNarinfoCopies"));

	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return (events & WL_LATCH_SET) != 0;
}

void
copies_sleep(long ms)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);

	if (!am_poller())
	{
		(void) wait_latch(ms);
		return;
	}
	do
	{
		if (poll_slots() || wait_latch(COPIES_PAUSE))
			return;
	} while (GetCurrentTimestamp() < end);
}

/*-------------------------------------------------------------------------
 * Who follows what is applied
 *-------------------------------------------------------------------------
 */

static void
stop_following(int code, Datum arg)
{
	(void) code;
	(void) arg;
	copies_follow(false);
}

void
copies_follow(bool wanted)
{
	static bool registered = false;

	if (shared == NULL || (!wanted && shared->follower != MyProcPid))
		return;
	if (!registered)
		before_shmem_exit(stop_following, (Datum) 0);
	registered = true;
	SpinLockAcquire(&shared->mutex);
	shared->follower = wanted ? MyProcPid : 0;
	SpinLockRelease(&shared->mutex);
}

void
copies_wake_follower(void)
{
	int			pid;

	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	pid = shared->follower;
	shared->applied = pid != 0;
	SpinLockRelease(&shared->mutex);
	if (pid != 0)
		wake(pid);
}

bool
copies_applied(void)
{
	bool		applied;

	if (shared == NULL)
		return false;
	SpinLockAcquire(&shared->mutex);
	applied = shared->applied;
	shared->applied = false;
	SpinLockRelease(&shared->mutex);
	return applied;
}
