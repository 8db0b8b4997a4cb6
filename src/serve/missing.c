/*-------------------------------------------------------------------------
 *
 * missing.c
 *	  Files that valid narinfos name and that are not here: the client is sent
 *	  to a site that has the file, or it is fetched.
 *
 *	  route_file: not there
 *		|
 *		v
 *	  route_missing_file --- off, no narinfo names it, no source: 404
 *		|			|
 *		|			+------ redirect, or HEAD: who has it? (probe.c)
 *		|										302, or 200
 *		v
 *	  a view of the fetch, ours or another worker's (fetch/claim.h)
 *		|
 *		|	serve_missing looks how far it is
 *		v
 *	  replies from the temporary file while it grows (http/growth.h)
 *
 * So a client that reads slowly reads from a file, and holds up nobody.  When
 * the file turns out wrong its connection is cut; when it is good, a writer
 * worker brings it to its place, as what is put.
 *
 * A request that says that it is from a site is answered from the files that
 * are here, and so is whoever may push and asks whether he has to.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "lib/ilist.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "http/conditional.h"
#include "http/growth.h"
#include "serve/bring.h"
#include "serve/jobs.h"
#include "serve/route.h"
#include "serve/serve.h"

/* So long a request waits until another file may be fetched, ms. */
#define PATIENCE		30000

#define LOOK_PAUSE		200		/* ms between looks when nobody wakes us */

#define LOCATION_MAX	BRING_URL_MAX

typedef enum MissingPolicy
{
	MISSING_OFF,
	MISSING_REDIRECT,
	MISSING_FETCH
} MissingPolicy;

static int	missing_files = MISSING_OFF;

static const struct config_enum_entry policies[] = {
	{"off", MISSING_OFF, false},
	{"redirect", MISSING_REDIRECT, false},
	{"fetch", MISSING_FETCH, false},
	{NULL, 0, false}
};

/*
 * A request that waits.  It is what the server keeps for us with the request,
 * and one piece of memory, which use_end() may free.
 */
typedef struct Missing
{
	dlist_node	node;			/* of a view's, or in "queued" */
	HttpRequest *req;
	const char *content_type;
	const char *cache_control;
	bool		redirect;		/* of a probe: by 302, else 200 */
	TimestampTz give_up;
} Missing;

/* What this process sees of a fetch. */
typedef struct View
{
	dlist_node	node;
	char		cache[CACHE_NAME_MAX + 1];
	char		path[STORE_FILE_PATH_MAX + 1];
	ClaimRef	claim;
	ClaimLook	look;			/* as it was seen last */
	int			fd;				/* of the temporary file, or -1 */
	HttpGrowth *growth;			/* the same; or NULL */
	dlist_head	waiting;		/* requests that are not answered yet */
} View;

static dlist_head views = DLIST_STATIC_INIT(views);
static dlist_head queued = DLIST_STATIC_INIT(queued);
static bool joined = false;		/* a request has, and was not looked at yet */

void
missing_init(void)
{
	DefineCustomEnumVariable("pg_narinfo.missing_files",
							 "What is done about files that a valid narinfo "
							 "names and that are not here.",
							 "\"redirect\" sends clients to a source that "
							 "has the file, \"fetch\" fetches it. Sources "
							 "are in narinfo.file_source.",
							 &missing_files, MISSING_OFF, policies,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* ---- replies ---- */

/* The request is answered, between requests. */
static void
send_reply(Missing *missing, HttpReply *reply)
{
	HttpRequest *req = missing->req;

	http_request_set_data(req, NULL);
	pfree(missing);
	http_reply(req, reply);
}

static void
send_text(Missing *missing, int status, const char *text, const char *headers)
{
	HttpReply	reply = {.fd = -1};

	reply_text(&reply, status, text, headers);
	send_reply(missing, &reply);
}

/* It may be there in a moment, so nobody is to remember this. */
static void
reply_not_had(HttpReply *reply)
{
	reply_text(reply, 404, "not found\n", SERVE_NO_STORE);
}

static void
send_absent(Missing *missing)
{
	send_text(missing, 404, "not found\n", SERVE_NO_STORE);
}

/* It is answered as if it came now. */
static void
send_again(Missing *missing)
{
	serve_request(missing->req);
}

/* The whole of a file that grows, or the part that was asked for. */
static void
send_stream(View *view, Missing *missing)
{
	HttpSelection selection;
	HttpReply	reply = {.fd = -1};
	char		headers[sizeof(selection.headers) + SERVE_HEADER_MAX];

	http_select(missing->req, NULL, 0, (off_t) view->look.size, &selection);
	snprintf(headers, sizeof(headers), "%s%s", selection.headers,
			 selection.status == 416 ? "" : missing->cache_control);
	reply.status = selection.status;
	reply.content_type = missing->content_type;
	reply.headers = headers;
	if (selection.length > 0)
	{
		reply.fd = fcntl(view->fd, F_DUPFD_CLOEXEC, 0);
		reply.offset = selection.offset;
		reply.length = selection.length;
		reply.growth = view->growth;
	}
	if (selection.length > 0 && reply.fd < 0)
		send_text(missing, 503, "too many files are open\n",
				  "Retry-After: 1\r\n" SERVE_NO_STORE);
	else
		send_reply(missing, &reply);
}

/* ---- requests that wait ---- */

static Missing *
missing_of(HttpRequest *req, const CacheInfo *cache, const char *content_type)
{
	Missing    *missing = http_request_data(req);

	if (missing != NULL)
		return missing;
	missing = MemoryContextAllocZero(TopMemoryContext, sizeof(Missing));
	missing->req = req;
	missing->content_type = content_type;
	missing->cache_control = cache->is_private ? SERVE_FOR_EVER_PRIVATE :
		SERVE_FOR_EVER;
	missing->give_up = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   PATIENCE);
	http_request_set_data(req, missing);
	return missing;
}

static void
send_all(View *view, void (*send) (Missing *))
{
	while (!dlist_is_empty(&view->waiting))
		send(dlist_container(Missing, node,
							 dlist_pop_head_node(&view->waiting)));
}

/* ---- views ---- */

static View *
find_view(const char *cache, const char *path)
{
	dlist_iter	iter;

	dlist_foreach(iter, &views)
	{
		View	   *view = dlist_container(View, node, iter.cur);

		if (strcmp(view->path, path) == 0 && strcmp(view->cache, cache) == 0)
			return view;
	}
	return NULL;
}

static View *
make_view(const char *cache, const char *path, const ClaimRef *claim)
{
	View	   *view = MemoryContextAllocZero(TopMemoryContext, sizeof(View));

	strlcpy(view->cache, cache, sizeof(view->cache));
	strlcpy(view->path, path, sizeof(view->path));
	view->claim = *claim;
	view->fd = -1;
	dlist_init(&view->waiting);
	dlist_push_tail(&views, &view->node);
	return view;
}

/* What is sent from it goes on by itself, or is cut. */
static void
close_view(View *view, HttpGrowthState state)
{
	if (view->growth != NULL)
	{
		http_growth_set(view->growth, (off_t) view->look.there, state);
		http_growth_release(view->growth);
	}
	view->growth = NULL;
	if (view->fd >= 0)
		close(view->fd);
	view->fd = -1;
}

static void
end_view(View *view, HttpGrowthState state, void (*send) (Missing *))
{
	dlist_delete(&view->node);
	close_view(view, state);
	send_all(view, send);
	pfree(view);
}

static bool
open_view(View *view)
{
	if (view->growth != NULL)
		return true;
	view->fd = store_open_temp(view->cache, &view->look.temp);
	if (view->fd >= 0)
		view->growth = http_growth_create();
	if (view->growth != NULL)
		return true;
	close_view(view, HTTP_GROWTH_FAILED);
	return false;
}

/* There is something to send, or all of it. */
static void
send_some(View *view, HttpGrowthState state)
{
	if (!view->look.has_size || view->look.size == 0 || !open_view(view))
		return;
	while (!dlist_is_empty(&view->waiting))
		send_stream(view,
					dlist_container(Missing, node,
									dlist_pop_head_node(&view->waiting)));
	http_growth_set(view->growth, (off_t) view->look.there, state);
}

static void
look_at(View *view)
{
	uint32		round = view->look.round;

	if (!claim_look(&view->claim, &view->look))
	{
		end_view(view, HTTP_GROWTH_FAILED, send_again);
		return;
	}
	if (view->look.round != round)
		close_view(view, HTTP_GROWTH_FAILED);
	switch (view->look.state)
	{
		case CLAIM_FREE:
		case CLAIM_ASKING:
			break;
		case CLAIM_COMING:
			send_some(view, HTTP_GROWTH_COMING);
			break;
		case CLAIM_GOOD:
			send_some(view, HTTP_GROWTH_GOOD);
			break;
		case CLAIM_KEPT:
			end_view(view, HTTP_GROWTH_GOOD, send_again);
			break;
		case CLAIM_UNKEPT:
			send_some(view, HTTP_GROWTH_GOOD);
			end_view(view, HTTP_GROWTH_GOOD, send_again);
			break;
		case CLAIM_FAILED:
			end_view(view, HTTP_GROWTH_FAILED, send_absent);
			break;
	}
}

/* ---- who has it? ---- */

static void
probed(void *arg, const char *found, uint64 size)
{
	Missing    *missing = arg;
	HttpReply	reply = {.fd = -1};
	char		headers[LOCATION_MAX + SERVE_HEADER_MAX];

	if (found == NULL || strlen(found) >= LOCATION_MAX)
	{
		send_absent(missing);
		return;
	}
	if (missing->redirect)
	{
		snprintf(headers, sizeof(headers), "Location: %s\r\n" SERVE_NO_STORE,
				 found);
		fetch_count(FETCH_REDIRECTED, 1);
		send_text(missing, 302, "another site has it\n", headers);
		return;
	}
	snprintf(headers, sizeof(headers), "Accept-Ranges: bytes\r\n%s",
			 missing->cache_control);
	reply.status = 200;
	reply.content_type = missing->content_type;
	reply.headers = headers;
	reply.body_len = size;		/* of a HEAD, so it is not sent */
	send_reply(missing, &reply);
}

static void
ask_around(HttpRequest *req, const CacheInfo *cache, const NamedFile *file,
		   List *sources, bool redirect, const char *content_type,
		   HttpReply *reply)
{
	Missing    *missing = missing_of(req, cache, content_type);

	missing->redirect = redirect;
	if (probe_begin(sources, file->url, file->has_size, file->size, probed,
					missing))
		reply->status = REPLY_LATER;
	else
		reply_not_had(reply);
}

/* ---- fetching ---- */

/* Is there room for it, and pg_narinfo.upload_reserve? */
static bool
has_room(const char *cache, uint64 size)
{
	char		path[CACHE_NAME_MAX + 8];
	int			fd;
	bool		room;

	snprintf(path, sizeof(path), "%s%snar",
			 strcmp(cache, CACHE_MAIN) == 0 ? "" : cache,
			 strcmp(cache, CACHE_MAIN) == 0 ? "" : "/");
	fd = nar_try_beneath(nar_root(), path, O_PATH | O_DIRECTORY, 0, 0);
	room = store_has_space(fd >= 0 ? fd : nar_root(), size);
	if (fd >= 0)
		close(fd);
	return room;
}

static bool
can_fetch(const CacheInfo *cache, const NamedFile *file)
{
	return missing_files == MISSING_FETCH &&
		bring_trouble(file) == NULL && nar_root() >= 0 &&
		job_room() != JOB_NEVER && has_room(cache->name, file->size);
}

/* It is there after all: whoever had claimed it before us has stored it. */
static bool
is_there(const CacheInfo *cache, const char *path, const ClaimRef *claim)
{
	struct stat st;
	ClaimLook	look = {.state = CLAIM_KEPT};
	int			fd = nar_open_path(cache->name, path, &st);

	if (fd < 0)
		return false;
	close(fd);
	claim_set(claim, &look, true);
	return true;
}

static void
join(View *view, Missing *missing, HttpReply *reply)
{
	dlist_push_tail(&view->waiting, &missing->node);
	joined = true;
	reply->status = REPLY_LATER;
}

static void
fetch(HttpRequest *req, const CacheInfo *cache, const char *path,
	  const NamedFile *file, List *sources, const char *content_type,
	  HttpReply *reply)
{
	View	   *view = find_view(cache->name, path);
	ClaimRef	claim;

	if (view != NULL)
	{
		join(view, missing_of(req, cache, content_type), reply);
		return;
	}
	switch (claim_take(cache->name, path, fetch_max, &claim))
	{
		case CLAIM_MINE:
			if (is_there(cache, path, &claim))
			{
				route_file(req, cache, span_of(path, strlen(path)),
						   content_type, SERVE_FOR_EVER, reply);
				return;
			}
			(void) bring_begin(cache->name, path, file, sources, &claim);
			/* FALLTHROUGH */
		case CLAIM_SHARED:
			view = make_view(cache->name, path, &claim);
			join(view, missing_of(req, cache, content_type), reply);
			return;
		case CLAIM_FAILED_LATELY:
			reply_not_had(reply);
			return;
		case CLAIM_FULL:
			dlist_push_tail(&queued, &missing_of(req, cache,
												 content_type)->node);
			reply->status = REPLY_LATER;
			return;
	}
}

/* ---- the route ---- */

/* Is it for us to look for it elsewhere? */
static bool
is_asked_for(HttpRequest *req, Span path)
{
	return missing_files != MISSING_OFF && span_starts(path, "nar/") &&
		path.len <= STORE_FILE_PATH_MAX &&
		http_request_header(req, FETCH_SITE_HEADER).data == NULL;
}

/* What looks like a query may be the end of the name, as in nar/root.c. */
static ServeResult
find_file(HttpRequest *req, const CacheInfo *cache, Span asked, char **path,
		  NamedFile *file)
{
	Span		query = http_request_query(req);
	ServeResult result = SERVE_ABSENT;

	if (query.data != NULL && asked.len + query.len < STORE_FILE_PATH_MAX)
	{
		*path = psprintf("%.*s?%.*s", (int) asked.len, asked.data,
						 (int) query.len, query.data);
		result = batch_file(cache, *path, file);
	}
	if (result == SERVE_ABSENT)
	{
		*path = pnstrdup(asked.data, asked.len);
		result = batch_file(cache, *path, file);
	}
	return result;
}

void
route_missing_file(HttpRequest *req, const CacheInfo *cache, Span asked,
				   const char *content_type, HttpReply *reply)
{
	bool		is_head = http_request_method(req) == HTTP_HEAD;
	NamedFile	file;
	char	   *path;
	List	   *sources = NIL;
	ServeResult result = SERVE_ABSENT;

	if (is_asked_for(req, asked))
		result = find_file(req, cache, asked, &path, &file);
	if (result == SERVE_FOUND && bring_is_plain_url(file.url) &&
		store_path_trouble(span_of(path, strlen(path))) == NULL)
		sources = batch_sources(cache);

	if (result == SERVE_UNAVAILABLE)
		reply_unavailable(reply);
	else if (result == SERVE_RESTORING)
		reply_restoring(reply);
	else if (sources == NIL)
		reply_absent(reply);
	else if (!can_fetch(cache, &file))
	{
		/* whoever is sent on could not show the token */
		if (cache->is_private)
			reply_not_had(reply);
		else
			ask_around(req, cache, &file, sources, true, content_type, reply);
	}
	else if (is_head)
		ask_around(req, cache, &file, sources, false, content_type, reply);
	else
		fetch(req, cache, path, &file, sources, content_type, reply);
}

/* ---- between batches ---- */

static void
look_at_queue(TimestampTz now)
{
	int			room = fetch_max - claim_running();
	dlist_mutable_iter iter;
	dlist_head	ready;

	dlist_init(&ready);
	dlist_foreach_modify(iter, &queued)
	{
		Missing    *missing = dlist_container(Missing, node, iter.cur);

		if (room-- > 0)
		{
			dlist_delete(&missing->node);
			dlist_push_tail(&ready, &missing->node);
		}
		else if (now >= missing->give_up)
		{
			dlist_delete(&missing->node);
			fetch_count(FETCH_REFUSED, 1);
			send_text(missing, 503, "too many files are being fetched\n",
					  "Retry-After: 5\r\n" SERVE_NO_STORE);
		}
	}
	while (!dlist_is_empty(&ready))
		send_again(dlist_container(Missing, node,
								   dlist_pop_head_node(&ready)));
}

bool
serve_missing(bool woken)
{
	static TimestampTz next_look = 0;
	dlist_mutable_iter iter;
	TimestampTz now;

	if (dlist_is_empty(&views) && dlist_is_empty(&queued))
		return false;
	now = GetCurrentTimestamp();
	if (woken || joined || now >= next_look)
	{
		joined = false;
		next_look = TimestampTzPlusMilliseconds(now, LOOK_PAUSE);
		dlist_foreach_modify(iter, &views)
		{
			look_at(dlist_container(View, node, iter.cur));
		}
		if (!dlist_is_empty(&queued))
			look_at_queue(now);
	}
	serve_finish();
	return !dlist_is_empty(&views) || !dlist_is_empty(&queued);
}
