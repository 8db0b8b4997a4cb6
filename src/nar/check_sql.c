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

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"

#include "cache/cache.h"
#include "http/path.h"
#include "nar/check.h"
#include "nar/file.h"
#include "types/types.h"

PG_FUNCTION_INFO_V1(check_nar);

/*
 * The path of a URL and what stands behind its '?'; false when it is no path
 * below the URL of its cache.
 */
static bool
url_path(Span url, Span *path, Span *query)
{
	char	   *slashed = psprintf("/%.*s", (int) url.len, url.data);
	Span		target = span_of(slashed, strlen(slashed));
	char	   *decoded = palloc(target.len);
	size_t		len;

	if (!http_target_split(target, path, query) ||
		!http_percent_decode(*path, decoded, &len) ||
		!http_path_is_plain(span_of(decoded, len)))
		return false;
	*path = span_skip(span_of(decoded, len), 1);
	return path->len > 0;
}

/* A descriptor of the file, -1 when there is none. */
static int
open_url(const char *cache, Span url)
{
	Span		path;
	Span		query;
	struct stat st;
	int			root;
	volatile int fd = -1;

	if (!url_path(url, &path, &query))
		return -1;
	root = nar_root_open();
	if (root < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open \"%s\": %m", nar_file_root),
				 errhint("See setting pg_narinfo.file_root.")));
	PG_TRY();
	{
		fd = nar_file_open(root, cache, path, query, &st);
	}
	PG_FINALLY();
	{
		close(root);
	}
	PG_END_TRY();
	return fd;
}

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

/* The file is closed by then; a cancel kills the check. */
static void
check_file(int fd, const NarExpectation *expect, NarCheckResult *result)
{
	NarCheck   *volatile check = NULL;

	PG_TRY();
	{
		check = nar_check_start(fd, expect, 0);
		wait_for(check, result);
	}
	PG_FINALLY();
	{
		close(fd);
		if (check != NULL)
			nar_check_end(check);
	}
	PG_END_TRY();
}

/* What is wrong with the file of one URL; NULL when nothing is. */
static char *
check_url(const Narinfo *info, int url, const char *cache)
{
	Span		text = info->urls[url].url;
	NarExpectation expect;
	NarCheckResult result;
	int			fd = open_url(cache, text);

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
