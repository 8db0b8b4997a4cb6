/*-------------------------------------------------------------------------
 *
 * resume.c
 *	  After an error that has passed the subscription resumes by itself; after
 *	  one of the data, never.
 *
 *	  apply worker --- error ---> logged, kept in shared memory by our hook
 *		   |
 *		disable_on_error: the subscription is disabled
 *		   v
 *	  sites worker: a lost connection, a full disk, a cancelled query?
 *					enabled again, as often as PostgreSQL would start it
 *					else: noted in mirror_state, for somebody to mend it
 *
 * disable_on_error stops at every error, and PostgreSQL keeps but their
 * number, so we listen to what replication's processes log.  What somebody has
 * disabled by hand stays so; guard.c notes it.  When an error is not known,
 * since the server was restarted, one try tells what it is.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "replication/worker_internal.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "sites/asked.h"
#include "sites/local.h"
#include "sites/pressure.h"
#include "sites/resume.h"
#include "sites/sites.h"

/* Of one database; errors of others' subscriptions are none of ours. */
typedef struct Shared
{
	slock_t		mutex;
	Oid			database;
	ReplicationError error;		/* at: 0 when there was none */
} Shared;

static Shared *shared = NULL;
static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;
static emit_log_hook_type previous_log_hook = NULL;

/* Of this process. */
static TimestampTz enabled_at = 0;
static bool tried_unknown = false;

/*-------------------------------------------------------------------------
 * Hearing
 *-------------------------------------------------------------------------
 */

static bool
is_ours(void)
{
	return shared != NULL && IsLogicalWorker() && MySubscription != NULL &&
		strcmp(MySubscription->name, SITE_SUBSCRIPTION) == 0;
}

/* Whoever logs may hold locks, so this takes none that can be waited for. */
static void
hear(ErrorData *error)
{
	if (error->elevel >= ERROR && is_ours() &&
		error->sqlerrcode != ERRCODE_ADMIN_SHUTDOWN)
	{
		SpinLockAcquire(&shared->mutex);
		shared->database = MyDatabaseId;
		shared->error.code = error->sqlerrcode;
		shared->error.at = GetCurrentTimestamp();
		strlcpy(shared->error.message, error->message ? error->message : "",
				sizeof(shared->error.message));
		SpinLockRelease(&shared->mutex);
	}
	if (previous_log_hook)
		previous_log_hook(error);
}

bool
sites_last_error(ReplicationError *error)
{
	bool		found;

	if (shared == NULL)
		return false;
	SpinLockAcquire(&shared->mutex);
	*error = shared->error;
	found = shared->database == MyDatabaseId && error->at != 0;
	SpinLockRelease(&shared->mutex);
	return found;
}

void
sites_forget_error(void)
{
	if (shared == NULL)
		return;
	SpinLockAcquire(&shared->mutex);
	shared->error.at = 0;
	SpinLockRelease(&shared->mutex);
}

static void
request(void)
{
	if (previous_request_hook)
		previous_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(Shared)));
	RequestAddinShmemSpace(pressure_shmem_size());
	RequestAddinShmemSpace(asked_shmem_size());
}

static void
startup(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("pg_narinfo sites", sizeof(Shared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(Shared));
		SpinLockInit(&shared->mutex);
	}
	pressure_shmem_init(found);
	asked_shmem_init();
	LWLockRelease(AddinShmemInitLock);
}

void
resume_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
	previous_log_hook = emit_log_hook;
	emit_log_hook = hear;
}

/*-------------------------------------------------------------------------
 * Resuming
 *-------------------------------------------------------------------------
 */

bool
sites_error_passes(int code)
{
	switch (ERRCODE_TO_CATEGORY(code))
	{
		case MAKE_SQLSTATE('0', '8', '0', '0', '0'):	/* connection */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* rolled back */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):	/* locked */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancelled */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* input, output */
			return true;
		default:
			return false;
	}
}

static void
give_up(const ReplicationError *error)
{
	const char *params[] = {
		unpack_sql_state(error->code), error->message
	};

	local_sql("UPDATE narinfo.mirror_state SET error_code = $1, error = $2, "
			  "error_at = clock_timestamp() "
			  "WHERE error IS DISTINCT FROM $2 OR error_code "
			  "IS DISTINCT FROM $1", 2, params);
}

/*
 * The pause that PostgreSQL makes before it starts what has failed again, when
 * nothing disables the subscription.
 */
static bool
is_due(void)
{
	return enabled_at == 0 ||
		TimestampDifferenceExceeds(enabled_at, GetCurrentTimestamp(),
								   wal_retrieve_retry_interval);
}

static void
resume(const ReplicationError *error)
{
	if (!is_due())
		return;
	ereport(LOG,
			(errmsg("the subscription of this mirror is enabled again"),
			 error ? errdetail("It was stopped by: %s", error->message) : 0));
	local_enable();
	enabled_at = GetCurrentTimestamp();
}

/* What became of the subscription, and who has to do with it. */
static bool
is_stopped(bool joining)
{
	uint64		n =
	local_sql("SELECT s.subenabled, m.paused OR m.error IS NOT NULL OR n.bound, "
			  "m.joined, EXISTS (SELECT FROM pg_stat_activity AS a "
			  "WHERE a.pid = m.busy_pid AND a.query_start = m.busy_since "
			  "AND a.state = 'active' AND a.pid <> pg_backend_pid()) "
			  "FROM pg_subscription AS s, narinfo.mirror_state AS m, "
			  "narinfo.node AS n "
			  "WHERE s.oid = " OUR_SUBSCRIPTION, 0, NULL);

	if (n == 0)
		return false;
	if (local_value(0, 0)[0] == 't')
		tried_unknown = false;
	return local_value(0, 0)[0] == 'f' && local_value(0, 1)[0] == 'f' &&
		(joining || local_value(0, 2)[0] == 't') &&
		local_value(0, 3)[0] == 'f';
}

void
sites_resume(bool joining)
{
	ReplicationError error;

	if (!is_stopped(joining))
		return;
	if (sites_last_error(&error))
	{
		if (sites_error_passes(error.code))
			resume(&error);
		else
			give_up(&error);
	}
	else if (!tried_unknown)
	{
		tried_unknown = true;
		resume(NULL);
	}
}
