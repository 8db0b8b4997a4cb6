/*-------------------------------------------------------------------------
 *
 * use.c
 *	  Paths that a client counts on are touched: collecting spares what was
 *	  touched lately.
 *
 * Whoever may push relies on what it is told is there, and publishes what
 * refers to it.  So the paths that it asks for are touched first, by a writer
 * worker, and the request is answered as they are then:
 *
 *		route		use_by_pusher		not yet: REPLY_LATER
 *		errand		JOB_TOUCH, JOB_PATHS_MAX paths at a time
 *		route		use_by_pusher		they are
 *
 * What others ask for by lists and closures is touched as well, but they do
 * not wait for it, and it is left out when the queue is half full.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "cache/node.h"
#include "serve/auth.h"
#include "serve/errand.h"
#include "serve/route.h"
#include "serve/serve.h"

typedef struct Use
{
	Errand		errand;			/* first, so that one is the other */
	int			next;			/* of "hashes" that are to be touched */
	int			n;
	bool		done;
	bool		failed;
	uint8		hashes[FLEXIBLE_ARRAY_MEMBER];
} Use;

/* A job that touches these, or the first of them; how many. */
static int
make_job(Job *job, const char *cache, int n)
{
	n = Min(n, JOB_PATHS_MAX);
	memset(job, 0, sizeof(*job));
	job->kind = JOB_TOUCH;
	strlcpy(job->cache, cache, sizeof(job->cache));
	job->text_len = (uint32) n * STORE_HASH_LEN;
	return n;
}

static void
send_next(Use *use)
{
	Errand	   *errand = &use->errand;
	char		cache[CACHE_NAME_MAX + 1];

	strlcpy(cache, errand->job.cache, sizeof(cache));
	errand->text = (const char *) use->hashes +
		(Size) use->next * STORE_HASH_LEN;
	use->next += make_job(&errand->job, cache, use->n - use->next);
	errand_begin(errand);
}

static void
touched(Errand *errand, const JobResult *result)
{
	Use		   *use = (Use *) errand;

	use->failed = result->status >= 500;
	if (!use->failed && use->next < use->n)
	{
		send_next(use);
		return;
	}
	use->done = true;
	serve_request(errand->req);
}

/* Writers do, and what a mirror is asked for says nothing to its primary. */
static bool
notes_use(void)
{
	NodeState	state = node_state();

	return job_room() != JOB_NEVER && state != NODE_MIRROR &&
		state != NODE_CLOSED;
}

bool
use_by_pusher(HttpRequest *req, const CacheInfo *cache, const uint8 *hashes,
			  int n, HttpReply *reply)
{
	Use		   *use = http_request_data(req);

	if (use != NULL && use->failed)
	{
		reply_unavailable(reply);
		return false;
	}
	if (use != NULL || n == 0 || !auth_may(req, cache, AUTH_PUSH) ||
		!notes_use())
		return true;

	use = MemoryContextAllocZero(TopMemoryContext, offsetof(Use, hashes) +
								 (Size) n * STORE_HASH_LEN);
	use->errand.req = req;
	use->errand.done = touched;
	strlcpy(use->errand.job.cache, cache->name,
			sizeof(use->errand.job.cache));
	use->n = n;
	memcpy(use->hashes, hashes, (Size) n * STORE_HASH_LEN);
	http_request_set_data(req, use);
	send_next(use);
	reply->status = REPLY_LATER;
	return false;
}

bool
use_paths(HttpRequest *req, const CacheInfo *cache, const uint8 *hashes,
		  int n, HttpReply *reply)
{
	Job			job;
	int			next = 0;

	if (!use_by_pusher(req, cache, hashes, n, reply))
		return false;
	if (http_request_data(req) != NULL || !notes_use())
		return true;
	while (next < n)
	{
		int			from = next;

		next += make_job(&job, cache->name, n - from);
		if (job_submit(&job, (const char *) hashes +
					   (Size) from * STORE_HASH_LEN, NULL) != JOB_ROOM)
			break;
	}
	return true;
}

void
use_end(HttpRequest *req)
{
	Use		   *use = http_request_data(req);

	if (use == NULL || http_request_method(req) == HTTP_PUT)
		return;
	http_request_set_data(req, NULL);
	pfree(use);
}
