/*-------------------------------------------------------------------------
 *
 * queue.c
 *	  The bounded queue through which HTTP workers hand jobs to writers.
 *
 *	  pg_narinfo.queue_size slots in shared memory:
 *
 *		QueueShared | QueueSlot * n | text of JOB_TEXT_MAX bytes * n
 *
 *	  FREE --- job_submit ---> WAITING --- queue_take ---> TAKEN
 *	   ^					   |  ^						   |  |
 *	   |	  job_cancel,	   |  |	  queue_put_back	   |  |
 *	   +--- its owner ends ----+  +--- its writer ends ----+  |
 *	   |													  v
 *	   +--- job_poll, or its owner has ended --- DONE <--- queue_answer
 *
 * A slot belongs to the process that submitted the job, until it asked for
 * the result (or to nobody), and while TAKEN to the writer, too.  Both are
 * pids, and every job has a number that none other ever has, so that whoever
 * comes late, or has got the pid of one who ended, finds that it is not his.
 * A process leaves in an orderly way, through its exit callbacks, or by a
 * crash: then the postmaster makes the memory anew and the queue is empty.
 *
 * All is done under one lock, for moments: slots are few, so they are simply
 * looked through.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/shmem.h"

#include "worker/queue.h"
#include "worker/worker.h"

/* So many writers may end over a job before it is given up. */
#define TRIES_MAX	3

typedef enum SlotState
{
	SLOT_FREE,
	SLOT_WAITING,
	SLOT_TAKEN,
	SLOT_DONE
} SlotState;

typedef struct QueueSlot
{
	SlotState	state;
	uint32		owner;			/* pid; 0: has ended, or never was */
	uint32		taker;			/* pid of the writer while TAKEN */
	int			tries;			/* writers that did not finish it */
	uint64		number;
	Job			job;
	JobResult	result;
} QueueSlot;

typedef struct QueueShared
{
	uint64		next_number;
	uint32		nslots;
	QueueSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} QueueShared;

int			queue_size = 256;

static QueueShared *queue = NULL;

/* ---- memory ---- */

static Size
slots_size(uint32 nslots)
{
	return MAXALIGN(add_size(offsetof(QueueShared, slots),
							 mul_size(sizeof(QueueSlot), nslots)));
}

Size
queue_shmem_size(void)
{
	return add_size(slots_size((uint32) queue_size),
					mul_size(JOB_TEXT_MAX, (Size) queue_size));
}

void
queue_shmem_init(bool found)
{
	bool		found_queue;

	queue = ShmemInitStruct("pg_narinfo queue", queue_shmem_size(),
							&found_queue);
	if (found)
		return;
	memset(queue, 0, slots_size((uint32) queue_size));
	queue->next_number = 1;
	queue->nslots = (uint32) queue_size;
}

static char *
slot_text(uint32 slot)
{
	return (char *) queue + slots_size(queue->nslots) +
		(Size) slot * JOB_TEXT_MAX;
}

/* ---- finding slots; the lock is held ---- */

static uint32
count_free(void)
{
	uint32		n = 0;

	for (uint32 i = 0; i < queue->nslots; i++)
		n += queue->slots[i].state == SLOT_FREE ? 1 : 0;
	return n;
}

static QueueSlot *
find_free(uint32 *number)
{
	for (uint32 i = 0; i < queue->nslots; i++)
	{
		if (queue->slots[i].state == SLOT_FREE)
		{
			*number = i;
			return &queue->slots[i];
		}
	}
	return NULL;
}

/* The slot of a ticket, if it is still about this job. */
static QueueSlot *
find_ticket(const JobTicket *ticket)
{
	QueueSlot  *slot;

	if (queue == NULL || ticket->slot >= queue->nslots)
		return NULL;
	slot = &queue->slots[ticket->slot];
	return slot->state != SLOT_FREE && slot->number == ticket->number ?
		slot : NULL;
}

static void
free_slot(QueueSlot *slot)
{
	slot->state = SLOT_FREE;
	slot->owner = 0;
	slot->taker = 0;
}

static void
finish(QueueSlot *slot, const JobResult *result)
{
	slot->taker = 0;
	slot->result = *result;
	slot->state = SLOT_DONE;
	if (slot->owner == 0)
		free_slot(slot);
}

/* ---- the HTTP workers' end ---- */

/* Is there a writer, or one on its way? */
static bool
have_writer(void)
{
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
	{
		if (pg_atomic_read_u32(&worker_shared->writers[i].pid) != 0)
			return true;
	}
	return false;
}

static void
wake_writers(void)
{
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
		worker_wake(pg_atomic_read_u32(&worker_shared->writers[i].pid));
}

JobRoom
job_room(void)
{
	uint32		number;
	bool		room;

	if (worker_writer_workers == 0 || RecoveryInProgress())
		return JOB_NEVER;
	if (queue == NULL || !have_writer())
		return JOB_NOBODY;
	LWLockAcquire(worker_queue_lock, LW_SHARED);
	room = find_free(&number) != NULL;
	LWLockRelease(worker_queue_lock);
	return room ? JOB_ROOM : JOB_FULL;
}

JobRoom
job_submit(const Job *job, const char *text, JobTicket *ticket)
{
	QueueSlot  *slot = NULL;
	uint32		number;

	Assert(job->text_len <= JOB_TEXT_MAX);
	if (queue == NULL || !have_writer())
		return JOB_NOBODY;

	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	if (ticket != NULL || count_free() > queue->nslots / 2)
		slot = find_free(&number);
	if (slot != NULL)
	{
		slot->number = queue->next_number++;
		slot->owner = (ticket != NULL) ? (uint32) MyProcPid : 0;
		slot->taker = 0;
		slot->tries = 0;
		slot->job = *job;
		if (job->text_len > 0)
			memcpy(slot_text(number), text, job->text_len);
		slot->state = SLOT_WAITING;
		if (ticket != NULL)
			*ticket = (JobTicket) {number, slot->number};
	}
	LWLockRelease(worker_queue_lock);
	if (slot == NULL)
		return JOB_FULL;
	wake_writers();
	return JOB_ROOM;
}

bool
job_poll(const JobTicket *ticket, JobResult *result)
{
	QueueSlot  *slot;
	bool		done = true;

	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	slot = find_ticket(ticket);
	if (slot == NULL)
	{
		memset(result, 0, sizeof(*result));
		result->status = 503;
		strlcpy(result->reason, "the job was lost", JOB_REASON_MAX);
	}
	else if (slot->state == SLOT_DONE)
	{
		*result = slot->result;
		free_slot(slot);
	}
	else
		done = false;
	LWLockRelease(worker_queue_lock);
	return done;
}

bool
job_cancel(const JobTicket *ticket)
{
	QueueSlot  *slot;
	bool		cancelled;

	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	slot = find_ticket(ticket);
	cancelled = (slot == NULL || slot->state == SLOT_WAITING);
	if (slot != NULL && cancelled)
		free_slot(slot);
	LWLockRelease(worker_queue_lock);
	return cancelled;
}

void
queue_forget_mine(void)
{
	if (queue == NULL)
		return;
	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < queue->nslots; i++)
	{
		QueueSlot  *slot = &queue->slots[i];

		if (slot->state == SLOT_FREE || slot->owner != (uint32) MyProcPid)
			continue;
		slot->owner = 0;
		if (slot->state != SLOT_TAKEN)
			free_slot(slot);
	}
	LWLockRelease(worker_queue_lock);
}

/* ---- the writers' end ---- */

static QueueSlot *
find_oldest(uint32 *number)
{
	QueueSlot  *oldest = NULL;

	for (uint32 i = 0; i < queue->nslots; i++)
	{
		QueueSlot  *slot = &queue->slots[i];

		if (slot->state == SLOT_WAITING &&
			(oldest == NULL || slot->number < oldest->number))
		{
			oldest = slot;
			*number = i;
		}
	}
	return oldest;
}

bool
queue_take(JobTicket *ticket, Job *job, char **text, int *tries)
{
	char	   *room = palloc(JOB_TEXT_MAX + 1);
	QueueSlot  *slot;

	/* palloc, which may raise an error, is done before anything is taken */
	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	slot = find_oldest(&ticket->slot);
	if (slot != NULL)
	{
		slot->state = SLOT_TAKEN;
		slot->taker = (uint32) MyProcPid;
		ticket->number = slot->number;
		*job = slot->job;
		*tries = slot->tries;
		memcpy(room, slot_text(ticket->slot), job->text_len);
		room[job->text_len] = '\0';
	}
	LWLockRelease(worker_queue_lock);
	if (slot == NULL)
	{
		pfree(room);
		return false;
	}
	*text = room;
	return true;
}

void
queue_answer(const JobTicket *ticket, const JobResult *result)
{
	QueueSlot  *slot;
	uint32		owner = 0;

	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	slot = find_ticket(ticket);
	if (slot != NULL && slot->state == SLOT_TAKEN &&
		slot->taker == (uint32) MyProcPid)
	{
		owner = slot->owner;
		finish(slot, result);
	}
	LWLockRelease(worker_queue_lock);
	worker_wake(owner);
}

void
queue_put_back(void)
{
	JobResult	given_up = {
		.status = 503, .reason = "writers failed over this"
	};
	uint32		owners[16];
	int			nowners = 0;

	if (queue == NULL)
		return;
	LWLockAcquire(worker_queue_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < queue->nslots; i++)
	{
		QueueSlot  *slot = &queue->slots[i];

		if (slot->state != SLOT_TAKEN || slot->taker != (uint32) MyProcPid)
			continue;
		slot->taker = 0;
		if (slot->owner == 0)
			free_slot(slot);
		else if (++slot->tries < TRIES_MAX)
			slot->state = SLOT_WAITING;
		else
		{
			if (nowners < (int) lengthof(owners))
				owners[nowners++] = slot->owner;
			finish(slot, &given_up);
		}
	}
	LWLockRelease(worker_queue_lock);

	/* whoever is not woken here looks by itself once a second */
	for (int i = 0; i < nowners; i++)
		worker_wake(owners[i]);
	wake_writers();
}

int
queue_waiting(void)
{
	int			n = 0;

	if (queue == NULL)
		return 0;
	LWLockAcquire(worker_queue_lock, LW_SHARED);
	for (uint32 i = 0; i < queue->nslots; i++)
		n += queue->slots[i].state == SLOT_WAITING ? 1 : 0;
	LWLockRelease(worker_queue_lock);
	return n;
}
