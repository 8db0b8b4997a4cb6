/*-------------------------------------------------------------------------
 *
 * check_sql.c
 *	  check_nar(info, cache): what is wrong with the files of a narinfo.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"

#include "compat.h"
#include "cache/cache.h"
#include "nar/check.h"
#include "nar/root.h"
#include "nar/zygote.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(check_nar);

static void
wait_for(NarCheck *check, NarCheckResult *result)
{
	static uint32 wait_event = 0;

	if (wait_event == 0)
		wait_event = compat_wait_event("PgNarinfoCheck");
	while (!nar_check_poll(check, result))
	{
		WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE |
						  WL_EXIT_ON_PM_DEATH, nar_check_socket(check), -1,
						  wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Sessions may be idle for long; the next query can have another one. */
static void
transaction_ended(XactEvent event, void *arg)
{
	(void) arg;
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
		nar_zygote_dismiss();
}

static void
register_end(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(transaction_ended, NULL);
	registered = true;
}

static NarCheck *
start(int fd, const NarExpectation *expect)
{
	NarCheck   *check;

	PG_TRY();
	{
		check = nar_check_start(fd, expect, 0);
	}
	PG_CATCH();
	{
		close(fd);
		PG_RE_THROW();
	}
	PG_END_TRY();
	close(fd);
	return check;
}

/* Closes the file.  A cancel kills the check, with the memory context. */
static void
check_file(int fd, const NarExpectation *expect, NarCheckResult *result)
{
	NarCheck   *check = start(fd, expect);

	wait_for(check, result);
	nar_check_end(check);
}

/* What is wrong with the file of one URL; NULL when nothing is. */
static char *
check_url(const Narinfo *info, int url, const char *cache)
{
	Span		text = info->urls[url].url;
	NarExpectation expect;
	NarCheckResult result;
	char	   *path = nar_url_path(text);
	struct stat st;
	int			fd = path ? nar_open_path(cache, path, &st) : -1;

	if (fd < 0)
		return psprintf("%.*s: there is no such file", (int) text.len,
						text.data);
	nar_check_expect(info, url, &expect);
	check_file(fd, &expect, &result);
	switch (result.status)
	{
		case NAR_CHECK_GOOD:
			return NULL;
		case NAR_CHECK_BAD:
			return psprintf("%.*s: %s", (int) text.len, text.data,
							result.reason);
		default:
			ereport(ERROR,
					(errcode(ERRCODE_SYSTEM_ERROR),
					 errmsg("could not check \"%.*s\": %s", (int) text.len,
							text.data, result.reason)));
	}
}

Datum
check_nar(PG_FUNCTION_ARGS)
{
	struct varlena *info = PG_GETARG_VARLENA_PP(0);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	CacheInfo	cache;
	Narinfo		parsed;
	ParseError	error;
	size_t		len;
	char	   *text = narinfo_to_text(info, &len);

	cache_require(name, &cache);
	register_end();
	if (nar_file_root[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_narinfo.file_root is not set")));
	if (!narinfo_parse(text, len, &parsed, &error))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("damaged narinfo: %s",
						describe_parse_error(&error))));
	for (int i = 0; i < parsed.nurls; i++)
	{
		char	   *wrong = check_url(&parsed, i, cache.name);

		if (wrong != NULL)
			PG_RETURN_TEXT_P(cstring_to_text(wrong));
	}
	PG_RETURN_NULL();
}
