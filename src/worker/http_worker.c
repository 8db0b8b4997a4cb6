/*-------------------------------------------------------------------------
 *
 * http_worker.c
 *	  The process that answers HTTP.
 *
 *	  start		role and database, shared memory, HTTP server, listeners
 *		|
 *		v
 *	  wait <--------------------------------+	latch, sockets, a timer
 *		|									|
 *		+-- settings read again, new addresses, told to leave?
 *		|									|
 *		+-- http_server_poll: parse			|
 *		+-- for each ready request: serve_request	(one transaction,
 *		|									|		begun on demand)
 *		+-- serve_finish: commit			|
 *		+-- serve_errands: answer what the writers have done
 *		|									|
 *		+-- http_server_flush: write -------+
 *
 * No transaction is open while it waits.  It only reads.
 *
 * Leaving.  SIGTERM (shutdown, DROP DATABASE … WITH (FORCE), narinfo.stop())
 * stops accepting and lets what was begun be finished, for LEAVE_PATIENCE at
 * most, since somebody waits for us.  When the launcher retires a worker of
 * which there are too many, nobody waits, and every reply is sent to its end.
 * Nothing in the loop waits for long while SIGTERM is only noted: lookups
 * take no lock that they would not give up within milliseconds (batch.c).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>
#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "fetch/fetch.h"
#include "serve/serve.h"
#include "worker/queue.h"
#include "worker/slice.h"
#include "worker/worker.h"

#define LEAVE_PATIENCE	2000	/* ms */
#define UPKEEP_INTERVAL 1000	/* ms between statistics */
#define MISSING_INTERVAL 200	/* ms between looks at files on their way */
#define LISTEN_AGAIN	10000	/* ms after listening failed */

/* Requests answered in one transaction, at most. */
#define BATCH_MAX		256

/*
 * From so many requests on we look for more without waiting first, which
 * saves a system call a batch under load; but not for ever, since waiting is
 * how we notice that the postmaster died.
 */
#define BUSY_BATCH		4
#define BUSY_ROUNDS		64

static WorkerSlot *slot = NULL;
static HttpServer *server = NULL;
static WaitEventSet *events = NULL;
static uint32 wait_event = 0;

static uint32 generation = 0;	/* of the addresses that we listen on */
static bool listening = false;
static TimestampTz listen_again = 0;	/* 0: when the addresses change */
static bool figures_pending = false;
static bool errands_wait = false;	/* for a writer */
static bool missing_wait = false;	/* for a file */
static bool fetch_moved = false;	/* something came of one */
static bool woken = false;		/* the latch was set since we looked at them */
static TimestampTz next_upkeep = 0;
static TimestampTz leave_at = 0;	/* when patience ends */

/* ---- beginning and end ---- */

static void
worker_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	pg_atomic_write_u32(&slot->connections, 0);
	pg_atomic_write_u32(&slot->pid, 0);
	worker_wake(pg_atomic_read_u32(&worker_shared->launcher_pid));
}

static void
forget_jobs(int code, Datum arg)
{
	(void) code;
	(void) arg;
	fetch_leave();
	queue_forget_mine();
}

/*
 * Sockets are not among the files that PostgreSQL counts, so leave it those
 * that it may open, and take three in four of the rest: connections may also
 * have a file to send, but those that idle, the most, have none.
 */
static void
bound_by_descriptors(HttpLimits *limits)
{
	static long told = 0;
	struct rlimit files;
	long		room;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0)
		return;
	if (files.rlim_cur < files.rlim_max)
	{
		files.rlim_cur = files.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &files);
		(void) getrlimit(RLIMIT_NOFILE, &files);
	}
	if (files.rlim_cur == RLIM_INFINITY || files.rlim_cur > INT_MAX)
		return;

	room = ((long) files.rlim_cur - max_safe_fds - 64) / 4 * 3;
	room = Max(room, 16);
	if (limits->max_connections <= room)
		return;

	if (told != room)
		ereport(LOG,
				(errmsg("pg_narinfo serves %ld HTTP connections at a time, "
						"not %d", room, limits->max_connections),
				 errdetail("The process may open %ld files.",
						   (long) files.rlim_cur),
				 errhint("Raise the limit of open files (ulimit -n, "
						 "LimitNOFILE), or lower "
						 "\"pg_narinfo.max_connections\".")));
	told = room;
	limits->max_connections = (int) room;
}

/* Whatever the role or the database is set to: we only read, and briefly. */
static void
set_session(void)
{
	SetConfigOption("default_transaction_isolation", "read committed",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "on",
					PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("search_path", "pg_catalog", PGC_SUSET, PGC_S_OVERRIDE);
	/* it takes longer than any of our statements */
	SetConfigOption("jit", "off", PGC_SUSET, PGC_S_OVERRIDE);
}

static void
start_server(void)
{
	HttpLimits	limits;
	char		error[256];

	worker_http_limits(&limits);
	bound_by_descriptors(&limits);
	server = http_server_create(&limits, worker_log_request);
	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not set up the HTTP server")));

	/* "create" takes no errors back, so this is where a bad list shows */
	if (!http_server_configure(server, &limits, error, sizeof(error)))
		ereport(LOG,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pg_narinfo ignores a setting: %s", error)));

	wait_event = compat_wait_event("PgNarinfoHttp");
	events = compat_create_wait_event_set(4);
	AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET,
					  NULL, NULL);
	AddWaitEventToSet(events, WL_SOCKET_READABLE, http_server_fd(server),
					  NULL, NULL);
	AddWaitEventToSet(events, WL_SOCKET_READABLE, fetch_fd(), NULL, NULL);
}

/* Our own figures, and those that PostgreSQL keeps of every process. */
static void
report_figures(void)
{
	HttpStats	stats;

	http_server_stats(server, &stats);
	pg_atomic_write_u32(&slot->connections, (uint32) stats.connections);
	pg_atomic_write_u64(&slot->connections_accepted,
						stats.connections_accepted);
	pg_atomic_write_u64(&slot->connections_refused,
						stats.connections_refused);
	pg_atomic_write_u64(&slot->requests, stats.requests);
	pg_atomic_write_u64(&slot->bad_requests, stats.bad_requests);
	pg_atomic_write_u64(&slot->bytes_sent, stats.bytes_sent);
	pg_atomic_write_u64(&slot->auth_failures, serve_auth_failures());

	pgstat_report_stat(true);
}

static void
worker_start(int number)
{
	/* Connecting may have to wait for a lock; until then, die at once */
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	worker_shorten_slice();
	slot = &worker_shared->slots[number];
	pg_atomic_write_u32(&slot->state, WORKER_STARTING);
	pg_atomic_write_u64(&slot->started, (uint64) GetCurrentTimestamp());
	pg_atomic_write_u32(&slot->pid, (uint32) MyProcPid);

	/*
	 * Before we connect, so that it is called after we have left the list of
	 * processes: who waits for our pid to vanish can drop the database then.
	 */
	on_shmem_exit(worker_exit, (Datum) 0);

	BackgroundWorkerInitializeConnection(worker_database, worker_role, 0);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);

	/* Locks are to be had until then, and are not in worker_exit() */
	before_shmem_exit(forget_jobs, (Datum) 0);

	set_session();
	serve_start();
	start_server();
	report_figures();
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* ---- what comes between batches ---- */

static void
listen_failed(const char *error)
{
	/* Nothing to serve on yet: leave it to the launcher, which is patient */
	ereport(listening ? LOG : FATAL,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("pg_narinfo could not listen: %s", error),
			 listening ? errdetail("It listens where it did before.") : 0));
	listen_again = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   LISTEN_AGAIN);
}

static void
follow_addresses(void)
{
	char		addresses[WORKER_LISTEN_MAX];
	char		error[256];
	uint32		now = pg_atomic_read_u32(&worker_shared->listen_generation);

	if (now == generation &&
		(listen_again == 0 || GetCurrentTimestamp() < listen_again))
		return;

	LWLockAcquire(worker_lock, LW_SHARED);
	strlcpy(addresses, worker_shared->listen, sizeof(addresses));
	LWLockRelease(worker_lock);

	generation = now;
	if (!http_server_listen(server, addresses,
							pg_atomic_read_u32(&slot->first) != 0,
							error, sizeof(error)))
	{
		listen_failed(error);
		return;
	}
	listening = true;
	listen_again = 0;
}

static void
reload(void)
{
	HttpLimits	limits;
	char		error[256];

	ProcessConfigFile(PGC_SIGHUP);
	serve_reload();
	worker_http_limits(&limits);
	bound_by_descriptors(&limits);
	if (!http_server_configure(server, &limits, error, sizeof(error)))
		ereport(LOG,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("pg_narinfo keeps its HTTP settings: %s", error)));
}

static void
between_batches(void)
{
	worker_interrupts();

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		reload();
	}

	if (leave_at == 0)
		follow_addresses();

	if (figures_pending && GetCurrentTimestamp() >= next_upkeep)
	{
		report_figures();
		figures_pending = false;
		next_upkeep = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  UPKEEP_INTERVAL);
	}
}

/* True when it is time to be gone. */
static bool
leaving(void)
{
	if (ShutdownRequestPending && (leave_at == 0 || leave_at == DT_NOEND))
		leave_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
											   LEAVE_PATIENCE);
	else if (leave_at == 0 && pg_atomic_read_u32(&slot->retire) != 0)
		leave_at = DT_NOEND;

	if (leave_at == 0)
		return false;

	pg_atomic_write_u32(&slot->state, WORKER_LEAVING);
	return http_server_drain(server) || GetCurrentTimestamp() >= leave_at;
}

/* ---- the loop ---- */

/* Answers what is ready; returns the number of requests. */
static int
serve_batch(void)
{
	HttpRequest *req;
	int			n = 0;

	http_server_poll(server);
	while (n < BATCH_MAX && (req = http_server_next(server)) != NULL)
	{
		serve_request(req);
		n++;
	}
	serve_finish();
	errands_wait = serve_errands(woken);
	fetch_poll();
	missing_wait = serve_missing(woken || fetch_moved);
	woken = fetch_moved = false;
	http_server_flush(server);
	worker_log_flush();
	return n;
}

/* Of two times to wait, -1 being for ever. */
static long
sooner(long a, long b)
{
	if (a < 0 || b < 0)
		return Max(a, b);
	return Min(a, b);
}

static long
wait_time(int served)
{
	long		timeout = http_server_timeout(server);

	if (served >= BATCH_MAX)
		return 0;				/* there may be more that is ready */
	timeout = sooner(timeout, fetch_timeout());
	if (missing_wait)
		timeout = sooner(timeout, MISSING_INTERVAL);
	if (leave_at != 0)
		return (timeout < 0) ? 50 : Min(timeout, 50);
	if (figures_pending || listen_again != 0 || errands_wait)
		return (timeout < 0) ? UPKEEP_INTERVAL :
			Min(timeout, UPKEEP_INTERVAL);
	return timeout;
}

static void
wait_for_work(int served)
{
	WaitEvent	occurred[4];
	int			n;

	n = WaitEventSetWait(events, wait_time(served), occurred,
						 lengthof(occurred), wait_event);
	for (int i = 0; i < n; i++)
	{
		if (occurred[i].events & WL_LATCH_SET)
		{
			ResetLatch(MyLatch);
			woken = true;
		}
		if (occurred[i].events & WL_SOCKET_READABLE)
			figures_pending = true;
		if (occurred[i].fd == fetch_fd())
			fetch_moved = true;
	}
}

static void
worker_loop(void)
{
	int			busy = 0;
	int			served;

	for (;;)
	{
		between_batches();
		if (leaving())
			break;

		served = serve_batch();
		if (served > 0)
			figures_pending = true;
		busy = (served >= BUSY_BATCH) ? busy + 1 : 0;
		if (busy == 0 || busy % BUSY_ROUNDS == 0)
			wait_for_work(busy == 0 ? served : BATCH_MAX);
	}
}

void
pg_narinfo_http_worker_main(Datum arg)
{
	worker_start(DatumGetInt32(arg));
	follow_addresses();
	pg_atomic_write_u32(&slot->state, WORKER_RUNNING);

	worker_loop();

	report_figures();
	http_server_free(server);
	proc_exit(0);
}
