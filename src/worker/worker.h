/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  What the parts of the worker room share: settings, and the shared
 *	  memory through which launcher, workers and SQL functions know of each
 *	  other.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#ifndef NARINFO_WORKER_WORKER_H
#define NARINFO_WORKER_WORKER_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/lwlock.h"

#include "http/http.h"

/* ---- settings (settings.c) ---- */

extern char *worker_database;
extern char *worker_listen;
extern char *worker_role;
extern int	worker_http_workers;
extern int	worker_writer_workers;
extern int	worker_log_requests;	/* HttpLogLevel */

/* Defines the settings; called once by _PG_init. */
extern void worker_define_settings(void);

/* The limits as the settings have them now; texts live until a reload. */
extern void worker_http_limits(HttpLimits *limits);

/* ---- shared memory (shared.c) ---- */

#define WORKER_HTTP_MAX		64	/* of pg_narinfo.http_workers */
#define WORKER_WRITER_MAX	16	/* of pg_narinfo.writer_workers */

/*
 * Twice as many places as workers, so that new ones can start while old ones
 * still finish what they send.
 */
#define WORKER_SLOTS		(2 * WORKER_HTTP_MAX)

#define WORKER_LISTEN_MAX	1024	/* bytes of pg_narinfo.listen */
#define WORKER_DETAIL_MAX	256

typedef enum WorkerState
{
	WORKER_STARTING,
	WORKER_RUNNING,
	WORKER_LEAVING
} WorkerState;

/*
 * One HTTP worker.  The launcher takes a slot before it starts the worker and
 * frees it when the worker has gone; between these the worker writes all but
 * "used", "first" and "retire".  The figures are copied here once a second.
 */
typedef struct WorkerSlot
{
	pg_atomic_uint32 used;		/* launcher: taken */
	pg_atomic_uint32 first;		/* launcher: serves the unix sockets */
	pg_atomic_uint32 retire;	/* launcher: finish what you have, and leave */
	pg_atomic_uint32 pid;		/* 0: not running */
	pg_atomic_uint32 state;		/* WorkerState */
	pg_atomic_uint32 connections;	/* open now */
	pg_atomic_uint64 started;	/* TimestampTz */
	pg_atomic_uint64 connections_accepted;
	pg_atomic_uint64 connections_refused;
	pg_atomic_uint64 requests;
	pg_atomic_uint64 bad_requests;
	pg_atomic_uint64 bytes_sent;
	pg_atomic_uint64 auth_failures;
} WorkerSlot;

/*
 * One writer worker.  As above, but the launcher ends one that is too many
 * itself.
 */
typedef struct WriterSlot
{
	pg_atomic_uint32 used;		/* launcher: taken */
	pg_atomic_uint32 pid;		/* 0: not running */
	pg_atomic_uint32 state;		/* WorkerState */
	pg_atomic_uint64 started;	/* TimestampTz */
	pg_atomic_uint64 jobs;		/* answered */
	pg_atomic_uint64 jobs_refused;	/* those with 400 or more */
} WriterSlot;

/*
 * "listen" is the list that the launcher has found to be free; workers serve
 * it and look again whenever the generation has changed.  Both it and
 * "detail" are guarded by worker_lock.
 */
typedef struct WorkerShared
{
	pg_atomic_uint32 launcher_pid;	/* 0: not running */
	pg_atomic_uint32 stopped;	/* narinfo.stop() was called */
	pg_atomic_uint32 kicks;		/* grows when the launcher is not to wait */
	pg_atomic_uint32 listen_generation;
	char		listen[WORKER_LISTEN_MAX];
	char		detail[WORKER_DETAIL_MAX];	/* why no worker runs, or "" */
	pg_atomic_uint32 sites_wanted;	/* there are other sites */
	pg_atomic_uint32 sites_pid; /* of their worker; 0: not running */
	pg_atomic_uint32 sweep_due; /* nobody looked for unfinished uploads of
								 * the processes before us */
	WorkerSlot	slots[WORKER_SLOTS];
	WriterSlot	writers[WORKER_WRITER_MAX];
} WorkerShared;

/* NULL unless the library is in shared_preload_libraries. */
extern WorkerShared *worker_shared;
extern LWLock *worker_lock;
extern LWLock *worker_queue_lock;	/* of queue.c */

/* Installs the hooks that make the shared memory. */
extern void worker_shared_init(void);

/* Sets the latch of another process; none, if it has gone. */
extern void worker_wake(uint32 pid);

/* Is this one of the processes that receive uploads, or fetch files? */
extern bool worker_is_living(uint32 pid);

/* ---- workers that serve nobody (turns.c) ---- */

/*
 * Such a worker until it is told to go: connects, and again and again calls
 * "turn", which returns ms to wait, or until the socket, if there is one, can
 * be read; the context is reset after each.  What it raises ends the worker.
 */
extern void worker_take_turns(const char *name, uint32 wait_event,
							  pgsocket socket,
							  long (*turn) (MemoryContext context))
			pg_attribute_noreturn();

/* In a PG_CATCH(): as if nothing had happened, in no transaction. */
extern void worker_forget_error(MemoryContext context);

/* ---- files of mirrors (sites_files.c) ---- */

/*
 * What the worker of sites does, outside of a transaction, for caches with
 * copies_include_files: returns ms until it is to do so again, or its latch is
 * set, or fetch_fd() can be read.  "looked" tells whether there was something
 * to do, so that an error of before has passed.
 */
extern long sites_files_turn(bool *looked);

/* ---- interrupts (interrupts.c) ---- */

/* To be called often, outside of a transaction. */
extern void worker_interrupts(void);

/* ---- the log of requests (request_log.c) ---- */

/* The hook for http_server_create(): only remembers. */
extern void worker_log_request(const HttpLogRecord *record);

/* Writes what was remembered to the server's log. */
extern void worker_log_flush(void);

/* ---- processes ---- */

extern void worker_register_launcher(void);
extern PGDLLEXPORT void pg_narinfo_launcher_main(Datum arg);
extern PGDLLEXPORT void pg_narinfo_http_worker_main(Datum arg);
extern PGDLLEXPORT void pg_narinfo_janitor_main(Datum arg);
extern PGDLLEXPORT void pg_narinfo_writer_main(Datum arg);
extern PGDLLEXPORT void pg_narinfo_sites_main(Datum arg);

/* Called once by _PG_init. */
extern void worker_init(void);

#endif							/* NARINFO_WORKER_WORKER_H */
