/*-------------------------------------------------------------------------
 *
 * asked.c
 *	  A primary that was just started publishes nothing until it has asked the
 *	  other sites who they are.
 *
 * Another one may have taken its place meanwhile, or it was restored from a
 * backup, or copied.  Until the worker of sites has asked all others once,
 * which takes a moment, whoever publishes waits at the beginning of his
 * commit, holding no lock of a cache.  Those that do not answer keep nobody
 * from publishing.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "cache/errors.h"
#include "cache/node.h"
#include "compat.h"
#include "sites/asked.h"

PG_FUNCTION_INFO_V1(site_asked);

#define PATIENCE 15000			/* ms: some may not answer */
#define LOOK 10					/* ms */

typedef struct Shared
{
	pg_atomic_uint32 database;	/* where they were asked since the start */
} Shared;

static Shared *shared = NULL;

/* Does the worker of sites, once it runs, do so for this database? */
static bool
is_served(void)
{
	const char *served = GetConfigOption("pg_narinfo.database", true, false);
	char	   *name = get_database_name(MyDatabaseId);

	return served && name && strcmp(served, name) == 0;
}

static bool
was_asked(void)
{
	return pg_atomic_read_u32(&shared->database) == MyDatabaseId;
}

static void
wait_asked(void)
{
	TimestampTz deadline;

	if (shared == NULL || was_asked() || !is_served())
		return;
	deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), PATIENCE);
	while (!was_asked())
	{
		if (GetCurrentTimestamp() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_NARINFO_SWITCHING),
					 errmsg("this server does not publish yet"),
					 errdetail("It was just started, and has not come to ask the other sites whether one of them publishes instead."),
					 errhint("Try again. If that lasts, the server's log says what keeps the worker of sites from it.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH, LOOK,
						 compat_wait_event("PgNarinfoAsked"));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	/* what they have said */
	AcceptInvalidationMessages();
}

void
asked_note(void)
{
	if (shared != NULL)
		pg_atomic_write_u32(&shared->database, MyDatabaseId);
}

/* site_asked() -> void */
Datum
site_asked(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	asked_note();
	PG_RETURN_VOID();
}

void
asked_init(void)
{
	node_before_publishing = wait_asked;
}

Size
asked_shmem_size(void)
{
	return MAXALIGN(sizeof(Shared));
}

void
asked_shmem_init(void)
{
	bool		found;

	shared = ShmemInitStruct("pg_narinfo asked", sizeof(Shared), &found);
	if (!found)
		pg_atomic_init_u32(&shared->database, InvalidOid);
}
