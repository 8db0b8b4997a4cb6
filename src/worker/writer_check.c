/*-------------------------------------------------------------------------
 *
 * writer_check.c
 *	  The writer worker has the NARs of pushed narinfos looked into.
 *
 * A NAR that was looked into stays what it is: one that is named after its
 * SHA-256 is replaced by nothing else, any other by nothing (nar/store.h).
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <unistd.h>

#include "utils/guc.h"

#include "nar/root.h"
#include "nar/store.h"
#include "worker/writer.h"

bool		writer_check_nars = true;

static int	check_timeout = 10 * 60 * 1000;

void
writer_define_settings(void)
{
	DefineCustomBoolVariable("pg_narinfo.check_nars",
							 "Whether a NAR that is pushed is unpacked and "
							 "compared with its narinfo.",
							 NULL, &writer_check_nars, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.check_timeout",
							"Time in which that must be done.",
							NULL, &check_timeout, 10 * 60 * 1000,
							1000, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* The narinfo, and the path of the file that is looked into. */
static char *
parse(HeldJob *held, Narinfo *narinfo)
{
	ParseError	error;

	if (!narinfo_parse(held->text, held->text_len, narinfo, &error))
		elog(ERROR, "a narinfo is one and is none");
	return nar_url_path(narinfo->urls[held->url].url);
}

/* A file that was fetched is looked into before it is stored. */
static void
start_fetched(HeldJob *held)
{
	NarExpectation expect;
	int			fd = store_open_temp(held->job.cache, &held->job.temp);

	if (fd < 0)
	{
		held_answer(held, 503, "what was fetched of %s was lost",
					held->job.path);
		return;
	}
	memcpy(&expect, held->text, sizeof(expect));
	PG_TRY();
	{
		held->check = nar_check_start(fd, &expect, check_timeout);
	}
	PG_FINALLY();
	{
		close(fd);
	}
	PG_END_TRY();
}

static void
start_published(HeldJob *held)
{
	Narinfo		narinfo;
	NarExpectation expect;
	struct stat st;
	char	   *path = parse(held, &narinfo);
	int			fd = nar_open_path(held->job.cache, path, &st);

	if (fd < 0)
	{
		held_answer(held, 403, "%s is not here any more", path);
		return;
	}
	nar_check_expect(&narinfo, held->url, &expect);
	PG_TRY();
	{
		held->check = nar_check_start(fd, &expect, check_timeout);
	}
	PG_FINALLY();
	{
		close(fd);
	}
	PG_END_TRY();
}

void
writer_check_start(HeldJob *held)
{
	if (held->job.kind == JOB_STORE)
		start_fetched(held);
	else
		start_published(held);
}

void
writer_check_poll(HeldJob *held)
{
	bool		is_fetched = held->job.kind == JOB_STORE;
	NarCheckResult result;
	Narinfo		narinfo;
	char	   *path;

	if (!nar_check_poll(held->check, &result))
		return;
	nar_check_end(held->check);
	held->check = NULL;
	path = is_fetched ? held->job.path : parse(held, &narinfo);
	switch (result.status)
	{
		case NAR_CHECK_GOOD:
			if (is_fetched)
				writer_store(held);
			else if (++held->url == narinfo.nurls)
				held->state = HELD_READY;
			break;
		case NAR_CHECK_BAD:
			held_answer(held, 403, "%s: %s", path, result.reason);
			break;
		case NAR_CHECK_TROUBLE:
			ereport(LOG,
					(errmsg("pg_narinfo could not check \"%s\": %s", path,
							result.reason)));
			held_answer(held, 503, "the NAR could not be checked now");
			break;
	}
}
