/*-------------------------------------------------------------------------
 *
 * put.c
 *	  PUT: the way of what is uploaded, as far as the HTTP worker goes along.
 *
 *	  route_put			may it come?  401, 403, 405, 413, 415, 503, 507, …
 *		|				before anything of it is read
 *		v
 *	  the body comes	into a temporary file; into memory for a narinfo
 *		|
 *		v
 *	  put_received		whole?  then a job for a writer (errand.h)
 *		v
 *	  stored			its result is the reply
 *
 * The HTTP worker neither syncs, renames nor publishes, and looks into nothing
 * but the text of a narinfo, to unpack it.
 *
 * An answer is 201 or 200 when it is done and durable, here and, if the cache
 * wants that, on other sites: "Narinfo-Copies: 1/2" tells on how many of how
 * many.  Never 202 nor a
 * redirection, which nix takes for an error; what is the client's fault is
 * 4xx, which it shows with our reason and does not try again.
 *
 * Copyright (c) 2026, pg_narinfo contributors
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "utils/guc.h"
#include "utils/memutils.h"

#include "base/narinfo.h"
#include "cache/node.h"
#include "nar/gzip.h"
#include "nar/store.h"
#include "serve/auth.h"
#include "serve/errand.h"
#include "serve/route.h"
#include "sites/pressure.h"

#define CACHE_INFO_MAX (64 * 1024)	/* bytes of a nix-cache-info */
#define HEADERS_MAX 200			/* bytes */
#define LARGE_FILE (16 * 1024 * 1024)	/* bytes */

int			put_max_upload = 16 * 1024; /* MB */
static int	max_narinfo_size = 1024;	/* kB */

typedef struct Upload
{
	Errand		errand;			/* first, so that one is the other */
	PutKind		kind;
	int			fd;				/* where the body goes, or -1 */
	char	   *text;			/* of a narinfo, JOB_TEXT_MAX at most */
} Upload;

void
put_init(void)
{
	DefineCustomIntVariable("pg_narinfo.max_upload_size",
							"Size of a file that is uploaded.",
							NULL, &put_max_upload, 16 * 1024, 1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_narinfo.max_narinfo_size",
							"Size of a narinfo that is uploaded.",
							NULL, &max_narinfo_size, 1024, 1,
							NARINFO_TEXT_MAX / 1024,
							PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
}

/* ---- replies ---- */

/* No memory of PostgreSQL's: it is needed between requests, too. */
static const char *
retry_headers(void)
{
	static char headers[sizeof("Retry-After: 1234567890\r\n" SERVE_NO_STORE)];

	snprintf(headers, sizeof(headers), "Retry-After: %d\r\n" SERVE_NO_STORE,
			 Max(pressure_retry_after(), 1));
	return headers;
}

static const char *
put_headers(int status)
{
	switch (status)
	{
		case 405:
			return "Allow: GET, HEAD\r\n" SERVE_NO_STORE;
		case 415:
			return "Accept-Encoding: gzip\r\n" SERVE_NO_STORE;
		case 503:
			return retry_headers();
		default:
			return SERVE_NO_STORE;
	}
}

static void
put_reply(HttpReply *reply, int status, const char *reason)
{
	reply_text(reply, status, psprintf("%s\n", reason), put_headers(status));
}

/* Always false, so that a check can end with it. */
static bool
put_refuse(HttpReply *reply, int status, const char *reason)
{
	put_reply(reply, status, reason);
	return false;
}

/* ---- uploads ---- */

static void stored(Errand *errand, const JobResult *result);

static Upload *
upload_of(HttpRequest *req)
{
	return http_request_data(req);
}

/*
 * Giving back the space of a large file takes as long as many requests, so a
 * writer does it if one has time.
 */
static bool
leave_to_writer(const Upload *upload)
{
	Job			job = upload->errand.job;
	struct stat st;

	job.kind = JOB_DISCARD;
	job.text_len = 0;
	return upload->fd >= 0 && fstat(upload->fd, &st) == 0 &&
		st.st_size >= LARGE_FILE && job_submit(&job, NULL, NULL) == JOB_ROOM;
}

static void
close_file(Upload *upload)
{
	if (upload->fd >= 0)
		close(upload->fd);
	upload->fd = -1;
}

/* It is over; its temporary file is somebody else's by now, or goes. */
static void
upload_end(Upload *upload)
{
	const Errand *errand = &upload->errand;
	bool		goes = !errand->submitted && !leave_to_writer(upload);

	close_file(upload);
	if (goes)
		store_discard(errand->job.cache, &errand->job.temp);
	http_request_set_data(errand->req, NULL);
	if (upload->text)
		pfree(upload->text);
	pfree(upload);
}

void
put_abandon(HttpRequest *req)
{
	Upload	   *upload = upload_of(req);

	if (http_request_method(req) == HTTP_PUT && upload != NULL)
		upload_end(upload);
}

/* ---- may it come? ---- */

static uint64
size_limit(PutKind kind)
{
	switch (kind)
	{
		case PUT_NARINFO:
			return (uint64) max_narinfo_size * 1024;
		case PUT_CACHE_INFO:
			return CACHE_INFO_MAX;
		case PUT_FILE:
			break;
	}
	return (uint64) put_max_upload * 1024 * 1024;
}

static bool
is_hash(const char *text, size_t len)
{
	uint8		bytes[STORE_HASH_LEN];

	return len == STORE_HASH_TEXT_LEN && store_hash_decode(text, bytes);
}

/* Takes over the path, "?…" included, which nix 2.8 does not encode. */
static bool
take_path(HttpRequest *req, Upload *upload, Span what, HttpReply *reply)
{
	Span		query = http_request_query(req);
	const char *path = pnstrdup(what.data, what.len);
	const char *trouble;

	if (upload->kind == PUT_CACHE_INFO)
		return true;
	if (upload->kind == PUT_FILE && query.data != NULL)
		path = psprintf("%s?%.*s", path, (int) query.len, query.data);
	trouble = store_path_trouble(span_of(path, strlen(path)));
	if (trouble != NULL)
		return put_refuse(reply, 400, trouble);
	if ((upload->kind == PUT_NARINFO && !is_hash(path, strlen(path))) ||
		(upload->kind == PUT_FILE && strchr(path, '/') == NULL &&
		 !is_hash(path, strlen(path) - strlen(".ls"))))
		return put_refuse(reply, 400, "this is no hash part of a path");
	strlcpy(upload->errand.job.path, path, sizeof(upload->errand.job.path));
	return true;
}

/* What is named after its content is not to be anything else. */
static bool
take_encoding(HttpRequest *req, Upload *upload, HttpReply *reply)
{
	Span		encoding = http_request_header(req, "Content-Encoding");

	if (http_request_header(req, "Content-Range").data != NULL)
		return put_refuse(reply, 400, "a PUT has no Content-Range");
	if (encoding.data == NULL || encoding.len == 0 ||
		span_is(encoding, "identity"))
		return true;
	if ((!span_is(encoding, "gzip") && !span_is(encoding, "x-gzip")) ||
		upload->kind == PUT_CACHE_INFO ||
		strncmp(upload->errand.job.path, "nar/", 4) == 0)
		return put_refuse(reply, 415,
						  "only gzip is known as Content-Encoding, and none for a NAR");
	upload->errand.job.gzip = true;
	return true;
}

static bool
check_length(HttpRequest *req, const Upload *upload, HttpReply *reply)
{
	int64		length = http_request_content_length(req);

	if (length > 0 && (uint64) length > size_limit(upload->kind))
		return put_refuse(reply, 413, "it is too large for this server");
	return true;
}

static bool
check_room(HttpReply *reply)
{
	switch (job_room())
	{
		case JOB_ROOM:
			return true;
		case JOB_FULL:
			return put_refuse(reply, 503, "too many uploads wait already");
		case JOB_NOBODY:
			return put_refuse(reply, 503, "no writer worker runs now");
		case JOB_NEVER:
			break;
	}
	return put_refuse(reply, 405, "this server takes no uploads");
}

/* What could not be published is not received either. */
static bool
check_pressure(const Upload *upload, HttpReply *reply)
{
	const char *refusal = upload->kind == PUT_CACHE_INFO ? NULL :
	pressure_refusal();

	return refusal == NULL ? true : put_refuse(reply, 503, refusal);
}

/* Opens the file where the body is to go, if it is to go into one. */
static bool
open_file(HttpRequest *req, Upload *upload, HttpReply *reply)
{
	int64		length = http_request_content_length(req);
	Job		   *job = &upload->errand.job;

	if (upload->kind != PUT_FILE)
		return true;
	upload->fd = store_create(job->cache, job->path, &job->temp);
	if (upload->fd < 0 ||
		!store_has_space(upload->fd, (uint64) Max(length, 0)))
		return put_refuse(reply, 507, "no space is left for it");
	return true;
}

static bool
begin(HttpRequest *req, Upload *upload, Span what, HttpReply *reply)
{
	HttpReceived received;

	if (!take_path(req, upload, what, reply) ||
		!take_encoding(req, upload, reply) ||
		!check_length(req, upload, reply) ||
		!check_pressure(upload, reply) ||
		!check_room(reply) ||
		!open_file(req, upload, reply))
		return false;
	if (http_request_receive(req, upload->fd, size_limit(upload->kind)))
		return true;
	received = http_request_received(req);
	return put_refuse(reply, received.status, received.reason);
}

/*
 * A mirror takes what the primary publishes, and nothing else; who was the
 * primary, and is not any more, takes nothing.
 */
static bool
refused_by_mirror(HttpReply *reply)
{
	NodeState	state;
	const char *detail;

	batch_transaction();
	if (cache_catalog() == NULL)
		return false;
	state = node_state();
	if (state != NODE_MIRROR && state != NODE_CLOSED)
		return false;
	detail = node_mirror_detail ? node_mirror_detail() : NULL;
	if (node_is_switching())
		put_reply(reply, 503, "another site is about to take over: try again");
	else
		put_reply(reply, 403,
				  psprintf("this site %s. %s", state == NODE_MIRROR ?
						   "is a mirror" : "does not publish any more",
						   detail ? detail : "Push to the primary."));
	return true;
}

void
route_put(HttpRequest *req, const CacheInfo *cache, PutKind kind, Span what,
		  HttpReply *reply)
{
	Upload	   *upload;

	if (auth_request(req, cache, AUTH_PUSH, reply) != AUTH_GRANTED)
		return;
	if (refused_by_mirror(reply))
		return;
	if (nar_file_root[0] == '\0')
	{
		put_reply(reply, 405, "this server has no files");
		return;
	}

	upload = MemoryContextAllocZero(TopMemoryContext, sizeof(Upload));
	upload->errand.req = req;
	upload->errand.done = stored;
	upload->kind = kind;
	upload->fd = -1;
	upload->errand.job.kind = (kind == PUT_FILE) ? JOB_STORE : JOB_PUBLISH;
	strlcpy(upload->errand.job.cache, cache->name, CACHE_NAME_MAX + 1);
	http_request_set_data(req, upload);
	if (!begin(req, upload, what, reply))
		upload_end(upload);
}

/* ---- the body is here ---- */

/*
 * nix writes one where there is none, which is never; whoever does so all the
 * same is told whether it says what ours says.
 */
static void
compare_cache_info(const CacheInfo *cache, Span text, HttpReply *reply)
{
	static const char field[] = "StoreDir: ";
	const char *line = pnstrdup(text.data, text.len);

	while (line != NULL && strncmp(line, field, strlen(field)) != 0)
	{
		line = strchr(line, '\n');
		line = (line == NULL) ? NULL : line + 1;
	}
	if (line != NULL)
	{
		line += strlen(field);
		line = pnstrdup(line, strcspn(line, "\r\n"));
	}
	if (line != NULL && strcmp(line, cache->store_dir) == 0)
		put_reply(reply, 200, "it was there");
	else
		put_reply(reply, 403,
				  psprintf("StoreDir of this cache is %s; narinfo.alter_cache() changes it",
						   cache->store_dir));
}

/* A long text goes to the writer as a file. */
static bool
write_text(Upload *upload, Span text)
{
	size_t		done = 0;
	ssize_t		n = 0;

	/* it is no path of a file, but one of those beside it */
	upload->fd = store_create(upload->errand.job.cache, ".narinfo",
							  &upload->errand.job.temp);
	while (upload->fd >= 0 && done < text.len && n >= 0)
	{
		n = write(upload->fd, text.data + done, text.len - done);
		if (n < 0 && errno == EINTR)
			n = 0;
		done += (size_t) Max(n, 0);
	}
	return upload->fd >= 0 && done == text.len;
}

static bool
take_narinfo(Upload *upload, Span text, HttpReply *reply)
{
	if (upload->errand.job.gzip)
	{
		switch (gzip_unpack(text, (size_t) size_limit(PUT_NARINFO), &text))
		{
			case GZIP_OK:
				break;
			case GZIP_TOO_LARGE:
				return put_refuse(reply, 413, "it is too large unpacked");
			case GZIP_BAD:
				return put_refuse(reply, 400, "it is not whole as gzip");
			case GZIP_ERROR:
				return put_refuse(reply, 503, "there is no memory for it");
		}
	}
	if (text.len > JOB_TEXT_MAX)
		return write_text(upload, text) ? true :
			put_refuse(reply, 507, "no space is left for it");
	upload->text = MemoryContextAlloc(TopMemoryContext, text.len + 1);
	memcpy(upload->text, text.data, text.len);
	upload->errand.job.text_len = (uint32) text.len;
	return true;
}

/* The writer has done it, or nobody will. */
static void
stored(Errand *errand, const JobResult *result)
{
	HttpRequest *req = errand->req;
	HttpReply	reply;
	char		text[JOB_REASON_MAX + 2];
	char		headers[HEADERS_MAX];

	/* no memory of PostgreSQL's: this is between requests */
	snprintf(text, sizeof(text), "%s\n", result->reason);
	memset(&reply, 0, sizeof(reply));
	reply.fd = -1;
	headers[0] = '\0';
	if (result->asked > 0)
		snprintf(headers, sizeof(headers), "Narinfo-Copies: %d/%d\r\n",
				 result->copies, result->asked);
	strlcat(headers, put_headers(result->status), sizeof(headers));
	reply_text(&reply, result->status, text, headers);
	upload_end((Upload *) errand);
	http_reply(req, &reply);
}

static bool
to_the_queue(Upload *upload, Span data, HttpReply *reply)
{
	if (upload->kind == PUT_NARINFO && !take_narinfo(upload, data, reply))
		return false;
	close_file(upload);
	upload->errand.text = upload->text;
	errand_begin(&upload->errand);
	return true;
}

void
put_received(HttpRequest *req, HttpReply *reply)
{
	Upload	   *upload = upload_of(req);
	HttpReceived received = http_request_received(req);
	CacheInfo	cache;

	/* an error came between, and this is the second try */
	if (upload == NULL)
	{
		reply_unavailable(reply);
		return;
	}
	if (!received.complete)
		put_reply(reply, received.status, received.reason);
	else if (upload->kind != PUT_CACHE_INFO)
	{
		if (to_the_queue(upload, received.data, reply))
			return;
	}
	else if (batch_cache(upload->errand.job.cache, &cache) == SERVE_FOUND)
		compare_cache_info(&cache, received.data, reply);
	else
		reply_unavailable(reply);
	upload_end(upload);
}
