/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  The transaction that the requests of a batch share, and what becomes of
 *	  errors.
 *
 *	  serve_request --- route ---> batch_narinfo: begin on first use, look up
 *			|			  |
 *			|			error: abort, log; once more, or 500, or 503
 *			v
 *	  serve_finish: commit
 *
 * A lookup takes the weakest lock there is, so it waits only for those who
 * hold ACCESS EXCLUSIVE.  It waits in the queue, for autovacuum gives way to
 * those that wait there, but not for long: LOCK_PATIENCE.  Whoever comes
 * after it in the batch does not wait at all, and for LOCK_MEMORY thereafter
 * nobody waits longer than LOCK_IMPATIENCE.  So a request gets its 503 soon,
 * files and /health are held up little, and all is well with the first batch
 * after the lock was let go.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "cache/node.h"
#include "serve/route.h"
#include "serve/serve.h"

#define LOCK_PATIENCE	"60ms"
#define LOCK_IMPATIENCE "1ms"
#define LOCK_MEMORY		500		/* ms */

/* The same error is not logged again before so many ms have passed. */
#define ERROR_LOG_PAUSE 5000

/* Nor that an index is missing. */
#define INDEX_LOG_PAUSE 60000

static MemoryContext request_context = NULL;
static bool in_transaction = false;
static uint64 completions = 0;	/* of its snapshot */
static ValidPathScan *scan = NULL;

/*
 * Which tables the batch found locked, and the one of these flags that stands
 * for the table it is about to open; and until when nobody is to wait.
 */
static bool caches_locked = false;
static bool narinfos_locked = false;
static bool events_locked = false;
static bool credentials_locked = false;
static bool *opening = &narinfos_locked;
static bool impatient = false;
static TimestampTz impatient_until = 0;

void
serve_start(void)
{
	request_context = AllocSetContextCreate(TopMemoryContext,
											"pg_narinfo request",
											ALLOCSET_DEFAULT_SIZES);
	SetConfigOption("lock_timeout", LOCK_PATIENCE, PGC_SUSET, PGC_S_OVERRIDE);
	serve_reload();
}

/* ---- the transaction ---- */

/* Outside of a transaction, which would take the setting back. */
static void
set_impatient(bool value)
{
	if (value == impatient)
		return;
	SetConfigOption("lock_timeout", value ? LOCK_IMPATIENCE : LOCK_PATIENCE,
					PGC_SUSET, PGC_S_OVERRIDE);
	impatient = value;
}

void
batch_transaction(void)
{
	Snapshot	snapshot;

	if (in_transaction)
		return;

	if (impatient && GetCurrentTimestamp() >= impatient_until)
		set_impatient(false);

	pgstat_report_activity(STATE_RUNNING, "serving HTTP requests");
	SetCurrentStatementStartTimestamp();
	in_transaction = true;
	StartTransactionCommand();
	snapshot = GetTransactionSnapshot();
	completions = snapshot->snapXactCompletionCount;
	PushActiveSnapshot(snapshot);
	MemoryContextSwitchTo(request_context);
}

/* What is to be done when there is no transaction any more. */
static void
forget_transaction(void)
{
	in_transaction = false;
	scan = NULL;
	pgstat_report_activity(STATE_IDLE, NULL);
}

bool
batch_restoring(void)
{
	batch_transaction();
	opening = &caches_locked;
	return node_is_restoring() || !node_is_consistent();
}

ServeResult
batch_cache(const char *name, CacheInfo *info)
{
	if (caches_locked)
		return SERVE_UNAVAILABLE;
	if (batch_restoring())
		return SERVE_RESTORING;
	if (cache_get(name, info))
		return SERVE_FOUND;
	return cache_catalog() != NULL ? SERVE_ABSENT : SERVE_UNAVAILABLE;
}

bool
batch_credentials(void)
{
	if (credentials_locked)
		return false;

	batch_transaction();
	opening = &credentials_locked;
	return true;
}

ServeResult
batch_narinfo(const CacheInfo *cache, const uint8 hash[STORE_HASH_LEN],
			  struct varlena **info)
{
	if (narinfos_locked)
		return SERVE_UNAVAILABLE;

	batch_transaction();
	opening = &narinfos_locked;
	if (scan == NULL)
	{
		/* it outlives the request */
		MemoryContextSwitchTo(TopTransactionContext);
		scan = valid_path_begin();
		MemoryContextSwitchTo(request_context);
		if (scan == NULL)
			return SERVE_UNAVAILABLE;
	}
	*info = valid_path_find_again(scan, cache, hash, completions);
	return *info != NULL ? SERVE_FOUND : SERVE_ABSENT;
}

bool
batch_hides(const CacheInfo *cache, const uint8 hash[STORE_HASH_LEN])
{
	batch_transaction();
	opening = &events_locked;
	return hidden_path(cache, hash, completions);
}

static void
log_missing_index(void)
{
	static TimestampTz last = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (last != 0 && !TimestampDifferenceExceeds(last, now, INDEX_LOG_PAUSE))
		return;
	last = now;
	ereport(LOG,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("pg_narinfo cannot tell which narinfo names a file that is missing"),
			 errhint("Call narinfo.index_files(), or set "
					 "\"pg_narinfo.missing_files\" to \"off\".")));
}

ServeResult
batch_file(const CacheInfo *cache, const char *path, NamedFile *file)
{
	uint8		hash[STORE_HASH_LEN];
	struct varlena *info;
	ServeResult result;

	if (named_store_hash(path, hash))
	{
		result = batch_narinfo(cache, hash, &info);
		if (result == SERVE_FOUND && named_by(info, path, file))
			return SERVE_FOUND;
		if (result != SERVE_FOUND && result != SERVE_ABSENT)
			return result;
	}
	if (narinfos_locked)
		return SERVE_UNAVAILABLE;

	batch_transaction();
	opening = &narinfos_locked;
	switch (named_find(cache->name, path, file))
	{
		case NAMED_FOUND:
			return SERVE_FOUND;
		case NAMED_ABSENT:
			break;
		case NAMED_NO_INDEX:
			log_missing_index();
	}
	return SERVE_ABSENT;
}

List *
batch_sources(const CacheInfo *cache)
{
	batch_transaction();
	opening = &caches_locked;
	return fetch_sources(cache);
}

ServeResult
batch_changes(const char *cache, int64 after, FollowRange *range,
			  Follower **follower)
{
	if (events_locked)
		return SERVE_UNAVAILABLE;

	batch_transaction();
	opening = &events_locked;
	follow_range(cache, range);
	*follower = NULL;
	if (follow_may_resume(range, after))
		*follower = follow_begin(cache, after);
	return SERVE_FOUND;
}

/* ---- errors ---- */

/* Does this error mean that the database cannot answer anybody now? */
static bool
is_unavailable(int code)
{
	switch (ERRCODE_TO_CATEGORY(code))
	{
		case MAKE_SQLSTATE('2', '5', '0', '0', '0'):	/* state */
		case MAKE_SQLSTATE('3', 'F', '0', '0', '0'):	/* no schema */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* rolled back */
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):	/* undefined */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):	/* locked */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancelled */
			return true;
		default:
			return false;
	}
}

/*
 * May a second try end better?  A standby cancels whoever is in the way of
 * replication; and what was found by its OID may be gone a moment later, for
 * which PostgreSQL has but an internal error.
 */
static bool
is_passing(int code)
{
	return code == ERRCODE_INTERNAL_ERROR ||
		ERRCODE_TO_CATEGORY(code) ==
		ERRCODE_TO_CATEGORY(ERRCODE_T_R_SERIALIZATION_FAILURE) ||
		ERRCODE_TO_CATEGORY(code) ==
		ERRCODE_TO_CATEGORY(ERRCODE_UNDEFINED_TABLE);
}

/* Clients could fill the log by asking for a broken row again and again. */
static void
log_error(int code)
{
	static int	last_code = 0;
	static TimestampTz last_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (code == last_code &&
		!TimestampDifferenceExceeds(last_at, now, ERROR_LOG_PAUSE))
		return;
	last_code = code;
	last_at = now;
	EmitErrorReport();
}

static void
abort_transaction(void)
{
	disable_all_timeouts(false);
	QueryCancelPending = false;
	AbortOutOfAnyTransaction();
	forget_transaction();
	MemoryContextSwitchTo(request_context);
	FlushErrorState();
}

static void
remember_lock(void)
{
	*opening = true;
	if (!impatient)
		impatient_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													  LOCK_MEMORY);
	set_impatient(true);
}

/*
 * In the handler of an error.  Returns true when the request is to be tried
 * once more, else the reply says what went wrong.
 */
static bool
request_failed(HttpReply *reply, bool last_try)
{
	int			code = geterrcode();
	bool		again = !last_try && is_passing(code);

	HOLD_INTERRUPTS();
	if (!again)
		log_error(code);
	abort_transaction();
	RESUME_INTERRUPTS();

	if (code == ERRCODE_LOCK_NOT_AVAILABLE)
		remember_lock();

	if (reply->fd >= 0)
		close(reply->fd);
	memset(reply, 0, sizeof(*reply));
	reply->fd = -1;

	if (is_unavailable(code))
		reply_unavailable(reply);
	else
		reply_text(reply, 500, "internal error\n", SERVE_NO_STORE);
	return again;
}

/* Says in the log which request an error belongs to. */
static void
request_context_line(void *arg)
{
	Span		path = http_request_path((HttpRequest *) arg);
	char		text[200];
	size_t		len = Min(path.len, sizeof(text) - 1);

	/* Bytes that could forge a line, or that are no text in any encoding */
	for (size_t i = 0; i < len; i++)
		text[i] = (path.data[i] >= ' ' && path.data[i] <= '~') ?
			path.data[i] : '?';
	text[len] = '\0';
	errcontext("HTTP request for \"%s\"", text);
}

/* True when the reply is ready, false to try once more. */
static bool
try_request(HttpRequest *req, HttpReply *reply, bool last_try)
{
	ErrorContextCallback callback;
	volatile bool ready = true;

	memset(reply, 0, sizeof(*reply));
	reply->fd = -1;

	callback.callback = request_context_line;
	callback.arg = req;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	PG_TRY();
	{
		route_request(req, reply);
	}
	PG_CATCH();
	{
		ready = !request_failed(reply, last_try);
		put_abandon(req);
	}
	PG_END_TRY();

	error_context_stack = callback.previous;
	return ready;
}

void
serve_request(HttpRequest *req)
{
	HttpReply	reply;

	MemoryContextSwitchTo(request_context);
	if (!try_request(req, &reply, false))
		try_request(req, &reply, true);

	/*
	 * Nothing here raises, so no request is answered twice, or never.  An
	 * upload is answered when it is through.
	 */
	if (reply.status != REPLY_LATER)
	{
		use_end(req);
		http_reply(req, &reply);
	}
	MemoryContextReset(request_context);
}

static void
commit_transaction(void)
{
	if (scan != NULL)
		valid_path_end(scan);
	scan = NULL;
	PopActiveSnapshot();
	CommitTransactionCommand();
	forget_transaction();
}

void
serve_finish(void)
{
	caches_locked = false;
	narinfos_locked = false;
	events_locked = false;
	credentials_locked = false;
	if (!in_transaction)
		return;

	/* What was answered was read by then, so an error harms no one */
	PG_TRY();
	{
		commit_transaction();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		log_error(geterrcode());
		abort_transaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(request_context);
}
