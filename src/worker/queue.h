/*-------------------------------------------------------------------------
 *
 * queue.h
 *	  The writers' end of the queue of jobs; the other one is serve/jobs.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_WORKER_QUEUE_H
#define NARINFO_WORKER_QUEUE_H

#include "postgres.h"

#include "serve/jobs.h"

/* GUC pg_narinfo.queue_size: jobs that wait or are in work. */
extern int	queue_size;

extern Size queue_shmem_size(void);

/* Called once by the postmaster with the memory, or to find it again. */
extern void queue_shmem_init(bool found);

/*
 * The oldest waiting job, with its text palloc'd; false if none waits.
 * "tries" tells how many writers had it before and did not finish it.
 */
extern bool queue_take(JobTicket *ticket, Job *job, char **text, int *tries);

/* Writes the result and wakes whoever waits for it. */
extern void queue_answer(const JobTicket *ticket, const JobResult *result);

/*
 * The jobs that this process has taken and not answered wait again; one that
 * several writers failed to finish is answered with 503.
 */
extern void queue_put_back(void);

/* This process will not ask for its jobs any more. */
extern void queue_forget_mine(void);

/* How many jobs wait. */
extern int	queue_waiting(void);

#endif							/* NARINFO_WORKER_QUEUE_H */
