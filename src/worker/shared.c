/*-------------------------------------------------------------------------
 *
 * shared.c
 *	  The shared memory of launcher, workers and SQL functions.
 *
 * It holds pids, flags and figures, never a pointer or a handle: those are
 * worth nothing in another process.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"

#include "fetch/claim.h"
#include "worker/queue.h"
#include "worker/worker.h"

#define SHARED_NAME "pg_narinfo"

WorkerShared *worker_shared = NULL;
LWLock	   *worker_lock = NULL;
LWLock	   *worker_queue_lock = NULL;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

static void
shared_request(void)
{
	if (previous_request_hook)
		previous_request_hook();

	RequestAddinShmemSpace(MAXALIGN(sizeof(WorkerShared)));
	RequestAddinShmemSpace(queue_shmem_size());
	RequestAddinShmemSpace(claim_shmem_size());
	RequestNamedLWLockTranche(SHARED_NAME, 3);
}

static void
slot_init(WorkerSlot *slot)
{
	pg_atomic_init_u32(&slot->used, 0);
	pg_atomic_init_u32(&slot->first, 0);
	pg_atomic_init_u32(&slot->retire, 0);
	pg_atomic_init_u32(&slot->pid, 0);
	pg_atomic_init_u32(&slot->state, WORKER_STARTING);
	pg_atomic_init_u32(&slot->connections, 0);
	pg_atomic_init_u64(&slot->started, 0);
	pg_atomic_init_u64(&slot->connections_accepted, 0);
	pg_atomic_init_u64(&slot->connections_refused, 0);
	pg_atomic_init_u64(&slot->requests, 0);
	pg_atomic_init_u64(&slot->bad_requests, 0);
	pg_atomic_init_u64(&slot->bytes_sent, 0);
	pg_atomic_init_u64(&slot->auth_failures, 0);
}

static void
writer_init(WriterSlot *slot)
{
	pg_atomic_init_u32(&slot->used, 0);
	pg_atomic_init_u32(&slot->pid, 0);
	pg_atomic_init_u32(&slot->state, WORKER_STARTING);
	pg_atomic_init_u64(&slot->started, 0);
	pg_atomic_init_u64(&slot->jobs, 0);
	pg_atomic_init_u64(&slot->jobs_refused, 0);
}

static void
shared_startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	worker_shared = ShmemInitStruct(SHARED_NAME, sizeof(WorkerShared),
									&found);
	worker_lock = &GetNamedLWLockTranche(SHARED_NAME)[0].lock;
	worker_queue_lock = &GetNamedLWLockTranche(SHARED_NAME)[1].lock;
	if (!found)
	{
		memset(worker_shared, 0, sizeof(WorkerShared));
		pg_atomic_init_u32(&worker_shared->launcher_pid, 0);
		pg_atomic_init_u32(&worker_shared->stopped, 0);
		pg_atomic_init_u32(&worker_shared->kicks, 0);
		pg_atomic_init_u32(&worker_shared->listen_generation, 0);
		for (int i = 0; i < WORKER_SLOTS; i++)
			slot_init(&worker_shared->slots[i]);
		for (int i = 0; i < WORKER_WRITER_MAX; i++)
			writer_init(&worker_shared->writers[i]);
		pg_atomic_init_u32(&worker_shared->sites_wanted, 0);
		pg_atomic_init_u32(&worker_shared->sites_pid, 0);
		pg_atomic_init_u32(&worker_shared->sweep_due, 1);
	}
	queue_shmem_init(found);
	claim_shmem_init(&GetNamedLWLockTranche(SHARED_NAME)[2].lock, found);
	LWLockRelease(AddinShmemInitLock);
}

void
worker_shared_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = shared_request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shared_startup;
}

void
worker_wake(uint32 pid)
{
	PGPROC	   *proc = (pid != 0) ? BackendPidGetProc((int) pid) : NULL;

	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

bool
worker_is_living(uint32 pid)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->slots[i].pid) == pid)
			return true;
	}
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->writers[i].pid) == pid)
			return true;
	}
	return pg_atomic_read_u32(&worker_shared->sites_pid) == pid;
}
