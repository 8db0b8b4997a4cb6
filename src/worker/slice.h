/*-------------------------------------------------------------------------
 *
 * slice.h
 *	  The time slice of an HTTP worker.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_WORKER_SLICE_H
#define NARINFO_WORKER_SLICE_H

/* Asks the kernel to let this process run soon rather than for long. */
extern void worker_shorten_slice(void);

#endif							/* NARINFO_WORKER_SLICE_H */
