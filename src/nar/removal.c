/*-------------------------------------------------------------------------
 *
 * removal.c
 *	  Runs of the removal of files; removal.h draws one.
 *
 * A run is taken in steps, each a transaction: one that loads what is due
 * and looks at all narinfos, then some files at a time.  The janitor does
 * other things in between.  One session of a database has a run at a time.
 *
 * A step that fails renames back what it had renamed.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "nar/removal_run.h"

#include <limits.h>
#include <unistd.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "cache/cache.h"
#include "cache/node.h"
#include "cache/transfer.h"
#include "compat.h"
#include "nar/root.h"
#include "nar/temp.h"

PG_FUNCTION_INFO_V1(remove_files);

#define DAY (24 * 60 * 60)		/* seconds */

#define STEP_MAX	500			/* files of a step */
#define TRASH_BATCH 1000		/* narinfos that leave trash together */
#define WRITER_PATIENCE 5000	/* ms for those that write narinfos to end */
#define WRITER_LOOK 20			/* ms between looks */

#define STUCK "A transaction that writes narinfos lasts for long."

#define LOCK_CLASS 0x4e46		/* see gate_lock_cache() */

int			removal_trash_grace = 30 * DAY;
int			removal_file_grace = 30 * DAY;

static int	removal_pause = 60 * 60;	/* s */
static int	removal_rate = 200; /* files a second; 0: as fast as it goes */

void
removal_init(void)
{
	DefineCustomIntVariable("pg_narinfo.trash_grace",
							"Time for which removed narinfos stay in trash.",
							"-1 keeps them for ever.",
							&removal_trash_grace, 30 * DAY, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.file_grace",
							"Time for which files stay that no narinfo names.",
							"-1 keeps them for ever.",
							&removal_file_grace, 30 * DAY, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.file_removal_pause",
							"Time between looks for files to be removed.",
							"Each reads all narinfos, if files are due.",
							&removal_pause, 60 * 60, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.file_removal_rate",
							"Files removed in a second.",
							"0 is no limit.",
							&removal_rate, 200, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/*-------------------------------------------------------------------------
 * One session at a time
 *-------------------------------------------------------------------------
 */

static void
set_tag(LOCKTAG *tag)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, 0, LOCK_CLASS);
}

static bool
lock_removal(void)
{
	LOCKTAG		tag;

	set_tag(&tag);
	return LockAcquire(&tag, ExclusiveLock, true, true) !=
		LOCKACQUIRE_NOT_AVAIL;
}

static void
unlock_removal(void)
{
	LOCKTAG		tag;

	set_tag(&tag);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/* Inside a transaction: may files go, and may narinfos leave trash? */
static bool
may_remove(bool *primary)
{
	NodeState	state;

	*primary = false;
	if (RecoveryInProgress() || cache_catalog() == NULL)
		return false;
	state = node_state();
	*primary = state == NODE_PRIMARY;
	return *primary || state == NODE_MIRROR;
}

/*-------------------------------------------------------------------------
 * Renaming
 *-------------------------------------------------------------------------
 */

void
removal_close_parent(RemovalRun *run)
{
	int			parent = run->parent;
	bool		changed = run->parent_changed;

	run->parent = -1;
	run->parent_changed = false;
	run->parent_cache = NULL;
	if (parent >= 0)
		removal_end_parent(parent, changed);
}

/* The open directory of a file's; -1 if it is not there. */
static int
parent_of(RemovalRun *run, const DueFile *file)
{
	size_t		len = (size_t) (temp_name(file->path) - file->path);

	if (run->parent_cache == file->cache && run->parent_len == len &&
		strncmp(run->parent_path, file->path, len) == 0)
		return run->parent;
	removal_close_parent(run);
	run->parent = removal_open_parent(file->cache, file->path);
	run->parent_cache = file->cache;
	run->parent_path = file->path;
	run->parent_len = len;
	return run->parent;
}

/* Whether any was. */
static bool
hide_files(RemovalRun *run, uint32 first, uint32 end)
{
	bool		any = false;

	for (uint32 i = first; i < end; i++)
	{
		DueFile    *file = &run->files[i];
		int			parent;

		CHECK_FOR_INTERRUPTS();
		if (file->state != REMOVAL_WAITING)
			continue;
		parent = parent_of(run, file);
		file->state = parent < 0 ? REMOVAL_TROUBLE :
			removal_hide(parent, file, run->cutoff);
		any |= file->state == REMOVAL_HIDDEN;
	}
	return any;
}

/* Those that are named, too: an earlier run may have been cut off. */
static void
put_back_files(RemovalRun *run, uint32 first, uint32 end, bool all)
{
	for (uint32 i = first; i < end; i++)
	{
		DueFile    *file = &run->files[i];
		int			parent;

		if (file->state == REMOVAL_REMOVED || file->state == REMOVAL_ABSENT ||
			(file->state == REMOVAL_HIDDEN && !all))
			continue;
		parent = parent_of(run, file);
		if (parent >= 0 && removal_put_back(parent, file))
			run->parent_changed = true;
	}
}

static void
unlink_files(RemovalRun *run, uint32 first, uint32 end)
{
	for (uint32 i = first; i < end; i++)
	{
		DueFile    *file = &run->files[i];

		CHECK_FOR_INTERRUPTS();
		if (file->state != REMOVAL_HIDDEN)
			continue;
		file->state = removal_unlink(parent_of(run, file), file) ?
			REMOVAL_REMOVED : REMOVAL_TROUBLE;
		run->parent_changed = true;
	}
	removal_close_parent(run);
}

/*
 * Until everybody has ended who was writing narinfos when the files were
 * renamed: what they publish is an event then.  Who begins to write later can
 * see that the files are not there.  False if they take too long.
 */
static bool
wait_for_writers(RemovalRun *run)
{
	static uint32 wait_event = 0;
	char	   *writers = removal_writers(run, NULL);

	if (wait_event == 0)
		wait_event = compat_wait_event("PgNarinfoRemoval");
	for (int waited = 0; writers != NULL; waited += WRITER_LOOK)
	{
		char	   *left;

		if (waited >= WRITER_PATIENCE)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, WRITER_LOOK, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		left = removal_writers(run, writers);
		pfree(writers);
		writers = left;
	}
	return true;
}

/*-------------------------------------------------------------------------
 * Steps
 *-------------------------------------------------------------------------
 */

/* False, with everything as it was, when somebody writes narinfos for long. */
static bool
remove_some(RemovalRun *run, uint32 first, uint32 end)
{
	volatile bool done = false;

	PG_TRY();
	{
		removal_look_at_queue(run, first, end);
		if (hide_files(run, first, end) && !wait_for_writers(run))
		{
			put_back_files(run, first, end, true);
			ereport(LOG,
					(errmsg("pg_narinfo removes no files now"),
					 errdetail(STUCK)));
		}
		else
		{
			removal_look_again(run, first, end);
			put_back_files(run, first, end, false);
			unlink_files(run, first, end);
			removal_settle(run, first, end);
			done = true;
		}
	}
	PG_CATCH();
	{
		put_back_files(run, first, end, true);
		removal_close_parent(run);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return done;
}

static uint32
step_size(void)
{
	return removal_rate > 0 ? Min(removal_rate, STEP_MAX) : STEP_MAX;
}

/* One transaction's worth; false when the run is over. */
static bool
step(RemovalRun *run, uint32 max_files)
{
	uint32		end = Min(run->next + max_files, run->n + 1);
	bool		done;

	if (run->next > run->n || !removal_root_ready())
		return false;
	done = remove_some(run, run->next, end);
	removal_close_parent(run);
	run->stuck = !done;
	run->next = end;
	return done && end <= run->n;
}

/* A run in its first transaction; NULL if nothing is due. */
static RemovalRun *
begin_run(MemoryContext parent)
{
	MemoryContext context;
	RemovalRun *run;

	if (removal_file_grace < 0 || !removal_root_ready())
		return NULL;
	context = AllocSetContextCreate(parent, "narinfo removal",
									ALLOCSET_DEFAULT_SIZES);
	run = MemoryContextAllocZero(context, sizeof(RemovalRun));
	run->context = context;
	run->parent = -1;
	run->next = 1;
	run->cutoff = GetCurrentTimestamp() -
		(TimestampTz) removal_file_grace * USECS_PER_SEC;
	if (!removal_load(run))
	{
		MemoryContextDelete(context);
		return NULL;
	}
	return run;
}

/* Narinfos whose time in trash is over; how many. */
static uint64
empty_trash(void)
{
	if (removal_trash_grace < 0)
		return 0;
	return removal_empty_trash(GetCurrentTimestamp() -
							   (TimestampTz) removal_trash_grace *
							   USECS_PER_SEC, TRASH_BATCH);
}

/*-------------------------------------------------------------------------
 * The janitor
 *-------------------------------------------------------------------------
 */

typedef enum Stage
{
	STAGE_IDLE,
	STAGE_TRASH,
	STAGE_LOADING,
	STAGE_REMOVING
} Stage;

static RemovalRun *current = NULL;
static TimestampTz paused_since = 0;

static Stage
end_run(void)
{
	bool		more = current != NULL && current->full && !current->stuck;

	if (current != NULL)
		MemoryContextDelete(current->context);
	current = NULL;
	if (more)
		return STAGE_LOADING;
	unlock_removal();
	paused_since = GetCurrentTimestamp();
	return STAGE_IDLE;
}

/* What comes after one transaction of this stage, inside of it. */
static Stage
turn(Stage stage)
{
	bool		primary;

	if (cache_catalog_hold() == NULL || !may_remove(&primary))
		return stage == STAGE_IDLE ? STAGE_IDLE : end_run();
	switch (stage)
	{
		case STAGE_IDLE:
			return lock_removal() ? STAGE_TRASH : STAGE_IDLE;
		case STAGE_TRASH:
			return primary && empty_trash() == TRASH_BATCH ?
				STAGE_TRASH : STAGE_LOADING;
		case STAGE_LOADING:
			current = begin_run(TopMemoryContext);
			return current ? STAGE_REMOVING : end_run();
		case STAGE_REMOVING:
			return step(current, step_size()) ? STAGE_REMOVING : end_run();
	}
	return STAGE_IDLE;
}

/*
 * One transaction.  What fails is tried again after the pause, since the
 * janitor has more to do than this; what somebody has locked, soon.
 */
static Stage
try_turn(Stage stage)
{
	volatile Stage next = STAGE_IDLE;

	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		next = turn(stage);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		bool		locked = geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE;

		HOLD_INTERRUPTS();
		if (!locked)
			EmitErrorReport();
		disable_all_timeouts(false);
		QueryCancelPending = false;
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		if (current != NULL)
			current->stuck = true;
		if (stage != STAGE_IDLE)
			(void) end_run();
		paused_since = locked ? 0 : GetCurrentTimestamp();
		next = STAGE_IDLE;
	}
	PG_END_TRY();
	return next;
}

bool
removal_work(void)
{
	static Stage stage = STAGE_IDLE;
	static TimestampTz next_step = 0;
	TimestampTz begun = GetCurrentTimestamp();

	if (stage == STAGE_IDLE && paused_since != 0 &&
		!TimestampDifferenceExceeds(paused_since, begun,
									removal_pause * 1000))
		return false;
	do
	{
		TimestampTz now = GetCurrentTimestamp();

		if (stage == STAGE_REMOVING && now < next_step)
			break;
		if (stage == STAGE_REMOVING && removal_rate > 0)
			next_step = now + (TimestampTz) step_size() * USECS_PER_SEC /
				removal_rate;
		stage = try_turn(stage);
		CHECK_FOR_INTERRUPTS();
	} while (stage != STAGE_IDLE &&
			 !TimestampDifferenceExceeds(begun, GetCurrentTimestamp(), 1000));
	return stage != STAGE_IDLE;
}

/*-------------------------------------------------------------------------
 * By hand
 *-------------------------------------------------------------------------
 */

static void
pause_for(uint32 files)
{
	long		ms = removal_rate > 0 ? (long) files * 1000 / removal_rate : 0;

	if (ms == 0)
		return;
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

typedef struct Totals
{
	int64		files;
	int64		bytes;
	bool		stuck;
} Totals;

/* All that is due; each transaction ends with a commit. */
static void
remove_all(bool primary, Totals *totals)
{
	uint32		max = step_size();
	RemovalRun *run;
	bool		full = true;

	while (primary && empty_trash() == TRASH_BATCH)
		SPI_commit();
	SPI_commit();
	while (full && !totals->stuck && (run = begin_run(PortalContext)) != NULL)
	{
		bool		more;

		SPI_commit();
		do
		{
			more = step(run, max);
			SPI_commit();
			if (more)
				pause_for(max);
		} while (more);
		full = run->full;
		totals->files += run->removed;
		totals->bytes += run->removed_bytes;
		totals->stuck = run->stuck;
		MemoryContextDelete(run->context);
	}
}

static void
remove_locked(bool primary, Totals *totals)
{
	PG_TRY();
	{
		if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		remove_all(primary, totals);
		SPI_finish();
	}
	PG_CATCH();
	{
		unlock_removal();
		PG_RE_THROW();
	}
	PG_END_TRY();
	unlock_removal();
}

/* remove_files() */
Datum
remove_files(PG_FUNCTION_ARGS)
{
	bool		primary;
	Totals		totals = {0};

	procedure_check_block(fcinfo, "remove_files");
	if (!may_remove(&primary))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this server may remove no files now"),
				 errdetail("It is neither a primary nor a mirror, see narinfo.node_state().")));
	if (!removal_root_ready())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_narinfo.file_root is not set, or empty, or not there")));
	if (!lock_removal())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("files are being removed by another session")));
	remove_locked(primary, &totals);
	ereport(NOTICE,
			(errmsg("removed " INT64_FORMAT " files of " INT64_FORMAT
					" bytes", totals.files, totals.bytes),
			 totals.stuck ? errdetail(STUCK) : 0));
	PG_RETURN_VOID();
}
