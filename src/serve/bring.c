/*-------------------------------------------------------------------------
 *
 * bring.c
 *	  A file of a cache is brought here.  See bring.h.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "serve/bring.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "fetch/fetch.h"
#include "serve/errand.h"
#include "serve/route.h"

/* A good file that a writer worker is to bring to its place. */
typedef struct Keeping
{
	Errand		errand;			/* first, so that one is the other */
	ClaimRef	claim;
	NarExpectation expect;		/* the text of the job, or not */
} Keeping;

static void
stored(Errand *errand, const JobResult *result)
{
	Keeping    *keeping = (Keeping *) errand;
	bool		kept = result->status < 300;

	if (!errand->submitted)
		store_discard(errand->job.cache, &errand->job.temp);
	if (!kept)
		ereport(LOG,
				(errmsg("pg_narinfo could not store a file that it fetched"),
				 errdetail("\"%s\" of cache \"%s\": %s.",
						   errand->job.path, errand->job.cache,
						   result->reason)));
	fetch_kept(&keeping->claim, kept);
	pfree(keeping);
}

static void
keep(const FetchFile *file, const StoreTemp *temp, const ClaimRef *claim)
{
	Keeping    *keeping = MemoryContextAllocZero(TopMemoryContext,
												 sizeof(Keeping));
	Job		   *job = &keeping->errand.job;

	keeping->claim = *claim;
	keeping->errand.done = stored;
	job->kind = JOB_STORE;
	strlcpy(job->cache, file->cache, sizeof(job->cache));
	strlcpy(job->path, file->path, sizeof(job->path));
	job->temp = *temp;
	if (!file->has_hash)
	{
		keeping->expect = file->expect;
		keeping->errand.text = (const char *) &keeping->expect;
		job->text_len = sizeof(NarExpectation);
	}
	errand_begin(&keeping->errand);
}

static uint64
max_size(void)
{
	return (uint64) put_max_upload * 1024 * 1024;
}

bool
bring_is_plain_url(const char *url)
{
	for (const char *c = url; *c != '\0'; c++)
	{
		if (*c <= ' ' || *c > '~' || strchr("\"#<>\\^`{|}", *c) != NULL)
			return false;
	}
	return strlen(url) < BRING_URL_MAX / 2;
}

const char *
bring_trouble(const NamedFile *file)
{
	if (!file->has_size)
		return NULL;
	if (file->size == 0)
		return "its FileSize is 0";
	return file->size <= max_size() ? NULL :
		"it is larger than pg_narinfo.max_upload_size";
}

bool
bring_begin(const char *cache, const char *path, const NamedFile *named,
			List *sources, const ClaimRef *claim)
{
	FetchFile	file = {
		.cache = cache, .path = path, .url = named->url,
		.has_size = named->has_size, .size = named->size,
		.max_size = max_size(), .has_hash = named->has_hash,
		.hash = named->hash, .expect = named->expect
	};

	return fetch_begin(&file, sources, claim, keep);
}
