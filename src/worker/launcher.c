/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  The process that starts the others, and starts them again.
 *
 *	  postmaster --- starts, also after a crash ---> launcher
 *	  launcher	 --- registers, is told of their end ---> HTTP workers,
 *													  writers, janitor,
 *													  sites worker
 *
 * It is connected to no database, so that it hinders nobody who wants to drop
 * one, but to the shared catalogs, so that it knows beforehand whether the
 * database and the role are there: a worker that cannot connect fills the log
 * with its complaints.
 *
 * Whenever it wakes it does the same again, from what it finds:
 *
 *	  reap		workers that ended give their slots back, and make the next
 *				start wait: from BACKOFF_MIN, doubled each time that a worker
 *				did not live for LIVED_WELL, up to BACKOFF_MAX
 *	  retire	those that are too many finish what they have, and leave
 *	  approve	new addresses are tried without SO_REUSEPORT and, if nobody
 *				else has them, handed to the workers
 *	  start		as many as are missing
 *
 * Whatever keeps it from starting workers is logged when it is new, not each
 * time it is found, and shown by narinfo.stat_workers meanwhile.
 *
 * When it has to go, it takes its workers along: only their registrations,
 * which die with it, tell for sure whether a worker is there.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "worker/worker.h"

#define BACKOFF_MIN		500		/* ms */
#define BACKOFF_MAX		60000	/* ms */
#define LIVED_WELL		10000	/* ms */
#define LOOK_AGAIN		1000	/* ms, for a database or role to appear */

/* After a crash of another process it is started at once, whatever this. */
#define LAUNCHER_RESTART 1		/* s */

typedef struct Child
{
	BackgroundWorkerHandle *handle; /* NULL: none of ours in this slot */
	TimestampTz started;
	bool		leaving;		/* was told to */
} Child;

static Child children[WORKER_SLOTS];
static Child writers[WORKER_WRITER_MAX];
static Child janitor;
static Child sites;

/* The addresses that workers have, and whether they were ever approved. */
static char approved[WORKER_LISTEN_MAX] = "";

static int	backoff = BACKOFF_MIN;
static TimestampTz next_try = 0;
static uint32 kicks = 0;

void
worker_register_launcher(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, "pg_narinfo launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pg_narinfo launcher", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;

	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = LAUNCHER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_narinfo",
			sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "pg_narinfo_launcher_main",
			sizeof(worker.bgw_function_name));
	RegisterBackgroundWorker(&worker);
}

/* ---- telling, and trying again ---- */

static void
set_detail(const char *detail)
{
	LWLockAcquire(worker_lock, LW_EXCLUSIVE);
	strlcpy(worker_shared->detail, detail, WORKER_DETAIL_MAX);
	LWLockRelease(worker_lock);
}

/* Something keeps us from starting workers; "hint" may be NULL. */
static void
trouble(const char *detail, const char *hint)
{
	/* only we write it, so we may read it without the lock */
	if (strcmp(worker_shared->detail, detail) == 0)
		return;
	set_detail(detail);
	ereport(LOG,
			(errmsg("pg_narinfo does not serve HTTP as it should: %s",
					detail),
			 hint ? errhint("%s", hint) : 0));
}

static void
trouble_over(void)
{
	if (worker_shared->detail[0] == '\0')
		return;
	set_detail("");
	ereport(LOG, (errmsg("pg_narinfo serves HTTP as it should again")));
}

static void
try_after(int ms)
{
	next_try = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

static void
back_off(void)
{
	try_after(backoff);
	backoff = Min(backoff * 2, BACKOFF_MAX);
}

static void
try_at_once(void)
{
	backoff = BACKOFF_MIN;
	next_try = 0;
}

/* ---- the children ---- */

static bool
slot_used(int i)
{
	return pg_atomic_read_u32(&worker_shared->slots[i].used) != 0;
}

static int
slots_used(void)
{
	int			n = 0;

	for (int i = 0; i < WORKER_SLOTS; i++)
		n += slot_used(i) ? 1 : 0;
	return n;
}

/* Those that serve and are to go on with it. */
static int
serving(void)
{
	int			n = 0;

	for (int i = 0; i < WORKER_SLOTS; i++)
		n += (children[i].handle != NULL && !children[i].leaving) ? 1 : 0;
	return n;
}

static void
free_slot(int i)
{
	WorkerSlot *slot = &worker_shared->slots[i];

	if (children[i].handle != NULL)
		pfree(children[i].handle);
	memset(&children[i], 0, sizeof(Child));
	pg_atomic_write_u32(&slot->pid, 0);
	pg_atomic_write_u32(&slot->first, 0);
	pg_atomic_write_u32(&slot->retire, 0);
	pg_atomic_write_u32(&slot->used, 0);
}

static bool
child_ended(const Child *child)
{
	pid_t		pid;
	BgwHandleStatus status = GetBackgroundWorkerPid(child->handle, &pid);

	if (status == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	return status == BGWH_STOPPED;
}

/* One that has no slot, since it serves nobody, and there is one. */
static void
reap_single(Child *child)
{
	if (child->handle == NULL || !child_ended(child))
		return;
	if (!child->leaving)
		back_off();
	pfree(child->handle);
	memset(child, 0, sizeof(Child));
}

static void
free_writer(int i)
{
	WriterSlot *slot = &worker_shared->writers[i];

	if (writers[i].handle != NULL)
		pfree(writers[i].handle);
	memset(&writers[i], 0, sizeof(Child));
	pg_atomic_write_u32(&slot->pid, 0);
	pg_atomic_write_u32(&slot->used, 0);
}

static void
reap_writers(void)
{
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
	{
		WriterSlot *slot = &worker_shared->writers[i];

		if (writers[i].handle == NULL)
		{
			/* of a launcher before us */
			if (pg_atomic_read_u32(&slot->used) != 0 &&
				pg_atomic_read_u32(&slot->pid) == 0)
				free_writer(i);
			continue;
		}
		if (!child_ended(&writers[i]))
			continue;
		if (!writers[i].leaving)
			back_off();
		free_writer(i);
	}
}

static int
writing(void)
{
	int			n = 0;

	for (int i = 0; i < WORKER_WRITER_MAX; i++)
		n += (writers[i].handle != NULL && !writers[i].leaving) ? 1 : 0;
	return n;
}

/* They finish what is in their hands, or put it back. */
static void
end_writers(int surplus)
{
	for (int i = WORKER_WRITER_MAX - 1; i >= 0 && surplus > 0; i--)
	{
		if (writers[i].handle == NULL || writers[i].leaving)
			continue;
		writers[i].leaving = true;
		TerminateBackgroundWorker(writers[i].handle);
		surplus--;
	}
}

static void
reap(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		died = false;
	bool		died_young = false;

	reap_single(&janitor);
	reap_single(&sites);
	reap_writers();

	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		Child	   *child = &children[i];

		if (child->handle == NULL)
		{
			/* of a launcher before us */
			if (slot_used(i) &&
				pg_atomic_read_u32(&worker_shared->slots[i].pid) == 0)
				free_slot(i);
			continue;
		}
		if (!child_ended(child))
			continue;
		if (!child->leaving)
		{
			died = true;
			if (!TimestampDifferenceExceeds(child->started, now, LIVED_WELL))
				died_young = true;
		}
		free_slot(i);
	}

	if (died && !died_young)
		backoff = BACKOFF_MIN;
	if (died)
		back_off();
}

/* From the last slot down, and the one with the unix sockets at the end. */
static void
retire(int surplus)
{
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = WORKER_SLOTS - 1; i >= 0 && surplus > 0; i--)
		{
			WorkerSlot *slot = &worker_shared->slots[i];

			if (children[i].handle == NULL || children[i].leaving)
				continue;
			if (pass == 0 && pg_atomic_read_u32(&slot->first) != 0)
				continue;
			children[i].leaving = true;
			pg_atomic_write_u32(&slot->retire, 1);
			worker_wake(pg_atomic_read_u32(&slot->pid));
			surplus--;
		}
	}
}

static void
terminate_single(Child *child)
{
	if (child->handle == NULL)
		return;
	child->leaving = true;
	TerminateBackgroundWorker(child->handle);
}

/* narinfo.stop(), or our own end: those that retire have to hurry, too. */
static void
terminate_all(void)
{
	terminate_single(&janitor);
	terminate_single(&sites);
	end_writers(WORKER_WRITER_MAX);
	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		if (children[i].handle == NULL)
			continue;
		children[i].leaving = true;
		TerminateBackgroundWorker(children[i].handle);
	}
}

/* ---- what has to be there before a worker is started ---- */

/*
 * Calls "is_good" with the one row of a shared catalog that has this name; no
 * row is no good.  Who is connected to no database has neither the system
 * caches nor, always, the indexes, so this reads all of the few rows.
 */
static bool
row_is_good(Oid catalog, AttrNumber column, const char *name,
			bool (*is_good) (HeapTuple))
{
	Relation	rel = table_open(catalog, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		good;

	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(name));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	good = HeapTupleIsValid(tuple) && is_good(tuple);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return good;
}

static bool
allows_connections(HeapTuple tuple)
{
	return ((Form_pg_database) GETSTRUCT(tuple))->datallowconn;
}

static bool
can_login(HeapTuple tuple)
{
	return ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
}

static bool
database_ready(void)
{
	char		detail[WORKER_DETAIL_MAX] = "";
	const char *hint = NULL;

	StartTransactionCommand();
	if (!row_is_good(DatabaseRelationId, Anum_pg_database_datname,
					 worker_database, allows_connections))
	{
		snprintf(detail, sizeof(detail),
				 "there is no database \"%s\" that allows connections",
				 worker_database);
		hint = "Create it, or set \"pg_narinfo.database\".";
	}
	else if (!row_is_good(AuthIdRelationId, Anum_pg_authid_rolname,
						  worker_role, can_login))
	{
		snprintf(detail, sizeof(detail),
				 "there is no role \"%s\" that can log in", worker_role);
		hint = "CREATE EXTENSION pg_narinfo makes it.";
	}
	CommitTransactionCommand();

	if (detail[0] == '\0')
		return true;
	trouble(detail, hint);
	return false;
}

/* What stands behind the last ':' of an address. */
static Span
address_port(Span address)
{
	const char *colon = memrchr(address.data, ':', address.len);

	return (colon == NULL) ? address :
		span_skip(address, (size_t) (colon - address.data));
}

/* Takes the next address off a list; false at its end. */
static bool
next_address(Span *rest, Span *address)
{
	const char *comma;
	size_t		len;

	while (rest->len > 0 && (*rest->data == ' ' || *rest->data == ','))
		*rest = span_skip(*rest, 1);
	if (rest->len == 0)
		return false;
	comma = memchr(rest->data, ',', rest->len);
	len = (comma == NULL) ? rest->len : (size_t) (comma - rest->data);
	*address = span_of(rest->data, len);
	while (address->len > 0 && address->data[address->len - 1] == ' ')
		address->len--;
	*rest = span_skip(*rest, len);
	return true;
}

static bool
port_is_ours(Span address)
{
	Span		rest = span_of(approved, strlen(approved));
	Span		ours;

	while (next_address(&rest, &ours))
	{
		if (span_equal(address_port(ours), address_port(address)))
			return true;
	}
	return false;
}

/*
 * Those of the list that can be tried.  While workers listen on a port, a
 * trial on it would find but ourselves, on another address of this machine,
 * too.
 */
static char *
addresses_to_try(void)
{
	static char list[WORKER_LISTEN_MAX];
	Span		rest = span_of(worker_listen, strlen(worker_listen));
	Span		address;
	size_t		len = 0;

	if (slots_used() == 0)
		return worker_listen;

	list[0] = '\0';
	while (next_address(&rest, &address))
	{
		if (port_is_ours(address))
			continue;
		len += snprintf(list + len, sizeof(list) - len, "%s%.*s",
						len > 0 ? "," : "", (int) address.len, address.data);
	}
	return list;
}

static bool
approve_addresses(void)
{
	char	   *list = addresses_to_try();
	char		detail[WORKER_DETAIL_MAX];

	if (list[0] != '\0' &&
		!http_addresses_free(list, detail, sizeof(detail)))
	{
		trouble(detail,
				"Does another server use it? Set \"pg_narinfo.listen\".");
		return false;
	}

	strlcpy(approved, worker_listen, sizeof(approved));
	LWLockAcquire(worker_lock, LW_EXCLUSIVE);
	strlcpy(worker_shared->listen, worker_listen, WORKER_LISTEN_MAX);
	LWLockRelease(worker_lock);
	pg_atomic_fetch_add_u32(&worker_shared->listen_generation, 1);
	for (int i = 0; i < WORKER_SLOTS; i++)
		worker_wake(pg_atomic_read_u32(&worker_shared->slots[i].pid));
	return true;
}

/* ---- starting ---- */

static bool
have_first(void)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		if (children[i].handle != NULL && !children[i].leaving &&
			pg_atomic_read_u32(&worker_shared->slots[i].first) != 0)
			return true;
	}
	return false;
}

/*
 * Starts a worker of this kind, whose function has it in its name; false when
 * there is no room for another.
 */
static bool
start(Child *child, const char *kind, int number,
	  BgWorkerStartTime start_time)
{
	BackgroundWorker worker;
	MemoryContext old;
	bool		started;

	memset(&worker, 0, sizeof(worker));
	snprintf(worker.bgw_type, BGW_MAXLEN, "pg_narinfo %s", kind);
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_narinfo %s %d", kind, number);
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "pg_narinfo_%s_main",
			 kind);
	for (char *c = worker.bgw_function_name; *c != '\0'; c++)
	{
		if (*c == ' ')
			*c = '_';
	}
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = start_time;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_narinfo",
			sizeof(worker.bgw_library_name));
	worker.bgw_main_arg = Int32GetDatum(number);
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	started = RegisterDynamicBackgroundWorker(&worker, &child->handle);
	MemoryContextSwitchTo(old);
	if (started)
	{
		child->started = GetCurrentTimestamp();
		child->leaving = false;
		return true;
	}
	child->handle = NULL;
	trouble("there is no room for another background worker",
			"Raise \"max_worker_processes\" by the number of HTTP "
			"workers and writer workers, and two; with other sites, "
			"three.");
	return false;
}

static bool
start_child(int i)
{
	WorkerSlot *slot = &worker_shared->slots[i];

	pg_atomic_write_u32(&slot->first, have_first() ? 0 : 1);
	pg_atomic_write_u32(&slot->used, 1);

	/* As soon as one can read: on a hot standby, too */
	if (start(&children[i], "http worker", i, BgWorkerStart_ConsistentState))
		return true;
	free_slot(i);
	return false;
}

static int
find_free_slot(void)
{
	for (int i = 0; i < WORKER_SLOTS; i++)
	{
		if (!slot_used(i))
			return i;
	}
	return -1;
}

/* All that are missing; false when something is in the way. */
static bool
start_missing(void)
{
	while (serving() < worker_http_workers)
	{
		int			i = find_free_slot();

		/* So many still finish their replies; one of them ends and wakes us */
		if (i < 0)
			return true;
		if (!start_child(i))
			return false;
	}
	return true;
}

/* These write, so a standby has none before it is promoted. */
static bool
start_janitor(void)
{
	return janitor.handle != NULL ||
		start(&janitor, "janitor", 0, BgWorkerStart_RecoveryFinished);
}

/* Only where there are other sites, as the janitor has seen. */
static bool
sites_missing(void)
{
	return pg_atomic_read_u32(&worker_shared->sites_wanted) != 0 &&
		sites.handle == NULL;
}

static bool
start_sites(void)
{
	return !sites_missing() ||
		start(&sites, "sites", 0, BgWorkerStart_RecoveryFinished);
}

static bool
start_writers(void)
{
	for (int i = 0; i < WORKER_WRITER_MAX; i++)
	{
		if (writing() >= worker_writer_workers)
			return true;
		if (pg_atomic_read_u32(&worker_shared->writers[i].used) != 0)
			continue;
		pg_atomic_write_u32(&worker_shared->writers[i].used, 1);
		if (!start(&writers[i], "writer", i, BgWorkerStart_RecoveryFinished))
		{
			free_writer(i);
			return false;
		}
	}
	return true;
}

/* ---- the loop ---- */

static bool
http_work_left(void)
{
	if (worker_http_workers == 0)
		return false;
	return serving() < worker_http_workers ||
		strcmp(approved, worker_listen) != 0;
}

/* Is there something that we have to try, now or later? */
static bool
work_left(void)
{
	return http_work_left() || janitor.handle == NULL || sites_missing() ||
		writing() < worker_writer_workers;
}

static void
work(void)
{
	reap();

	if (pg_atomic_read_u32(&worker_shared->stopped) != 0)
	{
		terminate_all();
		set_detail("stopped by narinfo.stop()");
		return;
	}

	if (serving() > worker_http_workers)
		retire(serving() - worker_http_workers);
	end_writers(writing() - worker_writer_workers);

	if (!work_left())
		trouble_over();
	else if (GetCurrentTimestamp() < next_try)
		return;
	else if (!database_ready())
		try_after(LOOK_AGAIN);
	else if (http_work_left() &&
			 (slots_used() == 0 || strcmp(approved, worker_listen) != 0) &&
			 !approve_addresses())
		back_off();
	else if (!start_missing() || !start_janitor() || !start_writers() ||
			 !start_sites())
		back_off();
	else
		trouble_over();
}

/* Milliseconds to wait for something to happen; -1 for ever. */
static long
time_to_wait(void)
{
	if (pg_atomic_read_u32(&worker_shared->stopped) != 0 || !work_left())
		return -1;
	if (next_try == 0)
		return BACKOFF_MIN;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   next_try) + 1;
}

static void
launcher_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	terminate_all();
	pg_atomic_write_u32(&worker_shared->launcher_pid, 0);
}

static void
launcher_start(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	before_shmem_exit(launcher_exit, (Datum) 0);
	pg_atomic_write_u32(&worker_shared->launcher_pid, (uint32) MyProcPid);
	set_detail("");
	pgstat_report_appname(MyBgworkerEntry->bgw_type);
}

static void
look_for_news(void)
{
	uint32		now = pg_atomic_read_u32(&worker_shared->kicks);

	worker_interrupts();

	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		try_at_once();
	}
	if (now != kicks)
	{
		kicks = now;
		try_at_once();
	}
}

void
pg_narinfo_launcher_main(Datum arg)
{
	uint32		wait_event;

	(void) arg;
	launcher_start();
	wait_event = compat_wait_event("PgNarinfoLauncher");

	/* With 0, the postmaster would not start us again when we are killed */
	while (!ShutdownRequestPending)
	{
		long		timeout;

		look_for_news();
		work();

		timeout = time_to_wait();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH |
						 (timeout >= 0 ? WL_TIMEOUT : 0), timeout,
						 wait_event);
		ResetLatch(MyLatch);
	}
	proc_exit(1);
}
