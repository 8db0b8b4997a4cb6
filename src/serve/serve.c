/*-------------------------------------------------------------------------
 *
 * serve.c
 *	  Routes: from the path of a request to what answers it.
 *
 *		/health
 *		/WHAT					in the default cache, pg_narinfo.cache
 *		/CACHE/WHAT				in the cache of this name
 *
 * where WHAT is
 *
 *		nix-cache-info
 *		HASH.narinfo			from the database
 *		changes?after=N&limit=M	events with narinfos, from the database
 *		HASH.closure			narinfos, see bulk.c
 *		narinfos, missing		the same, by POST
 *		HASH.ls					files, see files.c and put.c
 *		nar/… log/… realisations/… debuginfo/…
 *		auth/challenge, auth	tokens for holders of keys, see proof.c
 *
 * A path that is none of these is absent, whatever its method; so is one in a
 * cache that is not there.  A private cache wants a token for everything else
 * below it, what is absent included, so that nobody learns what it holds.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/guc.h"

#include "cache/lookup_memory.h"
#include "cache/node.h"
#include "nar/root.h"
#include "serve/auth.h"
#include "serve/route.h"
#include "serve/serve.h"

#define DAY (24 * 60 * 60)		/* seconds */

char	   *serve_checkpoint_url = NULL;
char		serve_lasting[SERVE_HEADER_MAX];
char		serve_passing[SERVE_HEADER_MAX];

static int	narinfo_max_age = DAY;
static int	absent_max_age = 60;
static int	lookup_memory = 16 * 1024;

typedef enum RouteKind
{
	ROUTE_NONE,
	ROUTE_CACHE_INFO,
	ROUTE_NARINFO,
	ROUTE_CHANGES,
	ROUTE_CHALLENGE,
	ROUTE_AUTH,
	ROUTE_CLOSURE,
	ROUTE_NARINFOS,
	ROUTE_MISSING,
	ROUTE_FILE
} RouteKind;

typedef struct Route
{
	RouteKind	kind;
	Span		what;			/* the hash of a narinfo or closure, the path
								 * of a file */
	const char *content_type;	/* of a file */
	const char *cache_control;
} Route;

typedef struct FileKind
{
	const char *prefix;
	const char *content_type;
	const char *cache_control;
} FileKind;

/*
 * A NAR is named after its content, or at least after a store path that is
 * never made twice, so it may be kept for ever.
 */
static const FileKind file_kinds[] = {
	{"nar/", "application/x-nix-nar", SERVE_FOR_EVER},
	{"log/", "text/plain; charset=utf-8", serve_lasting},
	{"realisations/", "application/json", serve_lasting},
	{"debuginfo/", "application/json", serve_lasting}
};

/*
 * Guix obeys max-age as the time for which it believes a narinfo, or its
 * absence, without asking again; nix ignores it (30 days, and an hour).
 * A day is less than the 36 hours that guix takes without it and than any
 * grace in which removed files are kept; a minute lets a path be seen soon
 * after it was published, and still spares us most of the repeated misses.
 */
void
serve_init(void)
{
	DefineCustomStringVariable("pg_narinfo.checkpoint_url",
							   "Where followers of a cache find its "
							   "checkpoint, in a directory of its name.",
							   "Told to those who ask for events that are "
							   "not kept any more.",
							   &serve_checkpoint_url, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.narinfo_max_age",
							"Time for which clients may keep a narinfo.",
							NULL, &narinfo_max_age, DAY, 0, 365 * DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.absent_max_age",
							"Time for which clients may keep that something "
							"is absent.",
							NULL, &absent_max_age, 60, 0, 365 * DAY,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.lookup_memory",
							"Memory of each HTTP worker for what it has "
							"looked up.",
							"Half for where rows are, 8 bytes each; half for "
							"absent ones, 32 bytes each. Both are answered "
							"without the index.",
							&lookup_memory, 16 * 1024, 0, 1024 * 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
	auth_init();
	bulk_init();
	put_init();
	missing_init();
}

void
serve_reload(void)
{
	snprintf(serve_lasting, sizeof(serve_lasting),
			 "Cache-Control: public, max-age=%d\r\n", narinfo_max_age);
	snprintf(serve_passing, sizeof(serve_passing),
			 "Cache-Control: public, max-age=%d\r\n", absent_max_age);
	lookup_memory_resize((size_t) lookup_memory * 1024);
	nar_root_reload();
}

/* ---- replies ---- */

void
reply_text(HttpReply *reply, int status, const char *text,
		   const char *headers)
{
	reply->status = status;
	reply->content_type = "text/plain; charset=utf-8";
	reply->headers = headers;
	reply->body = text;
	reply->body_len = strlen(text);
}

void
reply_absent(HttpReply *reply)
{
	reply_text(reply, 404, "not found\n", serve_passing);
}

void
reply_unavailable(HttpReply *reply)
{
	reply_text(reply, 503, "the database cannot answer now\n",
			   "Retry-After: 1\r\n" SERVE_NO_STORE);
}

void
reply_restoring(HttpReply *reply)
{
	reply_text(reply, 503, node_is_consistent() ?
			   "the database is being restored, until narinfo.start()\n" :
			   "this mirror is being filled\n",
			   "Retry-After: 30\r\n" SERVE_NO_STORE);
}

/*
 * What is said to the holder of a token is not to be kept for others: a shared
 * proxy may keep even the reply to a request with Authorization, if that is
 * called public (RFC 9111, 3.5).
 */
static void
make_private(HttpReply *reply)
{
	static const char public[] = "Cache-Control: public";
	const char *found = reply->headers ? strstr(reply->headers, public) : NULL;

	if (found != NULL)
		reply->headers = psprintf("%.*sCache-Control: private%s",
								  (int) (found - reply->headers),
								  reply->headers, found + strlen(public));
}

/* Is it a method other than GET and HEAD? */
static bool
is_writing(const HttpRequest *req)
{
	HttpMethod	method = http_request_method(req);

	return method != HTTP_GET && method != HTTP_HEAD;
}

/* What can be put by those who may; the others are told so by route_put(). */
static bool
route_upload(HttpRequest *req, const CacheInfo *cache, const Route *route,
			 HttpReply *reply)
{
	if (http_request_method(req) != HTTP_PUT)
		return false;
	switch (route->kind)
	{
		case ROUTE_NARINFO:
			route_put(req, cache, PUT_NARINFO, route->what, reply);
			return true;
		case ROUTE_CACHE_INFO:
			route_put(req, cache, PUT_CACHE_INFO, route->what, reply);
			return true;
		case ROUTE_FILE:
			route_put(req, cache, PUT_FILE, route->what, reply);
			return true;
		default:
			return false;
	}
}

static void
reply_not_allowed(HttpReply *reply)
{
	reply_text(reply, 405, "only GET and HEAD\n", "Allow: GET, HEAD\r\n");
}

static void
reply_only_post(HttpReply *reply)
{
	reply_text(reply, 405, "only POST\n", "Allow: POST\r\n");
}

bool
route_body(HttpRequest *req, size_t max, Span *body, HttpReply *reply)
{
	HttpReceived received;

	if (!http_request_received(req).begun &&
		http_request_receive(req, -1, max))
	{
		reply->status = REPLY_LATER;
		return false;
	}
	received = http_request_received(req);
	if (received.complete)
	{
		*body = received.data;
		return true;
	}
	reply_text(reply, received.status, psprintf("%s\n", received.reason),
			   received.status == 503 ? "Retry-After: 1\r\n" SERVE_NO_STORE :
			   SERVE_NO_STORE);
	return false;
}

/* ---- routes ---- */

/* Does the span end with this suffix, and with something before it? */
static bool
span_ends(Span span, const char *suffix)
{
	size_t		len = strlen(suffix);

	return span.len > len &&
		memcmp(span.data + span.len - len, suffix, len) == 0;
}

static void
file_route(Route *route, Span path, const char *content_type,
		   const char *cache_control)
{
	route->kind = ROUTE_FILE;
	route->what = path;
	route->content_type = content_type;
	route->cache_control = cache_control;
}

/* What a path means inside a cache; it has no '/' at its beginning. */
static void
find_route(Span path, Route *route)
{
	*route = (Route) {.kind = ROUTE_NONE, .what = path};

	if (memchr(path.data, '/', path.len) == NULL)
	{
		if (span_ends(path, ".narinfo"))
		{
			route->kind = ROUTE_NARINFO;
			route->what = span_of(path.data, path.len - strlen(".narinfo"));
		}
		else if (span_is(path, "nix-cache-info"))
			route->kind = ROUTE_CACHE_INFO;
		else if (span_is(path, "changes"))
			route->kind = ROUTE_CHANGES;
		else if (span_is(path, "auth"))
			route->kind = ROUTE_AUTH;
		else if (span_ends(path, ".closure"))
		{
			route->kind = ROUTE_CLOSURE;
			route->what = span_of(path.data, path.len - strlen(".closure"));
		}
		else if (span_is(path, "narinfos"))
			route->kind = ROUTE_NARINFOS;
		else if (span_is(path, "missing"))
			route->kind = ROUTE_MISSING;
		else if (span_ends(path, ".ls"))
			file_route(route, path, "application/json", serve_lasting);
		return;
	}

	if (span_is(path, "auth/challenge"))
		route->kind = ROUTE_CHALLENGE;
	for (size_t i = 0; i < lengthof(file_kinds); i++)
	{
		const FileKind *kind = &file_kinds[i];

		if (span_starts(path, kind->prefix))
			file_route(route, path, kind->content_type, kind->cache_control);
	}
}

/*
 * Splits "/CACHE/WHAT", and finds the route of WHAT; the default cache when
 * the path as a whole is a route already.  False when the path can name no
 * cache.
 */
static bool
find_cache(Span path, char name[CACHE_NAME_MAX + 1], Route *route)
{
	const char *slash;
	size_t		len;

	path = span_skip(path, 1);
	find_route(path, route);
	if (route->kind != ROUTE_NONE)
	{
		strlcpy(name, cache_default_name, CACHE_NAME_MAX + 1);
		return true;
	}

	slash = memchr(path.data, '/', path.len);
	if (slash == NULL)
		return false;
	len = slash - path.data;
	if (len == 0 || len > CACHE_NAME_MAX)
		return false;
	memcpy(name, path.data, len);
	name[len] = '\0';
	find_route(span_skip(path, len + 1), route);
	return true;
}

/* What is asked by POST. */
static void
route_question(HttpRequest *req, const CacheInfo *cache, RouteKind kind,
			   HttpReply *reply)
{
	if (http_request_method(req) != HTTP_POST)
		reply_only_post(reply);
	else if (kind == ROUTE_NARINFOS)
		route_narinfos(req, cache, reply);
	else
		route_missing(req, cache, reply);
}

/* What the sender of the request may see. */
static void
route_granted(HttpRequest *req, const CacheInfo *cache, const Route *route,
			  HttpReply *reply)
{
	if (route->kind == ROUTE_NONE)
		reply_absent(reply);
	else if (route->kind == ROUTE_NARINFOS || route->kind == ROUTE_MISSING)
		route_question(req, cache, route->kind, reply);
	else if (is_writing(req))
		reply_not_allowed(reply);
	else if (route->kind == ROUTE_NARINFO)
		route_narinfo(req, cache, route->what, reply);
	else if (route->kind == ROUTE_CACHE_INFO)
		route_cache_info(cache, reply);
	else if (route->kind == ROUTE_CHANGES)
		route_changes(req, cache, reply);
	else if (route->kind == ROUTE_CLOSURE)
		route_closure(req, cache, route->what, reply);
	else
		route_file(req, cache, route->what, route->content_type,
				   route->cache_control, reply);
}

static void
route_in_cache(HttpRequest *req, const CacheInfo *cache, const Route *route,
			   HttpReply *reply)
{
	if (route->kind == ROUTE_CHALLENGE)
		route_challenge(req, cache, reply);
	else if (route->kind == ROUTE_AUTH)
		route_auth(req, cache, reply);
	else if (route_upload(req, cache, route, reply))
		return;
	else if (auth_request(req, cache, AUTH_READ, reply) == AUTH_GRANTED)
	{
		route_granted(req, cache, route, reply);
		if (cache->is_private)
			make_private(reply);
	}
}

void
route_request(HttpRequest *req, HttpReply *reply)
{
	Span		path = http_request_path(req);
	char		name[CACHE_NAME_MAX + 1];
	Route		route;
	CacheInfo	cache;

	if (http_request_method(req) == HTTP_PUT &&
		http_request_received(req).begun)
	{
		put_received(req, reply);
		return;
	}
	if (span_is(path, "/health"))
	{
		if (is_writing(req))
			reply_not_allowed(reply);
		else
			route_health(reply);
		return;
	}

	if (!find_cache(path, name, &route))
	{
		reply_absent(reply);
		return;
	}

	switch (batch_cache(name, &cache))
	{
		case SERVE_FOUND:
			route_in_cache(req, &cache, &route, reply);
			break;
		case SERVE_ABSENT:
			reply_absent(reply);
			break;
		case SERVE_UNAVAILABLE:
			reply_unavailable(reply);
			break;
		case SERVE_RESTORING:
			reply_restoring(reply);
			break;
	}
}
